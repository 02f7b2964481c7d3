// See diagonals.h.
#include "quantizer/transform/diagonals.h"
#include "quantizer/round/gemm.h"
#include "quantizer/round/moments.h"
#include "quantizer/round/rtn.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double STEPS = 16; // a factor of two

bool gyre_recipe_has_diagonals(const struct gyre_recipe *r)
{
    return r->diagonals.norm != 0 || r->diagonals.up_down != 0 || r->diagonals.qk != 0 || r->diagonals.value != 0;
}

gyre_status gyre_diagonals_create(const struct gyre_hparams *hp, struct gyre_diagonals *out, gyre_error *err)
{
    const uint32_t kv = hp->kv_heads * hp->head_dim;
    *out = (struct gyre_diagonals){.width = hp->width,
                                   .ffn = hp->ffn,
                                   .heads = hp->heads,
                                   .kv_heads = hp->kv_heads,
                                   .head_dim = hp->head_dim,
                                   .split = gyre_rope_split(hp),
                                   .up_down = malloc(hp->ffn * sizeof(double)),
                                   .value = malloc(kv * sizeof(double)),
                                   .qk = malloc(kv / 2 * sizeof(double))};
    bool good = out->up_down && out->value && out->qk;
    for (int p = 0; p < GYRE_PRODUCTS; p++)
        if (gyre_products[p].norm != GYRE_ROLE_none) good &= (out->norm[p] = malloc(hp->width * sizeof(float))) != NULL;
    if (!good) {
        gyre_diagonals_release(out);
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    }
    for (uint32_t i = 0; i < hp->ffn; i++) out->up_down[i] = 1;
    for (uint32_t i = 0; i < kv; i++) out->value[i] = 1;
    for (uint32_t i = 0; i < kv / 2; i++) out->qk[i] = 1;
    for (int p = 0; p < GYRE_PRODUCTS; p++)
        for (uint32_t i = 0; out->norm[p] && i < hp->width; i++) out->norm[p][i] = 1;
    return GYRE_OK;
}

void gyre_diagonals_release(struct gyre_diagonals *d)
{
    free(d->up_down);
    free(d->value);
    free(d->qk);
    for (int p = 0; p < GYRE_PRODUCTS; p++) free(d->norm[p]);
    *d = (struct gyre_diagonals){0};
}

// ---- measuring ------------------------------------------------------------------------------------------------

// energy[i] += mean square of column i, with the rows' weights of moments.h.
static gyre_status column_energy(const float *x, uint64_t rows, uint64_t cols, double *energy, gyre_error *err)
{
    double *whole = malloc(2 * rows * sizeof *whole);
    if (!whole) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    const double most = GYRE_ENERGY_CAP * gyre_row_energies(x, rows, cols, whole, whole + rows);
    for (uint64_t r = 0; r < rows; r++) {
        const double weight = gyre_row_weight(whole[r], most) / (double)rows;
        for (uint64_t i = 0; i < cols; i++) energy[i] += weight * (double)x[r * cols + i] * (double)x[r * cols + i];
    }
    free(whole);
    return GYRE_OK;
}

// What a rule makes of what is read, as squares: energies, the largest, or means of sizes. Columns of `out` are 0
// before.
static gyre_status add_inputs(gyre_diagonal_rule by, const float *x, uint64_t rows, uint64_t cols, double *out,
                              gyre_error *err)
{
    if (by == GYRE_DIAGONAL_BALANCE) return column_energy(x, rows, cols, out, err);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) {
            const double size = fabs((double)x[r * cols + c]);
            out[c] = by == GYRE_DIAGONAL_LARGEST ? fmax(out[c], size) : out[c] + size / (double)rows;
        }
    for (uint64_t c = 0; c < cols; c++) out[c] *= out[c];
    return GYRE_OK;
}

static void join(gyre_diagonal_rule by, double value, double *into)
{
    *into = by == GYRE_DIAGONAL_LARGEST ? fmax(*into, value) : *into + value;
}

