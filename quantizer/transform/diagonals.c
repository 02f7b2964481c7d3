// See diagonals.h.
#include "quantizer/transform/diagonals.h"
#include "quantizer/round/products.h"
#include "quantizer/round/moments.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double STEPS = 16; // a factor of two

bool gyre_recipe_has_diagonals(const struct gyre_recipe *r)
{
    return r->diagonals.norm > 0 || r->diagonals.up_down > 0 || r->diagonals.qk > 0 || r->diagonals.value > 0;
}

gyre_status gyre_diagonals_create(const struct gyre_hparams *hp, struct gyre_diagonals *out, gyre_error *err)
{
    const uint32_t kv = hp->kv_heads * hp->head_dim;
    *out = (struct gyre_diagonals){.width = hp->width,
                                   .ffn = hp->ffn,
                                   .heads = hp->heads,
                                   .kv_heads = hp->kv_heads,
                                   .head_dim = hp->head_dim,
                                   .interleaved = hp->rope_interleaved,
                                   .up_down = malloc(hp->ffn * sizeof(double)),
                                   .value = malloc(kv * sizeof(double)),
                                   .qk = malloc(kv / 2 * sizeof(double)),
                                   .norm = {malloc(hp->width * sizeof(float)), malloc(hp->width * sizeof(float))}};
    if (!out->up_down || !out->value || !out->qk || !out->norm[0] || !out->norm[1]) {
        gyre_diagonals_release(out);
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    }
    for (uint32_t i = 0; i < hp->ffn; i++) out->up_down[i] = 1;
    for (uint32_t i = 0; i < kv; i++) out->value[i] = 1;
    for (uint32_t i = 0; i < kv / 2; i++) out->qk[i] = 1;
    for (uint32_t i = 0; i < hp->width; i++) out->norm[0][i] = out->norm[1][i] = 1;
    return GYRE_OK;
}

void gyre_diagonals_release(struct gyre_diagonals *d)
{
    free(d->up_down);
    free(d->value);
    free(d->qk);
    free(d->norm[0]);
    free(d->norm[1]);
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
        const double weight = (most > 0 && whole[r] > most ? most / whole[r] : 1) / (double)rows;
        for (uint64_t i = 0; i < cols; i++) energy[i] += weight * (double)x[r * cols + i] * (double)x[r * cols + i];
    }
    free(whole);
    return GYRE_OK;
}

static void add_column_squares(const float *w, uint64_t rows, uint64_t cols, double *sum)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) sum[c] += (double)w[r * cols + c] * (double)w[r * cols + c];
}

