// Log-likelihoods of continuations: each request is a task of a scheduler whose prompt is scored. See gyre_eval.h.
#include <gyre/gyre_eval.h>
#include <gyre/gyre_schedule.h>

#include "runtime/engine.h"

#include <math.h>
#include <stdlib.h>

struct running {
    gyre_task *task; // NULL: free
    gyre_eval_request *request;
    uint32_t at; // tokens of the prompt that were told
};

static int on_token(void *user, const gyre_task_token *token)
{
    struct running *r = user;
    if (r->at++ < r->request->n_context) return 0;
    r->request->loglik += (double)token->logprob;
    r->request->greedy &= token->n_best > 0 && token->best[0].token == token->token;
    return 0;
}

static gyre_status check(const gyre_engine *e, const gyre_eval_request *r, size_t n, gyre_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].n_context == 0 || r[i].n <= r[i].n_context || r[i].n > e->context)
            return gyre_fail(
                err, GYRE_E_INVALID,
                "cannot evaluate request %zu: of its %u tokens %u are context; both parts need a token, and "
                "the whole must fit the context of %u",
                i, r[i].n, r[i].n_context, e->context);
    return GYRE_OK;
}

static gyre_status begin(gyre_scheduler *s, struct running *r, gyre_eval_request *request, gyre_error *err)
{
    request->loglik = 0;
    request->greedy = true;
    *r = (struct running){.request = request};
    const gyre_task_params params = {.size = sizeof params,
                                     .prompt = request->tokens,
                                     .n_prompt = request->n,
                                     .score_prompt = true,
                                     .n_best = 1,
                                     .on_token = on_token,
                                     .user = r};
    return gyre_scheduler_add(s, &params, &r->task, err);
}

gyre_status gyre_eval_requests(gyre_engine *e, gyre_eval_request *requests, size_t n,
                               int (*progress)(void *user, double fraction), void *user, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    gyre_scheduler *s = NULL;
    struct running *running = calloc(e->sequences, sizeof *running);
    size_t next = 0, done = 0;
    if (!running) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory"));
    GYRE_GO(check(e, requests, n, err));
    GYRE_GO(gyre_scheduler_create(e, &(gyre_scheduler_params){.size = sizeof(gyre_scheduler_params)}, &s, err));
    if (n && !gyre_scheduler_room(s))
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: all sequences of the engine are in use"));
    while (done < n) {
        for (uint32_t i = 0; i < e->sequences && next < n && gyre_scheduler_room(s); i++)
            if (!running[i].task) GYRE_GO(begin(s, &running[i], &requests[next++], err));
        GYRE_GO(gyre_scheduler_step(s, err));
        for (uint32_t i = 0; i < e->sequences; i++) {
            struct running *r = &running[i];
            if (!r->task || !gyre_task_ended(r->task, NULL)) continue;
            if (gyre_task_error(r->task) || !isfinite(r->request->loglik))
                GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                                  "cannot evaluate (%s): the log-likelihood of request %zu is not finite; the model's "
                                  "weights are damaged or overflow",
                                  gyre_engine_model(e), (size_t)(r->request - requests)));
            gyre_scheduler_remove(s, r->task);
            r->task = NULL;
            done++;
        }
        if (progress && progress(user, (double)done / (double)n))
            GYRE_GO(gyre_fail(err, GYRE_E_CANCELLED, "cancelled while evaluating"));
    }
done:
    gyre_scheduler_destroy(s);
    free(running);
    return st;
}
