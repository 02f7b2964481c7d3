// The loop that continues a text: sample, stop, stream. See gyre.h.
#include "runtime/sample.h"
#include "runtime/session.h"

#include "runtime/util/base.h"
#include "runtime/util/stops.h"

#include <gyre/gyre_grammar.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

// What the host works on where it chooses.
struct room {
    float *logits;  // [vocab]; NULL: the device chooses
    uint32_t *seen; // [vocab / 32 + 1], zero
};

struct generation {
    gyre_session *session;
    gyre_generate_params *params; // gyre_generate's own
    int (*on_text)(void *user, const char *text, size_t bytes);
    void *user;
    gyre_generate_result *result;
    gyre_text_stream stream;
    struct room room; // where the host chooses
    struct gyre_stops stops;
    uint32_t limit;
};

size_t gyre_context_shift(size_t n, size_t keep, size_t context)
{
    if (n < context || keep >= context || context - keep < GYRE_MAX(context / 4, 2)) return 0;
    const size_t block = (context - keep) / 2;
    return (size_t)gyre_div_up(n - context + 1, block) * block;
}

// ---- text -------------------------------------------------------------------------------------------------

// Gives the first n bytes of what is held to the caller, a NUL behind them, and keeps the rest.
static gyre_status emit(struct generation *g, size_t n, gyre_error *err)
{
    if (n == 0) return GYRE_OK;
    char *const held = g->stops.held;
    const char after = held[n];
    held[n] = 0;
    const int stop = g->on_text ? g->on_text(g->user, held, n) : 0;
    held[n] = after;
    gyre_stops_drop(&g->stops, n);
    return stop ? gyre_fail(err, GYRE_E_CANCELLED, "cancelled after %zu tokens", g->result->n_tokens) : GYRE_OK;
}

// Takes up new text and passes on what no stop text can claim. *stopped: a stop text is complete.
static gyre_status take_text(struct generation *g, const char *text, size_t n, bool last, bool *stopped,
                             gyre_error *err)
{
    uint32_t which = 0;
    if (!gyre_stops_push(&g->stops, text, n)) return gyre_fail(err, GYRE_E_NOMEM, "cannot generate: out of memory");
    const size_t ready = gyre_stops_ready(&g->stops, last, &which);
    *stopped = which < g->stops.n_stop;
    if (*stopped) {
        g->result->why = GYRE_STOP_TEXT;
        g->result->stop_index = which;
    }
    return emit(g, ready, err);
}

// ---- tokens -----------------------------------------------------------------------------------------------

// Drops what the grammar does not allow.
static gyre_status obey(struct gyre_matcher *matcher, float *logits, uint32_t vocab, gyre_error *err)
{
    const uint32_t words = (vocab + 31) / 32;
    uint32_t *allowed = malloc(words * sizeof *allowed);
    if (!allowed) return gyre_fail(err, GYRE_E_NOMEM, "cannot choose a token: out of memory");
    const gyre_status st = gyre_matcher_allow(matcher, allowed, words, err);
    for (uint32_t i = 0; i < vocab && st == GYRE_OK; i++)
        if (!(allowed[i / 32] >> i % 32 & 1)) logits[i] = -INFINITY;
    free(allowed);
    return st;
}

static gyre_status room_make(const gyre_session *s, struct room *out, gyre_error *err)
{
    const uint32_t vocab = s->engine->model.hp.vocab;
    *out = (struct room){malloc(vocab * sizeof *out->logits), calloc(vocab / 32 + 1, sizeof *out->seen)};
    return out->logits && out->seen ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot choose a token: out of memory");
}

static void room_free(struct room *room)
{
    free(room->logits);
    free(room->seen);
}

// The host's choice from the logits behind what the session holds.
static gyre_status choose_from(const gyre_session *s, const gyre_generate_params *p, const struct room *room,
                               uint32_t *token, gyre_error *err)
{
    const uint32_t vocab = s->engine->model.hp.vocab;
    GYRE_TRY(gyre_session_logits(s, room->logits, err));
    if (p->matcher) GYRE_TRY(obey(p->matcher, room->logits, vocab, err));
    *token = gyre_sample(p, room->logits, room->seen, vocab, s->tokens, s->length);
    return GYRE_OK;
}

