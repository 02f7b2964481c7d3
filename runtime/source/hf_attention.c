// What config.json says of attention: RoPE and its scaling, in both spellings (transformers 4 and 5), windows, and what
// differs between layers.
#include "runtime/source/hf_attention.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double yarn_factor(double factor, double m) { return factor > 1 ? 0.1 * m * log(factor) + 1 : 1; }

// What q and k are multiplied by. transformers gives the whole factor, GGUF with YaRN what goes beside 0.1 ln(factor) +
// 1; `original`: the context that scaling starts from.
static gyre_status put_factor_of_attention(struct config *c, const json_t *rope, const char *type, double factor,
                                           double original)
{
    double whole = 0, m = 0, all = 0;
    const bool yarn = !strcmp(type, "yarn"), longrope = !strcmp(type, "longrope");
    GYRE_TRY(gyre_hf_real(c, rope, "attention_factor", &whole));
    GYRE_TRY(gyre_hf_real(c, rope, "mscale", &m));
    GYRE_TRY(gyre_hf_real(c, rope, "mscale_all_dim", &all));
    if (!yarn && !longrope)
        return whole != 0 && whole != 1 ? gyre_hf_refuse(c, "attention_factor", "not 1", "1, or another with yarn")
                                        : GYRE_OK;
    if (longrope && whole == 0 && factor > 0)
        whole = factor > 1 && original > 1 ? sqrt(1 + log(factor) / log(original)) : 1;
    if (yarn && whole == 0 && m != 0 && all != 0) whole = yarn_factor(factor, m) / yarn_factor(factor, all);
    if (whole == 0) return GYRE_OK;
    return gyre_hf_put_f32(c, "rope.scaling.attn_factor", yarn ? whole / yarn_factor(factor, 1) : whole);
}

// LongRoPE's divisors.
static gyre_status put_divisors(struct config *c, const json_t *rope, const char *field, const char *name)
{
    const json_t *list = gyre_hf_get(rope, field);
    const size_t n = json_array_size(list);
    float values[1024];
    bool good = n > 0 && n <= GYRE_COUNT(values);
    for (size_t i = 0; good && i < n; i++) {
        good = json_is_number(json_array_get(list, i));
        values[i] = (float)json_number_value(json_array_get(list, i));
    }
    if (good) return gyre_hf_put_list(c, name, GYRE_META_F32, values, n);
    return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s of the RoPE is no list of numbers",
                     c->source->path, field);
}

// The context that scaling starts from stands beside or inside; beside counts. A phi3 has one beside in any case; where
// there is none it is the whole context.
static gyre_status put_original(struct config *c, const json_t *rope, double *original)
{
    const char *const field = "original_max_position_embeddings", *const key = "rope.scaling.original_context_length";
    const bool beside = gyre_hf_get(c->json, field) != NULL, inside = gyre_hf_get(rope, field) != NULL;
    if (!beside && !strcmp(c->type, "phi3")) return gyre_hf_put_u32(c, key, (uint32_t)(*original = 4096));
    const json_t *const where = beside || !inside ? c->json : rope;
    const char *const name = beside || inside ? field : "max_position_embeddings";
    GYRE_TRY(gyre_hf_real(c, where, name, original));
    return gyre_hf_put_count(c, where, name, key);
}

