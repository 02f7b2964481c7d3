// The validating front of every backend: what it lets through, an implementation may trust.
//
// It owns the public parts of all objects, the sharing of kernels, the counters and the test hooks. It
// knows no backend by name (registry.c does) and no op.
#include "backends/backend.h"
#include "backends/faults.h"
#include "backends/kernel_source.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

#define ULL(x) ((unsigned long long)(x))

// Counts a fallible call; fails the one that options.fail_call names.
static gyre_status count_call(gyre_device *device, const char *what, gyre_error *err)
{
    if (++device->counters.calls != device->options.fail_call) return GYRE_OK;
    return gyre_fail(err, GYRE_E_DEVICE, "cannot %s (%s): this is the call number %llu that a test wants to fail", what,
                     device->info.id, ULL(device->counters.calls));
}

void gyre_device_close(gyre_device *device)
{
    if (!device) return;
    const gyre_log *log = device->options.log;
    for (const gyre_buffer *b = device->buffers; b; b = b->next)
        gyre_logf(log, GYRE_LOG_ERROR, "backend: %s closed with a live buffer: %s, %llu bytes", device->info.id,
                  b->label, ULL(b->size));
    for (const gyre_kernel *k = device->kernels; k; k = k->next)
        gyre_logf(log, GYRE_LOG_ERROR, "backend: %s closed with a live kernel: %s, %u references", device->info.id,
                  k->source->name, k->references);
    if (device->counters.live_objects)
        gyre_logf(log, GYRE_LOG_ERROR, "backend: %s closed with %llu live objects", device->info.id,
                  ULL(device->counters.live_objects));
    device->backend->close(device);
}

const struct gyre_device_info *gyre_device_info(const gyre_device *device) { return &device->info; }
struct gyre_device_counters gyre_device_counters(const gyre_device *device) { return device->counters; }

// ---- memory -----------------------------------------------------------------------------------------

gyre_status gyre_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                               gyre_error *err)
{
    gyre_buffer *buffer = NULL;
    *out = NULL;
    if (!label) label = "";
    if (!size) return gyre_fail(err, GYRE_E_INVALID, "cannot create buffer (%s): its size is 0", label);
    if (size > device->info.max_buffer)
        return gyre_fail(err, GYRE_E_DEVICE_MEM,
                         "cannot create buffer (%s): %llu bytes, but %s allows %llu in one allocation; split it", label,
                         ULL(size), device->info.id, ULL(device->info.max_buffer));
    GYRE_TRY(count_call(device, "create buffer", err));
    GYRE_TRY(device->backend->buffer_create(device, size, label, &buffer, err));
    buffer->device = device;
    buffer->size = size;
    snprintf(buffer->label, sizeof buffer->label, "%s", label);
    buffer->next = device->buffers;
    if (buffer->next) buffer->next->previous = buffer;
    device->buffers = buffer;
    device->counters.buffers++;
    device->counters.live_objects++;
    device->counters.bytes_live += size;
    if (device->counters.bytes_live > device->counters.bytes_most)
        device->counters.bytes_most = device->counters.bytes_live;
    *out = buffer;
    return GYRE_OK;
}

void gyre_buffer_destroy(gyre_device *device, gyre_buffer *buffer)
{
    if (!buffer) return;
    if (buffer->next) buffer->next->previous = buffer->previous;
    if (buffer->previous) buffer->previous->next = buffer->next;
    else device->buffers = buffer->next;
    device->counters.live_objects--;
    device->counters.bytes_live -= buffer->size;
    device->backend->buffer_destroy(device, buffer);
}

uint64_t gyre_buffer_size(const gyre_buffer *buffer) { return buffer->size; }

static gyre_status check_range(const gyre_device *device, const gyre_buffer *buffer, uint64_t offset, uint64_t size,
                               const char *what, gyre_error *err)
{
    if (!buffer) return gyre_fail(err, GYRE_E_INVALID, "cannot %s buffer: it is NULL", what);
    if (buffer->device != device)
        return gyre_fail(err, GYRE_E_INVALID, "cannot %s buffer (%s): it belongs to another device", what,
                         buffer->label);
    if (offset > buffer->size || size > buffer->size - offset)
        return gyre_fail(err, GYRE_E_INVALID, "cannot %s buffer (%s): %llu bytes at %llu of %llu", what, buffer->label,
                         ULL(size), ULL(offset), ULL(buffer->size));
    return GYRE_OK;
}

