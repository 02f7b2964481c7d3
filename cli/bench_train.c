// See bench_train.h.
#include "cli/bench_train.h"
#include "cli/cli.h"

#include <gyre/gyre_quantize.h>
#include <jansson.h>
#include <stdio.h>

static double gib(uint64_t bytes) { return (double)bytes / (1 << 30); }

static int print_json(const gyre_train_params *p, const gyre_train_result *r)
{
    json_t *out = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "shape", p->shape, "tokens", (json_int_t)p->tokens,
                            "parameters", (json_int_t)r->parameters, "weight_bytes", (json_int_t)r->weights,
                            "stream_bytes", (json_int_t)r->streams, "peak_bytes", (json_int_t)r->peak);
    if (out && !p->plan) {
        json_object_set_new(out, "device", json_string(r->device));
        json_object_set_new(out, "step_s", json_real(r->seconds));
        json_object_set_new(out, "train_tps", json_real(p->tokens / r->seconds));
    }
    return cli_print_json(out);
}

int bench_train(const char *shape, uint32_t wgroup, uint32_t tokens, const char *device, bool plan, bool json)
{
    gyre_error err = {0};
    const gyre_train_params p = {
        .size = sizeof p, .shape = shape, .wgroup = wgroup, .tokens = tokens, .device = device, .plan = plan};
    gyre_train_result r = {.size = sizeof r};
    cli_end_on_signal(); // a step asks nobody whether to go on, and leaves nothing behind
    if (gyre_train_shape(&p, &r, &err) != GYRE_OK) return cli_fail(&err);
    if (json) return print_json(&p, &r);
    printf("a step of distill over %u tokens of %s, %llu parameters\n", (unsigned)tokens, shape,
           (unsigned long long)r.parameters);
    printf("  weights             %8.3f GiB\n", gib(r.weights));
    printf("  streams             %8.3f GiB  one before each block, and the last\n", gib(r.streams));
    printf("  the rest at most    %8.3f GiB  a block's values and gradients, logits, its cache\n",
           gib(r.peak - r.weights - r.streams));
    printf("  all at most         %8.3f GiB\n", gib(r.peak));
    if (!plan) printf("%s: %.3f s, %.1f tokens/s forward and back\n", r.device, r.seconds, tokens / r.seconds);
    return cli_flush(&err) == GYRE_OK ? 0 : cli_fail(&err);
}
