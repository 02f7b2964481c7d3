// config.json as GGUF's metadata keys, under its model_type. Whether there is an architecture for that, and whether its
// tensors fit, is found out in runtime/model; what would compute something else without showing in the tensors (other
// activations, other scalings, quantized checkpoints) is refused here by name. Both spellings of the RoPE fields
// (transformers 4 and 5) are read.
#include "runtime/source/hf_attention.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Switches that this reader does not understand any other way.
static gyre_status check_features(struct config *c)
{
    static const struct {
        const char *field, *supported;
    } off[] = {
        {"attn_logit_softcapping", "models without it"},
        {"final_logit_softcapping", "models without it"},
        {"use_bidirectional_attention", "attention to what came before"},
        {"use_post_norm", "models without it"},
        {"add_cross_attention", "models without it"},
    };
    for (size_t i = 0; i < GYRE_COUNT(off); i++) {
        const json_t *value = gyre_hf_get(c->json, off[i].field);
        if (value && !json_is_false(value) && !(json_is_number(value) && json_number_value(value) == 0))
            return gyre_hf_refuse(c, off[i].field, "set", off[i].supported);
    }
    bool causal = true;
    GYRE_TRY(gyre_hf_bool(c->source, c->json, "is_causal", &causal, c->err));
    if (!causal) return gyre_hf_refuse(c, "is_causal", "false", "attention to what came before");
    static const char *const biases[] = {"attention_bias", "mlp_bias"}; // on all linears of a kind
    for (size_t i = 0; i < GYRE_COUNT(biases); i++) {
        bool on = false;
        GYRE_TRY(gyre_hf_bool(c->source, c->json, biases[i], &on, c->err));
        if (on) GYRE_TRY(gyre_hf_put(c, biases[i], GYRE_META_BOOL, &(uint8_t){1}, 1));
    }
    // What is not said is what the architecture has.
    const char *act = NULL;
    if (strcmp(c->type, "gemma3_text")) GYRE_TRY(gyre_hf_text(c, "hidden_act", &act)); // which has no such field
    GYRE_TRY(gyre_hf_text(c, "hidden_activation", &act));
    if (act && !strcmp(act, "swish")) act = "silu"; // its other name
    return act ? gyre_hf_put_text(c, gyre_hf_key(c, "hidden_act").text, act) : GYRE_OK;
}

// Multipliers, each in the words of its family: another family's are carried along by a config, and mean nothing there.
static gyre_status put_multipliers(struct config *c)
{
    static const struct {
        const char *field, *name;
    } granite[] = {
        {"embedding_multiplier", "embedding_scale"},
        {"residual_multiplier", "residual_scale"},
        {"logits_scaling", "logit_scale"},
    };
    double depth = 0, base = 0, layers = 1, width = 0, scale = 0, scalar = 0;
    if (!strncmp(c->type, "granite", 7)) {
        for (size_t i = 0; i < GYRE_COUNT(granite); i++)
            GYRE_TRY(gyre_hf_put_real(c, c->json, granite[i].field, granite[i].name, NULL));
        scale = 1; // what transformers takes where the field is missing
        GYRE_TRY(gyre_hf_real(c, c->json, "attention_multiplier", &scale));
    }
    if (!strcmp(c->type, "minicpm")) {
        GYRE_TRY(gyre_hf_put_real(c, c->json, "scale_emb", "embedding_scale", NULL));
        GYRE_TRY(gyre_hf_real(c, c->json, "scale_depth", &depth));
        GYRE_TRY(gyre_hf_real(c, c->json, "dim_model_base", &base));
        GYRE_TRY(gyre_hf_real(c, c->json, "num_hidden_layers", &layers));
        GYRE_TRY(gyre_hf_real(c, c->json, "hidden_size", &width));
        if (depth > 0 && layers > 0) GYRE_TRY(gyre_hf_put_f32(c, "residual_scale", depth / sqrt(layers)));
        if (base > 0) GYRE_TRY(gyre_hf_put_f32(c, "logit_scale", width / base));
    }
    if (!strcmp(c->type, "gemma3_text")) {
        scalar = 256;
        GYRE_TRY(gyre_hf_real(c, c->json, "query_pre_attn_scalar", &scalar));
        if (scalar > 0) scale = 1 / sqrt(scalar);
    }
    return scale > 0 ? gyre_hf_put_f32(c, "attention.scale", scale) : GYRE_OK;
}

