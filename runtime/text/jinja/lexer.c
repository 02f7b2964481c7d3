// Cuts a template into tokens. What blanks a tag takes with it follows jinja2 with trim_blocks and lstrip_blocks. See
// syntax.h.
#include "runtime/text/jinja/syntax.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

struct lexer {
    struct jinja_syntax *s;
    const char *text;
    uint64_t at, bytes;
    uint64_t counted; // up to where line and column were counted
    uint32_t line, column;
    bool line_starts; // what was read last ended with a line
};

void *gyre_jinja_keep(struct jinja_syntax *s, uint64_t n, uint64_t size)
{
    void *memory = gyre_arena_array(s->arena, n, size);
    if (!memory) {
        gyre_fail(s->err, GYRE_E_NOMEM, "cannot read template (%s): out of memory", s->name);
        longjmp(s->leave, 1);
    }
    return memory;
}

_Noreturn void gyre_jinja_fault(struct jinja_syntax *s, uint32_t line, uint32_t column, const char *format, ...)
{
    char why[300];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    for (char *p = why; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    gyre_fail(s->err, GYRE_E_FORMAT, "cannot read template (%s, line %u, column %u): %s",
              gyre_show(s->name, strlen(s->name)).text, line, column, why);
    longjmp(s->leave, 1);
}

// ---- places -----------------------------------------------------------------------------------------

static void count_to(struct lexer *l, uint64_t at)
{
    for (; l->counted < at; l->counted++) {
        if (l->text[l->counted] == '\n') l->line++, l->column = 1;
        else l->column += ((unsigned char)l->text[l->counted] & 0xC0) != 0x80;
    }
}

static _Noreturn void fault_at(struct lexer *l, uint64_t at, const char *why)
{
    count_to(l, at);
    gyre_jinja_fault(l->s, l->line, l->column, "%s", why);
}

static struct jinja_token *add(struct lexer *l, enum jinja_token_kind kind, uint64_t from, uint64_t bytes)
{
    struct jinja_syntax *s = l->s;
    if (s->n_tokens == s->cap_tokens) {
        const uint64_t cap = 2 * s->cap_tokens + 64;
        struct jinja_token *grown = gyre_jinja_keep(s, cap, sizeof *grown);
        if (s->n_tokens) memcpy(grown, s->token, s->n_tokens * sizeof *grown);
        s->token = grown;
        s->cap_tokens = cap;
    }
    struct jinja_token *t = &s->token[s->n_tokens++];
    char *text = gyre_jinja_keep(s, bytes + 1, 1);
    memcpy(text, l->text + from, bytes);
    count_to(l, from);
    *t = (struct jinja_token){kind, l->line, l->column, text, bytes, {0}};
    return t;
}

static bool starts(const struct lexer *l, uint64_t at, const char *with)
{
    const size_t n = strlen(with);
    return at <= l->bytes && n <= l->bytes - at && memcmp(l->text + at, with, n) == 0;
}

// Behind the blanks at `at`.
static uint64_t blanks(const struct lexer *l, uint64_t at)
{
    uint32_t code;
    int n;
    while (at < l->bytes && (n = gyre_utf8_look(l->text + at, l->bytes - at, &code)) > 0 && gyre_jinja_is_space(code))
        at += (uint64_t)n;
    return at;
}

static uint64_t without_blanks(const struct lexer *l, uint64_t from, uint64_t to)
{
    uint32_t n;
    while (to > from && gyre_jinja_is_space(gyre_utf8_last(l->text + from, to - from, &n)) && n) to -= n;
    return to;
}

// Behind "-%}" with its blanks, "+%}", or "%}" with its line end; 0: none of them is at `at`.
static uint64_t tag_end(const struct lexer *l, uint64_t at, const char *end, bool trims)
{
    if (starts(l, at, "-") && starts(l, at + 1, end)) return blanks(l, at + 3);
    if (trims && starts(l, at, "+") && starts(l, at + 1, end)) return at + 3;
    if (!starts(l, at, end)) return 0;
    return at + 2 + (trims && starts(l, at + 2, "\n"));
}

static void moved(struct lexer *l, uint64_t to)
{
    if (to > l->at) l->line_starts = l->text[to - 1] == '\n';
    l->at = to;
}

// The text before a tag, whose sign (or 0) says what blanks go.
static void put_text(struct lexer *l, uint64_t from, uint64_t to, char sign, bool is_tag)
{
    if (sign == '-') {
        to = without_blanks(l, from, to);
    } else if (sign != '+' && is_tag) {
        uint64_t line = to;
        while (line > from && l->text[line - 1] != '\n') line--;
        if ((line > from || l->line_starts) && without_blanks(l, line, to) == line) to = line;
    }
    if (to > from) add(l, TOKEN_TEXT, from, to - from);
}

// ---- inside of tags ---------------------------------------------------------------------------------

static bool begins_name(uint32_t c)
{
    if (c < 128) return c == '_' || (c | 32) - 'a' < 26u;
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || k == UTF8PROC_CATEGORY_NL;
}

static bool goes_on_name(uint32_t c)
{
    if (c < 128) return begins_name(c) || c - '0' < 10u;
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return begins_name(c) || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ND ||
           k == UTF8PROC_CATEGORY_PC;
}

static bool take_name(struct lexer *l)
{
    uint64_t end = l->at;
    uint32_t code;
    int n;
    while (end < l->bytes && (n = gyre_utf8_look(l->text + end, l->bytes - end, &code)) > 0 &&
           (end == l->at ? begins_name(code) : goes_on_name(code)))
        end += (uint64_t)n;
    if (end == l->at) return false;
    add(l, TOKEN_NAME, l->at, end - l->at);
    moved(l, end);
    return true;
}

static bool is_digit(const struct lexer *l, uint64_t at)
{
    return at < l->bytes && l->text[at] >= '0' && l->text[at] <= '9';
}

static uint64_t digits(const struct lexer *l, uint64_t at)
{
    while (is_digit(l, at) || (starts(l, at, "_") && is_digit(l, at + 1))) at++;
    return at;
}

static bool take_number(struct lexer *l)
{
    if (!is_digit(l, l->at)) return false;
    const uint64_t whole = digits(l, l->at);
    uint64_t end = whole;
    const bool after_dot = l->at > 0 && l->text[l->at - 1] == '.'; // x.0.5 has no 0.5 in it
    if (!after_dot && starts(l, end, ".") && is_digit(l, end + 1)) end = digits(l, end + 1);
    const uint64_t sign = end + (starts(l, end + 1, "+") || starts(l, end + 1, "-"));
    if (!after_dot && (starts(l, end, "e") || starts(l, end, "E")) && is_digit(l, sign + 1)) end = digits(l, sign + 1);
    const bool real = end > whole;
    const char base = whole == l->at + 1 && l->text[l->at] == '0' && whole < l->bytes ? (char)(l->text[whole] | 32) : 0;
    if (!real && (base == 'x' || base == 'o' || base == 'b')) {
        end = whole + 1;
        while (end < l->bytes &&
               (is_digit(l, end) || l->text[end] == '_' || ((unsigned)(l->text[end] | 32) - 'a' < 6 && base == 'x')))
            end++;
    }
    struct jinja_token *t = add(l, TOKEN_NUMBER, l->at, end - l->at);
    const struct jinja_string text = {.data = t->text, .bytes = t->bytes};
    t->value.kind = real ? JINJA_FLOAT : JINJA_INT;
    if (real ? !gyre_jinja_parse_float(&text, &t->value.real)
             : !gyre_jinja_parse_int(text.data, text.bytes, 0, &t->value.integer))
        gyre_jinja_fault(l->s, t->line, t->column, "the number %s has too many digits",
                         gyre_show(t->text, t->bytes).text);
    moved(l, end);
    return true;
}

static uint32_t hex(const char *p, int n)
{
    uint32_t value = 0;
    for (int i = 0; i < n; i++) {
        const char c = p[i];
        const int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return UINT32_MAX;
        value = value << 4 | (uint32_t)d;
    }
    return value;
}

// One escape at p (behind the backslash), as in Python: returns its length and writes its character; 0: it is none.
static int unescape(struct lexer *l, const char *p, uint64_t left, char **out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = *p ? strchr(from, *p) : NULL;
    uint32_t code = 0;
    int length;
    if (simple) {
        *(*out)++ = to[simple - from];
        return 1;
    }
    if (*p == '\n') return 1;
    if (*p >= '0' && *p <= '7') {
        for (length = 0; length < 3 && (uint64_t)length < left && p[length] >= '0' && p[length] <= '7'; length++)
            code = code * 8 + (uint32_t)(p[length] - '0');
    } else {
        length = *p == 'x' ? 3 : *p == 'u' ? 5 : *p == 'U' ? 9 : 0;
        if (length == 0) return 0;
        code = (uint64_t)length <= left ? hex(p + 1, length - 1) : UINT32_MAX;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        fault_at(l, l->at, "a string has an escape that is no character");
    *out += utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)*out);
    return length;
}

