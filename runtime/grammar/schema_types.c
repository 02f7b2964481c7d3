// See schema_types.h.
#include "runtime/grammar/schema_types.h"

#include "runtime/util/base.h"
#include "runtime/util/locale.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void return_(struct gyre_schema *c) { gyre_emit(c->program, GYRE_OP_RETURN, 0, 0, 0); }

// ---- words ----------------------------------------------------------------------------------------------------------

// The automaton of what `keyword` says; NULL after a failure.
static struct gyre_dfa *made(struct gyre_schema *c, const char *path, const char *keyword, const struct gyre_re *re,
                             enum gyre_dfa_text text)
{
    struct gyre_dfa *dfa = NULL;
    gyre_error err;
    if (c->program->st != GYRE_OK) return NULL;
    gyre_schema_made(c, path, keyword, gyre_dfa_make(re, text, &dfa, &err), &err);
    return dfa;
}

// The automaton of an expression that is needed again and again; its number.
static uint32_t once(struct gyre_schema *c, uint32_t *memo, const struct gyre_re *re)
{
    if (!*memo) *memo = 1 + gyre_add_dfa(c->program, made(c, c->name, "type", re, GYRE_DFA_UTF8));
    return *memo - 1;
}

// A word in UTF-8 whose automaton is made once.
static void word(struct gyre_schema *c, const struct gyre_re *re, uint32_t *memo)
{
    gyre_emit(c->program, GYRE_OP_WORD, once(c, memo, re), GYRE_WORD_STRICT, 0);
}

void gyre_schema_gap(struct gyre_schema *c)
{
    if (!c->compact) word(c, gyre_re_repeat(&c->maker, gyre_re_text(&c->maker, " "), 0, 1), &c->gap);
}

void gyre_schema_line(struct gyre_schema *c)
{
    struct gyre_re_maker *m = &c->maker;
    if (c->compact) return;
    const struct gyre_re *space = gyre_re_text(m, " "),
                         *indented = gyre_re_cat(m, gyre_re_text(m, "\n"), gyre_re_repeat(m, space, 0, 20));
    word(c, gyre_re_repeat(m, gyre_re_alt(m, space, indented), 0, 1), &c->line);
}

static const struct gyre_re *parsed(struct gyre_schema *c, const char *path, const char *keyword, const char *pattern,
                                    size_t n)
{
    const struct gyre_re *re = NULL;
    gyre_error err;
    const gyre_status st = c->program->st == GYRE_OK ? gyre_re_parse(&c->maker, pattern, n, &re, &err) : GYRE_E_INVALID;
    if (st == GYRE_E_UNSUPPORTED) gyre_schema_refuse(c, path, "keyword \"%s\": %s", keyword, err.message);
    else if (st != GYRE_OK) gyre_program_fail(c->program, st, &err);
    return re;
}

// ---- strings --------------------------------------------------------------------------------------------------------

// RFC 3339 (without leap seconds), 5321 in its common form, 1123, 2673, 4122; days are those that every month has.
static const char *const formats[][2] = {
#define TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define DATE "[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
#define HOST "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?){0,4}"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"email", "^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,2}@" HOST "$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^" BYTE "(\\." BYTE "){3}$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
};

static const struct gyre_re *format(struct gyre_schema *c, const json_t *v, const char *path)
{
    if (!json_is_string(v)) return gyre_schema_malformed(c, path, "\"format\" is no text"), NULL;
    for (size_t i = 0; i < GYRE_COUNT(formats); i++)
        if (strcmp(formats[i][0], json_string_value(v)) == 0)
            return parsed(c, path, "format", formats[i][1], strlen(formats[i][1]));
    const struct gyre_shown shown = gyre_show(json_string_value(v), json_string_length(v));
    return gyre_schema_refuse(c, path, "keyword \"format\" of \"%s\" is not one that gyre can honour", shown.text),
           NULL;
}

