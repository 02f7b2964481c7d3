// See repack.h. Pieces of at most STAGING bytes go to a staging buffer, then a repack kernel spreads them into the
// weight.
#include "runtime/graph/repack.h"
#include "backends/kernel_source.h"
#include "runtime/graph/tune.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { STAGING = 16 << 20, N_KERNELS = 8 };

static const struct format {
    uint32_t form; // of the kernel
    gyre_weight_kind kind;
    uint32_t bytes_per_32; // bytes of 32 source elements
    uint32_t k_align;      // K and, where there is one, the group are multiples of it
    bool coded, scale;     // has groups and sums; brings its scales inside the blocks
} formats[] = {
    [GYRE_REPACK_I4] = {GYRE_FORM_W4, GYRE_WEIGHT_W4, 16, 8, true, false},
    [GYRE_REPACK_I8] = {GYRE_FORM_W8, GYRE_WEIGHT_W8, 32, 4, true, false},
    [GYRE_REPACK_Q4_0] = {GYRE_FORM_W4 | GYRE_FORM_BLOCKS, GYRE_WEIGHT_W4, 18, 32, true, true},
    [GYRE_REPACK_Q8_0] = {GYRE_FORM_W8 | GYRE_FORM_BLOCKS, GYRE_WEIGHT_W8, 34, 32, true, true},
    [GYRE_REPACK_F16] = {GYRE_FORM_F16, GYRE_WEIGHT_F16, 64, 1, false, false},
    [GYRE_REPACK_F32] = {GYRE_FORM_F32, GYRE_WEIGHT_F32, 128, 1, false, false},
};

struct gyre_repacker {
    gyre_device *device;
    gyre_buffer *staging, *noise; // noise: made when first needed
    uint64_t staging_bytes;
    gyre_kernel *kernel[N_KERNELS]; // made when first needed; the last ones spread scales and zero points
    struct gyre_launch launch[N_KERNELS];
};

gyre_weight_kind gyre_repack_kind(gyre_repack_format format) { return formats[format].kind; }

uint32_t gyre_weight_pad(gyre_weight_kind kind, uint32_t n)
{
    return (uint32_t)gyre_round_up(n, gyre_weight_is_coded(kind) ? GYRE_TILE : 8);
}

void gyre_weight_plane_bytes(gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group, uint64_t bytes[3])
{
    static const uint32_t half_bytes[] = {[GYRE_WEIGHT_F32] = 8,
                                          [GYRE_WEIGHT_F16] = 4,
                                          [GYRE_WEIGHT_W8] = 2,
                                          [GYRE_WEIGHT_W4] = 1,
                                          [GYRE_WEIGHT_W4Z] = 1};
    const bool coded = gyre_weight_is_coded(kind);
    const uint64_t n_pad = gyre_weight_pad(kind, n), groups = coded && group ? k / group : 0,
                   rows = coded ? gyre_round_up(k, 4) : k;
    bytes[0] = n_pad * rows * half_bytes[kind] / 2;
    bytes[1] = n_pad * groups * 2 + (kind == GYRE_WEIGHT_W4Z ? n_pad * groups / 2 : 0);
    bytes[2] = n_pad * groups * 4;
}

uint32_t gyre_weight_max_columns(const struct gyre_device_info *info, gyre_weight_kind kind, uint32_t k, uint32_t group)
{
    uint64_t bytes[3];
    const uint32_t unit = gyre_weight_pad(kind, 1);
    gyre_weight_plane_bytes(kind, unit, k, group, bytes);
    const uint64_t most = GYRE_MAX(bytes[0], GYRE_MAX(bytes[1], bytes[2])),
                   limit = GYRE_MIN(info->max_binding, info->max_buffer);
    const uint64_t columns = most ? limit / most * unit : 0;
    return (uint32_t)GYRE_MIN(columns, UINT32_MAX / unit * unit);
}

gyre_status gyre_repacker_create(gyre_device *device, gyre_repacker **out, gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(device);
    *out = NULL;
    gyre_repacker *r = calloc(1, sizeof *r);
    if (!r) return gyre_fail(err, GYRE_E_NOMEM, "cannot prepare uploads: out of host memory");
    r->device = device;
    r->staging_bytes = GYRE_MIN((uint64_t)STAGING, GYRE_MIN(info->max_buffer, info->max_binding)) / 4 * 4;
    const gyre_status st = gyre_buffer_create(device, r->staging_bytes, "weight staging", &r->staging, err);
    if (st) {
        free(r);
        return st;
    }
    *out = r;
    return GYRE_OK;
}

