// A file against its manifest. See gyre_quantize.h; what needs the base model is verify_base.c's,
// verify_norms.c's and verify_weights.c's.
#include "quantizer/recipe/recipe.h"
#include "quantizer/trust/verify_impl.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"
#include "runtime/util/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *detailed(struct gyre_verifier *v, const char *format, ...) GYRE_PRINTF(2, 3);
static const char *detailed(struct gyre_verifier *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(v->detail, sizeof v->result->check[0].detail, format, args);
    va_end(args);
    return v->detail;
}

// ---- container and manifest -------------------------------------------------------------------------------

// Everything outside tensors and the front is padding of zeros, and shorter than the alignment.
static gyre_status check_padding(const struct gyre_verifier *v, gyre_error *err)
{
    uint64_t size, alignment = 32;
    const unsigned char *bytes = gyre_source_bytes(v->file, &size);
    const uint64_t n = gyre_source_tensor_count(v->file);
    GYRE_TRY(gyre_source_u64(v->file, "general.alignment", &alignment, NULL, err));
    for (uint64_t i = 0; i < n; i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(v->file, i),
                                 *next = i + 1 < n ? gyre_source_tensor_at(v->file, i + 1) : NULL;
        const unsigned char *from = (const unsigned char *)t->data + t->bytes,
                            *to = next ? (const unsigned char *)next->data : bytes + size;
        if ((uint64_t)(to - from) >= alignment)
            return gyre_verify_differs(v, err, "%llu bytes follow the last tensor", (unsigned long long)(to - from));
        for (; from < to; from++)
            if (*from)
                return gyre_verify_differs(v, err, "the padding after tensor %s is not zero (byte %llu)", t->name,
                                           (unsigned long long)(from - bytes));
    }
    return GYRE_OK;
}

static gyre_status check_container(struct gyre_verifier *v, gyre_error *err)
{
    uint64_t size = 0, version = 0;
    bool found;
    GYRE_TRY(gyre_source_open(v->params->file, &v->file, err));
    if (gyre_verify_is_folder(v)) {
        for (uint64_t i = 0; i < gyre_source_tensor_count(v->file); i++)
            v->total += gyre_source_tensor_at(v->file, i)->bytes;
        detailed(v, "a Hugging Face directory, %llu tensors without gaps",
                 (unsigned long long)gyre_source_tensor_count(v->file));
        return GYRE_OK;
    }
    if (!gyre_source_bytes(v->file, &size))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot verify (%s): it is in several parts; give the file that gyre quantize wrote",
                         v->params->file);
    GYRE_TRY(gyre_source_u64(v->file, "gyre.version", &version, &found, err));
    if (!found)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot verify (%s): it has no key gyre.version; give a file that gyre quantize wrote",
                         v->params->file);
    if (version < 1 || version > GYRE_FILE_VERSION)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot verify (%s): its layout has version %llu, this gyre knows 1 to %d; use a newer gyre",
                         v->params->file, (unsigned long long)version, GYRE_FILE_VERSION);
    v->total = size;
    GYRE_TRY(check_padding(v, err));
    detailed(v, "GGUF, %llu bytes, %llu tensors without gaps, padding zero", (unsigned long long)size,
             (unsigned long long)gyre_source_tensor_count(v->file));
    return GYRE_OK;
}

static gyre_status read_manifest(struct gyre_verifier *v, gyre_error *err)
{
    char *beside = gyre_beside(v->params->file, ".manifest.json");
    const char *path = v->params->manifest ? v->params->manifest : beside;
    gyre_status st;
    if (!path) st = gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    else if (!gyre_file_exists(path))
        st = gyre_fail(err, GYRE_E_IO,
                       "cannot verify (%s): its manifest (%s) is missing; fetch it too, or name it with --manifest",
                       v->params->file, path);
    else st = gyre_manifest_read(path, &v->manifest, err);
    free(beside);
    return st;
}

