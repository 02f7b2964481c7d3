// See dfa.h. An expression becomes a nondeterministic automaton over bytes (Thompson 1968, built from its end), that
// becomes one over sets of its states (Rabin and Scott 1959).
#include "runtime/grammar/dfa.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 200000, MOST_POOL = 1 << 24, MOST_WORK = 1 << 26 };
#define NOBODY UINT32_MAX

void gyre_dfa_free(struct gyre_dfa *d)
{
    if (!d) return;
    free(d->next);
    free(d->accepts);
    free(d->leads);
    free(d->plain);
    free(d->distance);
    free(d);
}

uint32_t gyre_dfa_plain(const char *bytes, uint32_t n)
{
    uint32_t count = 0, code;
    for (int k; n; bytes += k, n -= (uint32_t)k, count++) {
        k = gyre_utf8_look(bytes, n, &code);
        if (k <= 0 || code < 0x20 || code == '"' || code == '\\' || code == '<' || code == 0x7F) return 0;
    }
    return count;
}

// ---- finishing ------------------------------------------------------------------------------------------------------

static gyre_status no_memory(gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot make an automaton: out of memory");
}

static gyre_status too_large(gyre_error *err)
{
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot make an automaton: it is too large (%d states at most); ask for less", GYRE_DFA_MOST);
}

static gyre_status allocate(uint32_t states, uint32_t classes, struct gyre_dfa **out)
{
    struct gyre_dfa *d = *out = calloc(1, sizeof *d);
    if (!d) return GYRE_E_NOMEM;
    d->states = states;
    d->classes = classes;
    d->next = malloc(((size_t)states * classes + 1) * sizeof *d->next);
    d->accepts = calloc(states + 1, 1);
    d->leads = calloc(states + 1, 1);
    d->plain = calloc(states + 1, 1);
    d->distance = malloc((states + 1) * sizeof *d->distance);
    if (!d->next || !d->accepts || !d->leads || !d->plain || !d->distance) {
        gyre_dfa_free(d);
        *out = NULL;
        return GYRE_E_NOMEM;
    }
    memset(d->next, 0xFF, (size_t)states * classes * sizeof *d->next);
    return GYRE_OK;
}

// Do all plain characters lead from `state` back to it? Followed through the bytes that lie inside of a character:
// 1 to 3 of them are left, of which the first lies in [low, high].
static bool returns(const struct gyre_dfa *d, uint32_t at, uint32_t left, uint32_t low, uint32_t high, uint32_t state)
{
    for (uint32_t b = low; b <= high; b++) {
        if (b > low && d->class_of[b] == d->class_of[b - 1]) continue;
        const uint32_t next = gyre_dfa_next(d, at, (uint8_t)b);
        if (next == GYRE_DFA_DEAD || (left == 1 ? next != state : !returns(d, next, left - 1, 0x80, 0xBF, state)))
            return false;
    }
    return true;
}

static bool is_plain(const struct gyre_dfa *d, uint32_t s)
{
    for (uint32_t b = 0x20; b < 0x7F; b++)
        if (b != '"' && b != '\\' && b != '<' && gyre_dfa_next(d, s, (uint8_t)b) != s) return false;
    static const struct {
        uint8_t first, last, n, low, high; // of UTF-8: lead bytes, how many follow, the range of the next
    } leads[] = {{0xC2, 0xDF, 1, 0x80, 0xBF}, {0xE0, 0xE0, 2, 0xA0, 0xBF}, {0xE1, 0xEC, 2, 0x80, 0xBF},
                 {0xED, 0xED, 2, 0x80, 0x9F}, {0xEE, 0xEF, 2, 0x80, 0xBF}, {0xF0, 0xF0, 3, 0x90, 0xBF},
                 {0xF1, 0xF3, 3, 0x80, 0xBF}, {0xF4, 0xF4, 3, 0x80, 0x8F}};
    for (size_t i = 0; i < GYRE_COUNT(leads); i++)
        for (uint32_t b = leads[i].first; b <= leads[i].last; b++) {
            const uint32_t next = gyre_dfa_next(d, s, (uint8_t)b);
            if (next == GYRE_DFA_DEAD || !returns(d, next, leads[i].n, leads[i].low, leads[i].high, s)) return false;
        }
    return true;
}

