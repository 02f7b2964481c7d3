// See json.h.
#include "cli/json.h"

#include "runtime/util/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local bool lost;

static void *watched(size_t bytes)
{
    void *p = malloc(bytes);
    lost |= !p;
    return p;
}

void cli_json_watch(void) { json_set_alloc_funcs(watched, free); }

bool cli_json_lost(void)
{
    const bool was = lost;
    lost = false;
    return was;
}

json_t *cli_json_text(const char *text)
{
    char *mended = gyre_utf8_mended(text);
    json_t *out = mended ? json_string(mended) : NULL;
    free(mended);
    return out;
}

json_t *cli_json_known(double value) { return isnan(value) ? json_null() : json_real(value); }

int cli_eval_figures(json_t *out, const gyre_eval_result *r)
{
    json_t *figures = json_pack("{s:I, s:i, s:f, s:o, s:f, s:o, s:s, s:f}", "tokens", (json_int_t)r->tokens, "windows",
                                (int)r->windows, "nll", r->nll, "nll_stderr", cli_json_known(r->nll_stderr), "ppl",
                                r->ppl, "ppl_stderr", cli_json_known(r->ppl_stderr), "stderr_from",
                                r->stderr_from_windows ? "windows" : "tokens", "seconds", r->seconds);
    json_t *reference =
        r->has_reference
            ? json_pack("{s:f, s:o, s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:o}", "kl", r->kl, "kl_stderr",
                        cli_json_known(r->kl_stderr), "kl_kind", r->kl_is_bound ? "top-k bound" : "exact", "kl_median",
                        r->kl_median, "kl_p90", r->kl_p90, "kl_p99", r->kl_p99, "kl_max", r->kl_max, "dp_rms",
                        r->dp_rms, "dp_rms_stderr", cli_json_known(r->dp_rms_stderr), "top1_agreement",
                        r->top1_agreement, "top1_stderr", cli_json_known(r->top1_stderr))
            : json_object();
    const int failed = !figures || !reference || json_object_update(out, figures) || json_object_update(out, reference);
    json_decref(figures);
    json_decref(reference);
    return failed;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? (double)NAN : json_number_value(value);
}

static bool says(const json_t *object, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, value) == 0;
}

void cli_eval_figures_read(const json_t *o, gyre_eval_result *out)
{
    *out = (gyre_eval_result){.tokens = (uint64_t)json_integer_value(json_object_get(o, "tokens")),
                              .windows = (uint32_t)json_integer_value(json_object_get(o, "windows")),
                              .nll = number(o, "nll"),
                              .nll_stderr = number(o, "nll_stderr"),
                              .ppl = number(o, "ppl"),
                              .ppl_stderr = number(o, "ppl_stderr"),
                              .stderr_from_windows = says(o, "stderr_from", "windows"),
                              .seconds = number(o, "seconds"),
                              .has_reference = json_is_number(json_object_get(o, "kl")),
                              .kl = number(o, "kl"),
                              .kl_stderr = number(o, "kl_stderr"),
                              .kl_is_bound = says(o, "kl_kind", "top-k bound"),
                              .kl_median = number(o, "kl_median"),
                              .kl_p90 = number(o, "kl_p90"),
                              .kl_p99 = number(o, "kl_p99"),
                              .kl_max = number(o, "kl_max"),
                              .dp_rms = number(o, "dp_rms"),
                              .dp_rms_stderr = number(o, "dp_rms_stderr"),
                              .top1_agreement = number(o, "top1_agreement"),
                              .top1_stderr = number(o, "top1_stderr")};
}

int cli_print_json(json_t *value)
{
    if (!value) {
        fputs("gyre: cannot write JSON: out of memory\n", stderr);
        return 1;
    }
    char *text = json_dumps(value, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    json_decref(value);
    if (!text) {
        fputs("gyre: cannot write JSON: out of memory\n", stderr);
        return 1;
    }
    puts(text);
    free(text);
    return 0;
}
