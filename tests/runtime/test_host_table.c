// The embedding table in host memory and a head of 4 bits: the same numbers as with the table on the device, less
// memory there by what it takes, planned as it is taken; and a file with such a head is verified and made again.
#include "tests/common/device.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include "runtime/source/source.h"
#include "runtime/util/base.h"

#include <gyre/gyre_eval.h>
#include <gyre/gyre_quantize.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *device = "cpu";
enum { VOCAB = 304, PROMPT = 64, ROWS = 32 };

static gyre_engine *open_engine(const char *path, bool host)
{
    gyre_engine *engine = NULL;
    gyre_error why = {0};
    const gyre_engine_params p = {
        .size = sizeof p, .device = device, .cache_dir = "", .max_rows = ROWS, .act = 8, .kv = 8, .host_table = host};
    return device_opened(device, gyre_engine_open(path, &p, &engine, &why), &why) ? engine : NULL;
}

// Logits behind a prompt of several steps and behind two tokens more, one at a time; what they took.
static bool numbers(const char *path, bool host, float *logits, gyre_memory *memory)
{
    gyre_session *session;
    uint32_t tokens[PROMPT], next = 0;
    gyre_engine *e = open_engine(path, host);
    if (!e) return false;
    tiny_tokens(tokens, PROMPT, 5, VOCAB);
    OK(gyre_session_create(e, &session, err));
    OK(gyre_session_sync(session, tokens, PROMPT, NULL, &next, err));
    OK(gyre_session_logits(session, logits, err));
    for (int i = 1; i < 3; i++) {
        OK(gyre_session_decode(session, next, &next, err));
        OK(gyre_session_logits(session, logits + (size_t)i * VOCAB, err));
    }
    *memory = (gyre_memory){.size = sizeof *memory};
    OK(gyre_engine_memory(e, memory, err));
    gyre_session_destroy(session);
    OK(gyre_engine_close(e, err));
    return true;
}

static uint64_t tensor_bytes(const char *path, const char *name, gyre_dtype *type)
{
    gyre_source *s;
    OK(gyre_source_open(path, &s, err));
    const struct gyre_tensor *t = gyre_source_tensor(s, name);
    assert_non_null(t);
    const uint64_t bytes = t->bytes;
    if (type) *type = t->type;
    gyre_source_close(s);
    return bytes;
}

static void check(const char *path)
{
    float *a = calloc(3 * VOCAB, sizeof *a), *b = calloc(3 * VOCAB, sizeof *b);
    gyre_memory on_device, on_host, plan = {.size = sizeof plan};
    assert_true(a && b);
    if (numbers(path, false, a, &on_device) && numbers(path, true, b, &on_host)) {
        assert_memory_equal(a, b, 3 * VOCAB * sizeof *a);
        assert_int_equal(on_device.host, 0);
        assert_int_equal(on_host.host, tensor_bytes(path, "token_embd.weight", NULL));
        assert_true(on_host.weights < on_device.weights && on_host.total < on_device.total);
        const gyre_engine_params p = {.size = sizeof p, .max_rows = ROWS, .act = 8, .kv = 8, .host_table = true};
        OK(gyre_plan(path, &p, &plan, err));
        assert_int_equal(plan.weights, on_host.weights);
        assert_int_equal(plan.host, on_host.host);
        if (fabs((double)plan.total / (double)on_host.total - 1) > 0.01)
            fail_msg("%s: %llu bytes planned, %llu taken", path, (unsigned long long)plan.total,
                     (unsigned long long)on_host.total);
    }
    free(a);
    free(b);
}

static void write_model(const char *path, const char *family, gyre_dtype type, bool tied)
{
    struct tiny_options o = tiny_family(family);
    o.type = type;
    o.tied = tied;
    o.ffn = 128;
    assert_int_equal(tiny_write_gguf(path, &o), 0);
}

static void rows_from_the_host_are_those_of_the_device(void **state)
{
    (void)state;
    static const gyre_dtype types[] = {GYRE_DTYPE_F32, GYRE_DTYPE_F16, GYRE_DTYPE_Q8_0, GYRE_DTYPE_Q4_0};
    const char *path = files_path("host-table.gguf");
    for (size_t i = 0; i < GYRE_COUNT(types); i++) {
        write_model(path, "llama", types[i], false);
        check(path);
    }
    write_model(path, "granite", GYRE_DTYPE_F32, false); // whose embeddings are multiplied
    check(path);
    gyre_engine *e = NULL;
    gyre_error why = {0};
    const gyre_engine_params p = {.size = sizeof p, .device = "cpu", .cache_dir = "", .host_table = true};
    write_model(path, "llama", GYRE_DTYPE_F32, true);
    assert_int_equal(gyre_engine_open(path, &p, &e, &why), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(why.message, "quantize with --head 4"));
    assert_int_equal(gyre_plan(path, &p, &(gyre_memory){.size = sizeof(gyre_memory)}, &why), GYRE_E_UNSUPPORTED);
}

