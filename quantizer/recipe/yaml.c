// Reads a recipe's YAML, event by event: there is no tree, and nothing nests deeper than the grammar does.
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { EXCERPT = 48, MARKS = 64 }; // marks: more than a recipe has keys

struct mark { // where a key of the recipe stands
    const char *map, *key;
    yaml_mark_t at;
};

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; // the current one; zeroed: none
    const char *text, *where;
    size_t bytes;
    struct gyre_recipe *recipe;
    struct mark mark[MARKS];
    uint32_t n_marks;
    yaml_mark_t stage_at[GYRE_MAX_STAGES], top;
    gyre_error *err;
};

// ---- errors -----------------------------------------------------------------------------------------------

static gyre_status GYRE_PRINTF(3, 4) fail_at(struct reader *rd, yaml_mark_t at, const char *format, ...)
{
    enum { TAIL = 160 }; // of a long path its end says more, and the reason must fit behind it
    const size_t length = strlen(rd->where);
    char why[360];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return gyre_fail(rd->err, GYRE_E_FORMAT, "cannot read recipe (%s%s:%zu:%zu): %s", length > TAIL ? "..." : "",
                     rd->where + (length > TAIL ? length - TAIL : 0), at.line + 1, at.column + 1, why);
}

// The position of a byte, in characters as libyaml counts them.
static yaml_mark_t mark_of(const struct reader *rd, size_t offset)
{
    yaml_mark_t at = {0};
    for (size_t i = 0; i < offset && i < rd->bytes; i++) {
        const unsigned char c = (unsigned char)rd->text[i];
        if (c == '\n') {
            at.line++;
            at.column = 0;
        } else if ((c & 0xc0) != 0x80) {
            at.column++;
        }
    }
    return at;
}

static gyre_status syntax_error(struct reader *rd)
{
    const yaml_parser_t *p = &rd->parser;
    const char *problem = p->problem ? p->problem : "not YAML";
    if (p->error == YAML_MEMORY_ERROR)
        return gyre_fail(rd->err, GYRE_E_NOMEM, "cannot read recipe (%s): out of memory", rd->where);
    if (p->error == YAML_READER_ERROR)
        return fail_at(rd, mark_of(rd, p->problem_offset), "%s; a recipe is UTF-8 text without control characters",
                       problem);
    return fail_at(rd, p->problem_mark, "%s%s%s; a recipe is YAML as in docs/recipes.md", p->context ? p->context : "",
                   p->context ? " " : "", problem);
}

