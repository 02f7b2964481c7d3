// See queue.h.
#include "cli/serve/queue.h"
#include "runtime/util/clock.h"
#include "runtime/util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REOPEN_AFTER = 2 }; // failed steps in a row

struct serve_queue {
    struct serve_queue_params params;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct serve_job *first; // in the order they came, until they are done
    bool closing, abandon;   // takes no more; fails what is left
    struct serve_counts count;
    double request_s; // a request's time, smoothed
    char odd[480];    // what the last request without numbers was told

    gyre_engine *engine; // the engine's thread alone, down from here; NULL: lost, to be opened anew
    gyre_scheduler *scheduler;
    gyre_engine_info info;
    uint32_t failed_steps;
};

static int on_warm(void *user, double fraction)
{
    const serve_queue *q = user;
    (void)fraction;
    return q->params.interrupted && q->params.interrupted();
}

static gyre_status open_engine(serve_queue *q, gyre_error *err)
{
    const gyre_scheduler_params params = {.size = sizeof params, .progress = on_warm, .user = q};
    GYRE_TRY(q->params.open(q->params.user, &q->engine, err));
    GYRE_TRY(gyre_scheduler_create(q->engine, &params, &q->scheduler, err));
    return gyre_scheduler_warm(q->scheduler, err);
}

static void close_engine(serve_queue *q)
{
    gyre_scheduler_destroy(q->scheduler);
    gyre_engine_close(q->engine, NULL);
    q->scheduler = NULL;
    q->engine = NULL;
}

// ---- jobs, under the lock ------------------------------------------------------------------------------------------

static void settle(serve_queue *q, struct serve_choice *c)
{
    struct serve_job *job = c->job;
    const uint32_t cached = (uint32_t)gyre_task_cached(c->task);
    q->count.generated_tokens += gyre_task_generated(c->task);
    if (c->index % job->n == 0) { // a prompt counts once for its choices
        q->count.prompt_tokens += job->prompt[c->prompt].n;
        q->count.cached_tokens += cached;
        pthread_mutex_lock(&job->lock);
        job->prompt[c->prompt].cached = cached;
        pthread_mutex_unlock(&job->lock);
    }
    gyre_scheduler_remove(q->scheduler, c->task);
    c->task = NULL;
    q->count.running--;
    job->n_open--;
}

// Takes a job out of the queue: its tasks, and what had not started.
static void drop(serve_queue *q, struct serve_job **at)
{
    struct serve_job *job = *at;
    for (uint32_t i = 0; i < job->n_started; i++)
        if (job->choice[i].task) settle(q, &job->choice[i]);
    q->count.waiting -= job->n_choices - job->n_started;
    q->count.failed += job->error.status != 0;
    *at = job->next;
    const double took = (double)(gyre_clock_ns() - job->arrived_ns) * 1e-9;
    q->request_s = q->request_s > 0 ? 0.9 * q->request_s + 0.1 * took : took;
    serve_job_release(job);
}

static void fail_all(serve_queue *q, const struct serve_error *error)
{
    while (q->first) {
        serve_job_fail(q->first, error);
        drop(q, &q->first);
    }
}

static void fault(serve_queue *q, const gyre_error *err)
{
    struct serve_error error = {0};
    serve_refuse(&error, 503, NULL, NULL, "the model could not go on: %s", err->message);
    gyre_logf(&q->params.log, GYRE_LOG_ERROR, "serve: %s", err->message);
    pthread_mutex_lock(&q->lock);
    fail_all(q, &error);
    q->count.faults++;
    q->count.healthy = false;
    snprintf(q->count.fault, sizeof q->count.fault, "%s", err->message);
    pthread_mutex_unlock(&q->lock);
}

static void start_choice(serve_queue *q, struct serve_choice *c)
{
    struct serve_job *job = c->job;
    gyre_error err = {0};
    gyre_task_params p = job->params;
    p.prompt = job->prompt[c->prompt].tokens;
    p.n_prompt = job->prompt[c->prompt].n;
    p.keep = job->prompt[c->prompt].keep;
    p.stream = c->index;
    p.on_token = serve_choice_heard;
    p.allow = job->grammar ? serve_choice_allow : NULL;
    p.user = c;
    if (job->n_started++ == 0) {
        job->started_ns = gyre_clock_ns();
        q->count.started++;
        q->count.queue_s += (double)(job->started_ns - job->arrived_ns) * 1e-9;
    }
    q->count.waiting--;
    gyre_status st = job->grammar ? gyre_matcher_create(job->grammar, &c->matcher, &err) : GYRE_OK;
    if (st == GYRE_OK) st = gyre_scheduler_add(q->scheduler, &p, &c->task, &err);
    if (st == GYRE_OK) {
        q->count.running++;
        return;
    }
    struct serve_error error = {0};
    serve_refuse(&error, err.code == GYRE_E_NOMEM ? 503 : 400, NULL, NULL, "%s", err.message);
    serve_job_fail(job, &error);
}

