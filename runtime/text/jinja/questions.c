// What strings can be asked (isdigit and the like), and the methods of lists, dicts and jinja2's own objects. See
// value.h.
#include "runtime/text/jinja/value.h"

#include <string.h>
#include <utf8proc.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

// ---- strings ----------------------------------------------------------------------------------------

enum question { ALNUM, ALPHA, ASCII, DECIMAL, DIGIT, IDENTIFIER, NUMERIC, PRINTABLE, SPACE };

static bool is_superscript(uint32_t c)
{
    return c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
           (c >= 0x2080 && c <= 0x2089);
}

static bool answers(uint32_t c, enum question q, bool first)
{
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    const bool alpha = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
    const bool decimal = k == UTF8PROC_CATEGORY_ND, digit = decimal || is_superscript(c);
    const bool numeric = digit || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
    switch (q) {
    case ALNUM:
        return alpha || numeric;
    case ALPHA:
        return alpha;
    case ASCII:
        return c < 128;
    case DECIMAL:
        return decimal;
    case DIGIT:
        return digit;
    case NUMERIC:
        return numeric;
    case SPACE:
        return gyre_jinja_is_space(c);
    case PRINTABLE:
        return c == ' ' || (k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_ZS && k < UTF8PROC_CATEGORY_ZL);
    default:
        return alpha || k == UTF8PROC_CATEGORY_NL || c == '_' ||
               (!first &&
                (decimal || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_PC));
    }
}

static jinja_value ask(struct jinja_run *run, jinja_value self, enum question q)
{
    const struct jinja_string *s = self.string;
    gyre_jinja_work(run, s->bytes / 16);
    bool all_so = s->bytes || q == ASCII || q == PRINTABLE;
    for (uint64_t at = 0; at < s->bytes && all_so;) {
        uint32_t n;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        all_so = answers(c, q, at == 0);
        at += n;
    }
    return jinja_bool(all_so);
}

static jinja_value isalnum_(ARGS) { return UNUSED, ask(run, self, ALNUM); }
static jinja_value isalpha_(ARGS) { return UNUSED, ask(run, self, ALPHA); }
static jinja_value isascii_(ARGS) { return UNUSED, ask(run, self, ASCII); }
static jinja_value isdecimal_(ARGS) { return UNUSED, ask(run, self, DECIMAL); }
static jinja_value isdigit_(ARGS) { return UNUSED, ask(run, self, DIGIT); }
static jinja_value isidentifier_(ARGS) { return UNUSED, ask(run, self, IDENTIFIER); }
static jinja_value isnumeric_(ARGS) { return UNUSED, ask(run, self, NUMERIC); }
static jinja_value isprintable_(ARGS) { return UNUSED, ask(run, self, PRINTABLE); }
static jinja_value isspace_(ARGS) { return UNUSED, ask(run, self, SPACE); }

// Cased letters must all be of one case ('l', 'u'), or begin words and go on in them ('t'); there must be one.
static jinja_value ask_case(const struct jinja_string *s, char want)
{
    bool any = false, inside = false;
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)gyre_jinja_char(s, at, &n));
        const bool up = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT, low = k == UTF8PROC_CATEGORY_LL;
        if ((up && (want == 'l' || (want == 't' && inside))) || (low && (want == 'u' || (want == 't' && !inside))))
            return jinja_bool(false);
        any = any || up || low;
        inside = up || low;
        at += n;
    }
    return jinja_bool(any);
}

static jinja_value islower_(ARGS) { return UNUSED, ask_case(self.string, 'l'); }
static jinja_value isupper_(ARGS) { return UNUSED, ask_case(self.string, 'u'); }
static jinja_value istitle_(ARGS) { return UNUSED, ask_case(self.string, 't'); }

const struct jinja_builtin gyre_jinja_text_questions[] = {
    {"isalnum", isalnum_, "", 0},           {"isalpha", isalpha_, "", 0},     {"isascii", isascii_, "", 0},
    {"isdecimal", isdecimal_, "", 0},       {"isdigit", isdigit_, "", 0},     {"islower", islower_, "", 0},
    {"isidentifier", isidentifier_, "", 0}, {"isnumeric", isnumeric_, "", 0}, {"isprintable", isprintable_, "", 0},
    {"isspace", isspace_, "", 0},           {"istitle", istitle_, "", 0},     {"isupper", isupper_, "", 0},
};
const uint64_t gyre_jinja_n_text_questions = GYRE_COUNT(gyre_jinja_text_questions);