// Distances to an end; what cannot reach one is cut off. Needs `next`, `accepts` and `start`.
static void finish(struct gyre_dfa *d)
{
    for (uint32_t s = 0; s < d->states; s++) d->distance[s] = d->accepts[s] ? 0 : NOBODY;
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t s = d->states; s-- > 0;)
            for (uint32_t c = 0; c < d->classes; c++) {
                const uint32_t to = d->next[s * d->classes + c];
                if (to == GYRE_DFA_DEAD || d->distance[to] == NOBODY || d->distance[to] + 1 >= d->distance[s]) continue;
                d->distance[s] = d->distance[to] + 1;
                changed = true;
            }
    }
    for (uint32_t s = 0; s < d->states; s++)
        for (uint32_t c = 0; c < d->classes; c++) {
            uint32_t *to = &d->next[s * d->classes + c];
            if (*to != GYRE_DFA_DEAD && d->distance[*to] == NOBODY) *to = GYRE_DFA_DEAD;
            d->leads[s] |= *to != GYRE_DFA_DEAD;
        }
    for (uint32_t s = 0; s < d->states; s++) d->plain[s] = is_plain(d, s);
    if (d->states && d->distance[d->start] == NOBODY) d->states = 0;
}

// ---- nondeterministic: nodes ----------------------------------------------------------------------------------------

struct node { // first <= last: a byte, then `a`; first > last: without one to `a` and `b`
    uint32_t a, b;
    uint8_t first, last;
};
struct nodes {
    struct node *node;
    uint32_t n;
    size_t cap;
    bool failed, large;
    enum gyre_dfa_text text;
};
enum { THE_END = 0 }; // the node that is a word's end

static uint32_t add(struct nodes *x, uint8_t first, uint8_t last, uint32_t a, uint32_t b)
{
    if (x->n == MAX_NODES) x->large = true;
    else if (!GYRE_ROOM(x->node, x->n + 1u, x->cap)) x->failed = true;
    if (x->failed || x->large) return THE_END;
    x->node[x->n] = (struct node){a, b, first, last};
    return x->n++;
}

static uint32_t either(struct nodes *x, uint32_t a, uint32_t b) { return a == NOBODY ? b : add(x, 1, 0, a, b); }

// The characters first..last in UTF-8, then `next`; one more alternative of `others`.
static uint32_t utf8(struct nodes *x, uint32_t first, uint32_t last, uint32_t next, uint32_t others)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF};
    for (size_t i = 0; i < GYRE_COUNT(ends); i++) // of one length
        if (first <= ends[i] && last > ends[i]) {
            others = utf8(x, first, ends[i], next, others);
            first = ends[i] + 1;
        }
    if (last <= 0x7F) return either(x, others, add(x, (uint8_t)first, (uint8_t)last, next, NOBODY));
    const uint32_t follow = last <= 0x7FF ? 1 : last <= 0xFFFF ? 2 : 3;
    for (uint32_t i = 1; i <= follow; i++) { // with whole ranges for the bytes that follow one that varies
        const uint32_t low = (1u << 6 * i) - 1;
        if ((first & ~low) == (last & ~low)) break;
        if (first & low) {
            others = utf8(x, first, first | low, next, others);
            return utf8(x, (first | low) + 1, last, next, others);
        }
        if ((last & low) != low) {
            others = utf8(x, first, (last & ~low) - 1, next, others);
            return utf8(x, last & ~low, last, next, others);
        }
    }
    uint32_t chain = next;
    for (uint32_t i = 0; i < follow; i++)
        chain =
            add(x, (uint8_t)(0x80 | (first >> 6 * i & 0x3F)), (uint8_t)(0x80 | (last >> 6 * i & 0x3F)), chain, NOBODY);
    static const uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    return either(x, others,
                  add(x, (uint8_t)(lead[follow] | first >> 6 * follow), (uint8_t)(lead[follow] | last >> 6 * follow),
                      chain, NOBODY));
}

