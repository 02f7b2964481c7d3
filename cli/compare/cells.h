// Making the cells of gyre compare: each is quantized and evaluated once, recorded, and found again.
#pragma once
#include "cli/compare/record.h"
#include "cli/setting.h"
#include "cli/tasks.h"
#include "cli/texts.h"

enum { COMPARE_MAX = 32 }; // recipes, settings

struct compare_recipe {
    const char *arg;           // as given: a name or a file
    char label[72];            // in tables; differs from all others
    char stem[72];             // in names of files
    char key[GYRE_SHA256_HEX]; // digest of its text
    bool calibrates;
    bool by_act; // its files differ by the width of activations that they are made for, calibrated or not
};

struct compare {
    const char *model, *profile, *work, *device;
    struct cli_texts texts;
    uint32_t ctx, windows, reference_k, reference_mib; // reference_k 0: all, in a file of so many MiB at most
    uint64_t seed;
    struct compare_recipe recipe[COMPARE_MAX];
    struct cli_setting setting[COMPARE_MAX];
    uint32_t n_recipes, n_settings;

    struct cli_list calib, task_paths;
    struct cli_task task[CLI_LIST_MAX]; // read with the first engine, whose tokenizer is that of all
    char task_sha[CLI_LIST_MAX][GYRE_SHA256_HEX];
    char model_sha[GYRE_SHA256_HEX], calib_sha[GYRE_SHA256_HEX];
    bool flattered[CLI_LIST_MAX]; // texts that are calibrated on
    char reference_path[4096];
    struct cli_cells cells;
    gyre_reference *stored;
    bool made_work;           // its folder was not there before
    bool beside;              // the float model's logits take too much room: it runs beside each cell
    uint32_t at, total, made; // cells: under way, in all, made by this run
};

// Some recipe reads a calibration text.
bool compare_calibrates(const struct compare *c);

// Fails where no cell can be made, with what is in the way of the first.
gyre_status compare_possible(const struct compare *c, gyre_error *err);

// Digests, the work folder and its journal.
gyre_status compare_begin(struct compare *c, gyre_error *err);
void compare_end(struct compare *c);

// A cell, recorded or made. One that fails has `failed`, and is no error; errors are those after which going on makes
// no
// sense: interruption, no device, the journal cannot be written. *out is the caller's, also after an error.
gyre_status compare_float(struct compare *c, struct cli_cell *out, gyre_error *err);
gyre_status compare_cell(struct compare *c, const struct compare_recipe *recipe, const struct cli_setting *setting,
                         struct cli_cell *out, gyre_error *err);

// Removes what the cells' making left but the journal: quantized files and the reference.
void compare_clean(struct compare *c);