// And of those who read, more of them one after the other.
static void add_readers(gyre_diagonal_rule by, const float *w, uint64_t rows, uint64_t cols, double *out)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) join(by, (double)w[r * cols + c] * (double)w[r * cols + c], &out[c]);
}

static double log_factor(gyre_diagonal_rule by, double exponent, double writer, double reader)
{
    if (!(writer > 0) || !(reader > 0)) return NAN;
    switch (by) {
    case GYRE_DIAGONAL_LARGEST:
        return 0.5 * ((1 - exponent) * log2(reader) - exponent * log2(writer));
    case GYRE_DIAGONAL_INPUTS:
        return -0.5 * exponent * log2(writer);
    default:
        return 0.5 * exponent * log2(reader / writer);
    }
}

// Logarithms of the factors, from squares; their mean made 0.
static void factors(gyre_diagonal_rule by, double exponent, const double *writer, const double *reader, uint64_t n,
                    double *out)
{
    double mean = 0;
    uint64_t live = 0;
    for (uint64_t i = 0; i < n; i++) {
        out[i] = log_factor(by, exponent, writer[i], reader[i]);
        if (!isfinite(out[i])) continue;
        mean += out[i];
        live++;
    }
    mean = live ? mean / (double)live : 0;
    for (uint64_t i = 0; i < n; i++) out[i] = isfinite(out[i]) ? out[i] - mean : 0; // dead channels stay as they are
}

static void to_grid(double *log, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) log[i] = exp2(fmin(fmax(nearbyint(log[i] * STEPS), -127), 127) / STEPS);
}

uint32_t gyre_diagonals_pair(const struct gyre_diagonals *d, uint32_t i)
{
    return i < 2 * d->split ? i % d->split : i / 2;
}

// Energies of q and k per RoPE pair (a rotation keeps them): of rows of `out` features from the tap's rows.
static gyre_status pair_energy(const struct gyre_diagonals *d, const struct gyre_diagonal_sample *s, gyre_role role,
                               uint32_t heads, double *energy, gyre_error *err)
{
    const uint32_t hd = d->head_dim, out = heads * hd, per = heads / d->kv_heads;
    gyre_status st = GYRE_OK;
    float *y = malloc(s->rows * out * sizeof *y);
    double *sum = calloc(out, sizeof *sum);
    if (!y || !sum) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals"));
    gyre_gemm_rows(s->tap[GYRE_PRODUCT_qkv], s->weights[role], s->rows, out, d->width, y);
    for (uint64_t i = 0; s->bias && s->bias[role] && i < s->rows * out; i++) y[i] += s->bias[role][i % out];
    GYRE_GO(column_energy(y, s->rows, out, sum, err));
    for (uint32_t i = 0; i < out; i++) energy[i / hd / per * (hd / 2) + gyre_diagonals_pair(d, i % hd)] += sum[i];
done:
    free(y);
    free(sum);
    return st;
}

static struct gyre_hparams shape_of(const struct gyre_diagonals *d)
{
    return (struct gyre_hparams){
        .width = d->width, .heads = d->heads, .kv_heads = d->kv_heads, .head_dim = d->head_dim, .ffn = d->ffn};
}

// ---- an exponent that is searched ---------------------------------------------------------------------------------

enum { TRIED_STEPS = 20, TRIED_ROWS = 256 }; // exponents 0, 1/20 .. 1; tokens of the sample that they are tried on

// The factor of column c of what a product reads.
static uint64_t factor_at(const struct gyre_diagonals *d, gyre_product product, uint64_t c)
{
    const uint32_t hd = d->head_dim, group = d->heads / d->kv_heads;
    return product == GYRE_PRODUCT_o ? c / hd / group * hd + c % hd : c;
}

// error [rows, cols] = round(w / s) s - w, s by column; groups as they will be, the largest weight on the last code.
static void round_error(const float *w, const double *s, uint64_t rows, uint64_t cols, uint32_t bits, uint32_t group,
                        float *error)
{
    const double most = (1 << (bits - 1)) - 1;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (int64_t)(rows * (cols / group)); i++) {
        const uint64_t first = (uint64_t)i * group, c0 = first % cols;
        double largest = 0;
        for (uint64_t k = 0; k < group; k++) largest = fmax(largest, fabs((double)w[first + k] / s[c0 + k]));
        const double scale = largest / most;
        for (uint64_t k = 0; k < group; k++) {
            const double x = (double)w[first + k] / s[c0 + k], code = scale > 0 ? nearbyint(x / scale) : 0;
            error[first + k] = (float)(code * scale * s[c0 + k] - (double)w[first + k]);
        }
    }
}