// The token that follows: the device's choice, or the host's.
static gyre_status choose(struct generation *g, uint32_t *token, gyre_error *err)
{
    if (!g->room.logits) return GYRE_OK;
    GYRE_TRY(choose_from(g->session, g->params, &g->room, token, err));
    return g->params->matcher ? gyre_matcher_accept(g->params->matcher, *token, err) : GYRE_OK;
}

gyre_status gyre_session_choose(const gyre_session *s, const gyre_generate_params *given, uint32_t *token,
                                gyre_error *err)
{
    gyre_generate_params p;
    GYRE_TRY(gyre_params_take(given, &p, sizeof p, sizeof p, "gyre_generate_params", err));
    struct room room;
    gyre_status st = room_make(s, &room, err);
    if (st == GYRE_OK) st = choose_from(s, &p, &room, token, err);
    room_free(&room);
    return st;
}

// Does this token end the text?
static bool ends(struct generation *g, uint32_t token)
{
    for (uint32_t i = 0; i < g->params->n_stop_tokens; i++) {
        if (g->params->stop_tokens[i] != token) continue;
        g->result->why = GYRE_STOP_TOKEN;
        g->result->stop_index = i;
        return true;
    }
    if (g->params->ignore_end || !gyre_token_is_end(g->session->engine->tokenizer, token)) return false;
    g->result->why = GYRE_STOP_END;
    return true;
}

static gyre_status show(struct generation *g, uint32_t token, bool *stopped, gyre_error *err)
{
    char piece[2048];
    if (g->params->tokens && g->result->n_tokens < g->limit) g->params->tokens[g->result->n_tokens] = token;
    g->result->n_tokens++;
    const size_t n =
        gyre_text_push(g->session->engine->tokenizer, &g->stream, token, g->params->special, piece, sizeof piece);
    return take_text(g, piece, n, false, stopped, err);
}

// The context is full: what stays of the text is computed again, the new token behind it.
static gyre_status shift(struct generation *g, size_t leave, uint32_t *token, gyre_error *err)
{
    gyre_session *s = g->session;
    const size_t keep = g->params->keep, n = s->length - leave;
    uint32_t *rest = malloc((n + 1) * sizeof *rest);
    if (!rest) return gyre_fail(err, GYRE_E_NOMEM, "cannot generate: out of memory");
    memcpy(rest, s->tokens, keep * sizeof *rest);
    memcpy(rest + keep, s->tokens + keep + leave, (n - keep) * sizeof *rest);
    rest[n] = *token;
    gyre_sampling sampling = s->sampling;
    sampling.seed = g->params->sampling.seed += GYRE_SHIFTED_SEED; // places come again, their draws do not
    const gyre_status st = gyre_session_run(s, rest, n + 1, &sampling, token, err);
    free(rest);
    return st;
}

// How many tokens behind the next one the device may go on to by itself. No more than were generated: so the first ones
// come one by one, and a short text wastes few steps.
static uint32_t more(const struct generation *g)
{
    const size_t left = g->limit - g->result->n_tokens; // at least 1
    return g->room.logits ? 0 : (uint32_t)GYRE_MIN(left - 1, g->result->n_tokens);
}

static gyre_status loop(struct generation *g, uint32_t token, gyre_error *err)
{
    gyre_session *s = g->session;
    for (bool stopped = false;;) {
        GYRE_TRY(choose(g, &token, err));
        const bool end = ends(g, token);
        s->pending = token; // said, and not run: here the text goes on, also where on_text ends it now
        s->has_pending = !end;
        if (!end || (g->params->special && g->result->why == GYRE_STOP_END)) GYRE_TRY(show(g, token, &stopped, err));
        s->has_pending = !end && !stopped;
        if (end || stopped) return GYRE_OK;
        const bool full = s->length >= s->engine->context, enough = g->result->n_tokens >= g->limit;
        g->result->why = full && !enough ? GYRE_STOP_CONTEXT : GYRE_STOP_LENGTH;
        const size_t leave =
            full && g->params->shift ? gyre_context_shift(s->length, g->params->keep, s->engine->context) : 0;
        if (enough || (full && !leave)) return GYRE_OK;
        GYRE_TRY(gyre_session_asked(s, err));
        GYRE_TRY(leave ? shift(g, leave, &token, err) : gyre_session_append(s, token, more(g), &token, err));
    }
}