// A few characters of what the file says, on one line.
static const char *excerpt(const yaml_event_t *e, char out[EXCERPT])
{
    size_t n = GYRE_MIN(e->data.scalar.length, (size_t)EXCERPT - 4);
    const bool cut = n < e->data.scalar.length;
    while (cut && n && (e->data.scalar.value[n] & 0xc0) == 0x80) n--;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = e->data.scalar.value[i];
        out[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    memcpy(out + n, cut ? "..." : "", cut ? 4 : 1);
    return out;
}

// ---- events -----------------------------------------------------------------------------------------------

static gyre_status advance(struct reader *rd)
{
    yaml_event_delete(&rd->event);
    memset(&rd->event, 0, sizeof rd->event);
    if (!yaml_parser_parse(&rd->parser, &rd->event)) return syntax_error(rd);
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (rd->event.type) {
    case YAML_ALIAS_EVENT:
        return fail_at(rd, rd->event.start_mark, "an alias (*); recipes have none, write the value itself");
    case YAML_SCALAR_EVENT:
        anchor = rd->event.data.scalar.anchor;
        tag = rd->event.data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = rd->event.data.sequence_start.anchor;
        tag = rd->event.data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = rd->event.data.mapping_start.anchor;
        tag = rd->event.data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor) return fail_at(rd, rd->event.start_mark, "an anchor (&); recipes have none, write the value itself");
    if (tag) return fail_at(rd, rd->event.start_mark, "a tag (!); recipes have none, write the value alone");
    return GYRE_OK;
}

static bool is_plain(const yaml_event_t *e)
{
    return e->type == YAML_SCALAR_EVENT && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static bool says(const yaml_event_t *e, const char *word)
{
    return e->type == YAML_SCALAR_EVENT && e->data.scalar.length == strlen(word) &&
           !memcmp(e->data.scalar.value, word, e->data.scalar.length);
}

// No value after a key or a hyphen.
static bool is_absent(const yaml_event_t *e) { return is_plain(e) && e->data.scalar.length == 0; }

// ---- values -----------------------------------------------------------------------------------------------

static gyre_status wrong_value(struct reader *rd, const struct gyre_field *f)
{
    char allowed[200], said[EXCERPT];
    gyre_field_allowed(f, allowed, sizeof allowed);
    if (rd->event.type != YAML_SCALAR_EVENT)
        return fail_at(rd, rd->event.start_mark, "%s is no %s; it takes %s", f->key,
                       rd->event.type == YAML_SEQUENCE_START_EVENT ? "list" : "mapping", allowed);
    if (is_absent(&rd->event))
        return fail_at(rd, rd->event.start_mark, "%s has no value; it takes %s", f->key, allowed);
    return fail_at(rd, rd->event.start_mark, "%s cannot be %s%s%s; it takes %s", f->key,
                   is_plain(&rd->event) ? "" : "\"", excerpt(&rd->event, said), is_plain(&rd->event) ? "" : "\"",
                   allowed);
}

// One line: no control characters, no line ends of Unicode, no mark of byte order.
static bool is_line(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] == 0x7f) return false;
        if (s[i] == 0xc2 && i + 1 < n && s[i + 1] < 0xa0) return false;
        if (s[i] == 0xe2 && i + 2 < n && s[i + 1] == 0x80 && (s[i + 2] == 0xa8 || s[i + 2] == 0xa9)) return false;
        if (s[i] == 0xef && i + 2 < n && s[i + 1] == 0xbb && s[i + 2] == 0xbf) return false;
    }
    return true;
}

static bool is_name(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const bool letter =
            (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9');
        if (!letter && (i == 0 || !strchr("._-", s[i]) || !s[i])) return false;
    }
    return n > 0;
}

// A decimal without sign or leading zero that fits 32 bits.
static bool read_count(const yaml_event_t *e, uint32_t *out)
{
    const size_t n = e->data.scalar.length;
    uint64_t v = 0;
    if (n < 1 || n > 10 || (n > 1 && e->data.scalar.value[0] == '0')) return false;
    for (size_t i = 0; i < n; i++) {
        if (e->data.scalar.value[i] < '0' || e->data.scalar.value[i] > '9') return false;
        v = 10 * v + (e->data.scalar.value[i] - '0');
    }
    *out = (uint32_t)v;
    return v <= UINT32_MAX;
}

// Stores the current scalar; false if the field takes no such value. A quoted scalar is a text, never a number or a
// word.
static bool store(const yaml_event_t *e, const struct gyre_field *f, void *base)
{
    char *to = (char *)base + f->at;
    const char *s = (const char *)e->data.scalar.value;
    const size_t length = e->data.scalar.length;
    uint32_t n = 0;
    double v;
    if (f->kind == GYRE_FIELD_NAME || f->kind == GYRE_FIELD_TEXT) {
        if (length >= f->size || !is_line(e->data.scalar.value, length)) return false;
        if (f->kind == GYRE_FIELD_NAME && !is_name(e->data.scalar.value, length)) return false;
        memset(to, 0, f->size);
        memcpy(to, s, length);
        return true;
    }
    if (!is_plain(e)) return false;
    switch (f->kind) {
    case GYRE_FIELD_SWITCH:
        *(bool *)to = says(e, f->words[1]);
        return *(bool *)to || says(e, f->words[0]);
    case GYRE_FIELD_CHOICE:
        while (f->words[n] && !says(e, f->words[n])) n++;
        *(gyre_clip *)(void *)to = (gyre_clip)n;
        return f->words[n] != NULL;
    case GYRE_FIELD_COUNT_AUTO:
        if (says(e, "auto")) {
            *(uint32_t *)(void *)to = GYRE_AUTO_COUNT;
            return true;
        }
        // fall through
    case GYRE_FIELD_COUNT:
        if (!read_count(e, &n) || n < f->min || n > f->max) return false;
        *(uint32_t *)(void *)to = n;
        return true;
    case GYRE_FIELD_LISTED:
        if (!read_count(e, &n) || n > INT32_MAX) return false;
        for (const int32_t *one = f->listed; *one >= 0; one++)
            if (*one == (int32_t)n) {
                *(int32_t *)(void *)to = *one;
                return true;
            }
        return false;
    case GYRE_FIELD_AUTO:
        if (says(e, "auto")) {
            *(double *)(void *)to = GYRE_AUTO;
            return true;
        }
        // fall through
    case GYRE_FIELD_REAL:
        if (!gyre_real_read(s, length, &v) || v < f->min || v > f->max) return false;
        *(double *)(void *)to = v;
        return true;
    default:
        return false;
    }
}

