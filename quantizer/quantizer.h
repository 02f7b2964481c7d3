// The quantizer: an ordinary model file in, rotated int4 weights out. Its own public face; the runtime does not know it.
#pragma once
#include "runtime/util/log.h"
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gyre_quantize_params {
    const char *source, *output; // paths
    const char *recipe;          // a built-in name or a YAML file (docs/recipes.md); NULL: quarot-rtn
    uint32_t wbits;              // 4, 8, 16, 32 (16 and 32: the rotated float model, for checks); 0: 4
    int32_t wgroup;              // 0 per channel, 32, 64, 128; -1: default 32
    uint32_t act, kv;            // 16, 8, 4; 0: default 8. What the file is optimized for and defaults to at run time.
    const char *profile;         // "portable" or "full"; NULL: full
    const char *const *calib;    // [n_calib] texts for the recipes that calibrate; none: the bundled mixture
    uint32_t n_calib;
    uint64_t seed;
    const char *device; // for calibration and the closing summary; NULL: a GPU, else the host itself
    bool resume, force;
    const char *report_dir; // the summary goes to DIR/report.html and report.md too; may be NULL. Needs `summary`.
    gyre_log log;
    // Called often. `eta_seconds` is negative while unknown. A non-zero return stops cleanly (GYRE_E_CANCELLED) and
    // leaves a journal for --resume.
    int (*progress)(void *user, double fraction, double eta_seconds, const char *what);
    void *user;
} gyre_quantize_params;

typedef struct gyre_quantize_layer {
    double rtn_error, recipe_error;
} gyre_quantize_layer; // relative squared output error against float
typedef struct gyre_quantize_summary {
    uint32_t layers;
    gyre_quantize_layer *layer; // [layers], malloc'd; free with gyre_quantize_summary_free
    double rtn_kl, recipe_kl;   // nats, on the bundled or given text; NaN when there is no device to measure on
    double rtn_weight_error, recipe_weight_error; // mean relative squared weight error
    uint64_t source_bytes, output_bytes;
    double seconds, bits_per_weight; // of the block linears
    uint32_t summary_tokens, resumed_layers;
    char recipe[64];                    // its name, also where it was read from a file
    uint64_t rotation_seed, first_seed; // the rotation that is used; the first of the n_seeds that were tried
    uint32_t n_seeds;                   // 1: the run's seed was taken untried
    double act_clip, kv_clip;           // of the run-time quantizers
    uint32_t raised_damping,
        linears;          // of all linears in the blocks, those that needed more damping than the recipe says,
    double worst_damping; // and the most that one of them needed; 0: none
    uint64_t dead_inputs; // inputs of linears that were zero on the whole calibration text
} gyre_quantize_summary;

// Refuses an existing output without `force`, a journal of another recipe or model, too little disk space. Writes
// OUT.part and OUT.journal/ while running; OUT and OUT.manifest.json appear only when complete.
// Same recipe, seed, source and machine: the same bytes.
gyre_status gyre_quantize(const gyre_quantize_params *params, gyre_quantize_summary *summary,
                          gyre_error *err) GYRE_MUST_USE;
void gyre_quantize_summary_free(gyre_quantize_summary *summary);

// The built-in recipes: name, one line, and where it comes from; NULL past the end.
const char *gyre_recipe_name(uint32_t index);
const char *gyre_recipe_about(uint32_t index);
const char *gyre_recipe_source(uint32_t index);

typedef enum gyre_recipe_form {
    GYRE_RECIPE_YAML, // a built-in one as it was written; a file's with every default explicit
    GYRE_RECIPE_JSON  // every default explicit
} gyre_recipe_form;
// Reads and checks a recipe, as gyre_quantize_params.recipe names one, and writes it out; *text is malloc'd.
// GYRE_E_INVALID: there is none of that name. GYRE_E_FORMAT, GYRE_E_IO: the file is no recipe, or cannot be read.
gyre_status gyre_recipe_describe(const char *recipe, gyre_recipe_form form, char **text, gyre_error *err) GYRE_MUST_USE;

#ifdef __cplusplus
}
#endif
