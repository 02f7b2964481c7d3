// POST /v1/chat/completions.
#include "cli/serve/ask.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_LOGPROBS = 20 };

static bool ask_scores(const json_t *request, struct serve_job *job, struct serve_error *e)
{
    json_int_t best = 0;
    if (!serve_field_flag(request, "logprobs", &job->scores, e) ||
        !serve_field_whole(request, "top_logprobs", 0, MOST_LOGPROBS, &best, e))
        return false;
    if (best && !job->scores)
        return serve_refuse(e, 400, NULL, "top_logprobs", "'top_logprobs' needs 'logprobs' to be true");
    job->n_best = (uint32_t)best;
    job->params.scores = job->scores;
    job->params.n_best = job->n_best;
    return true;
}

static bool ask(const struct serve *s, const json_t *request, struct serve_job *job, struct serve_error *e)
{
    json_int_t most = s->shift ? (json_int_t)s->context : INT32_MAX;
    struct serve_rendered prompt = {0};
    json_t *variables = json_object(), *tools = NULL;
    job->chat = true;
    bool fine = variables && serve_ask_sampling(s, request, job, e) &&
                serve_field_whole(request, "max_tokens", 1, INT32_MAX, &most, e) &&
                serve_field_whole(request, "max_completion_tokens", 1, INT32_MAX, &most, e) &&
                ask_scores(request, job, e) && serve_ask_form(s, request, job, &tools, e) &&
                serve_ask_variables(request, tools, variables, e) && serve_ask_rendered(s, variables, &prompt, e);
    fine = fine && (!s->shift || serve_ask_shorter(s, variables, &prompt, job, e));
    json_decref(variables);
    json_decref(tools);
    job->prompt[0].tokens = prompt.tokens;
    job->prompt[0].n = prompt.n;
    if (!fine) return false;
    job->reasons = prompt.thinks ? SERVE_REASON_OPEN : s->reasons ? SERVE_REASON_MAY : SERVE_REASON_NONE;
    job->params.max_tokens = (uint32_t)most;
    job->end_token = s->end_token;
    if (s->end_text) {
        if (!(job->stop[job->n_stop] = strdup(s->end_text))) return serve_no_memory(e);
        job->n_stop++;
    }
    return serve_ask_room(s, job, e) && serve_ask_bound(s, job, e);
}

struct serve_job *serve_ask_chat(const struct serve *s, const json_t *request, struct serve_error *e)
{
    struct serve_job *job = serve_job_new(1);
    if (!job) serve_no_memory(e);
    if (job && ask(s, request, job, e)) return job;
    serve_job_release(job);
    return NULL;
}
