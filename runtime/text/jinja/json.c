// tojson as json.dumps writes it, and JSON documents as values. See value.h.
#include "runtime/text/jinja/value.h"

#include "runtime/util/json_wide.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- writing ----------------------------------------------------------------------------------------

struct style {
    struct jinja_build *out;
    bool ascii, sorted, lines;
    const struct jinja_string *indent, *comma, *colon;
    uint32_t level;
};

static void put_char_escaped(struct jinja_build *b, uint32_t c, bool plain)
{
    char text[16];
    const char *named = strchr("\b\f\n\r\t", (int)c);
    if (c == '"' || c == '\\') snprintf(text, sizeof text, "\\%c", (char)c);
    else if (c && c < 32 && named) snprintf(text, sizeof text, "\\%c", "bfnrt"[named - "\b\f\n\r\t"]);
    else if (c >= 0x10000) snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
    else snprintf(text, sizeof text, "\\u%04x", c);
    gyre_jinja_put(b, text, strlen(text), plain);
}

static void put_text(const struct style *w, const struct jinja_string *s)
{
    uint64_t done = 0;
    gyre_jinja_put_text(w->out, "\"");
    for (uint64_t at = 0; at < s->bytes;) {
        uint32_t n;
        const uint32_t c = gyre_jinja_char(s, at, &n);
        if (c < 32 || c == '"' || c == '\\' || (w->ascii && c > 126)) {
            gyre_jinja_put_part(w->out, s, done, at);
            put_char_escaped(w->out, c, gyre_jinja_plain_at(s, at));
            done = at + n;
        }
        at += n;
    }
    gyre_jinja_put_part(w->out, s, done, s->bytes);
    gyre_jinja_put_text(w->out, "\"");
}

static void put_float(struct jinja_build *b, double value)
{
    char text[40];
    gyre_jinja_float_text(value, text);
    gyre_jinja_put_text(b, isnan(value) ? "NaN" : isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : text);
}

static void put_line(struct style *w)
{
    if (!w->lines) return;
    gyre_jinja_put_text(w->out, "\n");
    for (uint32_t i = 0; i < w->level; i++) gyre_jinja_put_string(w->out, w->indent);
}

static void put_value(struct style *w, jinja_value v);

static void put_key(struct style *w, jinja_value key)
{
    struct jinja_build b = {.run = w->out->run};
    if (key.kind == JINJA_STRING) {
        put_text(w, key.string);
        return;
    }
    if (key.kind != JINJA_NONE && !jinja_is_number(key))
        gyre_jinja_raise(b.run, "keys must be str, int, float, bool or None, not %s", gyre_jinja_type(key));
    gyre_jinja_put_text(w->out, "\"");
    put_value(w, key);
    gyre_jinja_put_text(w->out, "\"");
}

// The entries by key: insertion sort by merging would be no gain, dicts are small; the order is stable.
static void sort_entries(struct jinja_run *run, struct jinja_entry *e, uint64_t n)
{
    for (uint64_t i = 1; i < n; i++) {
        const struct jinja_entry moved = e[i];
        uint64_t at = i;
        for (; at && gyre_jinja_order(run, moved.key, e[at - 1].key) == -1; at--) e[at] = e[at - 1];
        e[at] = moved;
    }
}

static void put_dict(struct style *w, const struct jinja_dict *d)
{
    struct jinja_run *run = w->out->run;
    const struct jinja_entry *entry = d->entry;
    if (w->sorted && d->n > 1) {
        struct jinja_entry *copy = gyre_jinja_alloc(run, d->n, sizeof *copy);
        memcpy(copy, d->entry, d->n * sizeof *copy);
        sort_entries(run, copy, d->n);
        entry = copy;
    }
    gyre_jinja_put_text(w->out, "{");
    w->level++;
    for (uint64_t i = 0; i < d->n; i++) {
        if (i) gyre_jinja_put_string(w->out, w->comma);
        put_line(w);
        put_key(w, entry[i].key);
        gyre_jinja_put_string(w->out, w->colon);
        put_value(w, entry[i].value);
    }
    w->level--;
    if (d->n) put_line(w);
    gyre_jinja_put_text(w->out, "}");
}

static void put_list(struct style *w, const struct jinja_list *list)
{
    gyre_jinja_put_text(w->out, "[");
    w->level++;
    for (uint64_t i = 0; i < list->n; i++) {
        if (i) gyre_jinja_put_string(w->out, w->comma);
        put_line(w);
        put_value(w, list->item[i]);
    }
    w->level--;
    if (list->n) put_line(w);
    gyre_jinja_put_text(w->out, "]");
}

