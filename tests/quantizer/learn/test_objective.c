// The losses that rotations are learned by: their gradients by elements of R1 and R2 are those of the losses, by
// differences where nothing is rounded; steps along them go down where something is.
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"
#include "backends/cpu/fast.h"
#include "quantizer/file/plan.h"
#include "quantizer/learn/cayley.h"
#include "quantizer/learn/folded.h"
#include "quantizer/learn/objective.h"
#include "quantizer/learn/radam.h"
#include "quantizer/recipe/fields.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { WINDOWS = 2, TOKENS = 33 };

struct bench {
    gyre_device *device;
    gyre_source *source;
    struct gyre_plan plan;
    struct gyre_calib_text text;
    uint32_t token[WINDOWS * TOKENS];
    struct gyre_matrices at, gradient;
    struct gyre_objective objective;
    bool reads; // a window of the text each call
};

static void open_bench(struct bench *b, const char *family, const char *profile, gyre_learn_method method, uint32_t act,
                       uint32_t kv)
{
    const char *file = files_path("base.gguf");
    struct tiny_options tiny = tiny_family(family);
    *b = (struct bench){.reads = method != GYRE_LEARN_OPTROT};
    assert_int_equal(tiny_write_gguf(file, &tiny), 0);
    const gyre_quantize_params params = {
        .source = file, .output = "unused.gguf", .recipe = "quarot-rtn", .profile = profile};
    const struct gyre_choice choice = {.seed = 3, .n_seeds = 1, .act_clip = 1, .kv_clip = 1, .kv_clip_v = 1};
    OK(gyre_fast_device_create(NULL, &b->device, err));
    OK(gyre_source_open(file, &b->source, err));
    OK(gyre_plan_begin(&params, NULL, b->source, &b->plan, err));
    OK(gyre_plan_finish(&params, &choice, &b->plan, err));
    tiny_tokens(b->token, WINDOWS * TOKENS, 5, tiny.vocab);
    b->text = (struct gyre_calib_text){.windows = WINDOWS, .tokens = TOKENS, .token = b->token};
    OK(gyre_folder_matrices(&b->plan, method == GYRE_LEARN_OSTQUANT, &b->at, err));
    OK(gyre_matrices_create_as(&b->at, &b->gradient, err));
    const struct gyre_objective_params p = {.device = b->device,
                                            .plan = &b->plan,
                                            .source = b->source,
                                            .text = &b->text,
                                            .shape = &b->at,
                                            .act = act,
                                            .kv = kv};
    if (method == GYRE_LEARN_OPTROT) OK(gyre_objective_optrot(&p, &b->objective, err));
    else if (method == GYRE_LEARN_WHIP || method == GYRE_LEARN_KURTOSIS)
        OK(gyre_objective_taps(&p, method == GYRE_LEARN_WHIP, &b->objective, err));
    else OK(gyre_objective_spin(&p, method, &b->objective, err));
}

static void close_bench(struct bench *b)
{
    b->objective.close(b->objective.self);
    gyre_matrices_release(&b->at);
    gyre_matrices_release(&b->gradient);
    gyre_plan_release(&b->plan);
    gyre_source_close(b->source);
    gyre_device_close(b->device);
}

static double loss(struct bench *b, struct gyre_matrices *gradient)
{
    double at;
    OK(b->objective.at(b->objective.self, &b->at, 1, &at, gradient, err));
    return at;
}

// Along `direction`, by four points.
static double slope(struct bench *b, const double *direction, double step)
{
    const uint64_t n = gyre_matrices_count(&b->at);
    double *x = gyre_matrices_data(&b->at), *was = malloc(n * sizeof *was), y[4];
    static const double where[4] = {-2, -1, 1, 2};
    memcpy(was, x, n * sizeof *was);
    for (int i = 0; i < 4; i++) {
        for (uint64_t k = 0; k < n; k++) x[k] = was[k] + where[i] * step * direction[k];
        y[i] = loss(b, NULL);
    }
    memcpy(x, was, n * sizeof *was);
    free(was);
    return (y[0] - 8 * y[1] + 8 * y[2] - y[3]) / (12 * step);
}

static uint64_t state = 11;
static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53 - 0.5;
}

