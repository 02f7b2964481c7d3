// What a step means for one task: scores of its prompt, the token that follows, its end.
#include "runtime/schedule.h"
#include "runtime/sample.h"

#include "runtime/util/base.h"

#include <string.h>

bool gyre_task_generates(const gyre_task *t) { return t->said < t->most; }
bool gyre_task_ended(const gyre_task *t, gyre_stop *why)
{
    if (why) *why = t->why;
    return t->ended;
}
size_t gyre_task_cached(const gyre_task *t) { return t->cached; }
size_t gyre_task_generated(const gyre_task *t) { return t->said; }

bool gyre_task_is_twin(const gyre_task *t, const gyre_task *o)
{
    return o != t && !o->ended && !o->pooled && o->n == o->n_prompt && o->n_prompt == t->n_prompt &&
           gyre_task_generates(o) && memcmp(o->tokens, t->tokens, t->n_prompt * sizeof *t->tokens) == 0;
}

static void end(gyre_task *t, gyre_stop why)
{
    t->ended = true;
    t->why = why;
}

void gyre_task_fail(gyre_task *t) { end(t, GYRE_STOP_FAILED); }
const gyre_error *gyre_task_error(const gyre_task *t) { return t->ended && t->error.code ? &t->error : NULL; }

// Fills in the log-probability of a token and the best of its place. Both come from the same subtraction, so that a
// token among the best has the same number there.
static void score(struct gyre_scheduler *s, const gyre_task_params *p, const float *logits, gyre_task_token *token)
{
    const double sum = gyre_log_sum(logits, s->chooser.vocab);
    token->scored = true;
    token->logprob = (float)((double)logits[token->token] - sum);
    token->n_best = gyre_sample_best(logits, s->chooser.vocab, p->n_best, s->chooser.candidate);
    for (uint32_t i = 0; i < token->n_best; i++)
        s->best[i] = (gyre_scored){s->chooser.candidate[i].token, (float)((double)s->chooser.candidate[i].logit - sum)};
    token->best = s->best;
}

static bool tell(gyre_task *t, const gyre_task_token *token)
{
    return t->params.on_token && t->params.on_token(t->params.user, token) != 0;
}

// The tokens of the prompt whose places this step computed, and before them the first one, which has no score.
static bool tell_prompt(gyre_task *t, uint32_t first)
{
    struct gyre_scheduler *s = t->scheduler;
    if (t->told == 0) {
        t->told = 1;
        if (tell(t, &(gyre_task_token){.token = t->tokens[0], .prompt = true})) return true;
    }
    // What was told stays so where the step before failed and took places back.
    for (uint32_t at = GYRE_MAX(first, t->told - 1); at < t->length && t->told < t->n_prompt; at++) {
        gyre_task_token token = {.token = t->tokens[t->told++], .prompt = true};
        score(s, &t->params, t->logits + (uint64_t)(at - first) * s->chooser.vocab, &token);
        if (tell(t, &token)) return true;
    }
    return false;
}

// Which tokens may follow; NULL: all.
static const uint32_t *allowed(const gyre_task *t)
{
    struct gyre_scheduler *s = t->scheduler;
    const uint32_t words = (uint32_t)gyre_div_up(s->chooser.vocab, 32);
    if (!t->params.allow) return NULL;
    memset(s->allowed, 0, words * sizeof *s->allowed);
    return t->params.allow(t->params.user, s->allowed, words) ? s->allowed : NULL;
}

gyre_status gyre_task_choose_listed(gyre_task *t, gyre_error *err)
{
    struct gyre_scheduler *s = t->scheduler;
    const struct gyre_listed list = {t->best, GYRE_STEP_BEST, (double)t->mass};
    const bool settled =
        gyre_choose_listed(&s->chooser, &t->params, &list, t->tokens, t->n, t->n_prompt, allowed(t), &t->chosen);
    if (settled) {
        t->misses /= 2; // a list costs much less than all logits
        return GYRE_OK;
    }
    t->misses = GYRE_MIN(t->misses + 1, (uint32_t)GYRE_MOST_MISSES);
    t->best = NULL;
    t->logits = t->spare;
    return gyre_engine_logits(s->engine, t->slot, t->logits, err);
}

