// Reads a checkpoint as Meta publishes it: params.json, consolidated.00.pth and a tokenizer.model. It is presented
// as the Hugging Face directory that it would be after conversion (config.json and tokenizer.json are made here,
// tensors take the names that roles.def knows), but for what a conversion changes: the rows of q and k stay in the
// order in which RoPE turns pairs side by side.
//
// quantization_args with spinquant (Llama 3.2 SPINQUANT_INT4_EO8): int4 codes in I8 tensors with scales per group of
// inputs, embedding and head I8 with a scale per row, R1 and R2 merged, and R4 to be run: a Hadamard transform of the
// whole feed-forward width, before w2. A reader that leaves it out prints garbage.
#include "runtime/source/hf.h"
#include "runtime/source/pth.h"

#include "runtime/util/base.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 64 << 20 };

// What stands in params.json.
struct params {
    const char *path;
    const json_t *json;
    gyre_error *err;
};

static gyre_status number(const struct params *p, const char *field, double otherwise, double *out)
{
    const json_t *value = json_object_get(p->json, field);
    *out = otherwise;
    if (!value || json_is_null(value)) {
        if (otherwise >= 0) return GYRE_OK;
        return gyre_fail(p->err, GYRE_E_FORMAT, "cannot read model (%s): %s is missing", p->path, field);
    }
    if (!json_is_number(value) || !(json_number_value(value) >= 0 && json_number_value(value) <= UINT32_MAX))
        return gyre_fail(p->err, GYRE_E_FORMAT, "cannot read model (%s): %s is no number from 0 to 2^32", p->path,
                         field);
    *out = json_number_value(value);
    return GYRE_OK;
}

// The feed-forward width, as Meta's code computes it: two thirds of 4 dim, times a factor, up to a multiple.
static gyre_status feed_forward(const struct params *p, double dim, uint64_t *out)
{
    double factor, multiple;
    GYRE_TRY(number(p, "ffn_dim_multiplier", 1, &factor));
    GYRE_TRY(number(p, "multiple_of", 256, &multiple));
    if (multiple < 1 || factor > 1024)
        return gyre_fail(p->err, GYRE_E_FORMAT, "cannot read model (%s): ffn_dim_multiplier or multiple_of is absurd",
                         p->path);
    const uint64_t least = (uint64_t)(factor * (double)(uint64_t)(2 * (4 * dim) / 3)), step = (uint64_t)multiple;
    *out = gyre_div_up(least, step) * step;
    return GYRE_OK;
}