// (reader / writer)^(exponent / 2) of squared norms, their geometric mean made one.
static void balance(const double *writer, const double *reader, uint64_t n, double exponent, double *out)
{
    double mean = 0;
    uint64_t live = 0;
    for (uint64_t i = 0; i < n; i++) {
        out[i] = writer[i] > 0 && reader[i] > 0 ? 0.5 * exponent * log2(reader[i] / writer[i]) : NAN;
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

static uint32_t pair_of(const struct gyre_diagonals *d, uint32_t i)
{
    return d->interleaved ? i / 2 : i % (d->head_dim / 2);
}

// Energies of q and k per RoPE pair (a rotation keeps them): of rows of `out` features from the tap's rows.
static gyre_status pair_energy(const struct gyre_diagonals *d, const struct gyre_diagonal_sample *s, gyre_site site,
                               uint32_t heads, double *energy, gyre_error *err)
{
    const uint32_t hd = d->head_dim, out = heads * hd, per = heads / d->kv_heads;
    gyre_status st = GYRE_OK;
    float *y = malloc(s->rows * out * sizeof *y);
    double *sum = calloc(out, sizeof *sum);
    if (!y || !sum) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals"));
    gyre_product_rows(s->tap[GYRE_TAP_QKV], s->weights[site], s->rows, out, d->width, y);
    GYRE_GO(column_energy(y, s->rows, out, sum, err));
    for (uint32_t i = 0; i < out; i++) energy[i / hd / per * (hd / 2) + pair_of(d, i % hd)] += sum[i];
done:
    free(y);
    free(sum);
    return st;
}

static gyre_status measure_norm(const struct gyre_diagonal_sample *s, int which, double exponent,
                                struct gyre_diagonals *d, double *a, double *w, double *log, gyre_error *err)
{
    const gyre_tap tap = which ? GYRE_TAP_GATE_UP : GYRE_TAP_QKV;
    const uint64_t kv = (uint64_t)d->kv_heads * d->head_dim;
    GYRE_TRY(column_energy(s->tap[tap], s->rows, d->width, a, err));
    if (which) {
        add_column_squares(s->weights[GYRE_SITE_GATE], d->ffn, d->width, w);
        add_column_squares(s->weights[GYRE_SITE_UP], d->ffn, d->width, w);
    } else {
        add_column_squares(s->weights[GYRE_SITE_Q], (uint64_t)d->heads * d->head_dim, d->width, w);
        add_column_squares(s->weights[GYRE_SITE_K], kv, d->width, w);
        add_column_squares(s->weights[GYRE_SITE_V], kv, d->width, w);
    }
    balance(a, w, d->width, exponent, log);
    for (uint32_t i = 0; i < d->width; i++) d->norm[which][i] = (float)exp2(log[i]);
    return GYRE_OK;
}

gyre_status gyre_diagonals_measure(const struct gyre_recipe *recipe, const struct gyre_diagonal_sample *s,
                                   struct gyre_diagonals *d, gyre_error *err)
{
    const uint32_t q = d->heads * d->head_dim, kv = d->kv_heads * d->head_dim, group = d->heads / d->kv_heads;
    const uint64_t n = GYRE_MAX(GYRE_MAX(d->ffn, d->width), q);
    gyre_status st = GYRE_OK;
    double *a = malloc(5 * n * sizeof *a), *w = a ? a + n : NULL, *log = a ? a + 2 * n : NULL,
           *fine = a ? a + 3 * n : NULL;
    if (!a) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    memset(a, 0, 5 * n * sizeof *a);
    if (recipe->diagonals.up_down > 0) {
        GYRE_GO(column_energy(s->tap[GYRE_TAP_DOWN], s->rows, d->ffn, a, err));
        add_column_squares(s->weights[GYRE_SITE_DOWN], d->width, d->ffn, w);
        balance(a, w, d->ffn, recipe->diagonals.up_down, d->up_down);
        to_grid(d->up_down, d->ffn);
    }
    if (recipe->diagonals.value > 0) {
        memset(a, 0, 5 * n * sizeof *a);
        GYRE_GO(column_energy(s->tap[GYRE_TAP_O], s->rows, q, fine, err));
        add_column_squares(s->weights[GYRE_SITE_O], d->width, q, log);
        for (uint32_t i = 0; i < q; i++) { // all query heads of a group share the kv head's numbers
            a[i / d->head_dim / group * d->head_dim + i % d->head_dim] += fine[i];
            w[i / d->head_dim / group * d->head_dim + i % d->head_dim] += log[i];
        }
        balance(a, w, kv, recipe->diagonals.value, d->value);
        to_grid(d->value, kv);
    }
    if (recipe->diagonals.qk > 0) {
        memset(a, 0, 5 * n * sizeof *a);
        GYRE_GO(pair_energy(d, s, GYRE_SITE_K, d->kv_heads, a, err));
        GYRE_GO(pair_energy(d, s, GYRE_SITE_Q, d->heads, w, err));
        balance(a, w, kv / 2, recipe->diagonals.qk, d->qk);
        to_grid(d->qk, kv / 2);
    }
    for (int which = 0; which < 2 && recipe->diagonals.norm > 0; which++) {
        memset(a, 0, 5 * n * sizeof *a);
        GYRE_GO(measure_norm(s, which, recipe->diagonals.norm, d, a, w, log, err));
    }
done:
    free(a);
    return st;
}

// ---- merging --------------------------------------------------------------------------------------------------

static void scale_row(double *w, uint64_t cols, double factor)
{
    for (uint64_t c = 0; c < cols; c++) w[c] *= factor;
}

void gyre_diagonals_before(const struct gyre_diagonals *d, gyre_site site, bool undo, double *w)
{
    const uint32_t hd = d->head_dim, q = d->heads * hd, kv = d->kv_heads * hd, group = d->heads / d->kv_heads;
    const bool inverse = undo != (site == GYRE_SITE_Q || site == GYRE_SITE_O || site == GYRE_SITE_DOWN);
#define FACTOR(x) (inverse ? 1 / (x) : (x))
    switch (site) {
    case GYRE_SITE_Q:
        for (uint64_t i = 0; i < q; i++)
            scale_row(w + i * d->width, d->width,
                      FACTOR(d->qk[i / hd / group * (hd / 2) + pair_of(d, (uint32_t)i % hd)]));
        break;
    case GYRE_SITE_K:
        for (uint64_t i = 0; i < kv; i++)
            scale_row(w + i * d->width, d->width, FACTOR(d->qk[i / hd * (hd / 2) + pair_of(d, (uint32_t)i % hd)]));
        break;
    case GYRE_SITE_V:
        for (uint64_t i = 0; i < kv; i++) scale_row(w + i * d->width, d->width, FACTOR(d->value[i]));
        break;
    case GYRE_SITE_UP:
        for (uint64_t i = 0; i < d->ffn; i++) scale_row(w + i * d->width, d->width, FACTOR(d->up_down[i]));
        break;
    case GYRE_SITE_O:
        for (uint64_t r = 0; r < d->width; r++)
            for (uint64_t i = 0; i < q; i++) w[r * q + i] *= FACTOR(d->value[i / hd / group * hd + i % hd]);
        break;
    case GYRE_SITE_DOWN:
        for (uint64_t r = 0; r < d->width; r++)
            for (uint64_t i = 0; i < d->ffn; i++) w[r * d->ffn + i] *= FACTOR(d->up_down[i]);
        break;
    default:
        break;
    }
#undef FACTOR
}

void gyre_diagonals_after(const struct gyre_diagonals *d, gyre_site site, bool undo, double *w)
{
    const bool ffn = site == GYRE_SITE_GATE || site == GYRE_SITE_UP;
    const uint32_t hd = d->head_dim;
    const uint64_t rows = ffn ? d->ffn : site == GYRE_SITE_Q ? (uint64_t)d->heads * hd : (uint64_t)d->kv_heads * hd;
    if (site == GYRE_SITE_O || site == GYRE_SITE_DOWN) return;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < d->width; i++) {
            const double l = (double)d->norm[ffn][i];
            w[r * d->width + i] *= undo ? l : 1 / l;
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
