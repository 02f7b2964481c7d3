// See tiny.h: a tiny model as a GGUF file.
#include "tests/common/tiny_impl.h"

#include "runtime/util/base.h"
#include "tests/common/bytes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What GGUF holds of a gain that Hugging Face keeps less 1.
static void put_gains(struct bytes *b, const struct tiny_tensor *t)
{
    for (uint64_t i = 0; i < t->cols; i++) {
        float v;
        memcpy(&v, t->data + 4 * i, 4);
        put_f32(b, v + 1);
    }
}

// GGUF keeps rows j and j + head_dim/2 of a q or k head side by side; a bias is permuted like the rows it belongs to.
static void put_rows(struct bytes *b, const struct tiny_tensor *t)
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
        tiny_token(i, text);
        put_string(b, text);
    }
    put_meta_array(b, "tokenizer.ggml.token_type", GYRE_META_I32, o->vocab);
    for (uint32_t i = 0; i < o->vocab; i++) put_u32(b, (uint32_t)tiny_token(i, text));
    put_meta_array(b, "tokenizer.ggml.merges", GYRE_META_STRING, tiny_merge_count(o->vocab));
    for (uint32_t i = 0; i < tiny_merge_count(o->vocab); i++) {
        char left[16], right[16], pair[40];
        tiny_merge(i, 0, left);
        tiny_merge(i, 1, right);
        snprintf(pair, sizeof pair, "%s %s", left, right);
        put_string(b, pair);
    }
    return 8;
}

static const char *keyed(const struct tiny_family *f, const char *rest, char out[96])
{
    snprintf(out, 96, "%s.%s", f->gguf, rest);
    return out;
}

// As llama.cpp's converter writes them. Returns the number of pairs.
static uint32_t put_metadata(struct bytes *b, const struct tiny_options *o)
{
    const struct tiny_family *f = tiny_family_of(o);
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
    struct tiny_tensor *list = tiny_describe(o, &n);
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
        tiny_fill(&list[i], o);
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
        if (tiny_family_of(o)->sandwich && list[i].gain) put_gains(&file, &list[i]);
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
