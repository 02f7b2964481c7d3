// See normalize.h. Every step reads one buffer and writes another; a step that has nothing to do writes none.
#include "runtime/text/normalize.h"

#include "runtime/util/base.h"
#include "runtime/util/text.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize: out of memory"); }

// ---- steps --------------------------------------------------------------------------------------------

static gyre_status add(struct gyre_normalizer *n, struct gyre_normal_step step, const char *to, gyre_error *err)
{
    if (n->n == GYRE_MAX_NORMAL_STEPS)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use tokenizer: more than %d steps of its normalizer",
                         GYRE_MAX_NORMAL_STEPS);
    if (to && !(step.to = strdup(to))) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
    n->steps[n->n++] = step;
    return GYRE_OK;
}

gyre_status gyre_normal_unicode(struct gyre_normalizer *n, bool compose, bool compatible, gyre_error *err)
{
    return add(n, (struct gyre_normal_step){.kind = GYRE_NORMAL_UNICODE, .compose = compose, .compatible = compatible},
               NULL, err);
}

gyre_status gyre_normal_prefix(struct gyre_normalizer *n, const char *to, gyre_error *err)
{
    return add(n, (struct gyre_normal_step){.kind = GYRE_NORMAL_PREFIX}, to, err);
}

gyre_status gyre_normal_strip(struct gyre_normalizer *n, bool left, bool right, gyre_error *err)
{
    return add(n, (struct gyre_normal_step){.kind = GYRE_NORMAL_STRIP, .left = left, .right = right}, NULL, err);
}

gyre_status gyre_normal_replace(struct gyre_normalizer *n, const char *pattern, bool literal, const char *to,
                                gyre_error *err)
{
    struct gyre_normal_step step = {.kind = GYRE_NORMAL_REPLACE, .literal = literal};
    GYRE_TRY(gyre_pattern_compile(&step.pattern, pattern, literal, err));
    gyre_status st = GYRE_OK;
    if (gyre_pattern_may_be_empty(&step.pattern)) // see gyre_pattern_find
        st = gyre_fail(err, GYRE_E_UNSUPPORTED,
                       "cannot use tokenizer: it replaces what a pattern finds that may be nothing (%s)",
                       gyre_show(pattern, strlen(pattern)).text);
    if (st == GYRE_OK) st = add(n, step, to, err);
    if (st != GYRE_OK) gyre_pattern_free(&step.pattern);
    return st;
}

void gyre_normal_free(struct gyre_normalizer *n)
{
    for (uint32_t i = 0; i < n->n; i++) {
        gyre_pattern_free(&n->steps[i].pattern);
        free(n->steps[i].to);
    }
    *n = (struct gyre_normalizer){0};
}

bool gyre_normal_is_nfc(const struct gyre_normalizer *n)
{
    return n->n == 1 && n->steps[0].kind == GYRE_NORMAL_UNICODE && n->steps[0].compose && !n->steps[0].compatible;
}

