// The backend contract: memory, kernels, one in-order queue, record and replay.
//
// A backend knows nothing about ops, graphs or models. Callers use the gyre_device_*, gyre_buffer_*,
// gyre_kernel_* and gyre_recording_* functions below; they validate every argument once (backend.c)
// and then go through struct gyre_backend, so an implementation may trust what it gets.
//
// Threads: a device and everything made from it belong to one thread at a time.
// Ownership: whoever creates an object destroys it; destroy accepts NULL. Buffers and kernels must
// outlive the recordings that name them; all of them must be destroyed before their device is closed.
// Destroying what queued work still uses is allowed: the work happens first.
#pragma once
#include "runtime/util/log.h"
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GYRE_MAX_BINDINGS = 12,   // buffers of one dispatch
    GYRE_MAX_SPEC = 16,       // specialization constants of one kernel; 0, 1, 2 are WGX, WGY, WGZ
    GYRE_MAX_PARAMS = 128,    // bytes of one dispatch's parameter struct (push constants)
    GYRE_SUBMISSION_MS = 100, // of predicted time that one submission may hold
    GYRE_MAX_AT_ONCE = 16,    // replays of a recording that one submission may hold
    GYRE_BIND_ALIGN = 256,    // every binding offset is a multiple of this: what Vulkan allows a driver to ask for
};

// How int8 dot products run: not at all (the kernel emulates them bit-identically) or in hardware.
typedef enum gyre_int_dot { GYRE_INT_DOT_NONE, GYRE_INT_DOT_EMULATED, GYRE_INT_DOT_ACCELERATED } gyre_int_dot;

// How a device runs the invocations of one workgroup; workgroups and tiles are cut to it.
typedef enum gyre_lanes {
    GYRE_LANES_HARDWARE, // subgroups in lockstep, many workgroups in flight: a GPU
    GYRE_LANES_SIMD,     // a workgroup on one CPU thread, invocations in its SIMD lanes (lavapipe)
    GYRE_LANES_LOOP,     // a workgroup on one CPU thread as a loop over invocations, which pays for barriers (PoCL)
} gyre_lanes;

// A shape that matrix units multiply at once, m x k by k x n, by a subgroup of so many invocations; all 0: none.
struct gyre_matrix_shape {
    uint32_t m, n, k, lanes;
};

struct gyre_device_info {
    char id[32];            // "vulkan:0": backend name and index
    char name[128];         // as the driver gives it
    char driver[128];       // driver name and version, for people and for cache keys
    bool software;          // a CPU that poses as a GPU (lavapipe, PoCL), or the cpu device
    uint64_t memory_bytes;  // device-local memory; the host's for software devices
    uint64_t max_buffer;    // bytes in one allocation
    uint64_t max_binding;   // bytes one binding may span (maxStorageBufferRange)
    uint32_t max_workgroup; // invocations in one workgroup
    uint32_t max_group_size[3];
    uint32_t max_groups[3];              // workgroups in each dimension
    uint32_t shared_bytes;               // workgroup-shared memory
    uint32_t subgroup_min, subgroup_max; // 0 where the API reports none
    gyre_lanes lanes;
    uint32_t
        max_loop; // iterations after which the driver ends an invocation's loops, all of a kernel's together; 0: never
    gyre_int_dot int_dot;
    bool f16;                            // half arithmetic (storage of halves needs nothing)
    bool unified;                        // integrated or software: host and device share memory
    char cooperative_matrix[4][32];      // "16x16x32 s8s8s32": supported shapes, empty strings at the end
    struct gyre_matrix_shape matrix_s8;  // the one for int8 with sums in int32; kernels with GYRE_NEED_CM_S8 use it
    struct gyre_matrix_shape matrix_f16; // for halves with sums in f32, where there is one for int8: GYRE_NEED_CM_F16
};

struct gyre_device_options {
    const gyre_log *log;    // may be NULL; must outlive the device
    const char *cache_dir;  // pipeline and program caches; NULL: none on disk
    bool validate;          // Vulkan: validation layers with synchronization validation
    uint64_t limit_binding; // test hooks: pretend a smaller max_binding / max_buffer; 0: the device's
    uint64_t limit_buffer;
    bool as_hardware;   // test hook: let kernels be chosen as for a GPU; emulated int8 dot products count as hardware's
    bool staging;       // test hook: pretend that host and device share no memory
    bool emulated_dot;  // test hook: take kernels' int8 dot form also where the device emulates it
    uint64_t fail_call; // test hook: the n-th fallible call on this device (1: the first) fails; 0: none
};

typedef struct gyre_device gyre_device;
typedef struct gyre_buffer gyre_buffer;
typedef struct gyre_kernel gyre_kernel;
typedef struct gyre_recording gyre_recording;