static json_t *made_config(const struct params *p, uint32_t n_ranks, uint64_t *ffn, gyre_status *st)
{
    double dim = 0, layers = 0, heads = 0, kv_heads = 0, eps = 0, theta = 0, vocab = 0, context = 0;
    const struct {
        const char *field;
        double otherwise, *out;
    } fields[] = {{"dim", -1, &dim},           {"n_layers", -1, &layers}, {"n_heads", -1, &heads},
                  {"vocab_size", -1, &vocab},  {"norm_eps", 1e-5, &eps},  {"rope_theta", 10000, &theta},
                  {"max_seq_len", 0, &context}};
    for (size_t i = 0; i < GYRE_COUNT(fields) && *st == GYRE_OK; i++)
        *st = number(p, fields[i].field, fields[i].otherwise, fields[i].out);
    if (*st == GYRE_OK) *st = number(p, "n_kv_heads", heads, &kv_heads);
    if (*st == GYRE_OK) *st = feed_forward(p, dim, ffn);
    if (*st != GYRE_OK) return NULL;
    const bool scaled = json_is_true(json_object_get(p->json, "use_scaled_rope"));
    if (context < 1) context = scaled ? 131072 : 8192;
    json_t *out = json_pack(
        "{s:s, s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:I, s:[I,I,I]}", "model_type", "llama",
        "architectures", "LlamaForCausalLM", "hidden_act", "silu", "hidden_size", (json_int_t)dim, "num_hidden_layers",
        (json_int_t)layers, "num_attention_heads", (json_int_t)heads, "num_key_value_heads", (json_int_t)kv_heads,
        "intermediate_size", (json_int_t)*ffn, "vocab_size", (json_int_t)vocab, "max_position_embeddings",
        (json_int_t)context, "rms_norm_eps", eps, "rope_theta", theta, "tie_word_embeddings", 0, "bos_token_id",
        (json_int_t)n_ranks, "eos_token_id", (json_int_t)n_ranks + 1, (json_int_t)n_ranks + 8, (json_int_t)n_ranks + 9);
    // Meta's code has the factor as a constant, 8, the one of 3.1; its models of 3.2, which are narrower, were made
    // with 32 (as transformers converts them).
    double factor;
    *st = number(p, "rope_scaling_factor", dim < 4096 ? 32 : 8, &factor);
    if (scaled)
        json_object_set_new(out, "rope_scaling",
                            json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", factor,
                                      "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                                      "original_max_position_embeddings", 8192));
    return out;
}

// What quantization_args says; *spinquant is false where there are none.
static gyre_status read_quantization(gyre_source *source, const struct params *p, bool *spinquant)
{
    static const char due[] = "int4_weight_int8_dynamic_activation";
    const json_t *args = json_object_get(p->json, "quantization_args");
    double group;
    *spinquant = false;
    if (!args || json_is_null(args)) return GYRE_OK;
    const char *scheme = json_string_value(json_object_get(args, "scheme"));
    if (!scheme || strcmp(scheme, due))
        return gyre_fail(p->err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): scheme of quantization_args is %s; gyre reads %s", p->path,
                         scheme ? gyre_show(scheme, strlen(scheme)).text : "missing", due);
    const json_t *lora = json_object_get(p->json, "lora_args");
    if (lora && !json_is_null(lora))
        return gyre_fail(p->err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): lora_args; gyre reads checkpoints without adapters", p->path);
    const struct params inner = {p->path, args, p->err};
    GYRE_TRY(number(&inner, "group_size", 32, &group));
    if (group < 1 || group > 1 << 20)
        return gyre_fail(p->err, GYRE_E_FORMAT, "cannot read model (%s): group_size of quantization_args is absurd",
                         p->path);
    *spinquant = json_is_true(json_object_get(args, "spinquant"));
    struct gyre_quantization *q = gyre_arena_alloc(&source->arena, sizeof *q);
    if (!q) return gyre_fail(p->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", p->path);
    q->method =
        GYRE_METHOD_COMPRESSED_TENSORS; // which has codes in bytes beside scales under the names that they get here
    q->scheme[q->n_schemes++] = (struct gyre_scheme){4, (uint32_t)group, true};
    q->scheme[q->n_schemes++] = (struct gyre_scheme){8, 0, true};
    source->quantization = q;
    source->note = "its scales are of 32 bits, the kernels' of 16: they are rounded";
    return GYRE_OK;
}

// "layers.3.attention.wq.weight" is "model.layers.3.self_attn.q_proj.weight"; scales are "weight_scale".
static bool rename_tensor(struct gyre_string name, char out[128])
{
    static const struct {
        const char *own, *hf;
    } stems[] = {
        {"attention.wq", "self_attn.q_proj"},
        {"attention.wk", "self_attn.k_proj"},
        {"attention.wv", "self_attn.v_proj"},
        {"attention.wo", "self_attn.o_proj"},
        {"feed_forward.w1", "mlp.gate_proj"},
        {"feed_forward.w2", "mlp.down_proj"},
        {"feed_forward.w3", "mlp.up_proj"},
        {"attention_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"},
        {"tok_embeddings", "model.embed_tokens"},
        {"output", "lm_head"},
        {"norm", "model.norm"},
    };
    char text[112];
    unsigned layer = 0;
    int used = 0;
    snprintf(text, sizeof text, "%.*s", (int)GYRE_MIN(name.length, sizeof text - 1), name.data);
    if (!strcmp(text, "rope.freqs")) return false; // a table that old checkpoints store
    const bool block = sscanf(text, "layers.%5u.%n", &layer, &used) == 1 && used;
    for (size_t i = 0; i < GYRE_COUNT(stems); i++) {
        const char *rest = text + (block ? used : 0);
        const size_t n = strlen(stems[i].own);
        if (block != (i < 9) || strncmp(rest, stems[i].own, n) || rest[n] != '.') continue;
        const char *part = !strcmp(rest + n + 1, "scales") ? "weight_scale" : rest + n + 1;
        if (block) snprintf(out, 128, "model.layers.%u.%s.%.60s", layer, stems[i].hf, part);
        else snprintf(out, 128, "%s.%.60s", stems[i].hf, part);
        return true;
    }
    snprintf(out, 128, "%s", *text ? text : "?"); // kept, so that the check of the model names it
    return true;
}

// The order of rows, and the rotation that must be run, under the keys that gyre's own files have for them.
static gyre_status put_keys(gyre_source *source, uint64_t ffn, bool spinquant, gyre_error *err)
{
    GYRE_TRY(gyre_source_put_meta(source, "gyre.rope_interleaved", GYRE_META_BOOL, &(unsigned char){1}, 1, err));
    if (!spinquant) return GYRE_OK;
    if (ffn & (ffn - 1))
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot use model (%s): R4 of a feed-forward width of %llu; gyre knows SpinQuant's for powers of two",
            source->path, (unsigned long long)ffn);
    GYRE_TRY(gyre_source_put_meta(source, "gyre.act_bits", GYRE_META_U32, &(uint32_t){8}, 4, err));
    return gyre_hf_online(source, 0, (uint32_t)ffn, err);
}

