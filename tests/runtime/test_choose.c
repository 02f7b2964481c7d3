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

enum { VOCAB = 1000, LISTED = 64, SAID = 40, TRIES = 30000 };

static uint32_t upto(struct gyre_rng *rng, uint32_t n) { return (uint32_t)(gyre_rng_unit(rng) * n) % n; }

static float among(struct gyre_rng *rng, const float *list, uint32_t n) { return list[upto(rng, n)]; }
#define AMONG(rng, ...) among(rng, (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

static double weight(const gyre_task_params *p, float logit, float top)
{
    return exp(((double)logit - (double)top) / (double)p->temperature);
}

static double mass_of(const float *logits, const gyre_task_params *p)
{
    float top = -INFINITY;
    double sum = 0;
    for (uint32_t k = 0; k < VOCAB; k++) top = fmaxf(top, logits[k]);
    for (uint32_t k = 0; k < VOCAB; k++) sum += weight(p, logits[k], top);
    return sum;
}

// Do those of the list that no other token equals have the top-p's part of all?
static bool holds(const gyre_candidate *best, double mass, const gyre_task_params *p)
{
    double sum = 0;
    for (uint32_t k = 0; k < LISTED && best[k].logit > best[LISTED - 1].logit; k++)
        sum += weight(p, best[k].logit, best[0].logit);
    return sum > (double)p->top_p * mass * 1.0001;
}

static bool is_plain(const gyre_task_params *p)
{
    return !(p->repetition > 1) && p->presence == 0 && p->frequency == 0 && p->n_bias == 0;
}

static void test_listed(void **state)
{
    (void)state;
    static float logits[VOCAB];
    static uint32_t allowed[VOCAB / 32 + 1];
    uint32_t tokens[SAID], made[5] = {0}, tried[5] = {0};
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
        const bool plain = upto(&rng, 2);
        const gyre_task_params p = {.temperature = AMONG(&rng, 0, 0.5f, 1, 1.5f),
                                    .top_k = (uint32_t)AMONG(&rng, 0, 1, 5, 40, 64),
                                    .top_p = AMONG(&rng, 0, 0.5f, 0.9f, 1),
                                    .min_p = AMONG(&rng, 0, 0.02f, 0.3f),
                                    .repetition = plain ? 1 : AMONG(&rng, 0, 1, 1.2f),
                                    .presence = plain ? 0 : AMONG(&rng, 0, 0, 0.7f),
                                    .frequency = plain ? 0 : AMONG(&rng, 0, 0, 0.3f),
                                    .bias = bias,
                                    .n_bias = plain ? 0 : upto(&rng, 3),
                                    .seed = i};
        const uint32_t mask = plain ? 0 : upto(&rng, 3); // none, one in two, one in a hundred
        memset(allowed, 0, sizeof allowed);
        for (uint32_t k = 0; k < VOCAB; k++)
            if (upto(&rng, mask == 2 ? 100 : 2) == 0) allowed[k / 32] |= 1u << k % 32;
        if (!gyre_choose_may_list(&p, LISTED)) continue;
        uint32_t listed = UINT32_MAX;
        const bool by_p = gyre_choose_weighs(&p) && !(p.min_p > 0); // the others' part counts
        const bool weighed = gyre_choose_weighs(&p) && upto(&rng, 2);
        const double off = 1 + 1e-5 * (gyre_rng_unit(&rng) - 0.5), mass = weighed ? mass_of(logits, &p) : 0;
        const struct gyre_listed list = {best, LISTED, mass * off};
        const bool fits = weighed && by_p && holds(best, mass, &p) && !mask && is_plain(&p);
        const bool enough = gyre_choose_listed(&c, &p, &list, tokens, SAID, 10, mask ? allowed : NULL, &listed);
        const uint32_t want = gyre_choose(&c, &p, logits, tokens, SAID, 10, mask ? allowed : NULL);
        const uint32_t kind = fits ? 4 : by_p ? 3 : mask;
        tried[kind]++;
        made[kind] += enough;
        if (enough && listed != want)
            fail_msg("try %u: %u from the list, %u from all (temperature %g, top-k %u, top-p %g, min-p %g)", i, listed,
                     want, (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p);
    }
    gyre_chooser_free(&c);
    // It is made often where little is masked, and not always where nearly all is; and where the list is known to hold
    // the part that counts, all but always (a draw may come too near the border of two tokens).
    if (made[0] * 2 < tried[0] || made[1] * 2 < tried[1] || made[2] * 10 < tried[2] || made[2] >= tried[2] ||
        made[3] * 10 < tried[3] || made[3] >= tried[3] || tried[4] < 100 || made[4] * 100 < tried[4] * 99)
        fail_msg("made %u of %u, %u of %u, %u of %u, %u of %u, %u of %u", made[0], tried[0], made[1], tried[1], made[2],
                 tried[2], made[3], tried[3], made[4], tried[4]);
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
    for (size_t i = 0; i < GYRE_COUNT(yes); i++) assert_true(gyre_choose_weighs(&yes[i]) == (i == 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_listed), cmocka_unit_test(test_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
