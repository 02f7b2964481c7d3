// See model.h. Tensors are found by role, so that this file names those at the ends and the pairs that share a buffer.
#include "runtime/model/model.h"
#include "runtime/model/clips.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- rotations on the device ----------------------------------------------------------------------------

// The factors of a transform and its base matrices as bit rows (set bit: -1), as shaders/params.h wants them.
static gyre_status had_create(gyre_device *device, const struct gyre_hadamard *had, const char *label,
                              struct gyre_had_desc *out, gyre_error *err)
{
    *out = (struct gyre_had_desc){.n = had->n, .k1 = 1, .k2 = 1, .k3 = 1, .p = had->p};
    if (had->n == 0) return GYRE_OK;
    uint32_t *order[3] = {&out->k1, &out->k2, &out->k3};
    uint64_t words = 0;
    for (int i = 0; i < 3; i++) {
        if (had->k[i] > 1) words += (uint64_t)had->k[i] * gyre_div_up(had->k[i], 32);
    }
    uint32_t *bits = calloc(GYRE_MAX(words, 1), sizeof *bits);
    if (!bits) return gyre_fail(err, GYRE_E_NOMEM, "cannot load rotation (%s): out of memory", label);
    uint64_t at = 0;
    for (int i = 0; i < 3; i++) {
        const uint32_t k = had->k[i], row_words = (uint32_t)gyre_div_up(k, 32);
        if (k <= 1) continue;
        *order[i] = k;
        for (uint32_t r = 0; r < k; r++, at += row_words) {
            for (uint32_t c = 0; c < k; c++) {
                if (had->base[i][(uint64_t)r * k + c] < 0) bits[at + c / 32] |= 1u << c % 32;
            }
        }
    }
    const gyre_status st = gyre_upload(device, bits, GYRE_MAX(words, 1) * 4, label, &out->base, err);
    free(bits);
    return st;
}

gyre_status gyre_shared_create(gyre_device *device, const struct gyre_hparams *hp, struct gyre_shared *out,
                               gyre_error *err)
{
    *out = (struct gyre_shared){0};
    float freqs[GYRE_MAX_HEAD_DIM / 2];
    gyre_status st = GYRE_OK;
    for (int t = 0; t < GYRE_TURNS; t++) {
        gyre_rope_freqs(hp, (gyre_turn)t, freqs);
        GYRE_GO(gyre_upload(device, freqs, hp->head_dim / 2 * sizeof *freqs, "rope frequencies", &out->freqs[t], err));
    }
    GYRE_GO(had_create(device, &hp->rot.r1, "R1", &out->r1, err));
    GYRE_GO(had_create(device, &hp->rot.r3_had, "R3", &out->r3, err));
    GYRE_GO(had_create(device, &hp->rot.r4, "R4", &out->r4, err));
    GYRE_GO(had_create(device, &hp->rot.head, "head rotation", &out->head, err));
done:
    if (st != GYRE_OK) gyre_shared_free(device, out);
    return st;
}

void gyre_shared_free(gyre_device *device, struct gyre_shared *shared)
{
    for (int t = 0; t < GYRE_TURNS; t++) gyre_buffer_destroy(device, shared->freqs[t].buffer);
    gyre_buffer_destroy(device, shared->r1.base.buffer);
    gyre_buffer_destroy(device, shared->r3.base.buffer);
    gyre_buffer_destroy(device, shared->r4.base.buffer);
    gyre_buffer_destroy(device, shared->head.base.buffer);
    *shared = (struct gyre_shared){0};
}

// ---- loading --------------------------------------------------------------------------------------------

struct loader {
    gyre_device *device;
    gyre_repacker *repacker;
    const gyre_source *source;
    const struct gyre_hparams *hp;
    bool layout;   // nothing is read
    bool no_table; // see struct gyre_loading
    struct gyre_load_rounding *rounding;
    gyre_error *err;
};

static gyre_status find(const struct loader *l, gyre_role role, uint32_t layer, const char *part,
                        const struct gyre_tensor **out)
{
    return gyre_role_need(l->source, role, layer, part, out, l->err);
}

