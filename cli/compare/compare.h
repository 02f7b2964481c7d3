// gyre compare: its rows and what is written from them.
//
// A row is a JSON object: recipe, setting, wbits, wgroup, act, kv, and either failed (why) or bits_per_weight, bytes,
// quantize_seconds, eval_seconds, device, texts [{text, tokens, windows, nll, nll_stderr, ppl, ppl_stderr, stderr_from, kl,
// kl_stderr, kl_kind, top1_agreement, top1_stderr}] and all (the same over all texts). The float row, the first, has
// recipe "float" and no kl.
#pragma once
#include "runtime/util/status.h"

#include <jansson.h>

// The whole comparison: {"model", "gyre", "ctx", "windows", "seed", "profile", "rows": [...]}.
// Markdown text of it; malloc'd, NULL where memory ran out.
char *cli_compare_markdown(const json_t *comparison);
// Writes PREFIX.md, .csv, .json and .png, each atomically. `markdown`: as made above.
gyre_status cli_compare_write(const json_t *comparison, const char *markdown, const char *prefix,
                              gyre_error *err) GYRE_MUST_USE;
gyre_status cli_compare_plot(const json_t *comparison, const char *path, gyre_error *err) GYRE_MUST_USE;

// The number at a key; NaN where there is none.
double cli_json_number(const json_t *object, const char *key);
