// Diagonals leave the function of a model unchanged, in fp64, whatever they are; what is measured is the closed form;
// and the manifest's text gives them back.
#include "quantizer/transform/diagonals.h"
#include "runtime/util/rng.h"
#include "tests/quantizer/transform/tiny_forward.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { T = 7, V = 37, UP_DOWN = 1, VALUE = 2, QK = 4, NORM = 8, ALL = 15 };
static const uint32_t tokens[T] = {3, 36, 0, 17, 17, 5, 22};
static const unsigned rotations = GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | GYRE_ROTATE_R4;
static const struct {
    uint32_t width, heads, kv_heads, head_dim, ffn;
} shapes[] = {{40, 6, 2, 8, 76}, {32, 4, 4, 8, 64}, {44, 3, 1, 24, 188}};

static void create(const struct gyre_hparams *hp, struct gyre_diagonals *d)
{
    assert_int_equal(gyre_diagonals_create(hp, d, NULL), GYRE_OK);
}

static void draw(double *x, uint64_t n, struct gyre_rng *rng)
{
    for (uint64_t i = 0; i < n; i++) x[i] = exp2(((double)gyre_rng_below(rng, 97) - 48) / 16); // 1/8 .. 8
}

static void randomise(struct gyre_diagonals *d, unsigned kinds, uint64_t seed)
{
    struct gyre_rng rng = gyre_rng_seed(seed);
    if (kinds & UP_DOWN) draw(d->up_down, d->ffn, &rng);
    if (kinds & VALUE) draw(d->value, d->kv_heads * d->head_dim, &rng);
    if (kinds & QK) draw(d->qk, d->kv_heads * d->head_dim / 2, &rng);
    for (int n = 0; n < GYRE_PRODUCTS && kinds & NORM; n++)
        for (uint32_t i = 0; d->norm[n] && i < d->width; i++) d->norm[n][i] = (float)(0.2 + 3 * gyre_rng_unit(&rng));
}

// Rows of q or k of every head from interleaved RoPE pairs to half-split ones, or back.
static void permute(double *w, uint32_t heads, uint32_t hd, uint32_t width, bool back)
{
    double *copy = malloc((uint64_t)heads * hd * width * sizeof *copy);
    memcpy(copy, w, (uint64_t)heads * hd * width * sizeof *copy);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t i = 0; i < hd; i++) {
            const uint32_t pairs = h * hd + i, halves = h * hd + i / 2 + i % 2 * (hd / 2);
            memcpy(w + (uint64_t)(back ? pairs : halves) * width, copy + (uint64_t)(back ? halves : pairs) * width,
                   width * sizeof *w);
        }
    free(copy);
}

struct trial {
    bool half_split, claims_half_split; // the model's layout, and what the diagonals are told
    bool gain_forgotten;                // a mistake
    unsigned kinds, rotations;
};

// Distance of the logits after merging random diagonals around the rotations.
static double distance(const struct tiny *model, struct trial trial)
{
    struct tiny t;
    struct gyre_rotator r;
    double before[T * V], after[T * V];
    const struct gyre_hparams *hp = &model->hp;
    tiny_copy(&t, model);
    tiny_forward(&t, tokens, T, before);
    assert_int_equal(gyre_rotator_create(hp, 42, true, trial.rotations, &r, NULL), GYRE_OK);
    t.rotator = &r;
    for (uint32_t l = 0; l < 2; l++) {
        struct gyre_hparams told = *hp;
        struct gyre_diagonals d;
        told.rope_interleaved = !trial.claims_half_split;
        told.rope_dims = told.head_dim;
        create(&told, &d);
        randomise(&d, trial.kinds, 7 + l);
        for (int s = 0; s < GYRE_LINEARS; s++) {
            const double *gain = s == GYRE_ROLE_gate || s == GYRE_ROLE_up ? t.ffn_norm[l] : t.attn_norm[l];
            double *w = t.linear[l][s];
            const bool roped = s == GYRE_ROLE_q || s == GYRE_ROLE_k;
            const uint32_t heads = s == GYRE_ROLE_q ? hp->heads : hp->kv_heads;
            if (roped && trial.half_split) permute(w, heads, hp->head_dim, hp->width, false);
            gyre_diagonals_before(&d, (gyre_role)s, false, w);
            assert_int_equal(gyre_rotate_linear(&r, (gyre_role)s, l, gain, w, NULL), GYRE_OK);
            gyre_diagonals_after(&d, (gyre_role)s, false, w);
            if (roped && trial.half_split) permute(w, heads, hp->head_dim, hp->width, true);
        }
        for (uint32_t i = 0; i < hp->width; i++) {
            t.attn_norm[l][i] = trial.gain_forgotten ? 1 : (double)d.norm[GYRE_PRODUCT_qkv][i];
            t.ffn_norm[l][i] = trial.gain_forgotten ? 1 : (double)d.norm[GYRE_PRODUCT_gate_up][i];
        }
        gyre_diagonals_release(&d);
        assert_null(d.up_down);
    }
    assert_int_equal(gyre_rotate_rows(&r, NULL, t.embedding, V, NULL), GYRE_OK);
    assert_int_equal(gyre_rotate_rows(&r, t.final_norm, t.head, V, NULL), GYRE_OK);
    for (uint32_t i = 0; i < hp->width; i++) t.final_norm[i] = 1;
    t.r3 = t.r4 = r.r4.n != 0;
    tiny_forward(&t, tokens, T, after);
    gyre_rotator_release(&r);
    tiny_free(&t);
    return tiny_distance(before, after, T * V);
}

