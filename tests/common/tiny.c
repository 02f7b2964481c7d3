// See tiny.h. Number i of a tensor is u[i] * scale with u = (splitmix64 >> 40) / 2^23 - 1, seeded by the model's seed
// and the FNV-1a hash of the HF tensor name; scale = 2 / sqrt(columns) for matrices. Norm gains are 1 + u / 2, biases u
// / 2.
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"
#include "tests/common/bytes.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

static const struct family {
    const char *name, *hf_class, *type; // model_type
    const char *gguf;                   // general.architecture and the prefix of its keys
    bool interleaved;                   // GGUF keeps rows j and j + head_dim/2 of a q or k head side by side
    bool says_head_dim;                 // else it is width / heads in both containers
    int bias;
    bool qk_norm;
    bool fused;         // q, k, v are one tensor, gate and up another
    bool sandwich;      // a norm behind each branch; HF keeps gains less 1; model_type ends with "_text"
    uint32_t layers;    // 0: the default
    uint32_t rope_dims; // 0: all of a head
    uint32_t window;    // 0: none
    gyre_rope_scaling scaling;
    const char *rope;  // of config.json's rope_scaling
    const char *extra; // of config.json
    struct {
        const char *key;
        float value;
        bool root; // divided by the square root of the number of blocks
    } real[4];     // GGUF
} families[] = {
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

static const struct family *family_of(const struct tiny_options *o)
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
    const struct family *f = family_of(&o);
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

struct tensor {
    char gguf[64], hf[64];
    gyre_dtype type;
    uint32_t n_dims;
    uint64_t dims[2], rows, cols, bytes;
    uint32_t rope_heads; // > 0: q or k, whose rows GGUF keeps in interleaved order
    bool gain;           // of a norm
    unsigned char *data; // HF row order
};

static float draw(struct gyre_rng *rng) { return (float)(gyre_rng_next(rng) >> 40) * 0x1p-23f - 1.0f; }

static struct gyre_rng rng_of(uint64_t seed, const char *name)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001B3u;
    return gyre_rng_seed(hash ^ seed * 0x9E3779B97F4A7C15u);
}

static void fill_floats(struct tensor *t, struct gyre_rng *rng, float scale, float offset)
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
static void fill_blocks(struct tensor *t, struct gyre_rng *rng, float a)
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

static void break_value(struct tensor *t)
{
    const uint64_t i = t->rows * t->cols / 2;
    const uint32_t single = 0x7FC00000;
    const uint16_t half = t->type == GYRE_DTYPE_F16 ? 0x7E00 : 0x7FC0;
    if (t->type == GYRE_DTYPE_F32) memcpy(t->data + 4 * i, &single, 4);
    else memcpy(t->data + 2 * i, &half, 2);
}

static void fill(struct tensor *t, const struct tiny_options *o)
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
static struct tensor *add(struct tensor *list, uint32_t *n, const char *gguf, const char *hf, uint64_t rows,
                          uint64_t cols, gyre_dtype type)
{
    struct tensor *t = &list[(*n)++];
    *t = (struct tensor){.type = rows                     ? fitting(type, cols)
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

static void add_block(struct tensor *list, uint32_t *n, const struct tiny_options *o, uint32_t layer)
{
    const uint64_t d = o->width, hd = o->head_dim, q = o->heads * hd, kv = o->kv_heads * hd, f = o->ffn;
    const bool fused = family_of(o)->fused, wrapped = family_of(o)->sandwich;
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
            struct tensor *t = bias ? add(list, n, gguf, hf, 0, parts[i].rows, o->type)
                                    : add(list, n, gguf, hf, parts[i].rows, parts[i].cols, o->type);
            t->rope_heads = family_of(o)->interleaved ? parts[i].heads : 0;
            if (bias) t->gain = false;
        }
    }
}

