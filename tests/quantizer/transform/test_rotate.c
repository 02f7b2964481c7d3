// Every rotation site leaves the function of the model unchanged, alone and together, in fp64; and the known mistakes
// do not.
#include "tests/quantizer/transform/tiny_forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 7, V = 37 };
static const uint32_t tokens[N] = {3, 36, 0, 17, 17, 5, 22};

static void apply(struct tiny *t, const struct gyre_rotator *r, bool forget_gain)
{
    t->rotator = r;
    for (uint32_t l = 0; l < 2; l++)
        for (int s = 0; s < GYRE_LINEARS; s++) {
            const double *gain = s == GYRE_ROLE_gate || s == GYRE_ROLE_up ? t->ffn_norm[l] : t->attn_norm[l];
            assert_int_equal(gyre_rotate_linear(r, (gyre_role)s, l, gain, t->linear[l][s], NULL), GYRE_OK);
        }
    for (uint32_t l = 0; l < 2 && r->fold && !forget_gain; l++)
        for (uint32_t i = 0; i < t->hp.width; i++) t->attn_norm[l][i] = t->ffn_norm[l][i] = 1;
    assert_int_equal(gyre_rotate_rows(r, NULL, t->embedding, V, NULL), GYRE_OK);
    if (t->head) {
        assert_int_equal(gyre_rotate_rows(r, t->final_norm, t->head, V, NULL), GYRE_OK);
        for (uint32_t i = 0; i < t->hp.width && r->fold; i++) t->final_norm[i] = 1;
    } else if (r->r1.n) {
        t->head_rotation = true;
    }
    t->r4 = r->r4.n != 0;
}

// Distance of the logits after rotating with `which`; the hooks change what the rotated model does wrong.
struct mistake {
    bool gain_kept, no_fold, no_r4, tied_twice, r3, r3_before_rope;
};
static double distance(const struct tiny *model, bool fold, unsigned which, struct mistake m)
{
    struct tiny t;
    struct gyre_rotator r;
    double before[N * V], after[N * V];
    tiny_copy(&t, model);
    tiny_forward(&t, tokens, N, before);
    assert_int_equal(gyre_rotator_create(&t.hp, 42, fold, which, &r, NULL), GYRE_OK);
    if (m.no_fold) r.fold = false;
    apply(&t, &r, m.gain_kept);
    if (m.no_r4) t.r4 = false;
    if (m.tied_twice) t.head_rotation = false;
    t.r3 = m.r3;
    t.r3_before_rope = m.r3_before_rope;
    tiny_forward(&t, tokens, N, after);
    gyre_rotator_release(&r);
    tiny_free(&t);
    return tiny_distance(before, after, N * V);
}

static const unsigned all = GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | GYRE_ROTATE_R4;

// Widths: 40 = 20*2, heads wider than the model (6*8), ffn 76; power of two with equal heads; 188 = 47 segments of 4,
// 44 of Paley.
static const struct {
    uint32_t width, heads, kv_heads, head_dim, ffn;
} shapes[] = {{40, 6, 2, 8, 76}, {32, 4, 4, 8, 64}, {44, 3, 1, 24, 188}};

static void each_site_and_all_together(void **state)
{
    (void)state;
    const struct mistake none = {0}, r3 = {.r3 = true};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int tied = 0; tied < 2; tied++) {
            struct tiny t;
            tiny_make(&t, shapes[s].width, shapes[s].heads, shapes[s].kv_heads, shapes[s].head_dim, shapes[s].ffn,
                      tied);
            if (!tied) assert_true(distance(&t, true, 0, none) < 1e-12);
            assert_true(distance(&t, true, GYRE_ROTATE_R1, none) < 1e-12);
            assert_true(distance(&t, false, GYRE_ROTATE_R2, none) < 1e-12);
            assert_true(distance(&t, false, GYRE_ROTATE_R4, none) < 1e-12);
            assert_true(distance(&t, false, 0, r3) < 1e-12);
            assert_true(distance(&t, true, all, none) < 1e-12);
            assert_true(distance(&t, true, all, r3) < 1e-12);
            tiny_free(&t);
        }
}

