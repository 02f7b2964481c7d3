// Cases of the ops that work on whole rows: rms_norm, quantize, gather, hadamard, act_mul and their
// fusions.
#include "tests/ops/check.h"
#include "backends/cpu/ref_parts.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int row_counts[] = {1, 3, 5, 17};

// {scale, zero} of rows whose values differ in their last bits between devices: the zero point may fall to either side.
static bool meta_is_close(const void *want, const void *got, size_t size, char why[200])
{
    const uint32_t *w = want, *g = got;
    for (size_t i = 0; i < size / 4; i += 2) {
        const double ws = (double)gyre_f32_from_bits(w[i]), gs = (double)gyre_f32_from_bits(g[i]);
        if (fabs(ws - gs) <= 1e-5 * ws && abs((int)w[i + 1] - (int)g[i + 1]) <= 1) continue;
        snprintf(why, 200, "row %zu has scale %.9g and zero point %d, want %.9g and %d", i / 2, gs, (int)g[i + 1], ws,
                 (int)w[i + 1]);
        return false;
    }
    return true;
}

static struct check_bind codes_out(int rows, int width, enum check_rule rule)
{
    return (struct check_bind){.size = (size_t)(rows * width), .rule = rule};
}

static struct check_bind meta_out(int rows, bool exact)
{
    return (struct check_bind){.size = (size_t)rows * 8, .rule = CHECK_BITS, .compare = exact ? NULL : meta_is_close};
}

static struct check_bind floats_out(int rows, int width, double bound)
{
    return (struct check_bind){.size = (size_t)(rows * width) * 4, .rule = CHECK_NMSE, .bound = bound};
}

// Rows of very different size, a row of zeros among them.
static struct check_bind floats_in(struct check *check, int rows, int width)
{
    float *x = check_normal(check, (size_t)(rows * width), 1);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < width; i++) x[r * width + i] *= r % 7 == 2 ? 0.0f : (float)ldexp(1, 3 * (r % 5) - 6);
    return (struct check_bind){.data = x, .size = (size_t)(rows * width) * 4};
}

// And groups of very different size, of zeros, and to one side of 0.
static struct check_bind grouped_in(struct check *check, int rows, int width, int span)
{
    struct check_bind bind = floats_in(check, rows, width);
    float *x = (float *)(uintptr_t)bind.data;
    for (int i = 0; i < rows * width; i++) {
        const int g = i / span;
        x[i] = g % 7 == 5 ? 0 : ldexpf(g % 5 == 2 ? fabsf(x[i]) : x[i], -(g % 4));
    }
    return bind;
}

// Codes in groups of rows whose values differ in their last bits between devices: a level apart, up to 8, in at most
// one of 100.
static bool levels_are_close(const void *want, const void *got, size_t size, char why[200])
{
    const int8_t *w = want, *g = got;
    size_t off = 0;
    for (size_t i = 0; i < size; i++) {
        off += w[i] != g[i];
        if (abs(w[i] - g[i]) <= 8 && off <= size / 100 + 1) continue;
        snprintf(why, 200, "code %zu is %d, want %d; %zu differ so far", i, g[i], w[i], off);
        return false;
    }
    return true;
}

// The groups of a 4-bit row in these cases: none where i is even.
static int span_of(size_t i, int width)
{
    static const int spans[] = {32, 12, 4};
    for (size_t k = 0; i % 2 && k < GYRE_COUNT(spans); k++)
        if (width % spans[k] == 0) return spans[k];
    return 0;
}

static struct check_bind levels_out(int rows, int width, int span)
{
    struct check_bind bind = codes_out(rows, width, CHECK_CODES);
    if (span) bind.compare = levels_are_close;
    return bind;
}

// Of a row that is not finite codes and zero point mean nothing, and the scale is no number.
static bool scales(const void *want, const void *got, size_t size, char why[200])
{
    for (size_t i = 0; i < size; i += 8) {
        uint32_t a[2], b[2];
        memcpy(a, (const char *)want + i, 8);
        memcpy(b, (const char *)got + i, 8);
        if ((a[0] & 0x7FFFFFFF) > 0x7F800000 ? (b[0] & 0x7FFFFFFF) > 0x7F800000 : !memcmp(a, b, 8)) continue;
        snprintf(why, 200, "row %zu has %08x %08x, want %08x %08x", i / 8, b[0], b[1], a[0], a[1]);
        return false;
    }
    return true;
}

