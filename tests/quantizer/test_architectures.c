// Every architecture through the quantizer, from both containers: rotated and unrounded it is the same model, rounded
// files are verified against their base and made again byte for byte, biases and norms of heads are what the base makes
// them.
#include "quantizer/transform/rotate.h"
#include "runtime/util/base.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/trust/forge.h"

#include <gyre/gyre_eval.h>
#include <gyre/gyre_quantize.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct {
    const char *name;
    const char *plain; // why there is no portable file of it; NULL: there is one
} families[] = {
    {"llama", NULL},      {"mistral", NULL},    {"qwen2", NULL},
    {"qwen3", NULL},      {"llama-bias", NULL}, {"mistral-window", "windows that no plain file can say"},
    {"ministral3", NULL}, {"phi3", NULL},       {"smollm3", NULL},
    {"granite", NULL},    {"minicpm", NULL},    {"gemma3", NULL},
};
enum { TOKENS = 8, VOCAB = 304 };

static struct tiny_options options_of(size_t family)
{
    struct tiny_options o = tiny_family(families[family].name);
    o.seed = 5 + family;
    o.tied = family % 2 == 1; // of qwen2 and qwen3 one each
    return o;
}

// The base model of a family; as a GGUF file or as a folder.
static const char *base_of(size_t family, bool folder)
{
    const struct tiny_options o = options_of(family);
    const char *path = files_path(folder ? "base-hf" : "base.gguf");
    assert_int_equal(folder ? tiny_write_hf(path, &o) : tiny_write_gguf(path, &o), 0);
    return path;
}

static gyre_quantize_params settings(const char *source, const char *recipe, const char *profile)
{
    return (gyre_quantize_params){.source = source,
                                  .output = files_path("out.gguf"),
                                  .recipe = recipe,
                                  .profile = profile,
                                  .wgroup = 32,
                                  .seed = 11,
                                  .force = true};
}

// ---- the same model ---------------------------------------------------------------------------------------

