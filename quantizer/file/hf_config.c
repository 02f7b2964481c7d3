// See hf_config.h. config.json is the source's with what changed: how linears are stored, which transforms are run,
// and that the head has a table of its own. Objects of compressed-tensors take no keys but theirs.
#include "quantizer/file/hf_config.h"
#include "runtime/source/json_file.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CARRIED = 256 << 20 };

void gyre_hf_name(const struct gyre_hparams *hp, gyre_role role, uint32_t layer, const char *part,
                  char out[GYRE_HF_NAME])
{
    const struct gyre_fused fused = gyre_role_fusion(hp, role, GYRE_CONTAINER_HF);
    const char *dot = part ? "." : "", *last = part ? part : "",
               *stem = fused.stem ? fused.stem : gyre_role_hf(hp, role);
    if (role < GYRE_BLOCK_ROLES) snprintf(out, GYRE_HF_NAME, "model.layers.%u.%s%s%s", layer, stem, dot, last);
    else snprintf(out, GYRE_HF_NAME, "%s%s%s", stem, dot, last);
}

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for config.json"); }

// Takes the text.
static gyre_status put_text(struct gyre_writer *out, const char *name, char *text, uint64_t bytes, gyre_error *err)
{
    if (!text || out->n_texts == GYRE_WRITTEN_TEXTS) {
        free(text);
        return no_memory(err);
    }
    struct gyre_written_text *t = &out->text[out->n_texts++];
    *t = (struct gyre_written_text){.text = text, .bytes = bytes};
    snprintf(t->name, sizeof t->name, "%s", name);
    return GYRE_OK;
}

static gyre_status put_json(struct gyre_writer *out, const char *name, const json_t *json, gyre_error *err)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    return put_text(out, name, text, text ? strlen(text) : 0, err);
}

// ---- quantization_config ------------------------------------------------------------------------------------------

static json_t *scheme(uint32_t bits, uint32_t group)
{
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:b, s:s}", "num_bits", (int)bits, "type", "int", "symmetric", 1,
                     "strategy", group ? "group" : "channel", "group_size",
                     group ? json_integer((json_int_t)group) : json_null(), "dynamic", 0, "observer", "minmax");
}

// Activations are said in full checkpoints alone: other tools would round them where a portable one is only stored
// so.
static json_t *activations(const struct gyre_plan *p)
{
    if (!p->set.full || p->set.act >= 16) return json_null();
    const uint32_t group = p->set.recipe.act_group;
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:b}", "num_bits", (int)p->set.act, "type", "int", "symmetric",
                     p->set.act == 8, "strategy", group ? "group" : "token", "group_size",
                     group ? json_integer((json_int_t)group) : json_null(), "dynamic", 1);
}

static json_t *cache_scheme(const struct gyre_plan *p)
{
    if (!p->set.full || p->set.kv >= 16) return json_null();
    return json_pack("{s:i, s:s, s:b, s:s, s:n, s:b}", "num_bits", (int)p->set.kv, "type", "int", "symmetric", 0,
                     "strategy", "token", "group_size", "dynamic", 1);
}

static json_t *apply(const char *target, const char *location, bool inverse)
{
    return json_pack("{s:[s], s:s, s:b, s:[]}", "targets", target, "location", location, "inverse", inverse, "ignore");
}

// The transforms that are run beside the weights; what is merged into them needs no reader.
static json_t *transforms(const struct gyre_plan *p)
{
    json_t *groups = json_object();
    if (p->online.r3)
        json_object_set_new(groups, "R3",
                            json_pack("{s:s, s:[o,o], s:b, s:b, s:i}", "type", "hadamard", "apply",
                                      apply("re:.*self_attn$", "q_attn", false),
                                      apply("re:.*self_attn$", "k_cache", false), "randomize", 0, "requires_grad", 0,
                                      "head_dim", (int)p->online.r3_had.n));
    if (p->online.r4.n)
        json_object_set_new(groups, "R4",
                            json_pack("{s:s, s:[o,o], s:b, s:b, s:i}", "type", "hadamard", "apply",
                                      apply("re:.*down_proj$", "input", false),
                                      apply("re:.*down_proj$", "weight_input", true), "randomize", 0, "requires_grad",
                                      0, "head_dim", (int)p->online.r4.n));
    return json_pack("{s:o}", "config_groups", groups);
}

// The group of config_groups that has this width; it is made where there is none.
static json_t *group_of(const struct gyre_plan *p, json_t *groups, const struct gyre_planned *planned)
{
    const char *name;
    char fresh[32];
    json_t *group;
    json_object_foreach(groups, name, group)
    {
        const json_t *w = json_object_get(group, "weights"), *size = json_object_get(w, "group_size");
        if (json_integer_value(json_object_get(w, "num_bits")) == (json_int_t)planned->bits &&
            json_integer_value(size) == (json_int_t)planned->group)
            return group;
    }
    snprintf(fresh, sizeof fresh, "group_%zu", json_object_size(groups));
    group = json_pack("{s:[], s:o, s:o, s:n, s:s}", "targets", "weights", scheme(planned->bits, planned->group),
                      "input_activations", activations(p), "output_activations", "format", "pack-quantized");
    json_object_set_new(groups, fresh, group);
    return group;
}

