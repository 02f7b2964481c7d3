// Reads a tokenizer from a Hugging Face tokenizer.json: byte-level BPE with the normalizers and pre-tokenizers that
// such models use. Whatever else a file asks for is refused by name, since ignoring it would give other tokens.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/source/json_file.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct reader {
    const char *path;
    json_t *root;
    struct gyre_string *names, (*merges)[2];
    uint8_t *kinds;
    struct added_token *added;
    struct tokenizer_parts parts;
    bool byte_level;
    const char *wrong; // a field that has another type than it should
    gyre_tokenizer *tokenizer;
    gyre_error *err;
};

static gyre_status refuse(const struct reader *r, const char *what, const char *name)
{
    return gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                     "cannot use tokenizer (%s): %s \"%s\"; gyre does byte-level BPE without it", r->path, what,
                     gyre_show(name ? name : "?", name ? strlen(name) : 1).text);
}

static gyre_status malformed(const struct reader *r, const char *what)
{
    return gyre_fail(r->err, GYRE_E_FORMAT, "cannot use tokenizer (%s): %s is missing or malformed", r->path, what);
}

static gyre_status no_memory(const struct reader *r)
{
    return gyre_fail(r->err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", r->path);
}

static bool absent(const json_t *value) { return !value || json_is_null(value); }
static const char *type_of(const json_t *object) { return json_string_value(json_object_get(object, "type")); }
static bool is_type(const json_t *object, const char *type)
{
    return type_of(object) && !strcmp(type_of(object), type);
}

// Fields that a file may leave out. One that is there and has another type than it should is remembered, and the file
// refused at the end: it is not the same as absent.
static bool flag_or(struct reader *r, const json_t *object, const char *name, bool otherwise)
{
    const json_t *value = json_object_get(object, name);
    if (absent(value)) return otherwise;
    if (!json_is_boolean(value) && !r->wrong) r->wrong = name;
    return json_is_true(value);
}
static bool flag(struct reader *r, const json_t *object, const char *name) { return flag_or(r, object, name, false); }

static struct gyre_string string_of(const json_t *value)
{
    return json_is_string(value) ? (struct gyre_string){json_string_value(value), json_string_length(value)}
                                 : (struct gyre_string){0};
}

static struct gyre_string text_of(struct reader *r, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!absent(value) && !json_is_string(value) && !r->wrong) r->wrong = name;
    return string_of(value);
}

// ---- normalizer, pre-tokenizer, post-processor --------------------------------------------------------

static gyre_status read_normalizer(struct reader *r, const json_t *normalizer)
{
    if (absent(normalizer)) return GYRE_OK;
    if (is_type(normalizer, "NFC")) {
        r->tokenizer->nfc = true;
        return GYRE_OK;
    }
    if (!is_type(normalizer, "Sequence")) return refuse(r, "normalizer", type_of(normalizer));
    const json_t *list = json_object_get(normalizer, "normalizers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!is_type(json_array_get(list, i), "NFC")) return refuse(r, "normalizer", type_of(json_array_get(list, i)));
        r->tokenizer->nfc = true;
    }
    return GYRE_OK;
}

static gyre_status read_split(struct reader *r, const json_t *split)
{
    const json_t *pattern = json_object_get(split, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex")),
               *literal = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    enum pre_keep keep = KEEP_ALL;
    if ((!regex && !literal) || !behavior) return malformed(r, "the pattern or behavior of a Split");
    if (!strcmp(behavior, "Removed")) keep = flag(r, split, "invert") ? KEEP_MATCHES : KEEP_GAPS;
    else if (strcmp(behavior, "Isolated")) return refuse(r, "Split with behavior", behavior);
    return gyre_pre_add(&r->tokenizer->pre, regex ? regex : literal, !regex, keep, r->err);
}

static gyre_status read_pre_tokenizer(struct reader *r, const json_t *pre)
{
    if (r->byte_level) return refuse(r, "a pre-tokenizer after ByteLevel:", type_of(pre));
    if (is_type(pre, "Split")) return read_split(r, pre);
    if (is_type(pre, "Digits"))
        return gyre_pre_add(&r->tokenizer->pre, flag(r, pre, "individual_digits") ? gyre_pre_digit : gyre_pre_digits,
                            false, KEEP_ALL, r->err);
    if (!is_type(pre, "ByteLevel")) return refuse(r, "pre-tokenizer", type_of(pre));
    if (flag(r, pre, "add_prefix_space")) return refuse(r, "ByteLevel with", "add_prefix_space");
    r->byte_level = true;
    return flag_or(r, pre, "use_regex", true) ? gyre_pre_add(&r->tokenizer->pre, gyre_pre_gpt2, false, KEEP_ALL, r->err)
                                              : GYRE_OK;
}

static gyre_status read_pre_tokenizers(struct reader *r)
{
    const json_t *pre = json_object_get(r->root, "pre_tokenizer");
    if (absent(pre)) return refuse(r, "no pre-tokenizer:", "null");
    if (is_type(pre, "Sequence")) {
        const json_t *list = json_object_get(pre, "pretokenizers");
        for (size_t i = 0; i < json_array_size(list); i++) GYRE_TRY(read_pre_tokenizer(r, json_array_get(list, i)));
    } else {
        GYRE_TRY(read_pre_tokenizer(r, pre));
    }
    return r->byte_level ? GYRE_OK : refuse(r, "a pre-tokenizer without ByteLevel:", type_of(pre));
}

// The tokens that a template's special token stands for, appended to a list.
static gyre_status add_special(struct reader *r, const json_t *template, const char *name, uint32_t *list, uint32_t *n)
{
    const json_t *ids = json_object_get(json_object_get(json_object_get(template, "special_tokens"), name), "ids");
    if (json_array_size(ids) == 0) return malformed(r, "the template's special token");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return malformed(r, "the template's special token");
        if (*n == MAX_AROUND) return refuse(r, "a template with too many special tokens:", name);
        list[(*n)++] = (uint32_t)json_integer_value(id);
    }
    return GYRE_OK;
}

