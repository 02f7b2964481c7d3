// Grammars and matchers. See gyre_grammar.h.
#include "runtime/grammar/grammar.h"
#include "runtime/grammar/tools.h"

#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct gyre_matcher {
    struct gyre_grammar *grammar;
    struct gyre_shared_automaton *shared;
    uint32_t state;
    bool ended; // an end token came
};

// ---- grammars -------------------------------------------------------------------------------------------------------

static void leave(struct gyre_shared_automaton *s)
{
    if (!s || --s->users) return;
    gyre_automaton_free(s->automaton);
    free(s);
}

static gyre_status join_new(struct gyre_grammar *g, gyre_error *err)
{
    struct gyre_shared_automaton *s = calloc(1, sizeof *s);
    if (!s) return gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
    const gyre_status st = gyre_automaton_create(&g->program, &s->automaton, err);
    if (st != GYRE_OK) return free(s), st;
    s->users = 1;
    leave(g->current);
    g->current = s;
    return GYRE_OK;
}

static void release(struct gyre_grammar *g)
{
    if (!g || --g->users) return;
    leave(g->current);
    gyre_program_free(&g->program);
    free(g);
}

gyre_status gyre_grammar_make(const gyre_vocabulary *vocabulary, struct gyre_program *program, uint32_t start,
                              gyre_grammar **out, gyre_error *err)
{
    struct gyre_grammar *g = *out = calloc(1, sizeof *g);
    gyre_status st = g ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
    if (!g) return gyre_program_free(program), st;
    g->vocabulary = vocabulary;
    g->program = *program;
    g->users = 1;
    *program = (struct gyre_program){0};
    GYRE_GO(gyre_program_finish(&g->program, start, &g->entry, err));
    GYRE_GO(join_new(g, err));
done:
    if (st != GYRE_OK) release(g), *out = NULL;
    return st;
}

void gyre_grammar_destroy(gyre_grammar *g) { release(g); }

void gyre_emit_reasoning(struct gyre_program *p, gyre_reasoning reasoning)
{
    static const char begin[] = GYRE_MARK_THINK, end[] = GYRE_MARK_THINK_END;
    struct gyre_dfa *free_text = NULL, *space = NULL;
    struct gyre_re_maker maker = {0};
    gyre_error err;
    if (reasoning == GYRE_REASONING_NONE) return;
    const uint32_t either = reasoning == GYRE_REASONING_MAY ? gyre_emit_alt(p, 2) : 0;
    if (either) {
        gyre_set_target(p, either, 0, p->n);
        gyre_emit_lit(p, begin);
    }
    gyre_status st = gyre_dfa_until(end, true, &free_text, &err);
    if (st == GYRE_OK)
        st = gyre_dfa_make(gyre_re_repeat(&maker, gyre_re_text(&maker, "\n"), 0, 2), GYRE_DFA_UTF8, &space, &err);
    if (st != GYRE_OK) gyre_program_fail(p, st, &err);
    gyre_emit_word(p, free_text, GYRE_WORD_FREE);
    gyre_emit_word(p, space, GYRE_WORD_STRICT);
    if (either) gyre_set_target(p, either, 1, p->n);
    p->mark[p->n_mark++] = begin;
    p->mark[p->n_mark++] = end;
    gyre_re_free(&maker);
}

static gyre_status failure(struct gyre_automaton *a, gyre_error *err)
{
    const gyre_status st = a->st;
    a->st = GYRE_OK;
    if (st == GYRE_E_NOMEM) return gyre_fail(err, st, "cannot constrain the output: out of memory");
    return gyre_fail(err, st, "cannot constrain the output: too many ways are open at once; ask for a simpler schema");
}

// ---- matchers -------------------------------------------------------------------------------------------------------

gyre_status gyre_matcher_create(gyre_grammar *grammar, gyre_matcher **out, gyre_error *err)
{
    struct gyre_matcher *m = *out = calloc(1, sizeof *m);
    if (!m) return gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
    m->grammar = grammar;
    grammar->users++;
    m->shared = grammar->current;
    m->shared->users++;
    m->state = gyre_automaton_start(m->shared->automaton, grammar->entry);
    if (m->state != GYRE_STATE_DEAD) return GYRE_OK;
    const gyre_status st = failure(m->shared->automaton, err);
    gyre_matcher_destroy(m);
    *out = NULL;
    return st;
}

void gyre_matcher_destroy(gyre_matcher *m)
{
    if (!m) return;
    leave(m->shared);
    release(m->grammar);
    free(m);
}