static gyre_status check_manifest(struct gyre_verifier *v, gyre_error *err)
{
    GYRE_TRY(read_manifest(v, err));
    if ((v->manifest.format != NULL) != gyre_verify_is_folder(v))
        return gyre_verify_differs(v, err, "the manifest is that of a %s",
                                   v->manifest.format ? "Hugging Face directory" : "GGUF file");
    v->rows = gyre_manifest_index(v->manifest.tensors, NULL);
    if (!v->rows) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    detailed(v, "gyre %s, recipe %s", gyre_json_show(json_object_get(v->manifest.json, "gyre")).text,
             gyre_json_show(json_object_get(v->manifest.json, "recipe")).text);
    return GYRE_OK;
}

// ---- metadata ---------------------------------------------------------------------------------------------

static gyre_status compare_text(const struct gyre_verifier *v, const char *key, const char *want, gyre_error *err)
{
    const char *have = NULL;
    GYRE_TRY(gyre_source_string(v->file, key, &have, err));
    if (have && !strcmp(have, want)) return GYRE_OK;
    json_t *a = json_string(have), *b = json_string(want); // NULL where the file's text is no UTF-8
    const gyre_status st = gyre_verify_differs(v, err, "metadata key %s is %s, the manifest says %s", key,
                                               have && !a ? "no text" : gyre_json_show(a).text, gyre_json_show(b).text);
    json_decref(a);
    json_decref(b);
    return st;
}

static gyre_status compare_number(const struct gyre_verifier *v, const char *key, uint64_t want, gyre_error *err)
{
    uint64_t have = 0;
    char text[24] = "missing";
    bool found;
    GYRE_TRY(gyre_source_u64(v->file, key, &have, &found, err));
    if (found) {
        if (have == want) return GYRE_OK;
        snprintf(text, sizeof text, "%llu", (unsigned long long)have);
    }
    return gyre_verify_differs(v, err, "metadata key %s is %s, the manifest says %llu", key, text,
                               (unsigned long long)want);
}

// A full file says so in its architecture: readers that would print garbage refuse it.
static gyre_status check_profile(const struct gyre_verifier *v, gyre_error *err)
{
    const char *have = NULL;
    const bool full = !strcmp(v->manifest.profile, "full");
    GYRE_TRY(gyre_source_string(v->file, "general.architecture", &have, err));
    if (have && !strncmp(have, "gyre-", 5) == full) return GYRE_OK;
    return gyre_verify_differs(v, err, "metadata key general.architecture is %s, the manifest says profile %s",
                               have ? have : "missing", v->manifest.profile);
}

// What the file says of groups is its recipe's exceptions' too.
static gyre_status compare_group(const struct gyre_verifier *v, gyre_error *err)
{
    const struct gyre_manifest *m = &v->manifest;
    uint32_t want = m->wgroup;
    gyre_error why = {0};
    struct gyre_recipe *recipe = malloc(sizeof *recipe);
    if (!recipe) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    if (m->recipe_text &&
        gyre_recipe_parse(m->recipe_text, strlen(m->recipe_text), "recipe_text", recipe, &why) == GYRE_OK)
        want = gyre_recipe_declared_group(recipe, !strcmp(m->profile, "full"), m->wgroup);
    free(recipe);
    return compare_number(v, "gyre.wgroup", want, err);
}