// The scaling, of a type that has one.
static gyre_status put_scaling(struct config *c, const json_t *rope, const char *type)
{
    double factor = 0, original = 0, most = 0;
    const bool longrope = !strcmp(type, "longrope");
    // Up to max_position_embeddings, beyond which no context of gyre's reaches, these scale nothing.
    if (!strcmp(type, "dynamic")) return GYRE_OK;
    if (strcmp(type, "linear") && strcmp(type, "llama3") && strcmp(type, "yarn") && !longrope)
        return gyre_hf_refuse(c, "rope type", type, "default, linear, llama3, yarn, longrope and dynamic");
    if (!strcmp(type, "yarn")) {
        bool truncate = true;
        GYRE_TRY(gyre_hf_bool(c->source, rope, "truncate", &truncate, c->err));
        if (!truncate) GYRE_TRY(gyre_hf_put(c, "rope.scaling.yarn_truncate", GYRE_META_BOOL, &truncate, 1));
    }
    GYRE_TRY(gyre_hf_put_text(c, gyre_hf_key(c, "rope.scaling.type").text, type));
    GYRE_TRY(put_original(c, rope, &original));
    GYRE_TRY(gyre_hf_real(c, rope, "factor", &factor));
    GYRE_TRY(gyre_hf_real(c, c->json, "max_position_embeddings", &most));
    if (factor == 0 && !strcmp(type, "yarn") && original > 0) factor = most / original;
    if (factor == 0 && !longrope)
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): rope_scaling.factor is missing",
                         c->source->path);
    if (!longrope) GYRE_TRY(gyre_hf_put_f32(c, "rope.scaling.factor", factor));
    GYRE_TRY(gyre_hf_put_real(c, rope, "low_freq_factor", "rope.scaling.low_freq_factor", NULL));
    GYRE_TRY(gyre_hf_put_real(c, rope, "high_freq_factor", "rope.scaling.high_freq_factor", NULL));
    GYRE_TRY(gyre_hf_put_real(c, rope, "beta_fast", "rope.scaling.yarn_beta_fast", NULL));
    GYRE_TRY(gyre_hf_put_real(c, rope, "beta_slow", "rope.scaling.yarn_beta_slow", NULL));
    if (longrope) {
        GYRE_TRY(put_divisors(c, rope, "short_factor", "rope.scaling.short_factor"));
        GYRE_TRY(put_divisors(c, rope, "long_factor", "rope.scaling.long_factor"));
    }
    return put_factor_of_attention(c, rope, type, factor, original);
}

// How many dimensions of a head are turned.
static gyre_status put_turned(struct config *c, const json_t *rope)
{
    double part = 1, width = 0, heads = 1, head = 0;
    GYRE_TRY(gyre_hf_real(c, c->json, "partial_rotary_factor", &part));
    GYRE_TRY(gyre_hf_real(c, rope, "partial_rotary_factor", &part));
    GYRE_TRY(gyre_hf_real(c, c->json, "hidden_size", &width));
    GYRE_TRY(gyre_hf_real(c, c->json, "num_attention_heads", &heads));
    GYRE_TRY(gyre_hf_real(c, c->json, "head_dim", &head));
    if (head == 0 && heads > 0) head = floor(width / heads);
    if (!(part > 0 && part <= 1)) return gyre_hf_refuse(c, "partial_rotary_factor", "not in 0..1", "0..1");
    return part < 1 ? gyre_hf_put_u32(c, "rope.dimension_count", (uint32_t)(head * part)) : GYRE_OK;
}

static gyre_status rope_type(struct config *c, const json_t *rope, const char **out)
{
    const json_t *type = gyre_hf_get(rope, "rope_type");
    if (!type) type = gyre_hf_get(rope, "type");
    *out = "default";
    if (!type)
        return gyre_hf_get(rope, "factor")
                   ? gyre_hf_refuse(c, "rope_scaling", "a factor without a type", "a type beside it")
                   : GYRE_OK;
    if (!json_is_string(type))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): the rope type is no string",
                         c->source->path);
    *out = json_string_value(type);
    // Phi-3's first files have other names for it.
    if (!strcmp(c->type, "phi3") && (!strcmp(*out, "su") || !strcmp(*out, "yarn"))) *out = "longrope";
    return GYRE_OK;
}

// The RoPE of windowed layers where it is another: its base alone, without scaling.
static gyre_status put_local(struct config *c, const json_t *local)
{
    const char *type;
    bool base = false;
    GYRE_TRY(rope_type(c, local, &type));
    if (strcmp(type, "default")) return gyre_hf_refuse(c, "rope type of windowed layers", type, "default");
    GYRE_TRY(gyre_hf_put_real(c, local, "rope_theta", "rope.freq_base_swa", &base));
    return base ? GYRE_OK : gyre_hf_put_real(c, c->json, "rope_local_base_freq", "rope.freq_base_swa", NULL);
}

