// References of rope, kv_write and the two kernels that fuse them (with the Hadamard transform between, for R3).
// The fused ones are made of the references of their parts. Codes and scales of the cache are computed in f32, as the
// kernels do: there rounding is the definition.
#include "backends/cpu/ref.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// One row's q and k heads, in place: (a, b) -> scale (a cos t - b sin t, a sin t + b cos t); scale has mscale where the
// pair is turned, and the growth of queries.
static void rope_row(const struct gyre_rope_params *p, float *x, int position, const float *freqs)
{
    const int hd = p->hd, split = p->split;
    const double beta = (double)p->q_beta, grow = p->q_beta != 0 ? 1 + beta * log1p(position / p->q_span) : 1;
    for (int head = 0; head < p->heads + p->kv_heads; head++, x += hd)
        for (int i = 0; i < hd / 2; i++) {
            const int at = i < split ? i : 2 * i, to = at + (i < split ? split : 1);
            const double t = (double)position * (double)freqs[i], a = (double)x[at], b = (double)x[to];
            const double scale = (head < p->heads ? grow : 1) * (freqs[i] != 0 ? (double)p->mscale : 1);
            x[at] = (float)(scale * (a * cos(t) - b * sin(t)));
            x[to] = (float)(scale * (a * sin(t) + b * cos(t)));
        }
}

// `heads` vectors of hd, in place: x / sqrt(mean(x^2) + eps) * gain.
static void norm_heads(float *x, int heads, int hd, double eps, const float *gain)
{
    for (int head = 0; head < heads; head++, x += hd) {
        double sum = 0;
        for (int i = 0; i < hd; i++) sum += (double)x[i] * (double)x[i];
        const double factor = 1 / sqrt(sum / hd + eps);
        for (int i = 0; i < hd; i++) x[i] = (float)((double)x[i] * factor * (double)gain[i]);
    }
}

void gyre_ref_op_rope(const struct gyre_ref_args *args)
{
    const struct gyre_rope_params *p = args->params;
    float *y = args->bind[0];
    const float *x = args->bind[1], *freqs = args->bind[3], *gains = args->bind[4];
    const int32_t(*rows)[4] = args->bind[2];
    const size_t width = (size_t)(p->heads + 2 * p->kv_heads) * (size_t)p->hd;
    for (int32_t r = 0; r < p->rows; r++) {
        memcpy(y + (size_t)r * width, x + (size_t)r * width, width * sizeof *y);
        if (p->normed) {
            norm_heads(y + (size_t)r * width, p->heads, p->hd, (double)p->eps, gains);
            norm_heads(y + (size_t)r * width + p->heads * p->hd, p->kv_heads, p->hd, (double)p->eps, gains + p->hd);
        }
        rope_row(p, y + (size_t)r * width, rows[r][2], freqs);
    }
}

// ---- the cache ----------------------------------------------------------------------------------------