void gyre_repacker_destroy(gyre_repacker *r)
{
    if (!r) return;
    for (int i = 0; i < N_KERNELS; i++) gyre_kernel_destroy(r->device, r->kernel[i]);
    gyre_buffer_destroy(r->device, r->staging);
    gyre_buffer_destroy(r->device, r->noise);
    free(r);
}

// One job: rows of `row_bytes` spread by one kernel into `planes`, K cut into `steps`.
struct spread {
    int kernel;
    uint32_t form;
    const uint8_t *rows; // NULL: the noise
    uint64_t row_bytes;
    uint32_t n, k, group, steps, length, n_pad, first; // length: elements that one sum goes over, 1: no sum
    struct gyre_binding plane[3];
    uint32_t n_planes;
};

static gyre_status spread(gyre_repacker *r, const struct spread *s, gyre_error *err)
{
    const uint32_t per_piece = (uint32_t)GYRE_MIN(r->staging_bytes / s->row_bytes / 8 * 8, gyre_round_up(s->n, 8));
    if (!per_piece)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot upload a weight: 8 rows of %llu bytes exceed the staging buffer",
                         (unsigned long long)s->row_bytes);
    struct gyre_launch *launch = &r->launch[s->kernel], wanted;
    GYRE_TRY(gyre_tune_repack(gyre_device_info(r->device), s->form, s->steps, s->length, &wanted, err));
    if (!r->kernel[s->kernel] || memcmp(&wanted.kernel, &launch->kernel, sizeof wanted.kernel)) {
        gyre_kernel_destroy(r->device, r->kernel[s->kernel]);
        r->kernel[s->kernel] = NULL;
        *launch = wanted;
        GYRE_TRY(gyre_kernel_create(r->device, &launch->kernel, &r->kernel[s->kernel], err));
    }
    for (uint32_t done = 0; done < s->n; done += per_piece) {
        const uint32_t count = GYRE_MIN(per_piece, s->n - done);
        const uint64_t bytes = count * s->row_bytes;
        const struct gyre_repack_params p = {.n = (int32_t)count,
                                             .k = (int32_t)s->k,
                                             .group = (int32_t)s->group,
                                             .n_pad = (int32_t)s->n_pad,
                                             .first = (int32_t)(s->first + done)};
        struct gyre_dispatch d = {.kernel = r->kernel[s->kernel]};
        d.groups[0] = (uint32_t)gyre_div_up(gyre_round_up(count, 8), launch->tile[0]);
        d.groups[1] = (uint32_t)gyre_div_up(s->steps, launch->tile[1]);
        d.groups[2] = 1;
        for (uint32_t i = 0; i < s->n_planes; i++) d.bind[i] = s->plane[i];
        d.bind[s->n_planes] = (struct gyre_binding){s->rows ? r->staging : r->noise, 0, gyre_round_up(bytes, 4)};
        memcpy(d.params, &p, sizeof p);
        if (s->rows) GYRE_TRY(gyre_buffer_write(r->device, r->staging, 0, s->rows + done * s->row_bytes, bytes, err));
        GYRE_TRY(gyre_run_once(r->device, &d, 1, err));
    }
    return GYRE_OK;
}

// The planes that a format's kernel fills, codes and what goes with them.
static void code_planes(struct spread *s, const struct format *f, const struct gyre_weight_range *dst)
{
    s->plane[s->n_planes++] = dst->weight;
    if (f->scale) s->plane[s->n_planes++] = dst->scale;
    if (f->coded) s->plane[s->n_planes++] = dst->sums;
}

// Turns a job on codes into the one on their scales.
static void to_scales(struct spread *s, const uint16_t *scales, const struct gyre_weight_range *dst)
{
    s->kernel = N_KERNELS - 2, s->form = GYRE_FORM_SCALE, s->length = 1;
    s->rows = (const uint8_t *)scales, s->row_bytes = 2 * (uint64_t)(s->k / s->group);
    s->plane[0] = dst->scale, s->n_planes = 1;
}

// Into the one on their zero points, which comes last.
static void to_zeros(struct spread *s, const int8_t *zeros, const struct gyre_weight_range *dst)
{
    s->kernel = N_KERNELS - 1, s->form = GYRE_FORM_ZERO, s->length = 1;
    s->rows = (const uint8_t *)zeros, s->row_bytes = s->k / s->group;
    s->plane[0] = dst->scale, s->plane[1] = dst->sums, s->n_planes = 2;
}