// The first of each kind of number, one behind the other: R1, R2, and of diagonals norm, up_down, value and qk.
enum { KINDS = 6 };
static void kinds_of(const struct gyre_matrices *m, uint64_t first[KINDS + 1])
{
    const double *x = gyre_matrices_data(m), *const at[] = {m->norm, m->up_down, m->value, m->qk};
    first[0] = 0;
    first[1] = (uint64_t)(m->r2 - x);
    for (int i = 0; i < 4; i++) first[2 + i] = at[i] ? (uint64_t)(at[i] - x) : gyre_matrices_count(m);
    first[KINDS] = gyre_matrices_count(m);
}

// With parts of all rotations, of R1 alone and of R2 alone. Diagonals change nothing where nothing is rounded: what
// their two sides get is each other's opposite.
static void compare_slopes(struct bench *b, const char *what, double bound)
{
    const uint64_t n = gyre_matrices_count(&b->at), turning = gyre_matrices_turning(&b->at);
    double *direction = calloc(n, sizeof *direction), worst = 0, all = 0, paired = 0;
    double at, *g = calloc(n, sizeof *g);
    const uint32_t sets = b->reads ? 1 : 2; // a step without windows sees every second of two blocks
    uint64_t first[KINDS + 1];
    kinds_of(&b->at, first);
    for (uint32_t s = 0; s < sets; s++) {
        OK(b->objective.at(b->objective.self, &b->at, s + 1, &at, &b->gradient, err));
        for (uint64_t i = 0; i < n; i++) g[i] += gyre_matrices_data(&b->gradient)[i] / sets;
    }
    for (int part = 0; part < 3; part++) {
        const uint64_t from = part == 2 ? first[1] : 0, to = part == 1 ? first[1] : turning;
        double want = 0, length = 0, size = 0;
        for (uint64_t i = 0; i < turning; i++) {
            const bool mine = i >= from && i < to;
            direction[i] = mine ? uniform() + (part ? 0 : 8 * g[i]) : 0;
            want += direction[i] * g[i];
            length += direction[i] * direction[i];
            size += mine ? g[i] * g[i] : 0;
        }
        if (from == to) continue;
        const double have = slope(b, direction, 0.01 / sqrt(length)), error = fabs(have - want) / sqrt(size * length);
        worst = fmax(worst, error);
        all = fmax(all, size);
        assert_true(size > 0);
    }
    for (uint64_t i = turning; i < n; i++) paired += g[i] * g[i];
    printf("%s: worst slope is %.1e of the gradient off, diagonals' is %.1e\n", what, worst, sqrt(paired / all));
    assert_true(worst <= bound && paired <= 1e-3 * all); // of what is left over in single precision
    free(direction);
    free(g);
}

// The passes run in single precision, which differences of their loss show; the rules themselves are held to 1e-5 in
// tests/quantizer/gradient.
static void gradients_of_exact_models(void **unused)
{
    (void)unused;
    static const struct {
        const char *family, *profile;
        gyre_learn_method method;
        double bound;
    } all[] = {{"llama", "full", GYRE_LEARN_SPINQUANT, 2e-3},
               {"qwen2", "full", GYRE_LEARN_SPINQUANT, 2e-3},
               {"qwen3", "portable", GYRE_LEARN_KL, 2e-3},
               {"llama", "full", GYRE_LEARN_OPTROT, 1e-6},
               {"llama", "full", GYRE_LEARN_KURTOSIS, 5e-3}, // a corner where a row's is 1.8
               {"qwen3", "portable", GYRE_LEARN_KURTOSIS, 5e-3},
               {"llama", "full", GYRE_LEARN_WHIP, 5e-3}, // a corner where a number is 0
               {"qwen2", "full", GYRE_LEARN_WHIP, 5e-3},
               {"qwen2", "portable", GYRE_LEARN_OPTROT, 1e-6},
               {"llama", "full", GYRE_LEARN_OSTQUANT, 2e-3},
               {"qwen2", "portable", GYRE_LEARN_OSTQUANT, 2e-3},
               {"qwen3", "full", GYRE_LEARN_OSTQUANT, 2e-3},
               {"granite", "full", GYRE_LEARN_OSTQUANT, 2e-3},
               {"gemma3", "portable", GYRE_LEARN_OSTQUANT, 5e-2}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct bench b;
        char what[64];
        open_bench(&b, all[i].family, all[i].profile, all[i].method, 16, 32);
        // Away from where a divergence is 0, and from orthogonal matrices: there some slopes are 0 too.
        for (uint64_t k = 0; k < gyre_matrices_count(&b.at); k++) gyre_matrices_data(&b.at)[k] += 0.05 * uniform();
        snprintf(what, sizeof what, "%s %s", all[i].family, all[i].profile);
        compare_slopes(&b, what, all[i].bound);
        close_bench(&b);
    }
}