// What was learnt is forgotten when it takes too much room.
static gyre_status make_room(struct gyre_matcher *m, gyre_error *err)
{
    if (!gyre_automaton_full(m->shared->automaton)) return GYRE_OK;
    if (m->grammar->current == m->shared || gyre_automaton_full(m->grammar->current->automaton))
        GYRE_TRY(join_new(m->grammar, err));
    struct gyre_shared_automaton *to = m->grammar->current;
    const uint32_t state = gyre_automaton_carry(to->automaton, m->shared->automaton, m->state);
    if (state == GYRE_STATE_DEAD) return gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
    to->users++;
    leave(m->shared);
    m->shared = to;
    m->state = state;
    return GYRE_OK;
}

// ---- masks ----------------------------------------------------------------------------------------------------------

static void set(uint32_t *mask, uint32_t token) { mask[token / 32] |= 1u << token % 32; }

static gyre_status walk(struct gyre_automaton *a, const struct gyre_trie *t, uint32_t state, uint32_t *mask,
                        gyre_error *err)
{
    uint32_t *states = malloc((t->deepest + 1u) * sizeof *states);
    if (!states) return gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
    states[0] = state;
    for (uint32_t i = 0; i < t->n && a->st == GYRE_OK;) {
        const struct gyre_trie_node *node = &t->node[i];
        const uint32_t before = states[node->depth - 1], *next = a->state[before].next;
        uint32_t to = next ? next[node->byte] : UINT32_MAX;
        if (to == UINT32_MAX) to = gyre_automaton_step(a, before, node->byte);
        if (to == GYRE_STATE_DEAD) {
            i += node->skip;
            continue;
        }
        states[node->depth] = to;
        for (uint32_t k = 0; k < node->tokens; k++) set(mask, t->token[node->first + k]);
        i++;
    }
    free(states);
    return a->st == GYRE_OK ? GYRE_OK : failure(a, err);
}

static uint32_t run(struct gyre_automaton *a, uint32_t state, const char *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n && state != GYRE_STATE_DEAD; i++)
        state = gyre_automaton_step(a, state, (uint8_t)bytes[i]);
    return state;
}

// How many plain characters may follow in a row whatever they are; GYRE_RE_MANY: any number. Where not all places of
// the state say so, *alone is false: more may be allowed.
static uint32_t plain_room(const struct gyre_automaton *a, const struct gyre_state *s, bool *alone)
{
    uint32_t most = 0;
    *alone = s->n == 1;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct gyre_place *at = &a->place[s->at + i];
        const struct gyre_instr *ins = &a->program->instr[at->pc];
        if (ins->op != GYRE_OP_STRING && ins->op != GYRE_OP_WORD) {
            *alone = false;
            continue;
        }
        const struct gyre_dfa *d = a->program->dfa[ins->a];
        if (ins->op == GYRE_OP_WORD) {
            if (d->plain[at->local]) most = GYRE_RE_MANY;
            else *alone = false;
        } else if (at->local == d->start) most = GYRE_MAX(most, ins->c == GYRE_RE_MANY ? ins->c : ins->c - at->count);
        else *alone = false;
    }
    return most;
}

static gyre_status allow_plain(struct gyre_automaton *a, const gyre_vocabulary *v, uint32_t state, uint32_t *mask,
                               gyre_error *err)
{
    bool alone;
    const uint32_t most = plain_room(a, &a->state[state], &alone);
    if (most < GYRE_RE_MANY && !alone) return walk(a, &v->plain, state, mask, err);
    const uint32_t *from =
        v->plain_mask[most == GYRE_RE_MANY ? GYRE_PLAIN_MOST : GYRE_MIN(most, (uint32_t)GYRE_PLAIN_MOST - 1)];
    memcpy(mask, from, v->words * sizeof *mask);
    for (uint32_t i = 0; i < v->n_longer && most < GYRE_RE_MANY; i++)
        if (v->longer[i].characters <= most) set(mask, v->longer[i].token);
    return GYRE_OK;
}

// A control token is text where the grammar has its text as a mark; in free text it may come without being text.
static bool control(struct gyre_automaton *a, const gyre_vocabulary *v, uint32_t state, uint32_t token, uint32_t *to)
{
    uint32_t n = 0;
    const char *bytes = gyre_tokenizer_bytes(v->tokenizer, token, &n);
    for (uint32_t i = 0; bytes && i < a->program->n_mark; i++)
        if (strlen(a->program->mark[i]) == n && memcmp(a->program->mark[i], bytes, n) == 0)
            return (*to = run(a, state, bytes, n)) != GYRE_STATE_DEAD;
    *to = state;
    return a->state[state].free_text;
}

