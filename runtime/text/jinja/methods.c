// The methods of strings, lists, dicts and of jinja2's own objects. Those that would change their object do not exist
// (the sandbox is immutable). See value.h.
#include "runtime/text/jinja/value.h"

#include <string.h>
#include <utf8proc.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

static bool has(jinja_value v) { return v.kind != JINJA_MISSING && v.kind != JINJA_NONE; }

static const struct jinja_string *text_of(struct jinja_run *run, jinja_value v, const char *what)
{
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, v);
    if (v.kind != JINJA_STRING) gyre_jinja_raise(run, "%s must be str, not %s", what, gyre_jinja_type(v));
    return v.string;
}

// What a method of markup returns is markup.
static jinja_value as(struct jinja_run *run, jinja_value self, struct jinja_build *b)
{
    return gyre_jinja_markup(run, gyre_jinja_built(b), self.string->markup);
}

// ---- stripping and cutting --------------------------------------------------------------------------

static bool strips(const struct jinja_string *s, uint64_t at, uint32_t n, uint32_t code, const struct jinja_string *set)
{
    if (!set) return gyre_jinja_is_space(code);
    const struct jinja_string one = {.data = s->data + at, .bytes = n};
    return gyre_jinja_search(set, 0, set->bytes, &one) != UINT64_MAX;
}

static jinja_value stripped(struct jinja_run *run, jinja_value self, jinja_value chars, bool left, bool right)
{
    const struct jinja_string *s = self.string, *set = has(chars) ? text_of(run, chars, "strip arg") : NULL;
    uint64_t from = 0, to = s->bytes;
    uint32_t n;
    gyre_jinja_work(run, s->bytes / 64);
    while (left && from < to) {
        const uint32_t c = gyre_jinja_char(s, from, &n);
        if (!strips(s, from, n, c, set)) break;
        from += n;
    }
    while (right && from < to) {
        uint64_t at = to - 1;
        while (at > from && ((unsigned char)s->data[at] & 0xC0) == 0x80) at--;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        if (!strips(s, at, n, c, set)) break;
        to = at;
    }
    return gyre_jinja_part(run, s, from, to);
}

static jinja_value strip(ARGS) { return UNUSED, stripped(run, self, given[0], true, true); }
static jinja_value lstrip(ARGS) { return UNUSED, stripped(run, self, given[0], true, false); }
static jinja_value rstrip(ARGS) { return UNUSED, stripped(run, self, given[0], false, true); }

static jinja_value remove_affix(struct jinja_run *run, jinja_value self, jinja_value affix, bool front)
{
    const struct jinja_string *s = self.string, *a = text_of(run, affix, "the affix");
    const bool there = a->bytes <= s->bytes && !memcmp(s->data + (front ? 0 : s->bytes - a->bytes), a->data, a->bytes);
    if (!there) return self;
    return front ? gyre_jinja_part(run, s, a->bytes, s->bytes) : gyre_jinja_part(run, s, 0, s->bytes - a->bytes);
}

static jinja_value removeprefix(ARGS) { return UNUSED, remove_affix(run, self, given[0], true); }
static jinja_value removesuffix(ARGS) { return UNUSED, remove_affix(run, self, given[0], false); }