// With exact arithmetic a rotation changes nothing; with rounding, steps make the loss less.
static void steps_go_down(void **unused)
{
    (void)unused;
    static const gyre_learn_method method[] = {GYRE_LEARN_OPTROT, GYRE_LEARN_KL, GYRE_LEARN_WHIP, GYRE_LEARN_KURTOSIS};
    for (int m = 0; m < 4; m++) {
        struct bench b;
        open_bench(&b, "llama", "full", method[m], 4, 4);
        const double first = loss(&b, NULL);
        double least = first;
        for (int s = 0; s < 30; s++) {
            (void)loss(&b, &b.gradient);
            OK(gyre_cayley_step(b.at.r1, b.gradient.r1, b.at.width, m ? 1.5 : 0.02, err));
            for (uint32_t i = 0; i < b.at.layers * b.at.kv_heads; i++) {
                const uint64_t first_of = (uint64_t)i * b.at.head_dim * b.at.head_dim;
                OK(gyre_cayley_step(b.at.r2 + first_of, b.gradient.r2 + first_of, b.at.head_dim, m ? 1.5 : 0.02, err));
            }
            least = fmin(least, loss(&b, NULL));
        }
        printf("%s: %.5f -> %.5f at best\n", gyre_learn_name(method[m]), first, least);
        assert_true(least < 0.99 * first);
        assert_true(gyre_matrices_drift(&b.at) < 1e-12);
        close_bench(&b);
    }
}

// With rounding every kind of diagonal has a slope, and going down it by diagonals alone makes the loss less.
static void diagonals_go_down(void **unused)
{
    (void)unused;
    static const char *const families[] = {"llama", "qwen3"};
    for (int f = 0; f < 2; f++) {
        struct bench b;
        uint64_t first[KINDS + 1];
        open_bench(&b, families[f], f ? "portable" : "full", GYRE_LEARN_OSTQUANT, 4, 4);
        kinds_of(&b.at, first);
        const uint64_t n = gyre_matrices_count(&b.at), turning = gyre_matrices_turning(&b.at);
        double *x = gyre_matrices_data(&b.at), *g = gyre_matrices_data(&b.gradient), start = loss(&b, &b.gradient);
        double *moment = calloc(2 * n, sizeof *moment), least = start;
        for (int kind = 2; kind < KINDS; kind++) {
            double size = 0;
            for (uint64_t i = first[kind]; i < first[kind + 1]; i++) size += g[i] * g[i];
            assert_true((size > 0) == (kind != 5 || f == 0)); // a norm of heads leaves queries and keys no pair
        }
        for (uint64_t s = 0; s < 30; s++) {
            (void)loss(&b, &b.gradient);
            memset(g, 0, turning * sizeof *g);
            OK(gyre_radam_step(&b.at, &b.gradient, moment, moment + n, s, 0.02, 0.02, err));
            least = fmin(least, loss(&b, NULL));
        }
        printf("%s: %.5f -> %.5f at best by diagonals alone\n", families[f], start, least);
        assert_true(least < 0.99 * start);
        for (uint64_t i = 0; f && i < n - first[5]; i++) assert_true(x[first[5] + i] == 1);
        free(moment);
        close_bench(&b);
    }
}

static void exact_models_do_not_see_rotations(void **unused)
{
    (void)unused;
    struct bench b;
    open_bench(&b, "qwen2", "full", GYRE_LEARN_SPINQUANT, 16, 32);
    const double first = loss(&b, NULL);
    for (int s = 0; s < 3; s++) {
        for (uint64_t i = 0; i < gyre_matrices_count(&b.gradient); i++) gyre_matrices_data(&b.gradient)[i] = uniform();
        OK(gyre_cayley_step(b.at.r1, b.gradient.r1, b.at.width, 1, err));
        for (uint32_t i = 0; i < b.at.layers * b.at.kv_heads; i++) {
            const uint64_t first_of = (uint64_t)i * b.at.head_dim * b.at.head_dim;
            OK(gyre_cayley_step(b.at.r2 + first_of, b.gradient.r2 + first_of, b.at.head_dim, 1, err));
        }
    }
    assert_true(fabs(loss(&b, NULL) - first) < 1e-5);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_exact_models),
        cmocka_unit_test(exact_models_do_not_see_rotations),
        cmocka_unit_test(steps_go_down),
        cmocka_unit_test(diagonals_go_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
