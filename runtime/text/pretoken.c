// Pre-tokenizers: regular expressions (PCRE2 with Unicode properties, compiled just in time) that cut text into words.
//
// The patterns are the published ones of the model families. PCRE2's \s differs from the original engines' in one
// character, U+180E (since Unicode 6.3 no space): the patterns see U+200B in its place, of the same length and
// category.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/text/tokenizer_impl.h"
#include "runtime/util/utf8.h"

#include "runtime/util/base.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_LIMIT = 10000000, HEAP_LIMIT_KIB = 256 << 10, MAX_PATTERN = 16384 };

const char gyre_pre_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char gyre_pre_digit[] = "\\p{N}", gyre_pre_digits[] = "\\p{N}+";

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LETTERS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define SIGNS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"

static const struct pre_preset presets[] = {
    {{"gpt-2", "phi-2", "mpt", "olmo"}, {gyre_pre_gpt2}, false, false, false},
    // llama.cpp's own, which it also takes for files that name none.
    {{"default"},
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
      "\\p{N}+", "[0-9][0-9][0-9]"},
     false,
     false,
     false},
    {{"smollm", "starcoder", "refact", "command-r", "codeshell"}, {gyre_pre_digit, gyre_pre_gpt2}, false, false, false},
    {{"llama-bpe", "llama3", "llama-v3"}, {CONTRACTIONS LETTERS "\\p{N}{1,3}|" SIGNS SPACES}, false, true, true},
    {{"smaug-bpe"}, {CONTRACTIONS LETTERS "\\p{N}{1,3}|" SIGNS SPACES}, false, false, false},
    {{"qwen2", "deepseek-r1-qwen"}, {CONTRACTIONS LETTERS "\\p{N}|" SIGNS SPACES}, true, false, false},
    {{"tekken"},
     {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
     false,
     true,
     true},
};

const struct pre_preset *gyre_pre_preset(const char *name)
{
    for (size_t i = 0; i < GYRE_COUNT(presets); i++)
        for (size_t k = 0; k < GYRE_COUNT(presets[i].names) && presets[i].names[k]; k++)
            if (!strcmp(name, presets[i].names[k])) return &presets[i];
    return NULL;
}

void gyre_pre_list(char *out, size_t cap)
{
    size_t n = 0;
    *out = 0;
    for (size_t i = 0; i < GYRE_COUNT(presets); i++)
        for (size_t k = 0; k < GYRE_COUNT(presets[i].names) && presets[i].names[k] && n < cap; k++)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", presets[i].names[k]);
}

const char *gyre_pre_name(const struct pretokenizer *pre, bool nfc, bool ignore_merges)
{
    for (size_t i = 0; i < GYRE_COUNT(presets); i++) {
        const struct pre_preset *p = &presets[i];
        bool same = p->nfc == nfc && p->ignore_merges == ignore_merges;
        uint32_t n = 0;
        for (; n < GYRE_COUNT(p->patterns) && p->patterns[n] && same; n++)
            same = n < pre->n && pre->steps[n].keep == KEEP_ALL && !strcmp(pre->steps[n].pattern, p->patterns[n]);
        if (same && n == pre->n) return p->names[0];
    }
    return NULL;
}

gyre_status gyre_pre_add(struct pretokenizer *pre, const char *pattern, bool literal, enum pre_keep keep,
                         gyre_error *err)
{
    int code;
    PCRE2_SIZE at;
    const size_t length = strlen(pattern);
    if (pre->n == MAX_PRE_STEPS || length > MAX_PATTERN)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use tokenizer: its pre-tokenizer has too many steps or too long a pattern");
    const uint32_t flags = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
    char *text = strdup(pattern);
    if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, length, flags, &code, &at, NULL);
    if (!compiled) {
        PCRE2_UCHAR why[128];
        free(text);
        pcre2_get_error_message(code, why, sizeof why);
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use tokenizer: its pattern is not accepted at character %zu: %s", (size_t)at,
                         (const char *)why);
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); // where it fails, the interpreter matches
    pre->steps[pre->n++] = (struct pre_step){compiled, text, keep};
    return GYRE_OK;
}

void gyre_pre_free(struct pretokenizer *pre)
{
    for (uint32_t i = 0; i < pre->n; i++) {
        pcre2_code_free(pre->steps[i].code);
        free(pre->steps[i].pattern);
    }
    *pre = (struct pretokenizer){0};
}