// The keys that the manifest repeats come first: they make the better message. Then all bytes before the first tensor.
static gyre_status check_metadata(struct gyre_verifier *v, gyre_error *err)
{
    const struct gyre_manifest *m = &v->manifest;
    uint64_t size;
    const unsigned char *bytes = gyre_source_bytes(v->file, &size);
    char hex[GYRE_SHA256_HEX];
    if (gyre_verify_is_folder(v)) { // where recipe and widths are words of the texts that are hashed
        GYRE_TRY(gyre_verify_folder_front(v, hex, err));
        if (!m->front_sha256 || strcmp(hex, m->front_sha256))
            return gyre_verify_differs(v, err,
                                       "SHA-256 of config.json, of the tokenizer's files and of what lies before the "
                                       "tensors differs from the manifest");
        detailed(v, "SHA-256 of config.json, the tokenizer's files and what lies before the tensors");
        return GYRE_OK;
    }
    GYRE_TRY(compare_text(v, "gyre.recipe", m->recipe, err));
    GYRE_TRY(compare_text(v, "gyre.profile", m->profile, err));
    GYRE_TRY(check_profile(v, err));
    GYRE_TRY(compare_number(v, "gyre.seed", m->seed, err));
    GYRE_TRY(compare_number(v, "gyre.wbits", m->wbits, err));
    GYRE_TRY(compare_group(v, err));
    GYRE_TRY(compare_number(v, "gyre.act_bits", m->act, err));
    GYRE_TRY(compare_number(v, "gyre.kv_bits", m->kv, err));
    if (m->kv_v != m->kv || gyre_source_has(v->file, "gyre.kv_bits_v"))
        GYRE_TRY(compare_number(v, "gyre.kv_bits_v", m->kv_v, err));
    if (!m->front_sha256) {
        detailed(v,
                 "recipe, profile, seed and widths agree; the manifest has no front_sha256, so other metadata is not "
                 "covered");
        return GYRE_OK;
    }
    const uint64_t front = gyre_source_tensor_count(v->file)
                               ? (uint64_t)((const unsigned char *)gyre_source_tensor_at(v->file, 0)->data - bytes)
                               : size;
    gyre_sha256_of(bytes, front, hex);
    if (strcmp(hex, m->front_sha256))
        return gyre_verify_differs(v, err,
                                   "metadata: SHA-256 of the %llu bytes before the first tensor differs from the "
                                   "manifest",
                                   (unsigned long long)front);
    detailed(v, "recipe, profile, seed and widths agree; SHA-256 of the %llu bytes before the first tensor",
             (unsigned long long)front);
    return GYRE_OK;
}

// ---- tensors ----------------------------------------------------------------------------------------------

// A row tells of a whole tensor, or of some rows of one that several share.
static bool same_shape(const struct gyre_tensor *t, const json_t *row)
{
    const json_t *shape = json_object_get(row, "shape"), *first = json_object_get(row, "first");
    if (json_array_size(shape) != t->n_dims) return false;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        const uint64_t n = (uint64_t)json_integer_value(json_array_get(shape, i));
        if (i == 0 && first ? n > t->dims[0] || (uint64_t)json_integer_value(first) > t->dims[0] - n : n != t->dims[i])
            return false;
    }
    return true;
}

// How many rows of `t`, from its row `first` on, the manifest's row tells of; 0: none does.
static uint64_t told(const struct gyre_verifier *v, const struct gyre_tensor *t, uint64_t first, const char **sha256)
{
    const json_t *row = gyre_manifest_row(v->rows, t->name, first);
    if (sha256) *sha256 = json_string_value(json_object_get(row, "sha256"));
    return (uint64_t)json_integer_value(json_array_get(json_object_get(row, "shape"), 0));
}

static gyre_status check_tensors(struct gyre_verifier *v, gyre_error *err)
{
    size_t i;
    json_t *row;
    json_array_foreach(v->manifest.tensors, i, row)
    {
        const json_t *name = json_object_get(row, "name"), *type = json_object_get(row, "type");
        const struct gyre_tensor *t = gyre_source_tensor(v->file, json_string_value(name));
        if (!t)
            return gyre_verify_differs(v, err, "tensor %s of the manifest is not in the file",
                                       gyre_json_show(name).text);
        if (strcmp(gyre_dtype_info(t->type)->name, json_string_value(type)))
            return gyre_verify_differs(v, err, "tensor %s: type is %s, the manifest says %s", t->name,
                                       gyre_dtype_info(t->type)->name, gyre_json_show(type).text);
        if (!same_shape(t, row))
            return gyre_verify_differs(v, err, "tensor %s: shape is %llu x %llu, the manifest says %s", t->name,
                                       (unsigned long long)t->rows, (unsigned long long)t->cols,
                                       gyre_json_show(json_object_get(row, "shape")).text);
    }
    for (uint64_t n = 0; n < gyre_source_tensor_count(v->file); n++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(v->file, n);
        for (uint64_t first = 0, rows; first < t->dims[0]; first += rows) {
            rows = told(v, t, first, NULL);
            if (!rows)
                return gyre_verify_differs(v, err, "tensor %s is in the file and not in the manifest%s", t->name,
                                           first ? ", not all of it" : "");
        }
    }
    v->result->tensors = gyre_source_tensor_count(v->file);
    detailed(v, "%llu names, types and shapes, none missing, none extra", (unsigned long long)v->result->tensors);
    return GYRE_OK;
}

