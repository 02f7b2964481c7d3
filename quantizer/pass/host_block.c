// See host_block.h. The quantizers follow shaders/quantize.k.h and shaders/kv.k.h: A8 symmetric per token; A4 and the
// KV cache asymmetric, with the range including zero. Loops over rows are OpenMP's and the products between them
// OpenBLAS's: with some hundred rows at a time two thread pools do not get in each other's way.
#include "quantizer/pass/host_block.h"
#include "quantizer/transform/rotate.h"
#include "quantizer/round/rtn.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct gyre_host_block {
    struct gyre_hparams hp;
    struct gyre_block_options options;
    uint32_t q, kv;                     // widths of all heads
    float *cosine, *sine;               // [rows][hd/2]
    float *tap[2], *qkv[3], *gate, *up; // [rows][...]
    float *scores, *expanded;           // [heads][sequence][sequence]; the largest linear
    uint64_t n_scores;                  // floats in scores: it grows with the sequences that come
    double *wide;                       // [rows][max(q, ffn)], for the transforms
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
        {&b->tap[0], rows * GYRE_MAX(GYRE_MAX(q, F), D)},
        {&b->tap[1], rows * GYRE_MAX(GYRE_MAX(q, F), D)},
        {&b->qkv[0], rows * q},
        {&b->qkv[1], rows * kv},
        {&b->qkv[2], rows * kv},
        {&b->gate, rows * F},
        {&b->up, rows * F},
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
    float *const all[] = {b->cosine, b->sine, b->tap[0], b->tap[1], b->qkv[0],  b->qkv[1],
                          b->qkv[2], b->gate, b->up,     b->scores, b->expanded};
    for (size_t i = 0; i < GYRE_COUNT(all); i++) free(all[i]);
    free(b->wide);
    free(b);
}

// ---- quantizers -------------------------------------------------------------------------------------------

static void quantize_row(float *row, uint32_t width, uint32_t bits, float clip)
{
    const float least = bits == 8 ? -128 : 0, most = bits == 8 ? 127 : 15, magic = 0x1.8p23f;
    float lo = 0, hi = 0;
    for (uint32_t i = 0; i < width; i++) {
        lo = row[i] < lo ? row[i] : lo;
        hi = row[i] > hi ? row[i] : hi;
    }
    const float scale = clip * (bits == 8 ? fmaxf(-lo, hi) / 127 : (hi - lo) / 15), inverse = scale > 0 ? 1 / scale : 0,
                zero = bits == 8 ? 0 : fminf(rintf(-lo * clip * inverse), 15);
    for (uint32_t i = 0; i < width; i++) { // adding and subtracting 1.5 * 2^23 rounds half to even
        const float code = ((row[i] * inverse + magic) - magic) + zero, low = code < least ? least : code;
        row[i] = scale * ((low > most ? most : low) - zero);
    }
}

void gyre_quantize_rows(float *x, uint64_t rows, uint32_t width, uint32_t bits, float clip)
{
    if (bits == 16) return;
#pragma omp parallel for schedule(static) if (rows * width > 65536)
    for (int64_t r = 0; r < (int64_t)rows; r++) quantize_row(x + (uint64_t)r * width, width, bits, clip);
}

static float saturated(float x) { return x > 65504 ? 65504 : x < -65504 ? -65504 : x; } // as shaders/kv.k.h

