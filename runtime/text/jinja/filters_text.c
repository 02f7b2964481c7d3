// Filters that make texts. See value.h.
#include "runtime/text/jinja/value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

static jinja_value soft(struct jinja_run *run, jinja_value v) { return gyre_jinja_str(run, v); }
static jinja_value plain_text(struct jinja_run *run, jinja_value v)
{
    return gyre_jinja_markup(run, soft(run, v), false);
}
static bool has(jinja_value v) { return v.kind != JINJA_MISSING && v.kind != JINJA_NONE; }

// A method of strings, as a filter calls it.
static jinja_value method(struct jinja_run *run, jinja_value self, const char *name, const jinja_value *arg, uint64_t n)
{
    jinja_value given[JINJA_MAX_PARAMETERS];
    const struct jinja_args args = {.item = (jinja_value *)(uintptr_t)arg, .n = n};
    const struct jinja_builtin *b = gyre_jinja_find(gyre_jinja_text_methods, gyre_jinja_n_text_methods, name);
    gyre_jinja_bind(run, b, &args, given);
    return b->call(run, self, given, &args);
}

static jinja_value upper(ARGS) { return UNUSED, method(run, soft(run, self), "upper", NULL, 0); }
static jinja_value lower(ARGS) { return UNUSED, method(run, soft(run, self), "lower", NULL, 0); }
static jinja_value capitalize(ARGS) { return UNUSED, method(run, soft(run, self), "capitalize", NULL, 0); }
static jinja_value trim(ARGS) { return UNUSED, method(run, soft(run, self), "strip", given, has(given[0])); }
static jinja_value string(ARGS) { return UNUSED, soft(run, self); }
static jinja_value safe(ARGS) { return UNUSED, gyre_jinja_markup(run, soft(run, self), true); }
static jinja_value forceescape(ARGS) { return UNUSED, gyre_jinja_escape(run, soft(run, self)); }

static jinja_value escape(ARGS)
{
    UNUSED;
    const jinja_value text = soft(run, self);
    return text.string->markup ? text : gyre_jinja_escape(run, text);
}

static jinja_value center(ARGS)
{
    UNUSED;
    const jinja_value width = given[0].kind == JINJA_MISSING ? jinja_number(80) : given[0];
    return method(run, soft(run, self), "center", &width, 1);
}

static jinja_value replace(ARGS)
{
    UNUSED;
    const jinja_value arg[3] = {plain_text(run, given[0]), plain_text(run, given[1]), given[2]};
    return method(run, plain_text(run, self), "replace", arg, has(given[2]) ? 3 : 2);
}

static jinja_value format(ARGS)
{
    UNUSED;
    const jinja_value text = soft(run, self);
    if (all->n && all->n_keywords)
        gyre_jinja_raise(run, "can't handle positional and keyword arguments at the same time");
    jinja_value values = gyre_jinja_list(run, JINJA_TUPLE, all->n);
    for (uint64_t i = 0; i < all->n; i++) values.list->item[i] = all->item[i];
    if (all->n_keywords) values = gyre_jinja_dict(run);
    for (uint64_t i = 0; i < all->n_keywords; i++)
        gyre_jinja_dict_put(run, values.dict, gyre_jinja_text(run, all->keyword[i].name), all->keyword[i].value);
    return gyre_jinja_percent(run, text.string, values);
}

// Every word's first letter large, the others small; words begin after blanks and - ( { [ <.
static jinja_value title(ARGS)
{
    UNUSED;
    const jinja_value text = soft(run, self);
    const struct jinja_string *s = text.string;
    struct jinja_build b = {.run = run};
    bool begins = true;
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        const jinja_value one = gyre_jinja_part(run, s, at, at + n);
        gyre_jinja_put_string(&b, method(run, one, begins ? "upper" : "lower", NULL, 0).string);
        begins = gyre_jinja_is_space(c) || (c < 128 && c && strchr("-({[<", (int)c));
        at += n;
    }
    return gyre_jinja_built(&b);
}