// Splits at blanks, at most `most` times (< 0: always), from the left or the right; parts in order.
static void split_blanks(struct jinja_run *run, const struct jinja_string *s, int64_t most, bool back,
                         struct jinja_list *out, uint64_t *cap)
{
    const jinja_value whole = {.kind = JINJA_STRING, .string = (struct jinja_string *)(uintptr_t)s};
    const jinja_value none = {0};
    jinja_value rest = stripped(run, whole, none, !back, back);
    for (uint32_t n; rest.string->bytes; most--) {
        const struct jinja_string *r = rest.string;
        uint64_t at = back ? r->bytes : 0;
        if (most == 0) {
            gyre_jinja_push(run, out, cap, rest); // the blanks at its far end stay
            break;
        }
        if (!back) {
            while (at < r->bytes && !gyre_jinja_is_space(gyre_jinja_char(r, at, &n))) at += n;
            gyre_jinja_push(run, out, cap, gyre_jinja_part(run, r, 0, at));
            rest = stripped(run, gyre_jinja_part(run, r, at, r->bytes), none, true, false);
            continue;
        }
        while (at) {
            uint64_t before = at - 1;
            while (before && ((unsigned char)r->data[before] & 0xC0) == 0x80) before--;
            if (gyre_jinja_is_space(gyre_jinja_char(r, before, &n))) break;
            at = before;
        }
        gyre_jinja_push(run, out, cap, gyre_jinja_part(run, r, at, r->bytes));
        rest = stripped(run, gyre_jinja_part(run, r, 0, at), none, false, true);
    }
}

static void reverse(struct jinja_list *list)
{
    for (uint64_t i = 0; i + 1 < list->n - i; i++) {
        const jinja_value v = list->item[i];
        list->item[i] = list->item[list->n - 1 - i];
        list->item[list->n - 1 - i] = v;
    }
}

static jinja_value split_text(struct jinja_run *run, jinja_value self, const jinja_value *given, bool back)
{
    const struct jinja_string *s = self.string;
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, 0);
    int64_t most = given[1].kind != JINJA_MISSING ? gyre_jinja_index(run, given[1], "maxsplit") : -1;
    uint64_t cap = 0, from = 0, to = s->bytes, at;
    gyre_jinja_work(run, s->bytes / 64);
    if (!has(given[0])) {
        split_blanks(run, s, most, back, out.list, &cap);
        if (back) reverse(out.list);
        return out;
    }
    const struct jinja_string *by = text_of(run, given[0], "the separator");
    if (by->bytes == 0) gyre_jinja_raise(run, "empty separator");
    for (; most != 0; most--) {
        at = back ? gyre_jinja_search_back(s, from, to, by) : gyre_jinja_search(s, from, to, by);
        if (at == UINT64_MAX) break;
        gyre_jinja_push(run, out.list, &cap,
                        back ? gyre_jinja_part(run, s, at + by->bytes, to) : gyre_jinja_part(run, s, from, at));
        if (back) to = at;
        else from = at + by->bytes;
    }
    gyre_jinja_push(run, out.list, &cap, gyre_jinja_part(run, s, from, to));
    if (back) reverse(out.list);
    return out;
}

static jinja_value split(ARGS) { return UNUSED, split_text(run, self, given, false); }
static jinja_value rsplit(ARGS) { return UNUSED, split_text(run, self, given, true); }

static bool ends_line(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static jinja_value splitlines(ARGS)
{
    UNUSED;
    const struct jinja_string *s = self.string;
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, 0);
    const bool keep = gyre_jinja_true(given[0]);
    uint64_t cap = 0, from = 0;
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        if (ends_line(c)) {
            const uint64_t end = at + n + (c == '\r' && at + 1 < s->bytes && s->data[at + 1] == '\n');
            gyre_jinja_push(run, out.list, &cap, gyre_jinja_part(run, s, from, keep ? end : at));
            from = at = end;
        } else {
            at += n;
        }
    }
    if (from < s->bytes) gyre_jinja_push(run, out.list, &cap, gyre_jinja_part(run, s, from, s->bytes));
    return out;
}

