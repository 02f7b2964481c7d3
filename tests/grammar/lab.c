// See lab.h.
#include "tests/grammar/lab.h"

#include "tests/common/bytes.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/utf8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void open_source(struct lab *lab, const char *directory)
{
    OK(gyre_source_open(directory, &lab->source, err));
    OK(gyre_tokenizer_create(lab->source, NULL, NULL, &lab->tokenizer, err));
    OK(gyre_vocabulary_create(lab->tokenizer, &lab->vocabulary, err));
}

void lab_open(struct lab *lab, const char *directory)
{
    const struct tiny_options o = tiny_defaults();
    assert_int_equal(tiny_write_hf(directory, &o), 0);
    open_source(lab, directory);
}

void lab_open_json(struct lab *lab, const char *directory, const char *tokenizer)
{
    char path[1024];
    struct tiny_options o = tiny_defaults();
    char *json = NULL;
    uint64_t bytes = 0;
    o.vocab = 2048;
    assert_int_equal(tiny_write_hf(directory, &o), 0);
    OK(gyre_file_read(tokenizer, 1 << 24, &json, &bytes, err));
    const struct bytes b = {(unsigned char *)json, bytes, bytes};
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    assert_int_equal(save_bytes(&b, path), 0);
    free(json);
    open_source(lab, directory);
}

void lab_close(struct lab *lab)
{
    gyre_vocabulary_destroy(lab->vocabulary);
    gyre_tokenizer_destroy(lab->tokenizer);
    gyre_source_close(lab->source);
}

int lab_accepts(const struct lab *lab, gyre_grammar *grammar, const char *text)
{
    gyre_matcher *m = NULL;
    uint32_t *tokens = NULL;
    uint64_t n = 0;
    int result = 0;
    OK(gyre_matcher_create(grammar, &m, err));
    OK(gyre_tokenizer_encode(lab->tokenizer, text, strlen(text), 0, &tokens, &n, err));
    for (uint64_t i = 0; i < n && result == 0; i++) {
        const bool allows = gyre_matcher_allows(m, tokens[i]);
        if (allows != (gyre_matcher_accept(m, tokens[i], NULL) == GYRE_OK))
            fail_msg("%s: allows and accept differ", text);
        if (!allows) result = -1;
    }
    if (result == 0 && gyre_matcher_may_end(m)) result = 1;
    free(tokens);
    gyre_matcher_destroy(m);
    return result;
}

char *lab_walk(const struct lab *lab, gyre_grammar *grammar, struct gyre_rng *rng, uint32_t most, bool *whole)
{
    const uint32_t vocab = gyre_tokenizer_vocab(lab->tokenizer), words = (vocab + 31) / 32;
    uint32_t *allowed = malloc(words * sizeof *allowed), *ids = malloc(vocab * sizeof *ids);
    struct bytes text = {0};
    gyre_matcher *m = NULL;
    assert_non_null(allowed);
    assert_non_null(ids);
    OK(gyre_matcher_create(grammar, &m, err));
    *whole = false;
    for (uint32_t i = 0; i < most && !*whole; i++) {
        uint32_t n = 0, length;
        OK(gyre_matcher_allow(m, allowed, words, err));
        for (uint32_t t = 0; t < vocab; t++) {
            const bool in = allowed[t / 32] >> t % 32 & 1;
            if (in) ids[n++] = t;
            if (vocab < 1000 && in != gyre_matcher_allows(m, t))
                fail_msg("token %u behind %.*s: the mask says %d", t, (int)text.size, (char *)text.data, in);
        }
        const bool may = gyre_matcher_may_end(m);
        if (may && (gyre_matcher_must_end(m) || gyre_rng_below(rng, 3) == 0)) *whole = true;
        if (*whole || n == 0) break;
        uint32_t token = ids[gyre_rng_below(rng, n)];
        for (uint32_t k = 0; k < n && gyre_rng_below(rng, 2); k++) { // what closes something comes more often
            const char *bytes = gyre_tokenizer_bytes(lab->tokenizer, ids[k], &length);
            if (length && strchr("\"]}", bytes[0])) token = ids[k];
        }
        if (gyre_tokenizer_is_end(lab->tokenizer, token)) continue;
        OK(gyre_matcher_accept(m, token, err));
        const char *bytes = gyre_tokenizer_bytes(lab->tokenizer, token, &length);
        put(&text, bytes, length);
    }
    put_u8(&text, 0);
    free(allowed);
    free(ids);
    gyre_matcher_destroy(m);
    return (char *)text.data;
}