bool gyre_is_blank(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// ---- texts --------------------------------------------------------------------------------------------

// What a step gives: `data` is malloc'd, or NULL where the text stays as it is.
struct made {
    char *data;
    size_t bytes, cap;
};

static bool put(struct made *m, const char *data, uint64_t bytes)
{
    return gyre_append(&m->data, &m->bytes, &m->cap, data, bytes);
}

// Where the text's first character beyond ASCII is.
static uint64_t ascii_prefix(const char *text, uint64_t bytes)
{
    uint64_t i = 0;
    for (uint64_t word; i + 8 <= bytes; i += 8) {
        memcpy(&word, text + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    while (i < bytes && !(text[i] & 0x80)) i++;
    return i;
}

static gyre_status map(int how, const char *text, uint64_t bytes, struct made *out, gyre_error *err)
{
    utf8proc_uint8_t *part = NULL;
    if (bytes == 0) return GYRE_OK;
    const utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &part, (utf8proc_option_t)how);
    if (n < 0) return gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize: %s", utf8proc_errmsg(n));
    const bool good = put(out, (const char *)part, (uint64_t)n);
    free(part);
    return good ? GYRE_OK : no_memory(err);
}

// What is unknown to a normal form stays, and what stands on its sides does not meet.
static gyre_status map_known(int how, const char *text, uint64_t bytes, struct made *out, gyre_error *err)
{
    uint64_t done = 0;
    for (uint64_t at = 0; at < bytes;) {
        uint32_t code;
        const int k = gyre_utf8_look(text + at, bytes - at, &code);
        const uint64_t n = k > 0 ? (uint64_t)k : 1;
        if (k > 0 && gyre_normal_is_young(code)) {
            GYRE_TRY(map(how, text + done, at - done, out, err));
            if (!put(out, text + at, n)) return no_memory(err);
            done = at + n;
        }
        at += n;
    }
    return map(how, text + done, bytes - done, out, err);
}

// Normal forms change nothing in ASCII, nor across the border before an ASCII character: a text is normalized in
// stretches that begin with the ASCII character before one that is none.
static gyre_status unicode(const struct gyre_normal_step *step, const char *text, uint64_t bytes, struct made *out,
                           gyre_error *err)
{
    const int how = UTF8PROC_STABLE | (step->compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                    (step->compatible ? UTF8PROC_COMPAT : 0);
    uint64_t plain = ascii_prefix(text, bytes);
    if (plain == bytes) return GYRE_OK;
    for (uint64_t at = 0; at < bytes;) {
        uint64_t begin = at + plain, end;
        if (begin > at && begin < bytes) begin--;
        if (!put(out, text + at, begin - at)) return no_memory(err);
        for (end = GYRE_MIN(at + plain, bytes); end < bytes && (text[end] & 0x80); end++) {
        }
        GYRE_TRY(map_known(how, text + begin, end - begin, out, err));
        at = end;
        plain = ascii_prefix(text + at, bytes - at);
    }
    return GYRE_OK;
}

static gyre_status replace(const struct gyre_normal_step *step, const char *text, uint64_t bytes, struct made *out,
                           gyre_error *err)
{
    struct gyre_matcher matcher;
    char *shadow = NULL;
    bool found = true, good = gyre_matcher_init(&matcher) && gyre_pattern_shadow(text, bytes, &shadow);
    const uint64_t length = strlen(step->to);
    uint64_t done = 0, begin, end;
    gyre_status st = good ? GYRE_OK : no_memory(err);
    while (st == GYRE_OK && good) {
        st =
            gyre_pattern_find(&step->pattern, &matcher, shadow ? shadow : text, bytes, done, &begin, &end, &found, err);
        if (st != GYRE_OK || !found) break;
        good = put(out, text + done, begin - done) && put(out, step->to, length);
        done = end;
    }
    if (st == GYRE_OK && good && out->data) good = put(out, text + done, bytes - done);
    gyre_matcher_free(&matcher);
    free(shadow);
    return st == GYRE_OK && !good ? no_memory(err) : st;
}

// Replacing one byte, as SentencePiece does with blanks: the common case, without a matcher.
static gyre_status replace_byte(const struct gyre_normal_step *step, const char *text, uint64_t bytes, struct made *out,
                                gyre_error *err)
{
    const char from = *step->pattern.source;
    const uint64_t length = strlen(step->to);
    uint64_t done = 0;
    for (const char *p; done < bytes && (p = memchr(text + done, from, bytes - done));) {
        const uint64_t at = (uint64_t)(p - text);
        if (!put(out, text + done, at - done) || !put(out, step->to, length)) return no_memory(err);
        done = at + 1;
    }
    return !out->data || put(out, text + done, bytes - done) ? GYRE_OK : no_memory(err);
}

static gyre_status strip(const struct gyre_normal_step *step, const char *text, uint64_t bytes, struct made *out,
                         gyre_error *err)
{
    uint64_t begin = 0, end = bytes;
    uint32_t code, n;
    for (int k; step->left && begin < end && (k = gyre_utf8_look(text + begin, end - begin, &code)) > 0;) {
        if (!gyre_is_blank(code)) break;
        begin += (uint64_t)k;
    }
    while (step->right && end > begin && gyre_is_blank(gyre_utf8_last(text + begin, end - begin, &n)) && n) end -= n;
    if (end - begin == bytes) return GYRE_OK;
    return put(out, text + begin, end - begin) ? GYRE_OK : no_memory(err);
}

static gyre_status apply(const struct gyre_normal_step *step, const char *text, uint64_t bytes, bool begins,
                         struct made *out, gyre_error *err)
{
    switch (step->kind) {
    case GYRE_NORMAL_UNICODE:
        return unicode(step, text, bytes, out, err);
    case GYRE_NORMAL_PREFIX:
        if (!begins) return GYRE_OK;
        return put(out, step->to, strlen(step->to)) && put(out, text, bytes) ? GYRE_OK : no_memory(err);
    case GYRE_NORMAL_REPLACE:
        if (step->literal && strlen(step->pattern.source) == 1) return replace_byte(step, text, bytes, out, err);
        return replace(step, text, bytes, out, err);
    case GYRE_NORMAL_STRIP:
        return strip(step, text, bytes, out, err);
    }
    return GYRE_OK;
}

gyre_status gyre_normalize(const struct gyre_normalizer *normalizer, const char *text, uint64_t bytes, bool begins,
                           char **out, uint64_t *n, gyre_error *err)
{
    char *current = NULL;
    *out = NULL;
    *n = bytes;
    for (uint32_t i = 0; i < normalizer->n; i++) {
        struct made made = {0};
        const gyre_status st = apply(&normalizer->steps[i], current ? current : text, *n, begins, &made, err);
        if (st != GYRE_OK) {
            free(made.data);
            free(current);
            return st;
        }
        if (!made.data) continue;
        free(current);
        current = made.data;
        *n = made.bytes;
    }
    *out = current;
    return GYRE_OK;
}