static uint32_t bytes(struct nodes *x, const char *text, uint32_t next)
{
    for (size_t n = strlen(text); n-- > 0;) next = add(x, (uint8_t)text[n], (uint8_t)text[n], next, NOBODY);
    return next;
}

static uint32_t escaped(struct nodes *x, uint32_t code, uint32_t next)
{
    static const char letters[][2] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                      {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};
    for (size_t i = 0; i < GYRE_COUNT(letters); i++)
        if (code == (uint32_t)letters[i][0]) return bytes(x, (char[]){'\\', letters[i][1], 0}, next);
    return bytes(x, (char[]){'\\', 'u', '0', '0', "0123456789abcdef"[code >> 4], "0123456789abcdef"[code & 15], 0},
                 next);
}

static uint32_t characters(struct nodes *x, const struct gyre_re *re, uint32_t next)
{
    uint32_t all = NOBODY;
    for (uint32_t i = 0; i < re->n; i++) {
        uint32_t first = re->ranges[i].first;
        const uint32_t last = re->ranges[i].last;
        for (uint32_t c = first; x->text == GYRE_DFA_JSON && c <= last && c <= 0x7F; c++) { // what is written otherwise
            if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7F) continue;
            if (c > first) all = utf8(x, first, c - 1, next, all);
            all = either(x, all, escaped(x, c, next));
            first = c + 1;
        }
        if (first <= last) all = utf8(x, first, last, next, all);
    }
    return all;
}

static uint32_t build(struct nodes *x, const struct gyre_re *re, uint32_t next)
{
    if (x->failed || x->large) return next;
    switch (re->kind) {
    case GYRE_RE_NONE:
        return add(x, 1, 0, NOBODY, NOBODY);
    case GYRE_RE_EMPTY:
        return next;
    case GYRE_RE_CHARS:
        return characters(x, re, next);
    case GYRE_RE_CAT:
        return build(x, re->a, build(x, re->b, next));
    case GYRE_RE_ALT:
        return either(x, build(x, re->a, next), build(x, re->b, next));
    case GYRE_RE_REPEAT:
        break;
    }
    uint32_t at = next;
    if (re->max == GYRE_RE_MANY) {
        const uint32_t loop = at = add(x, 1, 0, NOBODY, next), body = build(x, re->a, loop);
        if (!x->failed && !x->large) x->node[loop].a = body;
    } else {
        for (uint32_t i = re->min; i < re->max && !x->large && !x->failed; i++)
            at = either(x, build(x, re->a, at), next);
    }
    for (uint32_t i = 0; i < re->min && !x->large && !x->failed; i++) at = build(x, re->a, at);
    return at;
}

// ---- deterministic: sets of nodes -----------------------------------------------------------------------------------

struct sets {
    const struct nodes *x;
    uint32_t *mark, now; // [nodes]: in the set of number `now` already
    uint64_t work;       // nodes looked at
    uint32_t *stack;     // [2 * nodes]
    uint32_t *pool, n_pool;
    size_t cap_pool;
    uint32_t *at, *size, n; // [GYRE_DFA_MOST]: the sets, in the pool
    uint32_t slots[1 << 15];
};

static void close_over(struct sets *s, uint32_t node, uint32_t *out, uint32_t *n)
{
    uint32_t depth = 0;
    s->stack[depth++] = node;
    while (depth) {
        const uint32_t at = s->stack[--depth];
        if (at == NOBODY || s->mark[at] == s->now) continue;
        s->mark[at] = s->now;
        const struct node *e = &s->x->node[at];
        if (e->first > e->last && at != THE_END) {
            s->stack[depth++] = e->a;
            s->stack[depth++] = e->b;
        } else out[(*n)++] = at;
    }
}

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

