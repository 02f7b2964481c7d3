// Decides what is rotated, what is tied and which tensors the file holds, in order. See plan.h and
// docs/model-format.md. How it is said in a
// container is the writer's.
#include "quantizer/file/plan.h"
#include "runtime/model/arch.h"
#include "runtime/model/clips.h"
#include "runtime/util/log.h"
#include "runtime/util/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- rotations --------------------------------------------------------------------------------------------

static bool is_constant(const float *x, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        if (x[i] != x[0]) return false;
    return true;
}

// An online R1 has its signs where a diagonal behind the norms would lie, and is a transform: a learned one is none.
unsigned gyre_plan_sites(const struct gyre_plan *p)
{
    const struct gyre_recipe *r = &p->set.recipe;
    const bool online = p->set.full && !p->folder;
    if (!r->rotate) return 0;
    return GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | (online ? GYRE_ROTATE_R4 : 0) |
           (online && r->online_r1 && r->diagonals.norm == 0 && !r->learn.method ? GYRE_ROTATE_ONLINE_R1 : 0);
}

static gyre_status plan_rotations(struct gyre_plan *p, gyre_error *err)
{
    const struct gyre_hparams *hp = &p->hp;
    const bool rotate = p->set.recipe.rotate, full = p->set.full;
    p->final_gain = malloc(hp->width * sizeof *p->final_gain);
    if (!p->final_gain) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the plan");
    gyre_role_vector_f32(hp, GYRE_ROLE_output_norm,
                         gyre_role_tensor(p->source, GYRE_ROLE_output_norm, 0, "weight", NULL), p->final_gain);
    GYRE_TRY(gyre_rotator_create(hp, p->choice.seed, rotate, gyre_plan_sites(p), &p->rotator, err));
    // compressed-tensors knows Sylvester's matrices: the largest that divides.
    if (rotate && full && p->folder) GYRE_TRY(gyre_hadamard_create(hp->ffn & -hp->ffn, &p->rotator.r4, err));
    p->write_head = !hp->tied || p->set.head4;
    p->fold_head = p->rotator.fold && p->write_head;
    if (!rotate) return GYRE_OK;
    const bool one = !p->write_head && full && !p->folder; // table for both ends
    if (p->rotator.online) {
        p->online.r1 = p->rotator.r1;
    } else if (one && p->set.recipe.learn.method && p->rotator.r1.n) { // the head undoes and redoes R1 around the gain
        p->online.head_mix = true;                                     // by one matrix, for R1 is no transform
    } else if (one) {
        p->online.head = p->rotator.r1;
        p->online.head_gain = p->final_gain;
    } else if (!p->write_head && p->rotator.r1.n &&
               !is_constant(p->final_gain, hp->width)) { // other tools know no transform at the head
        p->write_head = p->fold_head = true;
    }
    if (!full) return GYRE_OK;
    p->online.r4 = p->rotator.r4;
    const bool power = !(hp->head_dim & (hp->head_dim - 1));
    if (gyre_hadamard_segment(hp->head_dim) == hp->head_dim && (power || !p->folder)) {
        GYRE_TRY(gyre_hadamard_create(hp->head_dim, &p->r3, err));
        p->online.r3 = true;
        p->online.r3_had = p->r3;
    }
    return GYRE_OK;
}

// A plain file says llama3 scaling by a tensor of divisors, longrope is said by two.
static bool writes_divisors(const struct gyre_plan *p)
{
    if (p->folder) return false; // config.json does
    return p->hp.has_rope_freqs || p->hp.rope_scaling == GYRE_ROPE_LONG ||
           (p->hp.rope_scaling == GYRE_ROPE_LLAMA3 && !p->set.full);
}

// The period after which the last block of each is flagged (or not) unlike the others; 0: no period.
static uint32_t period_of(const struct gyre_hparams *hp, bool windows)
{
    for (uint32_t period = 1; period <= hp->n_layers; period++) {
        uint32_t i = 0;
        for (; i < hp->n_layers; i++) {
            const bool flag = windows ? hp->kind[i].windowed : hp->kind[i].turn != GYRE_TURN_NONE;
            if (flag != (i % period < period - 1)) break;
        }
        if (i == hp->n_layers) return period;
    }
    return 0;
}

