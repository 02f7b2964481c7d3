// See made.h. Apart from the tests, which see the inside of graphs: there gyre_quantize_params is an op's.
#include "tests/quantizer/gradient/made.h"
#include "tests/common/checkpoint.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_quantize.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

const char *made_model(const struct setting *s)
{
    const char *base = files_path("base.gguf"), *file = files_path("made.gguf"), *recipe = files_path("recipe.yaml"),
               *text = files_path("text.txt");
    if (!strcmp(s->family, "awq") || !strcmp(s->family, "gptq")) {
        const bool gptq = s->family[0] == 'g';
        const struct tiny_options plain = tiny_defaults();
        const struct checkpoint c = {.form = gptq ? CHECKPOINT_GPTQ : CHECKPOINT_AWQ,
                                     .bits = 4,
                                     .group = 32,
                                     .asymmetric = true,
                                     .act_order = gptq,
                                     .scale = GYRE_DTYPE_F16};
        assert_int_equal(checkpoint_write(files_path(s->family), &plain, &c), 0);
        return files_path(s->family);
    }
    struct tiny_options tiny = tiny_family(s->family);
    char words[2048], yaml[400];
    assert_int_equal(tiny_write_gguf(base, &tiny), 0);
    for (size_t i = 0; i + 1 < sizeof words; i++) words[i] = i % 5 == 4 ? ' ' : (char)('a' + i * 7 % 23);
    words[sizeof words - 1] = 0;
    files_write(text, words);
    snprintf(yaml, sizeof yaml,
             "name: clipped\nrotate: true\ncalibration: {windows: 2, tokens: 32}\nactivations: {clip: 0.8, group: %u}\n"
             "cache: {clip: 0.85, centre: %s}\nrounding: [rtn]\n",
             s->group, s->centre ? "true" : "false");
    files_write(recipe, yaml);
    const gyre_quantize_params params = {.source = base,
                                         .output = file,
                                         .recipe = recipe,
                                         .calib = &text,
                                         .n_calib = 1,
                                         .wbits = s->wbits,
                                         .wgroup = s->wgroup,
                                         .act = s->act,
                                         .kv = s->kv,
                                         .kv_v = s->kv_v,
                                         .force = true};
    OK(gyre_quantize(&params, NULL, err));
    return file;
}
