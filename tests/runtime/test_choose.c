// The choice from the most likely tokens is the choice from all logits, or is not made.
#include "runtime/choose.h"
#include "runtime/sample.h"
#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 1000, LISTED = 64, SAID = 40, TRIES = 20000 };

static uint32_t upto(struct gyre_rng *rng, uint32_t n) { return (uint32_t)(gyre_rng_unit(rng) * n) % n; }

static float among(struct gyre_rng *rng, const float *list, uint32_t n) { return list[upto(rng, n)]; }
#define AMONG(rng, ...) among(rng, (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

static void test_listed(void **state)
{
    (void)state;
    static float logits[VOCAB];
    static uint32_t allowed[VOCAB / 32 + 1];
    uint32_t tokens[SAID], made[4] = {0}, tried[4] = {0};
    struct gyre_chooser c;
    struct gyre_rng rng = gyre_rng_seed(7);
    assert_true(gyre_chooser_init(&c, VOCAB));
    for (uint32_t i = 0; i < TRIES; i++) {
        gyre_candidate best[LISTED];
        gyre_logit_bias bias[3];
        const float spread = AMONG(&rng, 0.5f, 3, 10, 40);
        for (uint32_t k = 0; k < VOCAB; k++) logits[k] = spread * (float)(gyre_rng_unit(&rng) - 0.5);
        if (upto(&rng, 3) == 0) // many are equal
            for (uint32_t k = 0; k < VOCAB; k++) logits[k] = roundf(logits[k]);
        if (upto(&rng, 2)) // a few stand out, as they do where a model is sure
            for (uint32_t k = 0; k < 5; k++) logits[upto(&rng, VOCAB)] += 20;
        if (upto(&rng, 50) == 0) logits[upto(&rng, VOCAB)] = -INFINITY;
        gyre_sample_best(logits, VOCAB, LISTED, best);
        for (uint32_t k = 0; k < SAID; k++)
            tokens[k] = upto(&rng, 2) ? best[upto(&rng, LISTED)].token : upto(&rng, VOCAB);
        for (uint32_t k = 0; k < 3; k++)
            bias[k] = (gyre_logit_bias){best[upto(&rng, LISTED)].token, AMONG(&rng, -100, -1, -0.5f)};
        const gyre_task_params p = {.temperature = AMONG(&rng, 0, 0.5f, 1, 1.5f),
                                    .top_k = (uint32_t)AMONG(&rng, 0, 1, 5, 40, 64),
                                    .top_p = AMONG(&rng, 0, 0.5f, 0.9f, 1),
                                    .min_p = AMONG(&rng, 0, 0.02f, 0.3f),
                                    .repetition = AMONG(&rng, 0, 1, 1.2f),
                                    .presence = AMONG(&rng, 0, 0, 0.7f),
                                    .frequency = AMONG(&rng, 0, 0, 0.3f),
                                    .bias = bias,
                                    .n_bias = upto(&rng, 3),
                                    .seed = i};
        const uint32_t mask = upto(&rng, 3); // none, one in two, one in a hundred
        memset(allowed, 0, sizeof allowed);
        for (uint32_t k = 0; k < VOCAB; k++)
            if (upto(&rng, mask == 2 ? 100 : 2) == 0) allowed[k / 32] |= 1u << k % 32;
        if (!gyre_choose_may_list(&p, LISTED)) continue;
        uint32_t listed = UINT32_MAX;
        const bool enough = gyre_choose_listed(&c, &p, best, LISTED, tokens, SAID, 10, mask ? allowed : NULL, &listed);
        const uint32_t want = gyre_choose(&c, &p, logits, tokens, SAID, 10, mask ? allowed : NULL);
        const bool by_p = p.temperature > 0 && !p.top_k && !(p.min_p > 0); // the others' part counts
        tried[by_p ? 3 : mask]++;
        made[by_p ? 3 : mask] += enough;
        if (enough && listed != want)
            fail_msg("try %u: %u from the list, %u from all (temperature %g, top-k %u, top-p %g, min-p %g)", i, listed,
                     want, (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p);
    }
    gyre_chooser_free(&c);
    // It is made often where little is masked, and not always where nearly all is.
    if (made[0] * 2 < tried[0] || made[1] * 2 < tried[1] || made[2] * 10 < tried[2] || made[2] >= tried[2] ||
        made[3] * 10 < tried[3] || made[3] >= tried[3])
        fail_msg("made %u of %u, %u of %u, %u of %u, %u of %u", made[0], tried[0], made[1], tried[1], made[2], tried[2],
                 made[3], tried[3]);
}

// What could raise a token that is not in the list, or needs the sum of all, is left to all logits.
static void test_left(void **state)
{
    (void)state;
    const gyre_logit_bias up = {5, 1}, down = {5, -1};
    const gyre_task_params no[] = {{.temperature = 1},
                                   {.temperature = 1, .top_p = 1},
                                   {.temperature = 1, .top_k = 65},
                                   {.bias = &up, .n_bias = 1},
                                   {.presence = -1},
                                   {.frequency = -1},
                                   {.repetition = 0.9f}},
                           yes[] = {{.temperature = 0},
                                    {.temperature = 1, .top_k = 64},
                                    {.temperature = 1, .min_p = 0.1f},
                                    {.temperature = 1, .top_p = 0.9f},
                                    {.bias = &down, .n_bias = 1},
                                    {.presence = 1, .frequency = 1, .repetition = 1.1f}};
    for (size_t i = 0; i < GYRE_COUNT(no); i++) assert_false(gyre_choose_may_list(&no[i], 64));
    for (size_t i = 0; i < GYRE_COUNT(yes); i++) assert_true(gyre_choose_may_list(&yes[i], 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_listed), cmocka_unit_test(test_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