// All tensors of the model, *n of them, without data.
static struct tensor *describe(const struct tiny_options *o, uint32_t *n)
{
    const gyre_dtype table = o->half_tables ? GYRE_DTYPE_F16 : o->type;
    struct tensor *list = calloc(3 + o->layers * 20, sizeof *list);
    if (!list) exit(99);
    *n = 0;
    add(list, n, "token_embd.weight", "model.embed_tokens.weight", o->vocab, o->width, table);
    for (uint32_t layer = 0; layer < o->layers; layer++) add_block(list, n, o, layer);
    add(list, n, "output_norm.weight", "model.norm.weight", 0, o->width, o->type);
    if (!o->tied) add(list, n, "output.weight", "lm_head.weight", o->vocab, o->width, table);
    return list;
}

// What GGUF holds of a gain that Hugging Face keeps less 1.
static void put_gains(struct bytes *b, const struct tensor *t)
{
    for (uint64_t i = 0; i < t->cols; i++) {
        float v;
        memcpy(&v, t->data + 4 * i, 4);
        put_f32(b, v + 1);
    }
}

// GGUF keeps rows j and j + head_dim/2 of a q or k head side by side; a bias is permuted like the rows it belongs to.
static void put_rows(struct bytes *b, const struct tensor *t)
{
    const uint64_t rows = t->dims[0], row = t->bytes / rows;
    if (!t->rope_heads) {
        put(b, t->data, t->bytes);
        return;
    }
    const uint64_t head = rows / t->rope_heads;
    for (uint64_t r = 0; r < rows; r++) {
        const uint64_t j = r % head;
        put(b, t->data + (r - j + j / 2 + (j % 2) * (head / 2)) * row, row);
    }
}

// ---- tokenizer --------------------------------------------------------------------------------------