static gyre_status check_hash(struct gyre_verifier *v, const unsigned char *data, uint64_t bytes, const char *want,
                              bool *same, gyre_error *err)
{
    enum { CHUNK = 64 << 20 };
    char hex[GYRE_SHA256_HEX];
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    for (uint64_t at = 0; at < bytes; at += CHUNK) {
        const uint64_t n = GYRE_MIN(bytes - at, (uint64_t)CHUNK);
        gyre_sha256_add(&sha, data + at, n);
        GYRE_TRY(gyre_verify_tick(v, n, err));
    }
    gyre_sha256_end(&sha, hex);
    *same = !strcmp(hex, want);
    return GYRE_OK;
}

static gyre_status check_hashes(struct gyre_verifier *v, gyre_error *err)
{
    v->what = "hashes";
    for (uint64_t i = 0; i < gyre_source_tensor_count(v->file); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(v->file, i);
        const uint64_t row = t->bytes / t->dims[0];
        for (uint64_t first = 0, rows; first < t->dims[0]; first += rows) { // all are told of: check_tensors
            const char *want;
            bool same;
            rows = told(v, t, first, &want);
            GYRE_TRY(check_hash(v, (const unsigned char *)t->data + first * row, rows * row, want, &same, err));
            if (!same) return gyre_verify_differs(v, err, "tensor %s: SHA-256 differs from the manifest", t->name);
        }
    }
    detailed(v, "SHA-256 of %llu tensors", (unsigned long long)v->result->tensors);
    return GYRE_OK;
}

// ---- values -----------------------------------------------------------------------------------------------

// Sign and exponent of an f16: finite and >= 0.
static bool is_scale(uint16_t half) { return (half & 0x7C00) != 0x7C00 && ((half & 0x8000) == 0 || half == 0x8000); }

static gyre_status check_scales(const struct gyre_verifier *v, const struct gyre_linear *l, gyre_error *err)
{
    const char *name = l->scale ? l->scale->name : l->weight->name;
    const uint64_t n = l->cols / l->stored, repeat = l->group / l->stored;
    gyre_status st = GYRE_OK;
    uint16_t *scale = malloc(n * sizeof *scale);
    if (!scale) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    for (uint64_t r = 0; r < l->rows; r++) {
        gyre_linear_scales(l, r, scale);
        for (uint64_t i = 0; i < n; i++) {
            if (!is_scale(scale[i]))
                GYRE_GO(gyre_verify_differs(v, err, "tensor %s: scale %llu of row %llu is negative or not finite", name,
                                            (unsigned long long)i, (unsigned long long)r));
            if (scale[i] != scale[i - i % repeat])
                GYRE_GO(gyre_verify_differs(
                    v, err, "tensor %s: row %llu does not repeat its scale over %u columns as gyre.wgroup declares",
                    name, (unsigned long long)r, l->group));
        }
    }
done:
    free(scale);
    return st;
}