// Some numbers of a tensor: of a norm's (`role`), or of a bias; zeros where there is none.
struct piece {
    struct gyre_bias at;
    gyre_role role; // GYRE_ROLE_none: as they lie
};

// The pieces one behind the other, divided by `divisor`, as a vector of floats on the device.
static gyre_status vectors(const struct loader *l, const struct piece *piece, uint32_t count, float divisor,
                           const char *label, struct gyre_binding *out)
{
    uint64_t total = 0, at = 0;
    for (uint32_t i = 0; i < count; i++) total += piece[i].at.n;
    float *values = calloc(total, sizeof *values);
    if (!values) return gyre_fail(l->err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", label);
    for (uint32_t i = 0; i < count; at += piece[i].at.n, i++) {
        if (!piece[i].at.tensor || l->layout) continue;
        if (piece[i].role == GYRE_ROLE_none) gyre_bias_f32(&piece[i].at, values + at);
        else gyre_role_vector_f32(l->hp, piece[i].role, piece[i].at.tensor, values + at);
    }
    for (uint64_t i = 0; i < total && divisor != 1; i++) values[i] /= divisor;
    const gyre_status st = gyre_upload(l->device, values, total * sizeof *values, label, out, l->err);
    free(values);
    return st;
}

static gyre_status matrix(const struct loader *l, const struct gyre_linear *parts, uint32_t n, const char *label,
                          struct gyre_weight *out)
{
    if (l->layout) return gyre_weight_layout(l->device, parts, n, label, l->rounding->bits, out, l->err);
    return gyre_weight_load(l->device, l->repacker, parts, n, label, l->rounding, out, l->err);
}

static gyre_status load_product(const struct loader *l, uint32_t layer, gyre_product product,
                                struct gyre_layer_weights *out)
{
    struct gyre_linear parts[GYRE_LINEARS];
    gyre_role role[GYRE_LINEARS];
    struct piece bias[GYRE_LINEARS];
    uint32_t n;
    bool biased = false;
    char name[GYRE_ROLE_NAME];
    GYRE_TRY(gyre_linear_product(l->source, l->hp, layer, product, parts, role, &n, l->err));
    if (!n) return GYRE_OK;
    for (uint32_t i = 0; i < n; i++) {
        bias[i] = (struct piece){.at.n = parts[i].rows, .role = GYRE_ROLE_none};
        if (!gyre_role_has_bias(l->hp, role[i], layer)) continue;
        GYRE_TRY(gyre_role_bias(l->source, l->hp, role[i], layer, &bias[i].at, l->err));
        biased = true;
    }
    snprintf(name, sizeof name, "blk.%u.%s", layer, gyre_products[product].name);
    GYRE_TRY(matrix(l, parts, n, name, &out->product[product]));
    return biased ? vectors(l, bias, n, 1, "bias", &out->bias[product]) : GYRE_OK;
}

// One part of the tensors of several roles, one behind the other: norms of heads, centres of what is cached.
static gyre_status load_together(const struct loader *l, uint32_t layer, const gyre_role *role, uint32_t n,
                                 const char *part_name, uint64_t each, struct gyre_binding *out)
{
    struct piece piece[GYRE_LINEARS];
    for (uint32_t i = 0; i < n; i++) {
        piece[i] = (struct piece){.at.n = each, .role = role[i]};
        GYRE_TRY(find(l, role[i], layer, part_name, &piece[i].at.tensor));
    }
    return vectors(l, piece, n, 1, part_name, out);
}

static gyre_status load_layer(const struct loader *l, uint32_t layer, struct gyre_layer_weights *out)
{
    const struct gyre_hparams *hp = l->hp;
    out->kind = hp->kind[layer];
    for (int p = 0; p < GYRE_PRODUCTS; p++) GYRE_TRY(load_product(l, layer, (gyre_product)p, out));
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++) {
        const gyre_role role = (gyre_role)r;
        if (!gyre_role_present(hp, role, layer) || gyre_role_is_of_heads(role)) continue;
        GYRE_TRY(load_together(l, layer, &role, 1, "weight", hp->width, &out->norm[r]));
    }
    const gyre_role head_norms[] = {GYRE_ROLE_q_norm, GYRE_ROLE_k_norm};
    if (gyre_role_present(hp, head_norms[0], layer))
        GYRE_TRY(load_together(l, layer, head_norms, 2, "weight", hp->head_dim, &out->head_gains));
    GYRE_TRY(gyre_clips_read(l->source, hp, layer, out->act_clip, out->kv_clip, l->err));
    gyre_role cached[GYRE_LINEARS];
    uint32_t n = 0;
    for (int r = 0; r < GYRE_LINEARS && hp->kv_centre; r++)
        if (gyre_role_is_cached((gyre_role)r)) cached[n++] = (gyre_role)r;
    const uint64_t kv = (uint64_t)hp->kv_heads * hp->head_dim;
    return n ? load_together(l, layer, cached, n, "centre", kv, &out->kv_centre) : GYRE_OK;
}