// ---- the validator --------------------------------------------------------------------------------------------------

static bool is_type(const json_t *v, const char *type)
{
    if (strcmp(type, "integer") == 0)
        return json_is_integer(v) || (json_is_real(v) && floor(json_real_value(v)) == json_real_value(v));
    if (strcmp(type, "number") == 0) return json_is_number(v);
    static const char *const names[] = {"object", "array", "string", "number", "number", "boolean", "boolean", "null"};
    return strcmp(type, names[json_typeof(v)]) == 0;
}

static bool same(const json_t *a, const json_t *b)
{
    return json_equal(a, b) || (json_is_number(a) && json_is_number(b) && json_number_value(a) == json_number_value(b));
}

static bool in_list(const json_t *v, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (same(v, json_array_get(list, i))) return true;
    return false;
}

static size_t characters(const json_t *v)
{
    size_t count = 0;
    for (const char *p = json_string_value(v); *p; p++) count += (*p & 0xC0) != 0x80;
    return count;
}

static bool within(const json_t *schema, const char *min, const char *max, double x)
{
    const json_t *a = json_object_get(schema, min), *b = json_object_get(schema, max);
    return (!a || x >= json_number_value(a)) && (!b || x <= json_number_value(b));
}

static const char *violates_object(const json_t *v, const json_t *s, const json_t *root)
{
    const json_t *more = json_object_get(s, "additionalProperties");
    const char *key, *why;
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(s, "required"), i,
                       item) if (!json_object_get(v, json_string_value(item))) return "a property is missing";
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        const json_t *p = json_object_get(json_object_get(s, "properties"), key);
        if ((why = lab_violates(item, p ? p : more ? more : json_true(), root))) return why;
    }
    return NULL;
}

static const char *violates_array(const json_t *v, const json_t *s, const json_t *root)
{
    const json_t *items = json_object_get(s, "items"), *prefix = json_object_get(s, "prefixItems");
    const char *why;
    size_t i;
    json_t *item;
    if (!within(s, "minItems", "maxItems", (double)json_array_size(v))) return "too few or too many items";
    json_array_foreach((json_t *)(uintptr_t)v, i, item)
    {
        const json_t *under = i < json_array_size(prefix) ? json_array_get(prefix, i) : items ? items : json_true();
        if ((why = lab_violates(item, under, root))) return why;
    }
    return NULL;
}

const char *lab_violates(const json_t *v, const json_t *s, const json_t *root)
{
    const json_t *x;
    size_t i, fits = 0;
    json_t *way;
    if (json_is_false(s)) return "nothing is allowed";
    if (json_is_true(s)) return NULL;
    if ((x = json_object_get(s, "$ref"))) {
        const char *name = strrchr(json_string_value(x), '/');
        return lab_violates(v, name ? json_object_get(json_object_get(root, "$defs"), name + 1) : root, root);
    }
    if ((x = json_object_get(s, "type"))) {
        for (i = 0; i < (json_is_array(x) ? json_array_size(x) : 1); i++)
            fits += is_type(v, json_string_value(json_is_array(x) ? json_array_get(x, i) : x));
        if (!fits) return "the type is another";
    }
    if ((x = json_object_get(s, "const")) && !same(v, x)) return "it is not the constant";
    if ((x = json_object_get(s, "enum")) && !in_list(v, x)) return "it is not listed";
    static const char *const ways[] = {"anyOf", "oneOf", "allOf"};
    for (size_t k = 0; k < GYRE_COUNT(ways); k++) {
        if (!(x = json_object_get(s, ways[k]))) continue;
        fits = 0;
        json_array_foreach(x, i, way) fits += lab_violates(v, way, root) == NULL;
        if (k == 0 ? !fits : k == 1 ? fits != 1 : fits != json_array_size(x)) return ways[k];
    }
    if (json_is_object(v)) return violates_object(v, s, root);
    if (json_is_array(v)) return violates_array(v, s, root);
    if (json_is_string(v) && !within(s, "minLength", "maxLength", (double)characters(v)))
        return "too short or too long";
    if (!json_is_number(v)) return NULL;
    const double n = json_number_value(v);
    if (!within(s, "minimum", "maximum", n)) return "out of range";
    if ((x = json_object_get(s, "exclusiveMinimum")) && n <= json_number_value(x)) return "not above";
    if ((x = json_object_get(s, "exclusiveMaximum")) && n >= json_number_value(x)) return "not below";
    if ((x = json_object_get(s, "multipleOf")) && fmod(n, json_number_value(x)) != 0) return "no multiple";
    return NULL;
}