static void quantize_vector(float *x, uint32_t hd, uint32_t bits, float clip)
{
    const float most = bits == 8 ? 255 : 15;
    float lo = 0, hi = 0;
    for (uint32_t i = 0; i < hd; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    const float scale = gyre_round_to_f16(saturated((hi - lo) * clip / most)),
                zero = scale > 0 ? fminf(rintf(-lo * clip / scale), most) : 0;
    for (uint32_t i = 0; i < hd; i++)
        x[i] = scale > 0 ? scale * (fminf(fmaxf(rintf(x[i] / scale) + zero, 0), most) - zero) : 0;
}

void gyre_quantize_cache(float *x, uint64_t vectors, uint32_t hd, uint32_t bits, float clip)
{
#pragma omp parallel for schedule(static) if (vectors * hd > 65536)
    for (int64_t v = 0; v < (int64_t)vectors; v++) {
        float *at = x + (uint64_t)v * hd;
        if (bits != 16) quantize_vector(at, hd, bits, clip);
        else
            for (uint32_t i = 0; i < hd; i++) at[i] = gyre_round_to_f16(saturated(at[i]));
    }
}

// ---- steps ------------------------------------------------------------------------------------------------

static void linear(gyre_host_block *b, const struct gyre_block_linear *l, const float *x, uint32_t rows, uint32_t out,
                   uint32_t in, float beta, float *y)
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
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)out, (int)in, 1, x, (int)in, w, (int)in, beta,
                y, (int)out);
}

static void add_bias(const float *bias, uint32_t rows, uint32_t n, float *y)
{
    for (uint64_t r = 0; bias && r < rows; r++)
        for (uint32_t i = 0; i < n; i++) y[r * n + i] += bias[i];
}

// RMS norm of every head of `heads`; gain NULL: none.
static void norm_heads(const gyre_host_block *b, float *x, uint64_t vectors, const float *gain)
{
    const uint32_t hd = b->hp.head_dim;
    for (uint64_t v = 0; gain && v < vectors; v++, x += hd) {
        double square = 0;
        for (uint32_t i = 0; i < hd; i++) square += (double)x[i] * (double)x[i];
        const float scale = (float)(1 / sqrt(square / hd + (double)b->hp.norm_eps));
        for (uint32_t i = 0; i < hd; i++) x[i] *= scale * gain[i];
    }
}

static void normalise(const gyre_host_block *b, const float *x, const float *gain, uint32_t rows, float *y)
{
    const uint32_t width = b->hp.width;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < (int64_t)rows; row++) {
        const uint64_t r = (uint64_t)row;
        double square = 0;
        for (uint32_t i = 0; i < width; i++) square += (double)x[r * width + i] * x[r * width + i];
        const float scale = (float)(1 / sqrt(square / width + (double)b->hp.norm_eps));
        for (uint32_t i = 0; i < width; i++) y[r * width + i] = x[r * width + i] * scale * gain[i];
    }
}

static void rope(const gyre_host_block *b, float *x, uint32_t rows, uint32_t sequence, uint32_t heads)
{
    const uint32_t hd = b->hp.head_dim, half = hd / 2;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < (int64_t)rows; row++) {
        const uint64_t r = (uint64_t)row % sequence;
        for (uint32_t h = 0; h < heads; h++) {
            float *const head = x + ((uint64_t)row * heads + h) * hd;
            for (uint32_t i = 0; i < half; i++) {
                float *const p = head + (b->hp.rope_interleaved ? 2 * i : i), *const q = b->hp.rope_interleaved
                                                                                             ? p + 1
                                                                                             : p + half;
                const float c = b->cosine[r * half + i], s = b->sine[r * half + i], u = *p, v = *q;
                *p = b->hp.rope_mscale * (u * c - v * s);
                *q = b->hp.rope_mscale * (u * s + v * c);
            }
        }
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

// What a key or value is moved by before it is cached, and a mixed value after; `centre` [kv_heads * hd].
static void shift(float *x, uint32_t rows, uint32_t heads, uint32_t group, uint32_t hd, const float *centre, float sign)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t i = 0; i < hd; i++) x[(r * heads + h) * hd + i] += sign * centre[h / group * hd + i];
}

static void softmax_row(float *s, uint32_t r, uint32_t n)
{
    float max = s[0], sum = 0;
    for (uint32_t c = 1; c <= r; c++) max = s[c] > max ? s[c] : max;
    for (uint32_t c = 0; c <= r; c++) sum += s[c] = expf(s[c] - max);
    const float inverse = 1 / sum;
    for (uint32_t c = 0; c <= r; c++) s[c] *= inverse;
    memset(s + r + 1, 0, (n - r - 1) * sizeof *s);
}

