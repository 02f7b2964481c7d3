// gyre compare: what is written from its cells.
#pragma once
#include "cli/compare/cell.h"

// {model, model_sha256, gyre, ctx, windows, reference_k, seed, profile, calib, base, rows: [cells]}; calib where a
// recipe calibrates. A cell of another recipe
// than `base` has `difference`: {all, texts}, each {kl, low, high, units, units_are}; its tasks have what the float
// model's answers add.
json_t *cli_comparison_json(const struct cli_comparison *comparison);
// Markdown text of the comparison (markdown.c); malloc'd, NULL where memory ran out.
char *cli_compare_markdown(const struct cli_comparison *comparison);
// Writes PREFIX.md, .csv, .json and .png, each atomically. `markdown`: as made above.
gyre_status cli_compare_write(const struct cli_comparison *comparison, const char *markdown, const char *prefix,
                              gyre_error *err) GYRE_MUST_USE;
gyre_status cli_compare_plot(const struct cli_comparison *comparison, const char *path, gyre_error *err) GYRE_MUST_USE;