static jinja_value parted(struct jinja_run *run, jinja_value self, jinja_value by_, bool back)
{
    const struct jinja_string *s = self.string, *by = text_of(run, by_, "the separator");
    const jinja_value out = gyre_jinja_list(run, JINJA_TUPLE, 3);
    if (by->bytes == 0) gyre_jinja_raise(run, "empty separator");
    const uint64_t at = back ? gyre_jinja_search_back(s, 0, s->bytes, by) : gyre_jinja_search(s, 0, s->bytes, by);
    const bool found = at != UINT64_MAX;
    const jinja_value nothing = gyre_jinja_part(run, s, 0, 0);
    out.list->item[0] = found ? gyre_jinja_part(run, s, 0, at) : back ? nothing : self;
    out.list->item[1] = found ? gyre_jinja_part(run, s, at, at + by->bytes) : nothing;
    out.list->item[2] = found ? gyre_jinja_part(run, s, at + by->bytes, s->bytes) : back ? self : nothing;
    return out;
}

static jinja_value partition(ARGS) { return UNUSED, parted(run, self, given[0], false); }
static jinja_value rpartition(ARGS) { return UNUSED, parted(run, self, given[0], true); }

// ---- looking for ------------------------------------------------------------------------------------

// The bytes of a slice that two arguments ask for.
static bool within(struct jinja_run *run, const struct jinja_string *s, jinja_value from, jinja_value to,
                   uint64_t *begin, uint64_t *end)
{
    uint64_t a, b;
    gyre_jinja_work(run, s->bytes / 64);
    gyre_jinja_bounds(run, from, to, s->chars, &a, &b);
    const bool beyond = has(from) && gyre_jinja_index(run, from, "start") > (int64_t)s->chars;
    *begin = gyre_jinja_byte_at(s, a);
    *end = gyre_jinja_byte_at(s, b);
    return a <= b && !beyond;
}

static jinja_value found_at(struct jinja_run *run, jinja_value self, const jinja_value *given, bool back, bool must)
{
    const struct jinja_string *s = self.string, *what = text_of(run, given[0], "what is looked for");
    uint64_t from, to, at = UINT64_MAX;
    if (within(run, s, given[1], given[2], &from, &to))
        at = back ? gyre_jinja_search_back(s, from, to, what) : gyre_jinja_search(s, from, to, what);
    if (at == UINT64_MAX && must) gyre_jinja_raise(run, "substring not found");
    if (at == UINT64_MAX) return jinja_number(-1);
    return jinja_number((jinja_int)gyre_jinja_part(run, s, 0, at).string->chars);
}

static jinja_value find(ARGS) { return UNUSED, found_at(run, self, given, false, false); }
static jinja_value rfind(ARGS) { return UNUSED, found_at(run, self, given, true, false); }
static jinja_value text_index(ARGS) { return UNUSED, found_at(run, self, given, false, true); }
static jinja_value text_rindex(ARGS) { return UNUSED, found_at(run, self, given, true, true); }

static jinja_value text_count(ARGS)
{
    UNUSED;
    const struct jinja_string *s = self.string, *what = text_of(run, given[0], "what is counted");
    uint64_t from, to, n = 0;
    if (!within(run, s, given[1], given[2], &from, &to)) return jinja_number(0);
    if (what->bytes == 0) return jinja_number((jinja_int)gyre_jinja_part(run, s, from, to).string->chars + 1);
    for (uint64_t at; (at = gyre_jinja_search(s, from, to, what)) != UINT64_MAX; n++) from = at + what->bytes;
    return jinja_number((jinja_int)n);
}

static bool has_affix(struct jinja_run *run, jinja_value self, const jinja_value *given, bool front, const char *name)
{
    const struct jinja_string *s = self.string;
    const bool many = given[0].kind == JINJA_TUPLE;
    uint64_t from, to;
    if (!within(run, s, given[1], given[2], &from, &to)) return false;
    for (uint64_t i = 0; i < (many ? given[0].list->n : 1); i++) {
        const jinja_value one = many ? given[0].list->item[i] : given[0];
        if (one.kind != JINJA_STRING)
            gyre_jinja_raise(run, "%s first arg must be str or a tuple of str, not %s", name, gyre_jinja_type(one));
        const struct jinja_string *a = one.string;
        if (a->bytes <= to - from && !memcmp(s->data + (front ? from : to - a->bytes), a->data, a->bytes)) return true;
    }
    return false;
}

