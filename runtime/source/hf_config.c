// config.json as GGUF's metadata keys, under its model_type. Whether there is an architecture for that, and whether
// its tensors fit, is found out in runtime/model; what would compute something else without showing in the tensors
// (other activations, other scalings, quantized checkpoints) is refused here by name. Both spellings of the RoPE
// fields (transformers 4 and 5) are read.
#include "runtime/source/hf.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct config {
    gyre_source *source;
    const json_t *json;
    const char *type; // model_type
    gyre_error *err;
};

// "TYPE.NAME"; the source copies keys.
struct key {
    char text[96];
};
static struct key key_of(const struct config *c, const char *name)
{
    struct key key;
    snprintf(key.text, sizeof key.text, "%s.%s", c->type, name);
    return key;
}

static gyre_status put(struct config *c, const char *key, gyre_meta_type type, const void *value, uint64_t bytes)
{
    return gyre_source_put_meta(c->source, key, type, value, bytes, c->err);
}

static gyre_status put_string(struct config *c, const char *key, const char *text)
{
    const uint64_t length = strlen(text);
    char *raw = gyre_arena_alloc(&c->source->arena, 8 + length);
    if (!raw) return gyre_fail(c->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", c->source->path);
    memcpy(raw, &length, 8);
    memcpy(raw + 8, text, length);
    const struct gyre_meta meta = {.type = GYRE_META_STRING, .count = 1, .raw = raw, .raw_bytes = 8 + length};
    return gyre_source_add_meta(c->source, &meta, (struct gyre_string){key, strlen(key)}, c->err);
}

// A whole number of an object in config.json; absent or null: nothing is put (hparams_read.c says what is missing).
static gyre_status put_count(struct config *c, const json_t *object, const char *field, const char *key)
{
    const json_t *value = json_object_get(object, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    const double real = json_number_value(value); // some writers put 64.0
    if (!json_is_number(value) || !(real >= 0 && real <= UINT32_MAX) || real != (double)(uint32_t)real)
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no whole number below 2^32",
                         c->source->path, field);
    const uint32_t v = (uint32_t)real;
    return put(c, key_of(c, key).text, GYRE_META_U32, &v, 4);
}

static gyre_status put_real(struct config *c, const json_t *object, const char *field, const char *key, bool *found)
{
    const json_t *value = json_object_get(object, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    if (!json_is_number(value))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no number", c->source->path,
                         field);
    const float v = (float)json_number_value(value);
    if (found) *found = true;
    return put(c, key_of(c, key).text, GYRE_META_F32, &v, 4);
}

gyre_status gyre_hf_bool(const gyre_source *source, const json_t *json, const char *field, bool *out, gyre_error *err)
{
    const json_t *value = json_object_get(json, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    if (!json_is_boolean(value))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is neither true nor false",
                         source->path, field);
    *out = json_is_true(value);
    return GYRE_OK;
}

static gyre_status refuse(struct config *c, const char *field, const char *value, const char *supported)
{
    return gyre_fail(c->err, GYRE_E_UNSUPPORTED, "cannot use model (%s/config.json): %s is %s; gyre supports %s",
                     c->source->path, field, gyre_show(value, strlen(value)).text, supported);
}

// A text; absent or null: *out stays as it was.
static gyre_status read_text(struct config *c, const char *field, const char **out)
{
    const json_t *value = json_object_get(c->json, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    if (!json_is_string(value))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no text", c->source->path,
                         field);
    *out = json_string_value(value);
    return GYRE_OK;
}

static gyre_status check_features(struct config *c)
{
    static const char *const biases[] = {"attention_bias", "mlp_bias"}; // on all linears of a kind
    const char *type = NULL, *act = "silu";
    const json_t *partial = json_object_get(c->json, "partial_rotary_factor");
    GYRE_TRY(read_text(c, "model_type", &type));
    GYRE_TRY(read_text(c, "hidden_act", &act));
    if (!type)
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): model_type is missing",
                         c->source->path);
    c->type = type;
    if (strcmp(act, "silu")) GYRE_TRY(put_string(c, key_of(c, "hidden_act").text, act)); // an architecture may know it
    for (size_t i = 0; i < GYRE_COUNT(biases); i++) {
        bool on = false;
        GYRE_TRY(gyre_hf_bool(c->source, c->json, biases[i], &on, c->err));
        if (on) return refuse(c, biases[i], "true", "false");
    }
    if (partial && !json_is_null(partial) && (!json_is_number(partial) || json_number_value(partial) != 1))
        return refuse(c, "partial_rotary_factor", "not 1", "1");
    return GYRE_OK;
}

