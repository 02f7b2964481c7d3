// What a device can do at best, and where a decode step's time goes. `bench` holds a model's speed against these.
#include "runtime/engine.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "shaders/params.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 96 << 20, REPEATS = 3, DEPENDENT = 500 };
#define WARM_NS 300000000ull // a GPU's clocks rise that long, and its rates are taken over as long again

// How a time is taken: the best of a few runs by the host's clock; that over WARM_NS of them; by the device's stamps,
// which the way to the device and back is no part of, over as long. Software devices' clocks do not rise, and few runs
// of theirs are many: theirs are always the first.
enum how { QUICK, LONG, STAMPS };

struct roof {
    gyre_device *device;
    struct gyre_binding data, out;
    uint32_t threads, workgroup;
    bool warm; // clocks have risen
};

// Best time of runs of a recording, by the host's clock, in seconds; hardware first warms up.
static gyre_status by_clock(struct roof *r, gyre_recording *recording, bool quick, double *seconds, gyre_error *err)
{
    uint64_t begin = gyre_clock_ns();
    const bool software = gyre_device_info(r->device)->software, cold = !r->warm && !software;
    *seconds = 1e9;
    do { // at least once: the first run also loads what drivers load late
        GYRE_TRY(gyre_submit(r->device, recording, err));
        GYRE_TRY(gyre_wait(r->device, err));
    } while (cold && gyre_clock_ns() - begin < WARM_NS);
    r->warm = true;
    begin = gyre_clock_ns();
    for (int i = 0; i < REPEATS || (!quick && !software && gyre_clock_ns() - begin < WARM_NS); i++) {
        const uint64_t start = gyre_clock_ns();
        GYRE_TRY(gyre_submit(r->device, recording, err));
        GYRE_TRY(gyre_wait(r->device, err));
        *seconds = GYRE_MIN(*seconds, (double)(gyre_clock_ns() - start) * 1e-9);
    }
    return GYRE_OK;
}

// Mean time of one dispatch by the device's own stamps, over WARM_NS of them; *seconds stays where it has none.
static gyre_status by_stamps(const struct roof *r, gyre_recording *recording, double *seconds, gyre_error *err)
{
    uint64_t ns = 0, sum = 0, n = 0;
    const uint64_t begin = gyre_clock_ns();
    do {
        GYRE_TRY(gyre_profile(r->device, recording, &ns, err));
        if (!ns) return GYRE_OK;
        sum += ns, n++;
    } while (sum < WARM_NS && gyre_clock_ns() - begin < 4 * WARM_NS);
    *seconds = (double)sum * 1e-9 / (double)n;
    return GYRE_OK;
}

// Time of `copies` equal dispatches of `threads` invocations in one recording, in seconds.
static gyre_status measure(struct roof *r, gyre_kernel *kernel, struct gyre_roof_params p, uint32_t copies,
                           enum how how, double *seconds, gyre_error *err)
{
    const uint32_t *const spec = kernel->params.spec;
    gyre_recording *recording = NULL;
    struct gyre_dispatch *d = calloc(copies, sizeof *d);
    if (!d) return gyre_fail(err, GYRE_E_NOMEM, "cannot measure: out of memory");
    gyre_status st = GYRE_OK;
    for (uint32_t i = 0; i < copies; i++) {
        d[i] = (struct gyre_dispatch){
            .kernel = kernel, .bind = {r->out, r->data}, .groups = {(uint32_t)p.threads / (spec[0] * spec[1]), 1, 1}};
        d[i].bind[0].size = (uint64_t)p.threads * 4;
        memcpy(d[i].params, &p, sizeof p);
    }
    GYRE_GO(gyre_recording_create(r->device, d, copies, &recording, err));
    GYRE_GO(by_clock(r, recording, how != LONG, seconds, err));
    if (how == STAMPS && !gyre_device_info(r->device)->software) GYRE_GO(by_stamps(r, recording, seconds, err));
done:
    gyre_recording_destroy(r->device, recording);
    free(d);
    return st;
}

// Reads of `count` vectors, or of the first by one workgroup: `copies` of them, each of which waits for the one before.
static gyre_status reads(struct roof *r, const char *name, uint32_t workgroup, uint64_t count, uint32_t copies,
                         enum how how, double *seconds, gyre_error *err)
{
    const struct gyre_kernel_params params = {name, 3, {workgroup, 1, 1}};
    const uint32_t threads = count == 1 ? workgroup : r->threads;
    gyre_kernel *kernel;
    GYRE_TRY(gyre_kernel_create(r->device, &params, &kernel, err));
    const gyre_status st =
        measure(r, kernel, (struct gyre_roof_params){(int32_t)threads, (int32_t)count, 0}, copies, how, seconds, err);
    gyre_kernel_destroy(r->device, kernel);
    return st;
}

