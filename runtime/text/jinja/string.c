// Strings with marks, and the builder that makes them. See value.h.
#include "runtime/text/jinja/value.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

// ---- building ---------------------------------------------------------------------------------------

static void reserve(struct jinja_build *b, uint64_t bytes)
{
    if (bytes <= b->cap - b->n) return;
    const uint64_t cap = GYRE_MAX(2 * b->cap, b->n + bytes + 32);
    char *data = gyre_jinja_alloc(b->run, cap, 2); // the text, and its marks behind it
    uint8_t *plain = (uint8_t *)data + cap;
    if (b->n) memcpy(data, b->data, b->n);
    if (b->n) memcpy(plain, b->plain, b->n);
    b->data = data;
    b->plain = plain;
    b->cap = cap;
}

void gyre_jinja_put(struct jinja_build *b, const char *data, uint64_t bytes, bool plain)
{
    if (!bytes) return;
    reserve(b, bytes);
    gyre_jinja_work(b->run, bytes / 64);
    memcpy(b->data + b->n, data, bytes);
    memset(b->plain + b->n, plain, bytes);
    b->n += bytes;
    if (plain) b->n_plain += bytes;
}

void gyre_jinja_put_text(struct jinja_build *b, const char *text) { gyre_jinja_put(b, text, strlen(text), false); }

void gyre_jinja_put_part(struct jinja_build *b, const struct jinja_string *s, uint64_t from, uint64_t to)
{
    if (to <= from) return;
    gyre_jinja_put(b, s->data + from, to - from, s->input);
    if (!s->plain) return;
    b->n_plain -= s->input ? to - from : 0;
    memcpy(b->plain + b->n - (to - from), s->plain + from, to - from);
    for (uint64_t i = from; i < to; i++) b->n_plain += s->plain[i];
}

void gyre_jinja_put_string(struct jinja_build *b, const struct jinja_string *s)
{
    gyre_jinja_put_part(b, s, 0, s->bytes);
}

void gyre_jinja_put_char(struct jinja_build *b, uint32_t code, bool plain)
{
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)code, bytes);
    gyre_jinja_put(b, (const char *)bytes, (uint64_t)n, plain);
}

void gyre_jinja_put_printf(struct jinja_build *b, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gyre_jinja_put_text(b, text);
}

static uint64_t count_chars(const char *data, uint64_t bytes)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < bytes; i++) n += ((unsigned char)data[i] & 0xC0) != 0x80;
    return n;
}

static jinja_value make(struct jinja_run *run, const char *data, const uint8_t *plain, uint64_t bytes, bool input)
{
    struct jinja_string *s = gyre_jinja_alloc(run, 1, sizeof *s);
    gyre_jinja_work(run, bytes / 64);
    *s = (struct jinja_string){data ? data : "", plain, bytes, count_chars(data, bytes), input, false};
    return (jinja_value){.kind = JINJA_STRING, .string = s};
}

jinja_value gyre_jinja_built(struct jinja_build *b)
{
    const bool mixed = b->n_plain && b->n_plain < b->n;
    return make(b->run, b->data, mixed ? b->plain : NULL, b->n, b->n_plain != 0);
}

jinja_value gyre_jinja_text(struct jinja_run *run, const char *text)
{
    const uint64_t n = strlen(text);
    char *copy = gyre_jinja_alloc(run, n + 1, 1);
    memcpy(copy, text, n);
    return make(run, copy, NULL, n, false);
}

jinja_value gyre_jinja_string(struct jinja_run *run, const char *data, uint64_t bytes, bool input)
{
    return make(run, data, NULL, bytes, input);
}

jinja_value gyre_jinja_part(struct jinja_run *run, const struct jinja_string *s, uint64_t from, uint64_t to)
{
    const jinja_value v =
        make(run, s->data + from, s->plain ? s->plain + from : NULL, to > from ? to - from : 0, s->input);
    v.string->markup = s->markup;
    return v;
}

jinja_value gyre_jinja_markup(struct jinja_run *run, jinja_value v, bool markup)
{
    if (v.string->markup == markup) return v;
    struct jinja_string *s = gyre_jinja_alloc(run, 1, sizeof *s);
    *s = *v.string;
    s->markup = markup;
    return (jinja_value){.kind = JINJA_STRING, .string = s};
}

// ---- asking -----------------------------------------------------------------------------------------

bool gyre_jinja_plain_at(const struct jinja_string *s, uint64_t at) { return s->plain ? s->plain[at] : s->input; }

