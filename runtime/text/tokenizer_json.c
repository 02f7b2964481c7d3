// Reads a tokenizer from a Hugging Face tokenizer.json: BPE over bytes or characters. json_steps.c reads what is done
// before and after the model. Whatever else a file asks for is refused by name, since ignoring it would give other
// tokens.
#include "runtime/text/json_reader.h"

#include "runtime/source/json_file.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

static gyre_status no_memory(const struct json_reader *r)
{
    return gyre_fail(r->err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", r->path);
}

static struct gyre_string string_of(const json_t *value)
{
    return json_is_string(value) ? (struct gyre_string){json_string_value(value), json_string_length(value)}
                                 : (struct gyre_string){0};
}

// ---- model and added tokens ---------------------------------------------------------------------------

static gyre_status check_model(struct json_reader *r, const json_t *model)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (!gyre_json_is(model, "BPE")) return gyre_json_refuse(r, "model", gyre_json_type(model));
    r->tokenizer->byte_fallback = gyre_json_flag(r, model, "byte_fallback", false);
    const json_t *dropout = json_object_get(model, "dropout");
    if (!gyre_json_absent(dropout) && (!json_is_number(dropout) || json_number_value(dropout) != 0))
        return gyre_json_refuse(r, "model with", "dropout");
    for (size_t i = 0; i < GYRE_COUNT(affixes); i++)
        if (gyre_json_string(r, model, affixes[i]) && *gyre_json_string(r, model, affixes[i]))
            return gyre_json_refuse(r, "model with", affixes[i]);
    r->tokenizer->whole = gyre_json_flag(r, model, "ignore_merges", false) ? WHOLE_ALWAYS : WHOLE_NEVER;
    r->tokenizer->fuse_unknown = gyre_json_flag(r, model, "fuse_unk", false);
    return GYRE_OK;
}

// The largest id + 1 over vocabulary and added tokens, which must not leave huge gaps.
static gyre_status count_tokens(struct json_reader *r, json_t *vocab, const json_t *added)
{
    const char *name;
    json_t *id;
    json_int_t largest = -1;
    bool good = json_is_object(vocab) && (gyre_json_absent(added) || json_is_array(added));
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
        return gyre_json_malformed(r, "the vocabulary, or an id in it,");
    r->parts.n_tokens = (uint32_t)largest + 1;
    return GYRE_OK;
}

// The tokenizers library takes no notice of an added token's id. One of the vocabulary keeps what it has there; others
// are counted from the vocabulary's size on, or, before version 0.22, follow the largest id of an added token where
// that is more: another one where the vocabulary has holes. Files made by either are about.
struct numbering {
    uint32_t counted, following; // the next one
    bool newer, older;           // all so far are as that one numbers them
};

static gyre_status check_number(const struct json_reader *r, const json_t *vocab, const struct added_token *t,
                                struct numbering *n)
{
    const json_t *known = json_object_getn(vocab, t->text.data, t->text.length);
    const struct gyre_string there = r->names[t->id]; // by this id so far
    const bool again = there.length == t->text.length && there.data && !memcmp(there.data, t->text.data, there.length);
    uint32_t due = t->id;
    bool good = true;
    if (t->text.length == 0) return GYRE_OK; // it is left out
    if (known) {
        due = (uint32_t)json_integer_value(known);
        good = due == t->id;
    } else if (!again) {
        due = n->newer ? n->counted : n->following;
        n->newer &= n->counted++ == t->id;
        n->older &= n->following == t->id;
        good = n->newer || n->older;
    }
    n->following = GYRE_MAX(n->following, t->id + 1);
    return good ? GYRE_OK
                : gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                            "cannot use tokenizer (%s): the added token \"%s\" has the id %u; the tokenizers library, "
                            "which numbers them itself, makes it %u",
                            r->path, gyre_show(t->text.data, t->text.length).text, t->id, due);
}

