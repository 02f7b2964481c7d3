// The metadata of an output file: what the source said, under the output's architecture, and gyre's own keys.
// See docs/model-format.md; the keys that a plain llama file must have are those that its loaders ask for.
#include "quantizer/file/gguf_meta.h"
#include "runtime/model/arch.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <string.h>

// A key of the output's architecture.
struct key {
    char text[128];
};
static struct key key_of(const struct gyre_plan *p, const char *name)
{
    struct key key;
    snprintf(key.text, sizeof key.text, "%s%s%s%s", p->set.full ? "gyre-" : "", p->hp.family->name, *name ? "." : "",
             name);
    return key;
}

// Keys whose meaning changes with the file, or that the file states itself.
static bool is_own(const struct gyre_plan *p, const char *key)
{
    static const char *const own[] = {"general.architecture", "general.file_type", "general.quantization_version",
                                      "general.alignment"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(key, own[i])) return true;
    // A plain file says a period where a list of flags is.
    if (p->window_period && gyre_begins(key, p->hp.arch) &&
        !strcmp(key + strlen(p->hp.arch), ".attention.sliding_window_pattern"))
        return true;
    // Divisors of longrope are tensors; a plain llama file says llama3 scaling by one instead.
    if (gyre_begins(key, p->hp.arch) && (!strcmp(key + strlen(p->hp.arch), ".rope.scaling.short_factor") ||
                                         !strcmp(key + strlen(p->hp.arch), ".rope.scaling.long_factor")))
        return true;
    return !p->set.full && p->hp.rope_scaling == GYRE_ROPE_LLAMA3 && gyre_begins(key, p->hp.arch) &&
           gyre_begins(key + strlen(p->hp.arch), ".rope.scaling.");
}

static void copy_source(const struct gyre_plan *p, struct gyre_gguf *g)
{
    const size_t prefix = strlen(p->hp.arch);
    for (uint64_t i = 0; i < gyre_source_meta_count(p->source); i++) {
        const struct gyre_meta m = gyre_source_meta_at(p->source, i);
        if (is_own(p, m.key)) continue;
        const bool model = gyre_begins(m.key, p->hp.arch) && m.key[prefix] == '.';
        if (!model && !gyre_begins(m.key, "general.") && !gyre_begins(m.key, "tokenizer.")) continue;
        gyre_gguf_encoded(g, model ? key_of(p, m.key + prefix + 1).text : m.key, m.type, m.raw, m.raw_bytes);
    }
}

// What the source left to defaults.
static void fill_model_keys(const struct gyre_plan *p, struct gyre_gguf *g)
{
    const struct gyre_hparams *hp = &p->hp;
    const struct {
        const char *name;
        uint32_t value;
    } number[] = {
        {"context_length", hp->context},
        {"embedding_length", hp->width},
        {"block_count", hp->n_layers},
        {"feed_forward_length", hp->ffn},
        {"attention.head_count", hp->heads},
        {"attention.head_count_kv", hp->kv_heads},
        {"rope.dimension_count", hp->rope_dims},
        {"attention.key_length", hp->head_dim},
        {"attention.value_length", hp->head_dim},
        {"vocab_size", hp->vocab},
    };
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        gyre_gguf_u32(g, key_of(p, number[i].name).text, number[i].value);
    gyre_gguf_f32(g, key_of(p, "attention.layer_norm_rms_epsilon").text, hp->norm_eps);
    gyre_gguf_f32(g, key_of(p, "rope.freq_base").text, (float)hp->rope_base);
    if (hp->rope_scaling == GYRE_ROPE_LONG) // where config.json leaves it to the ratio of the contexts, others take 1
        gyre_gguf_f32(g, key_of(p, "rope.scaling.attn_factor").text, hp->rope_mscale);
    if (p->window_period) gyre_gguf_u32(g, key_of(p, "attention.sliding_window_pattern").text, p->window_period);
}

static void put_factors(struct gyre_gguf *g, const char *key, const struct gyre_hadamard *h)
{
    if (h->n) gyre_gguf_u32_array(g, key, (const uint32_t[]){h->n, h->k[0], h->k[1], h->k[2], h->p}, 5);
}