static bool is_word(uint32_t c)
{
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

static jinja_value wordcount(ARGS)
{
    UNUSED;
    const jinja_value text = soft(run, self);
    jinja_int words = 0;
    bool inside = false;
    for (uint64_t at = 0; at < text.string->bytes;) {
        uint32_t n;
        const bool word = is_word(gyre_jinja_char(text.string, at, &n));
        words += word && !inside;
        inside = word;
        at += n;
    }
    return jinja_number(words);
}

// ---- lines ------------------------------------------------------------------------------------------

static jinja_value blanks(struct jinja_run *run, int64_t n)
{
    return gyre_jinja_operate(run, JINJA_MUL, gyre_jinja_text(run, " "), jinja_number(n));
}

static jinja_value indent(ARGS)
{
    UNUSED;
    const bool first = gyre_jinja_true(given[1]), blank = gyre_jinja_true(given[2]);
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (self.kind != JINJA_STRING) gyre_jinja_raise(run, "indent needs a str, not %s", gyre_jinja_type(self));
    const jinja_value by =
        given[0].kind == JINJA_STRING
            ? given[0]
            : blanks(run, given[0].kind == JINJA_MISSING ? 4 : gyre_jinja_index(run, given[0], "width"));
    const jinja_value whole = gyre_jinja_operate(run, JINJA_ADD, self, gyre_jinja_text(run, "\n"));
    const struct jinja_list *lines = method(run, whole, "splitlines", NULL, 0).list;
    struct jinja_build b = {.run = run};
    for (uint64_t i = 0; i < lines->n; i++) {
        const struct jinja_string *line = lines->item[i].string;
        if (i) gyre_jinja_put_text(&b, "\n");
        if (i ? blank || line->bytes : first) gyre_jinja_put_string(&b, by.string);
        gyre_jinja_put_string(&b, line);
    }
    return gyre_jinja_markup(run, gyre_jinja_built(&b), self.string->markup);
}

// Filters that look at their text before they make one of it.
static jinja_value text_only(struct jinja_run *run, jinja_value v, const char *what)
{
    if (v.kind == JINJA_UNDEFINED) return gyre_jinja_text(run, "");
    if (v.kind != JINJA_STRING) gyre_jinja_raise(run, "%s needs a str, not %s", what, gyre_jinja_type(v));
    return v;
}

static jinja_value truncate(ARGS)
{
    UNUSED;
    uint64_t n;
    const int64_t length = given[0].kind == JINJA_MISSING ? 255 : gyre_jinja_index(run, given[0], "length");
    const jinja_value end = given[2].kind == JINJA_MISSING ? gyre_jinja_text(run, "...") : soft(run, given[2]);
    const int64_t leeway = has(given[3]) ? gyre_jinja_index(run, given[3], "leeway") : 5;
    if (length < (int64_t)end.string->chars)
        gyre_jinja_raise(run, "expected length >= %llu, got %lld", (unsigned long long)end.string->chars,
                         (long long)length);
    if (leeway < 0) gyre_jinja_raise(run, "expected leeway >= 0, got %lld", (long long)leeway);
    if (!gyre_jinja_length(self, &n)) gyre_jinja_raise(run, "object of type '%s' has no len()", gyre_jinja_type(self));
    if ((int64_t)n <= length || (int64_t)n - length <= leeway) return self; // a list, too
    const struct jinja_string *s = text_only(run, self, "truncate").string;
    jinja_value cut = gyre_jinja_part(run, s, 0, gyre_jinja_byte_at(s, (uint64_t)length - end.string->chars));
    if (!gyre_jinja_true(given[1])) {
        const struct jinja_string blank = {.data = " ", .bytes = 1};
        const uint64_t at = gyre_jinja_search_back(cut.string, 0, cut.string->bytes, &blank);
        if (at != UINT64_MAX) cut = gyre_jinja_part(run, cut.string, 0, at);
    }
    return gyre_jinja_operate(run, JINJA_ADD, cut, end);
}

// The end of the chunk of a line that begins at `at`: blanks, or letters up to a blank or behind a hyphen in a word.
static uint64_t chunk_end(const struct jinja_string *s, uint64_t at, bool hyphens)
{
    uint32_t n;
    const bool blank = gyre_jinja_is_space(gyre_jinja_char(s, at, &n));
    uint64_t end = at;
    while (end < s->bytes) {
        const uint32_t c = gyre_jinja_char(s, end, &n);
        if (gyre_jinja_is_space(c) != blank) break;
        end += n;
        if (hyphens && c == '-' && end - n > at && end < s->bytes && is_word((unsigned char)s->data[end]) &&
            is_word((unsigned char)s->data[end - n - 1]))
            break;
    }
    return end;
}

struct wrap {
    struct jinja_build out;
    const struct jinja_string *between;
    uint64_t width; // characters
    bool break_long, hyphens, any;
};

static uint64_t chars_in(const struct jinja_string *s, uint64_t from, uint64_t to)
{
    uint64_t n = 0;
    for (uint64_t i = from; i < to; i++) n += ((unsigned char)s->data[i] & 0xC0) != 0x80;
    return n;
}

static bool blank_at(const struct jinja_string *s, uint64_t at)
{
    uint32_t n;
    return gyre_jinja_is_space(gyre_jinja_char(s, at, &n));
}

// Where a chunk that is longer than a line is cut so that `room` characters of it fit, as textwrap does.
static uint64_t cut_long(const struct wrap *w, const struct jinja_string *s, uint64_t from, uint64_t to, uint64_t room)
{
    uint64_t end = from;
    for (uint32_t n; room-- && end < to; end += n) gyre_jinja_char(s, end, &n);
    for (uint64_t at = end; w->hyphens && at > from + 1; at--)
        if (s->data[at - 1] == '-') return at;
    return end;
}

// One line of the text: chunks are taken as long as they fit.
static void wrap_line(struct wrap *w, const struct jinja_string *s)
{
    for (uint64_t at = 0; at < s->bytes;) {
        if (w->any && blank_at(s, at)) at = chunk_end(s, at, w->hyphens); // blanks between lines go
        uint64_t from = at, used = 0, end = at, chars;
        while (end < s->bytes) {
            const uint64_t next = chunk_end(s, end, w->hyphens);
            chars = chars_in(s, end, next);
            gyre_jinja_work(w->out.run, (next - end) / 8 + 1);
            if (used + chars <= w->width) {
                used += chars;
                end = next;
                continue;
            }
            if (chars > w->width && w->break_long) end = cut_long(w, s, end, next, w->width - used);
            else if (chars > w->width && used == 0) end = next;
            break;
        }
        at = end;
        while (end > from && gyre_jinja_is_space((unsigned char)s->data[end - 1])) end--;
        if (end == from) continue;
        if (w->any) gyre_jinja_put_string(&w->out, w->between);
        gyre_jinja_put_part(&w->out, s, from, end);
        w->any = true;
    }
}

static jinja_value wordwrap(ARGS)
{
    UNUSED;
    const jinja_value text = text_only(run, self, "wordwrap");
    const struct jinja_list *lines = method(run, text, "splitlines", NULL, 0).list;
    const int64_t width = given[0].kind == JINJA_MISSING ? 79 : gyre_jinja_index(run, given[0], "width");
    struct wrap w = {.out = {.run = run}, .width = (uint64_t)width};
    w.break_long = given[1].kind == JINJA_MISSING || gyre_jinja_true(given[1]);
    w.hyphens = given[3].kind == JINJA_MISSING || gyre_jinja_true(given[3]);
    if (width <= 0) gyre_jinja_raise(run, "invalid width %lld (must be > 0)", (long long)width);
    w.between = has(given[2]) ? soft(run, given[2]).string : gyre_jinja_text(run, "\n").string;
    for (uint64_t i = 0; i < lines->n; i++) {
        if (i) gyre_jinja_put_string(&w.out, w.between);
        w.any = false;
        wrap_line(&w, lines->item[i].string);
    }
    return gyre_jinja_built(&w.out);
}

// ---- HTML and URLs ----------------------------------------------------------------------------------

static jinja_value striptags(ARGS)
{
    UNUSED;
    static const char *const entities[][2] = {{"&lt;", "<"},  {"&gt;", ">"},          {"&quot;", "\""}, {"&#34;", "\""},
                                              {"&#39;", "'"}, {"&nbsp;", "\xC2\xA0"}, {"&amp;", "&"}};
    jinja_value text = plain_text(run, self);
    const struct jinja_string *s = text.string, comment = {.data = "-->", .bytes = 3}, tag = {.data = ">", .bytes = 1};
    struct jinja_build b = {.run = run};
    for (uint64_t at = 0; at < s->bytes;) {
        const bool remark = s->bytes - at >= 4 && !memcmp(s->data + at, "<!--", 4);
        const uint64_t end =
            s->data[at] != '<' ? UINT64_MAX : gyre_jinja_search(s, at, s->bytes, remark ? &comment : &tag);
        if (end == UINT64_MAX) gyre_jinja_put_part(&b, s, at, at + 1);
        at = end == UINT64_MAX ? at + 1 : end + (remark ? 3 : 1);
    }
    const struct jinja_list *words = method(run, gyre_jinja_built(&b), "split", NULL, 0).list;
    struct jinja_build joined = {.run = run};
    for (uint64_t i = 0; i < words->n; i++) {
        if (i) gyre_jinja_put_text(&joined, " ");
        gyre_jinja_put_string(&joined, words->item[i].string);
    }
    text = gyre_jinja_built(&joined);
    for (size_t i = 0; i < GYRE_COUNT(entities); i++) {
        const jinja_value arg[2] = {gyre_jinja_text(run, entities[i][0]), gyre_jinja_text(run, entities[i][1])};
        text = method(run, text, "replace", arg, 2);
    }
    return text;
}

static void put_url(struct jinja_build *b, jinja_value v, bool query)
{
    const struct jinja_string *s = plain_text(b->run, v).string;
    for (uint64_t i = 0; i < s->bytes; i++) {
        const unsigned char c = (unsigned char)s->data[i];
        char code[4];
        const bool keep = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~", c)) ||
                          (c == '/' && !query);
        snprintf(code, sizeof code, "%%%02X", c);
        gyre_jinja_put(b,
                       keep                ? s->data + i
                       : query && c == ' ' ? "+"
                                           : code,
                       keep || (query && c == ' ') ? 1 : 3, gyre_jinja_plain_at(s, i));
    }
}

static jinja_value urlencode(ARGS)
{
    UNUSED;
    struct jinja_build b = {.run = run};
    if (self.kind == JINJA_STRING || jinja_is_number(self) || self.kind == JINJA_NONE || self.kind == JINJA_UNDEFINED) {
        put_url(&b, self, false);
        return gyre_jinja_built(&b);
    }
    const bool dict = self.kind == JINJA_DICT;
    const struct jinja_list *list = dict ? NULL : gyre_jinja_items(run, self);
    for (uint64_t i = 0; i < (dict ? self.dict->n : list->n); i++) {
        const jinja_value *pair = dict ? NULL : &list->item[i];
        if (pair && (!jinja_is_list(*pair) || pair->list->n != 2)) gyre_jinja_raise(run, "urlencode needs pairs");
        if (i) gyre_jinja_put_text(&b, "&");
        put_url(&b, dict ? self.dict->entry[i].key : pair->list->item[0], true);
        gyre_jinja_put_text(&b, "=");
        put_url(&b, dict ? self.dict->entry[i].value : pair->list->item[1], true);
    }
    return gyre_jinja_built(&b);
}

static jinja_value xmlattr(ARGS)
{
    UNUSED;
    struct jinja_build b = {.run = run};
    if (self.kind != JINJA_DICT) gyre_jinja_raise(run, "xmlattr needs a dict, not %s", gyre_jinja_type(self));
    for (uint64_t i = 0; i < self.dict->n; i++) {
        const struct jinja_entry *e = &self.dict->entry[i];
        if (e->value.kind == JINJA_NONE || e->value.kind == JINJA_UNDEFINED) continue;
        const jinja_value key = soft(run, e->key);
        for (uint64_t k = 0; k < key.string->bytes; k++)
            if (strchr(" \t\n\r\f/>=", key.string->data[k]))
                gyre_jinja_raise(run, "Invalid character in attribute name: '%.40s'",
                                 gyre_jinja_c_text(run, key.string));
        if (b.n || given[0].kind == JINJA_MISSING || gyre_jinja_true(given[0])) gyre_jinja_put_text(&b, " ");
        gyre_jinja_put_string(&b, gyre_jinja_escape(run, key).string);
        gyre_jinja_put_text(&b, "=\"");
        gyre_jinja_put_string(&b, escape(run, e->value, given, all).string);
        gyre_jinja_put_text(&b, "\"");
    }
    return gyre_jinja_built(&b);
}

static jinja_value filesizeformat(ARGS)
{
    UNUSED;
    static const char *const units[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
                                            {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    const bool binary = gyre_jinja_true(given[0]);
    double size, base = binary ? 1024 : 1000, unit = base;
    struct jinja_build b = {.run = run};
    jinja_int whole;
    char text[64];
    if (self.kind == JINJA_STRING ? !gyre_jinja_parse_float(self.string, &size) : !jinja_is_number(self))
        gyre_jinja_raise(run, "filesizeformat needs a number, not %s", gyre_jinja_type(self));
    if (self.kind != JINJA_STRING) size = gyre_jinja_double(self);
    int i = 0;
    while (i < 7 && size >= unit * base) unit *= base, i++;
    if (size >= 1 && size <= 1) return gyre_jinja_text(run, "1 Byte");
    if (size < base) {
        if (!gyre_jinja_float_to_int(size, &whole)) gyre_jinja_raise(run, "filesizeformat: the number is too large");
        gyre_jinja_put_int(&b, whole);
        gyre_jinja_put_text(&b, " Bytes");
        return gyre_jinja_built(&b);
    }
    snprintf(text, sizeof text, "%.1f %s", size / unit, units[binary][i]);
    return gyre_jinja_text(run, text);
}

const struct jinja_builtin gyre_jinja_text_filters[] = {
    {"capitalize", capitalize, "", 0},
    {"center", center, "width", 0},
    {"e", escape, "", 0},
    {"escape", escape, "", 0},
    {"filesizeformat", filesizeformat, "binary", 0},
    {"forceescape", forceescape, "", 0},
    {"format", format, "*", 0},
    {"indent", indent, "width,first,blank", 0},
    {"lower", lower, "", 0},
    {"replace", replace, "old,new,count", 2},
    {"safe", safe, "", 0},
    {"string", string, "", 0},
    {"striptags", striptags, "", 0},
    {"title", title, "", 0},
    {"trim", trim, "chars", 0},
    {"truncate", truncate, "length,killwords,end,leeway", 0},
    {"upper", upper, "", 0},
    {"urlencode", urlencode, "", 0},
    {"wordcount", wordcount, "", 0},
    {"wordwrap", wordwrap, "width,break_long_words,wrapstring,break_on_hyphens", 0},
    {"xmlattr", xmlattr, "autospace", 0},
};
const uint64_t gyre_jinja_n_text_filters = GYRE_COUNT(gyre_jinja_text_filters);