static void the_function_stays(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct tiny t;
        tiny_make(&t, shapes[s].width, shapes[s].heads, shapes[s].kv_heads, shapes[s].head_dim, shapes[s].ffn, false);
        static const unsigned kinds[] = {0, UP_DOWN, VALUE, QK, NORM, ALL};
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            for (int half = 0; half < 2; half++)
                for (int rotated = 0; rotated < 2; rotated++) {
                    const double off = distance(&t, (struct trial){.half_split = half,
                                                                   .claims_half_split = half,
                                                                   .kinds = kinds[k],
                                                                   .rotations = rotated ? rotations : 0});
                    if (!(off < 1e-12)) fail_msg("shape %zu, kinds %u, half %d: %g", s, kinds[k], half, off);
                }
        tiny_free(&t);
    }
}

static void known_mistakes_are_caught(void **state)
{
    (void)state;
    struct tiny t;
    tiny_make(&t, 40, 6, 2, 8, 76, false);
    for (int half = 0; half < 2; half++) // qk across wrong pairs
        assert_true(distance(&t,
                             (struct trial){
                                 .half_split = half, .claims_half_split = !half, .kinds = QK, .rotations = rotations}) >
                    1e-2);
    assert_true(distance(&t, (struct trial){.gain_forgotten = true, .kinds = NORM, .rotations = rotations}) > 1e-2);
    tiny_free(&t);
}

static void undo_undoes(void **state)
{
    (void)state;
    struct gyre_hparams hp = {.width = 40, .heads = 6, .kv_heads = 2, .head_dim = 8, .rope_dims = 8, .ffn = 76};
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        struct gyre_diagonals d;
        struct gyre_rng rng = gyre_rng_seed(3);
        hp.rope_interleaved = interleaved;
        create(&hp, &d);
        randomise(&d, ALL, 5);
        for (int s = 0; s < GYRE_LINEARS; s++) {
            uint64_t rows, cols, changed = 0;
            gyre_role_shape((gyre_role)s, &hp, &rows, &cols);
            double *w = malloc(rows * cols * sizeof *w), *kept = malloc(rows * cols * sizeof *w);
            for (uint64_t i = 0; i < rows * cols; i++) kept[i] = w[i] = gyre_rng_unit(&rng) - 0.5;
            gyre_diagonals_before(&d, (gyre_role)s, false, w);
            for (uint64_t i = 0; i < rows * cols; i++) changed += w[i] != kept[i];
            if (s == GYRE_ROLE_gate) assert_int_equal(changed, 0); // the product is not linear in the gate
            else assert_true(changed > rows * cols / 2);
            gyre_diagonals_after(&d, (gyre_role)s, false, w);
            gyre_diagonals_after(&d, (gyre_role)s, true, w);
            gyre_diagonals_before(&d, (gyre_role)s, true, w);
            for (uint64_t i = 0; i < rows * cols; i++) assert_true(fabs(w[i] - kept[i]) <= 1e-15);
            free(w);
            free(kept);
        }
        gyre_diagonals_release(&d);
    }
}

// ---- the manifest -------------------------------------------------------------------------------------------