static void known_mistakes_are_caught(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct tiny t;
        tiny_make(&t, 40, 6, 2, 8, 76, tied);
        assert_true(distance(&t, true, all, (struct mistake){.gain_kept = true}) > 1e-2);
        assert_true(distance(&t, true, all, (struct mistake){.no_fold = true}) > 1e-2);
        assert_true(distance(&t, true, all, (struct mistake){.no_r4 = true}) > 1e-2);
        assert_true(distance(&t, true, all, (struct mistake){.r3_before_rope = true}) > 1e-2);
        if (tied) assert_true(distance(&t, true, all, (struct mistake){.tied_twice = true}) > 1e-2);
        tiny_free(&t);
    }
}

static void seeds_matter_and_repeat(void **state)
{
    (void)state;
    const struct gyre_hparams hp = {.width = 40, .heads = 6, .kv_heads = 2, .head_dim = 8, .ffn = 76};
    double w[3][16 * 40];
    for (int i = 0; i < 3; i++) {
        struct gyre_rotator r;
        assert_int_equal(gyre_rotator_create(&hp, i == 2 ? 8 : 7, false, all, &r, NULL), GYRE_OK);
        for (int j = 0; j < 16 * 40; j++) w[i][j] = j % 13 - 6;
        assert_int_equal(gyre_rotate_linear(&r, GYRE_ROLE_v, 3, NULL, w[i], NULL), GYRE_OK);
        gyre_rotator_release(&r);
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
    assert_memory_not_equal(w[0], w[2], sizeof w[0]);
}

// What a rotated linear makes of a rotated input is what was made before, turned as outputs are; so are gradients.
static void outputs_turn_as_their_linears(void **state)
{
    (void)state;
    enum { ROWS = 5 };
    for (int s = 0; s < 3; s++) {
        const struct gyre_hparams hp = {.width = shapes[s].width,
                                        .heads = shapes[s].heads,
                                        .kv_heads = shapes[s].kv_heads,
                                        .head_dim = shapes[s].head_dim,
                                        .ffn = shapes[s].ffn};
        struct gyre_rotator r;
        assert_int_equal(gyre_rotator_create(&hp, 9, false, all, &r, NULL), GYRE_OK);
        for (int role = 0; role < GYRE_LINEARS; role++) {
            uint64_t n, k;
            gyre_role_shape((gyre_role)role, &hp, &n, &k);
            double *w = malloc(n * k * sizeof *w), *x = malloc(ROWS * k * sizeof *x), *y = calloc(ROWS * n, sizeof *y);
            for (uint64_t i = 0; i < n * k; i++) w[i] = (double)(i * 7919 % 31) - 15;
            for (uint64_t i = 0; i < ROWS * k; i++) x[i] = (double)(i * 104729 % 23) - 11;
            for (int turned = 0; turned < 2; turned++) {
                for (uint64_t t = 0; t < ROWS; t++)
                    for (uint64_t i = 0; i < n; i++)
                        for (uint64_t j = 0; j < k; j++)
                            y[t * n + i] += (turned ? -1 : 1) * w[i * k + j] * x[t * k + j];
                if (turned) break;
                assert_int_equal(gyre_rotate_output(&r, (gyre_role)role, 1, y, ROWS, NULL), GYRE_OK);
                assert_int_equal(gyre_rotate_linear(&r, (gyre_role)role, 1, NULL, w, NULL), GYRE_OK);
                assert_int_equal(gyre_rotate_input(&r, gyre_roles[role].product, 1, x, ROWS, NULL), GYRE_OK);
            }
            for (uint64_t i = 0; i < ROWS * n; i++)
                if (!(y[i] < 1e-8 && y[i] > -1e-8)) fail_msg("linear %d: off by %g", role, y[i]);
            free(w);
            free(x);
            free(y);
        }
        gyre_rotator_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_site_and_all_together),
        cmocka_unit_test(known_mistakes_are_caught),
        cmocka_unit_test(seeds_matter_and_repeat),
        cmocka_unit_test(outputs_turn_as_their_linears),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