// ---- mappings ---------------------------------------------------------------------------------------------

static gyre_status read_stages(struct reader *rd);
static gyre_status read_exceptions(struct reader *rd);

// Reads the mapping that has just begun into `base`; `seen` gets a bit per field that was there. `name` is the
// mapping's key in the recipe (NULL: the recipe itself); `marked`: positions of keys are kept for the rules of the
// whole.
static gyre_status read_map(struct reader *rd, const struct gyre_fields *fields, void *base, const char *name,
                            bool marked, uint32_t *seen)
{
    for (*seen = 0;;) {
        GYRE_TRY(advance(rd));
        if (rd->event.type == YAML_MAPPING_END_EVENT) return GYRE_OK;
        char keys[200], said[EXCERPT];
        const yaml_mark_t at = rd->event.start_mark;
        uint32_t i = 0;
        gyre_fields_keys(fields, keys, sizeof keys);
        if (rd->event.type != YAML_SCALAR_EVENT)
            return fail_at(rd, at, "a key of %s is one word; allowed are %s", fields->what, keys);
        while (i < fields->n && !says(&rd->event, fields->field[i].key)) i++;
        excerpt(&rd->event, said);
        if (i == fields->n && !fields->n)
            return fail_at(rd, at, "unknown key \"%s\"; %s takes none", said, fields->what);
        if (i == fields->n) return fail_at(rd, at, "unknown key \"%s\"; %s takes %s", said, fields->what, keys);
        if (*seen & 1u << i)
            return fail_at(rd, at, "%s stands here a second time; each key of %s is allowed once", said, fields->what);
        *seen |= 1u << i;
        const struct gyre_field *f = &fields->field[i];
        if (marked && rd->n_marks < MARKS) rd->mark[rd->n_marks++] = (struct mark){name, f->key, at};
        GYRE_TRY(advance(rd));
        const yaml_event_type_t type = rd->event.type;
        uint32_t inner;
        if (f->kind == GYRE_FIELD_MAP && type == YAML_MAPPING_START_EVENT) {
            GYRE_TRY(read_map(rd, f->map, base, f->key, marked, &inner));
        } else if (f->kind == GYRE_FIELD_STAGES && type == YAML_SEQUENCE_START_EVENT) {
            GYRE_TRY(read_stages(rd));
        } else if (f->kind == GYRE_FIELD_EXCEPTIONS && type == YAML_SEQUENCE_START_EVENT) {
            GYRE_TRY(read_exceptions(rd));
        } else if (type != YAML_SCALAR_EVENT || !store(&rd->event, f, base)) {
            return wrong_value(rd, f);
        }
    }
}

// ---- lists ------------------------------------------------------------------------------------------------

static gyre_status read_stage_name(struct reader *rd, struct gyre_stage *s)
{
    char names[120], said[EXCERPT];
    gyre_stage_names(names, sizeof names);
    if (rd->event.type != YAML_SCALAR_EVENT)
        return fail_at(rd, rd->event.start_mark, "a stage begins with its name; there are %s", names);
    for (uint32_t k = 0; k < GYRE_STAGES; k++)
        if (says(&rd->event, gyre_stage_name((gyre_stage_kind)k))) {
            s->kind = (gyre_stage_kind)k;
            gyre_fields_preset(gyre_stage_fields(s->kind), s);
            return GYRE_OK;
        }
    return fail_at(rd, rd->event.start_mark, "unknown stage \"%s\"; there are %s", excerpt(&rd->event, said), names);
}