// What other tools would read another way in a plain file of this model; NULL: nothing.
static const char *unsayable(const struct gyre_plan *p)
{
    const struct gyre_hparams *hp = &p->hp;
    const struct gyre_arch *arch = hp->family;
    bool still = false;
    for (uint32_t i = 0; i < hp->n_layers; i++) still |= hp->kind[i].turn == GYRE_TURN_NONE;
    if (hp->biases & ~arch->plain_biases) return "biases that no plain file has";
    if (hp->window && (!(arch->plain & GYRE_PLAIN_WINDOWS) || !period_of(hp, true)))
        return "windows that no plain file can say";
    if (still && arch->plain & GYRE_PLAIN_FOURTHS && period_of(hp, false) != 4)
        return "blocks without RoPE that are not each fourth";
    if (writes_divisors(p) && hp->rope_scaling != GYRE_ROPE_LONG && !(arch->plain & GYRE_PLAIN_DIVISORS))
        return hp->has_rope_freqs ? "the tensor rope_freqs.weight, which they read for llama"
                                  : "llama3 scaling, which a tensor says that they read for llama";
    if (hp->rope_scaling == GYRE_ROPE_LONG && !(arch->plain & GYRE_PLAIN_DIVISORS)) return "longrope";
    if (hp->rope_scaling == GYRE_ROPE_YARN && !(arch->plain & GYRE_PLAIN_BETAS) &&
        (hp->rope_high_freq != 32 || hp->rope_low_freq != 1))
        return "YaRN's betas, which are not 32 and 1";
    if (hp->rope_untruncated) return "YaRN that is not truncated to whole dimensions";
    if (hp->attn_scale != 0 && !(arch->plain & GYRE_PLAIN_SCALE) &&
        fabsf(hp->attn_scale * sqrtf((float)hp->head_dim) - 1) > 1e-6f)
        return "a scale of scores that they do not read";
    return NULL;
}

// ---- tensors ----------------------------------------------------------------------------------------------

static void add(struct gyre_plan *p, struct gyre_planned planned) { p->tensor[p->n_tensors++] = planned; }

static void add_bases(struct gyre_plan *p, enum gyre_base_site site, const struct gyre_hadamard *h)
{
    for (uint32_t i = 0; h->n && i < 3; i++)
        if (h->k[i] > 1)
            add(p, (struct gyre_planned){.part = {GYRE_PART_BASE, GYRE_ROLE_none, 3 * (uint32_t)site + i},
                                         .rows = h->k[i],
                                         .cols = h->k[i],
                                         .bits = 8});
}

static void add_part(struct gyre_plan *p, struct gyre_plan_part part)
{
    struct gyre_planned planned = {.part = part, .bits = 32};
    char name[GYRE_ROLE_NAME];
    gyre_role_shape(part.role, &p->hp, &planned.rows, &planned.cols);
    if (part.kind == GYRE_PART_LINEAR) {
        gyre_role_name(part.role, part.layer, "weight", name);
        gyre_settings_width(&p->set, name, &planned.bits, &planned.group);
    } else if (part.kind == GYRE_PART_TABLE) {
        const gyre_dtype type = part.role == GYRE_ROLE_head ? p->head_type : p->table_type;
        planned.bits = type == GYRE_DTYPE_Q4_0 ? 4 : type == GYRE_DTYPE_Q8_0 ? 8 : type == GYRE_DTYPE_F16 ? 16 : 32;
        planned.group = planned.bits <= 8 ? 32 : 0;
    } else {
        if (part.kind != GYRE_PART_VECTOR) planned.cols = planned.rows;
        planned.rows = 1;
    }
    add(p, planned);
}

static void add_role(struct gyre_plan *p, gyre_role role)
{
    add_part(p, (struct gyre_plan_part){gyre_roles[role].matrix ? GYRE_PART_TABLE : GYRE_PART_VECTOR, role, 0});
}