gyre_status gyre_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                              uint64_t size, gyre_error *err)
{
    GYRE_TRY(check_range(device, buffer, offset, size, "write", err));
    if (!size) return GYRE_OK;
    if (!source) return gyre_fail(err, GYRE_E_INVALID, "cannot write buffer (%s): the source is NULL", buffer->label);
    GYRE_TRY(count_call(device, "write buffer", err));
    return device->backend->buffer_write(device, buffer, offset, source, size, err);
}

gyre_status gyre_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target, uint64_t size,
                             gyre_error *err)
{
    GYRE_TRY(check_range(device, buffer, offset, size, "read", err));
    if (!size) return GYRE_OK;
    if (!target) return gyre_fail(err, GYRE_E_INVALID, "cannot read buffer (%s): the target is NULL", buffer->label);
    GYRE_TRY(count_call(device, "read buffer", err));
    return device->backend->buffer_read(device, buffer, offset, target, size, err);
}

// ---- kernels ----------------------------------------------------------------------------------------

static gyre_status check_workgroup(const gyre_device *device, const char *name, const uint32_t *wg, gyre_error *err)
{
    const struct gyre_device_info *info = &device->info;
    uint64_t invocations = 1;
    for (int d = 0; d < 3; d++) {
        if (!wg[d])
            return gyre_fail(err, GYRE_E_INVALID, "cannot create kernel (%s): workgroup size %ux%ux%u", name, wg[0],
                             wg[1], wg[2]);
        if (wg[d] > info->max_group_size[d])
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot create kernel (%s): workgroup size %ux%ux%u, but %s allows %u in dimension %d",
                             name, wg[0], wg[1], wg[2], info->id, info->max_group_size[d], d);
        invocations *= wg[d]; // each factor was checked, so three of them cannot overflow unless limits are absurd
        if (invocations > info->max_workgroup)
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot create kernel (%s): workgroup size %ux%ux%u, but %s allows %u invocations", name,
                             wg[0], wg[1], wg[2], info->id, info->max_workgroup);
    }
    return GYRE_OK;
}

gyre_status gyre_kernel_create(gyre_device *device, const struct gyre_kernel_params *params, gyre_kernel **out,
                               gyre_error *err)
{
    const char *name = params->name ? params->name : "";
    const struct gyre_kernel_source *source = gyre_kernel_source_find(name);
    gyre_kernel *kernel = NULL;
    *out = NULL;
    if (!source)
        return gyre_fail(err, GYRE_E_INVALID, "cannot create kernel (%s): shaders/kernels.def has no such row", name);
    if ((params->n_spec && params->n_spec < 3) || params->n_spec > source->n_spec)
        return gyre_fail(err, GYRE_E_INVALID, "cannot create kernel (%s): %u constants given, it takes none or 3 to %u",
                         name, params->n_spec, source->n_spec);
    struct gyre_kernel_params full = {.name = source->name, .n_spec = source->n_spec};
    memcpy(full.spec, source->spec_defaults, source->n_spec * sizeof full.spec[0]);
    memcpy(full.spec, params->spec, params->n_spec * sizeof full.spec[0]);
    GYRE_TRY(check_workgroup(device, name, full.spec, err));
    GYRE_TRY(count_call(device, "create kernel", err));
    for (kernel = device->kernels; kernel; kernel = kernel->next)
        if (kernel->source == source && !memcmp(kernel->params.spec, full.spec, sizeof full.spec)) break;
    if (!kernel) {
        GYRE_TRY(device->backend->kernel_create(device, source, &full, &kernel, err));
        kernel->device = device;
        kernel->source = source;
        kernel->params = full;
        kernel->references = 0;
        kernel->next = device->kernels;
        device->kernels = kernel;
        device->counters.kernels++;
        device->counters.live_objects++;
    }
    kernel->references++;
    *out = kernel;
    return GYRE_OK;
}

