// gyre_inspect: a model file as JSON, for people and scripts. Reads and checks; touches no device.
#include "runtime/model/linear.h"
#include "runtime/model/weights.h"
#include "runtime/source/json_file.h"
#include "runtime/util/half.h"
#include "runtime/verdict.h"

#include <gyre/gyre.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *metadata_value(const gyre_source *source, const struct gyre_meta *m)
{
    int64_t i;
    double f;
    bool b, found;
    const char *s = NULL;
    if (m->type == GYRE_META_ARRAY) return json_pack("{s:I}", "length", (json_int_t)m->count);
    if (m->type == GYRE_META_STRING)
        return gyre_source_string(source, m->key, &s, NULL) == GYRE_OK && s ? gyre_json_text(s) : json_null();
    // What JSON cannot say (a bool of 2, NaN, 2^63) is null.
    if (m->type == GYRE_META_BOOL)
        return gyre_source_bool(source, m->key, &b, &found, NULL) == GYRE_OK ? json_boolean(b) : json_null();
    if (m->type != GYRE_META_F32 && m->type != GYRE_META_F64)
        return gyre_source_i64(source, m->key, &i, &found, NULL) == GYRE_OK ? json_integer(i) : json_null();
    return gyre_source_f64(source, m->key, &f, &found, NULL) == GYRE_OK && f - f == 0 ? json_real(f) : json_null();
}

static json_t *metadata(const gyre_source *source)
{
    json_t *out = json_object();
    for (uint64_t i = 0; i < gyre_source_meta_count(source); i++) {
        const struct gyre_meta m = gyre_source_meta_at(source, i);
        json_t *key = gyre_json_text(m.key);
        json_object_set_new(out, json_string_value(key) ? json_string_value(key) : "?", metadata_value(source, &m));
        json_decref(key);
    }
    return out;
}

static json_t *tensors(const gyre_source *source)
{
    json_t *out = json_array();
    for (uint64_t i = 0; i < gyre_source_tensor_count(source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(source, i);
        json_t *shape = json_array();
        for (uint32_t d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)t->dims[d]));
        json_array_append_new(out,
                              json_pack("{s:o, s:s, s:o, s:I}", "name", gyre_json_text(t->name), "type",
                                        gyre_dtype_info(t->type)->name, "shape", shape, "bytes", (json_int_t)t->bytes));
    }
    for (uint64_t i = 0; gyre_source_unread(source, i); i++) {
        const struct gyre_unread *t = gyre_source_unread(source, i);
        json_t *shape = json_array();
        for (uint32_t d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)t->dims[d]));
        json_array_append_new(
            out, json_pack("{s:s, s:s, s:o, s:n}", "name", t->name, "type", t->type, "shape", shape, "bytes"));
    }
    return out;
}

static json_t *transform(const struct gyre_hadamard *h)
{
    if (h->n == 0) return json_null();
    return json_pack("{s:i, s:[i,i,i], s:i}", "n", (int)h->n, "orders", (int)h->k[0], (int)h->k[1], (int)h->k[2],
                     "log2", (int)h->p);
}

// {product: [bits of what it reads, by block]} of products that somewhere have others than the file's; null: none has.
static json_t *taps(const struct gyre_hparams *hp)
{
    json_t *out = json_object();
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        json_t *bits = json_array();
        bool own = false;
        for (uint32_t l = 0; l < hp->n_layers; l++) {
            const uint32_t other = hp->kind[l].act[p];
            own |= other != 0;
            json_array_append_new(bits, json_integer((json_int_t)(other ? other : hp->act_bits)));
        }
        if (own) json_object_set(out, gyre_products[p].name, bits);
        json_decref(bits);
    }
    if (json_object_size(out)) return out;
    json_decref(out);
    return json_null();
}

