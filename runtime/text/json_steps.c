// What a tokenizer.json does before and after its model: normalizer, pre-tokenizer, decoder, post-processor.
#include "runtime/text/json_reader.h"

#include "runtime/util/base.h"

#include <string.h>

// ---- normalizer ---------------------------------------------------------------------------------------

// A pattern is {"String": text} or {"Regex": text}; NULL: neither.
static const char *pattern_of(const json_t *object, bool *literal)
{
    const json_t *pattern = json_object_get(object, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    *literal = !regex;
    return regex ? regex : json_string_value(json_object_get(pattern, "String"));
}

static gyre_status read_replace(struct json_reader *r, const json_t *step)
{
    bool literal;
    const char *pattern = pattern_of(step, &literal), *content = gyre_json_string(r, step, "content");
    uint32_t code;
    if (!pattern || !*pattern || !content) return gyre_json_malformed(r, "the pattern or content of a Replace");
    r->moves_front |= !literal || !*content ||
                      gyre_utf8_look(pattern, strlen(pattern), &code) != (int)strlen(pattern); // of several characters
    return gyre_normal_replace(&r->tokenizer->normalizer, pattern, literal, content, r->err);
}

static gyre_status read_normalizer(struct json_reader *r, const json_t *step)
{
    static const struct {
        const char *type;
        bool compose, compatible;
    } forms[] = {{"NFC", true, false}, {"NFD", false, false}, {"NFKC", true, true}, {"NFKD", false, true}};
    struct gyre_normalizer *n = &r->tokenizer->normalizer;
    for (size_t i = 0; i < GYRE_COUNT(forms); i++)
        if (gyre_json_is(step, forms[i].type))
            return gyre_normal_unicode(n, forms[i].compose, forms[i].compatible, r->err);
    if (gyre_json_is(step, "Replace")) return read_replace(r, step);
    if (gyre_json_is(step, "Strip")) {
        const bool left = gyre_json_flag(r, step, "strip_left", true);
        r->moves_front |= left;
        return gyre_normal_strip(n, left, gyre_json_flag(r, step, "strip_right", true), r->err);
    }
    if (gyre_json_is(step, "Prepend")) {
        const char *text = gyre_json_string(r, step, "prepend");
        return text ? gyre_normal_prefix(n, text, r->err) : gyre_json_malformed(r, "the text of a Prepend");
    }
    return gyre_json_refuse(r, "normalizer", gyre_json_type(step));
}

// ---- pre-tokenizer ------------------------------------------------------------------------------------

static gyre_status read_split(struct json_reader *r, const json_t *split)
{
    static const struct {
        const char *behavior;
        enum pre_cut cut;
    } cuts[] = {{"Isolated", CUT_ISOLATED},
                {"Removed", CUT_REMOVED},
                {"MergedWithPrevious", CUT_WITH_PREVIOUS},
                {"MergedWithNext", CUT_WITH_NEXT},
                {"Contiguous", CUT_CONTIGUOUS}};
    bool literal;
    const char *pattern = pattern_of(split, &literal), *behavior = gyre_json_string(r, split, "behavior");
    const bool invert = gyre_json_flag(r, split, "invert", false);
    if (!pattern || !behavior) return gyre_json_malformed(r, "the pattern or behavior of a Split");
    for (size_t i = 0; i < GYRE_COUNT(cuts); i++) {
        enum pre_cut cut = cuts[i].cut;
        if (strcmp(behavior, cuts[i].behavior)) continue;
        // What lies between the matches takes their part.
        if (invert && cut == CUT_REMOVED) cut = CUT_KEPT;
        else if (invert && cut == CUT_WITH_PREVIOUS) cut = CUT_WITH_NEXT;
        else if (invert && cut == CUT_WITH_NEXT) cut = CUT_WITH_PREVIOUS;
        return gyre_pre_add(&r->tokenizer->pre, pattern, literal, cut, r->err);
    }
    return gyre_json_refuse(r, "Split with behavior", behavior);
}

static gyre_status read_byte_level(struct json_reader *r, const json_t *pre)
{
    struct pretokenizer *to = &r->tokenizer->pre;
    r->byte_level = true;
    if (gyre_json_flag(r, pre, "add_prefix_space", false))
        GYRE_TRY(gyre_pre_add_prefix(to, " ", false, PREFIX_ALWAYS, r->err));
    if (!gyre_json_flag(r, pre, "use_regex", true)) return GYRE_OK;
    return gyre_pre_add(to, gyre_pre_gpt2, false, CUT_ISOLATED, r->err);
}

static gyre_status read_metaspace(struct json_reader *r, const json_t *pre)
{
    struct pretokenizer *to = &r->tokenizer->pre;
    const char *blank = gyre_json_string(r, pre, "replacement"), *scheme = gyre_json_string(r, pre, "prepend_scheme");
    enum pre_prefix when = gyre_json_flag(r, pre, "add_prefix_space", true) ? PREFIX_ALWAYS : PREFIX_NEVER;
    if (!blank || !*blank) return gyre_json_malformed(r, "the replacement of a Metaspace");
    if (scheme) {
        if (!strcmp(scheme, "always")) when = PREFIX_ALWAYS;
        else if (!strcmp(scheme, "first")) when = PREFIX_FIRST;
        else if (!strcmp(scheme, "never")) when = PREFIX_NEVER;
        else return gyre_json_refuse(r, "Metaspace with scheme", scheme);
    }
    // The library then sees by the place in the original text whether a word is the first.
    if (when == PREFIX_FIRST && r->moves_front)
        return gyre_json_refuse(r, "a normalizer that may change where a text begins, before a Metaspace with scheme",
                                scheme);
    GYRE_TRY(gyre_pre_add_prefix(to, blank, true, when, r->err));
    if (!gyre_json_flag(r, pre, "split", true)) return GYRE_OK;
    return gyre_pre_add(to, blank, true, CUT_WITH_NEXT, r->err);
}

static gyre_status read_pre_tokenizer(struct json_reader *r, const json_t *pre)
{
    struct pretokenizer *to = &r->tokenizer->pre;
    if (r->byte_level) return gyre_json_refuse(r, "a pre-tokenizer after ByteLevel:", gyre_json_type(pre));
    if (gyre_json_is(pre, "Split")) return read_split(r, pre);
    if (gyre_json_is(pre, "ByteLevel")) return read_byte_level(r, pre);
    if (gyre_json_is(pre, "Metaspace")) return read_metaspace(r, pre);
    if (gyre_json_is(pre, "Digits")) {
        const bool each = gyre_json_flag(r, pre, "individual_digits", false);
        return gyre_pre_add(to, each ? gyre_pre_digit : gyre_pre_digits, false, CUT_ISOLATED, r->err);
    }
    if (gyre_json_is(pre, "WhitespaceSplit")) return gyre_pre_add(to, "\\s+", false, CUT_REMOVED, r->err);
    return gyre_json_refuse(r, "pre-tokenizer", gyre_json_type(pre));
}

// ---- decoder ------------------------------------------------------------------------------------------

// What tokens of characters stand for: their names with blanks in place of a special character. (Bytes stand for
// themselves whatever the decoder.)
static gyre_status read_decoder(struct json_reader *r, const json_t *step)
{
    gyre_tokenizer *t = r->tokenizer;
    const char *blank = NULL;
    if (gyre_json_is(step, "ByteFallback") || gyre_json_is(step, "Fuse") || gyre_json_is(step, "Strip")) return GYRE_OK;
    if (gyre_json_is(step, "Metaspace")) {
        blank = gyre_json_string(r, step, "replacement");
    } else if (gyre_json_is(step, "Replace")) {
        bool literal;
        const char *content = gyre_json_string(r, step, "content");
        blank = pattern_of(step, &literal);
        if (!literal || !content || strcmp(content, " ")) return gyre_json_refuse(r, "decoder", "Replace");
    } else {
        return gyre_json_refuse(r, "decoder", gyre_json_type(step));
    }
    if (!blank || !*blank || strlen(blank) >= sizeof t->blank)
        return gyre_json_malformed(r, "the blank of the decoder");
    strcpy(t->blank, blank);
    return GYRE_OK;
}

// ---- post-processor -----------------------------------------------------------------------------------

// The tokens that a template's special token stands for, appended to a list.
static gyre_status add_special(struct json_reader *r, const json_t *template, const char *name, uint32_t *list,
                               uint32_t *n)
{
    const json_t *ids = json_object_get(json_object_get(json_object_get(template, "special_tokens"), name), "ids");
    if (json_array_size(ids) == 0) return gyre_json_malformed(r, "the template's special token");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return gyre_json_malformed(r, "the template's special token");
        if (*n == MAX_AROUND) return gyre_json_refuse(r, "a template with too many special tokens:", name);
        list[(*n)++] = (uint32_t)json_integer_value(id);
    }
    return GYRE_OK;
}