// State of one text. `text` is what words are made of, `shadow` what the patterns see; same length.
struct splitter {
    const struct pretokenizer *pre;
    const char *text, *shadow;
    pcre2_match_data *match[MAX_PRE_STEPS];
    pcre2_match_context *limits;
    pre_word word;
    void *user;
    gyre_error *err;
};

static int find(const struct splitter *s, uint32_t step, uint64_t begin, uint64_t length, uint64_t from)
{
    const pcre2_code *code = s->pre->steps[step].code;
    PCRE2_SPTR subject = (PCRE2_SPTR)s->shadow + begin;
    const int found = pcre2_match(code, subject, length, from, PCRE2_NO_UTF_CHECK, s->match[step], s->limits);
    if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
    return pcre2_match(code, subject, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match[step], s->limits);
}

static gyre_status split_step(const struct splitter *s, uint32_t step, uint64_t begin, uint64_t end);

// Hands a piece to the next step unless it is empty or of the kind that this step drops.
static gyre_status piece(const struct splitter *s, uint32_t step, enum pre_keep dropped_by, uint64_t begin,
                         uint64_t end)
{
    if (begin == end || s->pre->steps[step].keep == dropped_by) return GYRE_OK;
    return split_step(s, step + 1, begin, end);
}

static gyre_status split_step(const struct splitter *s, uint32_t step, uint64_t begin, uint64_t end)
{
    if (step == s->pre->n) return s->word(s->user, s->text + begin, end - begin);
    const uint64_t length = end - begin;
    uint64_t done = 0, from = 0;
    while (from < length) {
        const int found = find(s, step, begin, length, from);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found == PCRE2_ERROR_NOMEMORY) return gyre_fail(s->err, GYRE_E_NOMEM, "cannot tokenize: out of memory");
        if (found < 0)
            return gyre_fail(s->err, GYRE_E_UNSUPPORTED,
                             "cannot tokenize: the tokenizer's pattern is too expensive for this text");
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(s->match[step]);
        const uint64_t first = bounds[0], last = bounds[1];
        if (last <= first || first < done) { // an empty match cuts nothing
            uint32_t code;
            from = GYRE_MAX(from, last);
            if (from < length) from += (uint64_t)gyre_utf8_look(s->shadow + begin + from, length - from, &code);
            continue;
        }
        GYRE_TRY(piece(s, step, KEEP_MATCHES, begin + done, begin + first));
        GYRE_TRY(piece(s, step, KEEP_GAPS, begin + first, begin + last));
        done = from = last;
    }
    return piece(s, step, KEEP_MATCHES, begin + done, end);
}

// Where U+180E is, at or after `from`; `bytes` where it is not.
static uint64_t find_u180e(const char *text, uint64_t bytes, uint64_t from)
{
    for (const char *p; from < bytes && (p = memchr(text + from, 0xE1, bytes - from)); from++) {
        from = (uint64_t)(p - text);
        if (bytes - from >= 3 && !memcmp(p, "\xE1\xA0\x8E", 3)) return from;
    }
    return bytes;
}

gyre_status gyre_pre_split(const struct pretokenizer *pre, const char *text, uint64_t bytes, pre_word word, void *user,
                           gyre_error *err)
{
    gyre_status st = GYRE_OK;
    char *copy = NULL;
    struct splitter s = {.pre = pre, .text = text, .shadow = text, .word = word, .user = user, .err = err};
    s.limits = pcre2_match_context_create(NULL);
    bool good = s.limits;
    for (uint32_t i = 0; i < pre->n && good; i++) good = (s.match[i] = pcre2_match_data_create(1, NULL)) != NULL;
    const uint64_t odd = find_u180e(text, bytes, 0);
    if (odd < bytes && good) {
        good = (copy = malloc(bytes)) != NULL;
        if (good) memcpy(copy, text, bytes);
        for (uint64_t at = good ? odd : bytes; at < bytes; at = find_u180e(copy, bytes, at))
            memcpy(copy + at, "\xE2\x80\x8B", 3);
        s.shadow = copy;
    }
    if (!good) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize: out of memory");
        goto done;
    }
    pcre2_set_match_limit(s.limits, MATCH_LIMIT);
    pcre2_set_heap_limit(s.limits, HEAP_LIMIT_KIB);
    st = split_step(&s, 0, 0, bytes);
done:
    for (uint32_t i = 0; i < pre->n; i++) pcre2_match_data_free(s.match[i]);
    pcre2_match_context_free(s.limits);
    free(copy);
    return st;
}
