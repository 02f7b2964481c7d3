// See job.h.
#include "cli/serve/job.h"

#include "runtime/util/array.h"
#include "runtime/util/text.h"

#include <stdlib.h>
#include <string.h>

struct serve_job *serve_job_new(uint32_t n_prompts)
{
    struct serve_job *job = calloc(1, sizeof *job);
    if (!job) return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    atomic_init(&job->references, 1);
    job->n = 1;
    job->end_token = UINT32_MAX;
    job->params = (gyre_task_params){.size = sizeof job->params, .temperature = 1};
    job->n_prompts = n_prompts;
    job->prompt = calloc(n_prompts, sizeof *job->prompt);
    if (job->prompt) return job;
    job->n_prompts = 0;
    serve_job_release(job);
    return NULL;
}

static bool append_text(struct serve_choice *c, const char *text, size_t n)
{
    return gyre_append(&c->text, &c->n_text, &c->cap_text, text, n);
}

bool serve_job_make_choices(struct serve_job *job)
{
    job->choice = calloc((size_t)job->n_prompts * job->n, sizeof *job->choice);
    if (!job->choice) return false;
    job->n_choices = job->n_open = job->n_prompts * job->n;
    for (uint32_t i = 0; i < job->n_choices; i++) {
        struct serve_choice *c = &job->choice[i];
        *c = (struct serve_choice){.job = job, .index = i, .prompt = i / job->n};
        c->stops.stop = (const char *const *)job->stop;
        c->stops.n_stop = job->n_stop;
        const char *echo = job->prompt[c->prompt].text;
        if (echo && !append_text(c, echo, strlen(echo))) return false;
    }
    return true;
}

struct serve_job *serve_job_hold(struct serve_job *job)
{
    atomic_fetch_add(&job->references, 1);
    return job;
}

