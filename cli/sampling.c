// See sampling.h.
#include "cli/sampling.h"

void cli_sampling_begin(struct cli_sampling *s, uint32_t max_tokens)
{
    *s = (struct cli_sampling){
        .params = {.size = sizeof s->params, .max_tokens = max_tokens, .sampling = {.top_p = 1.0f}}};
}

int cli_sampling_check(struct cli_sampling *s)
{
    for (uint32_t i = 0; i < s->stop.n; i++)
        if (!*s->stop.item[i]) return cli_usage("impossible value (--stop): a text that ends something is not empty");
    s->params.stop = s->stop.item;
    s->params.n_stop = s->stop.n;
    return -1;
}
