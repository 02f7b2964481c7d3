// See tiny.h. The models: options, families, weights and the vocabulary; tiny_gguf.c and tiny_hf.c write them.
//
// Number i of a tensor is u[i] * scale with u = (splitmix64 >> 40) / 2^23 - 1, seeded by the model's seed and the
// FNV-1a hash of the HF tensor name; scale = 2 / sqrt(columns) for matrices. Norm gains are 1 + u / 2, biases u / 2.
#include "tests/common/tiny_impl.h"

#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tiny_options tiny_defaults(void)
{
    return (struct tiny_options){.layers = 2,
                                 .width = 64,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .head_dim = 16,
                                 .ffn = 96,
                                 .vocab = 304,
                                 .context = 512,
                                 .seed = 1,
                                 .type = GYRE_DTYPE_F32,
                                 .rope_base = 10000};
}

struct tiny_options tiny_plain(void)
{
    return (struct tiny_options){.layers = 3,
                                 .width = 64,
                                 .heads = 6,
                                 .kv_heads = 2,
                                 .head_dim = 16,
                                 .ffn = 96,
                                 .vocab = 50,
                                 .context = 64,
                                 .seed = 1,
                                 .type = GYRE_DTYPE_F32,
                                 .tied = true,
                                 .half_tables = true,
                                 .no_tokenizer = true,
                                 .rope_base = 10000};
}

void tiny_tokens(uint32_t *tokens, size_t n, uint32_t seed, uint32_t vocab)
{
    for (size_t i = 0; i < n; i++) {
        seed += 0x9E3779B9u;
        tokens[i] = 3 + ((seed ^ seed >> 15) * 0x85EBCA6Bu >> 8) % (vocab - 3);
    }
}

// ---- families -----------------------------------------------------------------------------------------

enum { NO_BIAS, QKV_BIAS, ALL_BIAS };