static void logits(const char *path, uint32_t kv, float out[VOCAB])
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    const gyre_engine_params p = {.device = "cpu", .act = 16, .kv = kv, .context = 32, .max_rows = 16, .cache_dir = ""};
    uint32_t tokens[TOKENS];
    if (gyre_engine_open(path, &p, &engine, &err) != GYRE_OK) fail_msg("%s", err.message);
    for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = 3 + (i * 7919 + 104729) % (VOCAB - 3);
    if (gyre_logits(engine, tokens, TOKENS, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    gyre_engine_close(engine, NULL);
}

static double distance(const float *a, const float *b)
{
    double worst = 0, top = 0;
    for (int i = 0; i < VOCAB; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        top = fmax(top, fabs((double)a[i]));
    }
    return isfinite(worst) ? worst / top : INFINITY;
}

// What a file says of an online R1: where the architecture merges it, or the recipe leaves it out, nothing.
static void check_online(const char *path, const char *base, bool asked)
{
    gyre_source *in, *out;
    struct gyre_hparams a, b;
    uint64_t version = 0;
    float gain[64], was[64];
    assert_int_equal(gyre_source_open(base, &in, NULL), GYRE_OK);
    assert_int_equal(gyre_source_open(path, &out, NULL), GYRE_OK);
    assert_int_equal(gyre_hparams_read(in, &a, NULL), GYRE_OK);
    assert_int_equal(gyre_hparams_read(out, &b, NULL), GYRE_OK);
    assert_int_equal(gyre_source_u64(out, "gyre.version", &version, NULL, NULL), GYRE_OK);
    assert_true(b.width <= GYRE_COUNT(gain));
    const bool merges = gyre_roles_merge_r1(&a), online = asked && !merges;
    assert_int_equal(b.rot.r1.n, online ? b.width : 0);
    assert_true(online ? version == 4 : version < 4);
    assert_int_equal(gyre_source_has(out, "gyre.r1"), online);
    assert_true(merges || !b.rot.head.n);
    int negative = 0;
    // Gains are folded where R1 is merged; else they stay, and have the signs of one that runs online.
    gyre_role_vector_f32(&b, GYRE_ROLE_attn_norm, gyre_role_tensor(out, GYRE_ROLE_attn_norm, 0, "weight", NULL), gain);
    gyre_role_vector_f32(&a, GYRE_ROLE_attn_norm, gyre_role_tensor(in, GYRE_ROLE_attn_norm, 0, "weight", NULL), was);
    for (uint32_t i = 0; i < b.width; i++) {
        assert_true(fabsf(gain[i]) == (merges ? 1 : fabsf(was[i])));
        negative += gain[i] * (merges ? 1 : was[i]) < 0;
    }
    assert_true(online ? negative > 0 && negative < (int)b.width : negative == 0);
    gyre_hparams_free(&a);
    gyre_hparams_free(&b);
    gyre_source_close(in);
    gyre_source_close(out);
}

static const char merged_text[] = "name: merged\nrotate: true\nr1: merged\nrounding: [rtn]\n";

static void rotated_it_is_the_same_model(void **state)
{
    (void)state;
    // The built-in recipe runs R1 in front of the linears where it cannot be merged; the last leaves it out there.
    static const char *const profiles[] = {"full", "portable", "full"};
    char merged[128];
    snprintf(merged, sizeof merged, "%s", files_path("merged.yaml"));
    files_write(merged, merged_text);
    for (size_t f = 0; f < GYRE_COUNT(families); f++)
        for (int folder = 0; folder < 2; folder++) {
            const char *base = base_of(f, folder);
            float want[VOCAB], got[VOCAB], cached[VOCAB];
            logits(base, 32, want);
            for (int p = 0; p < 3; p++) {
                gyre_quantize_params q = settings(base, p == 2 ? merged : "quarot-rtn", profiles[p]);
                q.wbits = 32;
                q.wgroup = -1;
                if (p == 1 && families[f].plain) {
                    gyre_error err = {0};
                    if (gyre_quantize(&q, NULL, &err) != GYRE_E_UNSUPPORTED || !strstr(err.message, families[f].plain))
                        fail_msg("%s: %s", families[f].name, err.message);
                    continue;
                }
                forge_make(&q);
                if (p != 1) check_online(q.output, base, p == 0);
                logits(q.output, 32, got);
                // The cache at 8 bits: R3 where the file has it, on q and k alike, behind their norms.
                logits(q.output, 8, cached);
                if (!(distance(want, got) <= 1e-5) || !(distance(want, cached) <= 5e-2))
                    fail_msg("%s, %s, %s: off by %g, with a cache of 8 bits by %g", families[f].name, base, profiles[p],
                             distance(want, got), distance(want, cached));
                print_message("%s, %s: %.2g, cache of 8 bits %.2g\n", families[f].name, profiles[p],
                              distance(want, got), distance(want, cached));
            }
        }
}

// Rotated and not rounded, base says what it said: `want`. How it was made.
static gyre_quantize_params check_rotated(const char *base, const float want[VOCAB])
{
    float got[VOCAB];
    gyre_quantize_params q = settings(base, "quarot-rtn", "full");
    q.wbits = 32;
    q.wgroup = -1;
    forge_make(&q);
    logits(q.output, 32, got);
    assert_true(distance(want, got) <= 1e-5);
    return q;
}

// Gemma 3's configuration knows biases of attention, which no release has.
static void biases_before_a_norm_behind_the_branch(void **state)
{
    (void)state;
    float none[VOCAB], want[VOCAB];
    char base[128];
    gyre_error err = {0};
    struct tiny_options o = tiny_family("gemma3");
    snprintf(base, sizeof base, "%s", files_path("biased.gguf"));
    assert_int_equal(tiny_write_gguf(base, &o), 0);
    logits(base, 32, none);
    o.qkv_bias = true;
    assert_int_equal(tiny_write_gguf(base, &o), 0);
    logits(base, 32, want);
    assert_true(distance(none, want) > 1e-3);
    gyre_quantize_params q = check_rotated(base, want);
    q.profile = "portable";
    assert_int_equal(gyre_quantize(&q, NULL, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "biases that no plain file has"));
}

// Full files say that YaRN is not truncated, and no reader that does not know it takes them; plain ones cannot.
static void yarn_between_dimensions(void **state)
{
    (void)state;
    float truncated[VOCAB], want[VOCAB];
    char base[128];
    uint64_t version = 0;
    gyre_source *source = NULL;
    gyre_error err = {0};
    struct tiny_options o = tiny_family("llama");
    o.scaling = GYRE_ROPE_YARN, o.rope_base = 500;
    snprintf(base, sizeof base, "%s", files_path("yarn.gguf"));
    assert_int_equal(tiny_write_gguf(base, &o), 0);
    logits(base, 32, truncated);
    o.untruncated = true;
    assert_int_equal(tiny_write_gguf(base, &o), 0);
    logits(base, 32, want);
    assert_true(distance(truncated, want) > 1e-3);
    gyre_quantize_params q = check_rotated(base, want);
    assert_int_equal(gyre_source_open(q.output, &source, &err), GYRE_OK);
    assert_int_equal(gyre_source_u64(source, "gyre.version", &version, NULL, &err), GYRE_OK);
    assert_int_equal(version, GYRE_YARN_VERSION);
    gyre_source_close(source);
    q.profile = "portable";
    assert_int_equal(gyre_quantize(&q, NULL, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "YaRN that is not truncated"));
}

// Other tools read them of a Ministral 3 only, and take 32 and 1 for the rest whatever the file says.
static void betas_of_yarn(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "ministral3"};
    static const float fast[] = {32, 4};
    for (int i = 0; i < 4; i++) {
        gyre_error err = {0};
        struct tiny_options o = tiny_family(names[i / 2]);
        o.scaling = GYRE_ROPE_YARN, o.beta_fast = fast[i % 2];
        assert_int_equal(tiny_write_gguf(files_path("betas.gguf"), &o), 0);
        gyre_quantize_params q = settings(files_path("betas.gguf"), "rtn", "portable");
        const gyre_status st = gyre_quantize(&q, NULL, &err);
        if (i == 1)
            assert_true(st == GYRE_E_UNSUPPORTED && strstr(err.message, "YaRN's betas, which are not 32 and 1"));
        else if (st != GYRE_OK) fail_msg("%s", err.message);
    }
}

