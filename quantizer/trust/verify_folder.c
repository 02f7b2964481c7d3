// What is another question of a Hugging Face directory than of a GGUF file: which bytes lie before the tensors, and
// what of it must be the base model's word for word.
#include "quantizer/file/hf_config.h"
#include "quantizer/trust/verify_impl.h"
#include "runtime/source/json_file.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 256 << 20 };

bool gyre_verify_is_folder(const struct gyre_verifier *v)
{
    return gyre_source_container(v->file) == GYRE_CONTAINER_HF;
}

// Adds a file of the directory: all of it, or (`front`) what lies before its tensors. *there: it exists.
static gyre_status add_file(const struct gyre_verifier *v, const char *name, bool front, struct gyre_sha256 *sha,
                            bool *there, gyre_error *err)
{
    char *path = gyre_joined(v->params->file, "/", name);
    struct gyre_file_map map = {0};
    uint64_t n = 0;
    gyre_status st = GYRE_OK;
    if (!path) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    *there = gyre_file_exists(path);
    if (!*there) goto done;
    GYRE_GO(gyre_file_map(path, &map, err));
    if (front && map.size >= 8) memcpy(&n, map.data, 8);
    if (front && (map.size < 8 || n > map.size - 8)) // another file than the one that was opened
        GYRE_GO(gyre_verify_differs(v, err, "%s is cut short", name));
    gyre_sha256_add(sha, map.data, front ? 8 + n : map.size);
done:
    gyre_file_unmap(&map);
    free(path);
    return st;
}

// How many files hold tensors: the index names one of model-00001-of-0000N.
static gyre_status count_files(const struct gyre_verifier *v, uint32_t *n, gyre_error *err)
{
    char *path = gyre_joined(v->params->file, "/", "model.safetensors.index.json"), *text = NULL;
    json_t *index = NULL;
    uint64_t bytes;
    const char *name;
    json_t *file;
    gyre_status st = GYRE_OK;
    *n = 0;
    if (!path) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    GYRE_GO(gyre_file_read(path, MAX_TEXT, &text, &bytes, err));
    GYRE_GO(gyre_json_parse(path, text, bytes, &index, err));
    json_object_foreach(json_object_get(index, "weight_map"), name, file)
    {
        const char *shard = json_string_value(file);
        if (!shard || sscanf(shard, "model-%*5u-of-%5u.safetensors", n) != 1) *n = 0;
        break;
    }
    if (!*n) st = gyre_verify_differs(v, err, "its index names files otherwise than gyre does");
done:
    json_decref(index);
    free(text);
    free(path);
    return st;
}

gyre_status gyre_verify_folder_front(const struct gyre_verifier *v, char *hex, gyre_error *err)
{
    struct gyre_sha256 sha;
    bool there = false;
    uint32_t files = 1;
    gyre_sha256_init(&sha);
    GYRE_TRY(add_file(v, "model.safetensors", true, &sha, &there, err));
    if (!there) GYRE_TRY(count_files(v, &files, err));
    for (uint32_t i = 1; !there && i <= files; i++) {
        char name[64];
        bool has = false;
        snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", i, files);
        GYRE_TRY(add_file(v, name, true, &sha, &has, err));
        if (!has) return gyre_verify_differs(v, err, "its file %s is missing", name);
    }
    GYRE_TRY(add_file(v, "config.json", false, &sha, &there, err));
    if (files > 1) GYRE_TRY(add_file(v, "model.safetensors.index.json", false, &sha, &there, err));
    for (size_t i = 0; gyre_hf_carried[i]; i++) GYRE_TRY(add_file(v, gyre_hf_carried[i], false, &sha, &there, err));
    gyre_sha256_end(&sha, hex);
    return GYRE_OK;
}

gyre_status gyre_verify_folder_texts(const struct gyre_verifier *v, gyre_error *err)
{
    for (size_t i = 0; gyre_hf_carried[i]; i++) {
        uint64_t n[2];
        const char *text[2] = {gyre_source_file(v->file, gyre_hf_carried[i], &n[0]),
                               gyre_source_file(v->base, gyre_hf_carried[i], &n[1])};
        if (!text[0] && !text[1]) continue;
        if (!text[0] || !text[1] || n[0] != n[1] || memcmp(text[0], text[1], n[0]))
            return gyre_verify_differs(v, err, "%s is not the base model's", gyre_hf_carried[i]);
    }
    return GYRE_OK;
}