// One sequence of n rows; q, k, v and out point at its first row.
static void attend(gyre_host_block *b, const float *q, const float *k, const float *v, uint32_t n, float *out)
{
    const uint32_t hd = b->hp.head_dim, heads = b->hp.heads, group = heads / b->hp.kv_heads;
    const int m = (int)n, d = (int)hd;
    for (uint32_t h = 0; h < heads; h++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, m, d, 1 / sqrtf((float)hd), q + (uint64_t)h * hd,
                    (int)b->q, k + (uint64_t)(h / group) * hd, (int)b->kv, 0, b->scores + (uint64_t)h * n * n, m);
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < (int64_t)heads * n; i++) softmax_row(b->scores + (uint64_t)i * n, (uint32_t)i % n, n);
    for (uint32_t h = 0; h < heads; h++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, d, m, 1, b->scores + (uint64_t)h * n * n, m,
                    v + (uint64_t)(h / group) * hd, (int)b->kv, 0, out + (uint64_t)h * hd, (int)b->q);
}

static gyre_status attention(gyre_host_block *b, const struct gyre_block_weights *w, uint32_t rows, uint32_t sequence,
                             float *out, gyre_error *err)
{
    const struct gyre_block_options *o = &b->options;
    const struct gyre_hparams *hp = &b->hp;
    const uint32_t hd = hp->head_dim, kv_heads = hp->kv_heads;
    const uint64_t need = (uint64_t)hp->heads * sequence * sequence;
    if (need > b->n_scores) {
        free(b->scores);
        b->scores = malloc(need * sizeof *b->scores);
        b->n_scores = b->scores ? need : 0;
        if (!b->scores) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the attention of a block");
    }
    norm_heads(b, b->qkv[0], (uint64_t)rows * hp->heads, w->vector[GYRE_ROLE_q_norm]);
    norm_heads(b, b->qkv[1], (uint64_t)rows * kv_heads, w->vector[GYRE_ROLE_k_norm]);
    rope(b, b->qkv[0], rows, sequence, hp->heads);
    rope(b, b->qkv[1], rows, sequence, kv_heads);
    if (hp->rot.r3 && o->kv_bits < 16) {
        GYRE_TRY(transform(b, &hp->rot.r3_had, b->qkv[0], (uint64_t)rows * hp->heads, hd, err));
        GYRE_TRY(transform(b, &hp->rot.r3_had, b->qkv[1], (uint64_t)rows * kv_heads, hd, err));
    }
    const float *centre[3] = {NULL, o->kv_bits < 16 ? w->centre[GYRE_ROLE_k] : NULL,
                              o->kv_bits < 16 ? w->centre[GYRE_ROLE_v] : NULL};
    for (int i = 1; i < 3; i++) {
        if (centre[i]) shift(b->qkv[i], rows, kv_heads, 1, hd, centre[i], -1);
        gyre_quantize_cache(b->qkv[i], (uint64_t)rows * kv_heads, hd, o->kv_bits, o->kv_clip);
    }
    for (uint32_t first = 0; first < rows; first += sequence)
        attend(b, b->qkv[0] + (uint64_t)first * b->q, b->qkv[1] + (uint64_t)first * b->kv,
               b->qkv[2] + (uint64_t)first * b->kv, GYRE_MIN(sequence, rows - first), out + (uint64_t)first * b->q);
    if (centre[2]) shift(out, rows, hp->heads, hp->heads / kv_heads, hd, centre[2], 1);
    return GYRE_OK;
}

static void column_means(const float *x, uint32_t rows, uint32_t cols, float *mean)
{
    for (uint32_t i = 0; i < cols; i++) {
        double sum = 0;
        for (uint64_t r = 0; r < rows; r++) sum += (double)x[r * cols + i];
        mean[i] = (float)(sum / rows);
    }
}