// Norms before the first linear that reads them; biases and centres behind theirs; vectors of no product at the end.
uint32_t gyre_plan_block(const struct gyre_plan *p, uint32_t layer, struct gyre_plan_part out[GYRE_PLAN_PARTS])
{
    uint32_t n = 0;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const gyre_role role = (gyre_role)r, norm = gyre_products[gyre_roles[r].product].norm;
        if (norm != GYRE_ROLE_none && gyre_product_first(gyre_roles[r].product) == role)
            out[n++] = (struct gyre_plan_part){GYRE_PART_VECTOR, norm, layer};
        out[n++] = (struct gyre_plan_part){GYRE_PART_LINEAR, role, layer};
        if (gyre_role_has_bias(&p->hp, role, layer)) out[n++] = (struct gyre_plan_part){GYRE_PART_BIAS, role, layer};
        if (p->set.recipe.kv_centre && gyre_role_is_cached(role))
            out[n++] = (struct gyre_plan_part){GYRE_PART_CENTRE, role, layer};
    }
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++)
        if (gyre_role_present(&p->hp, (gyre_role)r, layer) && gyre_norm_product((gyre_role)r) == GYRE_PRODUCTS)
            out[n++] = (struct gyre_plan_part){GYRE_PART_VECTOR, (gyre_role)r, layer};
    return n;
}

// The order in which tensors lie in the file, and in which quantizer/pass writes them.
static gyre_status plan_tensors(struct gyre_plan *p, gyre_error *err)
{
    enum { MOST_GLOBALS = 8 + 3 * GYRE_BASE_SITES };
    const struct gyre_hparams *hp = &p->hp;
    p->tensor = malloc((MOST_GLOBALS + (uint64_t)hp->n_layers * GYRE_PLAN_PARTS) * sizeof *p->tensor);
    if (!p->tensor) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the plan");
    p->table_type = p->set.wbits == 16               ? GYRE_DTYPE_F16
                    : p->folder && p->set.wbits < 16 ? GYRE_DTYPE_F16
                    : p->set.wbits == 32             ? GYRE_DTYPE_F32
                    : hp->width % 32                 ? GYRE_DTYPE_F16
                                                     : GYRE_DTYPE_Q8_0;
    p->head_type = p->set.head4 ? GYRE_DTYPE_Q4_0 : p->table_type;
    add_role(p, GYRE_ROLE_embedding);
    if (p->write_head) add_role(p, GYRE_ROLE_head);
    add_role(p, GYRE_ROLE_output_norm);
    if (p->online.head.n)
        add(p, (struct gyre_planned){
                   .part = {GYRE_PART_HEAD_GAIN, GYRE_ROLE_none, 0}, .rows = 1, .cols = hp->width, .bits = 32});
    if (p->online.head_mix)
        add(p, (struct gyre_planned){.part = {GYRE_PART_HEAD_MIX, GYRE_ROLE_none, 0},
                                     .rows = hp->width,
                                     .cols = hp->width,
                                     .bits = p->set.wbits == 32 ? 32 : 16});
    p->writes_clips = p->set.full && p->set.recipe.distill.steps && (p->set.act4 || p->set.kv == 4 || p->set.kv_v == 4);
    if (p->writes_clips) {
        add(p, (struct gyre_planned){.part = {GYRE_PART_ACT_CLIPS, GYRE_ROLE_none, 0},
                                     .rows = 1,
                                     .cols = (uint64_t)hp->n_layers * GYRE_PRODUCTS,
                                     .bits = 32});
        add(p, (struct gyre_planned){.part = {GYRE_PART_KV_CLIPS, GYRE_ROLE_none, 0},
                                     .rows = 1,
                                     .cols = (uint64_t)hp->n_layers * GYRE_CACHED,
                                     .bits = 32});
    }
    p->writes_rope_divisors = writes_divisors(p);
    if (p->writes_rope_divisors && hp->rope_scaling != GYRE_ROPE_LONG) add_role(p, GYRE_ROLE_rope_freqs);
    if (p->writes_rope_divisors && hp->rope_scaling == GYRE_ROPE_LONG) {
        add_role(p, GYRE_ROLE_rope_short);
        add_role(p, GYRE_ROLE_rope_long);
    }
    if (!p->folder) add_bases(p, GYRE_BASE_R1, &p->online.r1);
    if (!p->folder) add_bases(p, GYRE_BASE_R3, &p->online.r3_had);
    if (!p->folder) add_bases(p, GYRE_BASE_R4, &p->online.r4);
    add_bases(p, GYRE_BASE_HEAD, &p->online.head);
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        struct gyre_plan_part part[GYRE_PLAN_PARTS];
        const uint32_t n = gyre_plan_block(p, l, part);
        for (uint32_t i = 0; i < n; i++) add_part(p, part[i]);
    }
    return GYRE_OK;
}

