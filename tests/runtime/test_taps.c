// Taps with bits of their own, on a device: a graph rounds each as the file says, a file whose every tap is an
// exception is the file of that width to the bit, and another --act is for all taps.
#include "tests/common/device.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <gyre/gyre.h>
#include <gyre/gyre_quantize.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 304, TOKENS = 40 };
static const char *device = "cpu";
static uint32_t text[TOKENS];

// A file made for activations of `act` bits, with these exceptions; the weights are the same for all.
static const char *make(const char *name, const char *profile, uint32_t act, const char *exceptions)
{
    const char *from = files_path("base.gguf"), *recipe = files_path("recipe.yaml"), *out = files_path(name);
    const struct tiny_options o = tiny_defaults();
    char yaml[512];
    assert_int_equal(tiny_write_gguf(from, &o), 0);
    snprintf(yaml, sizeof yaml, "name: taps\nrotate: true\nrounding:\n  - rtn\nexceptions: [%s]\n", exceptions);
    files_write(recipe, yaml);
    const gyre_quantize_params p = {.size = sizeof p,
                                    .source = from,
                                    .output = out,
                                    .recipe = recipe,
                                    .act = act,
                                    .profile = profile,
                                    .wgroup = 32,
                                    .force = true};
    OK(gyre_quantize(&p, NULL, err));
    return out;
}

static void logits(const char *path, uint32_t act, float out[VOCAB])
{
    gyre_engine *e = NULL;
    const gyre_engine_params p = {.size = sizeof p, .device = device, .cache_dir = "", .act = act, .context = 64};
    OK(gyre_engine_open(path, &p, &e, err));
    OK(gyre_logits(e, text, TOKENS, out, err));
    OK(gyre_engine_close(e, err));
}

static void expect(bool same, const char *a, uint32_t a_act, const char *b, uint32_t b_act)
{
    float x[VOCAB], y[VOCAB];
    logits(a, a_act, x);
    logits(b, b_act, y);
    if (same != (memcmp(x, y, sizeof x) == 0))
        fail_msg("%s at %u, %s at %u: logits %s", a, a_act, b, b_act, same ? "differ" : "do not differ");
}

// Values of a decode graph that are rounded to so many bits.
static uint32_t rounded(const char *path, uint32_t act, uint32_t bits)
{
    gyre_engine *e = NULL;
    char *dot = NULL, label[8];
    const gyre_engine_params p = {.size = sizeof p, .device = device, .cache_dir = "", .act = act, .context = 64};
    uint32_t n = 0;
    OK(gyre_engine_open(path, &p, &e, err));
    OK(gyre_engine_dot(e, &dot, err));
    snprintf(label, sizeof label, "q%u 1x", bits);
    for (const char *at = dot; (at = strstr(at, label)); at++) n++;
    gyre_free(dot);
    OK(gyre_engine_close(e, err));
    return n;
}

static void each_tap_is_rounded_as_the_file_says(void **state)
{
    (void)state;
    const char *plain = make("plain.gguf", "full", 4, ""),
               *made = make("made.gguf", "full", 4,
                            "{tensors: '*ffn_down*', act: 8}, {tensors: 'blk.1.attn_?.*', act: 16}");
    assert_int_equal(rounded(plain, 0, 4), 8); // four taps of two blocks
    assert_int_equal(rounded(plain, 0, 8), 0);
    assert_int_equal(rounded(made, 0, 4), 5);
    assert_int_equal(rounded(made, 0, 8), 2);
    assert_int_equal(rounded(made, 8, 8), 8);
    assert_int_equal(rounded(made, 16, 8) + rounded(made, 16, 4), 0);
    expect(false, made, 0, plain, 0);
    expect(true, made, 4, made, 0); // its own width said aloud
    expect(true, made, 8, plain, 8);
    expect(true, made, 16, plain, 16);
}

static void all_taps_are_a_file_of_that_width(void **state)
{
    (void)state;
    static const char *const all[] = {[4] = "{tensors: '*', act: 4}", [8] = "{tensors: '*', act: 8}"};
    for (uint32_t act = 4; act <= 8; act *= 2)
        for (int portable = 0; portable < 2; portable++) {
            const char *profile = portable ? "portable" : "full";
            const char *plain = make("plain.gguf", profile, act, ""),
                       *made = make("made.gguf", profile, 12 - act, all[act]);
            expect(true, made, 0, plain, 0);
            expect(true, made, act, plain, 0);
        }
    expect(true, make("made.gguf", "full", 4, "{tensors: '*', act: 16}"), 0, make("plain.gguf", "full", 16, ""), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_tap_is_rounded_as_the_file_says),
        cmocka_unit_test(all_taps_are_a_file_of_that_width),
    };
    if (argc > 1) device = argv[1];
    const int probe = device_probe(device);
    if (probe) return probe;
    tiny_tokens(text, TOKENS, 3, VOCAB);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