static void text_gives_them_back(void **state)
{
    (void)state;
    const struct gyre_hparams hp = {.width = 40, .heads = 6, .kv_heads = 2, .head_dim = 8, .rope_dims = 8, .ffn = 76};
    struct gyre_diagonals d, e;
    create(&hp, &d);
    create(&hp, &e);
    randomise(&d, UP_DOWN | VALUE | QK, 11);
    d.up_down[0] = exp2(-127.0 / 16);
    d.up_down[1] = exp2(127.0 / 16);
    json_t *json = gyre_diagonals_json(&d);
    assert_non_null(json);
    assert_memory_equal(json_string_value(json_object_get(json, "up_down")), "817f", 4);
    char *text = json_dumps(json, 0);
    json_t *read = json_loads(text, 0, NULL);
    assert_true(gyre_diagonals_read(read, &e));
    assert_memory_equal(d.up_down, e.up_down, 76 * sizeof(double));
    assert_memory_equal(d.value, e.value, 16 * sizeof(double));
    assert_memory_equal(d.qk, e.qk, 8 * sizeof(double));
    json_decref(read);
    free(text);
    // Every way to be wrong.
    static const char *const keys[] = {"up_down", "value", "qk"};
    for (int k = 0; k < 3; k++) {
        char *good = strdup(json_string_value(json_object_get(json, keys[k]))), *bad = strdup(good);
        const size_t n = strlen(good);
        for (int wrong = 0; wrong < 7; wrong++) {
            memcpy(bad, good, n);
            bad[n / 2] = wrong == 0 ? 'g' : wrong == 1 ? ' ' : wrong == 2 ? 'A' : good[n / 2];
            if (wrong < 3) json_object_set_new(json, keys[k], json_string(bad));
            if (wrong == 3) json_object_set_new(json, keys[k], json_stringn(good, n - 2));
            if (wrong == 4) json_object_set_new(json, keys[k], json_integer(5));
            if (wrong == 5) json_object_del(json, keys[k]);
            if (wrong == 6) json_object_set_new(json, keys[k], json_sprintf("%s00", good));
            assert_false(gyre_diagonals_read(json, &e));
        }
        json_object_set_new(json, keys[k], json_string(good));
        assert_true(gyre_diagonals_read(json, &e));
        free(good);
        free(bad);
    }
    assert_false(gyre_diagonals_read(NULL, &e));
    json_decref(json);
    gyre_diagonals_release(&d);
    gyre_diagonals_release(&e);
}

// ---- measuring ----------------------------------------------------------------------------------------------

enum { D = 20, H = 6, KV = 2, HD = 8, F = 28, ROWS = 60, DEAD = 5 };

static uint64_t widest(void) { return H * HD; }

// a[i] = mean square of column i, no row with more than 16 medians of energy.
static void energy(const double *x, uint64_t cols, double *a)
{
    double whole[ROWS] = {0}, median = 0;
    for (int r = 0; r < ROWS; r++)
        for (uint64_t i = 0; i < cols; i++) whole[r] += x[(uint64_t)r * cols + i] * x[(uint64_t)r * cols + i];
    for (int r = 0; r < ROWS; r++) { // the upper median, by counting
        int below = 0;
        for (int k = 0; k < ROWS; k++) below += whole[k] < whole[r];
        if (below == ROWS / 2) median = whole[r];
    }
    memset(a, 0, cols * sizeof *a);
    for (int r = 0; r < ROWS; r++)
        for (uint64_t i = 0; i < cols; i++)
            a[i] += fmin(1, 16 * median / whole[r]) * x[(uint64_t)r * cols + i] * x[(uint64_t)r * cols + i] / ROWS;
}

static void squares(const float *w, uint64_t rows, uint64_t cols, double *sum)
{
    for (uint64_t i = 0; i < rows * cols; i++) sum[i % cols] += (double)w[i] * (double)w[i];
}

// got[i] = (w_i / a_i)^e over its geometric mean, of squares `w` and `a`; on the grid of 2^(c / 16), or not.
static void follows(const double *got, const double *a, const double *w, uint64_t n, double e, bool grid)
{
    double mean = 0;
    uint64_t live = 0, moved = 0;
    for (uint64_t i = 0; i < n; i++)
        if (a[i] > 0 && w[i] > 0) {
            mean += e * log2(sqrt(w[i] / a[i]));
            live++;
        }
    mean /= (double)live;
    for (uint64_t i = 0; i < n; i++) {
        if (!(a[i] > 0 && w[i] > 0)) {
            assert_true(got[i] == 1);
            continue;
        }
        const double c = 16 * (e * log2(sqrt(w[i] / a[i])) - mean);
        assert_true(fabs(16 * log2(got[i]) - c) < (grid ? 0.5001 : 1e-4));
        if (grid) assert_true(fabs(16 * log2(got[i]) - rint(c)) < 1e-9 || fabs(c - floor(c) - 0.5) < 1e-3);
        moved += fabs(c) > 1;
    }
    assert_true(moved > n / 2);
}