static void keep(gyre_source *source, const char *name, char *text)
{
    source->files[source->n_files++] = (struct source_file){name, text, strlen(text)};
}

gyre_status gyre_meta_read(gyre_source *source, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    char path[PATH_MAX], *text = NULL, *tokens = NULL, *json = NULL;
    json_t *params = NULL, *config = NULL;
    uint64_t bytes, ffn = 0;
    uint32_t n_ranks = 0;
    bool spinquant;
    struct params p = {path, NULL, err};
    GYRE_GO(gyre_source_join(source, "tokenizer.model", path, err));
    GYRE_GO(gyre_file_read(path, MAX_TEXT, &tokens, &bytes, err));
    GYRE_GO(gyre_meta_tokenizer(path, tokens, bytes, &json, &n_ranks, err));
    keep(source, "tokenizer.json", json);
    GYRE_GO(gyre_source_join(source, "params.json", path, err));
    GYRE_GO(gyre_file_read(path, MAX_TEXT, &text, &bytes, err));
    GYRE_GO(gyre_json_parse(path, text, bytes, &params, err));
    if (!json_is_object(params))
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): it holds no JSON object", path));
    p.json = params;
    GYRE_GO(gyre_source_let(source, read_quantization(source, &p, &spinquant), err));
    config = made_config(&p, n_ranks, &ffn, &st);
    if (st != GYRE_OK) goto done;
    json = config ? json_dumps(config, JSON_INDENT(1)) : NULL;
    if (!json) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", path));
    keep(source, "config.json", json);
    GYRE_GO(gyre_source_let(source, gyre_hf_config(source, config, err), err));
    GYRE_GO(gyre_source_let(source, put_keys(source, ffn, spinquant, err), err));
    GYRE_GO(gyre_source_join(source, "consolidated.01.pth", path, err));
    if (gyre_file_exists(path))
        GYRE_GO(gyre_fail(err, GYRE_E_UNSUPPORTED,
                          "cannot use model (%s): it is cut into several files of which each has a part of "
                          "every tensor; gyre reads one",
                          path));
    GYRE_GO(gyre_source_join(source, "consolidated.00.pth", path, err));
    GYRE_GO(gyre_pth_read(source, path, rename_tensor, err));
done:
    json_decref(config);
    json_decref(params);
    free(text);
    free(tokens);
    return st;
}