struct gyre_binding {
    gyre_buffer *buffer;
    uint64_t offset, size; // bytes; offset is a multiple of GYRE_BIND_ALIGN, size of 4, size > 0
};

// One kernel launch as plain data. The kernel's first n_writes bindings are written (or read and
// written), the others are only read; barriers are derived from that by overlap of byte ranges.
struct gyre_dispatch {
    gyre_kernel *kernel;
    struct gyre_binding bind[GYRE_MAX_BINDINGS];
    unsigned char params[GYRE_MAX_PARAMS]; // the kernel's params_size bytes, a struct of shaders/params.h
    uint32_t groups[3];                    // workgroups; all > 0
    float ms;                              // predicted time; 0: not predicted, and taken for one
};

struct gyre_kernel_params {
    const char *name; // a row of shaders/kernels.def
    uint32_t n_spec;  // values for constant ids 0..n_spec-1; 0,1,2 = workgroup size
    uint32_t spec[GYRE_MAX_SPEC];
};

// ---- devices ----------------------------------------------------------------------------------------

// Why a compiled-in backend offers nothing ("libvulkan.so.1 not found").
struct gyre_absent {
    const char *backend;
    char why[160];
};

// Lists the devices of all compiled-in backends except `null`, hardware before software, `cpu` last.
// Writes at most `cap` rows and returns the number that exist. `absent` (cap_absent rows, may be NULL)
// gets the backends without a device; *n_absent their number.
int gyre_devices_list(struct gyre_device_info *out, int cap, struct gyre_absent *absent, int cap_absent, int *n_absent);

// Opens "vulkan:0", "opencl:1", "cpu", "null"; "vulkan" is short for "vulkan:0"; NULL or "auto" takes the
// first of gyre_devices_list. GYRE_E_NO_DEVICE, with a list of what exists, if there is none of that name.
// `options` may be NULL and is copied, except what it points to.
gyre_status gyre_device_open(const char *id, const struct gyre_device_options *options, gyre_device **out,
                             gyre_error *err) GYRE_MUST_USE;
// Objects that are still alive are a bug of the caller: each one is named in the log.
void gyre_device_close(gyre_device *device);
const struct gyre_device_info *gyre_device_info(const gyre_device *device);

// ---- memory -----------------------------------------------------------------------------------------

// `label` names the buffer in messages and debuggers. Contents are undefined until written.
gyre_status gyre_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                               gyre_error *err) GYRE_MUST_USE;
void gyre_buffer_destroy(gyre_device *device, gyre_buffer *buffer);
uint64_t gyre_buffer_size(const gyre_buffer *buffer);

// Copies, ordered with submissions. Offsets and sizes are in bytes and need no alignment. When write
// returns, `source` may be reused; read waits for all work submitted before it.
gyre_status gyre_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                              uint64_t size, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target, uint64_t size,
                             gyre_error *err) GYRE_MUST_USE;

// ---- kernels ----------------------------------------------------------------------------------------

// Compiles (or fetches from the cache) a kernel for the given constants. Equal requests share one object.
// Constants that are not given take the kernel's defaults; of the workgroup size all three or none.
gyre_status gyre_kernel_create(gyre_device *device, const struct gyre_kernel_params *params, gyre_kernel **out,
                               gyre_error *err) GYRE_MUST_USE;
void gyre_kernel_destroy(gyre_device *device, gyre_kernel *kernel);
// After gyre_kernel_create ended so: whether the kernel needs units that the device can do without. From then on the
// device's info says that it has none, and one line in the log says why: drivers offer what they cannot compile. Not
// where memory ran out: there is nothing wrong with the units.
bool gyre_device_forgo(gyre_device *device, const char *kernel, gyre_status failure, const gyre_error *why);

// ---- work -------------------------------------------------------------------------------------------

// Turns `n` dispatches, executed in order, into something that can be replayed without host work.
// The dispatch array may be freed afterwards. A replay is one submission to the device's queue as long as its predicted
// time is below GYRE_SUBMISSION_MS, else so many that each is (a dispatch is never cut): drivers end what runs too
// long.
gyre_status gyre_recording_create(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                                  gyre_recording **out, gyre_error *err) GYRE_MUST_USE;
void gyre_recording_destroy(gyre_device *device, gyre_recording *recording);

// Queues one replay. Does not wait, does not allocate.
gyre_status gyre_submit(gyre_device *device, gyre_recording *recording, gyre_error *err) GYRE_MUST_USE;
// Queues `times` > 0 replays, one behind the other: each sees what the one before wrote. As many of them as
// gyre_recording_at_once says are one submission.
gyre_status gyre_submit_times(gyre_device *device, gyre_recording *recording, uint32_t times,
                              gyre_error *err) GYRE_MUST_USE;