// What is put around a text: special tokens before and after the one sequence. A template after another (a Sequence of
// processors) stands around what that one gave.
static gyre_status read_template(struct reader *r, const json_t *template)
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
        if (!name) return malformed(r, "the template of the post-processor");
        GYRE_TRY(seen ? add_special(r, template, name, t->after, &t->n_after)
                      : add_special(r, template, name, before, &n_before));
    }
    if (!seen) return malformed(r, "the template of the post-processor");
    if (n_before + t->n_before > MAX_AROUND) return refuse(r, "post-processor", "with too many special tokens");
    memmove(t->before + n_before, t->before, t->n_before * sizeof *t->before);
    memcpy(t->before, before, n_before * sizeof *before);
    t->n_before += n_before;
    return GYRE_OK;
}

static gyre_status read_post_processor(struct reader *r, const json_t *post)
{
    if (absent(post) || is_type(post, "ByteLevel")) return GYRE_OK;
    if (is_type(post, "Sequence")) {
        const json_t *list = json_object_get(post, "processors");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *item = json_array_get(list, i);
            if (is_type(item, "Sequence")) return refuse(r, "nested post-processor", "Sequence");
            GYRE_TRY(read_post_processor(r, item));
        }
        return GYRE_OK;
    }
    return is_type(post, "TemplateProcessing") ? read_template(r, post) : refuse(r, "post-processor", type_of(post));
}

// ---- model and added tokens ---------------------------------------------------------------------------

static gyre_status check_model(struct reader *r, const json_t *model)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (!is_type(model, "BPE")) return refuse(r, "model", type_of(model));
    if (flag(r, model, "byte_fallback")) return refuse(r, "model with", "byte_fallback");
    const json_t *dropout = json_object_get(model, "dropout");
    if (!absent(dropout) && (!json_is_number(dropout) || json_number_value(dropout) != 0))
        return refuse(r, "model with", "dropout");
    for (size_t i = 0; i < GYRE_COUNT(affixes); i++)
        if (text_of(r, model, affixes[i]).length) return refuse(r, "model with", affixes[i]);
    r->tokenizer->ignore_merges = flag(r, model, "ignore_merges");
    r->tokenizer->fuse_unknown = flag(r, model, "fuse_unk");
    return GYRE_OK;
}

// The largest id + 1 over vocabulary and added tokens, which must not leave huge gaps.
static gyre_status count_tokens(struct reader *r, json_t *vocab, const json_t *added)
{
    const char *name;
    json_t *id;
    json_int_t largest = -1;
    bool good = json_is_object(vocab) && (absent(added) || json_is_array(added));
    const uint64_t entries = json_object_size(vocab) + json_array_size(added);
    json_object_foreach(vocab, name, id)
    {
        good = good && json_is_integer(id) && json_integer_value(id) >= 0;
        largest = GYRE_MAX(largest, json_integer_value(id));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        id = json_object_get(json_array_get(added, i), "id");
        good = good && json_is_integer(id) && json_integer_value(id) >= 0;
        largest = GYRE_MAX(largest, json_integer_value(id));
    }
    if (!good || largest < 0 || (uint64_t)largest > 2 * entries + 65536)
        return malformed(r, "the vocabulary, or an id in it,");
    r->parts.n_tokens = (uint32_t)largest + 1;
    return GYRE_OK;
}

