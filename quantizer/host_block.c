// See host_block.h. The quantizers follow shaders/quantize.k.h and shaders/kv.k.h: A8 symmetric per token; A4 and the KV
// cache asymmetric, with the range including zero. No loop here is parallel but OpenBLAS's: small regions of another thread
// pool between products cost more than they give.
#include "quantizer/host_block.h"
#include "quantizer/hadamard.h"
#include "quantizer/rtn.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct gyre_host_block {
    struct gyre_hparams hp;
    struct gyre_block_options options;
    uint32_t q, kv;                                 // widths of all heads
    float *cosine, *sine;                           // [rows][hd/2]
    float *norm, *qkv[3], *mixed, *gate, *up, *out; // [rows][...]
    float *scores, *expanded;                       // [rows][rows]; the largest linear
    double *wide;                                   // [rows][max(q, ffn)], for the transforms
};

// ---- memory -----------------------------------------------------------------------------------------------

static void fill_rope(gyre_host_block *b)
{
    const uint32_t half = b->hp.head_dim / 2;
    float freqs[GYRE_MAX_HEAD_DIM / 2];
    gyre_rope_freqs(&b->hp, b->options.rope_divisors, freqs);
    for (uint32_t r = 0; r < b->options.max_rows; r++)
        for (uint32_t i = 0; i < half; i++) {
            const double angle = (double)r * (double)freqs[i];
            b->cosine[r * half + i] = (float)cos(angle);
            b->sine[r * half + i] = (float)sin(angle);
        }
}

gyre_status gyre_host_block_create(const struct gyre_hparams *hp, const struct gyre_block_options *options,
                                   gyre_host_block **out, gyre_error *err)
{
    const uint64_t rows = options->max_rows, D = hp->width, q = (uint64_t)hp->heads * hp->head_dim,
                   kv = (uint64_t)hp->kv_heads * hp->head_dim, F = hp->ffn;
    gyre_host_block *b = *out = calloc(1, sizeof *b);
    if (!b) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a block");
    b->hp = *hp;
    b->options = *options;
    b->q = (uint32_t)q;
    b->kv = (uint32_t)kv;
    const struct {
        float **to;
        uint64_t n;
    } need[] = {
        {&b->cosine, rows * hp->head_dim / 2},
        {&b->sine, rows * hp->head_dim / 2},
        {&b->norm, rows * D},
        {&b->qkv[0], rows * q},
        {&b->qkv[1], rows * kv},
        {&b->qkv[2], rows * kv},
        {&b->mixed, rows * q},
        {&b->gate, rows * F},
        {&b->up, rows * F},
        {&b->out, rows * D},
        {&b->scores, rows * rows},
        {&b->expanded, D * GYRE_MAX(q, F)},
    };
    bool good = (b->wide = malloc(rows * GYRE_MAX(q, F) * sizeof *b->wide)) != NULL;
    for (size_t i = 0; i < GYRE_COUNT(need); i++) good &= (*need[i].to = malloc(need[i].n * sizeof(float))) != NULL;
    if (!good) {
        gyre_host_block_destroy(b);
        *out = NULL;
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a block");
    }
    fill_rope(b);
    return GYRE_OK;
}

void gyre_host_block_destroy(gyre_host_block *b)
{
    if (!b) return;
    float *const all[] = {b->cosine, b->sine, b->norm, b->qkv[0], b->qkv[1], b->qkv[2],
                          b->mixed,  b->gate, b->up,   b->out,    b->scores, b->expanded};
    for (size_t i = 0; i < GYRE_COUNT(all); i++) free(all[i]);
    free(b->wide);
    free(b);
}

// ---- quantizers -------------------------------------------------------------------------------------------

static void quantize_rows(float *x, uint32_t rows, uint32_t width, uint32_t bits, float clip)
{
    if (bits == 16) return;
    const float least = bits == 8 ? -128 : 0, most = bits == 8 ? 127 : 15;
    for (uint32_t r = 0; r < rows; r++) {
        float *row = x + (uint64_t)r * width, lo = 0, hi = 0;
        for (uint32_t i = 0; i < width; i++) {
            lo = row[i] < lo ? row[i] : lo;
            hi = row[i] > hi ? row[i] : hi;
        }
        const float scale = clip * (bits == 8 ? fmaxf(-lo, hi) / 127 : (hi - lo) / 15),
                    inverse = scale > 0 ? 1 / scale : 0;
        const float zero = bits == 8 ? 0 : fminf(rintf(-lo * clip * inverse), 15);
        for (uint32_t i = 0; i < width; i++)
            row[i] = scale * (fminf(fmaxf(rintf(row[i] * inverse) + zero, least), most) - zero);
    }
}

