// Pre-tokenizers: steps that cut a text into words by patterns, or rewrite its blanks, one after another; every piece
// of a step goes through the next.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize: out of memory"); }

static gyre_status room(const struct pretokenizer *pre, gyre_error *err)
{
    return pre->n < MAX_PRE_STEPS
               ? GYRE_OK
               : gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use tokenizer: more than %d steps of its pre-tokenizer",
                           MAX_PRE_STEPS);
}

gyre_status gyre_pre_add(struct pretokenizer *pre, const char *pattern, bool literal, enum pre_cut cut, gyre_error *err)
{
    GYRE_TRY(room(pre, err));
    struct pre_step step = {.cut = cut, .literal = literal};
    GYRE_TRY(gyre_pattern_compile(&step.pattern, pattern, literal, err));
    pre->steps[pre->n++] = step;
    return GYRE_OK;
}

gyre_status gyre_pre_add_prefix(struct pretokenizer *pre, const char *prefix, bool blanks_too, enum pre_prefix when,
                                gyre_error *err)
{
    GYRE_TRY(room(pre, err));
    char *copy = strdup(prefix);
    if (!copy) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
    pre->steps[pre->n++] = (struct pre_step){.prefix = copy, .blanks_too = blanks_too, .when = when};
    return GYRE_OK;
}

void gyre_pre_free(struct pretokenizer *pre)
{
    for (uint32_t i = 0; i < pre->n; i++) {
        gyre_pattern_free(&pre->steps[i].pattern);
        free(pre->steps[i].prefix);
    }
    *pre = (struct pretokenizer){0};
}

// ---- splitting ----------------------------------------------------------------------------------------

struct splitter {
    const struct pretokenizer *pre;
    struct gyre_matcher matchers[MAX_PRE_STEPS];
    pre_word word;
    void *user;
    gyre_error *err;
};

// A piece of a text; patterns see the shadow (pattern.h). `first`: it begins the whole text.
struct stretch {
    const char *text, *shadow;
    uint64_t bytes;
    bool first;
};

static struct stretch part(struct stretch of, uint64_t begin, uint64_t end)
{
    return (struct stretch){of.text + begin, of.shadow + begin, end - begin, of.first && begin == 0};
}

static gyre_status run(const struct splitter *s, uint32_t step, struct stretch piece);

// Pieces of one step that wait for what follows them, since that may belong to them.
struct joiner {
    const struct splitter *s;
    struct stretch whole;
    uint32_t step;
    uint64_t begin, end;
    bool any, match; // a piece waits; it is, or ends with, a match
};

static gyre_status release(struct joiner *j)
{
    if (!j->any) return GYRE_OK;
    j->any = false;
    return run(j->s, j->step + 1, part(j->whole, j->begin, j->end));
}

// Takes a match or what lies between two; joins it to the piece that waits as the step asks for.
static gyre_status offer(struct joiner *j, uint64_t begin, uint64_t end, bool match)
{
    const enum pre_cut cut = j->s->pre->steps[j->step].cut;
    if (cut == (match ? CUT_REMOVED : CUT_KEPT)) return release(j);
    const bool joined =
        j->any && ((cut == CUT_WITH_PREVIOUS && match && !j->match) || (cut == CUT_WITH_NEXT && !match && j->match) ||
                   (cut == CUT_CONTIGUOUS && match == j->match));
    if (!joined) {
        GYRE_TRY(release(j));
        j->begin = begin;
    }
    j->end = end;
    j->any = end > j->begin;
    j->match = match;
    return GYRE_OK;
}

static gyre_status split(const struct splitter *s, uint32_t step, struct stretch piece)
{
    struct joiner j = {.s = s, .whole = piece, .step = step};
    uint64_t done = 0, begin, end;
    for (bool found;;) {
        GYRE_TRY(gyre_pattern_find(&s->pre->steps[step].pattern, &s->matchers[step], piece.shadow, piece.bytes, done,
                                   &begin, &end, &found, s->err));
        if (!found) break;
        if (begin > done) GYRE_TRY(offer(&j, done, begin, false));
        if (end > begin) GYRE_TRY(offer(&j, begin, end, true));
        else GYRE_TRY(release(&j)); // an empty match only cuts
        done = end;
    }
    if (done < piece.bytes) GYRE_TRY(offer(&j, done, piece.bytes, false));
    return release(&j);
}

// Puts the step's prefix before a piece that does not begin with it, and in place of blanks.
static gyre_status rewrite(const struct splitter *s, uint32_t step, struct stretch piece)
{
    const struct pre_step *how = &s->pre->steps[step];
    const uint64_t length = strlen(how->prefix);
    uint64_t n = 0;
    const bool blank = how->blanks_too && piece.text[0] == ' ';
    const bool there = blank || (piece.bytes >= length && !memcmp(piece.text, how->prefix, length));
    const bool put = !there && (how->when == PREFIX_ALWAYS || (how->when == PREFIX_FIRST && piece.first));
    if (!put && !(how->blanks_too && memchr(piece.text, ' ', piece.bytes))) return run(s, step + 1, piece);
    char *text = malloc(length + piece.bytes * GYRE_MAX(length, 1)), *shadow = NULL;
    if (!text) return no_memory(s->err);
    if (put) memcpy(text, how->prefix, n = length);
    for (uint64_t i = 0; i < piece.bytes; i++) {
        if (!how->blanks_too || piece.text[i] != ' ') {
            text[n++] = piece.text[i];
            continue;
        }
        memcpy(text + n, how->prefix, length);
        n += length;
    }
    gyre_status st = GYRE_OK;
    if (!gyre_pattern_shadow(text, n, &shadow)) st = no_memory(s->err);
    else st = run(s, step + 1, (struct stretch){text, shadow ? shadow : text, n, piece.first});
    free(shadow);
    free(text);
    return st;
}

static gyre_status run(const struct splitter *s, uint32_t step, struct stretch piece)
{
    if (piece.bytes == 0) return GYRE_OK;
    if (step == s->pre->n) return s->word(s->user, piece.text, piece.bytes);
    return s->pre->steps[step].prefix ? rewrite(s, step, piece) : split(s, step, piece);
}

gyre_status gyre_pre_split(const struct pretokenizer *pre, const char *text, uint64_t bytes, bool first, pre_word word,
                           void *user, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    char *shadow = NULL;
    struct splitter s = {.pre = pre, .word = word, .user = user, .err = err};
    bool good = gyre_pattern_shadow(text, bytes, &shadow);
    for (uint32_t i = 0; i < pre->n && good; i++) good = gyre_matcher_init(&s.matchers[i]);
    if (!good) st = no_memory(err);
    else st = run(&s, 0, (struct stretch){text, shadow ? shadow : text, bytes, first});
    for (uint32_t i = 0; i < pre->n; i++) gyre_matcher_free(&s.matchers[i]);
    free(shadow);
    return st;
}