// The exponent whose rounded weights make the least error in the readers' outputs, from the squares of writer and
// reader.
static gyre_status search(const struct gyre_diagonal_sample *s, const struct gyre_diagonals *d, gyre_diagonal_rule by,
                          gyre_product product, const double *writer, const double *reader, uint64_t n, double *out,
                          gyre_error *err)
{
    const struct gyre_hparams shape = shape_of(d);
    const uint64_t tokens = GYRE_MIN(s->rows, (uint64_t)TRIED_ROWS);
    uint64_t rows = 0, cols = 0, most = 0;
    double least = INFINITY;
    gyre_status st = GYRE_OK;
    *out = 0; // where all that is tried overflows
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &shape, &rows, &cols);
        most = GYRE_MAX(most, rows);
    }
    float *error = malloc(most * cols * sizeof *error), *y = malloc(tokens * most * sizeof *y);
    double *log = malloc((n + cols) * sizeof *log), *factor = log ? log + n : NULL;
    if (!error || !y || !log) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals"));
    for (int step = 0; step <= TRIED_STEPS; step++) {
        const double exponent = step / (double)TRIED_STEPS;
        double sum = 0;
        factors(by, exponent, writer, reader, n, log);
        for (uint64_t c = 0; c < cols; c++) factor[c] = exp2(log[factor_at(d, product, c)]);
        for (int r = 0; r < GYRE_LINEARS; r++) {
            if (gyre_roles[r].product != product) continue;
            gyre_role_shape((gyre_role)r, &shape, &rows, &cols);
            // The reader holds w / s of an input s x: its own error counts times s.
            round_error(s->weights[r], factor, rows, cols, s->bits[r], s->group[r], error);
            gyre_gemm_rows(s->tap[product], error, tokens, rows, cols, y);
            for (uint64_t i = 0; i < tokens * rows; i++) sum += (double)y[i] * (double)y[i];
        }
        if (!(sum < least)) continue;
        least = sum;
        *out = exponent;
    }
done:
    free(error);
    free(y);
    free(log);
    return st;
}

// ---- all that a recipe asks for -----------------------------------------------------------------------------------

// Squares of what a product reads and of its readers, [n]; those of a kv head's query heads together.
static gyre_status squares(const struct gyre_diagonal_sample *s, const struct gyre_diagonals *d, gyre_diagonal_rule by,
                           gyre_product product, uint64_t n, double *writer, double *reader, gyre_error *err)
{
    const struct gyre_hparams shape = shape_of(d);
    const uint64_t width = product == GYRE_PRODUCT_o ? (uint64_t)d->heads * d->head_dim : n;
    gyre_status st = GYRE_OK;
    double *fine = calloc(2 * width, sizeof *fine);
    if (!fine) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    GYRE_GO(add_inputs(by, s->tap[product], s->rows, width, fine, err));
    for (int r = 0; r < GYRE_LINEARS; r++) {
        uint64_t rows, cols;
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &shape, &rows, &cols);
        add_readers(by, s->weights[r], rows, cols, fine + width);
    }
    memset(writer, 0, n * sizeof *writer);
    memset(reader, 0, n * sizeof *reader);
    for (uint64_t c = 0; c < width; c++) {
        join(by, fine[c], &writer[factor_at(d, product, c)]);
        join(by, fine[width + c], &reader[factor_at(d, product, c)]);
    }
done:
    free(fine);
    return st;
}