static gyre_status roof_buffers(struct roof *r, gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(r->device);
    r->workgroup = info->software ? 8 : 64;
    r->threads = info->software ? 1024 : 262144; // enough lanes in flight to cover a GPU's latency
    r->data.size =
        GYRE_MIN((uint64_t)READ_BYTES * (info->software ? 1 : 4), GYRE_MIN(info->max_binding, info->max_buffer)) / 16 *
        16;
    r->out.size = (uint64_t)r->threads * 4;
    GYRE_TRY(gyre_buffer_create(r->device, r->data.size, "roof data", &r->data.buffer, err));
    GYRE_TRY(gyre_buffer_create(r->device, r->out.size, "roof out", &r->out.buffer, err));
    uint32_t *noise = malloc(1 << 20); // random bytes: equal ones would flatter memory compression
    if (!noise) return gyre_fail(err, GYRE_E_NOMEM, "cannot measure: out of memory");
    gyre_status st = GYRE_OK;
    uint32_t x = 2463534242u;
    for (uint64_t at = 0; at < r->data.size && st == GYRE_OK; at += 1 << 20) {
        for (int i = 0; i < 1 << 18; i++) noise[i] = x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        st = gyre_buffer_write(r->device, r->data.buffer, at, noise, GYRE_MIN((uint64_t)1 << 20, r->data.size - at),
                               err);
    }
    free(noise);
    return st;
}

// Operations a second, of which an invocation does `each` a round. More rounds until a run lasts long enough for the
// launch not to matter.
static gyre_status rate(struct roof *r, const struct gyre_kernel_params *params, double each, double *per_second,
                        gyre_error *err)
{
    const uint32_t most = gyre_device_info(r->device)->max_loop; // a driver that ends loops would look fast
    struct gyre_roof_params p = {(int32_t)r->threads, 64, 16};
    gyre_kernel *kernel;
    double s = 0;
    GYRE_TRY(gyre_kernel_create(r->device, params, &kernel, err));
    gyre_status st = measure(r, kernel, p, 1, QUICK, &s, err);
    while (st == GYRE_OK && s < 0.02 && p.loops <= 1 << 22 && (!most || 4 * p.loops < (int32_t)most)) {
        p.loops *= 4;
        st = measure(r, kernel, p, 1, QUICK, &s, err);
    }
    if (st == GYRE_OK) st = measure(r, kernel, p, 1, STAMPS, &s, err);
    *per_second = each * p.loops * p.threads / s;
    gyre_kernel_destroy(r->device, kernel);
    return st;
}

// The rate of matrix units; 0 where there are none of the kind. Like a product, a driver that cannot compile the kernel
// does without.
static gyre_status matrix_rate(struct roof *r, const char *name, const struct gyre_matrix_shape *m, double *gops,
                               gyre_error *err)
{
    enum { PRODUCTS = 64 }; // of a subgroup, a round
    const struct gyre_kernel_params params = {name, 6, {m->lanes, 4, 1, m->m, m->n, m->k}};
    gyre_error why = {0};
    *gops = 0;
    if (!m->m) return GYRE_OK;
    const gyre_status st = rate(r, &params, 2.0 * m->m * m->n * m->k * PRODUCTS / m->lanes, gops, &why);
    *gops *= 1e-9;
    if (st == GYRE_OK) return st;
    *gops = 0;
    if (!gyre_device_forgo(r->device, name, st, &why)) return gyre_fail(err, st, "%s", why.message);
    return GYRE_OK;
}

static gyre_status measure_rates(struct roof *r, gyre_roofs *out, gyre_error *err)
{
    const struct gyre_kernel_params int8 = {"roof_int8", 3, {r->workgroup, 1, 1}},
                                    f32 = {"roof_f32", 3, {r->workgroup, 1, 1}};
    const double each = 32; // four chains of four products
    GYRE_TRY(rate(r, &int8, each, &out->int8_gops, err));
    GYRE_TRY(rate(r, &f32, each, &out->f32_gflops, err));
    out->int8_gops *= 1e-9;
    out->f32_gflops *= 1e-9;
    return GYRE_OK;
}

