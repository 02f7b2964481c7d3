// What lies before the first block: embedding and head, the final norm, RoPE's divisors, the matrices of online
// transforms.
#include "quantizer/pass/layer.h"
#include "runtime/model/linear.h"
#include "quantizer/round/rtn.h"
#include "runtime/core/codec.h"
#include "runtime/model/clips.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Rows as blocks of 32 nibbles, each with the scale that a search finds.
static gyre_status encode_nibbles(const float *x, uint64_t rows, uint64_t cols, unsigned char *out, gyre_error *err)
{
    struct gyre_codes codes = {.bits = 4, .group = 32, .code = malloc(rows * cols)};
    codes.scale = malloc(rows * cols / 32 * sizeof *codes.scale);
    gyre_status st = codes.code && codes.scale ? gyre_rtn(x, rows, cols, &codes, err)
                                               : gyre_fail(err, GYRE_E_NOMEM, "out of memory");
    for (uint64_t at = 0; st == GYRE_OK && at < rows * cols; at += 32, out += 18)
        gyre_encode_q4_0(codes.code + at, &codes.scale[at / 32], 32, out);
    free(codes.code);
    free(codes.scale);
    return st;
}

gyre_status gyre_encode_rows(gyre_dtype type, const float *x, uint64_t n, uint64_t cols, unsigned char *out,
                             gyre_error *err)
{
    uint64_t row_bytes = 0;
    if (!gyre_dtype_row_bytes(type, cols, &row_bytes))
        return gyre_fail(err, GYRE_E_INVALID, "rows of %llu are not whole blocks", (unsigned long long)cols);
    if (type == GYRE_DTYPE_Q4_0) return encode_nibbles(x, n, cols, out, err);
#pragma omp parallel for schedule(static) if (n > 1)
    for (int64_t r = 0; r < (int64_t)n; r++)
        gyre_encode_floats(x + (uint64_t)r * cols, cols, type, out + (uint64_t)r * row_bytes);
    return GYRE_OK;
}

// A table, some megabytes at a time. `gain` (may be NULL) is folded in where the rotator folds.
static gyre_status write_table(const struct gyre_plan *p, gyre_role role, const struct gyre_linear *t,
                               const double *gain, struct gyre_output *out, const struct gyre_ticker *ticker,
                               gyre_error *err)
{
    const uint64_t cols = t->cols, chunk = GYRE_MAX((uint64_t)1, ((uint64_t)4 << 20) / cols);
    gyre_status st = GYRE_OK;
    char name[GYRE_ROLE_NAME];
    const struct gyre_plan_part part = {GYRE_PART_TABLE, role, 0};
    gyre_role_name(role, 0, "weight", name);
    const gyre_dtype type = role == GYRE_ROLE_head ? p->head_type : p->table_type;
    if (t->weight->type == type && !p->set.recipe.rotate) { // kept bit for bit
        GYRE_TRY(gyre_output_write(out, part, t->weight->data, t->weight->bytes, 0, err));
        return gyre_tick(ticker, t->rows * cols, err);
    }
    double *wide = malloc(chunk * cols * sizeof *wide), error = 0, norm = 0;
    float *narrow = malloc(chunk * cols * sizeof *narrow), *back = malloc(chunk * cols * sizeof *back);
    unsigned char *encoded = malloc(chunk * cols * sizeof(float));
    uint64_t row_bytes = 0;
    if (!wide || !narrow || !back || !encoded || !gyre_dtype_row_bytes(type, cols, &row_bytes))
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", name));
    for (uint64_t first = 0; first < t->rows; first += chunk) {
        const uint64_t n = GYRE_MIN(chunk, t->rows - first);
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < (int64_t)n; r++)
            gyre_linear_rows_f64(t, first + (uint64_t)r, 1, wide + (uint64_t)r * cols);
        GYRE_GO(gyre_rotate_rows(&p->rotator, gain, wide, n, err));
        gyre_narrow(wide, n * cols, narrow);
        for (uint64_t i = 0; i < n * cols; i++)
            if (!isfinite(narrow[i]))
                GYRE_GO(gyre_fail(
                    err, GYRE_E_FORMAT, "cannot round tensor %s: weight %g of row %llu, column %llu is not finite",
                    name, (double)narrow[i], (unsigned long long)(first + i / cols), (unsigned long long)(i % cols)));
        gyre_error why = {0};
        if ((st = gyre_encode_rows(type, narrow, n, cols, encoded, &why)) != GYRE_OK)
            GYRE_GO(gyre_fail(err, st, "cannot round tensor %s: %s", name, why.message));
        gyre_decode_row(type, encoded, n * cols, back);
        gyre_add_squares(narrow, back, NULL, n, cols, &error, &norm);
        GYRE_GO(
            gyre_output_write(out, part, encoded, n * row_bytes, gyre_relative(error, norm, (first + n) * cols), err));
        GYRE_GO(gyre_tick(ticker, n * cols, err));
    }