static void measured_ones_are_the_closed_form(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(21);
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        const struct gyre_hparams hp = {.width = D,
                                        .heads = H,
                                        .kv_heads = KV,
                                        .head_dim = HD,
                                        .rope_dims = HD,
                                        .ffn = F,
                                        .rope_interleaved = interleaved};
        const uint64_t widths[GYRE_PRODUCTS] = {D, H * HD, D, F};
        float *weights[GYRE_LINEARS], *tap[GYRE_PRODUCTS];
        double *x[GYRE_PRODUCTS], a[H * HD], w[H * HD], fine[H * HD], norms[D];
        for (int s = 0; s < GYRE_LINEARS; s++) {
            uint64_t rows, cols;
            gyre_role_shape((gyre_role)s, &hp, &rows, &cols);
            weights[s] = malloc(rows * cols * sizeof(float));
            for (uint64_t i = 0; i < rows * cols; i++)
                weights[s][i] = (float)((gyre_rng_unit(&rng) - 0.5) * exp2((double)(i % cols % 7) - 3));
            if (s == GYRE_ROLE_down) // a channel that nothing reads
                for (uint64_t r = 0; r < rows; r++) weights[s][r * cols + DEAD + 1] = 0;
        }
        for (int t = 0; t < GYRE_PRODUCTS; t++) {
            tap[t] = malloc(ROWS * widths[t] * sizeof(float));
            x[t] = malloc(ROWS * widths[t] * sizeof(double));
            for (uint64_t i = 0; i < ROWS * widths[t]; i++) {
                const uint64_t col = i % widths[t], row = i / widths[t];
                const double size = exp2((double)(col * 5 % 9) / 3) * (row == 13 ? 50 : 1);
                const bool dead = col == DEAD && t != GYRE_PRODUCT_o; // never fires
                x[t][i] = tap[t][i] = dead ? 0 : (float)(size * (gyre_rng_unit(&rng) - 0.5));
            }
        }
        float biased[HD * KV], *bias[GYRE_LINEARS] = {[GYRE_ROLE_k] = biased}; // far larger than what keys vary by
        for (int i = 0; i < HD * KV; i++) biased[i] = (float)exp2(i % 7) * 40;
        const struct gyre_diagonal_sample sample = {
            .tap = {tap[0], tap[1], tap[2], tap[3]}, .rows = ROWS, .weights = weights, .bias = bias};
        static struct gyre_recipe recipe;
        struct gyre_diagonals d;
        memset(&recipe, 0, sizeof recipe);
        assert_false(gyre_recipe_has_diagonals(&recipe));
        create(&hp, &d);
        assert_int_equal(gyre_diagonals_measure(&recipe, &sample, &d, NULL), GYRE_OK); // nothing is asked for
        for (int i = 0; i < F; i++) assert_true(d.up_down[i] == 1);
        recipe.diagonals.up_down = 0.5;
        recipe.diagonals.value = 0.4;
        recipe.diagonals.qk = 0.3;
        recipe.diagonals.norm = 0.25;
        assert_true(gyre_recipe_has_diagonals(&recipe));
        assert_int_equal(gyre_diagonals_measure(&recipe, &sample, &d, NULL), GYRE_OK);

        memset(w, 0, sizeof w);
        energy(x[GYRE_PRODUCT_down], F, a);
        squares(weights[GYRE_ROLE_down], D, F, w);
        assert_true(a[DEAD] == 0 && w[DEAD + 1] == 0);
        follows(d.up_down, a, w, F, 0.5, true);

        energy(x[GYRE_PRODUCT_o], H * HD, fine); // heads 0..2 read kv head 0
        double readers[H * HD] = {0};
        squares(weights[GYRE_ROLE_o], D, H * HD, readers);
        memset(a, 0, sizeof a);
        memset(w, 0, sizeof w);
        for (int h = 0; h < H; h++)
            for (int i = 0; i < HD; i++) {
                a[h / 3 * HD + i] += fine[h * HD + i];
                w[h / 3 * HD + i] += readers[h * HD + i];
            }
        follows(d.value, a, w, KV * HD, 0.4, true);

        memset(a, 0, sizeof a);
        memset(w, 0, sizeof w);
        for (int which = 0; which < 2; which++) { // keys write, queries read
            const int heads = which ? H : KV;
            double *y = malloc(ROWS * widest() * sizeof *y);
            for (int r = 0; r < ROWS; r++)
                for (int o = 0; o < heads * HD; o++) {
                    double sum = which ? 0 : (double)biased[o];
                    for (int i = 0; i < D; i++)
                        sum += x[GYRE_PRODUCT_qkv][r * D + i] *
                               (double)weights[which ? GYRE_ROLE_q : GYRE_ROLE_k][o * D + i];
                    y[r * heads * HD + o] = sum;
                }
            energy(y, (uint64_t)heads * HD, fine);
            for (int h = 0; h < heads; h++)
                for (int i = 0; i < HD; i++) {
                    const int pair = interleaved ? i / 2 : i % (HD / 2);
                    (which ? w : a)[(which ? h / 3 : h) * HD / 2 + pair] += fine[h * HD + i];
                }
            free(y);
        }
        for (int i = 0; i < KV * HD / 2; i++) assert_true(a[i] > 0 && w[i] > 0);
        double mean = 0;
        for (int i = 0; i < KV * HD / 2; i++) mean += 0.3 * log2(sqrt(w[i] / a[i])) / (KV * HD / 2);
        for (int i = 0; i < KV * HD / 2; i++)
            assert_true(fabs(16 * log2(d.qk[i]) - 16 * (0.3 * log2(sqrt(w[i] / a[i])) - mean)) < 0.501);

        for (int which = 0; which < 2; which++) {
            memset(w, 0, sizeof w);
            energy(x[which ? GYRE_PRODUCT_gate_up : GYRE_PRODUCT_qkv], D, a);
            const gyre_role sites[2][3] = {{GYRE_ROLE_q, GYRE_ROLE_k, GYRE_ROLE_v}, {GYRE_ROLE_gate, GYRE_ROLE_up}};
            for (int s = 0; s < 3 - which; s++) {
                uint64_t rows, cols;
                gyre_role_shape(sites[which][s], &hp, &rows, &cols);
                squares(weights[sites[which][s]], rows, cols, w);
            }
            double product = 1;
            for (int i = 0; i < D; i++) {
                norms[i] = (double)d.norm[which ? GYRE_PRODUCT_gate_up : GYRE_PRODUCT_qkv][i];
                product *= norms[i];
            }
            assert_true(a[DEAD] == 0 && fabs(product - 1) < 1e-5);
            follows(norms, a, w, D, 0.25, false);
        }
        gyre_diagonals_release(&d);
        for (int s = 0; s < GYRE_LINEARS; s++) free(weights[s]);
        for (int t = 0; t < GYRE_PRODUCTS; t++) {
            free(tap[t]);
            free(x[t]);
        }
    }
}

