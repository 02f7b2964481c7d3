// Hugging Face's tensor names as GGUF's.
#include "runtime/source/hf.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

bool gyre_hf_translate(const char *name, char out[96])
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

bool gyre_hf_ignored(const char *name, bool tied)
{
    const char *tail = ".rotary_emb.inv_freq";
    const size_t n = strlen(name), m = strlen(tail);
    return (n > m && !strcmp(name + n - m, tail)) || (tied && !strcmp(name, "lm_head.weight"));
}
