// One timeline of tokens: what its KV cache holds, and the verbs on it.
#include "runtime/session.h"

#include "runtime/sample.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

gyre_status gyre_session_create(gyre_engine *engine, gyre_session **out, gyre_error *err)
{
    *out = NULL;
    if (!engine) return gyre_fail(err, GYRE_E_INVALID, "cannot start a session: there is no engine");
    gyre_session *s = calloc(1, sizeof *s);
    if (!s) return gyre_fail(err, GYRE_E_NOMEM, "cannot start a session: out of memory");
    s->tokens = malloc(engine->context * sizeof *s->tokens);
    s->rows = malloc(engine->context * sizeof *s->rows);
    gyre_status st =
        s->tokens && s->rows ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot start a session: out of memory");
    if (st == GYRE_OK) st = gyre_sequence_take(engine, &s->length, &s->slot, err);
    if (st != GYRE_OK) {
        free(s->tokens);
        free(s->rows);
        free(s);
        return st;
    }
    s->engine = engine;
    *out = s;
    return GYRE_OK;
}

void gyre_session_destroy(gyre_session *s)
{
    if (!s) return;
    gyre_sequence_release(s->engine, s->slot);
    free(s->tokens);
    free(s->rows);
    free(s);
}

const uint32_t *gyre_session_tokens(const gyre_session *s) { return s->tokens; }
void gyre_session_cancel(gyre_session *s) { atomic_store(&s->cancel, true); }
size_t gyre_session_length(const gyre_session *s) { return s->length; }
gyre_timings gyre_session_timings(const gyre_session *s) { return s->timings; }

static gyre_status too_long(const gyre_session *s, size_t length, gyre_error *err)
{
    return gyre_fail(
        err, GYRE_E_INVALID,
        "cannot extend a session: %zu tokens do not fit the context of %u; shorten the text or open the model "
        "with a longer context",
        length, s->engine->context);
}

// Checks n > 0 tokens and writes them behind what the session holds, as rows: the last one, which wants a sample, to
// `last`, the others to `out`. The step runs `times` times. The session's length stays: only run() and append() below
// move it.
static gyre_status stage(gyre_session *s, const uint32_t *tokens, size_t n, uint32_t times, uint32_t *next,
                         struct gyre_step_row *out, struct gyre_step_row *last, gyre_error *err)
{
    gyre_engine *e = s->engine;
    if (n > e->context - s->length) return too_long(s, s->length + n, err);
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] >= e->model.hp.vocab)
            return gyre_fail(err, GYRE_E_INVALID, "cannot extend a session: token %u is outside the vocabulary of %u",
                             tokens[i], e->model.hp.vocab);
    }
    GYRE_TRY(gyre_kv_reserve(&e->kv, s->slot, s->length + (uint32_t)n + times - 1, err));
    for (size_t i = 0; i < n; i++) {
        const uint32_t at = s->length + (uint32_t)i;
        s->tokens[at] = tokens[i];
        const bool ends = i + 1 == n;
        *(ends ? last : out + i) =
            (struct gyre_step_row){tokens[i], s->slot, at, ends ? next : NULL, &s->sampling, NULL, NULL, NULL, times};
    }
    return GYRE_OK;
}

gyre_status gyre_session_asked(const gyre_session *s, gyre_error *err)
{
    if (!atomic_load(&s->cancel)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_CANCELLED, "cancelled: session %u was asked to stop", s->slot);
}

struct asked_parts {
    const gyre_step_part *part;
    size_t n;
};

static gyre_status parts_asked(const void *user, gyre_error *err)
{
    const struct asked_parts *all = user;
    for (size_t i = 0; i < all->n; i++) GYRE_TRY(gyre_session_asked(all->part[i].session, err));
    return GYRE_OK;
}

