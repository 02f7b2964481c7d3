// See voice.h.
#include "cli/chat/voice.h"

#include "cli/cli.h"
#include "cli/turns.h"

#include "runtime/util/base.h"
#include "runtime/util/text.h"

#include <stdlib.h>
#include <string.h>

// An answer on its way: its text, cut into reasoning and answer.
struct answer {
    chat_listener listener;
    void *user;
    char *text; // all of it
    size_t n, cap;
    size_t given;              // of it to the listener
    size_t thought, after;     // the reasoning ends and the answer begins here, once `thinking` is over
    bool thinking, ever, over; // in its reasoning; it has any; it has come to the answer
    bool opened;               // the template opened the reasoning
};

static const char begins[] = "<think>", ends[] = "</think>";

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "cannot answer: out of memory"); }

gyre_status chat_voice_open(struct chat_voice *v, const char *model, const char *choice, gyre_error *err)
{
    gyre_engine_info info;
    GYRE_TRY(gyre_template_open(model, choice, &v->words, err));
    GYRE_TRY(gyre_template_end(v->words, gyre_engine_tokenizer(v->engine), &v->end_token, &v->end_text, err));
    GYRE_TRY(gyre_session_create(v->engine, &v->session, err));
    gyre_engine_describe(v->engine, &info);
    v->context = info.context;
    gyre_generate_params *p = &v->sampling.params;
    for (uint32_t i = 0; i < v->sampling.stop.n; i++) v->stops[i] = v->sampling.stop.item[i];
    p->stop = v->stops;
    p->n_stop = v->sampling.stop.n;
    if (v->end_text) v->stops[p->n_stop++] = v->end_text;
    p->stop_tokens = &v->end_token;
    p->n_stop_tokens = v->end_token != UINT32_MAX;
    return GYRE_OK;
}

void chat_voice_close(struct chat_voice *v)
{
    gyre_session_destroy(v->session);
    gyre_template_close(v->words);
    free(v->end_text);
    free(v->text);
    free(v->tokens);
}

// ---- the tokens of a talk ---------------------------------------------------------------------------

// The last turn's tokens and those of what follows it, where the text goes on with a special token; *tokens stays NULL
// where it does not.
static gyre_status go_on(const struct chat_voice *v, const gyre_rendering *r, uint32_t **tokens, size_t *n,
                         gyre_error *err)
{
    uint32_t *rest = NULL;
    size_t n_rest = 0;
    const gyre_tokenizer *tokenizer = gyre_engine_tokenizer(v->engine);
    if (!v->n_text || r->bytes <= v->n_text || memcmp(r->text, v->text, v->n_text) != 0) return GYRE_OK;
    const gyre_rendering behind = {r->text + v->n_text, r->plain + v->n_text, r->bytes - v->n_text};
    GYRE_TRY(gyre_tokenize_rendering(tokenizer, &behind, &rest, &n_rest, err));
    gyre_status st = GYRE_OK;
    if (n_rest && gyre_token_is_special(tokenizer, rest[0])) {
        *n = v->n_tokens + n_rest;
        *tokens = malloc(*n * sizeof **tokens);
        if (*tokens) {
            memcpy(*tokens, v->tokens, v->n_tokens * sizeof **tokens);
            memcpy(*tokens + v->n_tokens, rest, n_rest * sizeof **tokens);
        } else {
            st = no_memory(err);
        }
    }
    gyre_free(rest);
    return st;
}

static gyre_status tokens_of(const struct chat_voice *v, const struct chat_talk *talk, gyre_rendering *r,
                             uint32_t **tokens, size_t *n, gyre_error *err)
{
    char *json = chat_talk_json(talk, true);
    if (!json) return no_memory(err);
    const gyre_status st = gyre_template_render(v->words, json, strlen(json), NULL, r, err);
    free(json);
    *tokens = NULL;
    GYRE_TRY(st);
    GYRE_TRY(go_on(v, r, tokens, n, err));
    return *tokens ? GYRE_OK : gyre_tokenize_rendering(gyre_engine_tokenizer(v->engine), r, tokens, n, err);
}