static const struct tiny_family families[] = {
    {.name = "llama",
     .hf_class = "LlamaForCausalLM",
     .gguf = "llama",
     .interleaved = true,
     .says_head_dim = true,
     .extra = "\"attention_bias\": false, \"mlp_bias\": false"},
    {.name = "mistral",
     .hf_class = "MistralForCausalLM",
     .gguf = "llama",
     .interleaved = true,
     .says_head_dim = true,
     .extra = "\"sliding_window\": null"},
    {.name = "qwen2",
     .hf_class = "Qwen2ForCausalLM",
     .gguf = "qwen2",
     .bias = QKV_BIAS,
     .extra = "\"use_sliding_window\": false, \"sliding_window\": 131072"},
    {.name = "qwen3",
     .hf_class = "Qwen3ForCausalLM",
     .gguf = "qwen3",
     .says_head_dim = true,
     .qk_norm = true,
     .extra = "\"attention_bias\": false, \"use_sliding_window\": false, \"sliding_window\": null"},
    {.name = "llama-bias",
     .hf_class = "LlamaForCausalLM",
     .type = "llama",
     .gguf = "llama",
     .interleaved = true,
     .says_head_dim = true,
     .bias = ALL_BIAS,
     .extra = "\"attention_bias\": true, \"mlp_bias\": true"},
    {.name = "mistral-window",
     .hf_class = "MistralForCausalLM",
     .type = "mistral",
     .gguf = "llama",
     .interleaved = true,
     .says_head_dim = true,
     .window = 5,
     .extra = "\"sliding_window\": 5"},
    {.name = "ministral3",
     .hf_class = "Ministral3ForCausalLM",
     .gguf = "mistral3",
     .interleaved = true,
     .says_head_dim = true,
     .scaling = GYRE_ROPE_YARN,
     .rope = ", \"llama_4_scaling_beta\": 0.3, \"mscale\": 1.0, \"mscale_all_dim\": 1.0",
     .extra = "\"sliding_window\": null",
     .real = {{"attention.temperature_scale", 0.3f, false}, {"rope.scaling.yarn_log_multiplier", 1, false}}},
    {.name = "phi3",
     .hf_class = "Phi3ForCausalLM",
     .gguf = "phi3",
     .fused = true,
     .rope_dims = 12,
     .scaling = GYRE_ROPE_LONG,
     .extra = "\"partial_rotary_factor\": 0.75, \"original_max_position_embeddings\": 64, \"sliding_window\": null",
     .real = {{"rope.scaling.attn_factor", 1.22474487f, false}}}, // sqrt(1 + ln(512 / 64) / ln 64)
    {.name = "smollm3",
     .hf_class = "SmolLM3ForCausalLM",
     .gguf = "smollm3",
     .interleaved = true,
     .layers = 5,
     .extra = "\"no_rope_layer_interval\": 4, \"use_sliding_window\": false, \"pad_token_id\": 0"},
    {.name = "granite",
     .hf_class = "GraniteForCausalLM",
     .gguf = "granite",
     .interleaved = true,
     .extra = "\"embedding_multiplier\": 2.5, \"residual_multiplier\": 0.45, \"logits_scaling\": 1.5, "
              "\"attention_multiplier\": 0.125",
     .real = {{"embedding_scale", 2.5f, false},
              {"residual_scale", 0.45f, false},
              {"logit_scale", 1.5f, false},
              {"attention.scale", 0.125f, false}}},
    {.name = "minicpm",
     .hf_class = "MiniCPMForCausalLM",
     .gguf = "minicpm",
     .interleaved = true,
     .extra = "\"scale_emb\": 3, \"scale_depth\": 1.1, \"dim_model_base\": 32",
     .real = {{"embedding_scale", 3, false}, {"residual_scale", 1.1f, true}, {"logit_scale", 2, false}}},
    {.name = "gemma3",
     .hf_class = "Gemma3ForCausalLM",
     .type = "gemma3_text",
     .gguf = "gemma3",
     .says_head_dim = true,
     .qk_norm = true,
     .sandwich = true,
     .layers = 6,
     .window = 5,
     .extra = "\"hidden_activation\": \"gelu_pytorch_tanh\", \"sliding_window\": 5, \"sliding_window_pattern\": 6, "
              "\"rope_local_base_freq\": 5000, \"query_pre_attn_scalar\": 32",
     .real = {{"rope.freq_base_swa", 5000, false}}},
};

float tiny_long_factor(bool long_context, uint32_t i)
{
    return long_context ? 1.5f + (float)i : 1 + 0.0625f * (float)i;
}

const struct tiny_family *tiny_family_of(const struct tiny_options *o)
{
    for (size_t i = 0; i < GYRE_COUNT(families); i++)
        if (!o->arch || !strcmp(families[i].name, o->arch)) return &families[i];
    fprintf(stderr, "no tiny model of a family \"%s\"\n", o->arch);
    exit(99);
}

struct tiny_options tiny_family(const char *arch)
{
    struct tiny_options o = tiny_defaults();
    o.arch = arch;
    const struct tiny_family *f = tiny_family_of(&o);
    o.qkv_bias = f->bias != NO_BIAS;
    o.other_bias = f->bias == ALL_BIAS;
    o.qk_norm = f->qk_norm;
    o.rope_dims = f->rope_dims;
    o.scaling = f->scaling;
    if (f->layers) o.layers = f->layers;
    if (f->qk_norm) o.head_dim = 32; // not width / heads
    return o;
}

// ---- weights ----------------------------------------------------------------------------------------

static float draw(struct gyre_rng *rng) { return (float)(gyre_rng_next(rng) >> 40) * 0x1p-23f - 1.0f; }

static struct gyre_rng rng_of(uint64_t seed, const char *name)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001B3u;
    return gyre_rng_seed(hash ^ seed * 0x9E3779B97F4A7C15u);
}