static json_t *quantization(const struct gyre_plan *p)
{
    json_t *groups = json_object(), *ignore = json_pack("[s]", "lm_head");
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct gyre_planned *t = &p->tensor[i];
        char module[GYRE_HF_NAME];
        if (t->part.kind != GYRE_PART_LINEAR) continue;
        if (t->part.role != gyre_role_fusion(&p->hp, t->part.role, GYRE_CONTAINER_HF).first) continue; // named by that
        gyre_hf_name(&p->hp, t->part.role, t->part.layer, NULL, module);
        if (t->bits >= 16) json_array_append_new(ignore, json_string(module));
        else json_array_append_new(json_object_get(group_of(p, groups, t), "targets"), json_string(module));
    }
    const bool one = json_object_size(groups) == 1;
    if (one) json_object_set_new(json_object_get(groups, "group_0"), "targets", json_pack("[s]", "Linear"));
    json_t *out = json_pack("{s:s, s:s, s:s, s:n, s:o, s:o, s:{}, s:o}", "quant_method", "compressed-tensors", "format",
                            one ? "pack-quantized" : "mixed-precision", "quantization_status", "compressed",
                            "global_compression_ratio", "kv_cache_scheme", cache_scheme(p), "ignore", ignore,
                            "sparsity_config", "config_groups", groups);
    json_object_set_new(out, "transform_config", p->online.r3 || p->online.r4.n ? transforms(p) : json_object());
    return out;
}

// ---- the files ----------------------------------------------------------------------------------------------------

static gyre_status put_config(const struct gyre_plan *p, struct gyre_writer *out, gyre_error *err)
{
    uint64_t bytes;
    json_t *config;
    const char *type = p->set.wbits == 32 ? "float32" : "float16",
               *text = gyre_source_file(p->source, "config.json", &bytes);
    GYRE_TRY(gyre_json_parse(gyre_source_path(p->source), text, bytes, &config, err));
    json_object_del(config, "quantization_config");
    json_object_del(config, "compression_config");
    json_object_set_new(config, json_object_get(config, "dtype") ? "dtype" : "torch_dtype", json_string(type));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(!p->write_head));
    if (p->set.wbits < 16) json_object_set_new(config, "quantization_config", quantization(p));
    const gyre_status st = put_json(out, "config.json", config, err);
    json_decref(config);
    return st;
}

static gyre_status put_index(struct gyre_writer *out, gyre_error *err)
{
    uint64_t total = 0;
    json_t *map = json_object();
    for (uint64_t i = 0; i < out->n_tensors; i++) {
        total += out->tensor[i].bytes; // of shared tensors: of its rows
        json_object_set_new(map, out->tensor[i].name, json_string(out->file[out->tensor[i].file].name));
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    const gyre_status st = put_json(out, "model.safetensors.index.json", index, err);
    json_decref(index);
    return st;
}

// What the source's reader made itself (a tokenizer.json out of another form) goes before what lies in its folder.
static gyre_status carry(const struct gyre_plan *p, const char *name, struct gyre_writer *out, gyre_error *err)
{
    char *text = NULL;
    uint64_t bytes;
    const char *held = gyre_source_file(p->source, name, &bytes);
    if (held) {
        text = malloc(bytes + 1);
        if (text) memcpy(text, held, bytes);
        return put_text(out, name, text, bytes, err);
    }
    char *path = gyre_joined(gyre_source_path(p->source), "/", name);
    if (!path) return no_memory(err);
    gyre_status st = GYRE_OK;
    if (gyre_file_exists(path)) {
        st = gyre_file_read(path, MAX_CARRIED, &text, &bytes, err);
        if (st == GYRE_OK) st = put_text(out, name, text, bytes, err);
    }
    free(path);
    return st;
}

const char *const gyre_hf_carried[] = {"tokenizer.json",     "tokenizer_config.json",    "special_tokens_map.json",
                                       "added_tokens.json",  "generation_config.json",   "chat_template.jinja",
                                       "chat_template.json", "tokenizer.model",          "vocab.json",
                                       "merges.txt",         "preprocessor_config.json", NULL};

gyre_status gyre_hf_texts(const struct gyre_plan *p, struct gyre_writer *out, gyre_error *err)
{
    GYRE_TRY(put_config(p, out, err));
    if (out->n_files > 1) GYRE_TRY(put_index(out, err));
    for (size_t i = 0; gyre_hf_carried[i]; i++) GYRE_TRY(carry(p, gyre_hf_carried[i], out, err));
    return GYRE_OK;
}