static gyre_status read_tokens(struct reader *r, const json_t *model)
{
    json_t *vocab = json_object_get(model, "vocab"), *added = json_object_get(r->root, "added_tokens"), *id;
    const char *name;
    GYRE_TRY(count_tokens(r, vocab, added));
    r->names = calloc(r->parts.n_tokens, sizeof *r->names);
    r->kinds = calloc(r->parts.n_tokens, 1);
    r->added = calloc(json_array_size(added) + 1, sizeof *r->added);
    if (!r->names || !r->kinds || !r->added) return no_memory(r);
    json_object_foreach(vocab, name, id)
    {
        struct gyre_string *at = &r->names[json_integer_value(id)];
        if (at->data) return malformed(r, "a vocabulary where no two tokens share an id");
        *at = (struct gyre_string){name, strlen(name)};
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *item = json_array_get(added, i);
        struct added_token *t = &r->added[r->parts.n_added++];
        *t = (struct added_token){.text = string_of(json_object_get(item, "content")),
                                  .id = (uint32_t)json_integer_value(json_object_get(item, "id")),
                                  .special = flag(r, item, "special"),
                                  .lstrip = flag(r, item, "lstrip"),
                                  .rstrip = flag(r, item, "rstrip"),
                                  .single_word = flag(r, item, "single_word")};
        if (!t->text.data) return malformed(r, "the content of an added token");
        t->normalized = flag_or(r, item, "normalized", !t->special);
        r->kinds[t->id] = t->special ? TOKEN_SPECIAL : TOKEN_ADDED;
        r->names[t->id] = t->text;
    }
    const struct gyre_string unknown = text_of(r, model, "unk_token");
    json_t *unknown_id = unknown.data ? json_object_get(vocab, unknown.data) : NULL;
    if (unknown_id) r->tokenizer->unknown = (uint32_t)json_integer_value(unknown_id);
    r->parts.names = r->names;
    r->parts.kinds = r->kinds;
    r->parts.added = r->added;
    return GYRE_OK;
}

// A merge is "left right" or ["left", "right"].
static gyre_status read_merges(struct reader *r, const json_t *model)
{
    const json_t *list = json_object_get(model, "merges");
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n > UINT32_MAX) return malformed(r, "the list of merges");
    r->merges = malloc((n + 1) * sizeof *r->merges);
    if (!r->merges) return no_memory(r);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        struct gyre_string *pair = r->merges[i];
        if (json_is_string(item)) {
            const char *text = json_string_value(item), *blank = strchr(text, ' ');
            if (!blank || strchr(blank + 1, ' ')) return malformed(r, "the text of a merge");
            pair[0] = (struct gyre_string){text, (uint64_t)(blank - text)};
            pair[1] = (struct gyre_string){blank + 1, strlen(blank + 1)};
        } else {
            pair[0] = string_of(json_array_get(item, 0));
            pair[1] = string_of(json_array_get(item, 1));
            if (json_array_size(item) != 2 || !pair[0].data || !pair[1].data) return malformed(r, "a merge");
        }
    }
    r->parts.n_merges = n;
    r->parts.merges = (const struct gyre_string(*)[2])r->merges;
    return GYRE_OK;
}

// Flags that GGUF has no place for.
static bool is_plain(const struct reader *r)
{
    for (uint32_t i = 0; i < r->parts.n_added; i++)
        if (r->added[i].lstrip || r->added[i].rstrip || r->added[i].single_word) return false;
    return r->tokenizer->unknown == NO_TOKEN;
}

// The ids of a template must be tokens.
static gyre_status check_around(struct reader *r)
{
    const gyre_tokenizer *t = r->tokenizer;
    bool good = true;
    for (uint32_t i = 0; i < t->n_before; i++) good = good && t->before[i] < t->n_tokens;
    for (uint32_t i = 0; i < t->n_after; i++) good = good && t->after[i] < t->n_tokens;
    return good ? GYRE_OK : malformed(r, "a token of the post-processor's template");
}

gyre_status gyre_tokenizer_from_json(const char *path, const char *text, uint64_t bytes, gyre_tokenizer *tokenizer,
                                     bool *plain, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct reader r = {.path = path, .tokenizer = tokenizer, .err = err};
    GYRE_GO(gyre_json_parse(path, text, bytes, &r.root, err));
    const json_t *model = json_object_get(r.root, "model");
    GYRE_GO(check_model(&r, model));
    GYRE_GO(read_normalizer(&r, json_object_get(r.root, "normalizer")));
    GYRE_GO(read_pre_tokenizers(&r));
    GYRE_GO(read_post_processor(&r, json_object_get(r.root, "post_processor")));
    GYRE_GO(read_tokens(&r, model));
    GYRE_GO(read_merges(&r, model));
    if (r.wrong) GYRE_GO(malformed(&r, r.wrong));
    if (plain) *plain = is_plain(&r);
    GYRE_GO(gyre_tokenizer_build(tokenizer, &r.parts, path, err));
    st = check_around(&r);
done:
    json_decref(r.root);
    free(r.names);
    free(r.merges);
    free(r.kinds);
    free(r.added);
    return st;
}
