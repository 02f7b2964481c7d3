// What the recipe left open and was then chosen (pass/search.h), as the plan, the journal and the manifest know it.
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { GYRE_MAX_SEEDS = 1024 };

struct gyre_choice {
    uint64_t seed;                      // of the rotation that is used
    uint32_t n_seeds;                   // candidates, from the run's seed on
    float surrogate[GYRE_MAX_SEEDS];    // of each; n_seeds 1: none was computed
    float act_clip, kv_clip, kv_clip_v; // of the run-time quantizers; of keys, of values
    float tap_clip;                     // of taps that exceptions give another width
};

// {"rotation_seed", "surrogates": [...], "act_clip", "kv_clip"}, and "kv_clip_v", "tap_clip" where these are others.
// NULL when out of memory.
json_t *gyre_choice_json(const struct gyre_choice *choice);
bool gyre_choice_read(const json_t *json, struct gyre_choice *out); // false where it is none