// ---- the container ----------------------------------------------------------------------------------------

gyre_status gyre_plan_folder(const gyre_quantize_params *params, const gyre_source *source, bool *folder,
                             gyre_error *err)
{
    const bool from = gyre_source_container(source) == GYRE_CONTAINER_HF;
    const char *format = params->format;
    uint64_t bytes;
    if (format && strcmp(format, "gguf") && strcmp(format, "hf"))
        return gyre_fail(err, GYRE_E_INVALID, "unknown format \"%s\": it is neither gguf nor hf", format);
    *folder = format ? !strcmp(format, "hf") : from && params->output && !gyre_ends(params->output, ".gguf");
    if (!*folder || gyre_source_file(source, "config.json", &bytes)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot write a Hugging Face directory (%s): it has no config.json and no tokenizer.json to carry "
                     "along; write a .gguf file",
                     gyre_source_path(source));
}

// What such a directory can say.
static gyre_status plan_folder(struct gyre_plan *p, uint64_t shard_bytes, gyre_error *err)
{
    p->shard_bytes = shard_bytes ? shard_bytes : 5000000000;
    if (!p->folder) return GYRE_OK;
    p->leaves_centre = p->set.recipe.kv_centre; // compressed-tensors knows no centres
    p->set.recipe.kv_centre = false;
    if (p->hp.rope_interleaved)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot write a Hugging Face directory (%s): its q and k rows lie in pairs; write a .gguf file",
            gyre_source_path(p->source));
    if (!(p->hp.family->plain & GYRE_PLAIN_FOLDER) || !strcmp(p->hp.arch, "granitemoehybrid") ||
        gyre_source_is_wrapped(p->source))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot write a Hugging Face directory (%s): of a %s, other tools expect other matrices or a "
                         "model around it, which gyre does not write; write a .gguf file",
                         gyre_source_path(p->source), p->hp.arch);
    return GYRE_OK;
}

// ---- taps -------------------------------------------------------------------------------------------------

static void plan_taps(struct gyre_plan *p)
{
    char name[GYRE_ROLE_NAME];
    for (uint32_t l = 0; l < p->hp.n_layers; l++)
        for (int i = 0; i < GYRE_PRODUCTS; i++) {
            gyre_role_name(gyre_product_first((gyre_product)i), l, "weight", name);
            const uint32_t act = gyre_settings_act(&p->set, name);
            p->hp.kind[l].act[i] = act == p->set.act ? 0 : (uint8_t)act;
        }
}

uint32_t gyre_plan_act(const struct gyre_plan *p, uint32_t layer, gyre_product product)
{
    const uint32_t own = p->hp.kind[layer].act[product];
    return own ? own : p->set.act;
}

void gyre_plan_clips(const struct gyre_plan *p, gyre_plan_part_kind kind, float *out)
{
    const struct gyre_hparams hp = gyre_plan_output_hparams(p);
    const struct gyre_precision made_for = gyre_made_for(&hp);
    for (uint32_t l = 0; l < hp.n_layers; l++) {
        for (uint32_t i = 0; kind == GYRE_PART_ACT_CLIPS && i < GYRE_PRODUCTS; i++)
            *out++ = gyre_tap_at(&hp, &hp.kind[l], i, &made_for).clip;
        for (uint32_t i = 0; kind == GYRE_PART_KV_CLIPS && i < GYRE_CACHED; i++)
            *out++ = i ? made_for.kv_clip_v : made_for.kv_clip;
    }
}

// ---- the plan ---------------------------------------------------------------------------------------------

