// Reads and checks the hyper-parameters that all architectures share. Every number is range-checked here, so that the
// graph and the loader may trust them; what the graph cannot do is refused by name. The rest: rope.c, rotations.c,
// arch_*.c.
#include "runtime/model/hparams_impl.h"
#include "runtime/model/arch.h"
#include "runtime/model/linear.h"
#include "runtime/model/roles.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gyre_status read_arch(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    const char *arch = NULL;
    GYRE_TRY(gyre_source_string(source, "general.architecture", &arch, err));
    if (!arch)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): general.architecture is missing",
                         gyre_source_path(source));
    hp->family = gyre_arch_find(arch, gyre_source_container(source));
    if (!hp->family || strlen(arch) >= sizeof hp->arch) {
        char known[256];
        gyre_arch_list(known, sizeof known);
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): architecture \"%s\"; gyre runs %s%s",
                         gyre_source_path(source), gyre_show(arch, strlen(arch)).text, known,
                         gyre_source_container(source) == GYRE_CONTAINER_GGUF ? ", and its own files of them" : "");
    }
    strcpy(hp->arch, arch);
    hp->full = !strncmp(arch, "gyre-", 5);
    return GYRE_OK;
}

gyre_status gyre_model_open(const char *path, gyre_source **out, gyre_error *err)
{
    gyre_error why = {0}, of_arch = {0};
    const gyre_status st = gyre_source_open(path, out, &why);
    gyre_source *seen = NULL;
    struct gyre_hparams hp = {0};
    if (st == GYRE_E_UNSUPPORTED && gyre_source_look(path, &seen, NULL) == GYRE_OK &&
        read_arch(seen, &hp, &of_arch) == GYRE_E_UNSUPPORTED)
        why = of_arch;
    gyre_source_close(seen);
    if (err && st != GYRE_OK) *err = why;
    return st;
}

// A key with a whole number that must be `neutral` (or absent), since gyre does not implement what it switches on.
static gyre_status refuse_unless(const gyre_source *source, const struct gyre_hparams *hp, const char *name,
                                 uint64_t neutral, const char *what, gyre_error *err)
{
    char key[96];
    uint64_t value = neutral;
    gyre_hparam_key(hp, name, key);
    GYRE_TRY(gyre_source_u64(source, key, &value, NULL, err));
    if (value == neutral) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): %s is %llu; gyre does not do %s",
                     gyre_source_path(source), key, (unsigned long long)value, what);
}

static gyre_status read_sizes(const gyre_source *source, struct gyre_hparams *hp, uint32_t *value_dim, gyre_error *err)
{
    char key[96];
    uint64_t n_tokens;
    struct gyre_string *tokens;
#define U32(name, optional, min, max, field)                                                                           \
    do {                                                                                                               \
        gyre_hparam_key(hp, name, key);                                                                                \
        GYRE_TRY(gyre_hparam_u32(source, key, optional, min, max, field, err));                                        \
    } while (0)
    U32("block_count", false, 1, GYRE_MAX_LAYERS, &hp->n_layers);
    U32("embedding_length", false, 8, 1 << 16, &hp->width);
    U32("attention.head_count", false, 1, 1024, &hp->heads);
    hp->kv_heads = hp->heads;
    U32("attention.head_count_kv", true, 1, 1024, &hp->kv_heads);
    hp->head_dim = hp->width / hp->heads;
    U32("attention.key_length", true, 8, 256, &hp->head_dim);
    *value_dim = hp->head_dim;
    U32("attention.value_length", true, 8, 256, value_dim);
    U32("feed_forward_length", false, 8, 1 << 20, &hp->ffn);
    U32("context_length", false, 1, 1 << 26, &hp->context);
    GYRE_TRY(gyre_source_array_strings(source, "tokenizer.ggml.tokens", &tokens, &n_tokens, err));
    const bool has_tokens = tokens != NULL && n_tokens <= 1 << 24;
    free(tokens);
    if (has_tokens) hp->vocab = (uint32_t)n_tokens;
    else U32("vocab_size", false, 1, 1 << 24, &hp->vocab);
#undef U32
    return GYRE_OK;
}

static gyre_status check_sizes(const char *path, const struct gyre_hparams *hp, uint32_t value_dim, gyre_error *err)
{
    if (hp->heads % hp->kv_heads)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): %u attention heads are not a multiple of %u key/value heads", path,
                         hp->heads, hp->kv_heads);
    if (hp->head_dim % 8 || hp->head_dim < 8 || hp->head_dim > 256 || value_dim != hp->head_dim)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot use model (%s): head size %u (values %u); gyre supports equal multiples of 8 up to 256", path,
            hp->head_dim, value_dim);
    if (hp->width % 8 || hp->ffn % 8)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): width %u and feed-forward width %u; gyre supports multiples of 8",
                         path, hp->width, hp->ffn);
    if (hp->vocab == 0) return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): the vocabulary is empty", path);
    return GYRE_OK;
}

