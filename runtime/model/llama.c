// See llama.h. The order of operations in a block follows quantization.md section 1.3 of the design's references: norm,
// one quantization for q,k,v; RoPE, R3, KV write; attention; o; norm; act(gate)*up, R4; down.
#include "runtime/model/llama.h"

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

gyre_status gyre_llama_shared_create(gyre_device *device, const struct gyre_hparams *hp, const float *divisors,
                                     struct gyre_llama_shared *out, gyre_error *err)
{
    *out = (struct gyre_llama_shared){0};
    float freqs[GYRE_MAX_HAD_ORDER];
    gyre_rope_freqs(hp, divisors, freqs);
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_upload(device, freqs, hp->head_dim / 2 * sizeof *freqs, "rope frequencies", &out->freqs, err));
    GYRE_GO(had_create(device, &hp->rot.r3_had, "R3", &out->r3, err));
    GYRE_GO(had_create(device, &hp->rot.r4, "R4", &out->r4, err));
    GYRE_GO(had_create(device, &hp->rot.head, "head rotation", &out->head, err));
done:
    if (st != GYRE_OK) gyre_llama_shared_free(device, out);
    return st;
}

void gyre_llama_shared_free(gyre_device *device, struct gyre_llama_shared *shared)
{
    gyre_buffer_destroy(device, shared->freqs.buffer);
    gyre_buffer_destroy(device, shared->r3.base.buffer);
    gyre_buffer_destroy(device, shared->r4.base.buffer);
    gyre_buffer_destroy(device, shared->head.base.buffer);
    *shared = (struct gyre_llama_shared){0};
}

// ---- loading --------------------------------------------------------------------------------------------

struct loader {
    gyre_device *device;
    gyre_repacker *repacker;
    const gyre_source *source;
    uint32_t portable_group;
    gyre_error *err;
};

static gyre_status part(const struct loader *l, const char *name, uint32_t n, uint32_t k, struct gyre_weight_part *out)
{
    char scale[80];
    snprintf(scale, sizeof scale, "%s.scale", name);
    *out = (struct gyre_weight_part){gyre_source_tensor(l->source, name), gyre_source_tensor(l->source, scale), n, k};
    if (!out->weight)
        return gyre_fail(l->err, GYRE_E_FORMAT, "cannot load model (%s): tensor %s is missing",
                         gyre_source_path(l->source), name);
    return GYRE_OK;
}

static gyre_status linear(const struct loader *l, uint32_t layer, const char *const *names, const uint32_t *n,
                          uint32_t n_parts, uint32_t k, struct gyre_weight *out)
{
    struct gyre_weight_part parts[3];
    char name[64];
    for (uint32_t i = 0; i < n_parts; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, names[i]);
        GYRE_TRY(part(l, name, n[i], k, &parts[i]));
    }
    return gyre_weight_load(l->device, l->repacker, parts, n_parts, l->portable_group, name, out, l->err);
}

