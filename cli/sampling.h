// How tokens are chosen and where an answer ends: the options of every command that generates.
#pragma once
#include "cli/args.h"

#include <gyre/gyre.h>

struct cli_sampling {
    gyre_generate_params params;
    struct cli_list stop;
};
#define CLI_SAMPLING_OPTIONS(s)                                                                                        \
    {"--temp", "T", "temperature; 0 takes the most likely token (0)", CLI_F32, &(s).params.sampling.temperature, 0,    \
     100,      NULL},                                                                                                  \
        {"--top-k", "K", "sample among the K most likely; 0: all (0)", CLI_U32, &(s).params.sampling.top_k, 0,         \
         256,       NULL},                                                                                             \
        {"--top-p",                                                                                                    \
         "P",                                                                                                          \
         "... and among the smallest set with probability P (1)",                                                      \
         CLI_F32,                                                                                                      \
         &(s).params.sampling.top_p,                                                                                   \
         0.000001,                                                                                                     \
         1,                                                                                                            \
         NULL},                                                                                                        \
        {"--min-p", "P", "... and at least as likely as P times the likeliest (0)", CLI_F32, &(s).params.min_p, 0,     \
         1,         NULL},                                                                                             \
        {"--repeat-penalty",                                                                                           \
         "R",                                                                                                          \
         "makes tokens that were said less likely; 1: does not (1)",                                                   \
         CLI_F32,                                                                                                      \
         &(s).params.repeat_penalty,                                                                                   \
         0.000001,                                                                                                     \
         1000,                                                                                                         \
         NULL},                                                                                                        \
        {"--presence-penalty",                                                                                         \
         "R",                                                                                                          \
         "subtracted from their logits (0)",                                                                           \
         CLI_F32,                                                                                                      \
         &(s).params.presence_penalty,                                                                                 \
         -1000,                                                                                                        \
         1000,                                                                                                         \
         NULL},                                                                                                        \
        {"--frequency-penalty",                                                                                        \
         "R",                                                                                                          \
         "subtracted for each time they were said (0)",                                                                \
         CLI_F32,                                                                                                      \
         &(s).params.frequency_penalty,                                                                                \
         -1000,                                                                                                        \
         1000,                                                                                                         \
         NULL},                                                                                                        \
        {"--penalty-window",                                                                                           \
         "N",                                                                                                          \
         "tokens back that count as said (64)",                                                                        \
         CLI_U32,                                                                                                      \
         &(s).params.penalty_window,                                                                                   \
         1,                                                                                                            \
         1 << 24,                                                                                                      \
         NULL},                                                                                                        \
        {"--stop", "TEXT", "ends before this text; may be repeated", CLI_LIST, &(s).stop, 0, 0, NULL},                 \
    {                                                                                                                  \
        "--seed", "S", "seed of the sampling (0)", CLI_U32, &(s).params.sampling.seed, 0, 4294967295.0, NULL           \
    }

// The defaults, to be set before the options are parsed; max_tokens 0: up to the context's end.
void cli_sampling_begin(struct cli_sampling *sampling, uint32_t max_tokens);
// After them: -1 to go on, else the exit status.
int cli_sampling_check(struct cli_sampling *sampling);
// Says which of them change nothing, of a command where nothing changes that later.
void cli_sampling_warn(const struct cli_sampling *sampling);