static gyre_status read_rope_dims(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    const char *path = gyre_source_path(source);
    uint64_t rope_dims = hp->head_dim;
    gyre_hparam_key(hp, "rope.dimension_count", key);
    GYRE_TRY(gyre_source_u64(source, key, &rope_dims, NULL, err));
    if (rope_dims > hp->head_dim || rope_dims % 2 || !rope_dims)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): %s is %llu; gyre turns an even number of dimensions, up to the head "
                         "size of %u",
                         path, key, (unsigned long long)rope_dims, hp->head_dim);
    if (rope_dims != hp->head_dim && !hp->family->partial_rope)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): %s is %llu, the head size %u; %s turns whole heads", path, key,
                         (unsigned long long)rope_dims, hp->head_dim, hp->family->name);
    hp->rope_dims = (uint32_t)rope_dims;
    return GYRE_OK;
}

// The activation of the gated unit, which config.json names and GGUF implies.
static gyre_status check_activation(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    const char *const due = hp->family->act ? hp->family->act : "silu", *act = due;
    gyre_hparam_key(hp, "hidden_act", key);
    GYRE_TRY(gyre_source_string(source, key, &act, err));
    if (strcmp(act, due))
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): hidden_act is %s; %s has %s",
                         gyre_source_path(source), gyre_show(act, strlen(act)).text, hp->arch, due);
    return GYRE_OK;
}

static gyre_status check_causal(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    bool causal = true;
    gyre_hparam_key(hp, "attention.causal", key);
    GYRE_TRY(gyre_source_bool(source, key, &causal, NULL, err));
    if (causal) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): %s is false; gyre attends to what came before",
                     gyre_source_path(source), key);
}

static gyre_status read_shapes(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    uint32_t value_dim;
    GYRE_TRY(read_sizes(source, hp, &value_dim, err));
    GYRE_TRY(check_sizes(gyre_source_path(source), hp, value_dim, err));
    GYRE_TRY(read_rope_dims(source, hp, err));
    GYRE_TRY(check_activation(source, hp, err));
    GYRE_TRY(check_causal(source, hp, err));
    return refuse_unless(source, hp, "expert_count", 0, "mixtures of experts", err);
}

// The keys that gyre writes, and the gyre.version from which on they mean something.
static const struct {
    const char *key;
    uint32_t version;
} gyre_keys[] = {
    {"gyre.version", 1},
    {"gyre.recipe", 1},
    {"gyre.profile", 1},
    {"gyre.seed", 1},
    {"gyre.rotation_seed", 1},
    {"gyre.wbits", 1},
    {"gyre.wgroup", 1},
    {"gyre.act_bits", 1},
    {"gyre.kv_bits", 1},
    {"gyre.act_clip", 1},
    {"gyre.kv_clip", 1},
    {"gyre.act_group", 1},
    {"gyre.kv_bits_v", GYRE_WIDTHS_VERSION},
    {"gyre.kv_clip_v", GYRE_WIDTHS_VERSION},
    {"gyre.tap_bits", GYRE_TAPS_VERSION},
    {"gyre.tap_clip", GYRE_TAPS_VERSION},
    {"gyre.rope_interleaved", 1},
    {"gyre.kv_centre", 1},
    {"gyre.r3", 1},
    {"gyre.r4", 1},
    {"gyre.head_rotation", 1},
    {"gyre.r3.factors", 1},
    {"gyre.r4.factors", 1},
    {"gyre.head.factors", 1},
    {"gyre.learned_clips", 1},
    {"gyre.head_mix", GYRE_MIX_VERSION},
    {"gyre.r1", GYRE_MIX_VERSION},
    {"gyre.r1.factors", GYRE_MIX_VERSION},
};

// A key that its version does not know would change the model for a reader that does: ignoring it gives another one.
static gyre_status read_version(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err)
{
    const char *path = gyre_source_path(source);
    uint64_t version = 0;
    bool found;
    GYRE_TRY(gyre_source_u64(source, "gyre.version", &version, &found, err));
    if (!found && !hp->full) return GYRE_OK;
    if (!found) return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): gyre.version is missing", path);
    if (version < 1 || version > GYRE_FILE_VERSION)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): gyre.version is %llu, this gyre knows 1 to %d; use a newer gyre", path,
                         (unsigned long long)version, GYRE_FILE_VERSION);
    if (hp->full && version < hp->family->version)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): gyre.version is %llu, which knows no %s; it is %u there", path,
                         (unsigned long long)version, hp->arch, hp->family->version);
    for (uint64_t i = 0; i < gyre_source_meta_count(source); i++) {
        const char *key = gyre_source_meta_at(source, i).key;
        size_t k = 0;
        if (strncmp(key, "gyre.", 5)) continue;
        while (k < GYRE_COUNT(gyre_keys) && (strcmp(gyre_keys[k].key, key) || gyre_keys[k].version > version)) k++;
        if (k == GYRE_COUNT(gyre_keys))
            return gyre_fail(
                err, GYRE_E_UNSUPPORTED,
                "cannot use model (%s): gyre.version %llu knows no key %s; the file is damaged, or a newer "
                "gyre wrote it",
                path, (unsigned long long)version, gyre_show(key, strlen(key)).text);
    }
    return GYRE_OK;
}