// An infinity or a NaN at each place of a row in turn, in the first and the last row none; and a row whose numbers are
// finite and its scale is not.
static void quantize_what_is_not_finite(struct check *check, int width, int bits, int span, uint32_t wgx)
{
    const float odd[] = {NAN, INFINITY, -INFINITY, -NAN};
    const int rows = width + 3;
    float *const x = check_normal(check, (size_t)(rows * width), 1);
    for (int r = 0; r < width; r++) x[(r + 1) * width + r] = odd[r % 4];
    for (int i = 0; i < width; i++) x[(width + 1) * width + i] = i % 2 ? 0x1.fffffep+127f : -0x1.fffffep+127f;
    const struct gyre_quantize_params p = {rows, width, bits, 1, span};
    const struct check_case c = {
        .kernel = "quantize",
        .params = &p,
        .n_spec = 4,
        .spec = {wgx, 1, 1, (uint32_t)span},
        .groups = {(uint32_t)rows},
        .bind = {{.size = (size_t)(rows * width), .compare = check_anything},
                 {.size = (size_t)rows * 8, .compare = scales},
                 {.data = x, .size = (size_t)(rows * width) * 4}},
    };
    check_run(check, &c, "%d x %d to %d bits in groups of %d, not finite", rows, width, bits, span);
}

// Three bytes a number: rows of greatest numbers on both sides of where the scale doubles, the least that is not taken
// for zeros and below, the greatest float, zeros; and with `finite` 0 rows of an infinity or a NaN.
static void quantize_to_bytes(struct check *check, int width, uint32_t wgx, bool finite)
{
    static const float most[] = {
        1.5f, 0x1.fdfbfep0f,    0x1.fdfcp0f, 0x1.fffffep0f, 0x1p-103f, 0x1.fffffep-104f, 0x1p-149f,
        0,    0x1.fffffep+127f, INFINITY,    -INFINITY,     NAN};
    const int rows = finite ? 9 : GYRE_COUNT(most);
    const size_t codes = 3 * (size_t)rows * (size_t)width;
    float *const x = check_uniform(check, (size_t)rows * (size_t)width, -1, 1);
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < width; i++) x[r * width + i] *= isfinite(most[r]) ? most[r] : 1;
        x[r * width + r % width] = -most[r];
        x[r * width + (r + 1) % width] = most[r];
    }
    const struct gyre_quantize_params p = {rows, width, 24, 1, 0};
    const struct check_case c = {
        .kernel = "quantize_i24",
        .params = &p,
        .n_spec = 3,
        .spec = {wgx, 1, 1},
        .groups = {(uint32_t)rows},
        .bind = {{.size = gyre_round_up(codes, 4), .rule = CHECK_BITS, .compare = finite ? NULL : check_anything},
                 {.size = (size_t)rows * 8, .rule = CHECK_BITS, .compare = scales},
                 {.data = x, .size = (size_t)rows * (size_t)width * 4}},
    };
    check_run(check, &c, "%d x %d to 24 bits, finite %d", rows, width, finite);
}

void cases_quantize(struct check *check)
{
    static const int bytes[] = {4, 36, 80, 1028};
    for (size_t i = 0; i < GYRE_COUNT(bytes); i++)
        for (int finite = 0; finite < 2; finite++) quantize_to_bytes(check, bytes[i], i % 2 ? 64 : 8, finite);
    for (int bits = 4; bits <= 8; bits += 4)
        for (int width = 36; width <= 76; width += 40) quantize_what_is_not_finite(check, width, bits, 0, 8);
    quantize_what_is_not_finite(check, 36, 4, 12, 8);
    quantize_what_is_not_finite(check, 96, 4, 32, 64);
    static const int widths[] = {4, 12, 36, 80, 576};
    for (size_t i = 0; i < GYRE_COUNT(widths); i++)
        for (size_t r = 0; r < GYRE_COUNT(row_counts); r++)
            for (int bits = 4; bits <= 8; bits += 4) {
                const int rows = row_counts[r], width = widths[i];
                const struct gyre_quantize_params p = {rows, width, bits, r % 2 ? 0.9f : 1.0f, 0};
                const struct check_case c = {
                    .kernel = "quantize",
                    .params = &p,
                    .n_spec = 3,
                    .spec = {i % 2 ? 64 : 8, 1, 1}, // every workgroup is a program that the driver compiles
                    .groups = {(uint32_t)rows},
                    .bind = {codes_out(rows, width, CHECK_BITS), meta_out(rows, true), floats_in(check, rows, width)},
                };
                check_run(check, &c, "%d x %d to %d bits", rows, width, bits);
            }
    static const int grouped[][2] = {{4, 4}, {36, 12}, {80, 16}, {96, 32}, {192, 64}, {576, 32}, {1536, 128}};
    for (size_t i = 0; i < GYRE_COUNT(grouped); i++)
        for (size_t r = 0; r < GYRE_COUNT(row_counts); r++) {
            const int rows = row_counts[r], width = grouped[i][0], span = grouped[i][1];
            const struct gyre_quantize_params p = {rows, width, 4, r % 2 ? 0.9f : 1.0f, span};
            const struct check_case c = {
                .kernel = "quantize",
                .params = &p,
                .n_spec = 4,
                .spec = {i % 2 ? 64 : 8, 1, 1, (uint32_t)span},
                .groups = {(uint32_t)rows},
                .bind = {codes_out(rows, width, CHECK_BITS), meta_out(rows, true),
                         grouped_in(check, rows, width, span)},
            };
            check_run(check, &c, "%d x %d in groups of %d", rows, width, span);
        }
}