// The number of the set that was written behind the pool's end; NOBODY where there is no room for it.
static uint32_t intern(struct sets *s, uint32_t n)
{
    uint32_t *set = s->pool + s->n_pool, hash = 2166136261u;
    qsort(set, n, sizeof *set, by_number);
    for (uint32_t i = 0; i < n; i++) hash = (hash ^ set[i]) * 16777619u, hash ^= hash >> 15;
    uint32_t slot = hash & (GYRE_COUNT(s->slots) - 1);
    for (; s->slots[slot]; slot = (slot + 1) & (GYRE_COUNT(s->slots) - 1)) {
        const uint32_t k = s->slots[slot] - 1;
        if (s->size[k] == n && memcmp(s->pool + s->at[k], set, n * sizeof *set) == 0) return k;
    }
    if (s->n == GYRE_DFA_MOST) return NOBODY;
    s->slots[slot] = s->n + 1;
    s->at[s->n] = s->n_pool;
    s->size[s->n] = n;
    s->n_pool += n;
    return s->n++;
}

// Room behind the pool's end for a set of all nodes.
static gyre_status room(struct sets *s, gyre_error *err)
{
    if ((size_t)s->n_pool + s->x->n + 1 > MOST_POOL) return too_large(err);
    return GYRE_ROOM(s->pool, (size_t)s->n_pool + s->x->n + 1, s->cap_pool) ? GYRE_OK : no_memory(err);
}

static uint32_t byte_classes(const struct nodes *x, uint8_t class_of[256])
{
    bool begins[257] = {true};
    uint32_t n = 0;
    for (uint32_t i = 1; i < x->n; i++)
        if (x->node[i].first <= x->node[i].last) begins[x->node[i].first] = begins[x->node[i].last + 1] = true;
    for (uint32_t b = 0; b < 256; b++) class_of[b] = (uint8_t)((n += begins[b]) - 1);
    return n;
}

static gyre_status determine(struct sets *s, uint32_t start, struct gyre_dfa **out, gyre_error *err)
{
    const struct nodes *x = s->x;
    uint8_t class_of[256], first_of[256];
    const uint32_t classes = byte_classes(x, class_of);
    for (uint32_t b = 256; b-- > 0;) first_of[class_of[b]] = (uint8_t)b;
    uint32_t *next = malloc((size_t)GYRE_DFA_MOST * classes * sizeof *next), n = 0;
    gyre_status st = GYRE_OK;
    if (!next) GYRE_GO(no_memory(err));
    GYRE_GO(room(s, err));
    s->now = 1;
    close_over(s, start, s->pool, &n);
    intern(s, n);
    for (uint32_t k = 0; k < s->n; k++) {
        for (uint32_t c = 0; c < classes; c++) {
            GYRE_GO(room(s, err));
            n = 0;
            s->now++;
            for (uint32_t i = 0; i < s->size[k]; i++) {
                const struct node *e = &x->node[s->pool[s->at[k] + i]];
                if (e->first <= e->last && first_of[c] >= e->first && first_of[c] <= e->last)
                    close_over(s, e->a, s->pool + s->n_pool, &n);
            }
            s->work += s->size[k] + 8 * n; // they are sorted, too
            if (s->work > MOST_WORK) GYRE_GO(too_large(err));
            next[k * classes + c] = n ? intern(s, n) : GYRE_DFA_DEAD;
            if (n && next[k * classes + c] == NOBODY) GYRE_GO(too_large(err));
        }
    }
    if (allocate(s->n, classes, out) != GYRE_OK) GYRE_GO(no_memory(err));
    memcpy((*out)->class_of, class_of, 256);
    memcpy((*out)->next, next, (size_t)s->n * classes * sizeof *next);
    for (uint32_t k = 0; k < s->n; k++) (*out)->accepts[k] = s->size[k] && s->pool[s->at[k]] == THE_END;
    finish(*out);
done:
    free(next);
    return st;
}