// Where sessions grow: all parts, and only when the whole step has succeeded. After a failure every
// session is as long as before, its pages too, or, where a long step took the windows of that place, as it can be; what
// the step may have written beyond is not relied on. `rows` has room for all; the parts' last tokens come behind all
// others, so that one chunk has them and the logits of every part are there afterwards. `ahead`: the only part, of one
// token, runs ahead->n times and fills ahead->told; NULL: once.
static gyre_status run(gyre_engine *e, gyre_step_part *parts, size_t n_parts, struct gyre_step_row *rows,
                       struct gyre_ahead *ahead, uint64_t *waited, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    size_t n = 0, staged = 0, at = 0;
    for (size_t i = 0; i < n_parts; n += parts[i++].n) {
        if (parts[i].n == 0) return gyre_fail(err, GYRE_E_INVALID, "cannot extend a session: there are no tokens");
    }
    struct gyre_step_row *const last = rows + (n - n_parts);
    for (; staged < n_parts; at += parts[staged++].n - 1) {
        gyre_step_part *p = &parts[staged];
        if (p->sampling) p->session->sampling = *p->sampling;
        gyre_session_forget_ahead(p->session);
        st = stage(p->session, p->tokens, p->n, ahead ? ahead->n : 1, ahead ? ahead->told : &p->next, rows + at,
                   last + staged, err);
        if (st != GYRE_OK) break;
    }
    const struct asked_parts all = {parts, n_parts};
    const struct gyre_step_watch watch = {.asked = parts_asked, .user = &all};
    if (st == GYRE_OK) st = gyre_engine_step(e, rows, n, &watch, waited, err);
    for (size_t i = 0; i < staged; i++) {
        gyre_session *s = parts[i].session;
        s->has_pending = s->has_pending && st != GYRE_OK;
        if (st == GYRE_OK) s->length += parts[i].n;
        else s->length = gyre_kv_trim(&e->kv, s->slot, s->length);
    }
    return st;
}

gyre_status gyre_session_run(gyre_session *s, const uint32_t *tokens, size_t n, const gyre_sampling *sampling,
                             uint32_t *next, gyre_error *err)
{
    const uint64_t start = gyre_clock_ns();
    if (n == 0)
        return gyre_fail(err, GYRE_E_INVALID, "cannot extend a session: the prompt is empty; give at least one token");
    if (n > s->engine->context) return too_long(s, n, err);
    s->sampling = sampling ? *sampling : (gyre_sampling){0};
    uint32_t common = 0;
    while (common < s->length && common + 1 < n && s->tokens[common] == tokens[common]) common++;
    gyre_session_forget_ahead(s);
    s->length = common = gyre_kv_trim(&s->engine->kv, s->slot, common);
    s->has_pending = false;
    gyre_engine_forget_logits(s->engine, s->slot);
    gyre_step_part part = {s, tokens + common, (uint32_t)n - common, 0, NULL};
    GYRE_TRY(run(s->engine, &part, 1, s->rows, NULL, NULL, err));
    if (next) *next = part.next;
    s->timings.prefill_tokens += part.n;
    s->timings.prefill_ns += gyre_clock_ns() - start;
    return GYRE_OK;
}

void gyre_session_forget_ahead(gyre_session *s)
{
    if (s->ahead.at < s->ahead.n) s->length = gyre_kv_trim(&s->engine->kv, s->slot, s->length);
    s->ahead.n = s->ahead.at = 0;
}

// A token that the cache has already, as the device chose it and went on.
static gyre_status follow(gyre_session *s, uint32_t token, gyre_error *err)
{
    GYRE_TRY(gyre_session_asked(s, err));
    s->tokens[s->length++] = token;
    s->has_pending = false;
    s->ahead.at++;
    return GYRE_OK;
}

// A step of a token, and of those behind it that one submission holds.
static gyre_status lead(gyre_session *s, uint32_t token, uint32_t more, uint64_t *waited, gyre_error *err)
{
    gyre_engine *e = s->engine;
    gyre_step_part part = {s, &token, 1, 0, NULL};
    struct gyre_ahead ahead = {.n = 1};
    const uint32_t room = e->context - s->length, wanted = more < room ? more + 1 : room;
    if (room) GYRE_TRY(gyre_engine_at_once(e, &s->sampling, wanted, &ahead.n, err));
    GYRE_TRY(run(e, &part, 1, s->rows, &ahead, waited, err));
    if (ahead.n > 1) gyre_kv_stay(&e->kv, s->slot, s->length - 1);
    ahead.at = 1;
    s->ahead = ahead;
    return GYRE_OK;
}