static const char *const controls[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

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

// Token `id` of the tiny vocabulary; returns its GGUF type.
static int token(uint32_t id, char out[40])
{
    if (id < 3) {
        strcpy(out, controls[id]);
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

static uint32_t merge_count(uint32_t vocab) { return GYRE_MIN(vocab - 259, (uint32_t)GYRE_COUNT(merges)); }

// ---- GGUF -------------------------------------------------------------------------------------------

static uint32_t put_tokenizer(struct bytes *b, const struct tiny_options *o)
{
    char text[40];
    put_meta_u32(b, "tokenizer.ggml.bos_token_id", 0);
    put_meta_u32(b, "tokenizer.ggml.eos_token_id", 2);
    put_meta_string(b, "tokenizer.ggml.model", "gpt2");
    put_meta_string(b, "tokenizer.ggml.pre", "smollm");
    put_meta_bool(b, "tokenizer.ggml.add_bos_token", 0);
    put_meta_array(b, "tokenizer.ggml.tokens", GYRE_META_STRING, o->vocab);
    for (uint32_t i = 0; i < o->vocab; i++) {
        token(i, text);
        put_string(b, text);
    }
    put_meta_array(b, "tokenizer.ggml.token_type", GYRE_META_I32, o->vocab);
    for (uint32_t i = 0; i < o->vocab; i++) put_u32(b, (uint32_t)token(i, text));
    put_meta_array(b, "tokenizer.ggml.merges", GYRE_META_STRING, merge_count(o->vocab));
    for (uint32_t i = 0; i < merge_count(o->vocab); i++) {
        char left[16], right[16], pair[40];
        expand(merges[i][0], left);
        expand(merges[i][1], right);
        snprintf(pair, sizeof pair, "%s %s", left, right);
        put_string(b, pair);
    }
    return 8;
}

static const char *keyed(const struct family *f, const char *rest, char out[96])
{
    snprintf(out, 96, "%s.%s", f->gguf, rest);
    return out;
}

// As llama.cpp's converter writes them. Returns the number of pairs.
static uint32_t put_metadata(struct bytes *b, const struct tiny_options *o)
{
    const struct family *f = family_of(o);
    const struct {
        const char *key;
        uint32_t value;
        bool absent;
    } counts[] = {
        {"block_count", o->layers, false},
        {"context_length", o->context, false},
        {"embedding_length", o->width, false},
        {"feed_forward_length", o->ffn, false},
        {"attention.head_count", o->heads, false},
        {"attention.head_count_kv", o->kv_heads, false},
        {"attention.key_length", o->head_dim, !f->says_head_dim},
        {"attention.value_length", o->head_dim, !f->says_head_dim},
        {"rope.dimension_count", o->rope_dims ? o->rope_dims : o->head_dim, !f->interleaved && !o->rope_dims},
        {"attention.sliding_window", o->window ? o->window : f->window, !f->window},
        {"vocab_size", o->vocab, !f->interleaved},
        {"rope.scaling.original_context_length", 64, o->scaling == GYRE_ROPE_NONE},
    };
    const struct {
        const char *key;
        float value;
        bool absent;
    } numbers[] = {
        {"attention.layer_norm_rms_epsilon", 1e-5f, false},
        {"rope.freq_base", o->rope_base, false},
        {"rope.scaling.factor", 8, o->scaling == GYRE_ROPE_NONE || o->scaling == GYRE_ROPE_LONG},
        {"rope.scaling.yarn_beta_fast", o->beta_fast, o->beta_fast == 0},
        {"rope.scaling.low_freq_factor", 1, o->scaling != GYRE_ROPE_LLAMA3},
        {"rope.scaling.high_freq_factor", 4, o->scaling != GYRE_ROPE_LLAMA3},
    };
    char key[96];
    uint32_t n = 3;
    put_meta_string(b, "general.architecture", f->gguf);
    put_meta_string(b, "general.name", "tiny");
    put_meta_u32(b, "general.quantization_version", 2);
    for (size_t i = 0; i < GYRE_COUNT(counts); i++)
        if (!counts[i].absent) put_meta_u32(b, keyed(f, counts[i].key, key), counts[i].value), n++;
    for (size_t i = 0; i < GYRE_COUNT(numbers); i++)
        if (!numbers[i].absent) put_meta_f32(b, keyed(f, numbers[i].key, key), numbers[i].value), n++;
    for (size_t i = 0; i < GYRE_COUNT(f->real) && f->real[i].key; i++, n++)
        put_meta_f32(b, keyed(f, f->real[i].key, key),
                     f->real[i].root ? f->real[i].value / sqrtf((float)o->layers) : f->real[i].value);
    if (o->scaling != GYRE_ROPE_NONE && o->scaling != GYRE_ROPE_LONG) { // converters of Phi-3 name no type
        static const char *const types[] = {[GYRE_ROPE_LINEAR] = "linear",
                                            [GYRE_ROPE_LLAMA3] = "llama3",
                                            [GYRE_ROPE_YARN] = "yarn",
                                            [GYRE_ROPE_LONG] = "longrope"};
        put_meta_string(b, keyed(f, "rope.scaling.type", key), types[o->scaling]);
        n++;
        if (o->untruncated) put_meta_bool(b, keyed(f, "rope.scaling.yarn_truncate", key), false), n++;
    }
    return n + (o->no_tokenizer ? 0 : put_tokenizer(b, o));
}

int tiny_write_gguf(const char *path, const struct tiny_options *o)
{
    struct bytes meta = {0}, file = {0};
    uint32_t n;
    struct tensor *list = describe(o, &n);
    const uint32_t n_meta = put_metadata(&meta, o);
    put_text(&file, "GGUF");
    put_u32(&file, 3);
    const uint32_t pairs = (o->rope_dims ? o->rope_dims : o->head_dim) / 2;
    const bool longrope = o->scaling == GYRE_ROPE_LONG;
    put_u64(&file, n + (o->rope_freqs ? 1 : 0) + (longrope ? 2 : 0));
    put_u64(&file, n_meta);
    put(&file, meta.data, meta.size);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < n; i++) {
        fill(&list[i], o);
        put_tensor_info(&file, list[i].gguf, list[i].n_dims, list[i].dims,
                        (uint32_t)gyre_dtype_info(list[i].type)->gguf, offset);
        offset += gyre_round_up(list[i].bytes, 32);
    }
    if (o->rope_freqs) put_tensor_info(&file, "rope_freqs.weight", 1, (uint64_t[]){pairs}, 0, offset);
    for (uint64_t k = 0; longrope && k < 2; k++)
        put_tensor_info(&file, k ? "rope_factors_long.weight" : "rope_factors_short.weight", 1, (uint64_t[]){pairs}, 0,
                        offset + k * gyre_round_up(4 * (uint64_t)pairs, 32));
    put_align(&file, 32);
    for (uint32_t i = 0; i < n; i++) {
        if (family_of(o)->sandwich && list[i].gain) put_gains(&file, &list[i]);
        else put_rows(&file, &list[i]);
        put_align(&file, 32);
        free(list[i].data);
    }
    for (uint32_t i = 0; o->rope_freqs && i < pairs; i++) put_f32(&file, 1.0f + 0.25f * (float)i);
    for (int k = 0; longrope && k < 2; k++) {
        for (uint32_t i = 0; i < pairs; i++) put_f32(&file, tiny_long_factor(k, i));
        put_align(&file, 32);
    }
    const int failed = save_bytes(&file, path);
    free(list);
    free(meta.data);
    free(file.data);
    return failed;
}

// ---- Hugging Face -----------------------------------------------------------------------------------

static int save_in(const char *directory, const char *name, struct bytes *b)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    const int failed = save_bytes(b, path);
    free(b->data);
    *b = (struct bytes){0};
    return failed;
}

static void put_format(struct bytes *b, const char *format, ...) GYRE_PRINTF(2, 3);
static void put_format(struct bytes *b, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_text(b, text);
}

static int write_config(const char *directory, const struct tiny_options *o)
{
    struct bytes b = {0};
    const struct family *f = family_of(o);
    put_format(
        &b,
        "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", %s"
        "\"hidden_size\": %u, \"intermediate_size\": %u,\n"
        " \"num_hidden_layers\": %u, \"num_attention_heads\": %u, \"num_key_value_heads\": %u, \"vocab_size\": %u,\n",
        f->hf_class, f->type ? f->type : f->name, f->sandwich ? "" : "\"hidden_act\": \"silu\", ", o->width, o->ffn,
        o->layers, o->heads, o->kv_heads, o->vocab);
    if (f->says_head_dim) put_format(&b, " \"head_dim\": %u,\n", o->head_dim);
    put_format(&b,
               " \"max_position_embeddings\": %u, \"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": %s, %s,\n"
               " \"bos_token_id\": 0, \"eos_token_id\": 2, \"rope_theta\": %g, \"rope_scaling\": ",
               o->context, o->tied ? "true" : "false", f->extra, (double)o->rope_base);
    if (o->scaling == GYRE_ROPE_NONE) put_text(&b, "null}\n");
    else if (o->scaling == GYRE_ROPE_LINEAR) put_text(&b, "{\"type\": \"linear\", \"factor\": 8.0}}\n");
    else if (o->scaling == GYRE_ROPE_YARN)
        put_format(&b, "{\"rope_type\": \"yarn\", \"factor\": 8.0, \"original_max_position_embeddings\": 64%s%s}}\n",
                   f->rope ? f->rope : "", o->untruncated ? ", \"truncate\": false" : "");
    else if (o->scaling == GYRE_ROPE_LONG) {
        put_text(&b, "{\"type\": \"longrope\"");
        for (int k = 0; k < 2; k++) {
            put_format(&b, ", \"%s_factor\": [", k ? "long" : "short");
            for (uint32_t i = 0; i < o->rope_dims / 2; i++)
                put_format(&b, "%s%.9g", i ? ", " : "", (double)tiny_long_factor(k, i));
            put_text(&b, "]");
        }
        put_text(&b, "}}\n");
    } else
        put_text(&b, "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": "
                     "4.0, \"original_max_position_embeddings\": 64}}\n");
    return save_in(directory, "config.json", &b);
}

static void put_json_string(struct bytes *b, const char *text)
{
    put_u8(b, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') put_u8(b, '\\');
        put_u8(b, (uint8_t)*text);
    }
    put_u8(b, '"');
}

static int write_tokenizer(const char *directory, const struct tiny_options *o)
{
    struct bytes b = {0};
    char text[40];
    put_text(&b, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [\n");
    for (uint32_t i = 0; i < 3; i++)
        put_format(&b,
                   " {\"id\": %u, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                   "\"normalized\": false, \"special\": true}%s\n",
                   i, controls[i], i < 2 ? "," : "],");
    put_text(&b, "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
                 "\"Digits\", \"individual_digits\": true},\n"
                 " {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": "
                 "true}]}, \"post_processor\": null,\n"
                 "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
                 "\"use_regex\": true},\n"
                 "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                 "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
                 " \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false, \"vocab\": {\n");
    for (uint32_t i = 0; i < o->vocab; i++) {
        token(i, text);
        put_json_string(&b, text);
        put_format(&b, ": %u%s\n", i, i + 1 < o->vocab ? "," : "}, \"merges\": [");
    }
    for (uint32_t i = 0; i < merge_count(o->vocab); i++) {
        char left[16], right[16];
        expand(merges[i][0], left);
        expand(merges[i][1], right);
        put_format(&b, "%s\"%s %s\"", i ? ", " : "", left, right);
    }
    put_text(&b, "]}}\n");
    return save_in(directory, "tokenizer.json", &b);
}

static int write_shard(const char *directory, const char *name, const struct tensor *list, uint32_t first,
                       uint32_t last)
{
    struct bytes header = {0}, file = {0};
    uint64_t offset = 0;
    put_text(&header, "{\"__metadata__\": {\"format\": \"pt\"}");
    for (uint32_t i = first; i < last; i++) {
        const struct tensor *t = &list[i];
        put_format(&header, ", \"%s\": {\"dtype\": \"%s\", \"shape\": [%llu", t->hf, gyre_dtype_info(t->type)->name,
                   (unsigned long long)t->dims[0]);
        if (t->n_dims == 2) put_format(&header, ", %llu", (unsigned long long)t->dims[1]);
        put_format(&header, "], \"data_offsets\": [%llu, %llu]}", (unsigned long long)offset,
                   (unsigned long long)(offset + t->bytes));
        offset += t->bytes;
    }
    put_text(&header, "}");
    while (header.size % 8) put_text(&header, " ");
    put_u64(&file, header.size);
    put(&file, header.data, header.size);
    for (uint32_t i = first; i < last; i++) put(&file, list[i].data, list[i].bytes);
    free(header.data);
    return save_in(directory, name, &file);
}

int tiny_write_hf(const char *directory, const struct tiny_options *o)
{
    uint32_t n;
    struct bytes index = {0};
    struct tensor *list = describe(o, &n);
    const uint32_t shards = GYRE_MAX(o->shards, 1u);
    int failed = mkdir(directory, 0777) && errno != EEXIST;
    for (uint32_t i = 0; i < n; i++) fill(&list[i], o);
    put_text(&index, "{\"metadata\": {\"total_size\": 0}, \"weight_map\": {");
    for (uint32_t s = 0; s < shards; s++) {
        const uint32_t first = n * s / shards, last = n * (s + 1) / shards;
        char name[64] = "model.safetensors";
        if (shards > 1) snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", s + 1, shards);
        for (uint32_t i = first; i < last; i++) put_format(&index, "%s\"%s\": \"%s\"", i ? ", " : "", list[i].hf, name);
        failed = failed || write_shard(directory, name, list, first, last);
    }
    put_text(&index, "}}\n");
    if (shards > 1) failed = failed || save_in(directory, "model.safetensors.index.json", &index);
    failed = failed || write_config(directory, o) || (!o->no_tokenizer && write_tokenizer(directory, o));
    for (uint32_t i = 0; i < n; i++) free(list[i].data);
    free(list);
    free(index.data);
    return failed;
}