static json_t *model(const struct gyre_hparams *hp)
{
    static const char *const scaling[] = {"none", "linear", "llama3", "yarn", "longrope"};
    int windowed = 0;
    for (uint32_t i = 0; i < hp->n_layers; i++) windowed += hp->window && hp->kind[i].windowed;
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:s, s:b, s:i, s:i, s:i, s:i, "
                     "s:f, s:f, s:f, s:i, s:b, s:o, s:f}",
                     "arch", hp->arch, "layers", (int)hp->n_layers, "width", (int)hp->width, "heads", (int)hp->heads,
                     "kv_heads", (int)hp->kv_heads, "head_dim", (int)hp->head_dim, "ffn", (int)hp->ffn, "vocab",
                     (int)hp->vocab, "context", (int)hp->context, "window", (int)hp->window, "windowed_layers",
                     windowed, "norm_eps", (double)hp->norm_eps, "rope_base", hp->rope_base, "rope_scaling",
                     scaling[hp->rope_scaling], "tied", hp->tied, "act", (int)hp->act_bits, "kv", (int)hp->kv_bits,
                     "kv_v", (int)hp->kv_bits_v, "wgroup", (int)hp->wgroup, "act_clip", (double)hp->act_clip, "kv_clip",
                     (double)hp->kv_clip, "kv_clip_v", (double)hp->kv_clip_v, "act_group", (int)hp->act_group,
                     "kv_centre", hp->kv_centre, "tap_bits", taps(hp), "tap_clip", (double)hp->tap_clip);
}

// A model file in figures: what gyre_model_weigh gives away and gyre_inspect writes down.
struct gyre_inspection {
    gyre_source *source;
    struct gyre_hparams hp;
    gyre_status read; // of `hp`; another than GYRE_OK: nothing that follows from it is known, and why
    gyre_error failed;
    gyre_model_size size;
    uint64_t weights, table; // bytes on the device: all, and the token table of it
    uint64_t kv[3];          // bytes of a token that all layers keep, at 16, 8 and 4 bits
};

static void inspection_free(struct gyre_inspection *in)
{
    gyre_hparams_free(&in->hp);
    gyre_source_close(in->source);
}

// The linears of all blocks: bytes, scales included, and weights.
static void weigh_blocks(struct gyre_inspection *in)
{
    gyre_model_size *size = &in->size;
    for (uint32_t l = 0; l < in->hp.n_layers; l++)
        for (int r = 0; r < GYRE_LINEARS; r++) {
            uint64_t rows, cols;
            if (!gyre_role_present(&in->hp, (gyre_role)r, l)) continue;
            gyre_role_shape((gyre_role)r, &in->hp, &rows, &cols);
            size->block_weights += rows * cols;
            struct gyre_linear linear;
            if (gyre_linear_find(in->source, &in->hp, (gyre_role)r, l, &linear, NULL) != GYRE_OK) continue;
            const struct gyre_tensor *all[GYRE_LINEAR_TENSORS];
            for (uint32_t i = 0, n = gyre_linear_tensors(&linear, all); i < n; i++)
                size->block_bytes += all[i]->bytes / linear.whole * linear.rows;
        }
    if (size->block_weights) size->bits_per_weight = 8 * (double)size->block_bytes / (double)size->block_weights;
}

// What the loader will place (weights that do not fit f16 it stores wider, which only their numbers tell). A model that
// lacks a part has no such sum: 0.
static void weight_memory(const gyre_source *source, const struct gyre_hparams *hp, uint64_t *weights, uint64_t *table)
{
    struct gyre_linear l[GYRE_LINEARS];
    gyre_role role[GYRE_LINEARS];
    uint32_t n;
    bool whole = gyre_linear_find(source, hp, GYRE_ROLE_embedding, 0, l, NULL) == GYRE_OK;
    *table = whole ? gyre_weight_form_bytes(l, 1, 0) : 0;
    *weights = *table;
    if (whole && !hp->tied) {
        whole = gyre_linear_find(source, hp, GYRE_ROLE_head, 0, l, NULL) == GYRE_OK;
        if (whole) *weights += gyre_weight_form_bytes(l, 1, 0);
    }
    for (uint32_t i = 0; whole && i < hp->n_layers * GYRE_PRODUCTS; i++) {
        const gyre_product product = (gyre_product)(i % GYRE_PRODUCTS);
        whole = gyre_linear_product(source, hp, i / GYRE_PRODUCTS, product, l, role, &n, NULL) == GYRE_OK;
        if (whole && n) *weights += gyre_weight_form_bytes(l, n, 0);
    }
    if (!whole) *weights = *table = 0;
}