// The same, with turns forgotten from the front as long as the talk leaves no room for an answer.
static gyre_status fitting(const struct chat_voice *v, struct chat_talk *talk, gyre_rendering *r, uint32_t **tokens,
                           size_t *n, gyre_error *err)
{
    for (;;) {
        GYRE_TRY(tokens_of(v, talk, r, tokens, n, err));
        if (*n && *n < v->context) return GYRE_OK;
        if (*n == 0) return gyre_fail(err, GYRE_E_INVALID, "cannot answer: the template makes nothing of this talk");
        if (!v->shift || !chat_talk_shorten(talk))
            return gyre_fail(
                err, GYRE_E_INVALID,
                "cannot answer: the talk has %zu tokens and the context %u; /reset it, or start with a longer --ctx or "
                "with --context-shift",
                *n, v->context);
        gyre_rendering_free(r);
        gyre_free(*tokens);
        *tokens = NULL;
    }
}

// ---- the answer while it grows ----------------------------------------------------------------------

static const char *find(const char *text, size_t n, const char *what)
{
    const size_t length = strlen(what);
    for (size_t i = 0; i + length <= n; i++)
        if (memcmp(text + i, what, length) == 0) return text + i;
    return NULL;
}

// How many bytes at the end of a text may be the beginning of `what`.
static size_t beginning_of(const char *text, size_t n, const char *what)
{
    size_t k = GYRE_MIN(n, strlen(what) - 1);
    while (k && memcmp(text + n - k, what, k) != 0) k--;
    return k;
}

static int give(struct answer *a, size_t to, bool reasoning)
{
    const size_t from = a->given;
    if (to <= from) return 0;
    a->given = to;
    return a->listener(a->user, a->text + from, to - from, reasoning);
}

// Passes on what is known to be reasoning or answer. `last`: nothing more comes.
static int pass_on(struct answer *a, bool last)
{
    if (a->n == 0) return 0;
    if (!a->ever && !a->over) { // does it begin with the mark?
        const size_t blanks = strspn(a->text, " \n\r\t"), left = a->n - blanks;
        const size_t same = GYRE_MIN(left, strlen(begins));
        const bool may = memcmp(a->text + blanks, begins, same) == 0;
        if (may && left < strlen(begins) && !last) return 0;
        if (may && left >= strlen(begins)) {
            a->given = blanks + strlen(begins);
            a->thinking = a->ever = true;
        } else {
            a->over = true;
        }
    }
    if (a->thinking) {
        const char *end = find(a->text + a->given, a->n - a->given, ends);
        if (!end) return give(a, a->n - (last ? 0 : beginning_of(a->text + a->given, a->n - a->given, ends)), true);
        if (give(a, (size_t)(end - a->text), true)) return 1;
        a->thought = (size_t)(end - a->text);
        a->after = a->given = a->thought + strlen(ends);
        a->thinking = false;
        a->over = true;
    }
    while (a->over && a->ever && a->given == a->after && a->given < a->n && strchr(" \n\r\t", a->text[a->given]))
        a->after = ++a->given; // blanks between the two belong to neither
    return give(a, a->n, false);
}

static int on_text(void *user, const char *text, size_t bytes)
{
    struct answer *a = user;
    if (!gyre_append(&a->text, &a->n, &a->cap, text, bytes)) return 1;
    return pass_on(a, false);
}

// ---- answering --------------------------------------------------------------------------------------

// Whether the template itself opened the reasoning.
static bool opens_reasoning(const gyre_rendering *r)
{
    size_t n = r->bytes;
    while (n && strchr(" \n\r\t", r->text[n - 1])) n--;
    const size_t length = strlen(begins);
    return n >= length && memcmp(r->text + n - length, begins, length) == 0 && !r->plain[n - 1];
}