static uint32_t f16_clamped(float x)
{
    return gyre_f16_from_f32(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

static float less(const float *x, const float *centre, int i) { return centre ? x[i] - centre[i] : x[i]; }

// The vector that is written, and its position's V vector, which may be the same; centres: NULL, nothing.
struct vectors {
    const float *x, *centre, *v, *v_centre;
    int bits, v_bits;
    bool is_v;
};

static bool fits(float x, int bits) { return fabsf(x) < (bits == 16 ? 65520.0f : bits == 8 ? 0x1p22f : 0x1p18f); }

// Does the cache have room for element i of the key, or of the value?
static bool kept(const struct vectors *a, int i)
{
    return fits(less(a->x, a->centre, i), a->bits) && fits(less(a->v, a->v_centre, i), a->v_bits);
}

// One head vector as words and its meta word {f16 scale, f16 zero}.
static void quantize_vector(const struct vectors *a, int hd, float clip, uint32_t *words, uint32_t *meta)
{
    const float *x = a->x, *centre = a->centre;
    const int bits = a->bits;
    const uint32_t lost = a->is_v ? 0 : 0x7E00; // a NaN
    memset(words, 0, (size_t)(hd * bits / 8));
    if (bits == 32) { // only here: an f32 cache, for checks
        for (int i = 0; i < hd; i++) words[i] = gyre_f32_bits(less(x, centre, i));
        return;
    }
    if (bits == 16) {
        for (int i = 0; i < hd; i++)
            words[i / 2] |= (kept(a, i) ? f16_clamped(less(x, centre, i)) : lost) << 16 * (i % 2);
        return;
    }
    for (int i = 0; i < hd; i++) {
        *meta = lost;
        if (!kept(a, i)) return;
    }
    float lo = 0, hi = 0;
    for (int i = 0; i < hd; i++) lo = fminf(lo, less(x, centre, i)), hi = fmaxf(hi, less(x, centre, i));
    const float qmax = bits == 8 ? 255.0f : 15.0f;
    const uint32_t scale_bits = f16_clamped((hi - lo) * clip / qmax);
    const float scale = gyre_f32_from_f16((uint16_t)scale_bits);
    const float zero = scale > 0 ? fminf(rintf((0.0f - lo) * clip / scale), qmax) : 0.0f;
    for (int i = 0; i < hd && scale > 0; i++) {
        const float code = fminf(fmaxf(rintf(less(x, centre, i) / scale) + zero, 0), qmax);
        words[i * bits / 32] |= (uint32_t)code << i * bits % 32;
    }
    *meta = scale_bits | f16_clamped(zero) << 16;
}

void gyre_ref_op_kv_write(const struct gyre_ref_args *args)
{
    const struct gyre_kv_write_params *p = args->params;
    const int k_bits = (int)args->spec[3], v_bits = (int)args->spec[4];
    const float *x = args->bind[4], *centre = args->bind[7];
    const int32_t(*rows)[4] = args->bind[5], *pages = args->bind[6];
    const int32_t G = p->kv_heads;
    for (int32_t r = 0; r < p->rows; r++, x += (p->heads + 2 * G) * p->hd) {
        if (!(rows[r][3] & 1)) continue;
        const int32_t page = pages[rows[r][1] * p->page_stride + rows[r][2] / 32];
        for (int32_t head = 0; head < 2 * G; head++) {
            uint32_t *pool = args->bind[head < G ? 0 : 2], *meta = args->bind[head < G ? 1 : 3];
            const size_t slot = (size_t)((page * G + head % G) * 32 + rows[r][2] % 32);
            const int bits = head < G ? k_bits : v_bits, value = head < G ? head + G : head;
            const struct vectors a = {.x = x + (p->heads + head) * p->hd,
                                      .centre = p->centred ? centre + head * p->hd : NULL,
                                      .v = x + (p->heads + value) * p->hd,
                                      .v_centre = p->centred ? centre + value * p->hd : NULL,
                                      .bits = bits,
                                      .v_bits = v_bits,
                                      .is_v = head >= G};
            quantize_vector(&a, p->hd, head < G ? p->clip : p->clip_v, pool + slot * (size_t)(p->hd * bits / 32),
                            meta + slot);
        }
    }
}

// ---- fused --------------------------------------------------------------------------------------------

static void fused(const struct gyre_ref_args *args, bool with_had)
{
    const struct gyre_rope_kv_params *p = args->params;
    const size_t width = (size_t)(p->heads + 2 * p->kv_heads) * (size_t)p->hd, n_q = (size_t)(p->heads * p->hd);
    const size_t bytes = (size_t)p->rows * width * sizeof(float);
    float *roped = malloc(bytes), *turned = malloc(bytes);
    if (!roped || !turned) {
        memset(args->bind[0], 0xFF, args->size[0]); // NaN: a reference has no way to fail
        goto done;
    }
    struct gyre_ref_args part = *args;
    const struct gyre_rope_params rope = {p->rows,   p->heads,  p->kv_heads, p->hd,     p->split,
                                          p->mscale, p->q_beta, p->q_span,   p->normed, p->eps};
    part.params = &rope;
    part.bind[0] = roped, part.bind[1] = args->bind[5], part.bind[2] = args->bind[6], part.bind[3] = args->bind[8];
    part.bind[4] = args->bind[11];
    part.size[0] = bytes;
    gyre_ref_op_rope(&part);
    if (with_had) {
        const struct gyre_hadamard_params had = {.n = p->n,
                                                 .segs = p->heads + p->kv_heads,
                                                 .k1 = p->k1,
                                                 .k2 = p->k2,
                                                 .k3 = p->k3,
                                                 .p = p->p,
                                                 .had_t = p->had_t,
                                                 .rows = p->rows,
                                                 .width = (int32_t)width};
        part.params = &had;
        part.bind[0] = turned, part.bind[1] = roped, part.bind[2] = args->bind[9], part.bind[3] = args->bind[9];
        gyre_ref_op_hadamard(&part);
    }
    float *const x = with_had ? turned : roped;
    for (int32_t r = 0; r < p->rows; r++)
        memcpy((float *)args->bind[0] + (size_t)r * n_q, x + (size_t)r * width, n_q * sizeof *x);
    const struct gyre_kv_write_params kv = {p->rows,        p->heads, p->kv_heads, p->hd,
                                            p->page_stride, p->clip,  p->centred,  p->clip_v};
    part.params = &kv;
    for (int i = 0; i < 4; i++) part.bind[i] = args->bind[i + 1];
    part.bind[4] = x, part.bind[5] = args->bind[6], part.bind[6] = args->bind[7], part.bind[7] = args->bind[10];
    gyre_ref_op_kv_write(&part);
done:
    free(roped);
    free(turned);
}

void gyre_ref_op_rope_kv(const struct gyre_ref_args *args) { fused(args, false); }
void gyre_ref_op_rope_had_kv(const struct gyre_ref_args *args) { fused(args, true); }