static void heads_of_four_bits(void **state)
{
    (void)state;
    static const struct {
        const char *family, *profile, *recipe;
        bool tied;
    } cases[] = {{"llama", "full", "quarot-rtn", true},
                 {"qwen2", "full", "rtn", true},
                 {"llama", "portable", "quarot-rtn", false},
                 {"gemma3", "full", "quarot-rtn", true}};
    const char *from = files_path("head-from.gguf"), *to = files_path("head-to.gguf");
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_dtype type;
        gyre_quantize_summary s = {0};
        write_model(from, cases[i].family, GYRE_DTYPE_F32, cases[i].tied);
        const gyre_quantize_params p = {.size = sizeof p,
                                        .source = from,
                                        .output = to,
                                        .recipe = cases[i].recipe,
                                        .profile = cases[i].profile,
                                        .head = 4,
                                        .device = "cpu",
                                        .force = true};
        OK(gyre_quantize(&p, &s, err));
        assert_true(isfinite(s.recipe_kl) && s.recipe_kl > 0);
        gyre_quantize_summary_free(&s);
        const uint64_t head = tensor_bytes(to, "output.weight", &type);
        assert_int_equal(type, GYRE_DTYPE_Q4_0);
        assert_int_equal(head, tensor_bytes(to, "token_embd.weight", &type) / 34 * 18);
        assert_int_equal(type, GYRE_DTYPE_Q8_0);
        check(to);
        char manifest[512];
        snprintf(manifest, sizeof manifest, "%s.manifest.json", to);
        const gyre_verify_params v = {.size = sizeof v, .file = to, .base = from};
        const gyre_reproduce_params again = {.size = sizeof again, .manifest = manifest, .base = from};
        gyre_verify_result verified;
        gyre_reproduce_result made;
        OK(gyre_verify(&v, &verified, err));
        OK(gyre_reproduce(&again, &made, err));
    }
}

static void heads_that_cannot(void **state)
{
    (void)state;
    const char *from = files_path("head-from.gguf");
    const char *folder = files_path("head-folder");
    const struct tiny_options o = tiny_defaults();
    write_model(from, "llama", GYRE_DTYPE_F32, true);
    assert_int_equal(tiny_write_hf(folder, &o), 0);
    static const struct {
        uint32_t head, wbits;
        const char *format;
        gyre_status due;
        const char *says;
    } cases[] = {{5, 4, NULL, GYRE_E_INVALID, "width of the head 5"},
                 {4, 16, NULL, GYRE_E_UNSUPPORTED, "the head 4 bits: nothing of this output"},
                 {8, 16, NULL, GYRE_E_UNSUPPORTED, "the head 8 bits: nothing of this output"},
                 {8, 32, NULL, GYRE_E_UNSUPPORTED, "the head 8 bits: nothing of this output"},
                 {8, 4, "hf", GYRE_E_UNSUPPORTED, "the head 8 bits: that of a Hugging Face directory"}};
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_error why = {0};
        const gyre_quantize_params p = {.size = sizeof p,
                                        .source = cases[i].format ? folder : from,
                                        .format = cases[i].format,
                                        .head = cases[i].head,
                                        .wbits = cases[i].wbits};
        assert_int_equal(gyre_quantize_check(&p, &why), cases[i].due);
        if (!strstr(why.message, cases[i].says)) fail_msg("%s", why.message);
    }
}

// 27 billion weights of 4 bits, the cache of 4,096 positions at 8 bits and the rest fit a card of 16 GiB.
static void a_large_shape_fits(void **state)
{
    (void)state;
    gyre_memory all = {.size = sizeof all}, low = all;
    gyre_engine_params p = {.size = sizeof p, .context = 4096};
    OK(gyre_plan_shape("gemma3-27b", 0, &p, &all, err));
    p.shape_head = 4;
    p.host_table = true;
    OK(gyre_plan_shape("gemma3-27b", 0, &p, &low, err));
    const double table = 262208.0 * 5376; // 9.5 bits of int8, 5.5 of int4 with scales and sums of groups of 32
    assert_true(fabs((double)(all.weights - low.weights) / (table * (9.5 - 5.5) / 8) - 1) < 0.01);
    assert_true(low.total < (15ull << 30) && low.host == (uint64_t)(table / 32 * 34));
    p.shape_head = 0;
    gyre_error why = {0};
    assert_int_equal(gyre_plan_shape("llama-1b", 0, &p, &low, &why), GYRE_E_UNSUPPORTED); // its head is the table
    p.shape_head = 5;
    assert_int_equal(gyre_plan_shape("llama-1b", 0, &p, &low, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "4 or 8 bits, not 5"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_from_the_host_are_those_of_the_device),
        cmocka_unit_test(heads_of_four_bits),
        cmocka_unit_test(heads_that_cannot),
        cmocka_unit_test(a_large_shape_fits),
    };
    if (argc > 1) device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