// ---- published rules and the search ----------------------------------------------------------------------------

struct drawn {
    struct gyre_hparams hp;
    float *weights[GYRE_LINEARS], *tap[GYRE_PRODUCTS];
    struct gyre_diagonal_sample sample;
};

// Inputs of some channels are far larger than others, as those of real norms are.
static void draw_sample(struct drawn *s)
{
    struct gyre_rng rng = gyre_rng_seed(33);
    s->hp = (struct gyre_hparams){.width = D, .heads = H, .kv_heads = KV, .head_dim = HD, .rope_dims = HD, .ffn = F};
    const uint64_t widths[GYRE_PRODUCTS] = {D, H * HD, D, F};
    s->sample = (struct gyre_diagonal_sample){.rows = ROWS, .weights = s->weights};
    for (int r = 0; r < GYRE_LINEARS; r++) {
        uint64_t rows, cols;
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        s->weights[r] = malloc(rows * cols * sizeof(float));
        for (uint64_t i = 0; i < rows * cols; i++) s->weights[r][i] = (float)(gyre_rng_unit(&rng) - 0.5);
        s->sample.bits[r] = 4;
        s->sample.group[r] = (uint32_t)cols;
    }
    for (int t = 0; t < GYRE_PRODUCTS; t++) {
        s->sample.tap[t] = s->tap[t] = malloc(ROWS * widths[t] * sizeof(float));
        for (uint64_t i = 0; i < ROWS * widths[t]; i++)
            s->tap[t][i] = (float)((i % widths[t] % 5 == 0 ? 30 : 1) * (gyre_rng_unit(&rng) - 0.5));
    }
}