gyre_status gyre_session_append(gyre_session *s, uint32_t token, uint32_t more, uint32_t *next, gyre_error *err)
{
    const uint64_t start = gyre_clock_ns();
    uint64_t waited = 0;
    const struct gyre_ahead *a = &s->ahead;
    const bool known = a->at < a->n && a->told[a->at - 1] == token && a->told[a->at] != UINT32_MAX;
    GYRE_TRY(known ? follow(s, token, err) : lead(s, token, more, &waited, err));
    if (next) *next = a->told[a->at - 1];
    const uint64_t total = gyre_clock_ns() - start;
    s->timings.decode_tokens++;
    s->timings.decode_ns += total;
    s->timings.decode_host_ns += total - waited;
    return GYRE_OK;
}

gyre_status gyre_session_sync(gyre_session *s, const uint32_t *tokens, size_t n, const gyre_sampling *sampling,
                              uint32_t *next, gyre_error *err)
{
    atomic_store(&s->cancel, false);
    return gyre_session_run(s, tokens, n, sampling, next, err);
}

gyre_status gyre_session_decode(gyre_session *s, uint32_t token, uint32_t *next, gyre_error *err)
{
    return gyre_session_decode_ahead(s, token, 0, next, err);
}

gyre_status gyre_session_decode_ahead(gyre_session *s, uint32_t token, uint32_t more, uint32_t *next, gyre_error *err)
{
    atomic_store(&s->cancel, false);
    return gyre_session_append(s, token, more, next, err);
}

gyre_status gyre_step(gyre_engine *e, gyre_step_part *parts, size_t n_parts, gyre_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < n_parts; n += parts[i++].n) {
        if (parts[i].session->engine != e)
            return gyre_fail(err, GYRE_E_INVALID, "cannot step: session %zu belongs to another engine", i);
        atomic_store(&parts[i].session->cancel, false);
        for (size_t k = 0; k < i; k++) {
            if (parts[k].session == parts[i].session)
                return gyre_fail(err, GYRE_E_INVALID,
                                 "cannot step: parts %zu and %zu are the same session; give its tokens in one part", k,
                                 i);
        }
    }
    struct gyre_step_row *rows = calloc(GYRE_MAX(n, 1), sizeof *rows);
    if (!rows) return gyre_fail(err, GYRE_E_NOMEM, "cannot step: out of memory");
    e->host_allocations++;
    const gyre_status st = run(e, parts, n_parts, rows, NULL, NULL, err);
    free(rows);
    return st;
}

gyre_status gyre_session_warm(gyre_session *s, size_t prompt_tokens, const gyre_sampling *sampling, gyre_error *err)
{
    const uint64_t start = gyre_clock_ns();
    GYRE_TRY(gyre_engine_warm(s->engine, prompt_tokens, sampling, err));
    s->timings.warmup_ns += gyre_clock_ns() - start;
    return GYRE_OK;
}

static gyre_status nobody_asks(const void *user, gyre_error *err)
{
    (void)user, (void)err;
    return GYRE_OK;
}

// The logits that the device had before it ran on: the session's last step again. What is there behind it stays.
static gyre_status step_again(const gyre_session *s, gyre_error *err)
{
    gyre_engine *e = s->engine;
    uint32_t next = 0;
    const uint32_t at = s->length - 1;
    const struct gyre_step_watch watch = {.asked = nobody_asks};
    const struct gyre_step_row row = {s->tokens[at], s->slot, at, &next, &s->sampling, NULL, NULL, NULL, 1};
    gyre_kv_want(&e->kv, s->slot, at, 1 + s->ahead.n - s->ahead.at);
    const gyre_status st = gyre_engine_step(e, &row, 1, &watch, NULL, err);
    gyre_kv_stay(&e->kv, s->slot, at);
    return st;
}

