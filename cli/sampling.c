// See sampling.h.
#include "cli/sampling.h"

enum { WINDOW = 64 }; // tokens back that count as said

void cli_sampling_begin(struct cli_sampling *s, uint32_t max_tokens)
{
    *s = (struct cli_sampling){.params = {.size = sizeof s->params,
                                          .max_tokens = max_tokens,
                                          .sampling = {.top_p = 1.0f},
                                          .repeat_penalty = 1.0f,
                                          .penalty_window = WINDOW}};
}

int cli_sampling_check(struct cli_sampling *s)
{
    for (uint32_t i = 0; i < s->stop.n; i++)
        if (!*s->stop.item[i]) return cli_usage("impossible value (--stop): a text that ends something is not empty");
    s->params.stop = s->stop.item;
    s->params.n_stop = s->stop.n;
    return -1;
}

void cli_sampling_warn(const struct cli_sampling *s)
{
    const gyre_generate_params *p = &s->params;
    const bool draws = p->sampling.temperature > 0,
               penalizes = p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
    if (!draws && (p->sampling.top_k || p->sampling.top_p < 1 || p->min_p > 0 || p->sampling.seed))
        cli_warn("the most likely token is taken: --top-k, --top-p, --min-p and --seed change nothing without --temp");
    if (!penalizes && p->penalty_window != WINDOW) cli_warn("--penalty-window changes nothing without a penalty");
}