void gyre_kernel_destroy(gyre_device *device, gyre_kernel *kernel)
{
    if (!kernel || --kernel->references) return;
    gyre_kernel **link = &device->kernels;
    while (*link != kernel) link = &(*link)->next;
    *link = kernel->next;
    device->counters.live_objects--;
    device->backend->kernel_destroy(device, kernel);
}

bool gyre_device_forgo(gyre_device *device, const char *kernel, gyre_status failure, const gyre_error *why)
{
    const struct gyre_kernel_source *source = gyre_kernel_source_find(kernel);
    char line[sizeof why->message + 64];
    if (!gyre_faults_own(failure)) return false;
    if (!source || !(source->needs & GYRE_NEED_MATRICES)) return false;
    struct gyre_matrix_shape *const units =
        source->needs & GYRE_NEED_CM_F16 ? &device->info.matrix_f16 : &device->info.matrix_s8;
    if (!units->m) return true; // said before
    *units = (struct gyre_matrix_shape){0};
    snprintf(line, sizeof line, "its matrix units%s are not used: %s",
             source->needs & GYRE_NEED_CM_F16 ? " for f16" : "", why ? why->message : "their kernel could not be made");
    gyre_logf(device->options.log, GYRE_LOG_WARN, "%s: %s", device->info.id, line);
    gyre_faults_note(device->options.cache_dir, device->info.name, device->info.driver, line, device->options.log);
    return true;
}

// ---- work -------------------------------------------------------------------------------------------

static bool overlap(const struct gyre_binding *a, const struct gyre_binding *b)
{
    return a->buffer == b->buffer && a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

static gyre_status check_binding(const gyre_device *device, const struct gyre_dispatch *d, uint32_t i, gyre_error *err)
{
    const char *name = d->kernel->source->name;
    const struct gyre_binding *b = &d->bind[i];
    if (!b->buffer || b->buffer->device != device)
        return gyre_fail(err, GYRE_E_INVALID, "cannot record dispatch (%s): binding %u %s", name, i,
                         b->buffer ? "belongs to another device" : "is empty");
    const char *label = b->buffer->label;
    if (b->offset % GYRE_BIND_ALIGN || b->size % 4 || !b->size)
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot record dispatch (%s): binding %u (%s) has offset %llu and size %llu; offsets are multiples "
            "of %d, sizes positive multiples of 4",
            name, i, label, ULL(b->offset), ULL(b->size), GYRE_BIND_ALIGN);
    if (b->offset > b->buffer->size || b->size > b->buffer->size - b->offset)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot record dispatch (%s): binding %u spans %llu bytes at %llu of %s, which has %llu", name,
                         i, ULL(b->size), ULL(b->offset), label, ULL(b->buffer->size));
    if (b->size > device->info.max_binding)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot record dispatch (%s): binding %u (%s) spans %llu bytes, but %s allows %llu; split it",
                         name, i, label, ULL(b->size), device->info.id, ULL(device->info.max_binding));
    return GYRE_OK;
}

static gyre_status check_dispatch(const gyre_device *device, const struct gyre_dispatch *d, gyre_error *err)
{
    if (!d->kernel || d->kernel->device != device)
        return gyre_fail(err, GYRE_E_INVALID, "cannot record dispatch: its kernel %s",
                         d->kernel ? "belongs to another device" : "is NULL");
    const struct gyre_kernel_source *source = d->kernel->source;
    for (int i = 0; i < 3; i++) {
        if (!d->groups[i])
            return gyre_fail(err, GYRE_E_INVALID, "cannot record dispatch (%s): %u x %u x %u workgroups", source->name,
                             d->groups[0], d->groups[1], d->groups[2]);
        if (d->groups[i] > device->info.max_groups[i])
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot record dispatch (%s): %u workgroups in dimension %d, but %s allows %u; split it",
                             source->name, d->groups[i], i, device->info.id, device->info.max_groups[i]);
    }
    for (uint32_t i = 0; i < source->n_bindings; i++) GYRE_TRY(check_binding(device, d, i, err));
    // Kernels may assume that what they write is bound once.
    for (uint32_t w = 0; w < source->n_writes; w++)
        for (uint32_t i = w + 1; i < source->n_bindings; i++)
            if (overlap(&d->bind[w], &d->bind[i]))
                return gyre_fail(err, GYRE_E_INVALID,
                                 "cannot record dispatch (%s): binding %u, which is written, overlaps binding %u in %s",
                                 source->name, w, i, d->bind[w].buffer->label);
    return GYRE_OK;
}