// "- refit" or "- gptq: {damp: 0.01}".
static gyre_status read_stage(struct reader *rd, struct gyre_stage *s)
{
    const bool mapping = rd->event.type == YAML_MAPPING_START_EVENT;
    uint32_t seen;
    if (mapping) GYRE_TRY(advance(rd));
    if (rd->event.type == YAML_MAPPING_END_EVENT)
        return fail_at(rd, rd->event.start_mark, "a stage without a name; write one such as rtn or gptq: {damp: 0.01}");
    GYRE_TRY(read_stage_name(rd, s));
    if (!mapping) return GYRE_OK;
    GYRE_TRY(advance(rd));
    if (rd->event.type == YAML_MAPPING_START_EVENT)
        GYRE_TRY(read_map(rd, gyre_stage_fields(s->kind), s, NULL, false, &seen));
    else if (!is_absent(&rd->event))
        return fail_at(rd, rd->event.start_mark, "the settings of a stage are a mapping; write %s: {KEY: VALUE}",
                       gyre_stage_name(s->kind));
    GYRE_TRY(advance(rd));
    if (rd->event.type == YAML_MAPPING_END_EVENT) return GYRE_OK;
    return fail_at(
        rd, rd->event.start_mark,
        "a second key beside %s; a stage is one name with its settings in {}, and each stage has its own hyphen",
        gyre_stage_name(s->kind));
}

static gyre_status read_stages(struct reader *rd)
{
    struct gyre_recipe *r = rd->recipe;
    for (;;) {
        GYRE_TRY(advance(rd));
        if (rd->event.type == YAML_SEQUENCE_END_EVENT) return GYRE_OK;
        if (r->n_stages == GYRE_MAX_STAGES)
            return fail_at(rd, rd->event.start_mark, "too many stages; %d are allowed", GYRE_MAX_STAGES);
        rd->stage_at[r->n_stages] = rd->event.start_mark;
        GYRE_TRY(read_stage(rd, &r->stage[r->n_stages]));
        r->n_stages++;
    }
}

static gyre_status read_exceptions(struct reader *rd)
{
    struct gyre_recipe *r = rd->recipe;
    char keys[80];
    uint32_t seen;
    gyre_fields_keys(&gyre_exception_fields, keys, sizeof keys);
    for (;;) {
        GYRE_TRY(advance(rd));
        if (rd->event.type == YAML_SEQUENCE_END_EVENT) return GYRE_OK;
        const yaml_mark_t at = rd->event.start_mark;
        if (r->n_exceptions == GYRE_MAX_EXCEPTIONS)
            return fail_at(rd, at, "too many exceptions; %d are allowed", GYRE_MAX_EXCEPTIONS);
        if (rd->event.type != YAML_MAPPING_START_EVENT)
            return fail_at(rd, at, "no mapping; an exception is a mapping of %s", keys);
        struct gyre_exception *e = &r->exception[r->n_exceptions++];
        gyre_fields_preset(&gyre_exception_fields, e);
        GYRE_TRY(read_map(rd, &gyre_exception_fields, e, NULL, false, &seen));
        if (!e->tensors[0])
            return fail_at(rd, at,
                           "an exception without tensors; name them, such as tensors: \"blk.*.ffn_down.weight\"");
        if (!e->wbits && e->wgroup < 0 && !e->act)
            return fail_at(rd, at, "an exception that changes nothing; give wbits, wgroup or act");
    }
}

// ---- the whole --------------------------------------------------------------------------------------------

static gyre_status check_whole(struct reader *rd)
{
    struct gyre_recipe_fault fault;
    yaml_mark_t at = rd->top;
    if (gyre_recipe_sound(rd->recipe, &fault)) return GYRE_OK;
    if (!fault.key) at = rd->stage_at[fault.stage];
    for (uint32_t i = 0; fault.key && i < rd->n_marks; i++) {
        const struct mark *m = &rd->mark[i];
        const bool same = fault.map && m->map ? !strcmp(m->map, fault.map) : fault.map == m->map;
        if (same && !strcmp(m->key, fault.key)) at = m->at;
    }
    return fail_at(rd, at, "%s", fault.why);
}