// transformers gives the whole factor of q and k, GGUF what goes beside YaRN's own 0.1 ln(factor) + 1.
static gyre_status put_attention_factor(struct config *c, const json_t *rope, const char *type)
{
    const json_t *value = json_object_get(rope, "attention_factor");
    if (!value || json_is_null(value)) return GYRE_OK;
    const double whole = json_number_value(value), factor = json_number_value(json_object_get(rope, "factor"));
    if (!json_is_number(value) || (strcmp(type, "yarn") && whole != 1))
        return refuse(c, "attention_factor", "not 1", "1, or another with yarn");
    const float beside = (float)(whole / (factor > 1 ? 0.1 * log(factor) + 1 : 1));
    return strcmp(type, "yarn") ? GYRE_OK
                                : put(c, key_of(c, "rope.scaling.attn_factor").text, GYRE_META_F32, &beside, 4);
}

static gyre_status put_rope(struct config *c)
{
    // transformers 5 writes rope_parameters with the base inside, 4 writes rope_scaling beside rope_theta.
    const json_t *rope = json_object_get(c->json, "rope_parameters"), *old = json_object_get(c->json, "rope_scaling");
    const bool both = rope && !json_is_null(rope) && old && !json_is_null(old);
    bool base = false;
    if (both && !json_equal(rope, old)) return refuse(c, "rope_scaling", "not what rope_parameters is", "one of them");
    if (!rope || json_is_null(rope)) rope = old;
    if (rope && !json_is_null(rope) && !json_is_object(rope))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): the rope parameters are no object",
                         c->source->path);
    GYRE_TRY(put_real(c, rope, "rope_theta", "rope.freq_base", &base));
    if (!base) GYRE_TRY(put_real(c, c->json, "rope_theta", "rope.freq_base", &base));
    static const char *const neutral[] = {"mscale", "mscale_all_dim", "truncate", "partial_rotary_factor"};
    for (size_t i = 0; i < GYRE_COUNT(neutral); i++) {
        const json_t *value = json_object_get(rope, neutral[i]);
        if (value && !json_is_null(value) && !json_is_true(value) && json_number_value(value) != 1)
            return refuse(c, neutral[i], "not 1", "1");
    }
    const json_t *type = json_object_get(rope, "rope_type"), *alone = json_object_get(rope, "factor");
    if (!type) type = json_object_get(rope, "type");
    if (!type || json_is_null(type))
        return alone && !json_is_null(alone) ? refuse(c, "rope_scaling", "a factor without a type", "a type beside it")
                                             : GYRE_OK;
    if (!json_is_string(type))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): the rope type is no string",
                         c->source->path);
    const char *name = json_string_value(type);
    if (!strcmp(name, "default")) return GYRE_OK;
    if (strcmp(name, "linear") && strcmp(name, "llama3") && strcmp(name, "yarn"))
        return refuse(c, "rope type", name, "default, linear, llama3 and yarn");
    bool factor = false;
    GYRE_TRY(put_string(c, key_of(c, "rope.scaling.type").text, name));
    GYRE_TRY(put_real(c, rope, "factor", "rope.scaling.factor", &factor));
    if (!factor)
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): rope_scaling.factor is missing",
                         c->source->path);
    GYRE_TRY(put_real(c, rope, "low_freq_factor", "rope.scaling.low_freq_factor", NULL));
    GYRE_TRY(put_real(c, rope, "high_freq_factor", "rope.scaling.high_freq_factor", NULL));
    GYRE_TRY(put_real(c, rope, "beta_fast", "rope.scaling.yarn_beta_fast", NULL));
    GYRE_TRY(put_real(c, rope, "beta_slow", "rope.scaling.yarn_beta_slow", NULL));
    GYRE_TRY(put_attention_factor(c, rope, name));
    return put_count(c, rope, "original_max_position_embeddings", "rope.scaling.original_context_length");
}