static void norms(struct check *check, bool quantized)
{
    static const int widths[] = {4, 36, 576, 1536};
    for (size_t i = 0; i < GYRE_COUNT(widths); i++)
        for (size_t r = 0; r < GYRE_COUNT(row_counts); r++)
            for (int bits = quantized ? 4 : 8; bits <= 8; bits += 4) {
                const int rows = row_counts[r], width = widths[i];
                const int span = quantized && bits == 4 ? span_of(r, width) : 0;
                const struct gyre_rms_norm_params p = {rows, width, 1e-5f, bits, 1, span};
                struct check_case c = {
                    .kernel = quantized ? "rms_norm_quant" : "rms_norm",
                    .params = &p,
                    .n_spec = quantized ? 4 : 3,
                    .spec = {i % 2 ? 64 : 8, 1, 1, (uint32_t)span},
                    .groups = {(uint32_t)rows},
                };
                struct check_bind *b = c.bind;
                if (quantized) *b++ = levels_out(rows, width, span), *b++ = meta_out(rows, false);
                else *b++ = floats_out(rows, width, 1e-12);
                *b++ = floats_in(check, rows, width);
                *b++ =
                    (struct check_bind){.data = check_uniform(check, (size_t)width, 0.5, 2), .size = (size_t)width * 4};
                check_run(check, &c, "%d x %d, groups of %d", rows, width, span);
            }
}

void cases_rms_norm(struct check *check) { norms(check, false); }
void cases_rms_norm_quant(struct check *check) { norms(check, true); }

void cases_gather(struct check *check)
{
    static const int widths[] = {1, 4, 33, 96, 577};
    for (size_t i = 0; i < GYRE_COUNT(widths); i++)
        for (size_t r = 0; r < GYRE_COUNT(row_counts); r++) {
            const int rows = row_counts[r], width = widths[i];
            const struct gyre_gather_params p = {rows, width};
            int32_t *order = check_alloc(check, (size_t)width * 4);
            for (int j = 0; j < width; j++) order[j] = (int32_t)(check_random(check) % (uint32_t)width);
            const struct check_case c = {
                .kernel = "gather",
                .params = &p,
                .n_spec = 3,
                .spec = {i % 2 ? 64 : 8, 1, 1},
                .groups = {(uint32_t)gyre_div_up((uint64_t)width, i % 2 ? 64 : 8), (uint32_t)rows},
                .bind = {{.size = (size_t)(rows * width) * 4, .rule = CHECK_BITS},
                         floats_in(check, rows, width),
                         {.data = order, .size = (size_t)width * 4}},
            };
            check_run(check, &c, "%d x %d", rows, width);
        }
}

// ---- Hadamard -----------------------------------------------------------------------------------------

// segs segments of k1*k2*k3*2^p columns, and `rest` columns that are not transformed.
struct had_shape {
    int k[3], p, segs, rest;
};
static const struct had_shape had_shapes[] = {
    {{1, 1, 1}, 2, 1, 0},   {{12, 1, 1}, 0, 1, 0}, {{20, 1, 1}, 2, 1, 4}, {{24, 1, 1}, 0, 3, 0},
    {{12, 12, 1}, 2, 1, 0}, {{12, 1, 1}, 7, 1, 0}, {{1, 1, 1}, 6, 9, 0},  {{44, 12, 1}, 1, 2, 8},
    {{12, 20, 8}, 0, 1, 0}, {{1, 1, 1}, 9, 2, 4},  {{1, 1, 1}, 11, 1, 0}, {{140, 1, 1}, 1, 1, 12},
};