static jinja_value startswith(ARGS) { return UNUSED, jinja_bool(has_affix(run, self, given, true, "startswith")); }
static jinja_value endswith(ARGS) { return UNUSED, jinja_bool(has_affix(run, self, given, false, "endswith")); }

// ---- making others ----------------------------------------------------------------------------------

static jinja_value escaped(struct jinja_run *run, jinja_value self, jinja_value v)
{
    return self.string->markup && v.kind == JINJA_STRING && !v.string->markup ? gyre_jinja_escape(run, v) : v;
}

static jinja_value replace(ARGS)
{
    UNUSED;
    const struct jinja_string *s = self.string,
                              *from = text_of(run, escaped(run, self, given[0]), "replace() argument 1"),
                              *to = text_of(run, escaped(run, self, given[1]), "replace() argument 2");
    int64_t left = has(given[2]) ? gyre_jinja_index(run, given[2], "count") : -1;
    struct jinja_build b = {.run = run};
    uint64_t at = 0, next;
    if (from->bytes == 0) { // between all characters
        for (uint32_t n; left != 0; left--, at += n) {
            gyre_jinja_put_string(&b, to);
            if (at == s->bytes) return as(run, self, &b);
            gyre_jinja_char(s, at, &n);
            gyre_jinja_put_part(&b, s, at, at + n);
        }
    }
    for (; left != 0 && (next = gyre_jinja_search(s, at, s->bytes, from)) != UINT64_MAX && from->bytes; left--) {
        gyre_jinja_put_part(&b, s, at, next);
        gyre_jinja_put_string(&b, to);
        at = next + from->bytes;
    }
    gyre_jinja_put_part(&b, s, at, s->bytes);
    return as(run, self, &b);
}

static jinja_value join(ARGS)
{
    UNUSED;
    const struct jinja_list *list = gyre_jinja_items(run, given[0]);
    struct jinja_build b = {.run = run};
    for (uint64_t i = 0; i < list->n; i++) {
        if (list->item[i].kind != JINJA_STRING)
            gyre_jinja_raise(run, "sequence item %llu: expected str instance, %s found", (unsigned long long)i,
                             gyre_jinja_type(list->item[i]));
        if (i) gyre_jinja_put_string(&b, self.string);
        gyre_jinja_put_string(&b, escaped(run, self, list->item[i]).string);
    }
    return as(run, self, &b);
}

static jinja_value padded(struct jinja_run *run, jinja_value self, const jinja_value *given, char how)
{
    const int64_t width = gyre_jinja_index(run, given[0], "a width");
    const struct jinja_string *s = self.string;
    const struct jinja_string *fill =
        has(given[1]) ? text_of(run, given[1], "the fill character") : gyre_jinja_text(run, " ").string;
    if (fill->chars != 1) gyre_jinja_raise(run, "The fill character must be exactly one character long");
    const uint64_t pad = width > (int64_t)s->chars ? (uint64_t)width - s->chars : 0;
    // Python's rule for the odd one of `center`.
    const uint64_t left = how == '<' ? 0 : how == '>' ? pad : pad / 2 + (pad & (uint64_t)width & 1);
    struct jinja_build b = {.run = run};
    gyre_jinja_work(run, pad);
    for (uint64_t i = 0; i < left; i++) gyre_jinja_put_string(&b, fill);
    gyre_jinja_put_string(&b, s);
    for (uint64_t i = left; i < pad; i++) gyre_jinja_put_string(&b, fill);
    return as(run, self, &b);
}

static jinja_value ljust(ARGS) { return UNUSED, padded(run, self, given, '<'); }
static jinja_value rjust(ARGS) { return UNUSED, padded(run, self, given, '>'); }
static jinja_value center(ARGS) { return UNUSED, padded(run, self, given, '^'); }