gyre_status gyre_dfa_make(const struct gyre_re *re, enum gyre_dfa_text text, struct gyre_dfa **out, gyre_error *err)
{
    struct nodes x = {.text = text};
    gyre_status st = GYRE_OK;
    *out = NULL;
    if (!re) return no_memory(err);
    add(&x, 1, 0, NOBODY, NOBODY); // THE_END
    const uint32_t start = build(&x, re, THE_END);
    struct sets *s = calloc(1, sizeof *s);
    if (x.large) GYRE_GO(too_large(err));
    if (x.failed || !s) GYRE_GO(no_memory(err));
    s->x = &x;
    s->mark = calloc(x.n, sizeof *s->mark);
    s->stack = malloc((2 * (size_t)x.n + 2) * sizeof *s->stack);
    s->at = malloc(GYRE_DFA_MOST * sizeof *s->at);
    s->size = malloc(GYRE_DFA_MOST * sizeof *s->size);
    if (!s->mark || !s->stack || !s->at || !s->size) GYRE_GO(no_memory(err));
    GYRE_GO(determine(s, start, out, err));
done:
    if (s) free(s->mark), free(s->stack), free(s->at), free(s->size), free(s->pool);
    free(s);
    free(x.node);
    return st;
}

// ---- without expressions --------------------------------------------------------------------------------------------

gyre_status gyre_dfa_texts(const char *const *texts, uint32_t n, struct gyre_dfa **out, gyre_error *err)
{
    size_t total = 1;
    *out = NULL;
    for (uint32_t i = 0; i < n; i++) total += strlen(texts[i]);
    if (total > GYRE_DFA_MOST_TEXT) return too_large(err);
    struct gyre_dfa *d;
    uint8_t class_of[256] = {0};
    uint32_t classes = 1;
    for (uint32_t i = 0; i < n; i++)
        for (const char *p = texts[i]; *p; p++)
            if (!class_of[(uint8_t)*p]) class_of[(uint8_t)*p] = (uint8_t)GYRE_MIN(classes++, 255u);
    if (allocate((uint32_t)total, classes, &d) != GYRE_OK) return no_memory(err);
    memcpy(d->class_of, class_of, 256);
    uint32_t used = 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = 0;
        for (const char *p = texts[i]; *p; p++) {
            uint32_t *to = &d->next[at * classes + class_of[(uint8_t)*p]];
            if (*to == GYRE_DFA_DEAD) *to = used++;
            at = *to;
        }
        d->accepts[at] = 1;
    }
    d->states = used;
    finish(d);
    *out = d;
    return GYRE_OK;
}

// Knuth, Morris, Pratt 1977: the state is how much of the mark has just been read.
gyre_status gyre_dfa_until(const char *mark, bool through, struct gyre_dfa **out, gyre_error *err)
{
    const uint32_t n = (uint32_t)strlen(mark);
    struct gyre_dfa *d;
    *out = NULL;
    if (n > 250) return too_large(err);
    uint8_t class_of[256] = {0};
    uint32_t classes = 1;
    for (uint32_t i = 0; i < n; i++)
        if (!class_of[(uint8_t)mark[i]]) class_of[(uint8_t)mark[i]] = (uint8_t)classes++;
    if (allocate(n + 1, classes, &d) != GYRE_OK) return no_memory(err);
    memcpy(d->class_of, class_of, 256);
    for (uint32_t s = 0, border = 0; s < n; s++) { // `border`: the state of mark[1..s), whose row is made already
        for (uint32_t c = 0; c < classes; c++) d->next[s * classes + c] = s == 0 ? 0 : d->next[border * classes + c];
        const uint32_t c = class_of[(uint8_t)mark[s]], after = s == 0 ? 0 : d->next[border * classes + c];
        d->next[s * classes + c] = s + 1;
        border = after;
        d->accepts[s] = !through;
    }
    d->accepts[n] = through;
    finish(d);
    *out = d;
    return GYRE_OK;
}

