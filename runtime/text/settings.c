// What a model says about where a text begins and ends: BOS, EOS and their like, whether they are added, and every
// token that ends a text. GGUF has keys for it; a Hugging Face directory says it in up to three files, of which
// generation_config.json adds to config.json and tokenizer_config.json speaks of tokens by name.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/source/json_file.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Adds an end unless it is there. Writers say "none" by -1, as any width of it.
static gyre_status add_end(struct tokenizer_settings *s, int64_t id, const char *path, const char *key, gyre_error *err)
{
    if (id == -1 || id == UINT32_MAX) return GYRE_OK;
    if (id < 0 || id > INT32_MAX)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use tokenizer (%s): %s is %lld, no token", path, key,
                         (long long)id);
    for (uint32_t i = 0; i < s->n_ends; i++)
        if (s->ends[i] == (uint32_t)id) return GYRE_OK;
    if (s->n_ends == MAX_ENDS)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use tokenizer (%s): more than %d tokens end a text", path,
                         MAX_ENDS);
    s->ends[s->n_ends++] = (uint32_t)id;
    return GYRE_OK;
}

static gyre_status set_bos(struct tokenizer_settings *s, int64_t id, const char *path, const char *key, gyre_error *err)
{
    if (id == -1 || id == UINT32_MAX) return GYRE_OK;
    if (id < 0 || id > INT32_MAX)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use tokenizer (%s): %s is %lld, no token", path, key,
                         (long long)id);
    s->bos = (int32_t)id;
    return GYRE_OK;
}

// ---- GGUF ---------------------------------------------------------------------------------------------

static gyre_status said_by_key(const gyre_source *source, const char *key, enum said *out, gyre_error *err)
{
    bool on = false, found;
    GYRE_TRY(gyre_source_bool(source, key, &on, &found, err));
    if (found) *out = on ? SAID_YES : SAID_NO;
    return GYRE_OK;
}

static gyre_status from_keys(const gyre_source *source, struct tokenizer_settings *s, gyre_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id",  "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id",  "tokenizer.ggml.eos_token_ids",
                                       "tokenizer.ggml.eog_token_ids", "tokenizer.ggml.end_token_ids"};
    static const char bos_key[] = "tokenizer.ggml.bos_token_id";
    const char *path = gyre_source_path(source);
    int64_t bos = -1;
    for (size_t i = 0; i < GYRE_COUNT(keys); i++) {
        int64_t *id;
        uint64_t n;
        gyre_status st = GYRE_OK;
        GYRE_TRY(gyre_source_array_i64(source, keys[i], &id, &n, err));
        for (uint64_t k = 0; k < n && st == GYRE_OK; k++) st = add_end(s, id[k], path, keys[i], err);
        free(id);
        if (st != GYRE_OK) return st;
    }
    // What files of SentencePiece's models may leave out.
    const char *model = NULL;
    GYRE_TRY(gyre_source_string(source, "tokenizer.ggml.model", &model, err));
    if (model && !strcmp(model, "llama")) {
        bos = 1;
        if (!gyre_source_has(source, keys[0])) GYRE_TRY(add_end(s, 2, path, keys[0], err));
    }
    GYRE_TRY(gyre_source_i64(source, bos_key, &bos, NULL, err));
    GYRE_TRY(set_bos(s, bos, path, bos_key, err));
    GYRE_TRY(said_by_key(source, "tokenizer.ggml.add_bos_token", &s->add_bos, err));
    return said_by_key(source, "tokenizer.ggml.add_eos_token", &s->add_eos, err);
}

// ---- Hugging Face -------------------------------------------------------------------------------------

static gyre_status wrong(const char *path, const char *file, const char *field, const char *due, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use tokenizer (%s/%s): %s is not %s", path, file, field, due);
}

static bool absent(const json_t *value) { return !value || json_is_null(value); }