static gyre_status vector(const struct loader *l, const char *name, uint32_t n, struct gyre_binding *out)
{
    const struct gyre_tensor *t = gyre_source_tensor(l->source, name);
    if (!t || t->rows * t->cols != n)
        return gyre_fail(l->err, GYRE_E_FORMAT, "cannot load model (%s): tensor %s is missing or not of %u elements",
                         gyre_source_path(l->source), name, n);
    float *values = malloc(n * sizeof *values);
    if (!values) return gyre_fail(l->err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", name);
    gyre_tensor_rows_f32(t, 0, t->rows, values);
    const gyre_status st = gyre_upload(l->device, values, n * sizeof *values, name, out, l->err);
    free(values);
    return st;
}

// The two vectors of n values, one behind the other.
static gyre_status load_centre(const struct loader *l, uint32_t layer, uint32_t n, struct gyre_binding *out)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.attn_k.centre", layer);
    const struct gyre_tensor *k = gyre_source_tensor(l->source, name);
    snprintf(name, sizeof name, "blk.%u.attn_v.centre", layer);
    const struct gyre_tensor *v = gyre_source_tensor(l->source, name);
    if (!k || !v || k->rows * k->cols != n || v->rows * v->cols != n)
        return gyre_fail(l->err, GYRE_E_FORMAT,
                         "cannot load model (%s): the centres of block %u are missing or not of %u elements",
                         gyre_source_path(l->source), layer, n);
    float *values = malloc(2 * (size_t)n * sizeof *values);
    if (!values) return gyre_fail(l->err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", name);
    gyre_tensor_rows_f32(k, 0, k->rows, values);
    gyre_tensor_rows_f32(v, 0, v->rows, values + n);
    const gyre_status st = gyre_upload(l->device, values, 2 * (uint64_t)n * sizeof *values, "kv centre", out, l->err);
    free(values);
    return st;
}

static gyre_status load_layer(const struct loader *l, const struct gyre_hparams *hp, uint32_t i,
                              struct gyre_llama_layer *out)
{
    const uint32_t q = hp->heads * hp->head_dim, kv = hp->kv_heads * hp->head_dim;
    GYRE_TRY(linear(l, i, (const char *const[]){"attn_q", "attn_k", "attn_v"}, (const uint32_t[]){q, kv, kv}, 3,
                    hp->width, &out->qkv));
    GYRE_TRY(linear(l, i, (const char *const[]){"attn_output"}, (const uint32_t[]){hp->width}, 1, q, &out->o));
    GYRE_TRY(linear(l, i, (const char *const[]){"ffn_gate", "ffn_up"}, (const uint32_t[]){hp->ffn, hp->ffn}, 2,
                    hp->width, &out->gate_up));
    GYRE_TRY(linear(l, i, (const char *const[]){"ffn_down"}, (const uint32_t[]){hp->width}, 1, hp->ffn, &out->down));
    char name[64];
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", i);
    GYRE_TRY(vector(l, name, hp->width, &out->attn_norm));
    snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", i);
    GYRE_TRY(vector(l, name, hp->width, &out->ffn_norm));
    return hp->kv_centre ? load_centre(l, i, kv, &out->kv_centre) : GYRE_OK;
}

static gyre_status load_shared(const struct loader *l, struct gyre_llama *m)
{
    const struct gyre_hparams *hp = &m->hp;
    float divisors[GYRE_MAX_HAD_ORDER];
    const struct gyre_tensor *t = hp->has_rope_freqs ? gyre_source_tensor(l->source, "rope_freqs.weight") : NULL;
    if (t) gyre_tensor_rows_f32(t, 0, t->rows, divisors);
    GYRE_TRY(gyre_llama_shared_create(m->device, hp, t ? divisors : NULL, &m->shared, l->err));
    GYRE_TRY(vector(l, "output_norm.weight", hp->width, &m->output_norm));
    if (hp->rot.head.n)
        GYRE_TRY(
            gyre_upload(m->device, hp->rot.head_gain, hp->width * sizeof(float), "head gain", &m->head_gain, l->err));
    struct gyre_weight_part p;
    GYRE_TRY(part(l, "token_embd.weight", hp->vocab, hp->width, &p));
    GYRE_TRY(gyre_weight_load(m->device, l->repacker, &p, 1, 32, "token_embd.weight", &m->table, l->err));
    if (hp->tied) return GYRE_OK;
    GYRE_TRY(part(l, "output.weight", hp->vocab, hp->width, &p));
    return gyre_weight_load(m->device, l->repacker, &p, 1, 32, "output.weight", &m->head, l->err);
}

gyre_status gyre_llama_load(gyre_device *device, const gyre_source *source, int (*progress)(void *, double), void *user,
                            struct gyre_llama *out, gyre_error *err)
{
    *out = (struct gyre_llama){.device = device};
    struct loader l = {.device = device, .source = source, .err = err};
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_hparams_read(source, &out->hp, err));
    GYRE_GO(gyre_model_check(source, &out->hp, err));
    l.portable_group = out->hp.wgroup_declared ? out->hp.wgroup : 32;
    GYRE_GO(gyre_repacker_create(device, &l.repacker, err));
    out->layer = calloc(out->hp.n_layers, sizeof *out->layer);
    if (!out->layer) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot load model (%s): out of memory", gyre_source_path(source));
        goto done;
    }
    GYRE_GO(load_shared(&l, out));
    for (uint32_t i = 0; i < out->hp.n_layers; i++) {
        GYRE_GO(load_layer(&l, &out->hp, i, &out->layer[i]));
        if (progress && progress(user, (i + 1.0) / out->hp.n_layers)) {
            st = gyre_fail(err, GYRE_E_CANCELLED, "cancelled while loading (%s)", gyre_source_path(source));
            goto done;
        }
    }
    out->weight_bytes = gyre_weight_bytes(&out->table) + gyre_weight_bytes(&out->head);
    for (uint32_t i = 0; i < out->hp.n_layers; i++) {
        const struct gyre_llama_layer *y = &out->layer[i];
        out->weight_bytes += gyre_weight_bytes(&y->qkv) + gyre_weight_bytes(&y->o) + gyre_weight_bytes(&y->gate_up) +
                             gyre_weight_bytes(&y->down);
    }