uint64_t gyre_jinja_byte_at(const struct jinja_string *s, uint64_t n)
{
    if (s->chars == s->bytes || n == 0) return n;
    if (n >= s->chars) return s->bytes;
    uint64_t at = 0;
    while (n--) do
            at++;
        while (at < s->bytes && ((unsigned char)s->data[at] & 0xC0) == 0x80);
    return at;
}

uint32_t gyre_jinja_char(const struct jinja_string *s, uint64_t at, uint32_t *bytes)
{
    uint32_t code;
    const int n = gyre_utf8_look(s->data + at, s->bytes - at, &code);
    *bytes = n > 0 ? (uint32_t)n : 1;
    return code;
}

bool gyre_jinja_is(const struct jinja_string *s, const char *text)
{
    return s->bytes == strlen(text) && memcmp(s->data, text, s->bytes) == 0;
}

// Long texts are told apart by a hash that rolls along, so that no text can make a search slow.
enum { HASHED = 16 };
static const uint64_t hash_base = 0x9E3779B97F4A7C15u;

static uint64_t hash_of(const char *data, uint64_t bytes, bool back)
{
    uint64_t h = 0;
    for (uint64_t i = 0; i < bytes; i++) h = h * hash_base + (unsigned char)data[back ? bytes - 1 - i : i] + 1;
    return h;
}

static uint64_t search_hashed(const char *data, uint64_t bytes, const struct jinja_string *what, bool back)
{
    const uint64_t m = what->bytes, wanted = hash_of(what->data, m, back), last = bytes - m;
    uint64_t top = 1, h = hash_of(back ? data + last : data, m, back);
    for (uint64_t i = 1; i < m; i++) top *= hash_base;
    for (uint64_t i = 0;; i++) {
        const uint64_t at = back ? last - i : i;
        if (h == wanted && memcmp(data + at, what->data, m) == 0) return at;
        if (i == last) return UINT64_MAX;
        const unsigned char out = (unsigned char)data[back ? at + m - 1 : at],
                            in = (unsigned char)data[back ? at - 1 : at + m];
        h = (h - (out + 1u) * top) * hash_base + in + 1;
    }
}

uint64_t gyre_jinja_search(const struct jinja_string *s, uint64_t from, uint64_t to, const struct jinja_string *what)
{
    if (from > to || what->bytes > to - from) return UINT64_MAX;
    if (what->bytes == 0) return from;
    if (what->bytes > HASHED) {
        const uint64_t at = search_hashed(s->data + from, to - from, what, false);
        return at == UINT64_MAX ? at : from + at;
    }
    for (const char *p = s->data + from, *end = s->data + to - what->bytes; p <= end; p++) {
        p = memchr(p, what->data[0], (size_t)(end - p) + 1);
        if (!p) break;
        if (memcmp(p, what->data, what->bytes) == 0) return (uint64_t)(p - s->data);
    }
    return UINT64_MAX;
}

uint64_t gyre_jinja_search_back(const struct jinja_string *s, uint64_t from, uint64_t to,
                                const struct jinja_string *what)
{
    if (from > to || what->bytes > to - from) return UINT64_MAX;
    if (what->bytes > HASHED) {
        const uint64_t at = search_hashed(s->data + from, to - from, what, true);
        return at == UINT64_MAX ? at : from + at;
    }
    for (uint64_t at = to - what->bytes + 1; at-- > from;)
        if (memcmp(s->data + at, what->data, what->bytes) == 0) return at;
    return UINT64_MAX;
}

const char *gyre_jinja_c_text(struct jinja_run *run, const struct jinja_string *s)
{
    char *copy = gyre_jinja_alloc(run, s->bytes + 1, 1);
    memcpy(copy, s->data, s->bytes);
    return copy;
}

bool gyre_jinja_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

jinja_value gyre_jinja_escape(struct jinja_run *run, jinja_value v)
{
    const struct jinja_string *s = v.string;
    struct jinja_build b = {.run = run};
    uint64_t done = 0;
    for (uint64_t i = 0; i < s->bytes; i++) {
        const char *with = s->data[i] == '<'    ? "&lt;"
                           : s->data[i] == '>'  ? "&gt;"
                           : s->data[i] == '&'  ? "&amp;"
                           : s->data[i] == '"'  ? "&#34;"
                           : s->data[i] == '\'' ? "&#39;"
                                                : NULL;
        if (!with) continue;
        gyre_jinja_put_part(&b, s, done, i);
        gyre_jinja_put(&b, with, strlen(with), gyre_jinja_plain_at(s, i));
        done = i + 1;
    }
    gyre_jinja_put_part(&b, s, done, s->bytes);
    return gyre_jinja_markup(run, gyre_jinja_built(&b), true);
}