// What follows the task's tokens, with its score where that is asked for; UINT32_MAX: nothing may.
static gyre_task_token choose(gyre_task *t, float *logits)
{
    struct gyre_scheduler *s = t->scheduler;
    gyre_task_token token = {.token = t->chosen};
    const float *raw = logits;
    if (logits && !t->best && !gyre_choose_is_greedy(&t->params)) {
        if (t->params.scores) // choosing changes the logits, and a score needs them as they were
            raw = memcpy(s->logits + (uint64_t)s->engine->logit_rows * s->chooser.vocab, logits,
                         s->chooser.vocab * sizeof *logits);
        token.token = gyre_choose(&s->chooser, &t->params, logits, t->tokens, t->n, t->n_prompt, allowed(t));
    }
    if (t->params.scores && token.token != UINT32_MAX) score(s, &t->params, raw, &token);
    return token;
}

// The context is full and the answer is not: the oldest tokens leave, and from the last whole page of what is kept on
// the others are read like a prompt, at their new places.
static void shift(gyre_task *t)
{
    const gyre_engine *e = t->scheduler->engine;
    const uint32_t keep = t->params.keep, leave = (uint32_t)gyre_context_shift(t->n, keep, e->context);
    memmove(t->tokens + keep, t->tokens + keep + leave, (t->n - keep - leave) * sizeof *t->tokens);
    t->n -= leave;
    t->n_prompt -= GYRE_MIN(leave, t->n_prompt - keep);
    t->length = gyre_kv_trim(&t->scheduler->engine->kv, t->slot, keep / GYRE_PAGE * GYRE_PAGE);
    t->params.seed += GYRE_SHIFTED_SEED;
    t->params.score_prompt = false; // its scores are told
    t->shifted = true;
}

// The token that was chosen becomes the task's.
static void take(gyre_task *t, gyre_task_token token)
{
    const gyre_engine *e = t->scheduler->engine;
    if (token.token == UINT32_MAX) {
        end(t, GYRE_STOP_BOUND);
        return;
    }
    t->tokens[t->n++] = token.token;
    t->said++;
    token.end = !t->params.ignore_end && gyre_tokenizer_is_end(e->tokenizer, token.token);
    const bool stop = tell(t, &token);
    if (token.end) end(t, GYRE_STOP_END);
    else if (stop) end(t, GYRE_STOP_TOKEN);
    else if (!gyre_task_generates(t))
        end(t, t->n < e->context || t->params.shift ? GYRE_STOP_LENGTH : GYRE_STOP_CONTEXT);
    else if (t->n == e->context) shift(t);
}

void gyre_task_advance(gyre_task *t)
{
    struct gyre_scheduler *s = t->scheduler;
    const uint32_t first = t->length - t->rows;
    const bool scored = t->params.score_prompt && first < t->n_prompt; // its rows' logits lie one behind another
    if (scored && tell_prompt(t, first)) {
        end(t, GYRE_STOP_TOKEN);
        return;
    }
    if (t->length < t->n) return; // more of the prompt is to come
    if (!gyre_task_generates(t)) {
        end(t, GYRE_STOP_LENGTH);
        return;
    }
    float *const logits = scored ? t->logits + (t->rows - 1) * (uint64_t)s->chooser.vocab : t->logits;
    float *const kept = s->logits + (uint64_t)(s->engine->logit_rows + 1) * s->chooser.vocab; // choosing changes them
    const bool first_choice = t->n == t->n_prompt;
    if (logits && first_choice) memcpy(kept, logits, s->chooser.vocab * sizeof *kept);
    take(t, choose(t, logits));
    if (t->shifted) return; // its tokens are no longer those that the logits follow
    for (gyre_task *o = s->first; o && first_choice && !s->params.no_sharing; o = o->next) {
        if (o->rows || o->params.score_prompt || o->n_prompt != t->n_prompt || !gyre_task_is_twin(t, o)) continue;
        const bool same = gyre_choose_is_greedy(&o->params) && !o->params.scores; // the device's own choice
        if (!logits && !(same && gyre_choose_is_greedy(&t->params))) continue;    // they stayed there
        if (!same) memcpy(logits, kept, s->chooser.vocab * sizeof *kept);
        o->chosen = t->chosen;
        take(o, choose(o, same ? NULL : logits));
    }
}