static uint32_t whole_number(const struct config *c, const char *field)
{
    const double v = json_number_value(json_object_get(c->json, field));
    return v >= 1 && v <= 1 << 24 ? (uint32_t)v : 0;
}

// Segments of online transforms; of the whole width where none is said. Sylvester's matrices are powers of two.
static gyre_status put_online(struct config *c, const struct gyre_hf_made_for *made_for)
{
    const uint32_t heads = whole_number(c, "num_attention_heads"), head = whole_number(c, "head_dim"),
                   width[2] = {head || !heads ? head : whole_number(c, "hidden_size") / heads,
                               whole_number(c, "intermediate_size")};
    uint32_t n[2] = {made_for->r3, made_for->r4};
    for (int i = 0; i < 2; i++) {
        if (n[i] == GYRE_HF_WHOLE) n[i] = width[i];
        if (n[i] & (n[i] - 1) || n[i] > 1 << 24)
            return gyre_fail(c->err, GYRE_E_UNSUPPORTED,
                             "cannot use model (%s/config.json): a hadamard transform of %u; gyre knows powers of two",
                             c->source->path, n[i]);
    }
    return n[0] || n[1] ? gyre_hf_online(c->source, n[0], n[1], c->err) : GYRE_OK;
}

// Old checkpoints have the same object under another name.
static gyre_status put_quantization(struct config *c)
{
    struct gyre_hf_made_for made_for = {16, 16, 0, 0};
    const json_t *quantized = json_object_get(c->json, "quantization_config");
    if (!quantized || json_is_null(quantized)) quantized = json_object_get(c->json, "compression_config");
    if (!quantized || json_is_null(quantized)) return GYRE_OK;
    GYRE_TRY(gyre_hf_quantization(c->source, quantized, &made_for, c->err));
    if (made_for.act_bits < 16) GYRE_TRY(put(c, "gyre.act_bits", GYRE_META_U32, &made_for.act_bits, 4));
    if (made_for.kv_bits < 16) GYRE_TRY(put(c, "gyre.kv_bits", GYRE_META_U32, &made_for.kv_bits, 4));
    return put_online(c, &made_for);
}

gyre_status gyre_hf_config(gyre_source *source, const json_t *json, gyre_error *err)
{
    static const struct {
        const char *field, *key;
    } counts[] = {
        {"num_hidden_layers", "block_count"},
        {"hidden_size", "embedding_length"},
        {"intermediate_size", "feed_forward_length"},
        {"num_attention_heads", "attention.head_count"},
        {"num_key_value_heads", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"head_dim", "attention.value_length"},
        {"head_dim", "rope.dimension_count"},
        {"vocab_size", "vocab_size"},
        {"max_position_embeddings", "context_length"},
    };
    struct config at = {source, json, NULL, err}, *const c = &at;
    GYRE_TRY(check_features(c));
    GYRE_TRY(put_string(c, "general.architecture", c->type));
    for (size_t i = 0; i < GYRE_COUNT(counts); i++) GYRE_TRY(put_count(c, json, counts[i].field, counts[i].key));
    GYRE_TRY(put_real(c, c->json, "rms_norm_eps", "attention.layer_norm_rms_epsilon", NULL));
    bool window = true;
    GYRE_TRY(gyre_hf_bool(source, json, "use_sliding_window", &window, err));
    if (window) GYRE_TRY(put_count(c, json, "sliding_window", "attention.sliding_window"));
    GYRE_TRY(put_quantization(c));
    return put_rope(c);
}