// ---- lists and tuples -------------------------------------------------------------------------------

static jinja_value list_count(ARGS)
{
    UNUSED;
    jinja_int n = 0;
    for (uint64_t i = 0; i < self.list->n; i++) n += gyre_jinja_equal(run, self.list->item[i], given[0]);
    return jinja_number(n);
}

static jinja_value list_index(ARGS)
{
    UNUSED;
    uint64_t from, to;
    gyre_jinja_bounds(run, given[1], given[2], self.list->n, &from, &to);
    for (uint64_t i = from; i < to; i++)
        if (gyre_jinja_equal(run, self.list->item[i], given[0])) return jinja_number((jinja_int)i);
    gyre_jinja_raise(run, "the value is not in the %s", gyre_jinja_type(self));
}

static jinja_value copy(ARGS) { return UNUSED, self; } // nothing changes it

const struct jinja_builtin gyre_jinja_list_methods[] = {
    {"count", list_count, "value", 1},
    {"index", list_index, "value,start,stop", 1},
    {"copy", copy, "", 0},
};
const uint64_t gyre_jinja_n_list_methods = GYRE_COUNT(gyre_jinja_list_methods);

// ---- dicts ------------------------------------------------------------------------------------------

static jinja_value get(ARGS)
{
    UNUSED;
    const jinja_value *found = gyre_jinja_dict_get(run, self.dict, given[0]);
    return found ? *found : given[1].kind == JINJA_MISSING ? jinja_none() : given[1];
}

static jinja_value view(struct jinja_run *run, const struct jinja_dict *d, const char *name, bool with_key,
                        bool with_value)
{
    const jinja_value out = gyre_jinja_list(run, JINJA_VIEW, d->n);
    out.list->view = name;
    for (uint64_t i = 0; i < d->n; i++) {
        const struct jinja_entry *e = &d->entry[i];
        out.list->item[i] = with_key && with_value ? gyre_jinja_pair(run, e->key, e->value)
                            : with_key             ? e->key
                                                   : e->value;
    }
    return out;
}

static jinja_value keys(ARGS) { return UNUSED, view(run, self.dict, "dict_keys", true, false); }
static jinja_value values(ARGS) { return UNUSED, view(run, self.dict, "dict_values", false, true); }
static jinja_value items(ARGS) { return UNUSED, view(run, self.dict, "dict_items", true, true); }

const struct jinja_builtin gyre_jinja_dict_methods[] = {
    {"copy", copy, "", 0}, {"get", get, "key,default", 1}, {"items", items, "", 0},
    {"keys", keys, "", 0}, {"values", values, "", 0},
};
const uint64_t gyre_jinja_n_dict_methods = GYRE_COUNT(gyre_jinja_dict_methods);

// ---- loop, cycler, and which methods a value has ----------------------------------------------------

static jinja_value next(ARGS)
{
    UNUSED;
    const jinja_value now = self.cycler->list.item[self.cycler->at];
    self.cycler->at = (self.cycler->at + 1) % self.cycler->list.n;
    return now;
}

static jinja_value reset(ARGS)
{
    UNUSED;
    self.cycler->at = 0;
    return jinja_none();
}

static jinja_value loop_cycle(ARGS)
{
    UNUSED;
    if (!all->n) gyre_jinja_raise(run, "no items for cycling given");
    return all->item[self.loop->at % all->n];
}

static jinja_value loop_changed(ARGS)
{
    UNUSED;
    const struct jinja_list *before = self.loop->changed;
    bool same = before && before->n == all->n;
    for (uint64_t i = 0; same && i < all->n; i++) same = gyre_jinja_equal(run, before->item[i], all->item[i]);
    if (same) return jinja_bool(false);
    self.loop->changed = gyre_jinja_list(run, JINJA_TUPLE, all->n).list;
    for (uint64_t i = 0; i < all->n; i++) self.loop->changed->item[i] = all->item[i];
    return jinja_bool(true);
}

// Of cycler and loop; the kind that each row belongs to is in method_of.
const struct jinja_builtin gyre_jinja_object_methods[] = {
    {"next", next, "", 0},
    {"reset", reset, "", 0},
    {"cycle", loop_cycle, "*", 0},
    {"changed", loop_changed, "*", 0},
};
const uint64_t gyre_jinja_n_object_methods = GYRE_COUNT(gyre_jinja_object_methods);