static bool whole(const json_t *value, int64_t *out)
{
    const double real = json_is_real(value) ? json_real_value(value) : 0.5;
    if (json_is_integer(value)) *out = json_integer_value(value);
    else if (real >= -1 && real <= INT32_MAX && real == (double)(int64_t)real) *out = (int64_t)real;
    else return false;
    return true;
}

// config.json or generation_config.json: eos_token_id is an id or a list of them.
static gyre_status from_config(const char *path, const char *file, const json_t *json, struct tokenizer_settings *s,
                               gyre_error *err)
{
    const json_t *eos = json_object_get(json, "eos_token_id"), *bos = json_object_get(json, "bos_token_id");
    const size_t n = json_is_array(eos) ? json_array_size(eos) : absent(eos) ? 0 : 1;
    int64_t id;
    for (size_t i = 0; i < n; i++) {
        if (!whole(json_is_array(eos) ? json_array_get(eos, i) : eos, &id))
            return wrong(path, file, "eos_token_id", "a token or a list of tokens", err);
        GYRE_TRY(add_end(s, id, path, "eos_token_id", err));
    }
    if (absent(bos) || s->bos >= 0) return GYRE_OK;
    if (json_array_size(bos) == 1) bos = json_array_get(bos, 0);
    if (!whole(bos, &id)) return wrong(path, file, "bos_token_id", "a token", err);
    return set_bos(s, id, path, "bos_token_id", err);
}

// A token by name: a text, or an object whose content is one.
static gyre_status read_name(const char *path, const json_t *json, const char *field, char out[256], gyre_error *err)
{
    const json_t *value = json_object_get(json, field);
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (absent(value)) return GYRE_OK;
    if (!json_is_string(value) || json_string_length(value) > 255)
        return wrong(path, "tokenizer_config.json", field, "the name of a token", err);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return GYRE_OK;
}

static gyre_status read_said(const char *path, const json_t *json, const char *field, enum said *out, gyre_error *err)
{
    const json_t *value = json_object_get(json, field);
    if (absent(value)) return GYRE_OK;
    if (!json_is_boolean(value)) return wrong(path, "tokenizer_config.json", field, "true or false", err);
    *out = json_is_true(value) ? SAID_YES : SAID_NO;
    return GYRE_OK;
}

static gyre_status from_tokenizer_config(const char *path, const json_t *json, struct tokenizer_settings *s,
                                         gyre_error *err)
{
    GYRE_TRY(read_name(path, json, "bos_token", s->bos_name, err));
    GYRE_TRY(read_name(path, json, "eos_token", s->eos_name, err));
    GYRE_TRY(read_said(path, json, "add_bos_token", &s->add_bos, err));
    return read_said(path, json, "add_eos_token", &s->add_eos, err);
}

static gyre_status from_files(const gyre_source *source, struct tokenizer_settings *s, gyre_error *err)
{
    static const char *const files[] = {"config.json", "generation_config.json", "tokenizer_config.json"};
    const char *path = gyre_source_path(source);
    for (size_t i = 0; i < GYRE_COUNT(files); i++) {
        char where[512];
        uint64_t bytes;
        json_t *json = NULL;
        const char *text = gyre_source_file(source, files[i], &bytes);
        if (!text) continue;
        snprintf(where, sizeof where, "%s/%s", path, files[i]);
        GYRE_TRY(gyre_json_parse(where, text, bytes, &json, err));
        gyre_status st;
        if (!json_is_object(json))
            st = gyre_fail(err, GYRE_E_FORMAT, "cannot use tokenizer (%s): it holds no JSON object", where);
        else if (i < 2) st = from_config(path, files[i], json, s, err);
        else st = from_tokenizer_config(path, json, s, err);
        json_decref(json);
        GYRE_TRY(st);
    }
    return GYRE_OK;
}