gyre_status gyre_plan_allow(const gyre_quantize_params *params, const struct gyre_recipe *recipe,
                            const gyre_source *source, struct gyre_plan *p, gyre_error *err)
{
    *p = (struct gyre_plan){.source = source};
    GYRE_TRY(gyre_plan_folder(params, source, &p->folder, err));
    GYRE_TRY(gyre_hparams_read(source, &p->hp, err));
    // R3 and R4 of other tools' checkpoints are taken off while they are read (gyre_plain_rows).
    if ((p->hp.full && (p->hp.rot.r1.n || p->hp.rot.r3 || p->hp.rot.r4.n)) || p->hp.rot.head.n || p->hp.rot.head_mix ||
        p->hp.kv_centre)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot quantize (%s): gyre wrote this file with %s that run beside its weights; give the model "
            "that it was made from",
            gyre_source_path(source), p->hp.kv_centre ? "centres" : "rotations");
    GYRE_TRY(gyre_settings_resolve(params, recipe, &p->hp, !p->folder, &p->set, err));
    GYRE_TRY(plan_folder(p, params->shard_bytes, err));
    plan_taps(p);
    GYRE_TRY(gyre_model_check_tensors(source, &p->hp, err));
    if (!p->folder && !p->set.full && unsayable(p))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot quantize (%s): of a %s, other tools expect or would miss %s; use profile full",
                         gyre_source_path(source), p->hp.family->name, unsayable(p));
    return GYRE_OK;
}

gyre_status gyre_plan_begin(const gyre_quantize_params *params, const struct gyre_recipe *recipe,
                            const gyre_source *source, struct gyre_plan *p, gyre_error *err)
{
    GYRE_TRY(gyre_plan_allow(params, recipe, source, p, err));
    p->permute_qk = !p->folder && !p->set.full && p->hp.family->paired_rows && !p->hp.rope_interleaved;
    if (p->permute_qk) p->hp.rope_interleaved = true;
    p->window_period = p->set.full || !p->hp.window ? 0 : period_of(&p->hp, true);
    return gyre_base_read(source, &p->base, err);
}

gyre_status gyre_plan_except(struct gyre_plan *p, const struct gyre_exception *list, uint32_t n, gyre_error *err)
{
    GYRE_TRY(gyre_settings_except(&p->set, &p->hp, list, n, err));
    plan_taps(p);
    return GYRE_OK;
}

gyre_status gyre_plan_finish(const gyre_quantize_params *params, const struct gyre_choice *choice, struct gyre_plan *p,
                             gyre_error *err)
{
    p->choice = *choice;
    GYRE_TRY(plan_rotations(p, err));
    GYRE_TRY(plan_tensors(p, err));
    if (params->log.write && p->leaves_centre)
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "quantize: the recipe centres the KV cache, which a Hugging Face directory cannot say: it is left "
                  "out; a .gguf file has it");
    if (params->log.write && !p->folder && p->set.wbits < 16 && p->table_type == GYRE_DTYPE_F16)
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "quantize: embedding rows of %u are not blocks of 32; the table is kept as F16", p->hp.width);
    return GYRE_OK;
}

void gyre_plan_stored(const struct gyre_plan *p, gyre_role role, float *x, uint64_t n)
{
    if (p->folder) gyre_role_vector_stored(&p->hp, role, x, n); // whose source is one, too
}

void gyre_plan_release(struct gyre_plan *p)
{
    gyre_base_release(&p->base);
    gyre_hparams_free(&p->hp);
    gyre_rotator_release(&p->rotator);
    gyre_hadamard_release(&p->r3);
    free(p->final_gain);
    free(p->tensor);
    *p = (struct gyre_plan){0};
}

struct gyre_hparams gyre_plan_output_hparams(const struct gyre_plan *p)
{
    struct gyre_hparams hp = p->hp;
    hp.full = p->set.full;
    hp.rot = p->online;
    hp.act_bits = p->set.act;
    hp.kv_bits = p->set.kv;
    hp.kv_bits_v = p->set.kv_v;
    hp.act_clip = p->choice.act_clip;
    hp.tap_clip = p->choice.tap_clip;
    hp.act_group = p->set.recipe.act_group;
    hp.kv_clip = p->choice.kv_clip;
    hp.kv_clip_v = p->choice.kv_clip_v;
    hp.wgroup = p->set.wgroup;
    hp.tied = !p->write_head;
    hp.kv_centre = p->set.recipe.kv_centre;
    return hp;
}