static void quantize_cache(float *x, uint32_t vectors, uint32_t hd, uint32_t bits, float clip)
{
    const float most = bits == 8 ? 255 : 15;
    for (uint32_t v = 0; v < vectors; v++, x += hd) {
        float lo = 0, hi = 0;
        for (uint32_t i = 0; i < hd; i++) {
            lo = fminf(lo, x[i]);
            hi = fmaxf(hi, x[i]);
        }
        const float scale = bits == 16 ? 0 : gyre_round_to_f16((hi - lo) * clip / most),
                    zero = scale > 0 ? fminf(rintf(-lo * clip / scale), most) : 0;
        for (uint32_t i = 0; i < hd; i++)
            x[i] = bits == 16  ? gyre_round_to_f16(x[i])
                   : scale > 0 ? scale * (fminf(fmaxf(rintf(x[i] / scale) + zero, 0), most) - zero)
                               : 0;
    }
}

// x += sign * centre, in every row of `width`; query heads share the centre of their kv head. `centre` NULL: nothing.
static void shift(float *x, uint64_t rows, uint32_t heads, uint32_t hd, uint32_t group, const float *centre, float sign)
{
    for (uint64_t v = 0; centre && v < rows * heads; v++, x += hd)
        for (uint32_t i = 0; i < hd; i++) x[i] += sign * centre[v % heads / group * hd + i];
}

// ---- parts ------------------------------------------------------------------------------------------------

static void linear(gyre_host_block *b, const struct gyre_block_linear *l, const float *x, uint32_t rows, uint32_t out,
                   uint32_t in, float *y)
{
    const float *w = l->f32;
    if (!w) {
        // Only read there; the struct is shared with the rounding that fills it.
        const struct gyre_codes codes = {.bits = l->bits,
                                         .group = l->group ? l->group : in,
                                         .code = (int8_t *)(uintptr_t)l->codes,
                                         .scale = (uint16_t *)(uintptr_t)l->scales};
        gyre_codes_expand(&codes, out, in, b->expanded);
        w = b->expanded;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)out, (int)in, 1, x, (int)in, w, (int)in, 0, y,
                (int)out);
}

static void normalise(const gyre_host_block *b, const float *x, const float *gain, uint32_t rows, float *y)
{
    const uint32_t width = b->hp.width;
    for (uint32_t r = 0; r < rows; r++) {
        double square = 0;
        for (uint32_t i = 0; i < width; i++) square += (double)x[r * width + i] * x[r * width + i];
        const float scale = (float)(1 / sqrt(square / width + (double)b->hp.norm_eps));
        for (uint32_t i = 0; i < width; i++) y[r * width + i] = x[r * width + i] * scale * gain[i];
    }
}

static void rope(const gyre_host_block *b, float *x, uint32_t rows, uint32_t heads)
{
    const uint32_t hd = b->hp.head_dim, half = hd / 2;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t h = 0; h < heads; h++, x += hd)
            for (uint32_t i = 0; i < half; i++) {
                float *const p = x + (b->hp.rope_interleaved ? 2 * i : i), *const q = b->hp.rope_interleaved ? p + 1
                                                                                                             : p + half;
                const float c = b->cosine[r * half + i], s = b->sine[r * half + i], u = *p, v = *q;
                *p = u * c - v * s;
                *q = u * s + v * c;
            }
}

static gyre_status transform(gyre_host_block *b, const struct gyre_hadamard *h, float *x, uint64_t vectors,
                             uint32_t width, gyre_error *err)
{
    if (!h->n) return GYRE_OK;
    for (uint64_t i = 0; i < vectors * width; i++) b->wide[i] = x[i];
    GYRE_TRY(gyre_hadamard_apply(h, b->wide, width, 1, vectors, width, NULL, false, err));
    for (uint64_t i = 0; i < vectors * width; i++) x[i] = (float)b->wide[i];
    return GYRE_OK;
}

