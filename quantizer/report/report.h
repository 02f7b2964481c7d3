// A run as pages for people: DIR/report.html, complete in itself (no script, no link, nothing fetched), and
// DIR/report.md, the short text. No time and no path in them: the same contents give the same bytes.
#pragma once
#include "quantizer/file/plan.h"
#include "quantizer/report/stats.h"
#include "runtime/model/block.h"

// A line of a table of facts. All texts are UTF-8; the page escapes them.
struct gyre_report_row {
    const char *name, *value;
};

// One linear. `before` and `after` are relative squared output errors weighted by the inputs' second moments,
// tr(E H E^T) / tr(W H W^T). A column that is NaN for all linears is left out.
struct gyre_report_linear {
    const char *name; // "blk.3.attn_q.weight"
    uint32_t wbits, wgroup;
    double weight_error;           // |W' - W|^2 / |W|^2 in the end
    double before;                 // of plain rounding
    double after[GYRE_MAX_STAGES]; // of the recipe's i-th stage, [n_stages]
};

struct gyre_report_tap {
    struct gyre_tap_stats before, after; // of the float model; of the quantized one, behind its rotations
};

// What the page shows. Everything belongs to the caller and lives until the page is made. NULL, an empty list or NaN
// means that it is not known: its section is left out, its number is a dash.
struct gyre_report {
    const char *model, *recipe, *recipe_text; // names; the recipe's YAML
    const struct gyre_report_row *setting, *rotation, *calibration;
    uint32_t n_settings, n_rotations, n_calibrations;

    uint64_t source_bytes, output_bytes; // 0: not known
    double bits_per_weight;              // of the block linears
    double rtn_kl, recipe_kl;            // nats to the float model
    double rtn_weight_error, recipe_weight_error;
    uint32_t summary_tokens;
    bool learned; // scales and gains were learned after all these figures were taken

    const uint64_t *seed; // rotations tried, [n_seeds], and what the search thought of them (less is better)
    const double *surrogate;
    uint32_t n_seeds;
    uint64_t chosen_seed;

    const gyre_quantize_layer *layer; // [layers]
    uint32_t layers;

    const struct gyre_report_tap *tap;                    // [layers][GYRE_PRODUCTS]
    const struct gyre_heat_map *heat_before, *heat_after; // both or none
    uint32_t heat_layer;
    gyre_product heat_tap;

    const struct gyre_report_linear *linear; // [n_linears], block by block
    uint32_t n_linears, n_stages;
    const char *stage[GYRE_MAX_STAGES]; // names of the columns, [n_stages]
    bool weighs_outputs;                // errors behind stages count outputs by what they do to the loss
};

// What a KL divergence to the float model, in nats a token, is worth: "excellent" up to 0.05, "good" up to 0.15,
// "usable" up to
// 0.5, else "poor"; NULL for NaN. A coarse scale for models that answer in text: at 0.05 the two rarely differ in a
// word.
const char *gyre_report_verdict(double kl);

// The page; *html is malloc'd, NUL-terminated, *bytes without the NUL. Fails only for want of memory.
gyre_status gyre_report_html(const struct gyre_report *report, char **html, size_t *bytes,
                             gyre_error *err) GYRE_MUST_USE;
// The short text, likewise.
gyre_status gyre_report_text(const struct gyre_report *report, char **text, size_t *bytes,
                             gyre_error *err) GYRE_MUST_USE;

// Writes both files; makes the folder.
gyre_status gyre_report_save(const char *folder, const struct gyre_report *report, gyre_error *err) GYRE_MUST_USE;