// Every shape goes through the one program of a kernel that takes the factors from its parameters. As constants every
// shape is a program of its own, which the driver compiles: a kernel gets every third shape, by its number, so that
// each shape meets each pair of forms (shared or global memory, float or quantized) somewhere.
struct had_program {
    uint32_t n_spec, spec[9];
};

// The same with groups of `span`, its last constant.
static struct had_program had_grouped(struct had_program program, int span)
{
    static const uint32_t from_parameters[] = {0, 1, 1, 0}; // the defaults of HAD_SPECS
    if (program.n_spec < 8) memcpy(program.spec + 4, from_parameters, sizeof from_parameters);
    program.n_spec = 9;
    program.spec[8] = (uint32_t)span;
    return program;
}

static struct had_program had_generic(int kernel)
{
    return (struct had_program){4, {kernel % 2 ? 64 : 16, 1, 1, 4096}};
}
static bool had_constants(int kernel, size_t i, struct had_program *out)
{
    const struct had_shape *s = &had_shapes[i];
    if ((i + (size_t)kernel) % 3 || GYRE_MAX(s->k[0], s->k[1]) > 32 || s->k[0] * s->k[1] * s->k[2] > 144) return false;
    *out = (struct had_program){
        8, {i % 2 ? 32 : 8, 1, 1, 4096, (uint32_t)s->k[0], (uint32_t)s->k[1], (uint32_t)s->k[2], (uint32_t)s->p}};
    return true;
}
static int had_length(const struct had_shape *s) { return s->k[0] * s->k[1] * s->k[2] << s->p; }
// Few of the long ones: oclgrind runs these cases too.
static int had_rows(const struct had_shape *s, size_t i)
{
    return had_length(s) * s->segs > 500 ? 1 : row_counts[i % GYRE_COUNT(row_counts)];
}

static void hadamard_case(struct check *check, int kernel, size_t i, bool transposed, const struct had_program *program)
{
    const struct had_shape *s = &had_shapes[i];
    const int n = had_length(s), width = n * s->segs + s->rest, rows = had_rows(s, i + (size_t)kernel);
    size_t words;
    const uint32_t *base = check_had_base(check, s->k, &words);
    const struct gyre_hadamard_params p = {n,    s->segs,    s->k[0], s->k[1], s->k[2],
                                           s->p, transposed, rows,    width,   transposed};
    struct check_case c = {
        .kernel = kernel ? "hadamard_global" : "hadamard",
        .params = &p,
        .n_spec = program->n_spec,
        .groups = {(uint32_t)rows},
        .bind = {floats_out(rows, width, 1e-12),
                 floats_in(check, rows, width),
                 {.data = base, .size = words * 4},
                 {.data = check_uniform(check, (size_t)width, -2, 2), .size = (size_t)width * 4}},
    };
    memcpy(c.spec, program->spec, sizeof program->spec);
    check_run(check, &c, "%d rows of %d x (%d %d %d 2^%d) + %d%s, %s", rows, s->segs, s->k[0], s->k[1], s->k[2], s->p,
              s->rest, transposed ? ", transposed and scaled" : "", program->n_spec > 4 ? "constants" : "parameters");
}

void cases_hadamard(struct check *check)
{
    for (size_t i = 0; i < GYRE_COUNT(had_shapes); i++)
        for (int kernel = 0; kernel < 2; kernel++) {
            struct had_program program = had_generic(kernel);
            hadamard_case(check, kernel, i, false, &program);
            hadamard_case(check, kernel, i, true, &program);
            if (!had_constants(kernel, i, &program)) continue;
            hadamard_case(check, kernel, i, false, &program);
            hadamard_case(check, kernel, i, true, &program);
        }
}

// ---- rms_norm_had ----------------------------------------------------------------------------------------

static void norm_had(struct check *check, const char *kernel, size_t i, int rows, const struct had_program *program)
{
    const bool quantized = strstr(kernel, "quant"), global = strstr(kernel, "global");
    const struct had_shape *s = &had_shapes[i];
    const int n = had_length(s), width = n * s->segs + s->rest, bits = quantized && i % 2 ? 4 : 8;
    size_t words;
    const uint32_t *base = check_had_base(check, s->k, &words);
    const int span = bits == 4 ? span_of(i / 2, width) : 0;
    const struct gyre_rms_norm_had_params p = {rows,    width,   1e-6f,   bits,    1,    span, n,
                                               s->segs, s->k[0], s->k[1], s->k[2], s->p, 0};
    const struct had_program with = quantized ? had_grouped(*program, span) : *program;
    struct check_case c = {.kernel = kernel, .params = &p, .n_spec = with.n_spec, .groups = {(uint32_t)rows}};
    memcpy(c.spec, with.spec, sizeof with.spec);
    struct check_bind *b = c.bind;
    if (quantized) *b++ = levels_out(rows, width, span), *b++ = meta_out(rows, false);
    else *b++ = floats_out(rows, width, 1e-11);
    if (quantized && global) *b++ = (struct check_bind){.size = (size_t)(rows * width) * 4, .compare = check_anything};
    *b++ = floats_in(check, rows, width);
    *b++ = (struct check_bind){.data = check_uniform(check, (size_t)width, -2, 2), .size = (size_t)width * 4};
    *b++ = (struct check_bind){.data = base, .size = words * 4};
    check_run(check, &c, "%d x %d, bits %d in groups of %d, %u constants", rows, width, bits, span, c.n_spec);
}