gyre_status gyre_tokenizer_settings(const gyre_source *source, struct tokenizer_settings *out, gyre_error *err)
{
    *out = (struct tokenizer_settings){.bos = -1, .add_bos = UNSAID, .add_eos = UNSAID};
    return gyre_source_container(source) == GYRE_CONTAINER_HF ? from_files(source, out, err)
                                                              : from_keys(source, out, err);
}

// ---- applying -----------------------------------------------------------------------------------------

static bool find(const gyre_tokenizer *t, const char *name, uint32_t *id)
{
    return *name && gyre_strmap_get(&t->vocab, name, (uint32_t)strlen(name), id);
}

// Special tokens that end a text or a turn in the model families, for files that name only one of several.
static void mark_known_ends(gyre_tokenizer *t)
{
    static const char *const names[] = {"<|endoftext|>",     "<|end_of_text|>", "<|eot_id|>",    "<|eom_id|>",
                                        "<|im_end|>",        "<|end|>",         "<end_of_turn>", "</s>",
                                        "<|return|>",        "<|call|>",        "<EOT>",         "[EOT]",
                                        "<end_of_utterance>"};
    uint32_t id;
    for (size_t i = 0; i < GYRE_COUNT(names); i++)
        if (find(t, names[i], &id) && t->kinds[id] == TOKEN_SPECIAL) t->ends[id] = true;
}

// Makes a token the first of the ends.
static gyre_status set_eos(struct tokenizer_settings *s, uint32_t id, const char *where, gyre_error *err)
{
    uint32_t at = 0;
    GYRE_TRY(add_end(s, id, where, "eos_token", err));
    while (s->ends[at] != id) at++;
    s->ends[at] = s->ends[0];
    s->ends[0] = id;
    return GYRE_OK;
}

static void remove_token(uint32_t *list, uint32_t *n, uint32_t token)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n; i++)
        if (list[i] != token) list[kept++] = list[i];
    *n = kept;
}

static gyre_status outside(const gyre_tokenizer *t, const char *where, const char *what, uint32_t id, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use tokenizer (%s): its %s is token %u of %u", where, what, id,
                     t->n_tokens);
}

gyre_status gyre_tokenizer_apply(gyre_tokenizer *t, struct tokenizer_settings *s, const char *where, gyre_error *err)
{
    uint32_t id;
    // What the tokenizer's own files say goes before config.json; a template that begins with one token before both.
    if (find(t, s->bos_name, &id)) s->bos = (int32_t)id;
    if (t->n_before == 1) s->bos = (int32_t)t->before[0];
    if (find(t, s->eos_name, &id)) GYRE_TRY(set_eos(s, id, where, err));
    if (s->n_ends == 0 && t->n_after == 1) GYRE_TRY(add_end(s, t->after[0], where, "the template's last token", err));
    if (s->bos >= 0 && (uint32_t)s->bos >= t->n_tokens) return outside(t, where, "BOS", (uint32_t)s->bos, err);
    for (uint32_t i = 0; i < s->n_ends; i++) {
        if (s->ends[i] >= t->n_tokens) return outside(t, where, "end of text", s->ends[i], err);
        t->ends[s->ends[i]] = true;
    }
    mark_known_ends(t);
    t->bos = s->bos;
    t->eos = s->n_ends ? (int32_t)s->ends[0] : -1;
    if (s->add_bos == SAID_YES && t->n_before == 0) {
        if (t->bos < 0)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use tokenizer (%s): it says that a BOS is added and names no BOS", where);
        t->before[t->n_before++] = (uint32_t)t->bos;
    }
    if (s->add_bos == SAID_NO && t->bos >= 0) remove_token(t->before, &t->n_before, (uint32_t)t->bos);
    if (s->add_eos == SAID_YES && t->n_after == 0) {
        if (s->n_ends == 0)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use tokenizer (%s): it says that an EOS is added and names no EOS", where);
        t->after[t->n_after++] = s->ends[0];
    }
    if (s->add_eos == SAID_NO && s->n_ends) remove_token(t->after, &t->n_after, s->ends[0]);
    return GYRE_OK;
}
