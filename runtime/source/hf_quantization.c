// quantization_config of a Hugging Face checkpoint. Three families write it: compressed-tensors (schemes by group of
// modules, and the rotations that are run online), AutoAWQ and GPTQ. Whatever would make the stored codes mean
// something else than runtime/model/pack_*.c reads is refused here by name: another format, width, strategy or
// version.
#include "runtime/source/hf.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct reading {
    gyre_source *source;
    struct gyre_quantization *out;
    struct gyre_hf_made_for *made_for;
    gyre_error *err;
};

static gyre_status refuse(const struct reading *r, const char *field, const char *value, const char *supported)
{
    return gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                     "cannot use model (%s/config.json): %s of quantization_config is %s; gyre reads %s",
                     r->source->path, field, gyre_show(value, strlen(value)).text, supported);
}

// A value as a message shows it; *text is malloc'd where it is not the value's own.
static gyre_status refuse_json(const struct reading *r, const char *field, const json_t *value, const char *supported)
{
    if (json_is_string(value)) return refuse(r, field, json_string_value(value), supported);
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    const gyre_status st = refuse(r, field, text ? text : "missing", supported);
    free(text);
    return st;
}

static bool absent(const json_t *value) { return !value || json_is_null(value); }

static bool empty(const json_t *value)
{
    return absent(value) || (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

// A text that is one of a list (compared without case, as the writers do), or absent.
static bool is_one_of(const json_t *value, const char *const *known, size_t n)
{
    if (absent(value)) return true;
    for (size_t i = 0; i < n; i++)
        if (json_is_string(value) && !strcasecmp(json_string_value(value), known[i])) return true;
    return false;
}

static gyre_status read_bits(const struct reading *r, const json_t *value, uint32_t *out)
{
    const json_int_t bits = json_is_integer(value) ? json_integer_value(value) : 0;
    if (bits != 4 && bits != 8) return refuse_json(r, "the width", value, "4 and 8 bits");
    *out = (uint32_t)bits;
    return GYRE_OK;
}

// -1, null: one group per row.
static gyre_status read_group(const struct reading *r, const json_t *value, uint32_t *out)
{
    const json_int_t group = absent(value) ? -1 : json_is_integer(value) ? json_integer_value(value) : 0;
    if (group != -1 && (group < 1 || group > 1 << 20))
        return refuse_json(r, "group_size", value, "whole numbers above 0, and -1");
    *out = group < 0 ? 0 : (uint32_t)group;
    return GYRE_OK;
}

static gyre_status read_flag(const struct reading *r, const json_t *json, const char *field, bool *out)
{
    const json_t *value = json_object_get(json, field);
    if (absent(value)) return GYRE_OK;
    if (!json_is_boolean(value)) return refuse_json(r, field, value, "true and false");
    *out = json_is_true(value);
    return GYRE_OK;
}

// ---- compressed-tensors ---------------------------------------------------------------------------------------

static const char *const ct_formats[] = {"pack-quantized", "int-quantized", "naive-quantized", "mixed-precision",
                                         "dense"};

// Only what is quantized anew for each token has no tensors of its own.
static gyre_status read_activations(const struct reading *r, const json_t *json)
{
    static const char *const strategies[] = {"token", "group"}, *const types[] = {"int"};
    if (absent(json)) return GYRE_OK;
    const json_t *bits = json_object_get(json, "num_bits"), *strategy = json_object_get(json, "strategy"),
                 *group = json_object_get(json, "group_size");
    if (!is_one_of(json_object_get(json, "type"), types, 1))
        return refuse_json(r, "the type of input_activations", json_object_get(json, "type"), "int");
    if (!json_is_true(json_object_get(json, "dynamic")))
        return refuse_json(r, "dynamic of input_activations", json_object_get(json, "dynamic"), "true");
    if (absent(strategy) || !is_one_of(strategy, strategies, GYRE_COUNT(strategies)))
        return refuse_json(r, "the strategy of input_activations", strategy, "token, and group at 4 bits");
    GYRE_TRY(read_bits(r, bits, &r->made_for->act_bits));
    if (is_one_of(strategy, strategies, 1)) return GYRE_OK;
    if (r->made_for->act_bits != 4)
        return refuse_json(r, "the strategy of 8-bit input_activations", strategy, "token, and group at 4 bits");
    GYRE_TRY(read_group(r, group, &r->made_for->act_group));
    return r->made_for->act_group ? GYRE_OK : refuse_json(r, "group_size of input_activations", group, "16 to 128");
}

static gyre_status read_weights(const struct reading *r, const json_t *json, struct gyre_scheme *out)
{
    static const char *const strategies[] = {"group", "channel", "tensor"}, *const types[] = {"int"};
    const json_t *strategy = json_object_get(json, "strategy"), *group = json_object_get(json, "group_size");
    if (!json_is_object(json)) return refuse_json(r, "weights of a group", json, "a scheme");
    if (!is_one_of(json_object_get(json, "type"), types, 1))
        return refuse_json(r, "the type of weights", json_object_get(json, "type"), "int");
    if (!is_one_of(strategy, strategies, GYRE_COUNT(strategies)))
        return refuse_json(r, "the strategy of weights", strategy, "group, channel and tensor");
    const json_t *dynamic = json_object_get(json, "dynamic");
    if (!absent(dynamic) && !json_is_false(dynamic)) return refuse_json(r, "dynamic of weights", dynamic, "false");
    *out = (struct gyre_scheme){.symmetric = true};
    GYRE_TRY(read_bits(r, json_object_get(json, "num_bits"), &out->bits));
    GYRE_TRY(read_flag(r, json, "symmetric", &out->symmetric));
    const char *name = json_string_value(strategy);
    if (name && strcasecmp(name, "group")) return GYRE_OK;
    return read_group(r, group, &out->group);
}

// A cache that is quantized anew for each token.
static gyre_status read_cache(const struct reading *r, const json_t *json)
{
    static const char *const types[] = {"int"};
    if (empty(json)) return GYRE_OK;
    if (!is_one_of(json_object_get(json, "type"), types, 1) || !json_is_true(json_object_get(json, "dynamic")))
        return refuse_json(r, "kv_cache_scheme", json, "caches of integers that are quantized as they come");
    return read_bits(r, json_object_get(json, "num_bits"), &r->made_for->kv_bits);
}

// ---- transforms: the rotations that a checkpoint wants run online. What is merged into its weights needs nothing.

static bool names_down(const json_t *targets)
{
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const char *text = json_string_value(json_array_get(targets, i));
        if (!text || !strstr(text, "down_proj")) return false;
    }
    return json_array_size(targets) > 0;
}

// One place of the transform `name`; n is its segment.
static gyre_status read_apply(const struct reading *r, const char *name, const json_t *type, const json_t *apply,
                              uint32_t n)
{
    static const char *const merged[] = {"weight_input", "weight_output"},
                             *const online[] = {"input", "q_attn", "k_cache"}, *const hadamard[] = {"hadamard"};
    const json_t *where = json_object_get(apply, "location");
    char ending[96];
    if (absent(where)) return refuse_json(r, "the place of a transform", where, "places by name");
    if (is_one_of(where, merged, GYRE_COUNT(merged))) return GYRE_OK;
    if (!is_one_of(where, online, GYRE_COUNT(online)))
        return refuse_json(r, "the place of a transform", where, "input of down_proj, q_attn and k_cache");
    if (!is_one_of(type, hadamard, 1)) return refuse_json(r, "the type of a transform that is run", type, "hadamard");
    const char *place = json_string_value(where);
    if (!strcasecmp(place, "input")) {
        if (!names_down(json_object_get(apply, "targets")))
            return refuse_json(r, "the target of an input transform", json_object_get(apply, "targets"), "down_proj");
        r->made_for->r4 = n;
    } else {
        r->made_for->r3 = n;
    }
    if (r->source->n_hf_ignored == GYRE_COUNT(r->source->hf_ignored)) return GYRE_OK; // then a tensor has no place
    snprintf(ending, sizeof ending, ".%.40s_%s.weight", name, place); // its matrix, if stored: Sylvester's
    r->source->hf_ignored[r->source->n_hf_ignored] = gyre_arena_strdup(&r->source->arena, ending);
    if (!r->source->hf_ignored[r->source->n_hf_ignored++])
        return gyre_fail(r->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", r->source->path);
    return GYRE_OK;
}

static gyre_status read_transforms(const struct reading *r, const json_t *json)
{
    static const char *const types[] = {"hadamard", "random-hadamard", "random-matrix"};
    const char *name;
    json_t *group;
    if (empty(json)) return GYRE_OK;
    const json_t *groups = json_object_get(json, "config_groups");
    if (!json_is_object(groups)) return refuse_json(r, "transform_config", json, "config_groups in it");
    json_object_foreach((json_t *)(uintptr_t)groups, name, group)
    {
        const json_t *type = json_object_get(group, "type"), *apply = json_object_get(group, "apply"),
                     *size = json_object_get(group, "head_dim");
        const json_int_t n = absent(size) ? (json_int_t)GYRE_HF_WHOLE : json_integer_value(size);
        if (absent(type) || !is_one_of(type, types, GYRE_COUNT(types)))
            return refuse_json(r, "the type of a transform", type, "hadamard");
        if (n < 1) return refuse_json(r, "head_dim of a transform", size, "whole numbers above 0");
        for (size_t i = 0; i < json_array_size(apply); i++)
            GYRE_TRY(
                read_apply(r, name, type, json_array_get(apply, i), (uint32_t)GYRE_MIN(n, (json_int_t)GYRE_HF_WHOLE)));
    }
    return GYRE_OK;
}

static gyre_status read_compressed(const struct reading *r, const json_t *json)
{
    static const char *const dense = "dense";
    const json_t *format = json_object_get(json, "format"), *sparsity = json_object_get(json, "sparsity_config");
    const json_t *groups = json_object_get(json, "config_groups"), *of_sparsity = json_object_get(sparsity, "format");
    const char *name;
    json_t *group;
    r->out->method = GYRE_METHOD_COMPRESSED_TENSORS;
    if (!is_one_of(format, ct_formats, GYRE_COUNT(ct_formats)))
        return refuse_json(r, "format", format, "pack-quantized and int-quantized");
    if (!empty(sparsity) && (absent(of_sparsity) || !is_one_of(of_sparsity, &dense, 1)))
        return refuse_json(r, "the format of sparsity_config", of_sparsity, "dense");
    GYRE_TRY(read_cache(r, json_object_get(json, "kv_cache_scheme")));
    GYRE_TRY(read_transforms(r, json_object_get(json, "transform_config")));
    if (!json_is_object(groups) || json_object_size(groups) == 0 || json_object_size(groups) > GYRE_MAX_SCHEMES)
        return refuse_json(r, "config_groups", groups, "1 to 16 groups");
    json_object_foreach((json_t *)(uintptr_t)groups, name, group)
    {
        format = json_object_get(group, "format");
        if (!is_one_of(format, ct_formats, GYRE_COUNT(ct_formats)))
            return refuse_json(r, "the format of a group", format, "pack-quantized and int-quantized");
        if (!empty(json_object_get(group, "output_activations")))
            return refuse(r, "output_activations", "set", "quantized inputs only");
        GYRE_TRY(read_activations(r, json_object_get(group, "input_activations")));
        GYRE_TRY(read_weights(r, json_object_get(group, "weights"), &r->out->scheme[r->out->n_schemes]));
        r->out->n_schemes++;
    }
    return GYRE_OK;
}

// ---- AutoAWQ and GPTQ -----------------------------------------------------------------------------------------

static gyre_status read_awq(const struct reading *r, const json_t *json)
{
    static const char *const versions[] = {"gemm"};
    struct gyre_scheme *s = &r->out->scheme[0];
    const json_t *bits = json_object_get(json, "bits"), *group = json_object_get(json, "group_size");
    if (absent(bits)) bits = json_object_get(json, "w_bit"); // its own file's words
    if (absent(group)) group = json_object_get(json, "q_group_size");
    r->out->method = GYRE_METHOD_AWQ;
    r->out->n_schemes = 1;
    if (!is_one_of(json_object_get(json, "version"), versions, GYRE_COUNT(versions)))
        return refuse_json(r, "version", json_object_get(json, "version"), "gemm");
    GYRE_TRY(read_bits(r, bits, &s->bits));
    if (s->bits != 4) return refuse_json(r, "bits", bits, "4");
    return read_group(r, group, &s->group);
}

static gyre_status read_gptq(const struct reading *r, const json_t *json)
{
    static const char *const formats[] = {"gptq", "gptq_v2", "gptq_p"}, *const words[] = {"int32"};
    struct gyre_scheme *s = &r->out->scheme[0];
    const json_t *format = json_object_get(json, "checkpoint_format");
    bool marlin = false;
    r->out->method = GYRE_METHOD_GPTQ;
    r->out->n_schemes = 1;
    if (absent(format)) format = json_object_get(json, "format"); // GPTQModel's other name
    if (!is_one_of(format, formats, GYRE_COUNT(formats)))
        return refuse_json(r, "checkpoint_format", format, "gptq, gptq_v2 and gptq_p");
    GYRE_TRY(read_flag(r, json, "is_marlin_format", &marlin));
    if (marlin) return refuse(r, "is_marlin_format", "true", "false");
    if (!is_one_of(json_object_get(json, "pack_dtype"), words, GYRE_COUNT(words)))
        return refuse_json(r, "pack_dtype", json_object_get(json, "pack_dtype"), "int32");
    if (!empty(json_object_get(json, "rotation")))
        return refuse_json(r, "rotation", json_object_get(json, "rotation"), "checkpoints without one");
    r->out->zeros_less_one = absent(format) || !strcasecmp(json_string_value(format), "gptq");
    r->out->exceptions = !empty(json_object_get(json, "dynamic"));
    GYRE_TRY(read_bits(r, json_object_get(json, "bits"), &s->bits));
    return read_group(r, json_object_get(json, "group_size"), &s->group);
}

static gyre_status put_transform(gyre_source *source, const char *name, uint32_t n, gyre_error *err)
{
    char key[48];
    struct {
        uint32_t element, count[2], n, k[3], p; // an array as GGUF encodes it
    } factors = {GYRE_META_U32, {5, 0}, n, {1, 1, 1}, 0};
    snprintf(key, sizeof key, "gyre.%s", name);
    GYRE_TRY(gyre_source_put_meta(source, key, GYRE_META_BOOL, &(unsigned char){n != 0}, 1, err));
    if (!n) return GYRE_OK;
    while (n >> factors.p > 1) factors.p++;
    void *raw = gyre_arena_alloc(&source->arena, sizeof factors);
    if (!raw) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    memcpy(raw, &factors, sizeof factors);
    snprintf(key, sizeof key, "gyre.%s.factors", name);
    const struct gyre_meta meta = {
        .type = GYRE_META_ARRAY, .element = GYRE_META_U32, .count = 5, .raw = raw, .raw_bytes = sizeof factors};
    return gyre_source_add_meta(source, &meta, (struct gyre_string){key, strlen(key)}, err);
}

gyre_status gyre_hf_online(gyre_source *source, uint32_t r3, uint32_t r4, gyre_error *err)
{
    GYRE_TRY(put_transform(source, "r3", r3, err));
    GYRE_TRY(put_transform(source, "r4", r4, err));
    return gyre_source_put_meta(source, "gyre.head_rotation", GYRE_META_BOOL, &(unsigned char){0}, 1, err);
}

gyre_status gyre_hf_quantization(gyre_source *source, const json_t *json, struct gyre_hf_made_for *made_for,
                                 gyre_error *err)
{
    static const struct {
        const char *name;
        gyre_status (*read)(const struct reading *, const json_t *);
    } methods[] = {{"compressed-tensors", read_compressed}, {"awq", read_awq}, {"gptq", read_gptq}};
    struct reading r = {source, gyre_arena_alloc(&source->arena, sizeof *r.out), made_for, err};
    if (!r.out) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    const json_t *method = json_object_get(json, "quant_method");
    for (size_t i = 0; i < GYRE_COUNT(methods); i++) {
        if (!json_is_string(method) || strcasecmp(json_string_value(method), methods[i].name)) continue;
        GYRE_TRY(methods[i].read(&r, json));
        source->quantization = r.out;
        return GYRE_OK;
    }
    return refuse_json(&r, "quant_method", method, "compressed-tensors, awq and gptq");
}