// Its time is over: what it has said by then is its answer; where something is missing there is none, and it fails.
static void end_late(serve_queue *q, struct serve_job *job)
{
    bool began = job->n_started == job->n_choices && !job->embeds;
    for (uint32_t i = 0; i < job->n_started; i++) began &= !job->choice[i].task || job->choice[i].generated > 0;
    q->count.late++;
    if (!began) {
        struct serve_error error = {0};
        serve_refuse(&error, 503, "timeout", NULL, "the request's time of %g seconds is over; try again later",
                     job->timeout_s);
        serve_job_fail(job, &error);
        return;
    }
    for (uint32_t i = 0; i < job->n_choices; i++) {
        if (!job->choice[i].task) continue;
        settle(q, &job->choice[i]);
        serve_choice_ended(&job->choice[i], GYRE_STOP_LENGTH);
    }
}

// A choice whose numbers are not finite fails its request; the model goes on for the others. What is said and counted
// is the request, whatever others of its choices fail in the same step.
static void fail_choice(serve_queue *q, struct serve_choice *c)
{
    const gyre_error *const err = gyre_task_error(c->task);
    struct serve_error error = {0};
    if (c->job->error.status) return;
    gyre_logf(&q->params.log, GYRE_LOG_ERROR, "serve: %s", err->message);
    q->count.no_numbers += q->count.no_numbers < UINT32_MAX && !atomic_load(&c->job->cancelled);
    snprintf(q->odd, sizeof q->odd, "%s", err->message);
    serve_refuse(&error, 500, NULL, NULL, "%s", err->message);
    serve_job_fail(c->job, &error);
}

// Ends what ended, frees what nobody waits for, starts what there is room for. The first jobs go first.
static void arrange(serve_queue *q)
{
    for (struct serve_job **at = &q->first; *at;) {
        struct serve_job *job = *at;
        for (uint32_t i = 0; i < job->n_started; i++) {
            gyre_stop why;
            struct serve_choice *c = &job->choice[i];
            if (!c->task || !gyre_task_ended(c->task, &why)) continue;
            if (why == GYRE_STOP_FAILED) {
                fail_choice(q, c);
                continue;
            }
            // It was stopped by no word of its own: nobody listens, or it failed. Its job goes and is counted below.
            if (why == GYRE_STOP_TOKEN && c->finish == SERVE_GOES_ON) continue;
            serve_choice_embedded(c, gyre_task_embedding(c->task));
            settle(q, c);
            serve_choice_ended(c, why);
        }
        const bool late = !job->error.status && job->n_open && job->deadline_ns && gyre_clock_ns() > job->deadline_ns;
        if (late) end_late(q, job);
        const bool failed = job->error.status != 0; // this thread alone sets it
        const bool left = !failed && job->n_open > 0 && atomic_load(&job->cancelled);
        q->count.cancelled += left;
        if (!left && !failed && job->n_open == 0) q->count.no_numbers = 0;
        if (left || failed || job->n_open == 0) drop(q, at);
        else at = &job->next;
    }
    for (struct serve_job *job = q->first; job; job = job->next)
        while (!job->error.status && job->n_started < job->n_choices && gyre_scheduler_room(q->scheduler))
            start_choice(q, &job->choice[job->n_started]);
}

// ---- the engine's thread -------------------------------------------------------------------------------------------

// Opens a lost engine where somebody waits for it. False: it cannot be had; those who waited know.
static bool have_engine(serve_queue *q)
{
    gyre_error err = {0};
    if (q->engine) return true;
    if (open_engine(q, &err) == GYRE_OK) {
        pthread_mutex_lock(&q->lock);
        q->count.reopened++;
        pthread_mutex_unlock(&q->lock);
        return true;
    }
    close_engine(q);
    fault(q, &err);
    return false;
}

