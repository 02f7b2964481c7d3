// See synthetic.h.
#include "runtime/model/synthetic.h"

#include "runtime/model/arch.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct shape {
    const char *name, *arch;
    uint32_t layers, width, heads, kv_heads, head_dim, ffn, vocab;
    bool tied;
    double rope_base;
} shapes[] = {
#define SHAPE(...) {__VA_ARGS__},
#include "runtime/model/shapes.def"
};

static gyre_status unknown(const char *name, gyre_error *err)
{
    char list[256] = "";
    for (size_t i = 0, at = 0; i < GYRE_COUNT(shapes); i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", shapes[i].name);
    return gyre_fail(err, GYRE_E_INVALID, "cannot make a model (%s): there is no such shape; there are %s", name, list);
}

gyre_status gyre_shape_hparams(const char *name, uint32_t wgroup, struct gyre_hparams *hp, gyre_error *err)
{
    const struct shape *s = NULL;
    *hp = (struct gyre_hparams){0};
    for (size_t i = 0; i < GYRE_COUNT(shapes); i++)
        if (!strcmp(shapes[i].name, name)) s = &shapes[i];
    if (!s) return unknown(name, err);
    *hp = (struct gyre_hparams){.family = gyre_arch_find(s->arch, GYRE_CONTAINER_GGUF),
                                .full = true,
                                .n_layers = s->layers,
                                .width = s->width,
                                .heads = s->heads,
                                .kv_heads = s->kv_heads,
                                .head_dim = s->head_dim,
                                .ffn = s->ffn,
                                .vocab = s->vocab,
                                .context = 1 << 17,
                                .norm_eps = 1e-5f,
                                .rope_base = s->rope_base,
                                .rope_factor = 1,
                                .rope_mscale = 1,
                                .stream_eps = 1e-5f,
                                .embed_scale = 1,
                                .logit_divisor = 1,
                                .rope_dims = s->head_dim,
                                .tied = s->tied,
                                .act_bits = 8,
                                .kv_bits = 8,
                                .kv_bits_v = 8,
                                .act_clip = 1,
                                .kv_clip = 1,
                                .kv_clip_v = 1,
                                .tap_clip = 1,
                                .wgroup = wgroup};
    hp->roles = hp->family->roles;
    hp->biases = hp->family->biases;
    snprintf(hp->arch, sizeof hp->arch, "%s", s->arch);
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const uint32_t k = gyre_product_width((gyre_product)p, hp);
        if (wgroup && k % wgroup)
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot make a model (%s): groups of %u do not divide %u, the %s; use another --wgroup",
                             name, wgroup, k, gyre_products[p].input);
    }
    hp->rot.r3 = true;
    gyre_status st = gyre_hadamard_create(hp->head_dim, &hp->rot.r3_had, err);
    if (st == GYRE_OK) st = gyre_hadamard_create(gyre_hadamard_segment(hp->ffn), &hp->rot.r4, err);
    if (st != GYRE_OK) gyre_hparams_free(hp);
    return st;
}

// ---- sizes ----------------------------------------------------------------------------------------------

static uint32_t product_columns(const struct gyre_hparams *hp, gyre_product product)
{
    uint64_t n = 0, rows, cols;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, hp, &rows, &cols);
        n += rows;
    }
    return (uint32_t)n;
}

static uint32_t group_of(const struct gyre_hparams *hp, uint32_t k) { return hp->wgroup ? hp->wgroup : k; }

// Of all matrices.
static uint64_t shape_bytes(const struct gyre_hparams *hp, const struct gyre_synthetic *how)
{
    uint64_t total = 0, bytes[3];
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const uint32_t k = gyre_product_width((gyre_product)p, hp);
        gyre_weight_plane_bytes(GYRE_WEIGHT_W4, product_columns(hp, (gyre_product)p), k, group_of(hp, k), bytes);
        total += hp->n_layers * (bytes[0] + bytes[1] + bytes[2]);
    }
    for (int head = how->no_table; head < (hp->tied ? 1 : 2); head++) {
        const bool low = head && how->head4;
        gyre_weight_plane_bytes(low ? GYRE_WEIGHT_W4 : GYRE_WEIGHT_W8, hp->vocab, hp->width, 32, bytes);
        total += bytes[0] + bytes[1] + bytes[2];
    }
    return total;
}

// ---- making ---------------------------------------------------------------------------------------------