gyre_status gyre_model_tied(const char *name, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot keep the embedding table in host memory (%s): the head reads it on the device, too; "
                     "quantize with --head 4, which gives the head a matrix of its own",
                     name);
}

static gyre_status load_shared(const struct loader *l, struct gyre_model *m)
{
    const struct gyre_hparams *hp = &m->hp;
    struct piece norm = {.at.n = hp->width, .role = GYRE_ROLE_output_norm};
    GYRE_TRY(gyre_shared_create(m->device, hp, &m->shared, l->err));
    GYRE_TRY(find(l, GYRE_ROLE_output_norm, 0, "weight", &norm.at.tensor));
    // Where the head reads it is the one place that knows no other factor: logits are linear in this gain.
    GYRE_TRY(vectors(l, &norm, 1, hp->logit_divisor, norm.at.tensor->name, &m->output_norm));
    if (hp->rot.head.n)
        GYRE_TRY(
            gyre_upload(m->device, hp->rot.head_gain, hp->width * sizeof(float), "head gain", &m->head_gain, l->err));
    struct gyre_linear table;
    if (hp->rot.head_mix) { // never rounded further
        gyre_linear_of(gyre_source_tensor(l->source, "gyre.head_mix"), &table);
        GYRE_TRY(l->layout
                     ? gyre_weight_layout(m->device, &table, 1, "head mix", 0, &m->head_mix, l->err)
                     : gyre_weight_load(m->device, l->repacker, &table, 1, "head mix", NULL, &m->head_mix, l->err));
    }
    if (!l->no_table) {
        GYRE_TRY(gyre_linear_find(l->source, hp, GYRE_ROLE_embedding, 0, &table, l->err));
        GYRE_TRY(matrix(l, &table, 1, "embedding", &m->table));
    }
    if (hp->tied && l->no_table) return gyre_model_tied(gyre_source_path(l->source), l->err);
    if (hp->tied) return GYRE_OK;
    GYRE_TRY(gyre_linear_find(l->source, hp, GYRE_ROLE_head, 0, &table, l->err));
    return matrix(l, &table, 1, "head", &m->head);
}

gyre_status gyre_model_load(gyre_device *device, const gyre_source *source, const struct gyre_loading *given,
                            struct gyre_model *out, gyre_error *err)
{
    const struct gyre_loading how = given ? *given : (struct gyre_loading){0};
    *out = (struct gyre_model){.device = device, .rounding = {.bits = how.weight_bits}};
    struct loader l = {.device = device,
                       .source = source,
                       .hp = &out->hp,
                       .layout = how.layout,
                       .no_table = how.no_table,
                       .rounding = &out->rounding,
                       .err = err};
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_hparams_read(source, &out->hp, err));
    gyre_hparams_set_context(&out->hp, how.context);
    if (!how.layout) GYRE_GO(gyre_model_check(source, &out->hp, err));
    if (!how.layout) GYRE_GO(gyre_repacker_create(device, &l.repacker, err));
    out->layer = calloc(out->hp.n_layers, sizeof *out->layer);
    if (!out->layer) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot load model (%s): out of memory", gyre_source_path(source));
        goto done;
    }
    GYRE_GO(load_shared(&l, out));
    for (uint32_t i = 0; i < out->hp.n_layers && !how.no_blocks; i++) {
        GYRE_GO(load_layer(&l, i, &out->layer[i]));
        if (how.progress && how.progress(how.user, (i + 1.0) / out->hp.n_layers)) {
            st = gyre_fail(err, GYRE_E_CANCELLED, "cancelled while loading (%s)", gyre_source_path(source));
            goto done;
        }
    }
    out->weight_bytes =
        gyre_weight_bytes(&out->table) + gyre_weight_bytes(&out->head) + gyre_weight_bytes(&out->head_mix);
    for (uint32_t i = 0; i < out->hp.n_layers; i++)
        for (int p = 0; p < GYRE_PRODUCTS; p++) out->weight_bytes += gyre_weight_bytes(&out->layer[i].product[p]);