static gyre_status make_mask(struct gyre_automaton *a, const gyre_vocabulary *v, uint32_t state, uint32_t *mask,
                             gyre_error *err)
{
    uint32_t to, any = 0;
    GYRE_TRY(allow_plain(a, v, state, mask, err));
    GYRE_TRY(walk(a, &v->other, state, mask, err));
    for (uint32_t i = 0; i < v->n_control; i++)
        if (control(a, v, state, v->control[i], &to)) set(mask, v->control[i]);
    for (uint32_t i = 0; i < v->n_end && a->state[state].may_end; i++) set(mask, v->end[i]);
    for (uint32_t i = 0; i < v->words; i++) any |= mask[i];
    if (a->st != GYRE_OK) return failure(a, err);
    return any ? GYRE_OK
               : gyre_fail(err, GYRE_E_UNSUPPORTED,
                           "cannot constrain the output: no token of the vocabulary goes on from here");
}

gyre_status gyre_matcher_allow(gyre_matcher *m, uint32_t *allowed, uint32_t words, gyre_error *err)
{
    const gyre_vocabulary *v = m->grammar->vocabulary;
    memset(allowed, 0, words * sizeof *allowed);
    if (m->ended) {
        for (uint32_t i = 0; i < v->n_end; i++)
            if (v->end[i] / 32 < words) set(allowed, v->end[i]);
        return GYRE_OK;
    }
    GYRE_TRY(make_room(m, err));
    struct gyre_automaton *a = m->shared->automaton;
    if (!a->state[m->state].mask) {
        uint32_t *mask = calloc(v->words + 1, sizeof *mask);
        if (!mask) return gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
        const gyre_status st = make_mask(a, v, m->state, mask, err);
        if (st != GYRE_OK) return free(mask), st;
        a->state[m->state].mask = mask;
        a->bytes += v->words * sizeof *mask;
    }
    memcpy(allowed, a->state[m->state].mask, GYRE_MIN(words, v->words) * sizeof *allowed);
    return GYRE_OK;
}

// The state behind a token; dead where it is not allowed.
static uint32_t behind(struct gyre_matcher *m, uint32_t token, bool *end)
{
    const gyre_vocabulary *v = m->grammar->vocabulary;
    struct gyre_automaton *a = m->shared->automaton;
    uint32_t n = 0, to;
    const char *bytes = gyre_tokenizer_bytes(v->tokenizer, token, &n);
    *end = gyre_tokenizer_is_end(v->tokenizer, token);
    if (*end) return m->ended || a->state[m->state].may_end ? m->state : GYRE_STATE_DEAD;
    if (m->ended || !bytes || !n) return GYRE_STATE_DEAD;
    if (gyre_tokenizer_is_special(v->tokenizer, token))
        return control(a, v, m->state, token, &to) ? to : GYRE_STATE_DEAD;
    return run(a, m->state, bytes, n);
}

bool gyre_matcher_allows(gyre_matcher *m, uint32_t token)
{
    bool end;
    if (make_room(m, NULL) != GYRE_OK) return false;
    const bool fits = behind(m, token, &end) != GYRE_STATE_DEAD;
    m->shared->automaton->st = GYRE_OK; // what could not be followed is not allowed; the mask says why
    return fits;
}

gyre_status gyre_matcher_accept(gyre_matcher *m, uint32_t token, gyre_error *err)
{
    bool end;
    GYRE_TRY(make_room(m, err));
    const uint32_t to = behind(m, token, &end);
    if (m->shared->automaton->st != GYRE_OK) return failure(m->shared->automaton, err);
    if (to == GYRE_STATE_DEAD)
        return gyre_fail(err, GYRE_E_INVALID, "cannot accept token %u: the grammar does not allow it here", token);
    m->state = to;
    m->ended |= end;
    return GYRE_OK;
}

bool gyre_matcher_may_end(const gyre_matcher *m) { return m->ended || m->shared->automaton->state[m->state].may_end; }

bool gyre_matcher_must_end(const gyre_matcher *m)
{
    const struct gyre_state *s = &m->shared->automaton->state[m->state];
    return m->ended || (s->may_end && s->n == 1);
}