// ---- rounded files ----------------------------------------------------------------------------------------

static gyre_status verify(const char *file, const char *base, gyre_verify_result *result, gyre_error *err)
{
    return gyre_verify(&(gyre_verify_params){.file = file, .base = base}, result, err);
}

static const char gptq_text[] = "name: small\n"
                                "rotate: true\n"
                                "calibration: {windows: 2, tokens: 16}\n"
                                "rounding:\n"
                                "  - gptq: {clip: weights, order: descending}\n";

// A recipe that moves scales between the linears, so that biases and norms of heads move along.
static const char scaled_text[] = "name: scaled\n"
                                  "rotate: true\n"
                                  "diagonals: {norm: 0.5, up_down: 1, qk: 1, value: 1}\n"
                                  "calibration: {windows: 2, tokens: 16}\n"
                                  "cache: {centre: true}\n"
                                  "rounding:\n"
                                  "  - gptq: {clip: weights, order: descending}\n";

static const char online_gptq_text[] = "name: online\n"
                                       "rotate: true\n"
                                       "r1: online\n"
                                       "seeds: 2\n"
                                       "diagonals: {up_down: 1}\n"
                                       "calibration: {windows: 2, tokens: 16}\n"
                                       "rounding:\n"
                                       "  - correct: {alpha: 0.5}\n"
                                       "  - gptq: {clip: weights, order: descending}\n";