done:
    free(wide);
    free(narrow);
    free(back);
    free(encoded);
    return st;
}

static gyre_status write_bases(const struct gyre_plan *p, enum gyre_base_site site, const struct gyre_hadamard *h,
                               struct gyre_output *out, gyre_error *err)
{
    for (uint32_t i = 0; !p->folder && h->n && i < 3; i++) {
        const struct gyre_plan_part part = {GYRE_PART_BASE, GYRE_ROLE_none, 3 * (uint32_t)site + i};
        if (h->k[i] > 1) GYRE_TRY(gyre_output_write(out, part, h->base[i], (uint64_t)h->k[i] * h->k[i], NAN, err));
    }
    return GYRE_OK;
}

static gyre_status write_vector(gyre_plan_part_kind kind, gyre_role role, const float *x, uint32_t n,
                                struct gyre_output *out, gyre_error *err)
{
    return gyre_output_write(out, (struct gyre_plan_part){kind, role, 0}, x, n * sizeof *x, NAN, err);
}

// Divisors of the inverse frequencies: the source's, or what llama3 scaling amounts to.
static gyre_status write_rope_divisors(const struct gyre_plan *p, struct gyre_output *out, gyre_error *err)
{
    if (p->hp.rope_scaling == GYRE_ROPE_LONG) {
        for (int k = 0; k < 2; k++) {
            const gyre_role role = k ? GYRE_ROLE_rope_long : GYRE_ROLE_rope_short;
            const struct gyre_tensor *tensor = gyre_role_tensor(p->source, role, 0, "weight", NULL);
            if (tensor) GYRE_TRY(gyre_output_source(out, &tensor, 1, err));
            GYRE_TRY(write_vector(GYRE_PART_VECTOR, role, p->hp.rope_divisor[k], p->hp.rope_dims / 2, out, err));
        }
        return GYRE_OK;
    }
    const uint32_t n = p->hp.rope_dims / 2;
    const struct gyre_tensor *t = gyre_role_tensor(p->source, GYRE_ROLE_rope_freqs, 0, "weight", NULL);
    float divisor[GYRE_MAX_HEAD_DIM / 2];
    if (t) {
        GYRE_TRY(gyre_output_source(out, &t, 1, err));
        gyre_tensor_rows_f32(t, 0, 1, divisor);
    } else gyre_rope_divisors(&p->hp, divisor);
    return write_vector(GYRE_PART_VECTOR, GYRE_ROLE_rope_freqs, divisor, n, out, err);
}

// R1' diag(final gain) R1: what the head does between two rotations that are no transforms. Symmetric.
static gyre_status write_mix(const struct gyre_plan *p, struct gyre_output *out, gyre_error *err)
{
    const uint32_t D = p->hp.width;
    const uint64_t n = (uint64_t)D * D;
    const gyre_dtype type = p->set.wbits == 32 ? GYRE_DTYPE_F32 : GYRE_DTYPE_F16;
    gyre_status st = GYRE_OK;
    double *wide = calloc(n, sizeof *wide);
    float *narrow = malloc(n * sizeof *narrow);
    void *encoded = malloc(n * sizeof *narrow);
    if (!wide || !narrow || !encoded) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the head"));
    for (uint32_t i = 0; i < D; i++) wide[(uint64_t)i * D + i] = (double)p->final_gain[i];
    GYRE_GO(gyre_rotate_mix(&p->rotator, wide, err));
    gyre_narrow(wide, n, narrow);
    gyre_encode_floats(narrow, n, type, encoded);
    st = gyre_output_write(out, (struct gyre_plan_part){GYRE_PART_HEAD_MIX, GYRE_ROLE_none, 0}, encoded,
                           n * (type == GYRE_DTYPE_F32 ? 4 : 2), NAN, err);
done:
    free(wide);
    free(narrow);
    free(encoded);
    return st;
}

