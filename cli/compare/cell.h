// What gyre compare finds out, typed: a cell is one recipe at one setting. JSON is what it is written to and read from.
#pragma once
#include "cli/answers.h"
#include "cli/blocks.h"
#include "cli/setting.h"

#include <gyre/gyre_eval.h>
#include <jansson.h>

struct cli_cell_text {
    char *name; // malloc'd
    gyre_eval_result result;
    struct cli_blocks blocks;
};

// A row of the table. The first is the float model's: recipe "float", wbits 0, no divergence, no quantize_seconds.
struct cli_cell {
    char recipe[72], setting[CLI_SETTING_NAME], device[32];
    char failed[sizeof((gyre_error *)0)->message]; // why there are no figures; else ""
    struct cli_setting widths;
    double bits_per_weight, bytes, quantize_seconds, eval_seconds; // NaN: not known
    struct cli_cell_text *text;                                    // [n_texts]
    struct cli_answers *task;                                      // [n_tasks]
    uint32_t n_texts, n_tasks;
    gyre_eval_result all; // of all texts together; tokens 0 where it failed
    bool beside;          // the float model's: its logits are not stored, it runs beside the others
};

// A quantized file of the work folder.
struct cli_weights {
    char file[256];
    double bits_per_weight, bytes, quantize_seconds;
};

struct cli_comparison {
    const char *model, *model_sha256, *profile; // model: the name without its folder
    uint32_t ctx, windows, reference_k;         // reference_k 0: all
    uint64_t seed;
    const char *base; // the recipe that others are held against; NULL: none
    bool by_position;
    const char *const *calib; // [n_calib] names of texts that recipes were calibrated on; none where no recipe is
    uint32_t n_calib;
    const bool *flattered; // [texts]: it is one of those; NULL: none is
    struct cli_cell *cell; // [n_cells]
    uint32_t n_cells;
};

// An empty cell: nothing known. Room for texts and tasks; false where memory ran out. Free with cli_cell_free, also
// after that.
bool cli_cell_create(uint32_t n_texts, uint32_t n_tasks, struct cli_cell *out);
void cli_cell_free(struct cli_cell *cell); // accepts a zeroed one; zeroes it

// {recipe, setting, wbits, wgroup, act, kv, kv_v} and either {failed} or {bits_per_weight, bytes, quantize_seconds,
// eval_seconds, device, texts: [{text, ..., ctx, blocks: {nll: [], kl: []}}], all: {...}, tasks: [...]}, the dots being
// the keys of `gyre eval --json`. NULL where memory ran out.
json_t *cli_cell_json(const struct cli_cell *cell);
// false where memory ran out or `json` is no cell; what is absent is unknown.
bool cli_cell_read(const json_t *json, struct cli_cell *out);

json_t *cli_weights_json(const struct cli_weights *weights);
bool cli_weights_read(const json_t *json, struct cli_weights *out);