// Bits of single taps: gyre.tap_bits, [blocks][taps].
static gyre_status read_taps(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    _Static_assert((int)GYRE_TAPS == (int)GYRE_PRODUCTS, "a tap a product");
    const char *path = gyre_source_path(source);
    int64_t *bits = NULL;
    uint64_t n = 0, due = (uint64_t)hp->n_layers * GYRE_TAPS;
    gyre_status st = GYRE_OK;
    if (!gyre_source_has(source, "gyre.tap_bits")) return GYRE_OK;
    GYRE_TRY(gyre_source_array_i64(source, "gyre.tap_bits", &bits, &n, err));
    if (n != due)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot use model (%s): gyre.tap_bits has %llu values; %u blocks have %llu taps", path,
                          (unsigned long long)n, hp->n_layers, (unsigned long long)due));
    if (hp->act_bits == 16)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot use model (%s): gyre.tap_bits beside a gyre.act_bits of 16, which rounds nothing",
                          path));
    for (uint64_t i = 0; i < n; i++) {
        if (bits[i] < 0 || bits[i] > 16 || !gyre_is_width((uint32_t)bits[i]))
            GYRE_GO(gyre_fail(err, GYRE_E_UNSUPPORTED,
                              "cannot use model (%s): gyre.tap_bits has %lld in block %llu; gyre supports 4, 8 and 16",
                              path, (long long)bits[i], (unsigned long long)(i / GYRE_TAPS)));
        const bool own = (uint32_t)bits[i] != hp->act_bits;
        hp->kind[i / GYRE_TAPS].act[i % GYRE_TAPS] = own ? (uint8_t)bits[i] : 0;
    }
done:
    free(bits);
    return st;
}

// What gyre's own files add, in both profiles.
static gyre_status read_gyre_keys(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    double act_clip = 1, kv_clip = 1, kv_clip_v, tap_clip;
    const char *path = gyre_source_path(source);
    hp->act_bits = hp->kv_bits = 16;
    GYRE_TRY(read_version(source, hp, err));
    GYRE_TRY(gyre_hparam_u32(source, "gyre.act_bits", true, 4, 16, &hp->act_bits, err));
    GYRE_TRY(gyre_hparam_u32(source, "gyre.kv_bits", true, 4, 16, &hp->kv_bits, err));
    hp->kv_bits_v = hp->kv_bits; // values are as keys, where nothing else is said
    GYRE_TRY(gyre_hparam_u32(source, "gyre.kv_bits_v", true, 4, 16, &hp->kv_bits_v, err));
    static const char *const widths[] = {"act_bits", "kv_bits", "kv_bits_v"};
    const uint32_t bits[] = {hp->act_bits, hp->kv_bits, hp->kv_bits_v};
    for (int i = 0; i < 3; i++)
        if (!gyre_is_width(bits[i]))
            return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): gyre.%s is %u; gyre supports 4, 8 and 16",
                             path, widths[i], bits[i]);
    GYRE_TRY(gyre_hparam_f64(source, "gyre.act_clip", true, 0.05, 1, &act_clip, err));
    GYRE_TRY(gyre_hparam_f64(source, "gyre.kv_clip", true, 0.05, 1, &kv_clip, err));
    kv_clip_v = kv_clip;
    GYRE_TRY(gyre_hparam_f64(source, "gyre.kv_clip_v", true, 0.05, 1, &kv_clip_v, err));
    tap_clip = act_clip;
    GYRE_TRY(gyre_hparam_f64(source, "gyre.tap_clip", true, 0.05, 1, &tap_clip, err));
    GYRE_TRY(read_taps(source, hp, err));
    hp->act_clip = (float)act_clip;
    hp->tap_clip = (float)tap_clip;
    hp->kv_clip = (float)kv_clip;
    hp->kv_clip_v = (float)kv_clip_v;
    GYRE_TRY(gyre_hparam_u32(source, "gyre.act_group", true, 0, 128, &hp->act_group, err));
    if (hp->act_group && (hp->act_group < 16 || (hp->act_group & (hp->act_group - 1))))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): gyre.act_group is %u; gyre supports 0, 16, 32, 64 and 128", path,
                         hp->act_group);
    hp->wgroup_declared = gyre_source_has(source, "gyre.wgroup");
    GYRE_TRY(gyre_hparam_u32(source, "gyre.wgroup", true, 0, 128, &hp->wgroup, err));
    const uint32_t g = hp->wgroup;
    if (g != 0 && g != 32 && g != 64 && g != 128)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): gyre.wgroup is %u; gyre supports 0, 32, 64 and 128", path, g);
    if (g && (hp->width % g || hp->ffn % g || hp->heads * hp->head_dim % g))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): groups of %u do not divide its widths %u and %u",
                         path, g, hp->width, hp->ffn);
    bool found;
    GYRE_TRY(gyre_source_bool(source, "gyre.rope_interleaved", &hp->rope_interleaved, &found, err));
    if (!hp->full) return gyre_source_has(source, "gyre.r4") ? gyre_rotations_read(source, hp, err) : GYRE_OK;
    if (!found) return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): gyre.rope_interleaved is missing", path);
    GYRE_TRY(gyre_source_bool(source, "gyre.kv_centre", &hp->kv_centre, NULL, err));
    GYRE_TRY(gyre_source_bool(source, "gyre.learned_clips", &hp->learned_clips, NULL, err));
    return gyre_rotations_read(source, hp, err);
}

