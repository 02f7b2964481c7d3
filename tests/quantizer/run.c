// See run.h.
#include "tests/quantizer/run.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_eval.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int calls, stop;
static double weighed, last; // fractions

// ---- what goes in -----------------------------------------------------------------------------------------

void run_text(const char *path, unsigned first)
{
    char words[4096];
    unsigned x = first;
    for (unsigned i = 0; i + 1 < sizeof words; i++) {
        x = x * 1103515245u + 12345u;
        words[i] = x >> 28 ? (char)('a' + (x >> 16) % 26) : ' ';
    }
    words[sizeof words - 1] = 0;
    files_write(path, words);
}

void run_base(const char *model, const char *text, const char *family, bool tied)
{
    struct tiny_options o = tiny_family(family);
    o.layers = 2;
    o.tied = tied;
    assert_int_equal(tiny_write_gguf(model, &o), 0);
    run_text(text, 3);
}

// ---- runs -------------------------------------------------------------------------------------------------

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user, (void)eta;
    assert_true(fraction >= 0 && fraction <= 1 && what && *what);
    last = fraction;
    if (strstr(what, "weighing")) weighed = fraction;
    return ++calls == stop;
}

gyre_quantize_params run_params(const char *model, const char *out, const char *recipe, const char *const *text)
{
    return (gyre_quantize_params){.source = model,
                                  .output = out,
                                  .recipe = recipe,
                                  .wgroup = GYRE_WGROUP_ROW,
                                  .act = 4,
                                  .kv = 4,
                                  .calib = text,
                                  .n_calib = 1,
                                  .force = true};
}

gyre_status run_until(gyre_quantize_params p, int stop_at, gyre_quantize_summary *summary, gyre_error *err)
{
    p.progress = on_progress;
    calls = 0;
    weighed = last = 0;
    stop = stop_at;
    return gyre_quantize(&p, summary, err);
}

void run_refused(gyre_quantize_params p, const char *says)
{
    gyre_error err = {0};
    const gyre_status st = run_until(p, 0, NULL, &err);
    if (st == GYRE_OK || !strstr(err.message, says)) fail_msg("%s: %d, %s", says, st, err.message);
}

int run_calls(void) { return calls; }

double run_weighed(void) { return weighed; }

double run_fraction(void) { return last; }

// ---- what comes out ---------------------------------------------------------------------------------------

double run_divergence(const char *model, const char *out, const char *text, uint32_t act, uint32_t kv)
{
    gyre_error err = {0};
    gyre_eval_result result = {0};
    gyre_engine *exact = NULL, *made = NULL;
    uint64_t bytes;
    uint32_t *tokens = NULL;
    size_t n = 0;
    char *words = files_read(text, &bytes);
    const gyre_engine_params p = {.device = "cpu", .context = 64},
                             q = {.device = "cpu", .context = 64, .act = act, .kv = kv};
    if (gyre_engine_open(model, &p, &exact, &err) != GYRE_OK ||
        gyre_engine_open_beside(exact, out, &q, &made, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    gyre_status st = gyre_tokenize(gyre_engine_tokenizer(made), words, bytes, 0, &tokens, &n, &err);
    if (st == GYRE_OK) st = gyre_eval(made, exact, tokens, n, 32, 0, NULL, NULL, &result, &err);
    if (st != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(gyre_engine_close(made, NULL), GYRE_OK);
    assert_int_equal(gyre_engine_close(exact, NULL), GYRE_OK);
    free(words);
    free(tokens);
    return result.kl;
}