// The state is the value of the digits so far modulo m; m: nothing yet, m + 1: a minus.
gyre_status gyre_dfa_multiple(uint32_t m, struct gyre_dfa **out, gyre_error *err)
{
    enum { CLASSES = 12, MINUS = 11 };
    struct gyre_dfa *d;
    *out = NULL;
    if (m + 2 > GYRE_DFA_MOST) return too_large(err);
    if (allocate(m + 2, CLASSES, &d) != GYRE_OK) return no_memory(err);
    memset(d->class_of, 0, sizeof d->class_of);
    d->class_of['-'] = MINUS;
    for (uint32_t i = 0; i < 10; i++) d->class_of['0' + i] = (uint8_t)(1 + i);
    for (uint32_t s = 0; s < m + 2; s++)
        for (uint32_t i = 0; i < 10; i++) d->next[s * CLASSES + 1 + i] = ((s < m ? s * 10 : 0) + i) % m;
    d->next[m * CLASSES + MINUS] = m + 1;
    d->accepts[0] = 1;
    d->start = m;
    finish(d);
    *out = d;
    return GYRE_OK;
}

gyre_status gyre_dfa_both(const struct gyre_dfa *a, const struct gyre_dfa *b, bool minus, struct gyre_dfa **out,
                          gyre_error *err)
{
    // A pair is (a's state, b's state or b->states for its dead one).
    const uint64_t wide = (uint64_t)b->states + 1;
    struct gyre_dfa *d = NULL;
    uint32_t *number = NULL, *pair = NULL, n = 0;
    gyre_status st = GYRE_OK;
    *out = NULL;
    if (a->states * wide > 1u << 22) return too_large(err);
    uint16_t seen[256];
    uint8_t class_of[256], first_of[256];
    uint32_t classes = 0;
    for (uint32_t i = 0; i < 256; i++) {
        const uint16_t both = (uint16_t)(a->class_of[i] << 8 | b->class_of[i]);
        uint32_t c = 0;
        while (c < classes && seen[c] != both) c++;
        if (c == classes) seen[classes++] = both, first_of[c] = (uint8_t)i;
        class_of[i] = (uint8_t)c;
    }
    if (a->states) {
        number = calloc(a->states * wide, sizeof *number);
        pair = malloc(2 * (size_t)GYRE_DFA_MOST * sizeof *pair);
        if (!number || !pair) GYRE_GO(no_memory(err));
        pair[0] = a->start, pair[1] = b->states ? b->start : 0;
        number[a->start * wide + pair[1]] = ++n;
    }
    if (allocate(a->states ? GYRE_DFA_MOST : 0, classes, &d) != GYRE_OK) GYRE_GO(no_memory(err));
    memcpy(d->class_of, class_of, 256);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t x = pair[2 * k], y = pair[2 * k + 1];
        const bool in_b = y < b->states && b->accepts[y];
        d->accepts[k] = a->accepts[x] && in_b != minus;
        for (uint32_t c = 0; c < classes; c++) {
            const uint32_t to_a = gyre_dfa_next(a, x, first_of[c]);
            uint32_t to_b = y < b->states ? gyre_dfa_next(b, y, first_of[c]) : GYRE_DFA_DEAD;
            if (to_a == GYRE_DFA_DEAD || (to_b == GYRE_DFA_DEAD && !minus)) continue;
            if (to_b == GYRE_DFA_DEAD) to_b = b->states;
            uint32_t *to = &number[to_a * wide + to_b];
            if (!*to && n == GYRE_DFA_MOST) GYRE_GO(too_large(err));
            if (!*to) pair[2 * n] = to_a, pair[2 * n + 1] = to_b, *to = ++n;
            d->next[k * classes + c] = *to - 1;
        }
    }
    d->states = n;
    finish(d);
    uint32_t *less = realloc(d->next, ((size_t)n * classes + 1) * sizeof *less);
    if (less) d->next = less;
    *out = d;
    d = NULL;
done:
    gyre_dfa_free(d);
    free(number);
    free(pair);
    return st;
}
