// Reads a Hugging Face model directory: config.json becomes GGUF's metadata keys, safetensors tensors get GGUF's names.
// Only the plain Llama architecture; whatever would compute something else (biases, other activations, other scalings,
// quantized checkpoints) is refused by name. Both spellings of the RoPE fields (transformers 4 and 5) are read.
#include "runtime/source/source_impl.h"

#include "runtime/source/json_file.h"
#include "runtime/util/base.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JSON = 64 << 20, MAX_END_TOKENS = 16 };

struct hf {
    gyre_source *source;
    json_t *config, *generation, *index; // the last two may be NULL
    gyre_error *err;
};

// ---- metadata ---------------------------------------------------------------------------------------

static gyre_status put(struct hf *hf, const char *key, gyre_meta_type type, const void *value, uint64_t bytes)
{
    void *raw = gyre_arena_alloc(&hf->source->arena, bytes);
    if (!raw) return gyre_fail(hf->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", hf->source->path);
    memcpy(raw, value, bytes);
    const struct gyre_meta meta = {.type = type, .count = 1, .raw = raw, .raw_bytes = bytes};
    return gyre_source_add_meta(hf->source, &meta, (struct gyre_string){key, strlen(key)}, hf->err);
}

static gyre_status put_string(struct hf *hf, const char *key, const char *text)
{
    const uint64_t length = strlen(text);
    char *raw = gyre_arena_alloc(&hf->source->arena, 8 + length);
    if (!raw) return gyre_fail(hf->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", hf->source->path);
    memcpy(raw, &length, 8);
    memcpy(raw + 8, text, length);
    const struct gyre_meta meta = {.type = GYRE_META_STRING, .count = 1, .raw = raw, .raw_bytes = 8 + length};
    return gyre_source_add_meta(hf->source, &meta, (struct gyre_string){key, strlen(key)}, hf->err);
}

// A whole number of config.json; absent or null: nothing is put (hparams.c says what is missing).
static gyre_status put_count(struct hf *hf, const char *field, const char *key)
{
    const json_t *value = json_object_get(hf->config, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number > UINT32_MAX)
        return gyre_fail(hf->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no whole number below 2^32",
                         hf->source->path, field);
    const uint32_t v = (uint32_t)number;
    return put(hf, key, GYRE_META_U32, &v, 4);
}

static gyre_status put_real(struct hf *hf, const json_t *object, const char *field, const char *key, bool *found)
{
    const json_t *value = json_object_get(object, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    if (!json_is_number(value))
        return gyre_fail(hf->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no number",
                         hf->source->path, field);
    const float v = (float)json_number_value(value);
    if (found) *found = true;
    return put(hf, key, GYRE_META_F32, &v, 4);
}

static gyre_status refuse(struct hf *hf, const char *field, const char *value, const char *supported)
{
    return gyre_fail(hf->err, GYRE_E_UNSUPPORTED, "cannot use model (%s/config.json): %s is %s; gyre supports %s",
                     hf->source->path, field, gyre_show(value, strlen(value)).text, supported);
}

static gyre_status check_features(struct hf *hf)
{
    const char *type = json_string_value(json_object_get(hf->config, "model_type"));
    const char *act = json_string_value(json_object_get(hf->config, "hidden_act"));
    const json_t *quantized = json_object_get(hf->config, "quantization_config");
    const json_t *partial = json_object_get(hf->config, "partial_rotary_factor");
    if (!type)
        return gyre_fail(hf->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): model_type is missing",
                         hf->source->path);
    if (strcmp(type, "llama")) return refuse(hf, "model_type", type, "llama");
    if (act && strcmp(act, "silu")) return refuse(hf, "hidden_act", act, "silu");
    if (json_is_true(json_object_get(hf->config, "attention_bias")))
        return refuse(hf, "attention_bias", "true", "false");
    if (json_is_true(json_object_get(hf->config, "mlp_bias"))) return refuse(hf, "mlp_bias", "true", "false");
    if (quantized && !json_is_null(quantized)) return refuse(hf, "quantization_config", "set", "checkpoints of floats");
    if (json_is_number(partial) && json_number_value(partial) != 1)
        return refuse(hf, "partial_rotary_factor", "not 1", "1");
    return GYRE_OK;
}

static gyre_status put_rope(struct hf *hf)
{
    // transformers 5 writes rope_parameters with the base inside, 4 writes rope_scaling beside rope_theta.
    const json_t *rope = json_object_get(hf->config, "rope_parameters");
    bool base = false;
    if (!rope || json_is_null(rope)) rope = json_object_get(hf->config, "rope_scaling");
    if (rope && !json_is_null(rope) && !json_is_object(rope))
        return gyre_fail(hf->err, GYRE_E_FORMAT,
                         "cannot read model (%s/config.json): the rope parameters are no object", hf->source->path);
    GYRE_TRY(put_real(hf, rope, "rope_theta", "llama.rope.freq_base", &base));
    if (!base) GYRE_TRY(put_real(hf, hf->config, "rope_theta", "llama.rope.freq_base", &base));
    const json_t *type = json_object_get(rope, "rope_type");
    if (!type) type = json_object_get(rope, "type");
    if (!type || json_is_null(type)) return GYRE_OK;
    if (!json_is_string(type))
        return gyre_fail(hf->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): the rope type is no string",
                         hf->source->path);
    const char *name = json_string_value(type);
    if (!strcmp(name, "default")) return GYRE_OK;
    if (strcmp(name, "linear") && strcmp(name, "llama3"))
        return refuse(hf, "rope type", name, "default, linear and llama3");
    GYRE_TRY(put_string(hf, "llama.rope.scaling.type", name));
    GYRE_TRY(put_real(hf, rope, "factor", "llama.rope.scaling.factor", NULL));
    GYRE_TRY(put_real(hf, rope, "low_freq_factor", "llama.rope.scaling.low_freq_factor", NULL));
    GYRE_TRY(put_real(hf, rope, "high_freq_factor", "llama.rope.scaling.high_freq_factor", NULL));
    return put_real(hf, rope, "original_max_position_embeddings", "llama.rope.scaling.original_context_length", NULL);
}

// Adds one id, or each id of a list, to ids[] unless it is there.
static void collect_ids(const json_t *value, uint32_t ids[MAX_END_TOKENS], uint32_t *n)
{
    const size_t count = json_is_array(value) ? json_array_size(value) : value ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        const json_int_t id = json_integer_value(item);
        bool known = !json_is_integer(item) || id < 0 || id > INT32_MAX || *n == MAX_END_TOKENS;
        for (uint32_t k = 0; k < *n && !known; k++) known = ids[k] == (uint32_t)id;
        if (!known) ids[(*n)++] = (uint32_t)id;
    }
}

