// Decides what is rotated, what is tied and which tensors the file holds, in order. See plan.h and
// docs/model-format.md. Metadata is plan_meta.c's.
#include "quantizer/file/plan.h"
#include "runtime/model/arch.h"
#include "runtime/util/log.h"

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

static gyre_status plan_rotations(struct gyre_plan *p, gyre_error *err)
{
    const struct gyre_hparams *hp = &p->hp;
    const bool rotate = p->set.recipe.rotate, full = p->set.full;
    p->final_gain = malloc(hp->width * sizeof *p->final_gain);
    if (!p->final_gain) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the plan");
    gyre_tensor_rows_f32(gyre_role_tensor(p->source, GYRE_ROLE_output_norm, 0, "weight", NULL), 0, 1, p->final_gain);
    GYRE_TRY(gyre_rotator_create(hp, p->choice.seed, rotate,
                                 !rotate ? 0 : GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | (full ? GYRE_ROTATE_R4 : 0),
                                 &p->rotator, err));
    p->write_head = !hp->tied;
    p->fold_head = rotate && !hp->tied;
    if (!rotate) return GYRE_OK;
    if (hp->tied && full) { // one table: the head undoes and redoes R1 around the gain
        p->online.head = p->rotator.r1;
        p->online.head_gain = p->final_gain;
    } else if (hp->tied && !is_constant(p->final_gain, hp->width)) { // other tools know no transform at the head
        p->write_head = p->fold_head = true;
    }
    if (!full) return GYRE_OK;
    p->online.r4 = p->rotator.r4;
    if (gyre_hadamard_segment(hp->head_dim) == hp->head_dim) {
        GYRE_TRY(gyre_hadamard_create(hp->head_dim, &p->r3, err));
        p->online.r3 = true;
        p->online.r3_had = p->r3;
    }
    return GYRE_OK;
}

// A plain file says llama3 scaling by a tensor of divisors.
static bool writes_divisors(const struct gyre_plan *p)
{
    return p->hp.has_rope_freqs || (p->hp.rope_scaling == GYRE_ROPE_LLAMA3 && !p->set.full);
}

// ---- tensors ----------------------------------------------------------------------------------------------

static void add_matrix(struct gyre_plan *p, const char *name, gyre_dtype type, uint64_t rows, uint64_t cols)
{
    gyre_gguf_add_tensor(&p->gguf, name, type, 2, (const uint64_t[]){rows, cols});
}

static void add_vector(struct gyre_plan *p, const char *name, uint64_t n)
{
    gyre_gguf_add_tensor(&p->gguf, name, GYRE_DTYPE_F32, 1, &n);
}

static void add_bases(struct gyre_plan *p, const char *which, const struct gyre_hadamard *h)
{
    char name[64];
    for (int i = 0; h->n && i < 3; i++) {
        snprintf(name, sizeof name, "gyre.%s.base.%d", which, i);
        if (h->k[i] > 1) add_matrix(p, name, GYRE_DTYPE_I8, h->k[i], h->k[i]);
    }
}

static void add_role(struct gyre_plan *p, gyre_role role)
{
    char name[GYRE_ROLE_NAME];
    uint64_t rows, cols;
    gyre_role_name(role, 0, "weight", name);
    gyre_role_shape(role, &p->hp, &rows, &cols);
    if (gyre_roles[role].matrix) add_matrix(p, name, p->table_type, rows, cols);
    else add_vector(p, name, cols);
}

static void add_linear(struct gyre_plan *p, gyre_role role, uint32_t layer)
{
    char name[GYRE_ROLE_NAME], scale[GYRE_ROLE_NAME];
    uint64_t rows, cols;
    uint32_t bits, group;
    gyre_role_name(role, layer, "weight", name);
    gyre_settings_width(&p->set, name, &bits, &group);
    gyre_role_shape(role, &p->hp, &rows, &cols);
    if (bits >= 16 || !p->set.full) {
        add_matrix(p, name,
                   bits == 4    ? GYRE_DTYPE_Q4_0
                   : bits == 8  ? GYRE_DTYPE_Q8_0
                   : bits == 16 ? GYRE_DTYPE_F16
                                : GYRE_DTYPE_F32,
                   rows, cols);
        return;
    }
    gyre_role_name(role, layer, "weight.scale", scale);
    add_matrix(p, name, GYRE_DTYPE_I8, rows, bits == 4 ? cols / 2 : cols);
    add_matrix(p, scale, GYRE_DTYPE_F16, rows, group ? cols / group : 1);
}

// Norms before the first linear that reads them; biases and centres behind theirs; vectors of no product at the end.
uint32_t gyre_plan_block(const struct gyre_plan *p, uint32_t layer, struct gyre_plan_part out[GYRE_PLAN_PARTS])
{
    uint32_t n = 0;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const gyre_role role = (gyre_role)r, norm = gyre_products[gyre_roles[r].product].norm;
        if (norm != GYRE_ROLE_none && gyre_product_first(gyre_roles[r].product) == role)
            out[n++] = (struct gyre_plan_part){norm, GYRE_PART_VECTOR};
        out[n++] = (struct gyre_plan_part){role, GYRE_PART_LINEAR};
        if (gyre_role_has_bias(&p->hp, role, layer)) out[n++] = (struct gyre_plan_part){role, GYRE_PART_BIAS};
        if (p->set.recipe.kv_centre && gyre_role_is_cached(role))
            out[n++] = (struct gyre_plan_part){role, GYRE_PART_CENTRE};
    }
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++)
        if (gyre_role_present(&p->hp, (gyre_role)r, layer) && gyre_norm_product((gyre_role)r) == GYRE_PRODUCTS)
            out[n++] = (struct gyre_plan_part){(gyre_role)r, GYRE_PART_VECTOR};
    return n;
}