static gyre_status put_rope(struct config *c)
{
    // transformers 5 writes rope_parameters with the base inside (one by kind of layer, where they differ), 4 writes
    // rope_scaling beside rope_theta.
    const json_t *rope = gyre_hf_get(c->json, "rope_parameters"), *old = gyre_hf_get(c->json, "rope_scaling");
    const char *type;
    bool base = false;
    if (rope && old && !json_equal(rope, old))
        return gyre_hf_refuse(c, "rope_scaling", "not what rope_parameters is", "one of them");
    if (!rope) rope = old;
    if (rope && !json_is_object(rope))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): the rope parameters are no object",
                         c->source->path);
    const json_t *full = gyre_hf_get(rope, "full_attention"), *local = gyre_hf_get(rope, "sliding_attention");
    if ((full && !json_is_object(full)) || (local && !json_is_object(local)))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): the rope parameters are no object",
                         c->source->path);
    GYRE_TRY(put_local(c, local));
    if (full || local) rope = full;
    if (!rope && !strcmp(c->type, "ministral3")) // transformers then takes the numbers of one of them
        return gyre_hf_refuse(c, "rope_parameters", "missing", "models that say theirs");
    GYRE_TRY(gyre_hf_put_real(c, rope, "rope_theta", "rope.freq_base", &base));
    if (!base) GYRE_TRY(gyre_hf_put_real(c, c->json, "rope_theta", "rope.freq_base", &base));
    if (!base && !strcmp(c->type, "smollm3")) GYRE_TRY(gyre_hf_put_f32(c, "rope.freq_base", 2e6)); // their defaults
    if (!base && !strcmp(c->type, "gemma3_text")) GYRE_TRY(gyre_hf_put_f32(c, "rope.freq_base", 1e6));
    GYRE_TRY(put_turned(c, rope));
    GYRE_TRY(rope_type(c, rope, &type));
    // Queries grow whatever the scaling is, in steps of the context that it starts from, or would.
    GYRE_TRY(gyre_hf_put_real(c, rope, "llama_4_scaling_beta", "attention.temperature_scale", NULL));
    const bool scales = strcmp(type, "default") && strcmp(type, "dynamic");
    if (!scales && gyre_hf_get(rope, "llama_4_scaling_beta"))
        GYRE_TRY(
            gyre_hf_put_count(c, rope, "original_max_position_embeddings", "rope.scaling.original_context_length"));
    return strcmp(type, "default") ? put_scaling(c, rope, type) : GYRE_OK;
}

// ---- layers -----------------------------------------------------------------------------------------------------

// Flags of layers; `flag` says what an element means: 0, 1, or below 0 for what gyre does not do.
static gyre_status put_flags(struct config *c, const char *field, const json_t *list, const char *name,
                             int (*flag)(const json_t *), const char *supported)
{
    const size_t n = json_array_size(list);
    if (!json_is_array(list))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no list", c->source->path,
                         field);
    int32_t *values = malloc((n + 1) * sizeof *values);
    gyre_status st = GYRE_OK;
    if (!values) return gyre_fail(c->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", c->source->path);
    for (size_t i = 0; i < n && st == GYRE_OK; i++) {
        const json_t *value = json_array_get(list, i);
        values[i] = flag(value);
        if (values[i] < 0)
            st = gyre_hf_refuse(c, field, json_is_string(value) ? json_string_value(value) : "of another kind",
                                supported);
    }
    if (st == GYRE_OK && n) st = gyre_hf_put_list(c, name, GYRE_META_I32, values, n);
    free(values);
    return st;
}

static int is_windowed(const json_t *kind)
{
    const char *text = json_string_value(kind);
    if (!text) return -1;
    if (!strcmp(text, "sliding_attention")) return 1;
    return !strcmp(text, "full_attention") || !strcmp(text, "attention") ? 0 : -1;
}

static int is_turned(const json_t *flag)
{
    if (json_is_boolean(flag)) return json_is_true(flag);
    return json_is_integer(flag) && (json_integer_value(flag) == 0 || json_integer_value(flag) == 1)
               ? (int)json_integer_value(flag)
               : -1;
}

// Layers from number `first` on have the window.
static gyre_status put_windows_from(struct config *c, double first)
{
    double layers = 0;
    int32_t values[1024];
    GYRE_TRY(gyre_hf_real(c, c->json, "num_hidden_layers", &layers));
    if (!(layers >= 1 && layers <= (double)GYRE_COUNT(values))) return GYRE_OK; // hparams_read.c refuses it
    for (int i = 0; i < (int)layers; i++) values[i] = i >= first;
    return gyre_hf_put_list(c, "attention.sliding_window_pattern", GYRE_META_I32, values, (uint64_t)layers);
}