// What transformers takes for a field that is left out, not null. 0: it is missing, or found from the others.
static gyre_status put_defaults(struct config *c)
{
    static const struct {
        const char *type;
        double eps;
        uint32_t context, vocab, heads, kv_heads, head;
    } of[] = {
        {"llama", 1e-6, 2048, 0, 0, 0, 0},       {"mistral", 1e-6, 131072, 0, 0, 8, 0},
        {"ministral", 1e-6, 131072, 0, 0, 8, 0}, {"ministral3", 1e-5, 262144, 0, 0, 8, 128},
        {"qwen2", 1e-6, 32768, 0, 0, 0, 0},      {"qwen3", 1e-6, 32768, 0, 0, 0, 128},
        {"phi3", 1e-5, 4096, 0, 0, 0, 0},        {"smollm3", 1e-6, 32768, 0, 0, 4, 0},
        {"granite", 1e-6, 2048, 0, 0, 0, 0},     {"granitemoehybrid", 1e-6, 2048, 0, 0, 0, 0},
        {"minicpm", 1e-6, 2048, 0, 0, 0, 0},     {"gemma3_text", 1e-6, 131072, 262208, 8, 4, 256},
    };
    size_t i = 0;
    while (i < GYRE_COUNT(of) && strcmp(of[i].type, c->type)) i++;
    if (i == GYRE_COUNT(of)) return GYRE_OK;
    const struct {
        const char *field, *name;
        uint32_t value;
    } counts[] = {
        {"max_position_embeddings", "context_length", of[i].context},
        {"vocab_size", "vocab_size", of[i].vocab},
        {"num_attention_heads", "attention.head_count", of[i].heads},
        {"num_key_value_heads", "attention.head_count_kv", of[i].kv_heads},
        {"head_dim", "attention.key_length", of[i].head},
        {"head_dim", "attention.value_length", of[i].head},
    };
    for (size_t k = 0; k < GYRE_COUNT(counts); k++)
        if (counts[k].value && !json_object_get(c->json, counts[k].field))
            GYRE_TRY(gyre_hf_put_u32(c, counts[k].name, counts[k].value));
    return gyre_hf_get(c->json, "rms_norm_eps") ? GYRE_OK
                                                : gyre_hf_put_f32(c, "attention.layer_norm_rms_epsilon", of[i].eps);
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

// The first files of AutoGPTQ and AutoAWQ have what they did in a file of its own, and not whose it is. NULL: none.
static gyre_status read_beside(const struct config *c, json_t **out)
{
    static const char *const files[][2] = {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};
    *out = NULL;
    for (size_t i = 0; i < GYRE_COUNT(files) && !*out; i++) {
        char path[4096];
        uint64_t bytes;
        const char *text = gyre_source_file(c->source, files[i][0], &bytes);
        if (!text) continue;
        snprintf(path, sizeof path, "%s/%s", c->source->path, files[i][0]);
        GYRE_TRY(gyre_json_parse(path, text, bytes, out, c->err));
        if (json_is_object(*out) && !gyre_hf_get(*out, "quant_method"))
            json_object_set_new(*out, "quant_method", json_string(files[i][1]));
    }
    return GYRE_OK;
}

// Old checkpoints have the same object under another name, or in another file.
static gyre_status put_quantization(struct config *c, const json_t *whole)
{
    struct gyre_hf_made_for made_for = {16, 16, 0, 0, 0};
    const json_t *quantized = gyre_hf_get(whole, "quantization_config");
    json_t *beside = NULL;
    if (!quantized) quantized = gyre_hf_get(whole, "compression_config");
    if (!quantized) quantized = gyre_hf_get(c->json, "quantization_config");
    if (!quantized) GYRE_TRY(read_beside(c, &beside));
    if (!quantized && !beside) return GYRE_OK;
    const gyre_status st = gyre_hf_quantization(c->source, quantized ? quantized : beside, &made_for, c->err);
    json_decref(beside);
    GYRE_TRY(st);
    const uint32_t bits[2] = {made_for.act_bits, made_for.kv_bits};
    for (int i = 0; i < 2; i++)
        if (bits[i] < 16)
            GYRE_TRY(gyre_source_put_meta(c->source, i ? "gyre.kv_bits" : "gyre.act_bits", GYRE_META_U32, &bits[i], 4,
                                          c->err));
    if (made_for.act_group)
        GYRE_TRY(gyre_source_put_meta(c->source, "gyre.act_group", GYRE_META_U32, &made_for.act_group, 4, c->err));
    return put_online(c, &made_for);
}

gyre_status gyre_hf_config(gyre_source *source, const json_t *json, gyre_error *err)
{
    static const struct {
        const char *field, *name;
    } counts[] = {
        {"num_hidden_layers", "block_count"},
        {"hidden_size", "embedding_length"},
        {"num_attention_heads", "attention.head_count"},
        {"num_key_value_heads", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"head_dim", "attention.value_length"},
        {"vocab_size", "vocab_size"},
        {"max_position_embeddings", "context_length"},
        {"num_local_experts", "expert_count"},
        {"num_experts", "expert_count"},
    };
    const json_t *text = gyre_hf_get(json, "text_config");
    struct config at = {source, text ? text : json, NULL, err}, *const c = &at;
    GYRE_TRY(gyre_hf_text(c, "model_type", &c->type));
    if (!c->type)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s/config.json): model_type is missing", source->path);
    GYRE_TRY(gyre_hf_put_text(c, "general.architecture", c->type));
    GYRE_TRY(check_features(c));
    for (size_t i = 0; i < GYRE_COUNT(counts); i++)
        GYRE_TRY(gyre_hf_put_count(c, c->json, counts[i].field, counts[i].name));
    const bool shared = !strcmp(c->type, "granitemoehybrid"); // its experts have the other width
    GYRE_TRY(gyre_hf_put_count(c, c->json, shared ? "shared_intermediate_size" : "intermediate_size",
                               "feed_forward_length"));
    GYRE_TRY(gyre_hf_put_real(c, c->json, "rms_norm_eps", "attention.layer_norm_rms_epsilon", NULL));
    GYRE_TRY(put_defaults(c));
    GYRE_TRY(put_multipliers(c));
    GYRE_TRY(put_quantization(c, json));
    return gyre_hf_attention(c);
}