// Of a source that is open.
static void measure(struct gyre_inspection *out)
{
    const struct gyre_hparams *hp = &out->hp;
    out->read = gyre_hparams_read(out->source, &out->hp, &out->failed);
    for (uint64_t i = 0; i < gyre_source_tensor_count(out->source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(out->source, i);
        out->size.bytes += t->bytes;
    }
    if (out->read != GYRE_OK) return;
    weight_memory(out->source, hp, &out->weights, &out->table);
    weigh_blocks(out);
    const uint64_t cell = (uint64_t)hp->n_layers * hp->kv_heads * 2, codes = cell * hp->head_dim;
    out->kv[0] = codes * 2;
    out->kv[1] = codes + cell * 4;
    out->kv[2] = codes / 2 + cell * 4;
}

gyre_status gyre_model_weigh(const char *path, gyre_model_size *out, gyre_error *err)
{
    struct gyre_inspection in = {0};
    gyre_status st = gyre_model_open(path, &in.source, err);
    if (st == GYRE_OK) measure(&in);
    if (st == GYRE_OK && in.read != GYRE_OK) st = gyre_fail(err, in.read, "%s", in.failed.message);
    *out = in.size;
    inspection_free(&in);
    return st;
}

static json_t *memory(const struct gyre_inspection *in)
{
    json_t *kv = json_pack("{s:I, s:I, s:I}", "16", (json_int_t)in->kv[0], "8", (json_int_t)in->kv[1], "4",
                           (json_int_t)in->kv[2]);
    return json_pack("{s:I, s:I, s:o}", "weights_bytes", (json_int_t)in->weights, "table_bytes", (json_int_t)in->table,
                     "kv_bytes_per_token", kv);
}

gyre_status gyre_inspect(const char *path, char **json, gyre_error *err)
{
    struct gyre_inspection in = {0};
    json_t *out = NULL;
    gyre_status st = GYRE_OK;
    *json = NULL;
    GYRE_GO(gyre_source_look(path, &in.source, err));
    measure(&in);
    const bool known = in.read == GYRE_OK;
    json_t *rotations =
        json_pack("{s:o, s:b, s:o, s:o, s:b}", "r1", transform(&in.hp.rot.r1), "r3", in.hp.rot.r3, "r4",
                  transform(&in.hp.rot.r4), "head", transform(&in.hp.rot.head), "head_mix", in.hp.rot.head_mix);
    if (!known) json_decref(rotations), rotations = json_null();
    out = json_pack("{s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "path", gyre_json_text(path), "container",
                    gyre_source_container(in.source) == GYRE_CONTAINER_GGUF ? "gguf" : "hf", "bytes",
                    (json_int_t)in.size.bytes, "verdict", gyre_verdict(in.source, &in.hp, in.read, &in.failed), "model",
                    known ? model(&in.hp) : json_null(), "rotations", rotations, "memory", memory(&in), "metadata",
                    metadata(in.source), "tensors", tensors(in.source));
    *json = out ? json_dumps(out, JSON_INDENT(1)) : NULL;
    if (!*json) st = gyre_fail(err, GYRE_E_NOMEM, "cannot inspect (%s): out of memory", path);
done:
    json_decref(out);
    inspection_free(&in);
    return st;
}
