// The two ways of Python to format values into a text: '%5.1f' % x and '{:>5}'.format(x). See value.h.
#include "runtime/text/jinja/value.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 300 };

struct field {
    const struct jinja_string *fill; // NULL: a blank
    char align, sign, type;          // '<' '>' '^' '=', or 0; '-' '+' ' '; 0: none given
    bool alternate, zero;
    char group; // ',' or '_' between thousands
    uint64_t width;
    int precision; // -1: none
};

static void put_fill(struct jinja_build *b, const struct field *f, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (f->fill) gyre_jinja_put_string(b, f->fill);
        else gyre_jinja_put_text(b, " ");
    }
}

// A text within its field. `sign`: how many of its first characters are sign and prefix, for '='.
static void put_field(struct jinja_build *b, const struct field *f, const struct jinja_string *text, uint64_t sign,
                      char otherwise)
{
    const char align = f->align ? f->align : otherwise;
    const uint64_t pad = f->width > text->chars ? f->width - text->chars : 0;
    const uint64_t before = align == '>' || align == '=' ? pad : align == '^' ? pad / 2 : 0;
    if (align != '=') sign = 0;
    gyre_jinja_put_part(b, text, 0, sign);
    put_fill(b, f, before);
    gyre_jinja_put_part(b, text, sign, text->bytes);
    put_fill(b, f, pad - before);
}

// Digits with a separator between every three (four where they are not decimal).
static void put_grouped(struct jinja_build *b, const char *digits, char group, uint64_t every)
{
    uint64_t whole = 0;
    while (isalnum((unsigned char)digits[whole]) && (every == 4 || isdigit((unsigned char)digits[whole]))) whole++;
    for (uint64_t i = 0; digits[i]; i++) {
        if (group && i && i < whole && (whole - i) % every == 0) gyre_jinja_put(b, &group, 1, false);
        gyre_jinja_put(b, digits + i, 1, false);
    }
}

static void digits_of(jinja_size value, unsigned base, bool upper, char out[136])
{
    char text[136], *p = text + sizeof text;
    *--p = 0;
    do *--p = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[value % base];
    while (value /= base);
    memmove(out, p, strlen(p) + 1);
}

static void put_integer(struct jinja_build *b, const struct field *f, jinja_int value)
{
    char digits[136];
    struct jinja_build text = {.run = b->run};
    const unsigned base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    const char *prefix = base == 16 ? (f->type == 'X' ? "0X" : "0x") : base == 8 ? "0o" : "0b";
    const jinja_size size = value < 0 ? -(jinja_size)value : (jinja_size)value;
    digits_of(size, base, f->type == 'X', digits);
    if (value < 0) gyre_jinja_put_text(&text, "-");
    else if (f->sign == '+' || f->sign == ' ') gyre_jinja_put(&text, &f->sign, 1, false);
    if (f->alternate && base != 10) gyre_jinja_put_text(&text, prefix);
    const uint64_t sign = text.n;
    for (uint64_t n = strlen(digits); f->precision > 0 && n < (uint64_t)f->precision; n++)
        gyre_jinja_put_text(&text, "0");
    put_grouped(&text, digits, f->group, base == 10 ? 3 : 4);
    put_field(b, f, gyre_jinja_built(&text).string, sign, '>');
}