// As they are before anything is learned.
static gyre_status write_clips(const struct gyre_plan *p, struct gyre_output *out, gyre_error *err)
{
    const struct {
        gyre_plan_part_kind kind;
        uint32_t n;
    } all[] = {{GYRE_PART_ACT_CLIPS, p->hp.n_layers * GYRE_PRODUCTS},
               {GYRE_PART_KV_CLIPS, p->hp.n_layers * GYRE_CACHED}};
    for (size_t k = 0; k < GYRE_COUNT(all); k++) {
        float *clip = malloc(all[k].n * sizeof *clip);
        if (!clip) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for clips");
        gyre_plan_clips(p, all[k].kind, clip);
        const gyre_status st = write_vector(all[k].kind, GYRE_ROLE_none, clip, all[k].n, out, err);
        free(clip);
        GYRE_TRY(st);
    }
    return GYRE_OK;
}

gyre_status gyre_write_globals(const struct gyre_plan *p, struct gyre_output *out, const struct gyre_ticker *ticker,
                               gyre_error *err)
{
    const uint32_t D = p->hp.width;
    struct gyre_linear table[2] = {0}; // embedding and, where it is not the same, head
    const uint32_t n_tables = p->hp.tied ? 1 : 2;
    const struct gyre_tensor *norm = gyre_role_tensor(p->source, GYRE_ROLE_output_norm, 0, "weight", NULL);
    gyre_status st = GYRE_OK;
    double *gain = malloc(D * sizeof *gain);
    float *written = malloc(D * sizeof *written);
    if (!gain || !written) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the final norm"));
    for (uint32_t i = 0; i < D; i++) gain[i] = p->final_gain[i];
    for (uint32_t i = 0; i < n_tables; i++) {
        const struct gyre_tensor *read[GYRE_LINEAR_TENSORS];
        GYRE_GO(gyre_linear_find(p->source, &p->hp, i ? GYRE_ROLE_head : GYRE_ROLE_embedding, 0, &table[i], err));
        GYRE_GO(gyre_output_source(out, read, (int)gyre_linear_tensors(&table[i], read), err));
    }
    GYRE_GO(write_table(p, GYRE_ROLE_embedding, &table[0], NULL, out, ticker, err));
    if (p->write_head)
        GYRE_GO(write_table(p, GYRE_ROLE_head, &table[n_tables - 1], p->fold_head ? gain : NULL, out, ticker, err));
    for (uint32_t i = 0; i < n_tables; i++) gyre_linear_forget(&table[i]);
    for (uint32_t i = 0; i < D; i++)
        written[i] = p->fold_head || p->online.head.n || p->online.head_mix ? 1 : p->final_gain[i];
    gyre_plan_stored(p, GYRE_ROLE_output_norm, written, D);
    GYRE_GO(gyre_output_source(out, &norm, 1, err));
    GYRE_GO(write_vector(GYRE_PART_VECTOR, GYRE_ROLE_output_norm, written, D, out, err));
    if (p->online.head.n) GYRE_GO(write_vector(GYRE_PART_HEAD_GAIN, GYRE_ROLE_none, p->final_gain, D, out, err));
    if (p->online.head_mix) GYRE_GO(write_mix(p, out, err));
    if (p->writes_clips) GYRE_GO(write_clips(p, out, err));
    if (p->writes_rope_divisors) GYRE_GO(write_rope_divisors(p, out, err));
    GYRE_GO(write_bases(p, GYRE_BASE_R1, &p->online.r1, out, err));
    GYRE_GO(write_bases(p, GYRE_BASE_R3, &p->online.r3_had, out, err));
    GYRE_GO(write_bases(p, GYRE_BASE_R4, &p->online.r4, out, err));
    GYRE_GO(write_bases(p, GYRE_BASE_HEAD, &p->online.head, out, err));
done:
    free(gain);
    free(written);
    return st;
}
