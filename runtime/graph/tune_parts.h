// What the choosing of kernels is made of (tune.c, tune_product.c, tune_attn.c, tune_back.c): workgroups that a device
// can have, loops that it goes to the end of, a kernel's constants by name.
#pragma once
#include "backends/kernel_source.h"
#include "runtime/graph/tune.h"
#include "runtime/util/base.h"

#include <string.h>

enum { MOST_TILED = 64 }; // rows; for more there are kernels whose workgroups cover blocks of rows

// The largest power of two that is neither above `useful` (but at least 8) nor above what the device allows.
static inline uint32_t lanes(const struct gyre_device_info *info, uint32_t useful)
{
    const uint32_t most = info->lanes == GYRE_LANES_HARDWARE ? 256 : 8;
    uint32_t n = 8;
    while (2 * n <= useful && 2 * n <= most && 2 * n <= info->max_workgroup && 2 * n <= info->max_group_size[0]) n *= 2;
    return n;
}

// Whether an invocation may go round loops that often: some drivers end them and say nothing. A sixteenth is left for
// what kernels' comments do not count.
static inline bool runs(const struct gyre_device_info *info, uint64_t loops)
{
    return !info->max_loop || loops <= info->max_loop - info->max_loop / 16;
}

static inline gyre_status too_long(const struct gyre_device_info *info, const char *what, uint64_t size,
                                   gyre_error *err)
{
    return gyre_fail(
        err, GYRE_E_UNSUPPORTED,
        "cannot run %s over %llu elements on %s: its driver ends loops after %u rounds; use another device", what,
        (unsigned long long)size, info->id, info->max_loop);
}

// At least n invocations, and so many more that each runs its share of `loops` rounds.
static inline gyre_status share(const struct gyre_device_info *info, const char *what, uint64_t loops, uint32_t *n,
                                gyre_error *err)
{
    while (!runs(info, loops / *n)) {
        if (2 * *n > 256 || 2 * *n > info->max_workgroup || 2 * *n > info->max_group_size[0])
            return too_long(info, what, loops, err);
        *n *= 2;
    }
    return GYRE_OK;
}

// The kernel with its default constants, a workgroup of wgx x wgy, one unit per group in every dimension.
static inline gyre_status start(struct gyre_launch *out, const char *op, uint32_t form, uint32_t wgx, uint32_t wgy,
                                gyre_error *err)
{
    const struct gyre_kernel_source *source = gyre_kernel_source_of(op, form);
    if (!source) return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot choose a kernel: %s has none of form %u", op, form);
    *out = (struct gyre_launch){.kernel = {.name = source->name, .n_spec = source->n_spec}, .tile = {1, 1, 1}};
    memcpy(out->kernel.spec, source->spec_defaults, sizeof out->kernel.spec);
    out->kernel.spec[0] = wgx;
    out->kernel.spec[1] = wgy;
    out->kernel.spec[2] = 1;
    return GYRE_OK;
}

// Sets a constant by its name in the kernel; one that the kernel does not have is ignored.
static inline void set(struct gyre_launch *launch, const char *name, uint32_t value)
{
    const struct gyre_kernel_source *source = gyre_kernel_source_find(launch->kernel.name);
    for (uint32_t i = 3; source && i < source->n_spec; i++)
        if (!strcmp(source->spec_names[i], name)) launch->kernel.spec[i] = value;
}

static const uint32_t weight_forms[] = {[GYRE_WEIGHT_F32] = GYRE_FORM_F32,
                                        [GYRE_WEIGHT_F16] = GYRE_FORM_F16,
                                        [GYRE_WEIGHT_W8] = GYRE_FORM_W8,
                                        [GYRE_WEIGHT_W4] = GYRE_FORM_W4,
                                        [GYRE_WEIGHT_W4Z] = GYRE_FORM_W4};

// start() for a kernel that reads a weight.
static inline gyre_status start_weight(struct gyre_launch *out, const char *op, gyre_weight_kind kind, uint32_t form,
                                       uint32_t wgx, uint32_t wgy, gyre_error *err)
{
    GYRE_TRY(start(out, op, weight_forms[kind] | form, wgx, wgy, err));
    set(out, "ZEROS", kind == GYRE_WEIGHT_W4Z);
    return GYRE_OK;
}

static inline void set_pool(struct gyre_launch *out, const struct gyre_value_info *pool)
{
    set(out, "KBITS", pool->bits);
    set(out, "VBITS", pool->bits_v);
}