static void *work(void *user)
{
    serve_queue *q = user;
    const struct serve_error ending = {.status = 503, .message = "the server is shutting down"};
    for (;;) {
        gyre_error err = {0};
        pthread_mutex_lock(&q->lock);
        while (!q->first && !q->closing) pthread_cond_wait(&q->wake, &q->lock);
        if (q->abandon) fail_all(q, &ending);
        const bool done = !q->first;
        if (!done && q->engine) arrange(q);
        const bool idle = q->engine && q->count.running == 0;
        if (q->engine) q->count.scheduler = gyre_scheduler_count(q->scheduler);
        pthread_mutex_unlock(&q->lock);
        if (done) return NULL; // closing
        if (idle || !have_engine(q)) continue;
        if (gyre_scheduler_step(q->scheduler, &err) == GYRE_OK) {
            q->failed_steps = 0;
            if (q->count.healthy) continue;
            pthread_mutex_lock(&q->lock);
            q->count.healthy = true;
            pthread_mutex_unlock(&q->lock);
            continue;
        }
        fault(q, &err);
        if (++q->failed_steps >= REOPEN_AFTER) {
            close_engine(q);
            q->failed_steps = 0;
        }
    }
}

// ---- other threads -------------------------------------------------------------------------------------------------

gyre_status serve_queue_start(const struct serve_queue_params *params, serve_queue **out, gyre_error *err)
{
    serve_queue *q = calloc(1, sizeof *q);
    *out = NULL;
    if (!q) return gyre_fail(err, GYRE_E_NOMEM, "cannot serve: out of memory");
    q->params = *params;
    q->count.healthy = true;
    gyre_status st = open_engine(q, err);
    if (st == GYRE_OK) {
        gyre_engine_describe(q->engine, &q->info);
        q->count.scheduler = gyre_scheduler_count(q->scheduler);
        pthread_mutex_init(&q->lock, NULL);
        pthread_cond_init(&q->wake, NULL);
        if (pthread_create(&q->thread, NULL, work, q) != 0)
            st = gyre_fail(err, GYRE_E_NOMEM, "cannot serve: the engine's thread does not start");
    }
    if (st != GYRE_OK) {
        close_engine(q);
        free(q);
        return st;
    }
    *out = q;
    return GYRE_OK;
}

bool serve_queue_add(serve_queue *q, struct serve_job *job, struct serve_error *error, unsigned *retry_s)
{
    uint32_t waiting = 0;
    bool taken = false;
    pthread_mutex_lock(&q->lock);
    struct serve_job **last = &q->first;
    for (; *last; last = &(*last)->next) waiting += (*last)->n_started == 0;
    const uint32_t busy = q->count.running < q->params.slots ? q->count.running : q->params.slots;
    if (q->closing) {
        serve_refuse(error, 503, NULL, NULL, "the server is shutting down");
    } else if (waiting >= q->params.most_waiting + (q->params.slots - busy)) { // free slots take from those that wait
        serve_refuse(error, 503, NULL, NULL, "the server is full: %u requests wait already; try again later", waiting);
        q->count.refused++;
    } else {
        job->arrived_ns = gyre_clock_ns();
        if (job->timeout_s > 0) job->deadline_ns = job->arrived_ns + (uint64_t)(job->timeout_s * 1e9);
        *last = serve_job_hold(job);
        q->count.waiting += job->n_choices;
        q->count.requests++;
        taken = true;
        pthread_cond_signal(&q->wake);
    }
    const double wait = q->request_s * (waiting + 1) / q->params.slots;
    *retry_s = wait > 59 ? 60 : 1 + (unsigned)wait;
    pthread_mutex_unlock(&q->lock);
    return taken;
}

void serve_queue_wake(serve_queue *q)
{
    pthread_mutex_lock(&q->lock);
    pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->lock);
}

void serve_queue_stop(serve_queue *q, unsigned grace_s)
{
    if (!q) return;
    pthread_mutex_lock(&q->lock);
    q->closing = true;
    pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->lock);
    for (unsigned i = 0; i < 20 * grace_s; i++) {
        pthread_mutex_lock(&q->lock);
        const bool done = !q->first;
        pthread_mutex_unlock(&q->lock);
        if (done) break;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    pthread_mutex_lock(&q->lock);
    q->abandon = true;
    pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    close_engine(q);
}

void serve_queue_destroy(serve_queue *q)
{
    if (!q) return;
    pthread_cond_destroy(&q->wake);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void serve_queue_count(serve_queue *q, struct serve_counts *out)
{
    pthread_mutex_lock(&q->lock);
    *out = q->count;
    if (out->healthy && out->no_numbers >= SERVE_MOST_WITHOUT_NUMBERS) {
        out->healthy = false;
        snprintf(out->fault, sizeof out->fault, "the last %u requests had no numbers: %s", out->no_numbers, q->odd);
    }
    pthread_mutex_unlock(&q->lock);
}

const gyre_engine_info *serve_queue_engine(const serve_queue *q) { return &q->info; }
