// Choosing a token from logits on the host over all of the vocabulary, with constraints: what gyre_schedule.h promises.
// (sample.h is the same for one session, as the device does it: among 256 candidates at most.)
#pragma once
#include <gyre/gyre_schedule.h>

// Working memory for one thread.
struct gyre_chooser {
    uint32_t vocab;
    gyre_candidate *candidate; // [vocab]
    uint32_t *seen;            // a bit per token, none set between calls
    uint32_t *said;            // [vocab] how often a token of a list was said, 0 between calls
};
bool gyre_chooser_init(struct gyre_chooser *chooser, uint32_t vocab); // false: out of memory
void gyre_chooser_free(struct gyre_chooser *chooser);

// Does the device's own choice do: the most likely token, or a draw from all at a temperature?
bool gyre_choose_is_plain(const gyre_task_params *params);
bool gyre_choose_is_greedy(const gyre_task_params *params); // ... the most likely one
// What the device is told then. gyre_choose makes the same draw.
gyre_sampling gyre_choose_sampling(const gyre_task_params *params);

// The token that follows tokens[n], of which the first n_prompt are the prompt. Changes logits[vocab]. `allowed` as in
// gyre_task_params; NULL: all. UINT32_MAX where no token is allowed or no logit is a number.
uint32_t gyre_choose(struct gyre_chooser *chooser, const gyre_task_params *params, float *logits,
                     const uint32_t *tokens, size_t n, size_t n_prompt, const uint32_t *allowed);

// The most likely tokens of more than n, best first, and what all together weigh: the sum of
// exp((logit - best[0].logit) / temperature) to 1e-5; 0: that is not known.
struct gyre_listed {
    const gyre_candidate *best;
    uint32_t n;
    double mass;
};
// May the most likely tokens alone be enough to choose from? Not where a token that is none of them could become as
// likely, or be drawn by its own small chance. For a top-p they are where they have that part of all.
bool gyre_choose_may_list(const gyre_task_params *params, uint32_t listed);
bool gyre_choose_weighs(const gyre_task_params *params); // does what all tokens weigh matter then?
// The choice that gyre_choose makes, from a list. False: it takes all of the logits to know it.
bool gyre_choose_listed(struct gyre_chooser *chooser, const gyre_task_params *params, const struct gyre_listed *list,
                        const uint32_t *tokens, size_t n_tokens, size_t n_prompt, const uint32_t *allowed,
                        uint32_t *token);

// log(sum(exp(logits[i]))): what a logit is less to be a log-probability.
double gyre_log_sum(const float *logits, uint32_t n);