// ---- the prompt -------------------------------------------------------------------------------------------

// Brings the session to the end of the prompt; *token is what the device chose to follow.
static gyre_status begin(struct generation *g, const gyre_sampling *sampling, uint32_t *token, gyre_error *err)
{
    const gyre_generate_params *p = g->params;
    gyre_session *s = g->session;
    uint32_t *made = NULL;
    const uint32_t *prompt = p->prompt;
    size_t n = p->n_prompt;
    gyre_status st = GYRE_OK;
    if (p->text) {
        GYRE_TRY(gyre_tokenize(s->engine->tokenizer, p->text, strlen(p->text), GYRE_TEXT_SPECIAL | GYRE_TEXT_AROUND,
                               &made, &n, err));
        prompt = made;
    } else if (n == 0 && s->length) { // go on: what the session holds, and what it said last
        n = s->length + s->has_pending;
        if (n > s->engine->context) n--; // there is no room to go on in; the check below says so
        made = malloc(n * sizeof *made);
        if (!made) return gyre_fail(err, GYRE_E_NOMEM, "cannot generate: out of memory");
        memcpy(made, s->tokens, s->length * sizeof *made);
        if (n > s->length) made[n - 1] = s->pending;
        prompt = made;
    }
    if (n == 0)
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID,
                          "cannot continue an empty prompt: there is nothing to start from; give some text"));
    const uint64_t before = s->timings.prefill_tokens;
    g->result->prompt_tokens = n;
    GYRE_GO(gyre_session_run(s, prompt, n, sampling, token, err));
    g->result->reused_tokens = n - (size_t)(s->timings.prefill_tokens - before);
done:
    gyre_free(made);
    return st;
}

static gyre_status check(const gyre_generate_params *p, gyre_error *err)
{
    if (p->tokens && !p->max_tokens)
        return gyre_fail(err, GYRE_E_INVALID, "cannot generate: tokens are wanted without a max_tokens");
    for (uint32_t i = 0; i < p->n_stop; i++)
        if (!p->stop[i] || !*p->stop[i])
            return gyre_fail(err, GYRE_E_INVALID, "cannot generate: stop text %u is empty", i);
    return GYRE_OK;
}

gyre_status gyre_generate(gyre_session *session, const gyre_generate_params *given,
                          int (*on_text)(void *user, const char *text, size_t bytes), void *user,
                          gyre_generate_result *out, gyre_error *err)
{
    gyre_generate_params p;
    gyre_generate_result unwanted;
    struct generation g = {
        .session = session, .params = &p, .on_text = on_text, .user = user, .result = out ? out : &unwanted};
    *g.result = (gyre_generate_result){0};
    GYRE_TRY(gyre_params_take(given, &p, sizeof p, sizeof p, "gyre_generate_params", err));
    GYRE_TRY(check(&p, err));
    g.stops.stop = p.stop;
    g.stops.n_stop = p.n_stop;
    atomic_store(&session->cancel, false);
    gyre_sampling sampling = p.sampling;
    gyre_status st = GYRE_OK;
    uint32_t token = 0;
    if (gyre_sample_needs_host(&p)) {
        sampling = (gyre_sampling){0}; // the device's own choice is not looked at: the cheapest one
        GYRE_GO(room_make(session, &g.room, err));
    }
    g.limit = p.max_tokens ? p.max_tokens : session->engine->context;
    GYRE_GO(begin(&g, &sampling, &token, err));
    GYRE_GO(loop(&g, token, err));
    if (g.result->why != GYRE_STOP_TEXT) { // what a stop text might have begun in, and a character cut short
        char piece[64];
        bool stopped;
        const gyre_stop why = g.result->why;
        GYRE_GO(take_text(&g, piece, gyre_text_flush(&g.stream, piece, sizeof piece), true, &stopped, err));
        if (!stopped) g.result->why = why;
    }
done:
    free(g.stops.held);
    room_free(&g.room);
    return st;
}
