// Decides what is rotated, what is tied and which tensors the file holds, in order. See plan.h and docs/model-format.md.
// Metadata is plan_meta.c's.
#include "quantizer/file/plan.h"
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
    gyre_tensor_rows_f32(gyre_source_tensor(p->source, "output_norm.weight"), 0, 1, p->final_gain);
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

static void add_linear(struct gyre_plan *p, gyre_site site, uint32_t layer)
{
    char name[64], scale[80];
    uint64_t rows, cols;
    uint32_t bits, group;
    gyre_site_name(site, layer, name);
    gyre_settings_width(&p->set, name, &bits, &group);
    gyre_site_shape(site, &p->hp, &rows, &cols);
    if (bits >= 16 || !p->set.full) {
        add_matrix(p, name,
                   bits == 4    ? GYRE_DTYPE_Q4_0
                   : bits == 8  ? GYRE_DTYPE_Q8_0
                   : bits == 16 ? GYRE_DTYPE_F16
                                : GYRE_DTYPE_F32,
                   rows, cols);
        return;
    }
    snprintf(scale, sizeof scale, "%s.scale", name);
    add_matrix(p, name, GYRE_DTYPE_I8, rows, bits == 4 ? cols / 2 : cols);
    add_matrix(p, scale, GYRE_DTYPE_F16, rows, group ? cols / group : 1);
}

void gyre_centre_name(gyre_site site, uint32_t layer, char out[64])
{
    snprintf(out, 64, "blk.%u.%s.centre", layer, site == GYRE_SITE_K ? "attn_k" : "attn_v");
}

// The order in which tensors lie in the file, and in which layer.c and quantize.c write them.
static void plan_tensors(struct gyre_plan *p)
{
    const struct gyre_hparams *hp = &p->hp;
    char name[64];
    p->table_type = p->set.wbits == 16   ? GYRE_DTYPE_F16
                    : p->set.wbits == 32 ? GYRE_DTYPE_F32
                    : hp->width % 32     ? GYRE_DTYPE_F16
                                         : GYRE_DTYPE_Q8_0;
    add_matrix(p, "token_embd.weight", p->table_type, hp->vocab, hp->width);
    if (p->write_head) add_matrix(p, "output.weight", p->table_type, hp->vocab, hp->width);
    add_vector(p, "output_norm.weight", hp->width);
    if (p->online.head.n) add_vector(p, "gyre.head_gain", hp->width);
    if (hp->has_rope_freqs || (hp->rope_scaling == GYRE_ROPE_LLAMA3 && !p->set.full))
        add_vector(p, "rope_freqs.weight", hp->head_dim / 2);
    add_bases(p, "r3", &p->online.r3_had);
    add_bases(p, "r4", &p->online.r4);
    add_bases(p, "head", &p->online.head);
    p->globals = p->gguf.n_tensors;
    for (uint32_t l = 0; l < hp->n_layers; l++)
        for (int s = 0; s < GYRE_SITES; s++) {
            const gyre_site site = (gyre_site)s;
            if ((site == GYRE_SITE_Q || site == GYRE_SITE_GATE) && gyre_site_norm_name(site, l, name))
                add_vector(p, name, hp->width);
            add_linear(p, site, l);
            if ((site != GYRE_SITE_K && site != GYRE_SITE_V) || !p->set.recipe.kv_centre) continue;
            gyre_centre_name(site, l, name);
            add_vector(p, name, (uint64_t)hp->kv_heads * hp->head_dim);
        }
    p->per_layer = (p->gguf.n_tensors - p->globals) / hp->n_layers;
}

// ---- the plan ---------------------------------------------------------------------------------------------

gyre_status gyre_plan_begin(const gyre_quantize_params *params, const gyre_source *source, struct gyre_plan *p,
                            gyre_error *err)
{
    *p = (struct gyre_plan){.source = source};
    GYRE_TRY(gyre_hparams_read(source, &p->hp, err));
    if (strcmp(p->hp.arch, "llama"))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot quantize (%s): gyre wrote this file; give the model that it was made from",
                         gyre_source_path(source));
    GYRE_TRY(gyre_settings_resolve(params, &p->hp, &p->set, err));
    GYRE_TRY(gyre_model_check(source, &p->hp, err));
    p->permute_qk = !p->set.full && !p->hp.rope_interleaved;
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