// What is put around a text: special tokens before and after the one sequence. A template after another (a Sequence of
// processors) stands around what that one gave.
static gyre_status read_template(struct json_reader *r, const json_t *template)
{
    gyre_tokenizer *t = r->tokenizer;
    const json_t *single = json_object_get(template, "single");
    uint32_t before[MAX_AROUND], n_before = 0;
    bool seen = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i), *special = json_object_get(piece, "SpecialToken");
        const char *name = json_string_value(json_object_get(special, "id"));
        if (json_object_get(piece, "Sequence") && !seen) {
            seen = true;
            continue;
        }
        if (!name) return gyre_json_malformed(r, "the template of the post-processor");
        GYRE_TRY(seen ? add_special(r, template, name, t->after, &t->n_after)
                      : add_special(r, template, name, before, &n_before));
    }
    if (!seen) return gyre_json_malformed(r, "the template of the post-processor");
    if (n_before + t->n_before > MAX_AROUND)
        return gyre_json_refuse(r, "post-processor", "with too many special tokens");
    memmove(t->before + n_before, t->before, t->n_before * sizeof *t->before);
    memcpy(t->before, before, n_before * sizeof *before);
    t->n_before += n_before;
    return GYRE_OK;
}

static gyre_status read_post_processor(struct json_reader *r, const json_t *post)
{
    if (gyre_json_is(post, "ByteLevel")) return GYRE_OK;
    if (gyre_json_is(post, "TemplateProcessing")) return read_template(r, post);
    return gyre_json_refuse(r, "post-processor", gyre_json_type(post));
}