// The tokens that end a text: the union of config.json and generation_config.json.
static gyre_status put_special_ids(struct hf *hf)
{
    struct {
        uint32_t element;
        uint32_t count_low, count_high;
        uint32_t ids[MAX_END_TOKENS];
    } ends = {.element = GYRE_META_U32};
    collect_ids(json_object_get(hf->config, "eos_token_id"), ends.ids, &ends.count_low);
    collect_ids(json_object_get(hf->generation, "eos_token_id"), ends.ids, &ends.count_low);
    if (ends.count_low == 0) return GYRE_OK;
    GYRE_TRY(put(hf, "tokenizer.ggml.eos_token_id", GYRE_META_U32, &ends.ids[0], 4));
    void *raw = gyre_arena_alloc(&hf->source->arena, sizeof ends);
    if (!raw) return gyre_fail(hf->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", hf->source->path);
    memcpy(raw, &ends, sizeof ends);
    static const char key[] = "tokenizer.ggml.end_token_ids";
    const struct gyre_meta meta = {.type = GYRE_META_ARRAY,
                                   .element = GYRE_META_U32,
                                   .count = ends.count_low,
                                   .raw = raw,
                                   .raw_bytes = 12 + 4ull * ends.count_low};
    return gyre_source_add_meta(hf->source, &meta, (struct gyre_string){key, sizeof key - 1}, hf->err);
}

static gyre_status put_metadata(struct hf *hf)
{
    static const struct {
        const char *field, *key;
    } counts[] = {
        {"num_hidden_layers", "llama.block_count"},
        {"hidden_size", "llama.embedding_length"},
        {"intermediate_size", "llama.feed_forward_length"},
        {"num_attention_heads", "llama.attention.head_count"},
        {"num_key_value_heads", "llama.attention.head_count_kv"},
        {"head_dim", "llama.attention.key_length"},
        {"head_dim", "llama.attention.value_length"},
        {"head_dim", "llama.rope.dimension_count"},
        {"vocab_size", "llama.vocab_size"},
        {"max_position_embeddings", "llama.context_length"},
    };
    GYRE_TRY(check_features(hf));
    GYRE_TRY(put_string(hf, "general.architecture", "llama"));
    for (size_t i = 0; i < GYRE_COUNT(counts); i++) GYRE_TRY(put_count(hf, counts[i].field, counts[i].key));
    GYRE_TRY(put_real(hf, hf->config, "rms_norm_eps", "llama.attention.layer_norm_rms_epsilon", NULL));
    GYRE_TRY(put_rope(hf));
    return put_special_ids(hf);
}

// ---- tensors ----------------------------------------------------------------------------------------

// "model.layers.7.self_attn.q_proj.weight" -> "blk.7.attn_q.weight"; false: no counterpart.
static bool translate(const char *name, char out[96])
{
    static const struct {
        const char *hf, *gguf;
    } whole[] = {
        {"model.embed_tokens.weight", "token_embd.weight"},
        {"model.norm.weight", "output_norm.weight"},
        {"lm_head.weight", "output.weight"},
    };
    static const struct {
        const char *hf, *gguf;
    } parts[] = {
        {"input_layernorm", "attn_norm"}, {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
        {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
        {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},           {"mlp.down_proj", "ffn_down"},
    };
    for (size_t i = 0; i < GYRE_COUNT(whole); i++)
        if (!strcmp(name, whole[i].hf)) return snprintf(out, 96, "%s", whole[i].gguf) > 0;
    unsigned layer;
    int length = 0;
    if (sscanf(name, "model.layers.%4u.%n", &layer, &length) != 1 || length == 0) return false;
    for (size_t i = 0; i < GYRE_COUNT(parts); i++) {
        const size_t n = strlen(parts[i].hf);
        if (!strncmp(name + length, parts[i].hf, n) && !strcmp(name + length + n, ".weight"))
            return snprintf(out, 96, "blk.%u.%s.weight", layer, parts[i].gguf) > 0;
    }
    return false;
}

// Tensors that carry nothing: a buffer that old checkpoints store, and the head of a tied model.
static bool is_ignored(const gyre_source *source, const char *name)
{
    const char *tail = ".rotary_emb.inv_freq";
    const size_t n = strlen(name), m = strlen(tail);
    return (n > m && !strcmp(name + n - m, tail)) || (source->hf_tied && !strcmp(name, "lm_head.weight"));
}

gyre_status gyre_hf_add_tensor(gyre_source *source, const struct gyre_tensor *tensor, const char *name, uint64_t bytes,
                               const char *path, gyre_error *err)
{
    char translated[96];
    if (is_ignored(source, name)) return GYRE_OK;
    const char *use = translate(name, translated) ? translated : name;
    GYRE_TRY(gyre_source_add_tensor(source, tensor, (struct gyre_string){use, strlen(use)}, err));
    const uint64_t due = source->tensors[source->n_tensors - 1].bytes;
    if (due == bytes) return GYRE_OK;
    return gyre_fail(
        err, GYRE_E_FORMAT,
        "cannot read model (%s): tensor \"%s\" has %llu bytes where its shape needs %llu; the file is damaged", path,
        gyre_show(name, strlen(name)).text, (unsigned long long)bytes, (unsigned long long)due);
}

static gyre_status join(struct hf *hf, const char *name, char out[PATH_MAX])
{
    if (snprintf(out, PATH_MAX, "%s/%s", hf->source->path, name) < PATH_MAX) return GYRE_OK;
    return gyre_fail(hf->err, GYRE_E_IO, "cannot read model (%s): the path is too long", hf->source->path);
}

// Reads and parses a JSON file of the directory; an optional one may be absent (*out stays NULL).
static gyre_status load_json(struct hf *hf, const char *name, bool optional, json_t **out)
{
    char path[PATH_MAX];
    char *text;
    uint64_t bytes;
    GYRE_TRY(join(hf, name, path));
    if (optional && !gyre_file_exists(path)) return GYRE_OK;
    GYRE_TRY(gyre_file_read(path, MAX_JSON, &text, &bytes, hf->err));
    gyre_status st = gyre_json_parse(path, text, bytes, out, hf->err);
    free(text);
    if (st == GYRE_OK && !json_is_object(*out))
        st = gyre_fail(hf->err, GYRE_E_FORMAT, "cannot read model (%s): it holds no JSON object", path);
    return st;
}

// Every shard that the index names, once each, in the order of first mention; then every tensor must be there.
static gyre_status read_shards(struct hf *hf)
{
    gyre_status st = GYRE_OK;
    struct gyre_strmap seen = {0};
    char path[PATH_MAX], translated[96];
    const char *tensor;
    json_t *shard;
    json_t *map = json_object_get(hf->index, "weight_map");
    if (!json_is_object(map))
        return gyre_fail(hf->err, GYRE_E_FORMAT, "cannot read model (%s): the safetensors index has no weight_map",
                         hf->source->path);
    json_object_foreach(map, tensor, shard)
    {
        const char *name = json_string_value(shard);
        bool added;
        if (!name || !*name || *name == '.' || strchr(name, '/')) {
            st = gyre_fail(hf->err, GYRE_E_FORMAT,
                           "cannot read model (%s): the safetensors index names an impossible file for \"%s\"",
                           hf->source->path, gyre_show(tensor, strlen(tensor)).text);
            goto done;
        }
        if (!gyre_strmap_add(&seen, name, (uint32_t)strlen(name), 0, &added)) {
            st = gyre_fail(hf->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", hf->source->path);
            goto done;
        }
        if (!added) continue;
        GYRE_GO(join(hf, name, path));
        GYRE_GO(gyre_safetensors_read(hf->source, path, hf->err));
    }
    json_object_foreach(map, tensor, shard)
    {
        const char *name = translate(tensor, translated) ? translated : tensor;
        if (is_ignored(hf->source, tensor) || gyre_source_tensor(hf->source, name)) continue;
        st = gyre_fail(hf->err, GYRE_E_FORMAT,
                       "cannot read model (%s): tensor \"%s\" of the safetensors index is in no shard",
                       hf->source->path, gyre_show(tensor, strlen(tensor)).text);
        goto done;
    }
done:
    gyre_strmap_free(&seen);
    return st;
}

static gyre_status read_tensors(struct hf *hf)
{
    char path[PATH_MAX];
    hf->source->hf_tied = json_is_true(json_object_get(hf->config, "tie_word_embeddings"));
    if (hf->index) GYRE_TRY(read_shards(hf));
    else {
        GYRE_TRY(join(hf, "model.safetensors", path));
        GYRE_TRY(gyre_safetensors_read(hf->source, path, hf->err));
    }
    if (json_is_false(json_object_get(hf->config, "tie_word_embeddings")) &&
        !gyre_source_tensor(hf->source, "output.weight"))
        return gyre_fail(
            hf->err, GYRE_E_FORMAT,
            "cannot use model (%s): tensor lm_head.weight is missing, and config.json says that it is not tied",
            hf->source->path);
    return GYRE_OK;
}

gyre_status gyre_hf_read(gyre_source *source, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct hf hf = {.source = source, .err = err};
    struct gyre_file_map map;
    char path[PATH_MAX];
    uint64_t vocab = 0;
    GYRE_GO(load_json(&hf, "config.json", false, &hf.config));
    GYRE_GO(load_json(&hf, "generation_config.json", true, &hf.generation));
    GYRE_GO(load_json(&hf, "model.safetensors.index.json", true, &hf.index));
    GYRE_GO(put_metadata(&hf));
    GYRE_GO(read_tensors(&hf));
    GYRE_GO(join(&hf, "tokenizer.json", path));
    if (!gyre_file_exists(path)) goto done;
    GYRE_GO(gyre_source_map(source, path, &map, err));
    gyre_source_u64(source, "llama.vocab_size", &vocab);
    const json_t *bos = json_object_get(hf.config, "bos_token_id");
    const bool has_bos = json_is_integer(bos) && json_integer_value(bos) >= 0 && json_integer_value(bos) <= INT32_MAX;
    GYRE_GO(gyre_hf_add_tokenizer(source, path, (const char *)map.data, map.size, vocab,
                                  has_bos ? (int32_t)json_integer_value(bos) : -1, err));
done:
    json_decref(hf.config);
    json_decref(hf.generation);
    json_decref(hf.index);
    return st;
}