gyre_status gyre_session_logits(const gyre_session *s, float *logits, gyre_error *err)
{
    gyre_engine *e = s->engine;
    uint32_t at = 0;
    const bool there = gyre_engine_logits_at(e, s->slot, &at);
    if (s->length && (there ? at + 1 != s->length : s->ahead.n > 1)) {
        if (gyre_kv_sees(&e->kv, s->slot, s->length - 1)) GYRE_TRY(step_again(s, err));
        else gyre_engine_forget_logits(e, s->slot);
    }
    return gyre_engine_logits(e, s->slot, logits, err);
}

gyre_status gyre_session_top(const gyre_session *s, gyre_candidate *out, uint32_t n, uint32_t *found, gyre_error *err)
{
    const uint32_t vocab = s->engine->model.hp.vocab;
    float *logits = malloc(vocab * sizeof *logits);
    if (!logits) return gyre_fail(err, GYRE_E_NOMEM, "cannot read logits: out of memory");
    const gyre_status st = gyre_session_logits(s, logits, err);
    if (st == GYRE_OK) {
        const uint32_t k = gyre_sample_best(logits, vocab, n, out);
        double sum = 0;
        for (uint32_t i = 0; k && i < vocab; i++) sum += exp((double)logits[i] - (double)out[0].logit);
        for (uint32_t i = 0; i < k; i++)
            out[i].logprob = (float)((double)out[i].logit - (double)out[0].logit - log(sum));
        if (found) *found = k;
    }
    free(logits);
    return st;
}

gyre_status gyre_logits(gyre_engine *e, const uint32_t *tokens, size_t n, float *logits, gyre_error *err)
{
    gyre_session *s = NULL;
    GYRE_TRY(gyre_session_create(e, &s, err));
    gyre_status st = gyre_session_sync(s, tokens, n, NULL, NULL, err);
    if (st == GYRE_OK) st = gyre_session_logits(s, logits, err);
    gyre_session_destroy(s);
    return st;
}

// The place of the step that a profile repeats where the windows of the rows before it are gone: the last one, or, as
// the steps of other sessions may have taken what even that saw, the next one.
static gyre_status spare_place(gyre_session *s, uint32_t *at, gyre_error *err)
{
    struct gyre_kv *kv = &s->engine->kv;
    *at = s->length - 1;
    if (gyre_kv_sees(kv, s->slot, *at)) return GYRE_OK;
    if (s->length == s->engine->context) return too_long(s, (size_t)s->length + 1, err);
    *at = s->length;
    GYRE_TRY(gyre_kv_reserve(kv, s->slot, s->length + 1, err));
    gyre_kv_want(kv, s->slot, *at, 1);
    return gyre_kv_enter(kv, err);
}

gyre_status gyre_session_profile(gyre_session *s, uint32_t step_rows, gyre_profile_row *rows, size_t cap, size_t *n,
                                 gyre_error *err)
{
    gyre_engine *e = s->engine;
    gyre_graph *graph = NULL;
    gyre_status st = GYRE_OK;
    uint32_t spare = 0;
    gyre_session_forget_ahead(s);
    if (s->length == 0)
        return gyre_fail(err, GYRE_E_INVALID, "cannot profile an empty session: sync it to some tokens first");
    const uint32_t live = gyre_engine_bucket(e, step_rows);
    GYRE_GO(spare_place(s, &spare, err));
    memset(e->row_data, 0, (size_t)live * 16);
    for (uint32_t i = 0; i < live && i < s->length; i++) { // the last tokens again, as one sequence's rows
        uint32_t at = live < s->length ? s->length - live + i : i;
        if (!gyre_kv_sees(&e->kv, s->slot, at)) at = spare;
        const uint32_t token = s->tokens[GYRE_MIN(at, s->length - 1)];
        memcpy(e->row_data + 4 * (size_t)i, (int32_t[]){(int32_t)token, (int32_t)s->slot, (int32_t)at, 1}, 16);
    }
    e->resident = false;
    gyre_engine_forget_logits(e, UINT32_MAX);
    GYRE_GO(gyre_engine_write_rows(e, live, err));
    GYRE_GO(gyre_engine_step_graph(e, live, 1, 1, &graph, err));
    st = gyre_engine_profile(e, graph, rows, cap, n, err);
done:
    if (spare == s->length) s->length = gyre_kv_trim(&e->kv, s->slot, s->length);
    return st;
}