// config.json says whether there are biases: then they must be there.
static gyre_status read_bias_switches(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    static const struct {
        const char *name;
        uint32_t roles;
    } kinds[] = {
        {"attention_bias", GYRE_ROLE_BIT(GYRE_ROLE_q) | GYRE_ROLE_BIT(GYRE_ROLE_k) | GYRE_ROLE_BIT(GYRE_ROLE_v) |
                               GYRE_ROLE_BIT(GYRE_ROLE_o)},
        {"mlp_bias", GYRE_ROLE_BIT(GYRE_ROLE_gate) | GYRE_ROLE_BIT(GYRE_ROLE_up) | GYRE_ROLE_BIT(GYRE_ROLE_down)},
    };
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
        char key[96];
        bool on = false;
        gyre_hparam_key(hp, kinds[i].name, key);
        GYRE_TRY(gyre_source_bool(source, key, &on, NULL, err));
        if (!on) continue;
        if (!(hp->family->may_bias & kinds[i].roles))
            return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): %s is true; a %s has none",
                             gyre_source_path(source), key, hp->family->name);
        hp->biases |= kinds[i].roles;
    }
    return GYRE_OK;
}

gyre_status gyre_hparams_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    char key[96];
    double eps = 0;
    *hp = (struct gyre_hparams){0};
    GYRE_GO(read_arch(source, hp, err));
    GYRE_GO(read_shapes(source, hp, err));
    gyre_hparam_key(hp, "attention.layer_norm_rms_epsilon", key);
    GYRE_GO(gyre_hparam_f64(source, key, false, 0, 1, &eps, err));
    hp->norm_eps = hp->stream_eps = (float)eps;
    hp->embed_scale = hp->logit_divisor = 1;
    hp->roles = hp->family->roles;
    hp->biases = hp->family->biases;
    for (int r = 0; r < GYRE_LINEARS && gyre_source_container(source) == GYRE_CONTAINER_GGUF; r++)
        if (hp->family->may_bias & GYRE_ROLE_BIT(r) && gyre_role_finds_bias(source, hp, (gyre_role)r, 0))
            hp->biases |= GYRE_ROLE_BIT(r);
    GYRE_GO(read_bias_switches(source, hp, err));
    hp->rope_base = 10000;
    gyre_hparam_key(hp, "rope.freq_base", key);
    GYRE_GO(gyre_hparam_f64(source, key, true, 1, 1e12, &hp->rope_base, err));
    GYRE_GO(gyre_rope_read(source, hp, err));
    hp->rope_interleaved = hp->family->paired_rows && gyre_source_container(source) == GYRE_CONTAINER_GGUF;
    hp->tied = !gyre_linear_there(source, hp, GYRE_ROLE_head, 0);
    if (hp->tied && gyre_source_untied(source))
        GYRE_GO(gyre_fail(
            err, GYRE_E_FORMAT,
            "cannot use model (%s): tensor lm_head.weight is missing, and config.json says that it is not tied",
            gyre_source_path(source)));
    if (hp->family->read) GYRE_GO(hp->family->read(source, hp, err));
    GYRE_GO(read_gyre_keys(source, hp, err));
done:
    if (st != GYRE_OK) gyre_hparams_free(hp);
    return st;
}