static void add_block(struct gyre_plan *p, uint32_t layer)
{
    struct gyre_plan_part part[GYRE_PLAN_PARTS];
    const uint32_t n = gyre_plan_block(p, layer, part);
    for (uint32_t i = 0; i < n; i++) {
        char name[GYRE_ROLE_NAME];
        uint64_t rows, cols;
        if (part[i].kind == GYRE_PART_LINEAR) {
            add_linear(p, part[i].role, layer);
            continue;
        }
        gyre_role_shape(part[i].role, &p->hp, &rows, &cols);
        gyre_role_name(part[i].role, layer,
                       part[i].kind == GYRE_PART_VECTOR ? "weight"
                       : part[i].kind == GYRE_PART_BIAS ? "bias"
                                                        : "centre",
                       name);
        add_vector(p, name, part[i].kind == GYRE_PART_VECTOR ? cols : rows);
    }
}

// The order in which tensors lie in the file, and in which quantizer/pass writes them.
static void plan_tensors(struct gyre_plan *p)
{
    const struct gyre_hparams *hp = &p->hp;
    p->table_type = p->set.wbits == 16   ? GYRE_DTYPE_F16
                    : p->set.wbits == 32 ? GYRE_DTYPE_F32
                    : hp->width % 32     ? GYRE_DTYPE_F16
                                         : GYRE_DTYPE_Q8_0;
    add_role(p, GYRE_ROLE_embedding);
    if (p->write_head) add_role(p, GYRE_ROLE_head);
    add_role(p, GYRE_ROLE_output_norm);
    if (p->online.head.n) add_vector(p, "gyre.head_gain", hp->width);
    p->writes_rope_divisors = writes_divisors(p);
    if (p->writes_rope_divisors) add_role(p, GYRE_ROLE_rope_freqs);
    add_bases(p, "r3", &p->online.r3_had);
    add_bases(p, "r4", &p->online.r4);
    add_bases(p, "head", &p->online.head);
    p->globals = p->gguf.n_tensors;
    for (uint32_t l = 0; l < hp->n_layers; l++) add_block(p, l);
    p->per_layer = (p->gguf.n_tensors - p->globals) / hp->n_layers;
}

// ---- the plan ---------------------------------------------------------------------------------------------

gyre_status gyre_plan_begin(const gyre_quantize_params *params, const gyre_source *source, struct gyre_plan *p,
                            gyre_error *err)
{
    *p = (struct gyre_plan){.source = source};
    GYRE_TRY(gyre_hparams_read(source, &p->hp, err));
    if (p->hp.rot.r3 || p->hp.rot.r4.n || p->hp.rot.head.n || p->hp.kv_centre)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot quantize (%s): gyre wrote this file with %s that run beside its weights; give the model "
            "that it was made from",
            gyre_source_path(source), p->hp.kv_centre ? "centres" : "rotations");
    GYRE_TRY(gyre_settings_resolve(params, &p->hp, &p->set, err));
    GYRE_TRY(gyre_model_check(source, &p->hp, err));
    if (!p->set.full && writes_divisors(p) && !p->hp.family->plain_divisors)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot quantize (%s): its RoPE scaling is %s, which a portable file says by a tensor that other "
            "tools read for llama, not for %s; use profile full",
            gyre_source_path(source), p->hp.has_rope_freqs ? "rope_freqs.weight" : "llama3", p->hp.family->name);
    p->permute_qk = !p->set.full && p->hp.family->paired_rows && !p->hp.rope_interleaved;
    if (p->permute_qk) p->hp.rope_interleaved = true;
    return GYRE_OK;
}

gyre_status gyre_plan_finish(const gyre_quantize_params *params, const struct gyre_choice *choice, struct gyre_plan *p,
                             gyre_error *err)
{
    p->choice = *choice;
    GYRE_TRY(plan_rotations(p, err));
    plan_tensors(p);
    if (params->log.write && p->set.wbits < 16 && p->table_type == GYRE_DTYPE_F16)
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "quantize: embedding rows of %u are not blocks of 32; the table is kept as F16", p->hp.width);
    GYRE_TRY(gyre_plan_metadata(p, err));
    return gyre_gguf_finish(&p->gguf, &p->front, &p->front_bytes, &p->file_bytes, err);
}

void gyre_plan_release(struct gyre_plan *p)
{
    gyre_hparams_free(&p->hp);
    gyre_rotator_release(&p->rotator);
    gyre_hadamard_release(&p->r3);
    gyre_gguf_free(&p->gguf);
    free(p->final_gain);
    free(p->front);
    *p = (struct gyre_plan){0};
}

struct gyre_hparams gyre_plan_output_hparams(const struct gyre_plan *p)
{
    struct gyre_hparams hp = p->hp;
    hp.full = p->set.full;
    hp.rot = p->online;
    hp.act_bits = p->set.act;
    hp.kv_bits = p->set.kv;
    hp.act_clip = p->choice.act_clip;
    hp.kv_clip = p->choice.kv_clip;
    hp.wgroup = p->set.wgroup;
    hp.tied = !p->write_head;
    hp.kv_centre = p->set.recipe.kv_centre;
    return hp;
}