static void put_value(struct style *w, jinja_value v)
{
    struct jinja_run *run = w->out->run;
    gyre_jinja_work(run, 1);
    gyre_jinja_deeper(run);
    if (v.kind == JINJA_NONE) gyre_jinja_put_text(w->out, "null");
    else if (v.kind == JINJA_BOOL) gyre_jinja_put_text(w->out, v.flag ? "true" : "false");
    else if (v.kind == JINJA_INT) gyre_jinja_put_int(w->out, v.integer);
    else if (v.kind == JINJA_FLOAT) put_float(w->out, v.real);
    else if (v.kind == JINJA_STRING) put_text(w, v.string);
    else if (jinja_is_list(v)) put_list(w, v.list);
    else if (v.kind == JINJA_DICT) put_dict(w, v.dict);
    else gyre_jinja_raise(run, "Object of type %s is not JSON serializable", gyre_jinja_type(v));
    run->depth--;
}

// given: ensure_ascii, indent, separators, sort_keys.
jinja_value gyre_jinja_tojson(struct jinja_run *run, jinja_value v, const jinja_value given[4])
{
    struct jinja_build b = {.run = run};
    struct style w = {.out = &b, .ascii = gyre_jinja_true(given[0]), .sorted = gyre_jinja_true(given[3])};
    w.lines = given[1].kind != JINJA_MISSING && given[1].kind != JINJA_NONE;
    w.comma = gyre_jinja_text(run, w.lines ? "," : ", ").string;
    w.colon = gyre_jinja_text(run, ": ").string;
    if (w.lines && given[1].kind == JINJA_STRING) {
        w.indent = given[1].string;
    } else if (w.lines) {
        const int64_t n = gyre_jinja_index(run, given[1], "the indent of tojson");
        struct jinja_build blanks = {.run = run};
        if (n > 100000) gyre_jinja_limit(run, "an indent");
        for (int64_t i = 0; i < n; i++) gyre_jinja_put_text(&blanks, " ");
        w.indent = gyre_jinja_built(&blanks).string;
    }
    if (given[2].kind != JINJA_MISSING && given[2].kind != JINJA_NONE) {
        const jinja_value s = given[2];
        if (!jinja_is_list(s) || s.list->n != 2 || !jinja_is_text(s.list->item[0]) || !jinja_is_text(s.list->item[1]))
            gyre_jinja_raise(run, "the separators of tojson are a pair of strings");
        w.comma = s.list->item[0].string;
        w.colon = s.list->item[1].string;
    }
    put_value(&w, v);
    return gyre_jinja_built(&b);
}

// ---- reading ----------------------------------------------------------------------------------------

// Who speaks is no text of a user: templates put these words into control tokens.
static bool is_speaker(const char *key, const json_t *value)
{
    static const char *const words[] = {"system",   "user",    "assistant", "tool",  "developer",
                                        "function", "ipython", "model",     "tools", "observation"};
    const char *word = json_string_value(value);
    for (size_t i = 0; word && strcmp(key, "role") == 0 && i < GYRE_COUNT(words); i++)
        if (strcmp(word, words[i]) == 0) return true;
    return false;
}

jinja_value gyre_jinja_from_json(struct jinja_run *run, const json_t *json, bool plain)
{
    jinja_value out = jinja_none();
    const char *wide;
    gyre_jinja_work(run, 1);
    gyre_jinja_deeper(run);
    switch (json_typeof(json)) {
    case JSON_OBJECT: {
        const char *key;
        size_t length;
        json_t *value;
        out = gyre_jinja_dict(run);
        json_object_keylen_foreach((json_t *)(uintptr_t)json, key, length, value)
        {
            const jinja_value name = gyre_jinja_string(run, key, length, plain);
            gyre_jinja_dict_put(run, out.dict, name,
                                gyre_jinja_from_json(run, value, plain && !is_speaker(key, value)));
        }
        break;
    }
    case JSON_ARRAY:
        out = gyre_jinja_list(run, JINJA_LIST, json_array_size(json));
        for (size_t i = 0; i < json_array_size(json); i++)
            out.list->item[i] = gyre_jinja_from_json(run, json_array_get(json, i), plain);
        break;
    case JSON_STRING:
        if ((wide = gyre_json_wide(json_string_value(json), json_string_length(json)))) {
            if (!gyre_jinja_parse_int(wide, strlen(wide), 10, &out.integer))
                gyre_jinja_raise(run, "an integer beyond 128 bits: %.60s", wide);
            out.kind = JINJA_INT;
            break;
        }
        out = gyre_jinja_string(run, json_string_value(json), json_string_length(json), plain);
        break;
    case JSON_INTEGER:
        out = jinja_number(json_integer_value(json));
        break;
    case JSON_REAL:
        out = jinja_real(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        out = jinja_bool(json_is_true(json));
        break;
    default:
        break;
    }
    run->depth--;
    return out;
}
