// Values as text, by Python's rules: str, repr, and numbers read and written. See value.h.
#include "runtime/text/jinja/value.h"
#include "runtime/util/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// ---- numbers ----------------------------------------------------------------------------------------

void gyre_jinja_put_int(struct jinja_build *b, jinja_int value)
{
    char digits[48], *p = digits + sizeof digits;
    jinja_size left = value < 0 ? -(jinja_size)value : (jinja_size)value;
    *--p = 0;
    do *--p = (char)('0' + (int)(left % 10));
    while (left /= 10);
    if (value < 0) *--p = '-';
    gyre_jinja_put_text(b, p);
}

void gyre_jinja_float_text(double value, char out[40])
{
    if (isnan(value) || isinf(value)) {
        strcpy(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    char e[32];
    int digits = 1;
    do snprintf(e, sizeof e, "%.*e", digits - 1, value);
    while (digits++ < 17 && strtod(e, NULL) != value);
    const int exponent = atoi(strchr(e, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        *strchr(e, 'e') = 0;
        snprintf(out, 40, "%.24se%+03d", e, exponent % 1000);
        return;
    }
    const int decimals = digits - 2 - exponent; // digits is one too many by now
    snprintf(out, 40, "%.*f", decimals < 1 ? 1 : decimals, value);
}

bool gyre_jinja_parse_int(const char *text, uint64_t bytes, int base, jinja_int *out)
{
    uint64_t at = 0;
    jinja_int value = 0;
    bool digit = false;
    while (bytes && gyre_jinja_is_space((unsigned char)text[bytes - 1])) bytes--;
    while (at < bytes && gyre_jinja_is_space((unsigned char)text[at])) at++;
    const bool minus = at < bytes && text[at] == '-';
    if (at < bytes && (text[at] == '-' || text[at] == '+')) at++;
    if (at + 1 < bytes && text[at] == '0') { // a prefix that says the base
        const char c = (char)(text[at + 1] | 32);
        const int said = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (said && (base == said || base == 0)) {
            base = said;
            at += 2;
        }
    }
    if (base == 0) base = 10;
    for (; at < bytes; at++) {
        const char c = text[at];
        if (c == '_' && digit && at + 1 < bytes && text[at + 1] != '_') continue;
        const int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
        if (d >= base || __builtin_mul_overflow(value, base, &value) || __builtin_sub_overflow(value, d, &value))
            return false;
        digit = true;
    }
    if (!digit || (!minus && value == -value && value != 0)) return false;
    *out = minus ? value : -value;
    return true;
}

bool gyre_jinja_parse_float(const struct jinja_string *s, double *out)
{
    char text[400], *end;
    uint64_t from = 0, to = s->bytes, n = 0;
    while (to && gyre_jinja_is_space((unsigned char)s->data[to - 1])) to--;
    while (from < to && gyre_jinja_is_space((unsigned char)s->data[from])) from++;
    if (from == to || to - from >= sizeof text) return false;
    for (uint64_t i = from; i < to; i++) {
        const char c = s->data[i];
        if (c == '_' && i > from && i + 1 < to && s->data[i - 1] != '_') continue;
        if (c == 'x' || c == 'X' || c == 0 || c == '(' || c == '_') return false; // strtod takes more than Python
        text[n++] = c;
    }
    text[n] = 0;
    *out = strtod(text, &end);
    return end == text + n && n;
}

bool gyre_jinja_float_to_int(double value, jinja_int *out)
{
    if (!(value > -1.7e38 && value < 1.7e38)) return false;
    *out = (jinja_int)value;
    return true;
}

// ---- repr -------------------------------------------------------------------------------------------

// As str.isprintable says.
static bool printable(uint32_t c)
{
    if (c < 127) return c >= 32;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void put_repr_text(struct jinja_build *b, const struct jinja_string *s)
{
    const char quote = memchr(s->data, '\'', s->bytes) && !memchr(s->data, '"', s->bytes) ? '"' : '\'';
    if (s->markup) gyre_jinja_put_text(b, "Markup(");
    gyre_jinja_put(b, &quote, 1, false);
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        char text[16];
        const uint32_t c = gyre_jinja_char(s, at, &n);
        if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c == '\\' || c == (unsigned char)quote) snprintf(text, sizeof text, "\\%c", (char)c);
        else if (printable(c)) text[0] = 0;
        else snprintf(text, sizeof text, c < 256 ? "\\x%02x" : c < 65536 ? "\\u%04x" : "\\U%08x", c);
        if (text[0]) gyre_jinja_put(b, text, strlen(text), gyre_jinja_plain_at(s, at));
        else gyre_jinja_put_part(b, s, at, at + n);
        at += n;
    }
    gyre_jinja_put(b, &quote, 1, false);
    if (s->markup) gyre_jinja_put_text(b, ")");
}

static void put_list(struct jinja_build *b, const struct jinja_list *list, const char *open, const char *close)
{
    gyre_jinja_put_text(b, open);
    for (uint64_t i = 0; i < list->n; i++) {
        if (i) gyre_jinja_put_text(b, ", ");
        gyre_jinja_put_repr(b, list->item[i]);
    }
    gyre_jinja_put_text(b, close);
}

static void put_dict(struct jinja_build *b, const struct jinja_dict *d)
{
    gyre_jinja_put_text(b, "{");
    for (uint64_t i = 0; i < d->n; i++) {
        if (i) gyre_jinja_put_text(b, ", ");
        gyre_jinja_put_repr(b, d->entry[i].key);
        gyre_jinja_put_text(b, ": ");
        gyre_jinja_put_repr(b, d->entry[i].value);
    }
    gyre_jinja_put_text(b, "}");
}

// range(a, b) or range(a, b, step); globals.c keeps the three behind the items.
static void put_range(struct jinja_build *b, const struct jinja_list *r)
{
    const jinja_value *made = r->item + r->n;
    gyre_jinja_put_text(b, "range(");
    for (int i = 0; i < (made[2].integer == 1 ? 2 : 3); i++) {
        if (i) gyre_jinja_put_text(b, ", ");
        gyre_jinja_put_int(b, made[i].integer);
    }
    gyre_jinja_put_text(b, ")");
}

void gyre_jinja_put_repr(struct jinja_build *b, jinja_value v)
{
    char number[40];
    gyre_jinja_work(b->run, 1);
    gyre_jinja_deeper(b->run);
    switch (v.kind) {
    case JINJA_UNDEFINED:
        gyre_jinja_put_text(b, "Undefined");
        break;
    case JINJA_NONE:
        gyre_jinja_put_text(b, "None");
        break;
    case JINJA_BOOL:
        gyre_jinja_put_text(b, v.flag ? "True" : "False");
        break;
    case JINJA_INT:
        gyre_jinja_put_int(b, v.integer);
        break;
    case JINJA_FLOAT:
        gyre_jinja_float_text(v.real, number);
        gyre_jinja_put_text(b, number);
        break;
    case JINJA_STRING:
        put_repr_text(b, v.string);
        break;
    case JINJA_LIST:
        put_list(b, v.list, "[", "]");
        break;
    case JINJA_TUPLE:
        put_list(b, v.list, "(", v.list->n == 1 ? ",)" : ")");
        break;
    case JINJA_RANGE:
        put_range(b, v.list);
        break;
    case JINJA_VIEW:
        gyre_jinja_put_text(b, v.list->view);
        put_list(b, v.list, "([", "])");
        break;
    case JINJA_DICT:
        put_dict(b, v.dict);
        break;
    case JINJA_NAMESPACE:
        gyre_jinja_put_text(b, "<Namespace ");
        put_dict(b, &v.names->dict);
        gyre_jinja_put_text(b, ">");
        break;
    case JINJA_GENERATOR:
        gyre_jinja_put_printf(b, "<generator object %s>", v.generator->list.view);
        break;
    default:
        gyre_jinja_put_printf(b, "<%s>", gyre_jinja_type(v));
    }
    b->run->depth--;
}

void gyre_jinja_put_str(struct jinja_build *b, jinja_value v)
{
    if (v.kind == JINJA_STRING) gyre_jinja_put_string(b, v.string);
    else if (v.kind != JINJA_UNDEFINED) gyre_jinja_put_repr(b, v);
}

jinja_value gyre_jinja_str(struct jinja_run *run, jinja_value v)
{
    struct jinja_build b = {.run = run};
    if (v.kind == JINJA_STRING) return v;
    gyre_jinja_put_str(&b, v);
    return gyre_jinja_built(&b);
}