gyre_status gyre_repack_upload(gyre_repacker *r, gyre_repack_format format, const void *rows, const uint16_t *scales,
                               const int8_t *zeros, uint32_t n, uint32_t k, uint32_t group, uint32_t n_dst0,
                               const struct gyre_weight_range *dst, gyre_error *err)
{
    if ((unsigned)format >= GYRE_COUNT(formats) || !rows || !n || !k)
        return gyre_fail(err, GYRE_E_INVALID, "cannot upload a weight: there is nothing to upload");
    const struct format *f = &formats[format];
    if (!f->coded) group = k;
    if (k % f->k_align || !group || k % group || group % f->k_align)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot upload a weight (%u x %u): K and its group (%u) must be multiples of %u, and the "
                         "group must divide K",
                         n, k, group, f->k_align);
    if (n_dst0 % 8 || (uint64_t)n_dst0 + n > dst->n || (n % 8 && n_dst0 + n != dst->n))
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot place %u columns at %u of %u: tensors that share a weight begin and end at multiples of 8", n,
            n_dst0, dst->n);
    if ((f->coded && !f->scale) != (scales != NULL))
        return gyre_fail(err, GYRE_E_INVALID, "cannot upload a weight: %s",
                         scales ? "this format has no separate scales" : "its scales are missing");
    if (zeros && format != GYRE_REPACK_I4)
        return gyre_fail(err, GYRE_E_INVALID, "cannot upload a weight: this format has no zero points");
    struct spread s = {
        .kernel = (int)format, .form = f->form, .rows = rows, .row_bytes = (uint64_t)k * f->bytes_per_32 / 32};
    s.n = n, s.k = k, s.group = group, s.n_pad = dst->n_pad, s.first = n_dst0;
    s.steps = f->coded ? k / group : k;
    s.length = f->coded ? group : 1;
    code_planes(&s, f, dst);
    GYRE_TRY(spread(r, &s, err));
    if (!scales) return GYRE_OK;
    to_scales(&s, scales, dst);
    GYRE_TRY(spread(r, &s, err));
    if (!zeros) return GYRE_OK;
    to_zeros(&s, zeros, dst);
    return spread(r, &s, err);
}

static gyre_status make_noise(gyre_repacker *r, gyre_error *err)
{
    if (r->noise) return GYRE_OK;
    uint32_t *words = malloc(r->staging_bytes), x = 2463534242u;
    if (!words) return gyre_fail(err, GYRE_E_NOMEM, "cannot make weights: out of host memory");
    for (uint64_t i = 0; i < r->staging_bytes / 4; i++) words[i] = x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    gyre_status st = gyre_buffer_create(r->device, r->staging_bytes, "noise", &r->noise, err);
    if (st == GYRE_OK) st = gyre_buffer_write(r->device, r->noise, 0, words, r->staging_bytes, err);
    free(words);
    return st;
}

gyre_status gyre_repack_noise(gyre_repacker *r, gyre_weight_kind kind, uint32_t k, uint32_t group, uint16_t scale,
                              const struct gyre_weight_range *dst, gyre_error *err)
{
    const gyre_repack_format format = kind == GYRE_WEIGHT_W4 ? GYRE_REPACK_I4 : GYRE_REPACK_I8;
    const struct format *f = &formats[format];
    struct spread s = {.kernel = (int)format,
                       .form = f->form,
                       .row_bytes = (uint64_t)k * f->bytes_per_32 / 32,
                       .n = dst->n,
                       .k = k,
                       .group = group,
                       .steps = k / group,
                       .length = group,
                       .n_pad = dst->n_pad};
    if (kind < GYRE_WEIGHT_W8 || kind > GYRE_WEIGHT_W4 || k % f->k_align || k % group || group % f->k_align)
        return gyre_fail(err, GYRE_E_INVALID, "cannot make a weight of %u inputs in groups of %u", k, group);
    GYRE_TRY(make_noise(r, err));
    code_planes(&s, f, dst);
    GYRE_TRY(spread(r, &s, err));
    const uint64_t count = (uint64_t)dst->n * (k / group);
    uint16_t *scales = malloc(count * sizeof *scales);
    if (!scales) return gyre_fail(err, GYRE_E_NOMEM, "cannot make weights: out of host memory");
    for (uint64_t i = 0; i < count; i++) scales[i] = scale;
    to_scales(&s, scales, dst);
    const gyre_status st = spread(r, &s, err);
    free(scales);
    return st;
}