static void drop_sample(struct drawn *s)
{
    for (int r = 0; r < GYRE_LINEARS; r++) free(s->weights[r]);
    for (int t = 0; t < GYRE_PRODUCTS; t++) free(s->tap[t]);
}

static void published_rules(void **state)
{
    (void)state;
    struct drawn s;
    struct gyre_diagonals d;
    draw_sample(&s);
    create(&s.hp, &d);
    for (int rule = 0; rule < 2; rule++) {
        static struct gyre_recipe recipe;
        double want[D], mean = 0;
        recipe.diagonals.by = rule ? GYRE_DIAGONAL_INPUTS : GYRE_DIAGONAL_LARGEST;
        recipe.diagonals.norm = 0.7;
        assert_int_equal(gyre_diagonals_measure(&recipe, &s.sample, &d, NULL), GYRE_OK);
        for (int i = 0; i < D; i++) {
            double most = 0, size = 0, reader = 0;
            for (int t = 0; t < ROWS; t++) {
                most = fmax(most, fabs((double)s.tap[GYRE_PRODUCT_gate_up][t * D + i]));
                size += fabs((double)s.tap[GYRE_PRODUCT_gate_up][t * D + i]) / ROWS;
            }
            for (int r = 0; r < 2 * F; r++)
                reader = fmax(reader, fabs((double)s.weights[r < F ? GYRE_ROLE_gate : GYRE_ROLE_up][r % F * D + i]));
            // What stands in the norm is the published scale's inverse.
            want[i] = rule ? log(pow(size, -0.7)) : log(pow(reader, 0.3) / pow(most, 0.7));
            mean += want[i] / D;
        }
        for (int i = 0; i < D; i++)
            assert_true(fabs(log((double)d.norm[GYRE_PRODUCT_gate_up][i]) - (want[i] - mean)) < 1e-5);
    }
    gyre_diagonals_release(&d);
    drop_sample(&s);
}

// Squared error of what gate and up put out, rounded per row to 4 bits behind a diagonal.
static double output_error(const struct drawn *s, const float *l)
{
    double sum = 0;
    for (int r = 0; r < 2 * F; r++) {
        const float *w = s->weights[r < F ? GYRE_ROLE_gate : GYRE_ROLE_up] + r % F * D;
        double largest = 0;
        for (int i = 0; i < D; i++) largest = fmax(largest, fabs((double)w[i] / (double)l[i]));
        for (int t = 0; t < ROWS; t++) {
            double off = 0;
            for (int i = 0; i < D; i++) {
                const double code = rint((double)w[i] / (double)l[i] * 7 / largest);
                off += (code * largest / 7 * (double)l[i] - (double)w[i]) *
                       (double)s->tap[GYRE_PRODUCT_gate_up][t * D + i];
            }
            sum += off * off;
        }
    }
    return sum;
}

static void the_search_finds_the_least_error(void **state)
{
    (void)state;
    static struct gyre_recipe recipe;
    struct drawn s;
    struct gyre_diagonals d, found;
    double least = INFINITY, plain = 0;
    draw_sample(&s);
    create(&s.hp, &d);
    create(&s.hp, &found);
    recipe.diagonals.by = GYRE_DIAGONAL_INPUTS;
    recipe.diagonals.norm = GYRE_AUTO;
    assert_true(gyre_recipe_has_diagonals(&recipe));
    assert_int_equal(gyre_diagonals_measure(&recipe, &s.sample, &found, NULL), GYRE_OK);
    const double got = output_error(&s, found.norm[GYRE_PRODUCT_gate_up]);
    for (int step = 0; step <= 20; step++) {
        recipe.diagonals.norm = step / 20.0;
        if (step) assert_int_equal(gyre_diagonals_measure(&recipe, &s.sample, &d, NULL), GYRE_OK);
        const double error = output_error(&s, d.norm[GYRE_PRODUCT_gate_up]);
        least = fmin(least, error);
        if (!step) plain = error;
    }
    assert_true(got < 0.8 * plain && fabs(got - least) < 1e-4 * least);
    gyre_diagonals_release(&d);
    gyre_diagonals_release(&found);
    drop_sample(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_function_stays),
        cmocka_unit_test(known_mistakes_are_caught),
        cmocka_unit_test(undo_undoes),
        cmocka_unit_test(text_gives_them_back),
        cmocka_unit_test(published_rules),
        cmocka_unit_test(the_search_finds_the_least_error),
        cmocka_unit_test(measured_ones_are_the_closed_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