static void fill_floats(struct tiny_tensor *t, struct gyre_rng *rng, float scale, float offset)
{
    for (uint64_t i = 0; i < t->rows * t->cols; i++) {
        const float v = draw(rng) * scale + offset;
        const double wide = (double)v;
        const uint32_t bits = gyre_f32_bits(v);
        const uint16_t half =
            t->type == GYRE_DTYPE_F16 ? gyre_f16_from_f32(v) : (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        if (t->type == GYRE_DTYPE_F32) memcpy(t->data + 4 * i, &v, 4);
        else if (t->type == GYRE_DTYPE_F64) memcpy(t->data + 8 * i, &wide, 8);
        else memcpy(t->data + 2 * i, &half, 2);
    }
}

// Random codes; the halves that scale them are set so that values spread over about -a..a.
static void fill_blocks(struct tiny_tensor *t, struct gyre_rng *rng, float a)
{
    const uint32_t block = gyre_dtype_info(t->type)->block_bytes;
    for (uint64_t at = 0; at < t->bytes; at += block) {
        unsigned char *p = t->data + at;
        for (uint32_t i = 0; i < block; i++) p[i] = (unsigned char)(gyre_rng_next(rng) >> 56);
        const float size = a * (0.75f + 0.25f * draw(rng));
        float d = 0, m = 0;
        uint32_t at_d = 0, has_m = 0;
        switch (t->type) {
        case GYRE_DTYPE_Q4_0:
            d = size / 8;
            break;
        case GYRE_DTYPE_Q5_0:
        case GYRE_DTYPE_IQ4_XS:
            d = t->type == GYRE_DTYPE_Q5_0 ? size / 16 : size / (128 * 32);
            break;
        case GYRE_DTYPE_Q8_0:
        case GYRE_DTYPE_IQ4_NL:
            d = size / 128;
            break;
        case GYRE_DTYPE_Q4_1:
            d = size / 7.5f, m = -size, has_m = 1;
            break;
        case GYRE_DTYPE_Q5_1:
            d = size / 15.5f, m = -size, has_m = 1;
            break;
        case GYRE_DTYPE_Q2_K:
            d = size / (1.5f * 8), m = size / 8, has_m = 1, at_d = 80;
            break;
        case GYRE_DTYPE_Q3_K:
            d = size / (4 * 32), at_d = 108;
            break;
        case GYRE_DTYPE_TQ1_0:
            d = size, at_d = 52;
            break;
        case GYRE_DTYPE_TQ2_0:
            d = size / 2, at_d = 64;
            break;
        case GYRE_DTYPE_Q4_K:
            d = size / (7.5f * 32), m = size / 32, has_m = 1;
            break;
        case GYRE_DTYPE_Q5_K:
            d = size / (15.5f * 32), m = size / 32, has_m = 1;
            break;
        case GYRE_DTYPE_Q6_K:
            d = size / (32 * 64), at_d = 208;
            break;
        default:
            break;
        }
        if (t->type == GYRE_DTYPE_MXFP4) { // an exponent in place of a half
            p[0] = (unsigned char)(127 + ilogbf(size / 6));
            continue;
        }
        const uint16_t halves[2] = {gyre_f16_from_f32(d), gyre_f16_from_f32(m)};
        memcpy(p + at_d, halves, has_m ? 4 : 2);
    }
}

static gyre_dtype fitting(gyre_dtype type, uint64_t cols)
{
    if (cols % gyre_dtype_info(type)->block_elements == 0) return type;
    return cols % 32 == 0 ? GYRE_DTYPE_Q8_0 : GYRE_DTYPE_F16;
}

static void break_value(struct tiny_tensor *t)
{
    const uint64_t i = t->rows * t->cols / 2;
    const uint32_t single = 0x7FC00000;
    const uint16_t half = t->type == GYRE_DTYPE_F16 ? 0x7E00 : 0x7FC0;
    if (t->type == GYRE_DTYPE_F32) memcpy(t->data + 4 * i, &single, 4);
    else memcpy(t->data + 2 * i, &half, 2);
}

void tiny_fill(struct tiny_tensor *t, const struct tiny_options *o)
{
    uint64_t row = 0;
    gyre_dtype_row_bytes(t->type, t->cols, &row);
    t->bytes = row * t->rows;
    t->data = calloc(1, t->bytes);
    if (!t->data) exit(99);
    struct gyre_rng rng = rng_of(o->seed, t->hf);
    const float scale = (float)(2 / sqrt((double)t->cols));
    if (t->gain) fill_floats(t, &rng, o->constant_gain ? 0 : 0.5f, 1.0f);
    else if (t->n_dims == 1) fill_floats(t, &rng, 0.5f, 0);
    else if (gyre_dtype_info(t->type)->block_elements == 1) fill_floats(t, &rng, scale, 0.0f);
    else fill_blocks(t, &rng, scale);
    if (o->nan_in && !strcmp(o->nan_in, t->gguf)) break_value(t);
}

// rows 0: a vector
static struct tiny_tensor *add(struct tiny_tensor *list, uint32_t *n, const char *gguf, const char *hf, uint64_t rows,
                               uint64_t cols, gyre_dtype type)
{
    struct tiny_tensor *t = &list[(*n)++];
    *t = (struct tiny_tensor){.type = rows                     ? fitting(type, cols)
                                      : type == GYRE_DTYPE_F64 ? type
                                                               : GYRE_DTYPE_F32,
                              .n_dims = rows ? 2 : 1,
                              .rows = rows ? rows : 1,
                              .cols = cols,
                              .gain = !rows};
    snprintf(t->gguf, sizeof t->gguf, "%s", gguf);
    snprintf(t->hf, sizeof t->hf, "%s", hf);
    t->dims[0] = rows ? rows : cols;
    t->dims[1] = cols;
    return t;
}

static void add_block(struct tiny_tensor *list, uint32_t *n, const struct tiny_options *o, uint32_t layer)
{
    const uint64_t d = o->width, hd = o->head_dim, q = o->heads * hd, kv = o->kv_heads * hd, f = o->ffn;
    const bool fused = tiny_family_of(o)->fused, wrapped = tiny_family_of(o)->sandwich;
    const struct {
        const char *gguf, *hf;
        uint64_t rows, cols;
        uint32_t heads;
        bool absent, bias;
    } parts[] = {
        {"attn_norm", "input_layernorm", 0, d, 0, false, false},
        {"attn_q", "self_attn.q_proj", q, d, o->heads, fused, o->qkv_bias},
        {"attn_k", "self_attn.k_proj", kv, d, o->kv_heads, fused, o->qkv_bias},
        {"attn_v", "self_attn.v_proj", kv, d, 0, fused, o->qkv_bias},
        {"attn_qkv", "self_attn.qkv_proj", q + 2 * kv, d, 0, !fused, o->qkv_bias},
        {"attn_q_norm", "self_attn.q_norm", 0, hd, 0, !o->qk_norm, false},
        {"attn_k_norm", "self_attn.k_norm", 0, hd, 0, !o->qk_norm, false},
        {"attn_output", "self_attn.o_proj", d, q, 0, false, o->other_bias},
        {"ffn_norm", wrapped ? "pre_feedforward_layernorm" : "post_attention_layernorm", 0, d, 0, false, false},
        {"post_attention_norm", "post_attention_layernorm", 0, d, 0, !wrapped, false},
        {"post_ffw_norm", "post_feedforward_layernorm", 0, d, 0, !wrapped, false},
        {"ffn_gate", "mlp.gate_proj", f, d, 0, fused, o->other_bias},
        {"ffn_up", "mlp.up_proj", f, d, 0, fused, o->other_bias},
        {"ffn_up", "mlp.gate_up_proj", 2 * f, d, 0, !fused, o->other_bias},
        {"ffn_down", "mlp.down_proj", d, f, 0, false, o->other_bias},
    };
    for (size_t i = 0; i < GYRE_COUNT(parts); i++) {
        char gguf[64], hf[64];
        for (int bias = 0; !parts[i].absent && bias <= parts[i].bias; bias++) {
            const char *const last = bias ? "bias" : "weight";
            snprintf(gguf, sizeof gguf, "blk.%u.%s.%s", layer, parts[i].gguf, last);
            snprintf(hf, sizeof hf, "model.layers.%u.%s.%s", layer, parts[i].hf, last);
            struct tiny_tensor *t = bias ? add(list, n, gguf, hf, 0, parts[i].rows, o->type)
                                         : add(list, n, gguf, hf, parts[i].rows, parts[i].cols, o->type);
            t->rope_heads = tiny_family_of(o)->interleaved ? parts[i].heads : 0;
            if (bias) t->gain = false;
        }
    }
}

struct tiny_tensor *tiny_describe(const struct tiny_options *o, uint32_t *n)
{
    const gyre_dtype table = o->half_tables ? GYRE_DTYPE_F16 : o->type;
    struct tiny_tensor *list = calloc(3 + o->layers * 20, sizeof *list);
    if (!list) exit(99);
    *n = 0;
    add(list, n, "token_embd.weight", "model.embed_tokens.weight", o->vocab, o->width, table);
    for (uint32_t layer = 0; layer < o->layers; layer++) add_block(list, n, o, layer);
    add(list, n, "output_norm.weight", "model.norm.weight", 0, o->width, o->type);
    if (!o->tied) add(list, n, "output.weight", "lm_head.weight", o->vocab, o->width, table);
    return list;
}

// ---- vocabulary --------------------------------------------------------------------------------------

const char *const tiny_controls[3] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

// Pairs in order of rank; "_" stands for the letter of a blank in the byte-level alphabet.
static const char *const merges[][2] = {
    {"_", "t"}, {"h", "e"},   {"_", "a"},  {"i", "n"},  {"r", "e"},  {"_t", "he"}, {"o", "n"}, {"e", "r"},
    {"_", "s"}, {"_", "w"},   {"a", "t"},  {"n", "d"},  {"o", "u"},  {"_", "c"},   {"e", "n"}, {"i", "s"},
    {"_", "b"}, {"in", "g"},  {"o", "r"},  {"e", "s"},  {"_", "o"},  {"_", "f"},   {"_", "p"}, {"a", "l"},
    {"i", "t"}, {"_a", "nd"}, {"_o", "f"}, {"_t", "o"}, {"_", "in"}, {"_", "_"},
};

// The byte-level alphabet: printable bytes stand for themselves, the others for U+0100 and up.
static void alphabet(unsigned byte, char out[3])
{
    unsigned code = byte, extra = 0;
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    for (unsigned b = 0; b < byte && !printable; b++)
        extra += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
    if (!printable) code = 256 + extra;
    if (code < 128) snprintf(out, 3, "%c", (int)code);
    else snprintf(out, 3, "%c%c", (int)(0xC0 | code >> 6), (int)(0x80 | (code & 63)));
}

static void expand(const char *text, char out[16])
{
    for (*out = 0; *text; text++) strcat(out, *text == '_' ? "\xC4\xA0" : (char[]){*text, 0});
}

int tiny_token(uint32_t id, char out[40])
{
    if (id < 3) {
        strcpy(out, tiny_controls[id]);
        return 3;
    }
    if (id < 259) {
        alphabet(id - 3, out);
        return 1;
    }
    if (id < 259 + GYRE_COUNT(merges)) {
        char right[16];
        expand(merges[id - 259][0], out);
        expand(merges[id - 259][1], right);
        strcat(out, right);
        return 1;
    }
    snprintf(out, 40, "<|unused_%u|>", id);
    return 5;
}

uint32_t tiny_merge_count(uint32_t vocab) { return GYRE_MIN(vocab - 259, (uint32_t)GYRE_COUNT(merges)); }

void tiny_merge(uint32_t i, int side, char out[16]) { expand(merges[i][side], out); }