static void rounded_files_verify_and_reproduce(void **state)
{
    (void)state;
    char texts[128], gptq[128], scaled[128], online[128]; // files_path keeps a few names at a time
    const char *const text = texts;
    snprintf(texts, sizeof texts, "%s", files_path("text.txt"));
    snprintf(gptq, sizeof gptq, "%s", files_path("small.yaml"));
    snprintf(scaled, sizeof scaled, "%s", files_path("scaled.yaml"));
    files_write(text, "the cat sat on the mat and looked at the moon; 12 stars. the dog and the cat on the mat of it.");
    files_write(gptq, gptq_text);
    files_write(scaled, scaled_text);
    snprintf(online, sizeof online, "%s", files_path("online.yaml"));
    files_write(online, online_gptq_text);
    const char *const recipes[] = {"quarot-rtn", gptq, scaled, online};
    for (size_t f = 0; f < GYRE_COUNT(families); f++)
        for (int r = 0; r < 4; r++) {
            const bool portable = r < 3 && (f + (size_t)r) % 2 && !families[f].plain; // without running all
            if (r == 3 && strcmp(families[f].name, "gemma3")) continue;
            const char *base = base_of(f, r == 1);
            gyre_quantize_params q = settings(base, recipes[r], portable ? "portable" : "full");
            if (r) q.calib = &text, q.n_calib = 1;
            gyre_verify_result seen;
            gyre_reproduce_result again;
            gyre_error err = {0};
            forge_make(&q);
            if (verify(q.output, base, &seen, &err) != GYRE_OK)
                fail_msg("%s, %s: %s", families[f].name, recipes[r], err.message);
            assert_true(seen.rotated && seen.linears == options_of(f).layers * GYRE_LINEARS);
            char manifest[512];
            snprintf(manifest, sizeof manifest, "%s.manifest.json", q.output);
            const gyre_reproduce_params p = {
                .manifest = manifest, .base = base, .calib = q.calib, .n_calib = q.n_calib};
            if (gyre_reproduce(&p, &again, &err) != GYRE_OK || again.differing || again.metadata_differs)
                fail_msg("%s, %s: %s", families[f].name, recipes[r], err.message);
            assert_true(again.tensors == seen.tensors);
        }
}

// ---- vectors ----------------------------------------------------------------------------------------------

static void read_vector(const gyre_source *s, const char *name, float *out, uint64_t n)
{
    const struct gyre_tensor *t = gyre_source_tensor(s, name);
    if (!t) fail_msg("no tensor %s", name);
    assert_int_equal(t->cols, n);
    gyre_tensor_rows_f32(t, 0, 1, out);
}

// R2 turns the bias of each value head by a Hadamard matrix with signs: every entry 1 / sqrt(head size), none between
// heads. The matrix is read off from unit vectors.
static void biases_turn_with_their_heads(void **state)
{
    (void)state;
    const char *base = base_of(2, false); // qwen2
    gyre_quantize_params q = settings(base, "quarot-rtn", "full");
    forge_make(&q);
    gyre_source *in, *out;
    struct gyre_hparams hp;
    struct gyre_rotator rotator;
    assert_int_equal(gyre_source_open(base, &in, NULL), GYRE_OK);
    assert_int_equal(gyre_source_open(q.output, &out, NULL), GYRE_OK);
    assert_int_equal(gyre_hparams_read(in, &hp, NULL), GYRE_OK);
    assert_int_equal(
        gyre_rotator_create(&hp, 11, true, GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | GYRE_ROTATE_R4, &rotator, NULL), GYRE_OK);
    enum { HD = 16, KV = 2 };
    for (uint32_t layer = 0; layer < 2; layer++) {
        float a[64], b[64];
        double turned[KV * HD] = {0};
        char name[64];
        for (int k = 0; k < 2; k++) { // what RoPE turns stays as it is
            const uint64_t n = k ? KV * HD : 64;
            snprintf(name, sizeof name, "blk.%u.attn_%c.bias", layer, "qk"[k]);
            read_vector(in, name, a, n);
            read_vector(out, name, b, n);
            assert_memory_equal(a, b, n * sizeof *a);
        }
        snprintf(name, sizeof name, "blk.%u.attn_v.bias", layer);
        read_vector(in, name, a, KV * HD);
        read_vector(out, name, b, KV * HD);
        for (int i = 0; i < KV * HD; i++) {
            double unit[KV * HD] = {0};
            unit[i] = 1;
            assert_int_equal(gyre_rotate_bias(&rotator, GYRE_ROLE_v, layer, unit, NULL), GYRE_OK);
            for (int j = 0; j < KV * HD; j++) {
                assert_true(fabs(fabs(unit[j]) - (i / HD == j / HD ? 0.25 : 0)) < 1e-12); // 1 / sqrt(HD), in its head
                turned[j] += unit[j] * (double)a[i];
            }
        }
        for (int i = 0; i < KV * HD; i++) assert_true(fabs(turned[i] - (double)b[i]) < 1e-6);
    }
    gyre_rotator_release(&rotator);
    gyre_hparams_free(&hp);
    gyre_source_close(in);
    gyre_source_close(out);
}

