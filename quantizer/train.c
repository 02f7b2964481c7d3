// A step of distillation on a shape, for its time, or on the device that only records, for its memory: plan and truth
// come from the same calls.
#include "quantizer/gradient/runner.h"
#include "quantizer/gradient/student.h"
#include "quantizer/pass/walk.h"
#include "runtime/util/base.h"
#include "runtime/util/clock.h"

#include <stdlib.h>
#include <string.h>

static gyre_status open_device(const gyre_train_params *p, gyre_device **out, gyre_error *err)
{
    const gyre_quantize_params where = {.device = p->device, .log = p->log};
    return p->plan ? gyre_device_open("null", NULL, out, err) : gyre_walk_device(&where, out, err);
}

// Distinct, ordinary ids: what the tokens say does not change the work.
static gyre_status step(struct gyre_student *s, double *gradient, double *seconds, gyre_error *err)
{
    const uint32_t n = s->runner->tokens;
    const uint64_t start = gyre_clock_ns();
    double kl;
    uint32_t *token = malloc(n * sizeof *token);
    if (!token) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a window");
    for (uint32_t i = 0; i < n; i++) token[i] = (i * 7919u + 13u) % s->runner->model.hp.vocab;
    const gyre_status st = gyre_student_window(s, NULL, 0, token, &kl, gradient, err);
    *seconds = 1e-9 * (double)(gyre_clock_ns() - start);
    free(token);
    return st;
}

gyre_status gyre_train_shape(const gyre_train_params *given, gyre_train_result *result, gyre_error *err)
{
    gyre_train_params p;
    gyre_device *device = NULL;
    struct gyre_student s = {0};
    gyre_train_result all = {.size = result->size};
    double *gradient = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_params_take(given, &p, sizeof p, sizeof p, "gyre_train_params", err));
    if (result->size < sizeof result->size)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot tell what a step costs: the size of gyre_train_result is %zu; "
                         "set it to sizeof",
                         result->size);
    if (!p.shape) return gyre_fail(err, GYRE_E_INVALID, "cannot train: no shape is named");
    GYRE_GO(open_device(&p, &device, err));
    GYRE_GO(gyre_student_open_shape(device, p.shape, p.wgroup, p.tokens ? p.tokens : 512, &s, err));
    s.dry = p.plan;
    gradient = malloc(s.n * sizeof *gradient);
    if (!gradient) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
    GYRE_GO(step(&s, gradient, &all.seconds, err));
    if (!p.plan) GYRE_GO(step(&s, gradient, &all.seconds, err)); // kernels are compiled by now
    else all.seconds = 0;
    if (!p.plan) memcpy(all.device, gyre_device_info(device)->id, sizeof all.device);
    all.weights = s.runner->model.weight_bytes;
    for (uint32_t i = 0; i < s.runner->n_streams; i++) all.streams += s.runner->x[i].size;
    all.peak = gyre_device_counters(device).bytes_most;
    all.parameters = s.n;
    memcpy(result, &all, GYRE_MIN(result->size, sizeof all));
done:
    free(gradient);
    gyre_student_close(&s);
    gyre_device_close(device);
    return st;
}