static void norms_had(struct check *check, const char *kernel, int number)
{
    for (size_t i = 0; i < GYRE_COUNT(had_shapes); i++) {
        struct had_program program = had_generic(number);
        const int rows = had_rows(&had_shapes[i], i);
        if (had_length(&had_shapes[i]) * had_shapes[i].segs + had_shapes[i].rest < 4) continue;
        norm_had(check, kernel, i, rows, &program);
        if (had_constants(number, i, &program)) norm_had(check, kernel, i, rows, &program);
    }
}

void cases_rms_norm_had(struct check *check)
{
    norms_had(check, "rms_norm_had", 6);
    norms_had(check, "rms_norm_had_global", 7);
}

void cases_rms_norm_had_quant(struct check *check)
{
    norms_had(check, "rms_norm_had_quant", 8);
    norms_had(check, "rms_norm_had_quant_global", 9);
}

// ---- act_mul ------------------------------------------------------------------------------------------

static void activation(struct check *check, const char *kernel, size_t i, int rows, const struct had_program *program)
{
    const bool had = strstr(kernel, "had"), quantized = strstr(kernel, "quant"), global = strstr(kernel, "global");
    const struct had_shape *s = &had_shapes[i];
    const int n = had_length(s), width = n * s->segs + s->rest, act = (int)(i / 2 % 2),
              bits = quantized && i % 2 ? 4 : 8;
    size_t words;
    const uint32_t *base = check_had_base(check, s->k, &words);
    const int span = bits == 4 ? span_of(i / 2, width) : 0;
    const struct gyre_act_mul_params p = {rows,    width,   act,     bits,    1,    span, n,
                                          s->segs, s->k[0], s->k[1], s->k[2], s->p, 0};
    const struct had_program with = quantized && had ? had_grouped(*program, span) : *program;
    struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = had         ? with.n_spec
                  : quantized ? 4
                              : 3,
        .groups = {(uint32_t)rows},
    };
    memcpy(c.spec, with.spec, sizeof with.spec);
    if (!had) c.spec[3] = (uint32_t)span;
    struct check_bind *b = c.bind;
    if (quantized) *b++ = levels_out(rows, width, span), *b++ = meta_out(rows, false);
    else *b++ = floats_out(rows, width, 1e-11);
    if (quantized && global) *b++ = (struct check_bind){.size = (size_t)(rows * width) * 4, .compare = check_anything};
    *b++ = (struct check_bind){.data = check_normal(check, (size_t)(2 * rows * width), 2),
                               .size = (size_t)(2 * rows * width) * 4};
    if (had) *b++ = (struct check_bind){.data = base, .size = words * 4};
    check_run(check, &c, "%d x %d, act %d, bits %d in groups of %d, %u constants", rows, width, act, bits, span,
              c.n_spec);
}

// `number`: which kernel with a transform this is, hadamard and hadamard_global being 0 and 1; -1: it has none.
static void activations(struct check *check, const char *kernel, int number)
{
    for (size_t i = 0; i < GYRE_COUNT(had_shapes); i++) {
        struct had_program program = had_generic(number < 0 ? (int)i : number);
        const int rows = had_rows(&had_shapes[i], i);
        activation(check, kernel, i, rows, &program);
        if (number >= 0 && had_constants(number, i, &program)) activation(check, kernel, i, rows, &program);
    }
}

void cases_act_mul(struct check *check) { activations(check, "act_mul", -1); }
void cases_act_mul_quant(struct check *check) { activations(check, "act_mul_quant", -1); }

void cases_act_mul_had(struct check *check)
{
    activations(check, "act_mul_had", 2);
    activations(check, "act_mul_had_global", 3);
}

void cases_act_mul_had_quant(struct check *check)
{
    activations(check, "act_mul_had_quant", 4);
    activations(check, "act_mul_had_quant_global", 5);
}