static gyre_status read_tokens(struct json_reader *r, const json_t *model)
{
    json_t *vocab = json_object_get(model, "vocab"), *added = json_object_get(r->root, "added_tokens"), *id;
    const char *name;
    const uint32_t size = (uint32_t)json_object_size(vocab);
    struct numbering numbering = {size, size, true, true};
    GYRE_TRY(count_tokens(r, vocab, added));
    r->names = calloc(r->parts.n_tokens, sizeof *r->names);
    r->kinds = calloc(r->parts.n_tokens, 1);
    r->modelled = calloc(r->parts.n_tokens, sizeof *r->modelled);
    r->added = calloc(json_array_size(added) + 1, sizeof *r->added);
    if (!r->names || !r->kinds || !r->modelled || !r->added) return no_memory(r);
    json_object_foreach(vocab, name, id)
    {
        struct gyre_string *at = &r->names[json_integer_value(id)];
        if (at->data) return gyre_json_malformed(r, "a vocabulary where no two tokens share an id");
        *at = (struct gyre_string){name, strlen(name)};
        r->modelled[json_integer_value(id)] = true;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *item = json_array_get(added, i);
        struct added_token *t = &r->added[r->parts.n_added++];
        *t = (struct added_token){.text = string_of(json_object_get(item, "content")),
                                  .id = (uint32_t)json_integer_value(json_object_get(item, "id")),
                                  .special = gyre_json_flag(r, item, "special", false),
                                  .lstrip = gyre_json_flag(r, item, "lstrip", false),
                                  .rstrip = gyre_json_flag(r, item, "rstrip", false),
                                  .single_word = gyre_json_flag(r, item, "single_word", false)};
        if (!t->text.data) return gyre_json_malformed(r, "the content of an added token");
        GYRE_TRY(check_number(r, vocab, t, &numbering));
        t->normalized = gyre_json_flag(r, item, "normalized", !t->special);
        r->kinds[t->id] = t->special ? TOKEN_SPECIAL : TOKEN_ADDED;
        r->names[t->id] = t->text;
    }
    const char *unknown = gyre_json_string(r, model, "unk_token");
    json_t *unknown_id = unknown ? json_object_get(vocab, unknown) : NULL;
    if (unknown_id) r->tokenizer->unknown = (uint32_t)json_integer_value(unknown_id);
    r->parts.names = r->names;
    r->parts.kinds = r->kinds;
    r->parts.modelled = r->modelled;
    r->parts.added = r->added;
    return GYRE_OK;
}

// A merge is "left right" or ["left", "right"].
static gyre_status read_merges(struct json_reader *r, const json_t *model)
{
    const json_t *list = json_object_get(model, "merges");
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n > UINT32_MAX) return gyre_json_malformed(r, "the list of merges");
    r->merges = malloc((n + 1) * sizeof *r->merges);
    if (!r->merges) return no_memory(r);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        struct gyre_string *pair = r->merges[i];
        if (json_is_string(item)) {
            const char *text = json_string_value(item), *blank = strchr(text, ' ');
            if (!blank || strchr(blank + 1, ' ')) return gyre_json_malformed(r, "the text of a merge");
            pair[0] = (struct gyre_string){text, (uint64_t)(blank - text)};
            pair[1] = (struct gyre_string){blank + 1, strlen(blank + 1)};
        } else {
            pair[0] = string_of(json_array_get(item, 0));
            pair[1] = string_of(json_array_get(item, 1));
            if (json_array_size(item) != 2 || !pair[0].data || !pair[1].data) return gyre_json_malformed(r, "a merge");
        }
    }
    r->parts.n_merges = n;
    r->parts.merges = (const struct gyre_string(*)[2])r->merges;
    return GYRE_OK;
}

// Flags that GGUF has no place for.
static bool is_plain(const struct json_reader *r)
{
    for (uint32_t i = 0; i < r->parts.n_added; i++)
        if (r->added[i].lstrip || r->added[i].rstrip || r->added[i].single_word) return false;
    return r->tokenizer->unknown == NO_TOKEN || r->tokenizer->byte_fallback;
}

// The ids of a template must be tokens.
static gyre_status check_around(struct json_reader *r)
{
    const gyre_tokenizer *t = r->tokenizer;
    bool good = true;
    for (uint32_t i = 0; i < t->n_before; i++) good = good && t->before[i] < t->n_tokens;
    for (uint32_t i = 0; i < t->n_after; i++) good = good && t->after[i] < t->n_tokens;
    return good ? GYRE_OK : gyre_json_malformed(r, "a token of the post-processor's template");
}

gyre_status gyre_tokenizer_from_json(const char *path, const char *text, uint64_t bytes, gyre_tokenizer *tokenizer,
                                     bool *plain, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct json_reader r = {.path = path, .tokenizer = tokenizer, .err = err};
    GYRE_GO(gyre_json_parse(path, text, bytes, &r.root, err));
    const json_t *model = json_object_get(r.root, "model");
    GYRE_GO(check_model(&r, model));
    GYRE_GO(gyre_json_steps(&r));
    GYRE_GO(read_tokens(&r, model));
    GYRE_GO(read_merges(&r, model));
    if (r.wrong) GYRE_GO(gyre_json_malformed(&r, r.wrong));
    if (plain) *plain = is_plain(&r);
    GYRE_GO(gyre_tokenizer_build(tokenizer, &r.parts, path, err));
    st = check_around(&r);
done:
    json_decref(r.root);
    free(r.names);
    free(r.merges);
    free(r.kinds);
    free(r.modelled);
    free(r.added);
    return st;
}
