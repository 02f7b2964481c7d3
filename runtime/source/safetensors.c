// Reads one safetensors file (format of safetensors/src/tensor.rs): u64 header length, JSON header, data.
//
// Strict as the reference reader: after sorting by offset the tensors tile the data exactly, without hole or overlap,
// and each has the bytes that its shape and type say. Duplicate keys are refused. The data has no alignment.
#include "runtime/source/hf.h"

#include "runtime/util/base.h"
#include "runtime/util/locale.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MAX_HEADER = 100000000; // the reference reader's limit

struct entry {
    const char *name;
    json_t *info;
    uint64_t begin, end;
};

static bool ends(const char *name, const char *tail)
{
    const size_t n = strlen(name), m = strlen(tail);
    return n > m && !strcmp(name + n - m, tail);
}

bool gyre_hf_text_name(const gyre_source *source, const char *name, char out[GYRE_HF_TEXT_NAME])
{
    static const char *const other[] = {"vision_tower.", "multi_modal_projector.", "visual.",
                                        "vision_model.", "audio_tower.",           "embed_vision."},
                             *const bare[] = {"layers.", "embed_tokens.", "norm."}; // of a model saved without its head
    const char *model = "", *stem = name;
    if (source->hf_wrapped) {
        if (!strncmp(stem, "model.", 6)) model = "model.", stem += 6;
        for (size_t i = 0; i < GYRE_COUNT(other); i++)
            if (!strncmp(stem, other[i], strlen(other[i]))) return false;
        if (!strncmp(stem, "language_model.", 15)) stem += 15;
    }
    for (size_t i = 0; i < GYRE_COUNT(bare); i++)
        if (!strncmp(stem, bare[i], strlen(bare[i]))) model = "model.";
    snprintf(out, GYRE_HF_TEXT_NAME, "%s%s", model, stem);
    for (uint32_t i = 0; i < source->n_hf_ignored; i++)
        if (ends(name, source->hf_ignored[i])) return false;
    return !ends(name, ".rotary_emb.inv_freq") && !(source->hf_tied && !strcmp(out, "lm_head.weight"));
}

// FORMAT unless it has `bytes` bytes.
static gyre_status add_tensor(gyre_source *source, const struct gyre_tensor *tensor, const char *name, uint64_t bytes,
                              const char *path, gyre_error *err)
{
    GYRE_TRY(gyre_source_add_tensor(source, tensor, (struct gyre_string){name, strlen(name)}, err));
    const uint64_t due = source->tensors[source->n_tensors - 1].bytes;
    if (due == bytes) return GYRE_OK;
    return gyre_fail(
        err, GYRE_E_FORMAT,
        "cannot read model (%s): tensor \"%s\" has %llu bytes where its shape needs %llu; the file is damaged", path,
        gyre_show(name, strlen(name)).text, (unsigned long long)bytes, (unsigned long long)due);
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool whole_number(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static gyre_status damaged(const char *path, const char *name, const char *why, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): tensor \"%s\" %s; the file is damaged", path,
                     gyre_show(name, strlen(name)).text, why);
}

static gyre_status read_type_and_shape(const char *path, const struct entry *e, struct gyre_tensor *tensor,
                                       gyre_error *err)
{
    static const gyre_dtype readable[] = {GYRE_DTYPE_F32, GYRE_DTYPE_F16, GYRE_DTYPE_BF16, GYRE_DTYPE_F64,
                                          GYRE_DTYPE_I8,  GYRE_DTYPE_I32, GYRE_DTYPE_I64};
    const char *type = json_string_value(json_object_get(e->info, "dtype"));
    const json_t *shape = json_object_get(e->info, "shape");
    if (!type || !json_is_array(shape)) return damaged(path, e->name, "has no dtype or no shape", err);
    size_t i = 0;
    while (i < GYRE_COUNT(readable) && strcmp(type, gyre_dtype_info(readable[i])->name)) i++;
    if (i == GYRE_COUNT(readable))
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot read model (%s): tensor \"%s\" has type %s; gyre reads F32, F16, BF16, F64, I8, I32 and I64", path,
            gyre_show(e->name, strlen(e->name)).text, gyre_show(type, strlen(type)).text);
    tensor->type = readable[i];
    if (json_array_size(shape) > 4)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot read model (%s): tensor \"%s\" has more than 4 dimensions",
                         path, gyre_show(e->name, strlen(e->name)).text);
    tensor->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < tensor->n_dims; d++)
        if (!whole_number(json_array_get(shape, d), &tensor->dims[d]))
            return damaged(path, e->name, "has an impossible shape", err);
    return GYRE_OK;
}

// What is looked at keeps a tensor that is not read.
static gyre_status let(gyre_source *source, gyre_status st, const struct entry *e, const char *name, gyre_error *err)
{
    const char *type = json_string_value(json_object_get(e->info, "dtype"));
    const json_t *shape = json_object_get(e->info, "shape");
    const struct gyre_shown called = gyre_show(name, strlen(name)),
                            shown = gyre_show(type ? type : "?", type ? strlen(type) : 1);
    struct gyre_unread unread = {.name = called.text, .type = shown.text};
    while (unread.n_dims < GYRE_MIN(json_array_size(shape), GYRE_COUNT(unread.dims)) &&
           whole_number(json_array_get(shape, unread.n_dims), &unread.dims[unread.n_dims]))
        unread.n_dims++;
    return gyre_source_let_tensor(source, st, &unread, err);
}