// Logarithms of the factors in front of a product, [n]; work [2n].
static gyre_status measure(const struct gyre_diagonal_sample *s, const struct gyre_diagonals *d, gyre_diagonal_rule by,
                           gyre_product product, double exponent, uint64_t n, double *work, double *log,
                           gyre_error *err)
{
    GYRE_TRY(squares(s, d, by, product, n, work, work + n, err));
    if (exponent < 0) GYRE_TRY(search(s, d, by, product, work, work + n, n, &exponent, err));
    factors(by, exponent, work, work + n, n, log);
    return GYRE_OK;
}

gyre_status gyre_diagonals_measure(const struct gyre_recipe *recipe, const struct gyre_diagonal_sample *s,
                                   struct gyre_diagonals *d, gyre_error *err)
{
    const uint32_t kv = d->kv_heads * d->head_dim;
    const uint64_t n = GYRE_MAX(GYRE_MAX(d->ffn, d->width), kv);
    const gyre_diagonal_rule by = recipe->diagonals.by;
    gyre_status st = GYRE_OK;
    double *work = malloc(3 * n * sizeof *work), *log = work ? work + 2 * n : NULL;
    if (!work) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    if (recipe->diagonals.up_down != 0) {
        GYRE_GO(measure(s, d, by, GYRE_PRODUCT_down, recipe->diagonals.up_down, d->ffn, work, d->up_down, err));
        to_grid(d->up_down, d->ffn);
    }
    if (recipe->diagonals.value != 0) {
        GYRE_GO(measure(s, d, by, GYRE_PRODUCT_o, recipe->diagonals.value, kv, work, d->value, err));
        to_grid(d->value, kv);
    }
    if (recipe->diagonals.qk > 0) { // not in front of a product, and always a balance
        memset(work, 0, 2 * n * sizeof *work);
        GYRE_GO(pair_energy(d, s, GYRE_ROLE_k, d->kv_heads, work, err));
        GYRE_GO(pair_energy(d, s, GYRE_ROLE_q, d->heads, work + n, err));
        factors(GYRE_DIAGONAL_BALANCE, recipe->diagonals.qk, work, work + n, kv / 2, d->qk);
        to_grid(d->qk, kv / 2);
    }
    for (int p = 0; p < GYRE_PRODUCTS && recipe->diagonals.norm != 0; p++) {
        if (!d->norm[p]) continue;
        GYRE_GO(measure(s, d, by, (gyre_product)p, recipe->diagonals.norm, d->width, work, log, err));
        for (uint32_t i = 0; i < d->width; i++) d->norm[p][i] = (float)exp2(log[i]);
    }
done:
    free(work);
    return st;
}

void gyre_diagonals_take(const struct gyre_matrices *m, uint32_t layer, struct gyre_diagonals *d)
{
    const uint64_t kv = (uint64_t)d->kv_heads * d->head_dim;
    memcpy(d->up_down, m->up_down + (uint64_t)layer * d->ffn, d->ffn * sizeof *d->up_down);
    memcpy(d->value, m->value + layer * kv, kv * sizeof *d->value);
    memcpy(d->qk, m->qk + layer * (kv / 2), kv / 2 * sizeof *d->qk);
    for (int p = 0; p < GYRE_PRODUCTS; p++)
        for (uint32_t i = 0; d->norm[p] && i < d->width; i++)
            d->norm[p][i] = (float)gyre_matrices_norm(m, layer, (gyre_product)p)[i];
}

// ---- merging --------------------------------------------------------------------------------------------------

static void scale_row(double *w, uint64_t cols, double factor)
{
    for (uint64_t c = 0; c < cols; c++) w[c] *= factor;
}

// Rows of what a linear writes, `cols` columns each. `inverse` divides.
static void scale_output(const struct gyre_diagonals *d, gyre_role role, bool inverse, double *w, uint64_t cols)
{
    const uint32_t hd = d->head_dim, q = d->heads * hd, kv = d->kv_heads * hd, group = d->heads / d->kv_heads;
#define FACTOR(x) (inverse ? 1 / (x) : (x))
    if (role == GYRE_ROLE_q) // divided where k is multiplied
        for (uint64_t i = 0; i < q; i++) {
            const double k = d->qk[i / hd / group * (hd / 2) + gyre_diagonals_pair(d, (uint32_t)i % hd)];
            scale_row(w + i * cols, cols, inverse ? k : 1 / k);
        }
    if (role == GYRE_ROLE_k)
        for (uint64_t i = 0; i < kv; i++)
            scale_row(w + i * cols, cols, FACTOR(d->qk[i / hd * (hd / 2) + gyre_diagonals_pair(d, (uint32_t)i % hd)]));
    if (role == GYRE_ROLE_v)
        for (uint64_t i = 0; i < kv; i++) scale_row(w + i * cols, cols, FACTOR(d->value[i]));
    if (role == GYRE_ROLE_up)
        for (uint64_t i = 0; i < d->ffn; i++) scale_row(w + i * cols, cols, FACTOR(d->up_down[i]));
#undef FACTOR
}