// How many replays one submission holds: 1 to GYRE_MAX_AT_ONCE, what GYRE_SUBMISSION_MS allows.
uint32_t gyre_recording_at_once(const gyre_recording *recording);
gyre_status gyre_wait(gyre_device *device, gyre_error *err) GYRE_MUST_USE;

// Runs one replay alone and reports each dispatch's time in ns[n] (0 where the device cannot tell).
gyre_status gyre_profile(gyre_device *device, gyre_recording *recording, uint64_t *ns, gyre_error *err) GYRE_MUST_USE;

// Records, submits and waits: for work that runs once (repacking weights, tests).
gyre_status gyre_run_once(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                          gyre_error *err) GYRE_MUST_USE;

// Counters of one device since it was opened; tests assert that decoding records and allocates nothing.
struct gyre_device_counters {
    uint64_t recordings, buffers, kernels; // made (a shared kernel counts once)
    uint64_t submissions, dispatches;      // to the queue by replays, and the dispatches in them
    uint64_t copies;                       // between host and device that took a submission of their own
    uint64_t bytes_most;                   // that bytes_live ever was
    uint64_t bytes_live, live_objects;     // of buffers; buffers, kernels and recordings not yet destroyed
    uint64_t calls;                        // fallible calls: what fail_call counts
};
struct gyre_device_counters gyre_device_counters(const gyre_device *device);

// ---- what a backend implements ------------------------------------------------------------------------

// Every object begins with its public part; a backend derives its own struct from it and allocates it
// zeroed. backend.c fills the public part after the backend's function has succeeded (info is the
// backend's, its id is not).
struct gyre_device {
    const struct gyre_backend *backend;
    struct gyre_device_info info;
    struct gyre_device_options options;
    struct gyre_device_counters counters;
    struct gyre_buffer *buffers; // all that are alive
    struct gyre_kernel *kernels; // likewise
};
struct gyre_buffer {
    const struct gyre_device *device;
    uint64_t size;
    char label[48];
    struct gyre_buffer *previous, *next;
};
struct gyre_kernel {
    const struct gyre_device *device;
    const struct gyre_kernel_source *source; // name, number of bindings and writes, params_size
    struct gyre_kernel_params params;        // completed: n_spec is source->n_spec
    uint32_t references;
    struct gyre_kernel *next;
};
struct gyre_recording {
    const struct gyre_device *device;
    uint32_t n_dispatches;
    uint32_t n_submissions; // of a replay; set by `record`
    uint32_t at_once;       // replays of a submission; above 1 only where a replay is one
};

// For `record`: where the submission ends that begins with dispatch `first`.
uint32_t gyre_submission_end(const struct gyre_dispatch *dispatches, uint32_t n, uint32_t first);

struct gyre_backend {
    const char *name;
    // Number of devices, filling at most `cap` (ids excepted); 0 with a reason in `why` when there is none.
    int (*probe)(struct gyre_device_info *out, int cap, char why[160]);
    gyre_status (*open)(int index, const struct gyre_device_options *, gyre_device **, gyre_error *);
    void (*close)(gyre_device *);
    gyre_status (*buffer_create)(gyre_device *, uint64_t size, const char *label, gyre_buffer **, gyre_error *);
    void (*buffer_destroy)(gyre_device *, gyre_buffer *);
    gyre_status (*buffer_write)(gyre_device *, gyre_buffer *, uint64_t offset, const void *, uint64_t size,
                                gyre_error *);
    gyre_status (*buffer_read)(gyre_device *, gyre_buffer *, uint64_t offset, void *, uint64_t size, gyre_error *);
    // The constants are complete: n_spec is the source's.
    gyre_status (*kernel_create)(gyre_device *, const struct gyre_kernel_source *, const struct gyre_kernel_params *,
                                 gyre_kernel **, gyre_error *);
    void (*kernel_destroy)(gyre_device *, gyre_kernel *);
    gyre_status (*record)(gyre_device *, const struct gyre_dispatch *, uint32_t n, gyre_recording **, gyre_error *);
    void (*recording_destroy)(gyre_device *, gyre_recording *);
    // `times` replays, recording->at_once of them a submission. ns != NULL: one, profiled, and wait.
    gyre_status (*submit)(gyre_device *, gyre_recording *, uint32_t times, uint64_t *ns, gyre_error *);
    gyre_status (*wait)(gyre_device *, gyre_error *);
};

extern const struct gyre_backend gyre_backend_vulkan, gyre_backend_opencl, gyre_backend_cpu, gyre_backend_null;