done:
    gyre_repacker_destroy(l.repacker);
    if (st != GYRE_OK) gyre_llama_free(out);
    return st;
}

void gyre_llama_free(struct gyre_llama *m)
{
    for (uint32_t i = 0; m->layer && i < m->hp.n_layers; i++) {
        struct gyre_llama_layer *y = &m->layer[i];
        gyre_weight_destroy(m->device, &y->qkv);
        gyre_weight_destroy(m->device, &y->o);
        gyre_weight_destroy(m->device, &y->gate_up);
        gyre_weight_destroy(m->device, &y->down);
        gyre_buffer_destroy(m->device, y->attn_norm.buffer);
        gyre_buffer_destroy(m->device, y->ffn_norm.buffer);
        gyre_buffer_destroy(m->device, y->kv_centre.buffer);
    }
    free(m->layer);
    gyre_weight_destroy(m->device, &m->table);
    gyre_weight_destroy(m->device, &m->head);
    gyre_buffer_destroy(m->device, m->output_norm.buffer);
    gyre_buffer_destroy(m->device, m->head_gain.buffer);
    gyre_llama_shared_free(m->device, &m->shared);
    gyre_hparams_free(&m->hp);
    *m = (struct gyre_llama){0};
}

// ---- the graph ------------------------------------------------------------------------------------------

gyre_value gyre_llama_block(gyre_graph *g, gyre_value x, const struct gyre_hparams *hp,
                            const struct gyre_llama_shared *shared, const struct gyre_llama_layer *layer,
                            const struct gyre_kv_pool *kv, const struct gyre_precision *precision, gyre_tap stop)
{
    const struct gyre_attn_shape shape = {.heads = hp->heads,
                                          .kv_heads = hp->kv_heads,
                                          .head_dim = hp->head_dim,
                                          .interleaved = hp->rope_interleaved,
                                          .mscale = 1,
                                          .freqs = shared->freqs};
    const struct gyre_binding none = {0};
    const uint32_t act = precision->act;
    const float clip = precision->act_clip;

    gyre_value h = gyre_g_rms_norm(g, x, layer->attn_norm, hp->norm_eps);
    if (stop == GYRE_TAP_QKV) return h;
    gyre_value qkv = gyre_g_rope(g, gyre_g_matmul(g, gyre_g_quantize(g, h, act, clip), &layer->qkv), &shape);
    if (hp->rot.r3 && precision->kv < 16)
        qkv = gyre_g_hadamard(g, qkv, &shared->r3, hp->heads + hp->kv_heads, false, none);
    struct gyre_kv_pool pool = *kv;
    pool.centre = precision->kv < 16 ? layer->kv_centre : none; // 16 bits have nothing to gain
    gyre_g_kv_write(g, qkv, &shape, &pool);
    gyre_value o = gyre_g_attn(g, qkv, &shape, &pool);
    if (stop == GYRE_TAP_O) return o;
    x = gyre_g_add(g, gyre_g_matmul(g, gyre_g_quantize(g, o, act, clip), &layer->o), x);

    h = gyre_g_rms_norm(g, x, layer->ffn_norm, hp->norm_eps);
    if (stop == GYRE_TAP_GATE_UP) return h;
    gyre_value a = gyre_g_act_mul(g, gyre_g_matmul(g, gyre_g_quantize(g, h, act, clip), &layer->gate_up), 0);
    if (shared->r4.n) a = gyre_g_hadamard(g, a, &shared->r4, hp->ffn / shared->r4.n, false, none);
    if (stop == GYRE_TAP_DOWN) return a;
    return gyre_g_add(g, gyre_g_matmul(g, gyre_g_quantize(g, a, act, clip), &layer->down), x);
}

gyre_value gyre_llama_head(gyre_graph *g, gyre_value x, const struct gyre_llama *m)
{
    gyre_value z = gyre_g_rms_norm(g, x, m->output_norm, m->hp.norm_eps);
    if (m->shared.head.n) { // one table for both ends: to the model's own basis, its final gain, and back
        const uint32_t segments = m->hp.width / m->shared.head.n;
        z = gyre_g_hadamard(g, z, &m->shared.head, segments, true, (struct gyre_binding){0});
        z = gyre_g_hadamard(g, z, &m->shared.head, segments, false, m->head_gain);
    }
    return gyre_g_matmul(g, z, m->head.n_ranges ? &m->head : &m->table);
}