static bool has_key(const struct reader *rd, const char *map, const char *key)
{
    for (uint32_t i = 0; i < rd->n_marks; i++) {
        const struct mark *m = &rd->mark[i];
        if ((map ? m->map && !strcmp(m->map, map) : !m->map) && !strcmp(m->key, key)) return true;
    }
    return false;
}

// Settings of what is off unless another key of the same mapping turns it on, which is not there: whoever wrote them
// meant something else than what would run.
static gyre_status check_idle(struct reader *rd)
{
    static const struct {
        const char *map, *on[4], *what;
    } idle[] = {{"learn", {"method"}, "nothing is learned without a method; name one"},
                {"distill", {"steps"}, "nothing is learned without steps; say how many"},
                {"diagonals", {"norm", "up_down", "qk", "value"}, "there is no diagonal; give an exponent"}};
    for (size_t i = 0; i < GYRE_COUNT(idle); i++) {
        bool on = false;
        for (int k = 0; k < 4 && idle[i].on[k]; k++) on |= has_key(rd, idle[i].map, idle[i].on[k]);
        for (uint32_t k = 0; k < rd->n_marks && !on; k++) {
            const struct mark *m = &rd->mark[k];
            if (m->map && !strcmp(m->map, idle[i].map))
                return fail_at(rd, m->at, "%s changes nothing: %s, or leave %s out", m->key, idle[i].what, idle[i].map);
        }
    }
    return GYRE_OK;
}

static gyre_status read_document(struct reader *rd)
{
    struct gyre_recipe *r = rd->recipe;
    struct gyre_recipe_fault fault;
    char keys[200];
    uint32_t seen;
    gyre_fields_keys(&gyre_recipe_fields, keys, sizeof keys);
    GYRE_TRY(advance(rd)); // the stream
    GYRE_TRY(advance(rd));
    if (rd->event.type == YAML_STREAM_END_EVENT)
        return fail_at(rd, (yaml_mark_t){0}, "it is empty; a recipe has name and rounding at least");
    GYRE_TRY(advance(rd));
    rd->top = rd->event.start_mark;
    if (rd->event.type != YAML_MAPPING_START_EVENT)
        return fail_at(rd, rd->top, "no mapping; a recipe is a mapping of %s", keys);
    gyre_fields_preset(&gyre_recipe_fields, r);
    GYRE_TRY(read_map(rd, &gyre_recipe_fields, r, NULL, true, &seen));
    if (!has_key(rd, NULL, "name"))
        return fail_at(rd, rd->top, "the key name is missing; a recipe has name and rounding");
    GYRE_TRY(advance(rd)); // the document's end
    GYRE_TRY(advance(rd));
    if (rd->event.type != YAML_STREAM_END_EVENT)
        return fail_at(rd, rd->event.start_mark, "a second document; a file holds one recipe");
    if (!has_key(rd, "calibration", "windows") && !gyre_recipe_wants_statistics(r, &fault)) r->calibration.windows = 0;
    GYRE_TRY(check_whole(rd));
    GYRE_TRY(check_idle(rd));
    if (!r->calibration.windows) r->calibration.tokens = 0; // one form for "no text"
    return GYRE_OK;
}

gyre_status gyre_recipe_parse(const char *text, size_t bytes, const char *where, struct gyre_recipe *out,
                              gyre_error *err)
{
    const size_t mark = bytes >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0; // as some editors begin UTF-8
    struct reader rd = {.text = text + mark, .bytes = bytes - mark, .where = where, .recipe = out, .err = err};
    memset(out, 0, sizeof *out);
    if (bytes > GYRE_RECIPE_BYTES)
        return fail_at(&rd, (yaml_mark_t){0}, "it has %zu bytes; %d are allowed", bytes, GYRE_RECIPE_BYTES);
    if (!yaml_parser_initialize(&rd.parser)) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a YAML parser");
    yaml_parser_set_encoding(&rd.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&rd.parser, (const unsigned char *)rd.text, rd.bytes);
    const gyre_status st = read_document(&rd);
    yaml_event_delete(&rd.event);
    yaml_parser_delete(&rd.parser);
    return st;
}