static bool take_string(struct lexer *l)
{
    const char quote = l->text[l->at];
    if (quote != '\'' && quote != '"') return false;
    uint64_t end = l->at + 1;
    while (end < l->bytes && l->text[end] != quote) end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->bytes) fault_at(l, l->at, "a string does not end");
    struct jinja_token *t = add(l, TOKEN_STRING, l->at + 1, end - l->at - 1);
    char *out = (char *)(uintptr_t)t->text; // no escape is shorter than its character
    for (const char *p = t->text, *stop = p + t->bytes; p < stop;) {
        const int n = *p == '\\' && p + 1 < stop ? unescape(l, p + 1, (uint64_t)(stop - p - 1), &out) : 0;
        if (n) p += n + 1;
        else *out++ = *p++;
    }
    t->bytes = (uint64_t)(out - t->text);
    *out = 0;
    moved(l, end + 1);
    return true;
}

static bool take_sign(struct lexer *l)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    uint64_t n = strchr("+-/*%~[](){}><=.:|,;", l->text[l->at]) && l->text[l->at] ? 1 : 0;
    for (size_t i = 0; i < GYRE_COUNT(two); i++)
        if (starts(l, l->at, two[i])) n = 2;
    if (n == 0) return false;
    add(l, TOKEN_SIGN, l->at, n);
    moved(l, l->at + n);
    return true;
}