// What `a` (taken; NULL: anything) and `keyword` allow; NULL after a failure.
static struct gyre_dfa *narrowed(struct gyre_schema *c, const char *path, const char *keyword, struct gyre_dfa *a,
                                 const struct gyre_re *re, enum gyre_dfa_text text)
{
    struct gyre_dfa *b = made(c, path, keyword, re, text), *both = NULL;
    gyre_error err;
    if (!a || !b) return a ? gyre_dfa_free(a), b : b;
    gyre_schema_made(c, path, keyword, gyre_dfa_both(a, b, false, &both, &err), &err);
    gyre_dfa_free(a);
    gyre_dfa_free(b);
    return both;
}

struct gyre_dfa *gyre_schema_string_dfa(struct gyre_schema *c, const json_t *schema, const char *path,
                                        enum gyre_dfa_text text, uint32_t *min, uint32_t *max)
{
    enum { MOST = 500 }; // characters that are counted in an automaton
    const json_t *pattern = json_object_get(schema, "pattern"), *kind = json_object_get(schema, "format");
    struct gyre_dfa *dfa = NULL;
    *min = gyre_schema_count(c, schema, path, "minLength", 0);
    *max = gyre_schema_count(c, schema, path, "maxLength", GYRE_RE_MANY);
    if (pattern && !json_is_string(pattern)) gyre_schema_malformed(c, path, "\"pattern\" is no text");
    else if (pattern) {
        const struct gyre_re *re = parsed(c, path, "pattern", json_string_value(pattern), json_string_length(pattern));
        if (re) dfa = made(c, path, "pattern", re, text);
    }
    if (kind) {
        const struct gyre_re *re = format(c, kind, path);
        if (re) dfa = narrowed(c, path, "format", dfa, re, text);
    }
    if (!dfa || (*min == 0 && *max == GYRE_RE_MANY)) return dfa;
    if (*min > MOST || (*max != GYRE_RE_MANY && *max > MOST)) {
        gyre_schema_refuse(c, path, "keyword \"%s\" beside \"%s\" may be at most %d",
                           *min > MOST ? "minLength" : "maxLength", pattern ? "pattern" : "format", MOST);
        return gyre_dfa_free(dfa), NULL;
    }
    if (*max < *min) return dfa; // told by whoever looks at the two
    return narrowed(c, path, *max == GYRE_RE_MANY ? "minLength" : "maxLength", dfa,
                    gyre_re_repeat(&c->maker, gyre_re_chars(&c->maker, NULL, 0, true), *min, *max), text);
}

// One character of a JSON string in any spelling: as it is, a short escape, or \uXXXX; outside of the first plane by
// two of those that belong together, for halves are no text.
static const struct gyre_re *any_character(struct gyre_schema *c)
{
    static const char pattern[] =
        "^([^\\x00-\\x1f\"\\\\\\x7f]|\\\\([\"\\\\/bfnrt]|u([0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|"
        "[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2})))$";
    return parsed(c, c->name, "type", pattern, sizeof pattern - 1);
}

static void emit_characters(struct gyre_schema *c, uint32_t min, uint32_t max)
{
    const uint32_t chars = once(c, &c->chars, c->chars ? NULL : any_character(c));
    gyre_emit_lit(c->program, "\"");
    gyre_emit(c->program, GYRE_OP_STRING, chars, min, max);
}

void gyre_schema_string(struct gyre_schema *c, const json_t *schema, const char *path)
{
    uint32_t min, max;
    struct gyre_dfa *dfa = gyre_schema_string_dfa(c, schema, path, GYRE_DFA_JSON, &min, &max);
    if (min > max) { // impossible
        gyre_dfa_free(dfa);
        gyre_emit_alt(c->program, 0);
        return;
    }
    if (!dfa) emit_characters(c, min, max);
    else {
        gyre_emit_lit(c->program, "\"");
        gyre_emit_word(c->program, dfa, GYRE_WORD_STRICT);
        gyre_emit_lit(c->program, "\"");
    }
    return_(c);
}

// ---- numbers --------------------------------------------------------------------------------------------------------

