// Reads a Hugging Face model directory: config.json becomes GGUF's metadata keys (hf_config.c), tensors keep their
// names (runtime/model/roles.def knows them), and the small files that a tokenizer is made of are kept as texts for
// runtime/text.
#include "runtime/source/hf.h"

#include "runtime/util/base.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_JSON = 64 << 20, MAX_TOKENIZER = 256 << 20 };

// Whether the directory has such an entry. A link that leads nowhere is there, and fails when it is read.
static gyre_status has_file(const gyre_source *source, const char *name, bool *has, gyre_error *err)
{
    char path[PATH_MAX];
    struct stat info;
    GYRE_TRY(gyre_source_join(source, name, path, err));
    *has = lstat(path, &info) == 0;
    if (*has || errno == ENOENT) return GYRE_OK;
    return gyre_fail(err, GYRE_E_IO, "cannot read model (%s): %s", path, strerror(errno));
}

static gyre_status parse(const char *path, const char *text, uint64_t bytes, json_t **out, gyre_error *err)
{
    GYRE_TRY(gyre_json_parse(path, text, bytes, out, err));
    if (json_is_object(*out)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): it holds no JSON object", path);
}

// Keeps the text of an optional file for gyre_source_file.
static gyre_status keep_file(gyre_source *source, const char *name, uint64_t max, gyre_error *err)
{
    char path[PATH_MAX];
    bool has;
    struct source_file *file = &source->files[source->n_files];
    GYRE_TRY(has_file(source, name, &has, err));
    if (!has) return GYRE_OK;
    GYRE_TRY(gyre_source_join(source, name, path, err));
    GYRE_TRY(gyre_file_read(path, max, &file->text, &file->bytes, err));
    file->name = name;
    source->n_files++;
    return GYRE_OK;
}

// ---- shards -------------------------------------------------------------------------------------------

// Every shard that the index names, once each, in the order of first mention; then every tensor must be there.
static gyre_status read_shards(gyre_source *source, const json_t *index, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct gyre_strmap seen = {0};
    char path[PATH_MAX];
    const char *tensor;
    json_t *shard;
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): the safetensors index has no weight_map",
                         source->path);
    json_object_foreach(map, tensor, shard)
    {
        const char *name = json_string_value(shard);
        bool added;
        if (!name || !*name || *name == '.' || strchr(name, '/')) {
            st = gyre_fail(err, GYRE_E_FORMAT,
                           "cannot read model (%s): the safetensors index names an impossible file for \"%s\"",
                           source->path, gyre_show(tensor, strlen(tensor)).text);
            goto done;
        }
        if (!gyre_strmap_add(&seen, name, (uint32_t)strlen(name), 0, &added)) {
            st = gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
            goto done;
        }
        if (!added) continue;
        GYRE_GO(gyre_source_join(source, name, path, err));
        GYRE_GO(gyre_safetensors_read(source, path, err));
    }
    json_object_foreach(map, tensor, shard)
    {
        char known[GYRE_HF_TEXT_NAME];
        if (!gyre_hf_text_name(source, tensor, known) || gyre_source_tensor(source, known)) continue;
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot read model (%s): tensor \"%s\" of the safetensors index is in no shard", source->path,
                       gyre_show(tensor, strlen(tensor)).text);
        goto done;
    }
done:
    gyre_strmap_free(&seen);
    return st;
}

// One file goes before an index of several, as in transformers: a model that was saved again as one file may have the
// old index and shards beside it.
static gyre_status read_tensors(gyre_source *source, gyre_error *err)
{
    static const char single[] = "model.safetensors", index_name[] = "model.safetensors.index.json";
    gyre_status st = GYRE_OK;
    char path[PATH_MAX], *text = NULL;
    uint64_t bytes;
    json_t *index = NULL;
    bool one, several;
    GYRE_TRY(has_file(source, single, &one, err));
    GYRE_TRY(has_file(source, index_name, &several, err));
    if (one || !several) {
        if (several)
            source->note = "model.safetensors and an index of shards are both there: the single file is read, as "
                           "transformers does";
        GYRE_TRY(gyre_source_join(source, single, path, err));
        return gyre_safetensors_read(source, path, err);
    }
    GYRE_TRY(gyre_source_join(source, index_name, path, err));
    GYRE_GO(gyre_file_read(path, MAX_JSON, &text, &bytes, err));
    GYRE_GO(parse(path, text, bytes, &index, err));
    GYRE_GO(read_shards(source, index, err));
done:
    json_decref(index);
    free(text);
    return st;
}

// Scales of a row's groups are whole multiples of one step in gyre (docs/numerics.md), floats of their own elsewhere.
static gyre_status check_groups(gyre_source *source, gyre_error *err)
{
    if (source->hf_own || !gyre_source_has(source, "gyre.act_group")) return GYRE_OK;
    const gyre_status st =
        gyre_fail(err, GYRE_E_UNSUPPORTED,
                  "cannot use model (%s/config.json): the strategy of input_activations of quantization_config is "
                  "group, and gyre, which did not write this directory, has groups of another arithmetic; gyre reads "
                  "token, and group in directories of its own",
                  source->path);
    return gyre_source_let(source, st, err);
}

gyre_status gyre_hf_read(gyre_source *source, gyre_error *err)
{
    static const char *const kept[] = {"generation_config.json", "tokenizer_config.json", "tokenizer.json",
                                       "chat_template.jinja",    "chat_template.json",    "quantize_config.json",
                                       "quant_config.json"};
    gyre_status st = GYRE_OK;
    char path[PATH_MAX];
    json_t *config = NULL;
    struct source_file *file = &source->files[0];
    GYRE_GO(gyre_source_join(source, "config.json", path, err));
    GYRE_GO(gyre_file_read(path, MAX_JSON, &file->text, &file->bytes, err));
    file->name = "config.json";
    source->n_files = 1;
    GYRE_GO(parse(path, file->text, file->bytes, &config, err));
    for (size_t i = 0; i < GYRE_COUNT(kept); i++) GYRE_GO(keep_file(source, kept[i], MAX_TOKENIZER, err));
    GYRE_GO(gyre_source_let(source, gyre_hf_config(source, config, err), err));
    // Of a model that holds a text model the outer object says whether that one is tied, which it is where none does.
    const json_t *inner = json_object_get(config, "text_config");
    source->hf_wrapped = json_is_object(inner);
    GYRE_GO(gyre_hf_bool(source, inner, "tie_word_embeddings", &source->hf_tied, err));
    GYRE_GO(gyre_hf_bool(source, config, "tie_word_embeddings", &source->hf_tied, err));
    source->hf_untied = json_is_false(json_object_get(config, "tie_word_embeddings"));
    GYRE_GO(read_tensors(source, err));
    GYRE_GO(gyre_safetensors_tied_head(source, err));
    GYRE_GO(check_groups(source, err));
done:
    json_decref(config);
    return st;
}