// Brackets must close what is open; the end of the tag is none while one is.
static void balance(struct lexer *l, char *open, uint64_t *n, uint64_t cap)
{
    const struct jinja_token *t = &l->s->token[l->s->n_tokens - 1];
    const char c = t->text[0];
    if (t->kind != TOKEN_SIGN || t->bytes != 1) return;
    if (c == '(' || c == '[' || c == '{') {
        if (*n == cap)
            gyre_jinja_fault(l->s, t->line, t->column, "more than %llu brackets are open", (unsigned long long)cap);
        open[(*n)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (*n == 0) gyre_jinja_fault(l->s, t->line, t->column, "unexpected '%c'", c);
        if (open[--*n] != c) gyre_jinja_fault(l->s, t->line, t->column, "unexpected '%c', expected '%c'", c, open[*n]);
    }
}

static void take_code(struct lexer *l, bool print)
{
    enum { OPEN = JINJA_MAX_DEPTH };
    char open[OPEN];
    uint64_t n_open = 0;
    const uint64_t began = l->at;
    for (;;) {
        const uint64_t after = blanks(l, l->at);
        if (after > l->at) moved(l, after);
        if (l->at >= l->bytes) fault_at(l, began, print ? "a print ({{) does not end" : "a tag ({%) does not end");
        const uint64_t end = n_open ? 0 : tag_end(l, l->at, print ? "}}" : "%}", !print);
        if (end) {
            add(l, print ? TOKEN_PRINT_END : TOKEN_TAG_END, l->at, 0);
            moved(l, end);
            return;
        }
        if (!take_number(l) && !take_name(l) && !take_string(l) && !take_sign(l)) {
            char why[80];
            snprintf(why, sizeof why, "unexpected char %s",
                     gyre_show(l->text + l->at, GYRE_MIN(l->bytes - l->at, 1u)).text);
            fault_at(l, l->at, why);
        }
        balance(l, open, &n_open, OPEN);
    }
}

// ---- between tags -----------------------------------------------------------------------------------

static char sign_at(const struct lexer *l, uint64_t at)
{
    return starts(l, at, "-") ? '-' : starts(l, at, "+") ? '+' : 0;
}

static void take_comment(struct lexer *l, uint64_t from)
{
    for (uint64_t at = from; at < l->bytes; at++) {
        const uint64_t end = tag_end(l, at, "#}", true);
        if (!end) continue;
        moved(l, end);
        return;
    }
    fault_at(l, l->at, "Missing end of comment tag");
}

// Behind "{% NAME %}" at `at`; 0: something else is there. `ends`: its end may take blanks as a tag's.
static uint64_t word_tag(const struct lexer *l, uint64_t at, const char *name, bool ends)
{
    uint64_t p = at + 2 + (sign_at(l, at + 2) != 0);
    p = blanks(l, p);
    if (!starts(l, p, name)) return 0;
    p = blanks(l, p + strlen(name));
    if (ends) return tag_end(l, p, "%}", true);
    return starts(l, p, "-%}") ? blanks(l, p + 3) : starts(l, p, "%}") ? p + 2 : 0;
}

static void take_raw(struct lexer *l, uint64_t from)
{
    moved(l, from);
    for (uint64_t at = from; at < l->bytes; at++) {
        const uint64_t end = starts(l, at, "{%") ? word_tag(l, at, "endraw", true) : 0;
        if (!end) continue;
        put_text(l, from, at, sign_at(l, at + 2), true);
        moved(l, end);
        return;
    }
    fault_at(l, from, "Missing end of raw directive");
}

static uint64_t next_tag(const struct lexer *l)
{
    for (uint64_t at = l->at; at + 1 < l->bytes; at++) {
        const char *p = memchr(l->text + at, '{', l->bytes - at - 1);
        if (!p) break;
        at = (uint64_t)(p - l->text);
        if (p[1] == '{' || p[1] == '%' || p[1] == '#') return at;
    }
    return l->bytes;
}

void gyre_jinja_lex(struct jinja_syntax *s)
{
    struct lexer l = {.s = s, .text = s->text, .bytes = s->bytes, .line = 1, .column = 1, .line_starts = true};
    while (l.at < l.bytes) {
        const uint64_t tag = next_tag(&l);
        if (tag == l.bytes) {
            add(&l, TOKEN_TEXT, l.at, tag - l.at);
            break;
        }
        const char kind = l.text[tag + 1], sign = sign_at(&l, tag + 2);
        const uint64_t raw = kind == '%' ? word_tag(&l, tag, "raw", false) : 0;
        put_text(&l, l.at, tag, sign, kind != '{');
        const uint64_t inside = tag + 2 + (sign != 0);
        if (raw) {
            take_raw(&l, raw);
        } else if (kind == '#') {
            take_comment(&l, inside);
        } else {
            add(&l, kind == '{' ? TOKEN_PRINT_BEGIN : TOKEN_TAG_BEGIN, tag, 2);
            moved(&l, inside);
            take_code(&l, kind == '{');
        }
    }
    add(&l, TOKEN_END, l.bytes, 0);
}