// A JSON number as a decimal text without an exponent; false where it is too long for that.
static bool decimal_here(const json_t *v, char out[64])
{
    if (json_is_integer(v)) return snprintf(out, 64, "%lld", (long long)json_integer_value(v)) < 64;
    char digits[40], plain[64];
    const double x = json_real_value(v);
    for (int n = 0; n < 17; n++) { // the fewest digits that are this number
        snprintf(digits, sizeof digits, "%.*e", n, x);
        if (strtod(digits, NULL) == x) break;
    }
    const char *e = strchr(digits, 'e');
    const long exponent = e ? strtol(e + 1, NULL, 10) : 0;
    const long fraction = (long)(e - digits) - (strchr(digits, '.') ? 2 : 1) - (x < 0) - exponent;
    if (exponent > 30 || fraction > GYRE_RE_DIGITS) return false;
    snprintf(plain, sizeof plain, "%.*f", (int)GYRE_MAX(fraction, 0L), x);
    return snprintf(out, 64, "%s", plain) < 64;
}

static bool decimal(const json_t *v, char out[64])
{
    const struct gyre_locale locale = gyre_locale_plain();
    const bool fits = decimal_here(v, out);
    gyre_locale_back(locale);
    return fits;
}

// Narrows to one bound; true where there is one.
static bool bounded(struct gyre_schema *c, const json_t *schema, const char *path, const char *keyword, bool least,
                    bool out, bool integer, struct gyre_dfa **dfa)
{
    const json_t *v = json_object_get(schema, keyword);
    char text[64];
    if (!v) return false;
    if (!json_is_number(v)) return gyre_schema_malformed(c, path, "\"%s\" is no number", keyword), false;
    if (json_number_value(v) * (least ? -1 : 1) > 1e15) return false; // no number that is generated is so large
    if (!decimal(v, text))
        return gyre_schema_refuse(c, path, "keyword \"%s\" has more digits than gyre can honour", keyword), false;
    *dfa = narrowed(c, path, keyword, *dfa, (least ? gyre_re_at_least : gyre_re_at_most)(&c->maker, text, out, integer),
                    GYRE_DFA_UTF8);
    return true;
}

static struct gyre_dfa *multiples(struct gyre_schema *c, const char *path, uint32_t m)
{
    struct gyre_dfa *all = made(c, path, "multipleOf", gyre_re_number(&c->maker, true), GYRE_DFA_UTF8), *mod = NULL,
                    *both = NULL;
    gyre_error err;
    gyre_status st = gyre_dfa_multiple(m, &mod, &err);
    if (st == GYRE_OK && all) st = gyre_dfa_both(all, mod, false, &both, &err);
    gyre_schema_made(c, path, "multipleOf", st, &err);
    gyre_dfa_free(all);
    gyre_dfa_free(mod);
    return both;
}

void gyre_schema_number(struct gyre_schema *c, const json_t *schema, const char *path, bool integer)
{
    enum { MOST = 2000 };
    const json_t *step = json_object_get(schema, "multipleOf");
    struct gyre_dfa *dfa = NULL;
    bool any = false;
    if (step) {
        const json_int_t m = json_integer_value(step);
        if (!json_is_number(step) || json_number_value(step) <= 0)
            gyre_schema_malformed(c, path, "\"multipleOf\" is no number above 0");
        else if (!integer || !json_is_integer(step) || m > MOST)
            gyre_schema_refuse(c, path, "keyword \"multipleOf\" is honoured for integers, up to %d", MOST);
        else dfa = multiples(c, path, (uint32_t)m), any = true;
    }
    any |= bounded(c, schema, path, "minimum", true, false, integer, &dfa);
    any |= bounded(c, schema, path, "maximum", false, false, integer, &dfa);
    any |= bounded(c, schema, path, "exclusiveMinimum", true, true, integer, &dfa);
    any |= bounded(c, schema, path, "exclusiveMaximum", false, true, integer, &dfa);
    if (any) gyre_emit_word(c->program, dfa, GYRE_WORD_STRICT);
    else word(c, gyre_re_number(&c->maker, integer), integer ? &c->integer : &c->number);
    return_(c);
}

// ---- arrays ---------------------------------------------------------------------------------------------------------

static void comma(struct gyre_schema *c)
{
    gyre_emit_lit(c->program, ",");
    gyre_schema_line(c);
}

// Code that ends the array, at its beginning.
static uint32_t close_array(struct gyre_schema *c)
{
    const uint32_t pc = c->program->n;
    gyre_schema_line(c);
    gyre_emit_lit(c->program, "]");
    return_(c);
    return pc;
}