// A SmolLM3's layers that are not turned have the window: those of the list, or each so many-th.
static gyre_status put_windows_unturned(struct config *c)
{
    const json_t *turned = gyre_hf_get(c->json, "no_rope_layers");
    double layers = 0, interval = 4;
    int32_t values[1024];
    GYRE_TRY(gyre_hf_real(c, c->json, "num_hidden_layers", &layers));
    GYRE_TRY(gyre_hf_real(c, c->json, "no_rope_layer_interval", &interval));
    const bool sane = layers >= 1 && layers <= (double)GYRE_COUNT(values) && interval >= 1 && interval < 1 << 20;
    if (!sane) return GYRE_OK; // hparams_read.c refuses it
    for (int i = 0; i < (int)layers; i++)
        values[i] = turned ? is_turned(json_array_get(turned, (size_t)i)) == 0 : (i + 1) % (int)interval == 0;
    return gyre_hf_put_list(c, "attention.sliding_window_pattern", GYRE_META_I32, values, (uint64_t)layers);
}

static gyre_status put_windows(struct config *c)
{
    if (!strcmp(c->type, "llama")) return GYRE_OK; // it has none, whatever a config carries along
    // Families with a switch leave the window off without it; to others the switch is nothing, to two the list either.
    const bool switched = !strncmp(c->type, "qwen", 4) || !strcmp(c->type, "smollm3");
    const bool listed = strcmp(c->type, "phi3") && strcmp(c->type, "ministral3");
    const json_t *types = listed ? gyre_hf_get(c->json, "layer_types") : NULL;
    bool on = !switched;
    if (switched) GYRE_TRY(gyre_hf_bool(c->source, c->json, "use_sliding_window", &on, c->err));
    if (types)
        GYRE_TRY(put_flags(c, "layer_types", types, "attention.sliding_window_pattern", is_windowed,
                           "full_attention and sliding_attention"));
    if (!on && !types) return GYRE_OK;
    if (on || types) GYRE_TRY(gyre_hf_put_count(c, c->json, "sliding_window", "attention.sliding_window"));
    // Where the field is left out it is what transformers takes then; null is none (but in Gemma, which has windows).
    const bool gemma = !strcmp(c->type, "gemma3_text"),
               has_one = !strncmp(c->type, "qwen", 4) || !strcmp(c->type, "mistral") || !strcmp(c->type, "ministral");
    if (gemma ? !gyre_hf_get(c->json, "sliding_window") : has_one && !json_object_get(c->json, "sliding_window"))
        GYRE_TRY(gyre_hf_put_u32(c, "attention.sliding_window", 4096));
    if (types) return GYRE_OK;
    if (gemma) {
        const bool older = gyre_hf_get(c->json, "sliding_window_pattern") != NULL;
        return gyre_hf_put_count(c, c->json, older ? "sliding_window_pattern" : "_sliding_window_pattern",
                                 "attention.sliding_window_pattern");
    }
    if (!strcmp(c->type, "smollm3")) return put_windows_unturned(c);
    double first = switched ? 28 : 0;
    GYRE_TRY(gyre_hf_real(c, c->json, "max_window_layers", &first));
    return switched ? put_windows_from(c, first) : GYRE_OK;
}

gyre_status gyre_hf_attention(struct config *c)
{
    const char *position = "nope";
    const json_t *turned = gyre_hf_get(c->json, "no_rope_layers"); // 1: it is turned
    GYRE_TRY(put_rope(c));
    GYRE_TRY(put_windows(c));
    if (turned)
        GYRE_TRY(put_flags(c, "no_rope_layers", turned, "attention.rope_pattern", is_turned, "a list of 0 and 1"));
    else GYRE_TRY(gyre_hf_put_count(c, c->json, "no_rope_layer_interval", "attention.rope_pattern"));
    if (strcmp(c->type, "granitemoehybrid")) return GYRE_OK;
    GYRE_TRY(gyre_hf_text(c, "position_embedding_type", &position));
    if (strcmp(position, "rope") && strcmp(position, "nope"))
        return gyre_hf_refuse(c, "position_embedding_type", position, "rope and nope");
    return gyre_hf_put(c, "rope.scaling.finetuned", GYRE_META_BOOL, &(uint8_t){!strcmp(position, "rope")}, 1);
}
