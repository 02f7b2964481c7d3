// See stream.h.
#include "cli/serve/stream.h"
#include "cli/serve/answer.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PING_S = 4 };

struct serve_stream {
    struct serve *serve;
    struct serve_job *job;
    struct serve_text text; // formatted, not sent yet from `sent` on
    size_t sent;
    bool ended;
};

struct serve_stream *serve_stream_new(struct serve *serve, struct serve_job *job)
{
    struct serve_stream *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->serve = serve;
    s->job = serve_job_hold(job);
    return s;
}

void serve_stream_free(void *stream)
{
    struct serve_stream *s = stream;
    if (!s) return;
    serve_job_release(s->job);
    free(s->text.text);
    free(s);
}

// Waits for something to send. False: there will be nothing.
static bool refill(struct serve_stream *s)
{
    struct serve_job *job = s->job;
    struct timespec until;
    bool whole = true;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PING_S;
    s->text.n = s->sent = 0;
    pthread_mutex_lock(&job->lock);
    while (whole && s->text.n == 0 && (job->error.status || !atomic_load(&job->cancelled))) {
        if (job->error.status) {
            whole = serve_event(&s->text, serve_error_json(&job->error)) &&
                    serve_text_add(&s->text, "data: [DONE]\n\n", 14);
            s->ended = true;
        } else {
            s->ended = serve_job_done(job);
            whole = serve_answer_events(s->serve, job, &s->text);
        }
        if (s->text.n == 0 && pthread_cond_timedwait(&job->changed, &job->lock, &until) == ETIMEDOUT)
            whole = whole && serve_text_add(&s->text, ": ping\n\n", 8);
    }
    pthread_mutex_unlock(&job->lock);
    return whole && s->text.n > 0;
}

ssize_t serve_stream_read(void *stream, uint64_t at, char *out, size_t most)
{
    struct serve_stream *s = stream;
    (void)at;
    if (s->sent == s->text.n) {
        if (s->ended) return MHD_CONTENT_READER_END_OF_STREAM;
        if (!refill(s)) return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    const size_t left = s->text.n - s->sent, n = left < most ? left : most;
    memcpy(out, s->text.text + s->sent, n);
    s->sent += n;
    return (ssize_t)n;
}