// The oldest version that knows all that the file has.
static uint32_t version_of(const struct gyre_plan *p)
{
    uint32_t version = p->hp.family->version;
    if (p->online.head_mix || p->online.r1.n) version = GYRE_MAX(version, (uint32_t)GYRE_MIX_VERSION);
    if (p->set.kv != p->set.kv_v) version = GYRE_MAX(version, (uint32_t)GYRE_WIDTHS_VERSION);
    if (p->hp.rope_untruncated) version = GYRE_MAX(version, (uint32_t)GYRE_YARN_VERSION);
    if (p->set.taps) version = GYRE_MAX(version, (uint32_t)GYRE_TAPS_VERSION);
    return version;
}

static void put_taps(const struct gyre_plan *p, struct gyre_gguf *g)
{
    uint32_t bits[GYRE_MAX_LAYERS * GYRE_TAPS], n = 0;
    for (uint32_t l = 0; l < p->hp.n_layers; l++)
        for (int i = 0; i < GYRE_TAPS; i++) bits[n++] = gyre_plan_act(p, l, (gyre_product)i);
    gyre_gguf_u32_array(g, "gyre.tap_bits", bits, n);
    if (p->choice.tap_clip != p->choice.act_clip) gyre_gguf_f32(g, "gyre.tap_clip", p->choice.tap_clip);
}

static void put_meta(void *user, const struct gyre_meta *m)
{
    struct gyre_gguf *g = user;
    gyre_gguf_encoded(g, m->key, m->type, m->raw, m->raw_bytes);
}

gyre_status gyre_gguf_metadata(const struct gyre_plan *p, struct gyre_gguf *g, gyre_error *err)
{
    gyre_gguf_string(g, "general.architecture", key_of(p, "").text);
    if (!p->set.full)
        gyre_gguf_u32(g, "general.file_type",
                      p->set.wbits == 4    ? 2
                      : p->set.wbits == 8  ? 7
                      : p->set.wbits == 16 ? 1
                                           : 0); // ggml's ids
    gyre_gguf_u32(g, "general.quantization_version", 2);
    gyre_gguf_u32(g, "gyre.version", version_of(p));
    gyre_gguf_string(g, "gyre.recipe", p->set.recipe.name);
    gyre_gguf_string(g, "gyre.profile", p->set.full ? "full" : "portable");
    gyre_gguf_u64(g, "gyre.seed", p->set.seed);
    if (p->choice.seed != p->set.seed) gyre_gguf_u64(g, "gyre.rotation_seed", p->choice.seed);
    gyre_gguf_u32(g, "gyre.wbits", p->set.wbits);
    gyre_gguf_u32(g, "gyre.wgroup", gyre_recipe_declared_group(&p->set.recipe, p->set.full, p->set.wgroup));
    gyre_gguf_u32(g, "gyre.act_bits", p->set.act);
    gyre_gguf_u32(g, "gyre.kv_bits", p->set.kv);
    if (p->set.kv_v != p->set.kv) gyre_gguf_u32(g, "gyre.kv_bits_v", p->set.kv_v);
    gyre_gguf_f32(g, "gyre.act_clip", p->choice.act_clip);
    gyre_gguf_f32(g, "gyre.kv_clip", p->choice.kv_clip);
    if (p->choice.kv_clip_v != p->choice.kv_clip) gyre_gguf_f32(g, "gyre.kv_clip_v", p->choice.kv_clip_v);
    if (p->set.taps) put_taps(p, g);
    if (p->set.recipe.act_group) gyre_gguf_u32(g, "gyre.act_group", p->set.recipe.act_group);
    gyre_gguf_bool(g, "gyre.rope_interleaved", p->hp.rope_interleaved);
    if (p->set.recipe.kv_centre) gyre_gguf_bool(g, "gyre.kv_centre", true);
    if (p->writes_clips) gyre_gguf_bool(g, "gyre.learned_clips", true);
    if (p->online.r1.n) gyre_gguf_bool(g, "gyre.r1", true);
    gyre_gguf_bool(g, "gyre.r3", p->online.r3);
    gyre_gguf_bool(g, "gyre.r4", p->online.r4.n != 0);
    gyre_gguf_bool(g, "gyre.head_rotation", p->online.head.n != 0);
    if (p->online.head_mix) gyre_gguf_bool(g, "gyre.head_mix", true);
    put_factors(g, "gyre.r1.factors", &p->online.r1);
    put_factors(g, "gyre.r3.factors", &p->online.r3_had);
    put_factors(g, "gyre.r4.factors", &p->online.r4);
    put_factors(g, "gyre.head.factors", &p->online.head);
    copy_source(p, g);
    GYRE_TRY(gyre_tokenizer_write(p->source, p->hp.vocab, !p->set.full, put_meta, g, err));
    fill_model_keys(p, g);
    return GYRE_OK;
}