static void put_real(struct jinja_build *b, const struct field *f, double value, bool python)
{
    char format[16], number[700];
    struct jinja_build text = {.run = b->run};
    const char type = f->type == '%' ? 'f' : f->type ? f->type : 'g';
    int precision = f->precision < 0 ? 6 : f->precision;
    if (precision > MAX_PRECISION) gyre_jinja_limit(b->run, "300 digits of a number");
    if (f->type == '%') value *= 100;
    if (signbit(value) && !isnan(value)) gyre_jinja_put_text(&text, "-");
    else if (f->sign == '+' || f->sign == ' ') gyre_jinja_put(&text, &f->sign, 1, false);
    const uint64_t sign = text.n;
    value = fabs(value);
    if (python && !f->type && f->precision < 0) {
        gyre_jinja_float_text(value, number);
    } else if (isnan(value) || isinf(value)) {
        const bool upper = type == 'E' || type == 'F' || type == 'G';
        strcpy(number, isnan(value) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
    } else {
        snprintf(format, sizeof format, "%%%s.*%c", f->alternate ? "#" : "", type);
        if (python && !f->type && precision == 0) precision = 1;
            // the format is one of ours
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(number, sizeof number, format, precision, value);
#pragma GCC diagnostic pop
        if (python && !f->type && !strpbrk(number, ".e")) strcat(number, ".0");
    }
    put_grouped(&text, number, f->group, 3);
    if (f->type == '%') gyre_jinja_put_text(&text, "%");
    put_field(b, f, gyre_jinja_built(&text).string, sign, '>');
}

static void put_text(struct jinja_build *b, const struct field *f, jinja_value text, char otherwise)
{
    const struct jinja_string *s = text.string;
    if (f->precision >= 0 && (uint64_t)f->precision < s->chars)
        s = gyre_jinja_part(b->run, s, 0, gyre_jinja_byte_at(s, (uint64_t)f->precision)).string;
    put_field(b, f, s, 0, otherwise);
}

static jinja_value repr(struct jinja_run *run, jinja_value v)
{
    struct jinja_build b = {.run = run};
    gyre_jinja_put_repr(&b, v);
    return gyre_jinja_built(&b);
}

// Digits at *at as a number; `most` bounds it.
static uint64_t number_at(struct jinja_run *run, const struct jinja_string *s, uint64_t *at, uint64_t most)
{
    uint64_t n = 0;
    while (*at < s->bytes && isdigit((unsigned char)s->data[*at])) {
        n = 10 * n + (uint64_t)(s->data[(*at)++] - '0');
        if (n > most) gyre_jinja_limit(run, "a field's width or digits");
    }
    return n;
}

// ---- % ----------------------------------------------------------------------------------------------

struct percent {
    struct jinja_run *run;
    const struct jinja_string *s;
    jinja_value values;
    uint64_t at, next;
    bool named, markup;
};

static jinja_value next_value(struct percent *p)
{
    const bool many = p->values.kind == JINJA_TUPLE;
    if (p->next >= (many ? p->values.list->n : 1)) gyre_jinja_raise(p->run, "not enough arguments for format string");
    return many ? p->values.list->item[p->next++] : (p->next++, p->values);
}

static bool at_char(const struct percent *p, const char *of)
{
    return p->at < p->s->bytes && p->s->data[p->at] && strchr(of, p->s->data[p->at]);
}

static jinja_value key_value(struct percent *p)
{
    const uint64_t from = ++p->at;
    while (p->at < p->s->bytes && p->s->data[p->at] != ')') p->at++;
    if (p->at == p->s->bytes) gyre_jinja_raise(p->run, "incomplete format key");
    if (p->values.kind != JINJA_DICT) gyre_jinja_raise(p->run, "format requires a mapping");
    const jinja_value key = gyre_jinja_part(p->run, p->s, from, p->at++);
    const jinja_value *found = gyre_jinja_dict_get(p->run, p->values.dict, key);
    if (!found) gyre_jinja_raise(p->run, "the format's key '%.60s' is missing", gyre_jinja_c_text(p->run, key.string));
    p->named = true;
    return *found;
}

static uint64_t star_or_number(struct percent *p, uint64_t most)
{
    if (!at_char(p, "*")) return number_at(p->run, p->s, &p->at, most);
    p->at++;
    const int64_t n = gyre_jinja_index(p->run, next_value(p), "a field's width");
    if (n < 0 || (uint64_t)n > most) gyre_jinja_limit(p->run, "a field's width or digits");
    return (uint64_t)n;
}

static void put_number(struct percent *p, struct jinja_build *b, struct field *f, jinja_value v)
{
    jinja_int whole;
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(p->run, v);
    if (!jinja_is_number(v))
        gyre_jinja_raise(p->run, "%%%c format: a real number is required, not %s", f->type, gyre_jinja_type(v));
    if (f->zero && f->align != '<') {
        f->align = '=';
        f->fill = gyre_jinja_text(p->run, "0").string;
    }
    if (strchr("eEfFgG", f->type)) {
        put_real(b, f, gyre_jinja_double(v), false);
        return;
    }
    if (v.kind == JINJA_FLOAT && strchr("xXo", f->type))
        gyre_jinja_raise(p->run, "%%%c format: an integer is required, not float", f->type);
    if (v.kind == JINJA_FLOAT && !gyre_jinja_float_to_int(v.real, &whole))
        gyre_jinja_raise(p->run, "cannot convert float infinity or NaN to integer");
    if (v.kind != JINJA_FLOAT) whole = v.kind == JINJA_BOOL ? v.flag : v.integer;
    put_integer(b, f, whole);
}

static void put_directive(struct percent *p, struct jinja_build *b)
{
    struct field f = {.precision = -1};
    jinja_value v = {0};
    if (at_char(p, "(")) v = key_value(p);
    for (; at_char(p, "-+ #0"); p->at++) {
        const char c = p->s->data[p->at];
        if (c == '-') f.align = '<';
        else if (c == '+' || (c == ' ' && !f.sign)) f.sign = c;
        else if (c == '#') f.alternate = true;
        else if (c == '0') f.zero = true;
    }
    f.width = star_or_number(p, MAX_WIDTH);
    if (at_char(p, ".")) {
        p->at++;
        f.precision = (int)star_or_number(p, MAX_WIDTH);
    }
    while (at_char(p, "hlL")) p->at++;
    if (p->at == p->s->bytes) gyre_jinja_raise(p->run, "incomplete format");
    f.type = p->s->data[p->at++];
    if (f.type == '%') {
        gyre_jinja_put_text(b, "%");
        return;
    }
    if (!f.type || !strchr("diuoxXeEfFgGcrsa", f.type))
        gyre_jinja_raise(p->run, "unsupported format character (0x%x)", (unsigned char)f.type);
    if (v.kind == JINJA_MISSING) v = next_value(p);
    if (f.type == 's' || f.type == 'r' || f.type == 'a' || (f.type == 'c' && v.kind == JINJA_STRING)) {
        jinja_value text = f.type == 'r' || f.type == 'a' ? repr(p->run, v) : gyre_jinja_str(p->run, v);
        if (p->markup && !text.string->markup) text = gyre_jinja_escape(p->run, text);
        put_text(b, &f, text, '>');
    } else if (f.type == 'c') {
        struct jinja_build one = {.run = p->run};
        const int64_t code = gyre_jinja_index(p->run, v, "%c");
        if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
            gyre_jinja_raise(p->run, "%%c arg not in range(0x110000)");
        gyre_jinja_put_char(&one, (uint32_t)code, false);
        put_text(b, &f, gyre_jinja_built(&one), '>');
    } else {
        put_number(p, b, &f, v);
    }
}

jinja_value gyre_jinja_percent(struct jinja_run *run, const struct jinja_string *s, jinja_value values)
{
    struct percent p = {.run = run, .s = s, .values = values, .markup = s->markup};
    struct jinja_build b = {.run = run};
    while (p.at < s->bytes) {
        const char *sign = memchr(s->data + p.at, '%', s->bytes - p.at);
        const uint64_t end = sign ? (uint64_t)(sign - s->data) : s->bytes;
        gyre_jinja_put_part(&b, s, p.at, end);
        p.at = end + 1;
        if (sign) put_directive(&p, &b);
    }
    const uint64_t had = values.kind == JINJA_TUPLE ? values.list->n : 1;
    const bool may_rest = p.named || values.kind == JINJA_DICT || values.kind == JINJA_LIST;
    if (p.next < had && !may_rest) gyre_jinja_raise(run, "not all arguments converted during string formatting");
    return gyre_jinja_markup(run, gyre_jinja_built(&b), s->markup);
}

// ---- str.format -------------------------------------------------------------------------------------

struct fields {
    struct jinja_run *run;
    const struct jinja_args *args;
    uint64_t next;
    bool markup;
};

static jinja_value argument(struct fields *f, const struct jinja_string *name)
{
    jinja_int i = 0;
    if (name->bytes == 0) i = (jinja_int)f->next++;
    else if (!gyre_jinja_parse_int(name->data, name->bytes, 10, &i)) {
        for (uint64_t k = 0; k < f->args->n_keywords; k++)
            if (gyre_jinja_is(name, f->args->keyword[k].name)) return f->args->keyword[k].value;
        gyre_jinja_raise(f->run, "the format's field '%.60s' is missing", gyre_jinja_c_text(f->run, name));
    }
    if (i < 0 || (uint64_t)i >= f->args->n)
        gyre_jinja_raise(f->run, "Replacement index %lld out of range for positional args tuple", (long long)i);
    return f->args->item[i];
}

// name(.attribute|[key])*
static jinja_value look_up(struct fields *f, const struct jinja_string *path)
{
    uint64_t at = strcspn(gyre_jinja_c_text(f->run, path), ".[");
    jinja_value v = argument(f, gyre_jinja_part(f->run, path, 0, at).string);
    while (at < path->bytes) {
        const bool bracket = path->data[at++] == '[';
        uint64_t end = at;
        while (end < path->bytes &&
               (bracket ? path->data[end] != ']' : path->data[end] != '.' && path->data[end] != '['))
            end++;
        if (end == at || (bracket && end == path->bytes)) gyre_jinja_raise(f->run, "Empty attribute in format string");
        const jinja_value key = gyre_jinja_part(f->run, path, at, end);
        jinja_int i;
        if (!bracket) v = gyre_jinja_attribute(f->run, v, gyre_jinja_c_text(f->run, key.string));
        else
            v = gyre_jinja_subscript(
                f->run, v, gyre_jinja_parse_int(key.string->data, key.string->bytes, 10, &i) ? jinja_number(i) : key);
        if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(f->run, v);
        at = end + (bracket ? 1 : 0);
    }
    return v;
}

static struct field parse_spec(struct jinja_run *run, const struct jinja_string *s)
{
    struct field f = {.precision = -1};
    uint64_t at = 0;
    uint32_t n = 1;
    if (s->bytes) gyre_jinja_char(s, 0, &n);
    if (s->bytes > n && strchr("<>=^", s->data[n])) {
        f.fill = gyre_jinja_part(run, s, 0, n).string;
        f.align = s->data[n];
        at = n + 1;
    } else if (s->bytes && strchr("<>=^", s->data[0])) {
        f.align = s->data[at++];
    }
    if (at < s->bytes && strchr("+- ", s->data[at])) f.sign = s->data[at++];
    if (at < s->bytes && s->data[at] == '#') f.alternate = at++ < s->bytes;
    if (at < s->bytes && s->data[at] == '0' && !f.align) {
        f.align = '=';
        f.fill = gyre_jinja_text(run, "0").string;
    }
    f.width = number_at(run, s, &at, MAX_WIDTH);
    if (at < s->bytes && (s->data[at] == ',' || s->data[at] == '_')) f.group = s->data[at++];
    if (at < s->bytes && s->data[at] == '.') {
        at++;
        f.precision = (int)number_at(run, s, &at, MAX_WIDTH);
    }
    if (at < s->bytes) f.type = s->data[at++];
    if (at < s->bytes || (f.type && !strchr("bcdeEfFgGnosxX%", f.type)))
        gyre_jinja_raise(run, "Invalid format specifier");
    return f;
}

static void put_formatted(struct fields *all, struct jinja_build *b, jinja_value v, const struct jinja_string *spec)
{
    struct field f = parse_spec(all->run, spec);
    if (v.kind == JINJA_FLOAT || (jinja_is_number(v) && f.type && strchr("eEfFgG%", f.type))) {
        if (f.type && !strchr("eEfFgGn%", f.type))
            gyre_jinja_raise(all->run, "Unknown format code '%c' for object of type 'float'", f.type);
        put_real(b, &f, gyre_jinja_double(v), true);
    } else if (v.kind == JINJA_INT || (v.kind == JINJA_BOOL && spec->bytes)) {
        if (f.type == 's') gyre_jinja_raise(all->run, "Unknown format code 's' for object of type 'int'");
        put_integer(b, &f, v.kind == JINJA_BOOL ? v.flag : v.integer);
    } else {
        if (f.type && f.type != 's')
            gyre_jinja_raise(all->run, "Unknown format code '%c' for object of type '%s'", f.type, gyre_jinja_type(v));
        jinja_value text = gyre_jinja_str(all->run, v);
        if (all->markup && !text.string->markup) text = gyre_jinja_escape(all->run, text);
        put_text(b, &f, text, '<');
    }
}

static void put_format(struct fields *f, struct jinja_build *b, const struct jinja_string *s, int depth);

// {path!r:spec}; the text between the braces.
static void put_replacement(struct fields *f, struct jinja_build *b, const struct jinja_string *s, int depth)
{
    uint64_t at = 0;
    int open = 0;
    while (at < s->bytes && (open || (s->data[at] != ':' && s->data[at] != '!'))) {
        open += s->data[at] == '[' ? 1 : s->data[at] == ']' ? -1 : 0;
        at++;
    }
    jinja_value v = look_up(f, gyre_jinja_part(f->run, s, 0, at).string);
    struct jinja_build spec = {.run = f->run};
    if (at < s->bytes && s->data[at] == '!') {
        const char how = at + 1 < s->bytes ? s->data[at + 1] : 0;
        if (how != 'r' && how != 's' && how != 'a')
            gyre_jinja_raise(f->run, "Unknown conversion specifier in a format");
        v = how == 's' ? gyre_jinja_str(f->run, v) : repr(f->run, v);
        at += 2;
    }
    if (at < s->bytes && s->data[at] != ':') gyre_jinja_raise(f->run, "expected ':' after conversion specifier");
    if (at < s->bytes) put_format(f, &spec, gyre_jinja_part(f->run, s, at + 1, s->bytes).string, depth + 1);
    put_formatted(f, b, v, gyre_jinja_built(&spec).string);
}

static void put_format(struct fields *f, struct jinja_build *b, const struct jinja_string *s, int depth)
{
    if (depth > 2) gyre_jinja_raise(f->run, "Max string recursion exceeded");
    for (uint64_t at = 0; at < s->bytes;) {
        const char c = s->data[at];
        if (c != '{' && c != '}') {
            uint64_t end = at;
            while (end < s->bytes && s->data[end] != '{' && s->data[end] != '}') end++;
            gyre_jinja_put_part(b, s, at, end);
            at = end;
            continue;
        }
        if (at + 1 < s->bytes && s->data[at + 1] == c) {
            gyre_jinja_put_part(b, s, at, at + 1);
            at += 2;
            continue;
        }
        uint64_t end = ++at;
        for (int open = 1; c == '{' && end < s->bytes; end++) {
            open += s->data[end] == '{' ? 1 : s->data[end] == '}' ? -1 : 0;
            if (!open) break;
        }
        if (c == '}' || end == s->bytes) gyre_jinja_raise(f->run, "Single '%c' encountered in format string", c);
        put_replacement(f, b, gyre_jinja_part(f->run, s, at, end).string, depth);
        at = end + 1;
    }
}

jinja_value gyre_jinja_format(struct jinja_run *run, const struct jinja_string *s, const struct jinja_args *args)
{
    struct fields f = {.run = run, .args = args, .markup = s->markup};
    struct jinja_build b = {.run = run};
    put_format(&f, &b, s, 0);
    return gyre_jinja_markup(run, gyre_jinja_built(&b), s->markup);
}