// q, k and v from the first'th on.
static void project(gyre_host_block *b, const struct gyre_block_weights *w, const float *in, uint32_t rows, int first)
{
    static const gyre_role role[] = {GYRE_ROLE_q, GYRE_ROLE_k, GYRE_ROLE_v};
    for (int i = first; i < 3; i++) {
        const uint32_t n = i ? b->kv : b->q;
        linear(b, &w->linear[role[i]], in, rows, n, b->hp.width, 0, b->qkv[i]);
        add_bias(w->bias[role[i]], rows, n, b->qkv[i]);
    }
}

gyre_status gyre_host_block_centre(gyre_host_block *b, const struct gyre_block_weights *w, const float *in,
                                   uint32_t rows, uint32_t sequence, float *k_mean, float *v_mean, gyre_error *err)
{
    const struct gyre_hparams *hp = &b->hp;
    if (rows == 0 || rows > b->options.max_rows || sequence == 0)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block on %u rows; it was made for %u", rows,
                         b->options.max_rows);
    project(b, w, in, rows, 1);
    norm_heads(b, b->qkv[1], (uint64_t)rows * hp->kv_heads, w->vector[GYRE_ROLE_k_norm]);
    rope(b, b->qkv[1], rows, sequence, hp->kv_heads);
    if (hp->rot.r3 && b->options.kv_bits < 16)
        GYRE_TRY(transform(b, &hp->rot.r3_had, b->qkv[1], (uint64_t)rows * hp->kv_heads, hp->head_dim, err));
    column_means(b->qkv[1], rows, b->kv, k_mean);
    column_means(b->qkv[2], rows, b->kv, v_mean);
    return GYRE_OK;
}

// ---- the block --------------------------------------------------------------------------------------------

gyre_status gyre_host_block_part(gyre_host_block *b, const struct gyre_block_weights *w, uint32_t part, float *x,
                                 const float *in, uint32_t rows, uint32_t sequence, float *out, gyre_error *err)
{
    const struct gyre_hparams *hp = &b->hp;
    const uint32_t D = hp->width, F = hp->ffn;
    if (rows == 0 || rows > b->options.max_rows || sequence == 0 || part > GYRE_PRODUCTS)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block on %u rows; it was made for %u", rows,
                         b->options.max_rows);
    switch (part) {
    case GYRE_PRODUCT_qkv:
        normalise(b, x, w->vector[GYRE_ROLE_attn_norm], rows, out);
        return GYRE_OK;
    case GYRE_PRODUCT_o:
        project(b, w, in, rows, 0);
        return attention(b, w, rows, GYRE_MIN(sequence, rows), out, err);
    case GYRE_PRODUCT_gate_up:
        linear(b, &w->linear[GYRE_ROLE_o], in, rows, D, b->q, 1, x);
        normalise(b, x, w->vector[GYRE_ROLE_ffn_norm], rows, out);
        return GYRE_OK;
    case GYRE_PRODUCT_down:
        linear(b, &w->linear[GYRE_ROLE_gate], in, rows, F, D, 0, b->gate);
        linear(b, &w->linear[GYRE_ROLE_up], in, rows, F, D, 0, b->up);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < (int64_t)rows * F; i++) out[i] = b->gate[i] / (1 + expf(-b->gate[i])) * b->up[i];
        return transform(b, &hp->rot.r4, out, rows, F, err);
    default:
        linear(b, &w->linear[GYRE_ROLE_down], in, rows, D, F, 1, x);
        return GYRE_OK;
    }
}

gyre_status gyre_host_block_run(gyre_host_block *b, const struct gyre_block_weights *w, float *x, uint32_t rows,
                                gyre_error *err)
{
    const float *in = NULL;
    for (uint32_t part = 0; part <= GYRE_PRODUCTS; part++) {
        float *const out = b->tap[part % 2];
        GYRE_TRY(gyre_host_block_part(b, w, part, x, in, rows, rows, out, err));
        if (part == GYRE_PRODUCTS) break;
        gyre_quantize_rows(out, rows, gyre_product_width((gyre_product)part, &b->hp), b->options.act_bits,
                           b->options.act_clip);
        in = out;
    }
    return GYRE_OK;
}
