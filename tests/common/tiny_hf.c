// See tiny.h: a tiny model as a Hugging Face directory.
#include "tests/common/tiny_impl.h"

#include "runtime/util/base.h"
#include "tests/common/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

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
    const struct tiny_family *f = tiny_family_of(o);
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
    return save_bytes_in(directory, "config.json", &b);
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
                   i, tiny_controls[i], i < 2 ? "," : "],");
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
        tiny_token(i, text);
        put_json_string(&b, text);
        put_format(&b, ": %u%s\n", i, i + 1 < o->vocab ? "," : "}, \"merges\": [");
    }
    for (uint32_t i = 0; i < tiny_merge_count(o->vocab); i++) {
        char left[16], right[16];
        tiny_merge(i, 0, left);
        tiny_merge(i, 1, right);
        put_format(&b, "%s\"%s %s\"", i ? ", " : "", left, right);
    }
    put_text(&b, "]}}\n");
    return save_bytes_in(directory, "tokenizer.json", &b);
}

static int write_shard(const char *directory, const char *name, const struct tiny_tensor *list, uint32_t first,
                       uint32_t last)
{
    struct bytes header = {0}, file = {0};
    uint64_t offset = 0;
    put_text(&header, "{\"__metadata__\": {\"format\": \"pt\"}");
    for (uint32_t i = first; i < last; i++) {
        const struct tiny_tensor *t = &list[i];
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
    return save_bytes_in(directory, name, &file);
}

int tiny_write_hf(const char *directory, const struct tiny_options *o)
{
    uint32_t n;
    struct bytes index = {0};
    struct tiny_tensor *list = tiny_describe(o, &n);
    const uint32_t shards = GYRE_MAX(o->shards, 1u);
    int failed = mkdir(directory, 0777) && errno != EEXIST;
    for (uint32_t i = 0; i < n; i++) tiny_fill(&list[i], o);
    put_text(&index, "{\"metadata\": {\"total_size\": 0}, \"weight_map\": {");
    for (uint32_t s = 0; s < shards; s++) {
        const uint32_t first = n * s / shards, last = n * (s + 1) / shards;
        char name[64] = "model.safetensors";
        if (shards > 1) snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", s + 1, shards);
        for (uint32_t i = first; i < last; i++) put_format(&index, "%s\"%s\": \"%s\"", i ? ", " : "", list[i].hf, name);
        failed = failed || write_shard(directory, name, list, first, last);
    }
    put_text(&index, "}}\n");
    if (shards > 1) failed = failed || save_bytes_in(directory, "model.safetensors.index.json", &index);
    failed = failed || write_config(directory, o) || (!o->no_tokenizer && write_tokenizer(directory, o));
    for (uint32_t i = 0; i < n; i++) free(list[i].data);
    free(list);
    free(index.data);
    return failed;
}