done:
    gyre_repacker_destroy(l.repacker);
    if (st != GYRE_OK) gyre_model_free(out);
    return st;
}

gyre_status gyre_model_load_block(struct gyre_model *m, const gyre_source *source, uint32_t layer, gyre_error *err)
{
    struct loader l = {.device = m->device, .source = source, .hp = &m->hp, .rounding = &m->rounding, .err = err};
    GYRE_TRY(gyre_repacker_create(m->device, &l.repacker, err));
    const gyre_status st = load_layer(&l, layer, &m->layer[layer]);
    gyre_repacker_destroy(l.repacker);
    return st;
}

void gyre_layer_weights_free(gyre_device *device, struct gyre_layer_weights *layer)
{
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        gyre_weight_destroy(device, &layer->product[p]);
        gyre_buffer_destroy(device, layer->bias[p].buffer);
    }
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) gyre_buffer_destroy(device, layer->norm[r].buffer);
    gyre_buffer_destroy(device, layer->head_gains.buffer);
    gyre_buffer_destroy(device, layer->kv_centre.buffer);
    *layer = (struct gyre_layer_weights){0};
}

void gyre_model_free(struct gyre_model *m)
{
    for (uint32_t i = 0; m->layer && i < m->hp.n_layers; i++) gyre_layer_weights_free(m->device, &m->layer[i]);
    free(m->layer);
    gyre_weight_destroy(m->device, &m->table);
    gyre_weight_destroy(m->device, &m->head);
    gyre_weight_destroy(m->device, &m->head_mix);
    gyre_buffer_destroy(m->device, m->output_norm.buffer);
    gyre_buffer_destroy(m->device, m->head_gain.buffer);
    gyre_shared_free(m->device, &m->shared);
    gyre_hparams_free(&m->hp);
    *m = (struct gyre_model){0};
}

// ---- the graph ------------------------------------------------------------------------------------------

gyre_value gyre_model_block(gyre_graph *g, gyre_value x, const struct gyre_model *m, uint32_t layer,
                            const struct gyre_kv_pool *kv, const struct gyre_precision *precision)
{
    struct gyre_builder b = {.g = g,
                             .hp = &m->hp,
                             .shared = &m->shared,
                             .layer = &m->layer[layer],
                             .kv = kv,
                             .precision = precision,
                             .from = GYRE_PRODUCTS,
                             .to = GYRE_PRODUCTS,
                             .stream = x};
    gyre_build_block(&b);
    return b.stream;
}

gyre_value gyre_model_head(gyre_graph *g, gyre_value x, const struct gyre_model *m)
{
    gyre_value z = gyre_g_rms_norm(g, x, m->output_norm, m->hp.stream_eps);
    if (m->shared.head.n) { // one table for both ends: to the model's own basis, its final gain, and back
        const uint32_t segments = m->hp.width / m->shared.head.n;
        z = gyre_g_hadamard(g, z, &m->shared.head, segments, true, (struct gyre_binding){0});
        z = gyre_g_hadamard(g, z, &m->shared.head, segments, false, m->head_gain);
    }
    if (m->head_mix.n_ranges) z = gyre_g_matmul(g, z, &m->head_mix);
    const struct gyre_weight *w = m->head.n_ranges ? &m->head : &m->table;
    return gyre_g_matmul(g, gyre_g_gather(g, z, w->order), w);
}
