// What a device can do at best, and where a decode step's time goes. `bench` holds a model's speed against these.
#include "runtime/engine.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "shaders/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 96 << 20, REPEATS = 3, DEPENDENT = 500 };
#define WARM_NS 300000000ull // a GPU's clocks rise that long, and its rates are taken over as long again

struct roof {
    gyre_device *device;
    struct gyre_binding data, out;
    uint32_t threads, workgroup;
    bool warm; // clocks have risen
};

// Best time of a few runs of a recording, by the host's clock, in seconds; hardware first warms up.
static gyre_status by_clock(struct roof *r, gyre_recording *recording, double *seconds, gyre_error *err)
{
    const uint64_t begin = gyre_clock_ns();
    const bool cold = !r->warm && !gyre_device_info(r->device)->software;
    *seconds = 1e9;
    do { // at least once: the first run also loads what drivers load late
        GYRE_TRY(gyre_submit(r->device, recording, err));
        GYRE_TRY(gyre_wait(r->device, err));
    } while (cold && gyre_clock_ns() - begin < WARM_NS);
    r->warm = true;
    for (int i = 0; i < REPEATS; i++) {
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

// Time of `copies` equal dispatches in one recording, in seconds. One alone on hardware is timed by its stamps, which
// the way to the device and back is no part of.
static gyre_status measure(struct roof *r, const char *kernel, int32_t count, int32_t loops, uint32_t threads,
                           uint32_t copies, bool stamps, double *seconds, gyre_error *err)
{
    const struct gyre_kernel_params kp = {kernel, 3, {r->workgroup, 1, 1}};
    const struct gyre_roof_params p = {(int32_t)threads, count, loops};
    gyre_kernel *k = NULL;
    gyre_recording *recording = NULL;
    struct gyre_dispatch *d = calloc(copies, sizeof *d);
    if (!d) return gyre_fail(err, GYRE_E_NOMEM, "cannot measure: out of memory");
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_kernel_create(r->device, &kp, &k, err));
    for (uint32_t i = 0; i < copies; i++) {
        d[i] = (struct gyre_dispatch){.kernel = k, .bind = {r->out, r->data}, .groups = {threads / r->workgroup, 1, 1}};
        d[i].bind[0].size = (uint64_t)threads * 4;
        memcpy(d[i].params, &p, sizeof p);
    }
    GYRE_GO(gyre_recording_create(r->device, d, copies, &recording, err));
    GYRE_GO(by_clock(r, recording, seconds, err));
    if (stamps && !gyre_device_info(r->device)->software) GYRE_GO(by_stamps(r, recording, seconds, err));
done:
    gyre_recording_destroy(r->device, recording);
    gyre_kernel_destroy(r->device, k);
    free(d);
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

// Doubles the loop count until a run lasts long enough for the launch cost not to matter.
static gyre_status rate(struct roof *r, const char *kernel, double *per_second, gyre_error *err)
{
    for (int32_t loops = 64;; loops *= 4) {
        double s;
        GYRE_TRY(measure(r, kernel, 1, loops, r->threads, 1, false, &s, err));
        *per_second = 32.0 * loops * r->threads / s;
        const uint32_t most = gyre_device_info(r->device)->max_loop; // a driver that ends loops would look fast
        if (s < 0.02 && loops <= 1 << 22 && (!most || 4 * loops < (int32_t)most)) continue;
        GYRE_TRY(measure(r, kernel, 1, loops, r->threads, 1, true, &s, err));
        *per_second = 32.0 * loops * r->threads / s;
        return GYRE_OK;
    }
}

gyre_status gyre_measure_roofs(const char *device, const gyre_log *log, gyre_roofs *out, gyre_error *err)
{
    const struct gyre_device_options options = {.log = log};
    struct roof r = {0};
    *out = (gyre_roofs){0};
    gyre_status st = GYRE_OK;
    double s = 0, many = 0;
    GYRE_GO(gyre_device_open(device, &options, &r.device, err));
    snprintf(out->device, sizeof out->device, "%s", gyre_device_info(r.device)->id);
    snprintf(out->name, sizeof out->name, "%s", gyre_device_info(r.device)->name);
    GYRE_GO(roof_buffers(&r, err));
    GYRE_GO(measure(&r, "roof_read", (int32_t)(r.data.size / 16), 0, r.threads, 1, true, &s, err));
    GYRE_GO(measure(&r, "roof_read_slice", (int32_t)(r.data.size / 16), 0, r.threads, 1, true, &many, err));
    s = GYRE_MIN(s, many);
    if (gyre_device_info(r.device)->software) { // PoCL runs invocations one by one: one reads a slice alone
        struct roof alone = r;
        alone.workgroup = 1;
        GYRE_GO(measure(&alone, "roof_read_slice", (int32_t)(r.data.size / 16), 0, r.threads, 1, true, &many, err));
    }
    out->read_gbps = (double)r.data.size / GYRE_MIN(s, many) * 1e-9;
    double ops;
    GYRE_GO(rate(&r, "roof_int8", &ops, err));
    out->int8_gops = ops * 1e-9;
    GYRE_GO(rate(&r, "roof_f32", &ops, err));
    out->f32_gflops = ops * 1e-9;
    // Each of these waits for the one before, as a step's dispatches do.
    GYRE_GO(measure(&r, "roof_read", 1, 0, r.workgroup, 1, false, &s, err));
    GYRE_GO(measure(&r, "roof_read", 1, 0, r.workgroup, 1 + DEPENDENT, false, &many, err));
    out->round_trip_us = s * 1e6;
    out->dispatch_us = GYRE_MAX(0.0, (many - s) / DEPENDENT * 1e6);
done:
    if (r.device) {
        gyre_buffer_destroy(r.device, r.data.buffer);
        gyre_buffer_destroy(r.device, r.out.buffer);
        gyre_device_close(r.device);
    }
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