static void norms_of_heads_are_kept(void **state)
{
    (void)state;
    static const char *const profiles[] = {"full", "portable"};
    const char *base = base_of(3, false); // qwen3
    for (int p = 0; p < 2; p++) {
        gyre_quantize_params q = settings(base, "quarot-rtn", profiles[p]);
        forge_make(&q);
        gyre_source *in, *out;
        assert_int_equal(gyre_source_open(base, &in, NULL), GYRE_OK);
        assert_int_equal(gyre_source_open(q.output, &out, NULL), GYRE_OK);
        for (uint32_t i = 0; i < 4; i++) {
            float a[32], b[32];
            char name[64];
            snprintf(name, sizeof name, "blk.%u.attn_%c_norm.weight", i / 2, "qk"[i % 2]);
            read_vector(in, name, a, 32);
            read_vector(out, name, b, 32);
            assert_memory_equal(a, b, sizeof a);
        }
        gyre_source_close(in);
        gyre_source_close(out);
    }
}

// One changed value, its hash in the manifest corrected: only the base can tell.
static void vectors_that_lie_are_told(void **state)
{
    (void)state;
    static const struct {
        size_t family;
        const char *tensor;
    } lies[] = {
        {2, "blk.0.attn_q.bias"},        {2, "blk.1.attn_k.bias"},        {2, "blk.1.attn_v.bias"},
        {3, "blk.0.attn_q_norm.weight"}, {3, "blk.1.attn_k_norm.weight"},
    };
    for (size_t i = 0; i < GYRE_COUNT(lies); i++) {
        const char *base = base_of(lies[i].family, false);
        gyre_quantize_params q = settings(base, "quarot-rtn", "full");
        gyre_verify_result seen;
        gyre_error err = {0};
        forge_make(&q);
        forge_tensor(q.output, lies[i].tensor, 4 * 9 + 2, 0x40, true);
        assert_int_equal(verify(q.output, NULL, &seen, &err), GYRE_OK);
        assert_int_equal(verify(q.output, base, &seen, &err), GYRE_E_FORMAT);
        if (!strstr(err.message, lies[i].tensor)) fail_msg("%s: %s", lies[i].tensor, err.message);
    }
}

static int setup(void **state)
{
    (void)state;
    omp_set_num_threads(1); // tiny matrices
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotated_it_is_the_same_model),
        cmocka_unit_test(biases_before_a_norm_behind_the_branch),
        cmocka_unit_test(yarn_between_dimensions),
        cmocka_unit_test(betas_of_yarn),
        cmocka_unit_test(rounded_files_verify_and_reproduce),
        cmocka_unit_test(biases_turn_with_their_heads),
        cmocka_unit_test(norms_of_heads_are_kept),
        cmocka_unit_test(vectors_that_lie_are_told),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