// Keeps what was said, for the next turn.
static void remember(struct chat_voice *v, const gyre_rendering *r, const uint32_t *prompt, size_t n,
                     const uint32_t *said, const struct answer *a)
{
    free(v->text);
    free(v->tokens);
    v->text = NULL;
    v->tokens = NULL;
    v->n_text = 0;
    if (v->result.why == GYRE_STOP_TEXT) return; // its tokens are no part of the talk: that is read anew
    v->n_text = r->bytes + a->n;
    v->n_tokens = n + v->result.n_tokens;
    v->text = malloc(v->n_text + 1);
    v->tokens = malloc((v->n_tokens + 1) * sizeof *v->tokens);
    if (!v->text || !v->tokens) { // then it is read anew
        v->n_text = 0;
        return;
    }
    memcpy(v->text, r->text, r->bytes);
    if (a->n) memcpy(v->text + r->bytes, a->text, a->n);
    memcpy(v->tokens, prompt, n * sizeof *prompt);
    memcpy(v->tokens + n, said, v->result.n_tokens * sizeof *said);
}

static bool add_to(struct chat_talk *talk, const struct answer *a)
{
    const char *all = a->text ? a->text : "";
    if (!a->ever) return chat_talk_say(talk, "assistant", all, a->n, NULL, 0);
    const size_t blanks = a->opened ? 0 : strspn(all, " \n\r\t") + strlen(begins);
    const size_t end = a->over ? a->thought : a->n, after = a->over ? a->after : a->n;
    return chat_talk_say(talk, "assistant", all + after, a->n - after, all + blanks, end > blanks ? end - blanks : 0);
}

// An answer that fills the context goes on without the oldest part of the talk, the system's message never.
static gyre_status keep_first(const struct chat_voice *v, const struct chat_talk *talk, const uint32_t *prompt,
                              size_t n, gyre_generate_params *p, gyre_error *err)
{
    json_t *all = json_pack("{s:O, s:b}", "messages", talk->messages, "add_generation_prompt", 1);
    if (!all) return no_memory(err);
    p->keep = (uint32_t)cli_turns_keep(v->words, gyre_engine_tokenizer(v->engine), all, prompt, n);
    p->shift = gyre_context_shift(v->context, p->keep, v->context) > 0;
    json_decref(all);
    return GYRE_OK;
}

static gyre_status generate(struct chat_voice *v, struct chat_talk *talk, const gyre_rendering *r,
                            const uint32_t *prompt, size_t n, struct answer *a, gyre_error *err)
{
    gyre_generate_params p = v->sampling.params;
    const size_t room = v->context - n + 2; // more than fit, so that the context ends it and not the number
    if (v->shift) GYRE_TRY(keep_first(v, talk, prompt, n, &p, err));
    if (p.shift) p.max_tokens = p.max_tokens ? p.max_tokens : v->context;
    else p.max_tokens = p.max_tokens && p.max_tokens < room ? p.max_tokens : (uint32_t)room;
    p.prompt = prompt;
    p.n_prompt = n;
    p.tokens = malloc(p.max_tokens * sizeof *p.tokens);
    if (!p.tokens) return no_memory(err);
    const gyre_timings before = gyre_session_timings(v->session);
    cli_cancel_on_signal(v->session);
    const gyre_status st = gyre_generate(v->session, &p, on_text, a, &v->result, err);
    cli_cancel_on_signal(NULL);
    const gyre_timings after = gyre_session_timings(v->session);
    const uint64_t ns = after.decode_ns - before.decode_ns;
    v->tokens_per_second = ns ? (double)(after.decode_tokens - before.decode_tokens) * 1e9 / (double)ns : 0;
    const bool said = st == GYRE_OK || (st == GYRE_E_CANCELLED && a->n);
    if (said) pass_on(a, true);
    if (said) remember(v, r, prompt, n, p.tokens, a);
    free(p.tokens);
    return said && !add_to(talk, a) ? no_memory(err) : st;
}

gyre_status chat_answer(struct chat_voice *v, struct chat_talk *talk, chat_listener listener, void *user,
                        gyre_error *err)
{
    gyre_rendering r = {0};
    uint32_t *tokens = NULL;
    size_t n = 0;
    struct answer a = {.listener = listener, .user = user};
    gyre_status st = fitting(v, talk, &r, &tokens, &n, err);
    if (st == GYRE_OK) {
        a.opened = a.thinking = a.ever = opens_reasoning(&r);
        st = generate(v, talk, &r, tokens, n, &a, err);
    }
    gyre_rendering_free(&r);
    gyre_free(tokens);
    free(a.text);
    return st;
}