// Behind an item, with a counter on the stack: end, or go on. Its beginning.
static uint32_t more_items(struct gyre_schema *c, uint32_t item, uint32_t min, uint32_t max, uint32_t end)
{
    struct gyre_program *p = c->program;
    const uint32_t alt = gyre_emit_alt(p, 2);
    gyre_set_target(p, alt, 0, p->n);
    gyre_emit(p, GYRE_OP_ENOUGH, min, 0, 0);
    gyre_emit(p, GYRE_OP_JUMP, end, 0, 0);
    gyre_set_target(p, alt, 1, p->n);
    gyre_emit(p, GYRE_OP_COUNT, max, max == GYRE_RE_MANY ? min : max, 0);
    comma(c);
    gyre_emit(p, GYRE_OP_CALL, item, 0, 0);
    gyre_emit(p, GYRE_OP_JUMP, alt, 0, 0);
    return alt;
}

// What an array may hold: so many items, the first n of them by a schema each. A program is written from its end, so
// the parts below are given where what follows them begins.
struct array {
    uint32_t min, max, n;
    uint32_t end; // where the array closes
};

// The items behind the prefix, all of one schema. Returns where the program goes on behind the prefix's last item;
// *begin: where it begins without a prefix, with no comma in front of the first item.
static uint32_t same_items(struct gyre_schema *c, const struct array *a, const json_t *items, const char *path,
                           uint32_t *begin)
{
    struct gyre_program *p = c->program;
    const uint32_t item = gyre_schema_rule(c, items ? items : json_true(), gyre_schema_path(c, path, "items", NULL));
    const uint32_t behind =
        more_items(c, item, a->min > a->n ? a->min - a->n : 0, a->max == GYRE_RE_MANY ? a->max : a->max - a->n, a->end);
    const uint32_t then = gyre_emit(p, GYRE_OP_PUSH, 0, 0, 0);
    gyre_emit(p, GYRE_OP_JUMP, behind, 0, 0);
    *begin = gyre_emit(p, GYRE_OP_PUSH, 1, 0, 0);
    gyre_emit(p, GYRE_OP_CALL, item, 0, 0);
    gyre_emit(p, GYRE_OP_JUMP, behind, 0, 0);
    return then;
}

// The items of the prefix, from the last to the first. `then`: what follows the last one. Returns where the first one
// begins, or `begin` where there is none.
static uint32_t prefix_items(struct gyre_schema *c, const struct array *a, const json_t *prefix, const char *path,
                             uint32_t then, uint32_t begin)
{
    struct gyre_program *p = c->program;
    const uint32_t n = GYRE_MIN(a->n, a->max);
    for (uint32_t i = n; i-- > 0;) {
        char number[16];
        snprintf(number, sizeof number, "%u", i);
        const uint32_t rule =
            gyre_schema_rule(c, json_array_get(prefix, i), gyre_schema_path(c, path, "prefixItems", number));
        uint32_t after = then;
        if (i + 1 < n) {
            const uint32_t next = p->n;
            comma(c);
            gyre_emit(p, GYRE_OP_JUMP, begin, 0, 0);
            after = i + 1 >= a->min ? gyre_emit_alt(p, 2) : next;
            if (i + 1 >= a->min) gyre_set_target(p, after, 0, next), gyre_set_target(p, after, 1, a->end);
        }
        begin = gyre_emit(p, GYRE_OP_CALL, rule, 0, 0);
        gyre_emit(p, GYRE_OP_JUMP, after, 0, 0);
    }
    return begin;
}