void gyre_diagonals_before(const struct gyre_diagonals *d, gyre_role role, bool undo, double *w)
{
    const uint32_t hd = d->head_dim, q = d->heads * hd, group = d->heads / d->kv_heads;
    scale_output(d, role, undo, w, d->width);
    if (role == GYRE_ROLE_o)
        for (uint64_t r = 0; r < d->width; r++)
            for (uint64_t i = 0; i < q; i++) {
                const double t = d->value[i / hd / group * hd + i % hd];
                w[r * q + i] *= undo ? t : 1 / t;
            }
    if (role == GYRE_ROLE_down)
        for (uint64_t r = 0; r < d->width; r++)
            for (uint64_t i = 0; i < d->ffn; i++) w[r * d->ffn + i] *= undo ? d->up_down[i] : 1 / d->up_down[i];
}

void gyre_diagonals_bias(const struct gyre_diagonals *d, gyre_role role, double *bias)
{
    scale_output(d, role, false, bias, 1);
}

void gyre_diagonals_after(const struct gyre_diagonals *d, gyre_role role, bool undo, double *w)
{
    const struct gyre_hparams shape = shape_of(d);
    const float *norm = d->norm[gyre_roles[role].product];
    uint64_t rows, cols;
    gyre_role_shape(role, &shape, &rows, &cols);
    for (uint64_t r = 0; norm && r < rows; r++)
        for (uint64_t i = 0; i < cols; i++) {
            const double l = (double)norm[i];
            w[r * cols + i] *= undo ? l : 1 / l;
        }
}

// ---- the manifest ---------------------------------------------------------------------------------------------

static json_t *hex_of(const double *x, uint64_t n)
{
    static const char digit[] = "0123456789abcdef";
    char *text = malloc(2 * n + 1);
    if (!text) return NULL;
    for (uint64_t i = 0; i < n; i++) {
        const unsigned c = (unsigned)(int)nearbyint(log2(x[i]) * STEPS) & 0xFFu;
        text[2 * i] = digit[c >> 4];
        text[2 * i + 1] = digit[c & 15];
    }
    json_t *out = json_stringn(text, 2 * n);
    free(text);
    return out;
}

json_t *gyre_diagonals_json(const struct gyre_diagonals *d)
{
    const uint64_t kv = (uint64_t)d->kv_heads * d->head_dim;
    return json_pack("{s:o, s:o, s:o}", "up_down", hex_of(d->up_down, d->ffn), "value", hex_of(d->value, kv), "qk",
                     hex_of(d->qk, kv / 2));
}

static int nibble(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool from_hex(const json_t *json, double *x, uint64_t n)
{
    const char *text = json_string_value(json);
    if (!text || json_string_length(json) != 2 * n) return false;
    for (uint64_t i = 0; i < n; i++) {
        const int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);
        if (high < 0 || low < 0 || (high == 8 && low == 0)) return false;
        x[i] = exp2((double)(int8_t)(high * 16 + low) / STEPS);
    }
    return true;
}

bool gyre_diagonals_read(const json_t *json, struct gyre_diagonals *d)
{
    const uint64_t kv = (uint64_t)d->kv_heads * d->head_dim;
    return from_hex(json_object_get(json, "up_down"), d->up_down, d->ffn) &&
           from_hex(json_object_get(json, "value"), d->value, kv) &&
           from_hex(json_object_get(json, "qk"), d->qk, kv / 2);
}