// gyre_hparams_read proves the base matrices: entries +1 and -1, H H^T = k I.
static gyre_status check_values(struct gyre_verifier *v, gyre_error *err)
{
    uint64_t scaled = 0;
    GYRE_TRY(gyre_hparams_read(v->file, &v->hp, err));
    GYRE_TRY(gyre_model_check(v->file, &v->hp, err));
    for (uint32_t l = 0; l < v->hp.n_layers; l++)
        for (int s = 0; s < GYRE_LINEARS; s++) {
            struct gyre_linear linear;
            uint32_t bits;
            GYRE_TRY(gyre_verify_linear(v, (gyre_role)s, l, &linear, &bits, err));
            if (bits >= 16) continue;
            GYRE_TRY(check_scales(v, &linear, err));
            scaled++;
        }
    const struct gyre_hadamard *had[] = {&v->hp.rot.r1, &v->hp.rot.r3_had, &v->hp.rot.r4, &v->hp.rot.head};
    unsigned bases = 0;
    for (int i = 0; i < 4; i++)
        for (int j = 0; had[i]->n && j < 3; j++) bases += had[i]->k[j] > 1;
    detailed(
        v,
        "every tensor the model needs, all floats finite; scales of %llu linears >= 0; %u base matrices with H H^T "
        "= k I",
        (unsigned long long)scaled, bases);
    return GYRE_OK;
}

// ---- entry ------------------------------------------------------------------------------------------------

static void worst_recorded(struct gyre_verifier *v)
{
    size_t i;
    json_t *row;
    json_array_foreach(v->manifest.tensors, i, row)
    {
        const json_t *error = json_object_get(row, "error");
        if (!error || json_number_value(error) <= v->result->worst_error) continue;
        v->result->worst_error = json_number_value(error);
        snprintf(v->result->worst, sizeof v->result->worst, "%s", json_string_value(json_object_get(row, "name")));
    }
}

gyre_status gyre_verify(const gyre_verify_params *given, gyre_verify_result *result, gyre_error *err)
{
    gyre_verify_params taken;
    GYRE_TRY(gyre_params_take(given, &taken, sizeof taken, sizeof taken, "gyre_verify_params", err));
    const gyre_verify_params *const params = &taken;
    static const struct {
        const char *name;
        gyre_status (*run)(struct gyre_verifier *v, gyre_error *err);
        bool needs_base;
    } checks[] = {
        {"container", check_container, false}, {"manifest", check_manifest, false},
        {"metadata", check_metadata, false},   {"tensors", check_tensors, false},
        {"hashes", check_hashes, false},       {"values", check_values, false},
        {"base", gyre_verify_base, true},      {"sources", gyre_verify_sources, true},
        {"norms", gyre_verify_norms, true},    {"weights", gyre_verify_weights, true},
    };
    struct gyre_verifier v = {.params = params, .result = result, .what = "reading"};
    gyre_error why = {0};
    gyre_status st = GYRE_OK;
    *result = (gyre_verify_result){.worst_error = -1};
    for (size_t i = 0; i < GYRE_COUNT(checks) && st == GYRE_OK; i++) {
        if (checks[i].needs_base && !params->base) break;
        gyre_verify_check *c = &result->check[result->n_checks++];
        c->name = checks[i].name;
        v.detail = c->detail;
        st = checks[i].run(&v, &why);
        c->ok = st == GYRE_OK;
        if (!c->ok) snprintf(c->detail, sizeof c->detail, "%s", why.message);
    }
    if (st == GYRE_OK) st = gyre_source_unchanged(v.file, &why);
    if (st == GYRE_OK && v.base) st = gyre_source_unchanged(v.base, &why);
    if (st == GYRE_OK && !params->base) worst_recorded(&v);
    if (st != GYRE_OK && err) *err = why;
    gyre_hparams_free(&v.hp);
    gyre_hparams_free(&v.base_hp);
    gyre_rotator_release(&v.signs);
    gyre_matrices_release(&v.learned);
    gyre_source_close(v.file);
    gyre_base_release(&v.base_read);
    gyre_source_close(v.base);
    json_decref(v.rows);
    gyre_manifest_free(&v.manifest);
    return st;
}