void gyre_schema_array(struct gyre_schema *c, const json_t *schema, const char *path)
{
    enum { MOST_PREFIX = 1000 };
    struct gyre_program *p = c->program;
    const json_t *items = json_object_get(schema, "items"), *prefix = json_object_get(schema, "prefixItems");
    const uint32_t min = gyre_schema_count(c, schema, path, "minItems", 0), n = (uint32_t)json_array_size(prefix);
    const uint32_t most = gyre_schema_count(c, schema, path, "maxItems", GYRE_RE_MANY),
                   max = json_is_false(items) ? GYRE_MIN(most, n) : most;
    if (prefix && (!json_is_array(prefix) || n > MOST_PREFIX)) {
        gyre_schema_refuse(c, path, "keyword \"prefixItems\" is a list of up to %d schemas", MOST_PREFIX);
        return;
    }
    if (json_is_array(items)) {
        gyre_schema_refuse(c, path, "keyword \"items\" as a list is not one that gyre can honour (prefixItems is)");
        return;
    }
    if (min > max) { // impossible
        gyre_emit_alt(p, 0);
        return;
    }
    gyre_emit_lit(p, "[");
    gyre_schema_line(c);
    const uint32_t enter = gyre_emit(p, GYRE_OP_JUMP, 0, 0, 0), empty = p->n;
    gyre_emit_lit(p, "]");
    return_(c);
    uint32_t begin = empty; // of what lies between the brackets; written from its end
    if (max > 0) {
        const struct array a = {min, max, n, close_array(c)};
        const uint32_t then = max > n ? same_items(c, &a, items, path, &begin) : a.end;
        begin = prefix_items(c, &a, prefix, path, then, begin);
        if (min == 0) {
            const uint32_t either = gyre_emit_alt(p, 2);
            gyre_set_target(p, either, 0, empty);
            gyre_set_target(p, either, 1, begin);
            begin = either;
        }
    }
    if (p->st == GYRE_OK) p->instr[enter].a = begin;
}

// ---- objects --------------------------------------------------------------------------------------------------------

struct property {
    const char *name; // as JSON
    uint32_t rule;
    bool required;
};

// The properties in order: those that the schema has, then those that it only requires. NULL after a failure.
static struct property *properties(struct gyre_schema *c, const json_t *schema, const char *path, const json_t *others,
                                   uint32_t *n)
{
    json_t *given = json_object_get(schema, "properties"), *required = json_object_get(schema, "required"), *value;
    const char *key;
    size_t i;
    if ((given && !json_is_object(given)) || (required && !json_is_array(required)))
        return gyre_schema_malformed(c, path, "\"%s\" is no %s",
                                     given && !json_is_object(given) ? "properties" : "required",
                                     given && !json_is_object(given) ? "object" : "list"),
               NULL;
    struct property *all =
        gyre_arena_array(&c->arena, json_object_size(given) + json_array_size(required) + 1, sizeof *all);
    struct gyre_strmap index = {0};
    *n = 0;
    json_object_foreach(given, key, value)
    {
        json_t *name = json_string(key);
        if (!all || !name || !gyre_strmap_add(&index, key, (uint32_t)strlen(key), *n, NULL)) {
            json_decref(name);
            goto no_memory;
        }
        all[(*n)++] = (struct property){
            gyre_schema_text(c, name), gyre_schema_rule(c, value, gyre_schema_path(c, path, "properties", key)), false};
        json_decref(name);
    }
    json_array_foreach(required, i, value)
    {
        uint32_t k = *n;
        bool added = false;
        if (!json_is_string(value)) {
            gyre_schema_malformed(c, path, "\"required\" has what is no name");
            break;
        }
        uint32_t *at =
            gyre_strmap_add(&index, json_string_value(value), (uint32_t)json_string_length(value), k, &added);
        if (!at || !all) goto no_memory;
        if (added)
            all[(*n)++] = (struct property){gyre_schema_text(c, value),
                                            gyre_schema_rule(c, others ? others : json_true(),
                                                             gyre_schema_path(c, path, "additionalProperties", NULL)),
                                            false};
        else k = *at;
        all[k].required = true;
    }
    gyre_strmap_free(&index);
    return all;
no_memory:
    gyre_strmap_free(&index);
    gyre_schema_no_memory(c);
    return NULL;
}