static jinja_value zfill(ARGS)
{
    UNUSED;
    const struct jinja_string *s = self.string;
    const uint64_t sign = s->bytes && (s->data[0] == '-' || s->data[0] == '+');
    const int64_t width = gyre_jinja_index(run, given[0], "a width");
    struct jinja_build b = {.run = run};
    gyre_jinja_put_part(&b, s, 0, sign);
    gyre_jinja_work(run, width > 0 ? (uint64_t)width : 0);
    for (int64_t i = (int64_t)s->chars; i < width; i++) gyre_jinja_put_text(&b, "0");
    gyre_jinja_put_part(&b, s, sign, s->bytes);
    return as(run, self, &b);
}

static jinja_value expandtabs(ARGS)
{
    UNUSED;
    const struct jinja_string *s = self.string;
    const int64_t size = has(given[0]) ? gyre_jinja_index(run, given[0], "tabsize") : 8;
    struct jinja_build b = {.run = run};
    int64_t column = 0;
    if (size > 10000) gyre_jinja_limit(run, "a tab's size");
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        if (c == '\t') {
            for (int64_t i = size > 0 ? size - column % size : 0; i > 0; i--, column++)
                gyre_jinja_put(&b, " ", 1, gyre_jinja_plain_at(s, at));
        } else {
            column = c == '\n' || c == '\r' ? 0 : column + 1;
            gyre_jinja_put_part(&b, s, at, at + n);
        }
        at += n;
    }
    return as(run, self, &b);
}

// ---- upper and lower case ---------------------------------------------------------------------------

enum letter_case { LOWER, UPPER, TITLE, CAPITAL, SWAPPED, FOLDED };

static bool cased(uint32_t c)
{
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

// Characters that become several.
static const struct {
    uint32_t code;
    const char *upper, *title, *folded, *lower;
} several[] = {{0xDF, "SS", "Ss", "ss", NULL},
               {0x130, NULL, NULL, NULL, "i\xCC\x87"},
               {0x149, "\xCA\xBCN", "\xCA\xBCN", "\xCA\xBCn", NULL},
               {0xFB00, "FF", "Ff", "ff", NULL},
               {0xFB01, "FI", "Fi", "fi", NULL},
               {0xFB02, "FL", "Fl", "fl", NULL},
               {0xFB03, "FFI", "Ffi", "ffi", NULL},
               {0xFB04, "FFL", "Ffl", "ffl", NULL},
               {0xFB05, "ST", "St", "st", NULL},
               {0xFB06, "ST", "St", "st", NULL}};

static void put_cased(struct jinja_build *b, uint32_t c, enum letter_case how, bool begins, bool plain)
{
    const bool is_lower = utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL;
    const bool titled = begins && (how == TITLE || how == CAPITAL);
    const bool up = how == UPPER || titled || (how == SWAPPED && is_lower);
    for (size_t i = 0; c > 127 && i < GYRE_COUNT(several); i++) {
        if (several[i].code != c) continue;
        const char *text = titled          ? several[i].title
                           : up            ? several[i].upper
                           : how == FOLDED ? several[i].folded
                                           : several[i].lower;
        if (!text) break;
        gyre_jinja_put(b, text, strlen(text), plain);
        return;
    }
    const utf8proc_int32_t code = (utf8proc_int32_t)c;
    gyre_jinja_put_char(b,
                        (uint32_t)(titled ? utf8proc_totitle(code)
                                   : up   ? utf8proc_toupper(code)
                                          : utf8proc_tolower(code)),
                        plain);
}

// The Greek sigma at a word's end.
static bool is_final_sigma(const struct jinja_string *s, uint64_t at, uint32_t n, bool before)
{
    uint32_t k;
    return before && (at + n == s->bytes || !cased(gyre_jinja_char(s, at + n, &k)));
}

static jinja_value with_case(struct jinja_run *run, jinja_value self, enum letter_case how)
{
    const struct jinja_string *s = self.string;
    struct jinja_build b = {.run = run};
    bool before = false;
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        const bool begins = how == TITLE ? !before : at == 0;
        const bool lowers = how == LOWER || how == SWAPPED || (!begins && (how == TITLE || how == CAPITAL));
        if (c == 0x3A3 && lowers && is_final_sigma(s, at, n, before))
            gyre_jinja_put(&b, "\xCF\x82", 2, gyre_jinja_plain_at(s, at));
        else put_cased(&b, c, how, begins, gyre_jinja_plain_at(s, at));
        before = cased(c);
        at += n;
    }
    return as(run, self, &b);
}