void serve_job_release(struct serve_job *job)
{
    if (!job || atomic_fetch_sub(&job->references, 1) != 1) return;
    for (uint32_t i = 0; i < job->n_choices; i++) {
        free(job->choice[i].text);
        free(job->choice[i].embedding);
        free(job->choice[i].said);
        free(job->choice[i].best);
        free(job->choice[i].stops.held);
        gyre_matcher_destroy(job->choice[i].matcher);
        gyre_answer_destroy(job->choice[i].answer);
    }
    for (uint32_t i = 0; i < job->n_prompts; i++) {
        gyre_free(job->prompt[i].tokens);
        free(job->prompt[i].text);
    }
    for (uint32_t i = 0; i < job->n_stop; i++) free(job->stop[i]);
    gyre_grammar_destroy(job->grammar);
    free(job->schema);
    gyre_tools_destroy(job->tools);
    free(job->named);
    free(job->choice);
    free(job->prompt);
    free(job->bias);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

void serve_job_fail(struct serve_job *job, const struct serve_error *error)
{
    pthread_mutex_lock(&job->lock);
    if (!job->error.status) job->error = *error;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

void serve_job_cancel(struct serve_job *job)
{
    atomic_store(&job->cancelled, true);
    pthread_mutex_lock(&job->lock);
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

// ---- what a task says ----------------------------------------------------------------------------------------------

static bool keep_scores(struct serve_choice *c, const gyre_task_token *t)
{
    if (!GYRE_ROOM(c->said, c->n_said + 1, c->cap_said) || !GYRE_ROOM(c->best, c->n_best + t->n_best, c->cap_best))
        return false;
    c->said[c->n_said++] =
        (struct serve_said){t->token, t->scored, t->logprob, c->offset, (uint32_t)c->n_best, t->n_best};
    if (t->n_best) memcpy(c->best + c->n_best, t->best, t->n_best * sizeof *t->best);
    c->n_best += t->n_best;
    return true;
}

static uint32_t characters(const char *text, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

// Takes up new text of the answer. False: out of memory. The choice finishes where a stop text is complete.
static bool take_text(struct serve_choice *c, const char *text, size_t n, bool last)
{
    uint32_t which;
    if (!gyre_stops_push(&c->stops, text, n)) return false;
    const size_t ready = gyre_stops_ready(&c->stops, last, &which);
    if (which < c->stops.n_stop) c->finish = SERVE_FINISH_STOP;
    if (!append_text(c, c->stops.held, ready)) return false;
    gyre_stops_drop(&c->stops, ready);
    return true;
}

bool serve_choice_allow(void *choice, uint32_t *allowed, uint32_t words)
{
    struct serve_choice *c = choice;
    struct serve_error error = {0};
    gyre_error err = {0};
    if (!c->matcher) return false;
    const gyre_status st = gyre_matcher_allow(c->matcher, allowed, words, &err);
    if (st == GYRE_OK) return true;
    memset(allowed, 0, words * sizeof *allowed); // the answer ends here, incomplete: it is none
    if (st == GYRE_E_NOMEM) serve_no_memory(&error);
    else serve_refuse(&error, 400, NULL, c->job->tools ? "tools" : "response_format", "%s", err.message);
    serve_job_fail(c->job, &error);
    return true;
}

static bool hear(struct serve_choice *c, const gyre_task_token *t)
{
    char piece[2048];
    const struct serve_job *job = c->job;
    if (job->scores && !keep_scores(c, t)) return false;
    if (t->end) return true;
    if (!t->prompt && t->token == job->end_token) {
        c->finish = SERVE_FINISH_STOP;
        return true;
    }
    if (c->matcher && gyre_matcher_accept(c->matcher, t->token, NULL) != GYRE_OK) return false;
    const bool marks = job->tools || job->reasons != SERVE_REASON_NONE; // control tokens that divide an answer
    const bool shown = t->prompt || (marks && gyre_token_is_mark(job->tokenizer, t->token));
    const bool hidden = t->prompt && c->n_said <= job->prompt[c->prompt].hidden;
    const size_t n = hidden ? 0 : gyre_text_push(job->tokenizer, &c->decoder, t->token, shown, piece, sizeof piece);
    c->offset += characters(piece, n);
    if (t->prompt) return true;
    const bool whole = c->matcher && gyre_matcher_must_end(c->matcher); // nothing can follow: no step more
    if (!take_text(c, piece, n, whole)) return false;
    if (whole) c->finish = SERVE_FINISH_STOP;
    return true;
}

int serve_choice_heard(void *choice, const gyre_task_token *t)
{
    struct serve_choice *c = choice;
    struct serve_job *job = c->job;
    pthread_mutex_lock(&job->lock);
    c->generated += !t->prompt;
    if (c->task && c->index % job->n == 0) // before its end, which a reader may see at once
        job->prompt[c->prompt].cached = (uint32_t)gyre_task_cached(c->task);
    const bool heard = hear(c, t);
    if (!heard && !job->error.status) serve_no_memory(&job->error);
    pthread_cond_broadcast(&job->changed);
    const bool enough = job->error.status || c->finish != SERVE_GOES_ON;
    pthread_mutex_unlock(&job->lock);
    return enough || atomic_load(&job->cancelled);
}

void serve_choice_embedded(struct serve_choice *c, const float *embedding)
{
    struct serve_job *job = c->job;
    const size_t bytes = job->width * sizeof *embedding;
    if (!embedding) return;
    pthread_mutex_lock(&job->lock);
    c->embedding = malloc(bytes);
    if (c->embedding) memcpy(c->embedding, embedding, bytes);
    else if (!job->error.status) serve_no_memory(&job->error);
    pthread_mutex_unlock(&job->lock);
}

void serve_choice_ended(struct serve_choice *c, gyre_stop why)
{
    char piece[64];
    struct serve_job *job = c->job;
    pthread_mutex_lock(&job->lock);
    if (c->finish == SERVE_GOES_ON) { // what a stop text might have begun in, and a character cut short
        const size_t n = gyre_text_flush(&c->decoder, piece, sizeof piece);
        if (!take_text(c, piece, n, true) && !job->error.status) serve_no_memory(&job->error);
    }
    if (c->finish == SERVE_GOES_ON && why == GYRE_STOP_BOUND && !job->error.status)
        serve_refuse(&job->error, 500, NULL, NULL, "the answer is incomplete: no token may follow");
    if (c->finish == SERVE_GOES_ON)
        c->finish = why == GYRE_STOP_END || why == GYRE_STOP_TOKEN ? SERVE_FINISH_STOP : SERVE_FINISH_LENGTH;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}