uint32_t gyre_submission_end(const struct gyre_dispatch *dispatches, uint32_t n, uint32_t first)
{
    float ms = 0;
    uint32_t end = first;
    for (; end < n; end++) {
        ms += dispatches[end].ms > 0 ? dispatches[end].ms : 1;
        if (end > first && ms > GYRE_SUBMISSION_MS) break;
    }
    return end;
}

// A replay that is several submissions is as long as one may be.
static uint32_t at_once(const struct gyre_dispatch *dispatches, uint32_t n, uint32_t n_submissions)
{
    float ms = 0;
    for (uint32_t i = 0; i < n; i++) ms += dispatches[i].ms > 0 ? dispatches[i].ms : 1;
    if (n_submissions > 1 || ms > GYRE_SUBMISSION_MS) return 1;
    return (uint32_t)GYRE_MIN((float)GYRE_SUBMISSION_MS / ms, (float)GYRE_MAX_AT_ONCE);
}

gyre_status gyre_recording_create(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                                  gyre_recording **out, gyre_error *err)
{
    *out = NULL;
    if (!n) return gyre_fail(err, GYRE_E_INVALID, "cannot record: there are no dispatches");
    for (uint32_t i = 0; i < n; i++) GYRE_TRY(check_dispatch(device, &dispatches[i], err));
    GYRE_TRY(count_call(device, "record", err));
    GYRE_TRY(device->backend->record(device, dispatches, n, out, err));
    (*out)->device = device;
    (*out)->n_dispatches = n;
    if (!(*out)->n_submissions) (*out)->n_submissions = 1;
    (*out)->at_once = at_once(dispatches, n, (*out)->n_submissions);
    device->counters.recordings++;
    device->counters.live_objects++;
    return GYRE_OK;
}

void gyre_recording_destroy(gyre_device *device, gyre_recording *recording)
{
    if (!recording) return;
    device->counters.live_objects--;
    device->backend->recording_destroy(device, recording);
}

static gyre_status submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns, gyre_error *err)
{
    if (!recording || recording->device != device)
        return gyre_fail(err, GYRE_E_INVALID, "cannot submit: the recording %s",
                         recording ? "belongs to another device" : "is NULL");
    GYRE_TRY(count_call(device, "submit", err));
    GYRE_TRY(device->backend->submit(device, recording, times, ns, err));
    device->counters.submissions += (uint64_t)gyre_div_up(times, recording->at_once) * recording->n_submissions;
    device->counters.dispatches += (uint64_t)times * recording->n_dispatches;
    return GYRE_OK;
}

gyre_status gyre_submit(gyre_device *device, gyre_recording *recording, gyre_error *err)
{
    return submit(device, recording, 1, NULL, err);
}

gyre_status gyre_submit_times(gyre_device *device, gyre_recording *recording, uint32_t times, gyre_error *err)
{
    if (!times) return gyre_fail(err, GYRE_E_INVALID, "cannot submit: no replay is asked for");
    return submit(device, recording, times, NULL, err);
}

uint32_t gyre_recording_at_once(const gyre_recording *recording) { return recording->at_once; }

gyre_status gyre_profile(gyre_device *device, gyre_recording *recording, uint64_t *ns, gyre_error *err)
{
    if (!ns) return gyre_fail(err, GYRE_E_INVALID, "cannot profile: there is no place for the times");
    return submit(device, recording, 1, ns, err);
}

gyre_status gyre_wait(gyre_device *device, gyre_error *err)
{
    GYRE_TRY(count_call(device, "wait", err));
    return device->backend->wait(device, err);
}

gyre_status gyre_run_once(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    gyre_recording *recording = NULL;
    GYRE_GO(gyre_recording_create(device, dispatches, n, &recording, err));
    GYRE_GO(gyre_submit(device, recording, err));
    GYRE_GO(gyre_wait(device, err));
done:
    gyre_recording_destroy(device, recording);
    return st;
}