static void attention(gyre_host_block *b, uint32_t rows)
{
    const uint32_t hd = b->hp.head_dim, group = b->hp.heads / b->hp.kv_heads;
    const int n = (int)rows, d = (int)hd, q = (int)b->q, kv = (int)b->kv;
    for (uint32_t h = 0; h < b->hp.heads; h++) {
        const uint64_t g = (uint64_t)(h / group) * hd;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, d, 1 / sqrtf((float)hd),
                    b->qkv[0] + (uint64_t)h * hd, q, b->qkv[1] + g, kv, 0, b->scores, n);
        for (uint32_t r = 0; r < rows; r++) {
            float *s = b->scores + (uint64_t)r * rows, max = s[0], sum = 0;
            for (uint32_t c = 1; c <= r; c++) max = fmaxf(max, s[c]);
            for (uint32_t c = 0; c <= r; c++) sum += s[c] = expf(s[c] - max);
            for (uint32_t c = 0; c < rows; c++) s[c] = c <= r ? s[c] / sum : 0;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, d, n, 1, b->scores, n, b->qkv[2] + g, kv, 0,
                    b->mixed + (uint64_t)h * hd, q);
    }
}

gyre_status gyre_host_block_run(gyre_host_block *b, const struct gyre_block_weights *w, float *x, uint32_t rows,
                                gyre_error *err)
{
    const struct gyre_block_options *o = &b->options;
    const struct gyre_hparams *hp = &b->hp;
    const uint32_t D = hp->width, F = hp->ffn;
    if (rows == 0 || rows > o->max_rows)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block on %u rows; it was made for %u", rows, o->max_rows);
    normalise(b, x, w->attn_norm, rows, b->norm);
    quantize_rows(b->norm, rows, D, o->act_bits, o->act_clip);
    linear(b, &w->q, b->norm, rows, b->q, D, b->qkv[0]);
    linear(b, &w->k, b->norm, rows, b->kv, D, b->qkv[1]);
    linear(b, &w->v, b->norm, rows, b->kv, D, b->qkv[2]);
    rope(b, b->qkv[0], rows, hp->heads);
    rope(b, b->qkv[1], rows, hp->kv_heads);
    if (hp->rot.r3 && o->kv_bits < 16) {
        GYRE_TRY(transform(b, &hp->rot.r3_had, b->qkv[0], (uint64_t)rows * hp->heads, hp->head_dim, err));
        GYRE_TRY(transform(b, &hp->rot.r3_had, b->qkv[1], (uint64_t)rows * hp->kv_heads, hp->head_dim, err));
    }
    const float *const centre[] = {o->kv_bits < 16 ? w->k_centre : NULL, o->kv_bits < 16 ? w->v_centre : NULL};
    for (int i = 1; i < 3; i++) {
        shift(b->qkv[i], rows, hp->kv_heads, hp->head_dim, 1, centre[i - 1], -1);
        quantize_cache(b->qkv[i], rows * hp->kv_heads, hp->head_dim, o->kv_bits, o->kv_clip);
    }
    attention(b, rows);
    shift(b->mixed, rows, hp->heads, hp->head_dim, hp->heads / hp->kv_heads, centre[1], 1);
    quantize_rows(b->mixed, rows, b->q, o->act_bits, o->act_clip);
    linear(b, &w->o, b->mixed, rows, D, b->q, b->out);
    for (uint64_t i = 0; i < (uint64_t)rows * D; i++) x[i] += b->out[i];

    normalise(b, x, w->ffn_norm, rows, b->norm);
    quantize_rows(b->norm, rows, D, o->act_bits, o->act_clip);
    linear(b, &w->gate, b->norm, rows, F, D, b->gate);
    linear(b, &w->up, b->norm, rows, F, D, b->up);
    for (uint64_t i = 0; i < (uint64_t)rows * F; i++) b->gate[i] = b->gate[i] / (1 + expf(-b->gate[i])) * b->up[i];
    GYRE_TRY(transform(b, &hp->rot.r4, b->gate, rows, F, err));
    quantize_rows(b->gate, rows, F, o->act_bits, o->act_clip);
    linear(b, &w->down, b->gate, rows, D, F, b->out);
    for (uint64_t i = 0; i < (uint64_t)rows * D; i++) x[i] += b->out[i];
    return GYRE_OK;
}