// Collects the entries in file order; *count of them in *out (free() it).
static gyre_status collect(const char *path, json_t *header, struct entry **out, uint64_t *count, gyre_error *err)
{
    struct entry *entries = calloc(json_object_size(header) + 1, sizeof *entries);
    uint64_t n = 0;
    const char *name;
    json_t *info;
    *out = entries;
    if (!entries) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", path);
    json_object_foreach(header, name, info)
    {
        if (!strcmp(name, "__metadata__")) continue;
        const json_t *offsets = json_object_get(info, "data_offsets");
        struct entry *e = &entries[n++];
        *e = (struct entry){.name = name, .info = info};
        if (json_array_size(offsets) != 2 || !whole_number(json_array_get(offsets, 0), &e->begin) ||
            !whole_number(json_array_get(offsets, 1), &e->end) || e->end < e->begin)
            return damaged(path, name, "has no valid data_offsets", err);
    }
    qsort(entries, n, sizeof *entries, by_offset);
    *count = n;
    return GYRE_OK;
}

// What gyre writes into __metadata__: that it is gyre's, and numbers that no field of config.json has a place for.
static gyre_status read_own(gyre_source *source, const char *path, const json_t *header, gyre_error *err)
{
    static const char *const keys[] = {"gyre.act_clip", "gyre.kv_clip", "gyre.act_group"};
    const json_t *all = json_object_get(header, "__metadata__");
    source->hf_own |= json_object_get(all, "gyre.recipe") || json_object_get(all, "gyre.act_group");
    for (size_t i = 0; i < GYRE_COUNT(keys); i++) {
        const json_t *value = json_object_get(all, keys[i]);
        const char *text = json_string_value(value);
        char *end = NULL;
        const struct gyre_locale locale = gyre_locale_plain();
        const float number = text ? strtof(text, &end) : 0;
        gyre_locale_back(locale);
        if (!value || gyre_source_has(source, keys[i])) continue; // every shard says it
        if (!text || end == text || *end)
            return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): %s of its __metadata__ is no number", path,
                             keys[i]);
        GYRE_TRY(gyre_source_put_meta(source, keys[i], GYRE_META_F32, &number, 4, err));
    }
    return GYRE_OK;
}

gyre_status gyre_safetensors_read(gyre_source *source, const char *path, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct gyre_file_map map;
    json_t *header = NULL;
    struct entry *entries = NULL;
    uint64_t length = 0, n = 0, expected = 0;
    GYRE_GO(gyre_source_map(source, path, &map, err));
    if (map.size >= 8) memcpy(&length, map.data, 8);
    if (map.size < 8 || length > MAX_HEADER || length > map.size - 8 || length == 0 || map.data[8] != '{') {
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot read model (%s): its header of %llu bytes does not fit or is no JSON object; the file "
                       "is cut short or no safetensors file",
                       path, (unsigned long long)length);
        goto done;
    }
    GYRE_GO(gyre_json_parse(path, (const char *)map.data + 8, length, &header, err));
    GYRE_GO(read_own(source, path, header, err));
    GYRE_GO(collect(path, header, &entries, &n, err));
    const uint64_t data_bytes = map.size - 8 - length;
    for (uint64_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        struct gyre_tensor tensor = {.data = map.data + 8 + length + e->begin};
        if (e->begin != expected || e->end > data_bytes) {
            st = damaged(path, e->name,
                         e->end > data_bytes ? "reaches past the end of the file" : "overlaps another or leaves a hole",
                         err);
            goto done;
        }
        expected = e->end;
        char name[GYRE_HF_TEXT_NAME] = "";
        if (!gyre_hf_text_name(source, e->name, name)) {
            if (!source->hf_tied || strcmp(name, "lm_head.weight") != 0) continue;
            tensor.bytes = e->end - e->begin; // for gyre_safetensors_tied_head
            GYRE_GO(read_type_and_shape(path, e, &tensor, err));
            source->hf_head = tensor;
            continue;
        }
        const char *known = strlen(e->name) < GYRE_HF_TEXT_NAME ? name : e->name;
        st = read_type_and_shape(path, e, &tensor, err);
        if (st == GYRE_OK) st = add_tensor(source, &tensor, known, e->end - e->begin, path, err);
        else st = let(source, st, e, known, err);
        if (st != GYRE_OK) goto done;
    }
    if (expected != data_bytes)
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot read model (%s): %llu bytes after the last tensor; the file is damaged", path,
                       (unsigned long long)(data_bytes - expected));
done:
    free(entries);
    json_decref(header);
    return st;
}

gyre_status gyre_safetensors_tied_head(gyre_source *source, gyre_error *err)
{
    const struct gyre_tensor *head = &source->hf_head, *table = gyre_source_tensor(source, "model.embed_tokens.weight");
    if (!head->data || (table && table->type == head->type && table->bytes == head->bytes &&
                        !memcmp(table->data, head->data, head->bytes)))
        return GYRE_OK;
    source->note = "config.json ties the head to the embedding, but lm_head.weight holds other numbers: it is the "
                   "head, as in transformers 5";
    return add_tensor(source, head, "lm_head.weight", head->bytes, source->path, err);
}