// ---- all of them --------------------------------------------------------------------------------------

// One step, or a sequence of them under `list`; nothing where the file has none.
static gyre_status each(struct json_reader *r, const char *name, const char *list,
                        gyre_status (*read)(struct json_reader *, const json_t *))
{
    const json_t *step = json_object_get(r->root, name), *steps = json_object_get(step, list);
    if (gyre_json_absent(step)) return GYRE_OK;
    if (!gyre_json_is(step, "Sequence")) return read(r, step);
    for (size_t i = 0; i < json_array_size(steps); i++) GYRE_TRY(read(r, json_array_get(steps, i)));
    return GYRE_OK;
}

gyre_status gyre_json_steps(struct json_reader *r)
{
    gyre_tokenizer *t = r->tokenizer;
    GYRE_TRY(each(r, "normalizer", "normalizers", read_normalizer));
    GYRE_TRY(each(r, "pre_tokenizer", "pretokenizers", read_pre_tokenizer));
    GYRE_TRY(each(r, "post_processor", "processors", read_post_processor));
    t->characters = !r->byte_level;
    if (r->byte_level && t->byte_fallback) return gyre_json_refuse(r, "byte-level model with", "byte_fallback");
    return t->characters ? each(r, "decoder", "decoders", read_decoder) : GYRE_OK;
}
