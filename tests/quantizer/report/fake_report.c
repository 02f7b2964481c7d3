// See fake_report.h. Figures like those of a small model.
#include "tests/quantizer/report/fake_report.h"
#include "quantizer/transform/rotate.h"
#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double between(struct gyre_rng *rng, double lo, double hi) { return lo + (hi - lo) * gyre_rng_unit(rng); }

static void fake_heat(struct fake_report *f, struct gyre_rng *rng)
{
    enum { T = 192, N = 576 };
    static float x[T * N];
    for (int after = 0; after < 2; after++) {
        struct gyre_heat_map *map = after ? &f->after : &f->before;
        for (int i = 0; i < T * N; i++) {
            const double bell = between(rng, -1, 1) + between(rng, -1, 1) + between(rng, -1, 1);
            const int c = i % N, t = i / N;
            const double loud = after                ? 2.2
                                : t == 0 && c == 130 ? 900
                                : c == 130           ? 60
                                : c == 371           ? 25
                                : c % 97 == 3        ? 6
                                                     : 0.6;
            x[i] = (float)(bell * loud * (after && t == 0 ? 12 : 1));
        }
        gyre_heat_begin(map, T, N);
        gyre_heat_add(map, 0, T, x);
    }
}

void fake_report(struct fake_report *f)
{
    struct gyre_rng rng = gyre_rng_seed(4);
    memset(f, 0, sizeof *f);
    const struct gyre_report_row setting[] = {{"weights", "4 bits, groups of 32"},
                                              {"activations", "8 bits"},
                                              {"KV cache", "8 bits"},
                                              {"profile", "full"},
                                              {"seed", "7"},
                                              {"calibration", "32 windows of 512 tokens"}};
    const struct gyre_report_row rotation[] = {{"R1, residual stream, merged", "Hadamard, 576 = 12·12·2^2"},
                                               {"R2, values of each head, merged", "Hadamard, 64 = 2^6"},
                                               {"R4, input of down, online", "Hadamard, 1536 = 12·2^7"}};
    memcpy(f->setting, setting, sizeof setting);
    memcpy(f->rotation, rotation, sizeof rotation);
    for (uint32_t i = 0; i < 16; i++) f->seed[i] = i, f->surrogate[i] = i == 7 ? 0.0171 : between(&rng, 0.018, 0.026);
    double rtn = 0.002, ours = 0.0012;
    for (uint32_t l = 0; l < 30; l++) {
        rtn += between(&rng, 0.0002, 0.0018), ours += between(&rng, 0.0001, 0.0007);
        f->layer[l] = (gyre_quantize_layer){rtn, ours};
        for (int t = 0; t < GYRE_PRODUCTS; t++) {
            const double loud = t == GYRE_PRODUCT_down ? 26 : t == GYRE_PRODUCT_o ? 6 : 12;
            struct gyre_report_tap *tap = &f->tap[l * GYRE_PRODUCTS + (uint32_t)t];
            tap->before = (struct gyre_tap_stats){between(&rng, loud * 0.6, loud), between(&rng, loud, loud * 1.6),
                                                  pow(10, between(&rng, 1, 3)), between(&rng, 0.05, 0.2)};
            tap->after = (struct gyre_tap_stats){between(&rng, 3.2, 3.9), between(&rng, 4.2, 5.5),
                                                 between(&rng, 2.9, 3.4), between(&rng, 0.018, 0.026)};
        }
        for (uint32_t s = 0; s < 7; s++) {
            const uint32_t i = l * 7 + s;
            gyre_role_name((gyre_role)s, l, "weight", f->name[i]);
            const double before = between(&rng, 0.004, 0.009);
            f->linear[i] =
                (struct gyre_report_linear){.name = f->name[i],
                                            .wbits = s == 6 ? 8 : 4,
                                            .wgroup = 32,
                                            .weight_error = between(&rng, 0.008, 0.012),
                                            .before = before,
                                            .after = {before * 0.98, before * 0.52, before * 0.46, before * 0.43}};
        }
    }
    fake_heat(f, &rng);
    f->report = (struct gyre_report){
        .model = "SmolLM2 135M Instruct",
        .recipe = "best",
        .recipe_text = "name: best\nrotate: true\nseeds: 16\ncalibration: {windows: 32, tokens: 512}\nstages:\n  - "
                       "correct: {alpha: auto}\n  - gptq: {clip: hessian, act_order: true}\n  - descent\n  - refit\n",
        .setting = f->setting,
        .n_settings = 6,
        .rotation = f->rotation,
        .n_rotations = 3,
        .source_bytes = 269060000,
        .output_bytes = 98600000,
        .bits_per_weight = 4.5,
        .rtn_kl = 0.214,
        .recipe_kl = 0.0861,
        .rtn_weight_error = 0.0112,
        .recipe_weight_error = 0.0097,
        .summary_tokens = 383,
        .seed = f->seed,
        .surrogate = f->surrogate,
        .n_seeds = 16,
        .chosen_seed = 7,
        .layer = f->layer,
        .layers = 30,
        .tap = f->tap,
        .heat_before = &f->before,
        .heat_after = &f->after,
        .heat_layer = 0,
        .heat_tap = GYRE_PRODUCT_qkv,
        .linear = f->linear,
        .n_linears = 210,
        .n_stages = 4,
        .stage = {"correct", "gptq", "descent", "refit"}};
}