static jinja_value lower(ARGS) { return UNUSED, with_case(run, self, LOWER); }
static jinja_value upper(ARGS) { return UNUSED, with_case(run, self, UPPER); }
static jinja_value title(ARGS) { return UNUSED, with_case(run, self, TITLE); }
static jinja_value capitalize(ARGS) { return UNUSED, with_case(run, self, CAPITAL); }
static jinja_value swapcase(ARGS) { return UNUSED, with_case(run, self, SWAPPED); }
static jinja_value casefold(ARGS) { return UNUSED, with_case(run, self, FOLDED); }

static jinja_value format(ARGS) { return UNUSED, gyre_jinja_format(run, self.string, all); }
static jinja_value format_map(ARGS)
{
    UNUSED;
    struct jinja_args args = {0};
    if (given[0].kind != JINJA_DICT)
        gyre_jinja_raise(run, "format_map() takes a dict, not %s", gyre_jinja_type(given[0]));
    const struct jinja_dict *d = given[0].dict;
    args.keyword = gyre_jinja_alloc(run, d->n, sizeof *args.keyword);
    for (uint64_t i = 0; i < d->n; i++)
        if (d->entry[i].key.kind == JINJA_STRING)
            args.keyword[args.n_keywords++] =
                (struct jinja_keyword){gyre_jinja_c_text(run, d->entry[i].key.string), d->entry[i].value};
    return gyre_jinja_format(run, self.string, &args);
}

const struct jinja_builtin gyre_jinja_text_methods[] = {
    {"capitalize", capitalize, "", 0},
    {"casefold", casefold, "", 0},
    {"center", center, "width,fillchar", 1},
    {"count", text_count, "sub,start,end", 1},
    {"endswith", endswith, "suffix,start,end", 1},
    {"expandtabs", expandtabs, "tabsize", 0},
    {"find", find, "sub,start,end", 1},
    {"format", format, "*", 0},
    {"format_map", format_map, "mapping", 1},
    {"index", text_index, "sub,start,end", 1},
    {"join", join, "iterable", 1},
    {"ljust", ljust, "width,fillchar", 1},
    {"lower", lower, "", 0},
    {"lstrip", lstrip, "chars", 0},
    {"partition", partition, "sep", 1},
    {"removeprefix", removeprefix, "prefix", 1},
    {"removesuffix", removesuffix, "suffix", 1},
    {"replace", replace, "old,new,count", 2},
    {"rfind", rfind, "sub,start,end", 1},
    {"rindex", text_rindex, "sub,start,end", 1},
    {"rjust", rjust, "width,fillchar", 1},
    {"rpartition", rpartition, "sep", 1},
    {"rsplit", rsplit, "sep,maxsplit", 0},
    {"rstrip", rstrip, "chars", 0},
    {"split", split, "sep,maxsplit", 0},
    {"splitlines", splitlines, "keepends", 0},
    {"startswith", startswith, "prefix,start,end", 1},
    {"strip", strip, "chars", 0},
    {"swapcase", swapcase, "", 0},
    {"title", title, "", 0},
    {"upper", upper, "", 0},
    {"zfill", zfill, "width", 1},
};
const uint64_t gyre_jinja_n_text_methods = GYRE_COUNT(gyre_jinja_text_methods);
