// References of the benchmark ceilings (shaders/roof.k): here they only define the results; the cpu device's own
// ceiling is whatever these loops reach.
#include "backends/cpu/ref.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <string.h>

void gyre_ref_op_roof_read(const struct gyre_ref_args *args)
{
    const struct gyre_roof_params *p = args->params;
    uint32_t *y = args->bind[0];
    const uint32_t *data = args->bind[1];
    const bool slices = (args->source->form & GYRE_FORM_SLICE) != 0;
    const int64_t wg = args->spec[0], groups = (p->threads + wg - 1) / wg, slice = (p->count + groups - 1) / groups;
#pragma omp parallel for schedule(static)
    for (int32_t t = 0; t < p->threads; t++) {
        uint32_t acc = 0;
        const int64_t first = slices ? t / wg * slice : t, step = slices ? 1 : p->threads;
        const int64_t end = slices && first + slice < p->count ? first + slice : p->count;
        for (int64_t i = first; i < end; i += step)
            acc ^= data[4 * i] ^ data[4 * i + 1] ^ data[4 * i + 2] ^ data[4 * i + 3];
        y[t] = acc;
    }
}

static uint32_t dot4(uint32_t a, uint32_t b, uint32_t c)
{
    for (int k = 0; k < 4; k++) c += (uint32_t)((int8_t)(a >> 8 * k) * (int8_t)(b >> 8 * k));
    return c;
}

void gyre_ref_op_roof_int8(const struct gyre_ref_args *args)
{
    const struct gyre_roof_params *p = args->params;
    uint32_t *y = args->bind[0];
#pragma omp parallel for schedule(static)
    for (int32_t t = 0; t < p->threads; t++) {
        const uint32_t *x = (const uint32_t *)args->bind[1] + 4 * (int64_t)(t % p->count);
        uint32_t v[4] = {0, 1, 2, 3};
        for (int32_t i = 0; i < p->loops; i++) {
            for (int k = 0; k < 4; k++) v[k] = dot4(v[k] ^ x[k], x[(k + 1) % 4], v[k]);
        }
        y[t] = v[0] ^ v[1] ^ v[2] ^ v[3];
    }
}

// The number at (row, q) of the operands, whose rows have so many words: a signed byte, or a half as roof_matrix.vk.k
// takes it.
static double operand(const uint32_t *data, uint32_t count, bool f16, int64_t row, int64_t words, int64_t q)
{
    const int each = f16 ? 2 : 4;
    const uint32_t w = data[(row * words + q / each) % (4 * (int64_t)count)] >> q % each * (32 / each);
    return f16 ? gyre_f32_from_f16((uint16_t)((w & 0x83FF) | 0x3800)) : (int8_t)w;
}

// All products of all subgroups are the same: one is computed.
void gyre_ref_op_roof_matrix(const struct gyre_ref_args *args)
{
    enum { DOWN = 2, ACROSS = 4, EIGHT = 8 };
    const struct gyre_roof_params *p = args->params;
    const bool f16 = (args->source->form & GYRE_FORM_WEIGHT) == GYRE_FORM_F16;
    const int64_t lanes = args->spec[0], tm = args->spec[3], tn = args->spec[4], tk = args->spec[5];
    const int64_t line = tk / (f16 ? 2 : 4);
    const uint32_t *data = args->bind[1];
    uint32_t *y = args->bind[0];
    for (int32_t t = 0; t < p->threads; t++) {
        double all = 0;
        for (int64_t e = t % lanes; t < lanes && e < tm * tn; e += lanes)
            for (int64_t i = 0; i < DOWN; i++)
                for (int64_t j = 0; j < ACROSS; j++)
                    for (int64_t q = 0; q < tk; q++) {
                        double a = operand(data, (uint32_t)p->count, f16, i * tm + e / tn, line, q), sum = 0;
                        for (int32_t s = 0; s < p->loops; s++, a = !f16 && a == -128 ? a : -a) sum += a * EIGHT;
                        all += sum * operand(data, (uint32_t)p->count, f16, DOWN * tm + j * tn + e % tn, line, q);
                    }
        if (t >= lanes) y[t] = y[t % lanes];
        else y[t] = f16 ? gyre_f32_bits((float)all) : (uint32_t)(int64_t)all;
    }
}

void gyre_ref_op_roof_f32(const struct gyre_ref_args *args)
{
    const struct gyre_roof_params *p = args->params;
    uint32_t *y = args->bind[0];
#pragma omp parallel for schedule(static)
    for (int32_t t = 0; t < p->threads; t++) {
        const uint32_t *x = (const uint32_t *)args->bind[1] + 4 * (int64_t)(t % p->count);
        const float k = 1.0f - (float)(x[0] & 1u) * 0.5f;
        float v[4] = {k, 2 * k, 4 * k, 8 * k};
        for (int32_t i = 0; i < p->loops; i++) {
            for (int j = 0; j < 4; j++) v[j] = v[j] * k + k;
        }
        const float sum = v[0] + (v[1] + v[2] + v[3]);
        y[t] = gyre_f32_bits(sum + sum + sum + sum);
    }
}