// A key that is none of the properties.
static void emit_other_key(struct gyre_schema *c, const char *path, const struct property *all, uint32_t n)
{
    struct gyre_re_maker *m = &c->maker;
    static const struct gyre_re_range out[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0x7F, 0x7F}};
    struct gyre_dfa *any, *names = NULL, *others = NULL;
    gyre_error err;
    if (n == 0) {
        emit_characters(c, 0, GYRE_RE_MANY);
        return;
    }
    const char **texts = gyre_arena_array(&c->arena, n, sizeof *texts);
    any = made(c, path, "properties", gyre_re_repeat(m, gyre_re_chars(m, out, GYRE_COUNT(out), true), 0, GYRE_RE_MANY),
               GYRE_DFA_UTF8);
    for (uint32_t i = 0; texts && i < n; i++) { // without the quotes around it
        char *copy = gyre_arena_strdup(&c->arena, all[i].name + 1);
        if (copy) copy[strlen(copy) - 1] = 0;
        texts[i] = copy ? copy : "";
    }
    if (!texts) gyre_schema_no_memory(c);
    gyre_status st = texts && any ? gyre_dfa_texts(texts, n, &names, &err) : GYRE_OK;
    if (st == GYRE_OK && names) st = gyre_dfa_both(any, names, true, &others, &err);
    gyre_schema_made(c, path, "properties", st, &err);
    gyre_dfa_free(any);
    gyre_dfa_free(names);
    gyre_emit_lit(c->program, "\"");
    gyre_emit_word(c->program, others, GYRE_WORD_STRICT);
    gyre_emit_lit(c->program, "\"");
}

void gyre_schema_object(struct gyre_schema *c, const json_t *schema, const char *path)
{
    struct gyre_program *p = c->program;
    const json_t *others = json_object_get(schema, "additionalProperties");
    uint32_t n;
    const struct property *all = properties(c, schema, path, others, &n);
    const bool open = others ? !json_is_false(others) : json_object_size(json_object_get(schema, "properties")) == 0;
    if (!all) return;
    gyre_emit_lit(p, "{");
    gyre_schema_line(c);
    const uint32_t begin = gyre_emit(p, GYRE_OP_JUMP, 0, 0, 0);
    // From the last place to the first: `none` goes on where no property has come yet, `some` behind one.
    uint32_t none = p->n, some;
    gyre_emit_lit(p, "}");
    return_(c);
    some = p->n;
    gyre_schema_line(c);
    gyre_emit_lit(p, "}");
    return_(c);
    if (open) {
        const uint32_t rule =
            gyre_schema_rule(c, others ? others : json_true(), gyre_schema_path(c, path, "additionalProperties", NULL));
        const uint32_t key = p->n;
        emit_other_key(c, path, all, n);
        gyre_emit_lit(p, ":");
        gyre_schema_gap(c);
        gyre_emit(p, GYRE_OP_CALL, rule, 0, 0);
        const uint32_t back = gyre_emit(p, GYRE_OP_JUMP, 0, 0, 0), next = p->n;
        comma(c);
        gyre_emit(p, GYRE_OP_JUMP, key, 0, 0);
        const uint32_t first = gyre_emit_alt(p, 2), later = gyre_emit_alt(p, 2);
        gyre_set_target(p, first, 0, none);
        gyre_set_target(p, first, 1, key);
        gyre_set_target(p, later, 0, some);
        gyre_set_target(p, later, 1, next);
        if (p->st == GYRE_OK) p->instr[back].a = later;
        none = first;
        some = later;
    }
    for (uint32_t i = n; i-- > 0;) {
        const uint32_t take = p->n;
        gyre_emit_lit(p, all[i].name);
        gyre_emit_lit(p, ":");
        gyre_schema_gap(c);
        gyre_emit(p, GYRE_OP_CALL, all[i].rule, 0, 0);
        gyre_emit(p, GYRE_OP_JUMP, some, 0, 0);
        const uint32_t behind = p->n;
        comma(c);
        gyre_emit(p, GYRE_OP_JUMP, take, 0, 0);
        if (all[i].required) {
            none = take;
            some = behind;
            continue;
        }
        const uint32_t first = gyre_emit_alt(p, 2), later = gyre_emit_alt(p, 2);
        gyre_set_target(p, first, 0, take);
        gyre_set_target(p, first, 1, none);
        gyre_set_target(p, later, 0, behind);
        gyre_set_target(p, later, 1, some);
        none = first;
        some = later;
    }
    if (p->st == GYRE_OK) p->instr[begin].a = none;
}