// A matrix of uniform codes whose products keep the size of what they read: the scale is 1 / (sigma sqrt(K)) times
// `gain`, sigma the deviation of the codes.
static gyre_status matrix(gyre_device *device, gyre_repacker *repacker, gyre_weight_kind kind, uint32_t n, uint32_t k,
                          uint32_t group, double gain, const char *label, struct gyre_weight *out, gyre_error *err)
{
    const double sigma = kind == GYRE_WEIGHT_W4 ? 4.61 : 73.9;
    const uint16_t scale = gyre_f16_from_f32((float)(gain / (sigma * sqrt((double)k))));
    gyre_status st = gyre_weight_create(device, kind, n, k, group, label, out, err);
    for (uint32_t i = 0; st == GYRE_OK && i < out->n_ranges; i++)
        st = gyre_repack_noise(repacker, kind, k, group, scale, &out->range[i], err);
    return st;
}

// n floats, all alike.
static gyre_status vector(gyre_device *device, uint64_t n, float value, const char *label, struct gyre_binding *out,
                          gyre_error *err)
{
    float *values = malloc(n * sizeof *values);
    if (!values) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a model: out of memory");
    for (uint64_t i = 0; i < n; i++) values[i] = value;
    const gyre_status st = gyre_upload(device, values, n * sizeof *values, label, out, err);
    free(values);
    return st;
}

static gyre_status make_layer(gyre_device *device, gyre_repacker *repacker, const struct gyre_hparams *hp,
                              uint32_t layer, struct gyre_layer_weights *out, gyre_error *err)
{
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const uint32_t n = product_columns(hp, (gyre_product)p), k = gyre_product_width((gyre_product)p, hp);
        bool biased = false;
        GYRE_TRY(matrix(device, repacker, GYRE_WEIGHT_W4, n, k, group_of(hp, k), 1, gyre_products[p].name,
                        &out->product[p], err));
        for (int r = 0; r < GYRE_LINEARS; r++)
            biased |= gyre_roles[r].product == (gyre_product)p && gyre_role_has_bias(hp, (gyre_role)r, layer);
        if (biased) GYRE_TRY(vector(device, n, 0, "bias", &out->bias[p], err));
        const gyre_role norm = gyre_products[p].norm;
        if (norm != GYRE_ROLE_none && gyre_role_present(hp, norm, layer))
            GYRE_TRY(vector(device, hp->width, 1, "norm", &out->norm[norm], err));
    }
    if (gyre_role_present(hp, GYRE_ROLE_q_norm, layer))
        GYRE_TRY(vector(device, 2 * (uint64_t)hp->head_dim, 1, "head gains", &out->head_gains, err));
    return GYRE_OK;
}

gyre_status gyre_model_synthetic(gyre_device *device, struct gyre_hparams *given, const struct gyre_synthetic *how,
                                 struct gyre_model *out, gyre_error *err)
{
    *out = (struct gyre_model){.device = device, .hp = *given};
    *given = (struct gyre_hparams){0};
    const struct gyre_hparams *hp = &out->hp;
    if (how->head4) out->hp.tied = false;
    const uint64_t need = shape_bytes(hp, how), have = gyre_device_info(device)->memory_bytes;
    gyre_repacker *repacker = NULL;
    gyre_status st = GYRE_OK;
    if (hp->tied && how->no_table) GYRE_GO(gyre_model_tied(hp->arch, err));
    if (need > have)
        GYRE_GO(gyre_fail(err, GYRE_E_DEVICE_MEM,
                          "cannot make a model (%s): its weights take %llu MiB and %s has %llu; use a smaller shape",
                          hp->arch, (unsigned long long)(need >> 20), gyre_device_info(device)->id,
                          (unsigned long long)(have >> 20)));
    out->layer = calloc(hp->n_layers, sizeof *out->layer);
    if (!out->layer) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot make a model: out of memory"));
    GYRE_GO(gyre_repacker_create(device, &repacker, err));
    GYRE_GO(gyre_shared_create(device, hp, &out->shared, err));
    GYRE_GO(vector(device, hp->width, 1, "output norm", &out->output_norm, err));
    // Rows of the table are read as they are by the embedding: as large as what norms make.
    if (!how->no_table)
        GYRE_GO(matrix(device, repacker, GYRE_WEIGHT_W8, hp->vocab, hp->width, 32, sqrt((double)hp->width), "embedding",
                       &out->table, err));
    if (!hp->tied)
        GYRE_GO(matrix(device, repacker, how->head4 ? GYRE_WEIGHT_W4 : GYRE_WEIGHT_W8, hp->vocab, hp->width, 32, 1,
                       "head", &out->head, err));
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        GYRE_GO(make_layer(device, repacker, hp, i, &out->layer[i], err));
        if (how->progress && how->progress(how->user, (i + 1.0) / hp->n_layers))
            GYRE_GO(gyre_fail(err, GYRE_E_CANCELLED, "cancelled while making a model"));
    }
    out->weight_bytes = need;
done:
    gyre_repacker_destroy(repacker);
    if (st != GYRE_OK) gyre_model_free(out);
    return st;
}