static gyre_status measure_memory(struct roof *r, gyre_roofs *out, gyre_error *err)
{
    const uint64_t count = r->data.size / 16;
    double s = 0, other = 0, many = 0;
    GYRE_TRY(reads(r, "roof_read", r->workgroup, count, 1, STAMPS, &s, err));
    GYRE_TRY(reads(r, "roof_read_slice", r->workgroup, count, 1, STAMPS, &other, err));
    s = GYRE_MIN(s, other);
    if (gyre_device_info(r->device)->software) { // PoCL runs invocations one by one: one reads a slice alone
        GYRE_TRY(reads(r, "roof_read_slice", 1, count, 1, STAMPS, &other, err));
        s = GYRE_MIN(s, other);
    }
    out->read_gbps = (double)r->data.size / s * 1e-9;
    // Each of these waits for the one before, as a step's dispatches do.
    GYRE_TRY(reads(r, "roof_read", r->workgroup, 1, 1, LONG, &s, err));
    GYRE_TRY(reads(r, "roof_read", r->workgroup, 1, 1 + DEPENDENT, LONG, &many, err));
    out->round_trip_us = s * 1e6;
    out->dispatch_us = GYRE_MAX(0.0, (many - s) / DEPENDENT * 1e6);
    return GYRE_OK;
}

gyre_status gyre_measure_ceilings(const char *device, const gyre_log *log, gyre_ceilings *out, gyre_error *err)
{
    const struct gyre_device_options options = {.log = log};
    struct roof r = {0};
    gyre_status st = GYRE_OK;
    if (out->size < sizeof out->size)
        return gyre_fail(err, GYRE_E_INVALID, "cannot measure: the size of gyre_ceilings is %zu; set it to sizeof",
                         out->size);
    gyre_ceilings all = {.size = out->size};
    GYRE_GO(gyre_device_open(device, &options, &r.device, err));
    const struct gyre_device_info *const info = gyre_device_info(r.device);
    snprintf(all.roofs.device, sizeof all.roofs.device, "%s", info->id);
    snprintf(all.roofs.name, sizeof all.roofs.name, "%s", info->name);
    all.software = info->software;
    GYRE_GO(roof_buffers(&r, err));
    GYRE_GO(measure_memory(&r, &all.roofs, err));
    GYRE_GO(measure_rates(&r, &all.roofs, err));
    if (out->size > offsetof(gyre_ceilings, matrix_s8_gops)) { // who does not know of them does not wait
        GYRE_GO(matrix_rate(&r, "roof_matrix_s8", &info->matrix_s8, &all.matrix_s8_gops, err));
        GYRE_GO(matrix_rate(&r, "roof_matrix_f16", &info->matrix_f16, &all.matrix_f16_gflops, err));
    }
    memcpy(out, &all, GYRE_MIN(out->size, sizeof all));
done:
    if (r.device) {
        gyre_buffer_destroy(r.device, r.data.buffer);
        gyre_buffer_destroy(r.device, r.out.buffer);
        gyre_device_close(r.device);
    }
    return st;
}

gyre_status gyre_measure_roofs(const char *device, const gyre_log *log, gyre_roofs *out, gyre_error *err)
{
    gyre_ceilings all = {.size = offsetof(gyre_ceilings, matrix_s8_gops)};
    const gyre_status st = gyre_measure_ceilings(device, log, &all, err);
    *out = all.roofs;
    return st;
}

static int by_time(const void *a, const void *b)
{
    const double x = ((const gyre_profile_row *)a)->ms, y = ((const gyre_profile_row *)b)->ms;
    return (x < y) - (x > y);
}

gyre_status gyre_engine_profile(gyre_engine *e, gyre_graph *graph, gyre_profile_row *rows, size_t cap, size_t *n,
                                gyre_error *err)
{
    const uint32_t count = gyre_graph_dispatch_count(graph);
    uint64_t *ns = calloc(count, sizeof *ns);
    if (!ns) return gyre_fail(err, GYRE_E_NOMEM, "cannot profile: out of memory");
    e->resident = false;
    const gyre_status st = gyre_graph_profile(graph, ns, err);
    *n = 0;
    for (uint32_t i = 0; st == GYRE_OK && i < count; i++) {
        const char *kernel = gyre_graph_dispatch_kernel(graph, i);
        size_t k = 0;
        while (k < *n && strcmp(rows[k].op, kernel) != 0) k++;
        if (k == *n) {
            if (*n == cap) continue;
            rows[k] = (gyre_profile_row){0};
            snprintf(rows[k].op, sizeof rows[k].op, "%s", kernel);
            ++*n;
        }
        rows[k].dispatches++;
        rows[k].ms += (double)ns[i] * 1e-6;
    }
    qsort(rows, *n, sizeof *rows, by_time);
    free(ns);
    return st;
}
