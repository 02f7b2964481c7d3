// A Hugging Face directory behind the writer: safetensors shards beside config.json and the tokenizer's files.
// Rounded linears are compressed-tensors' pack-quantized: weight_packed I32 [out, in * bits / 32] (code + half of
// the range, the first input in the lowest bits), weight_scale F16 [out, groups], weight_shape I64 [2]. Tables are
// F16, vectors F32. Inside of a shard tensors lie by the width of their elements, widest first, so that each is
// aligned to it. Where an architecture has one tensor for several linears (Phi-3's qkv_proj), each of them writes its
// rows of it: the first one's entry describes the whole, and those of the others lie behind. They have one width and
// biases all or none, as the linears of a product must.
#include "quantizer/file/hf_config.h"
#include "runtime/core/codec.h"
#include "runtime/util/base.h"
#include "runtime/util/locale.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- tensors --------------------------------------------------------------------------------------------------

enum { PACKED, SCALE, SHAPE }; // the pieces of a rounded linear

static gyre_status add(struct gyre_writer *out, const struct gyre_hparams *hp, const struct gyre_planned *p,
                       uint32_t piece, const char *part, gyre_dtype type, uint32_t n_dims, uint64_t rows, uint64_t cols,
                       gyre_error *err)
{
    char name[GYRE_HF_NAME];
    struct gyre_written *t = &out->tensor[out->n_tensors++];
    gyre_hf_name(hp, p->part.role, p->part.layer, part, name);
    *t = (struct gyre_written){
        .part = p->part, .piece = piece, .type = type, .n_dims = n_dims, .dims = {n_dims == 2 ? rows : cols, cols}};
    if (piece != SHAPE) gyre_written_share(t, hp, GYRE_CONTAINER_HF);
    uint64_t row = 0;
    if (strlen(name) >= sizeof t->name || !gyre_dtype_row_bytes(type, cols, &row))
        return gyre_fail(err, GYRE_E_INVALID, "cannot describe the output (%s): its name or shape is impossible", name);
    memcpy(t->name, name, strlen(name) + 1);
    t->bytes = (n_dims == 2 ? rows : 1) * row;
    return GYRE_OK;
}

static gyre_status add_part(struct gyre_writer *out, const struct gyre_hparams *hp, const struct gyre_planned *p,
                            gyre_error *err)
{
    const gyre_dtype floats = p->bits == 32 ? GYRE_DTYPE_F32 : GYRE_DTYPE_F16;
    switch (p->part.kind) {
    case GYRE_PART_LINEAR:
        if (p->bits >= 16) break;
        GYRE_TRY(add(out, hp, p, PACKED, "weight_packed", GYRE_DTYPE_I32, 2, p->rows,
                     gyre_div_up(p->cols * p->bits, 32), err));
        GYRE_TRY(
            add(out, hp, p, SCALE, "weight_scale", GYRE_DTYPE_F16, 2, p->rows, p->group ? p->cols / p->group : 1, err));
        if (p->part.role != gyre_role_fusion(hp, p->part.role, GYRE_CONTAINER_HF).first) return GYRE_OK; // it has one
        return add(out, hp, p, SHAPE, "weight_shape", GYRE_DTYPE_I64, 1, 1, 2, err);
    case GYRE_PART_TABLE:
        break;
    case GYRE_PART_VECTOR:
        return add(out, hp, p, 0, "weight", GYRE_DTYPE_F32, 1, 1, p->cols, err);
    case GYRE_PART_BIAS:
        return add(out, hp, p, 0, "bias", GYRE_DTYPE_F32, 1, 1, p->cols, err);
    case GYRE_PART_CENTRE:
    case GYRE_PART_ACT_CLIPS:
    case GYRE_PART_KV_CLIPS:
    case GYRE_PART_HEAD_MIX:
    case GYRE_PART_HEAD_GAIN:
    case GYRE_PART_BASE:
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot write a Hugging Face directory: it has no place for part %d",
                         (int)p->part.kind);
    }
    return add(out, hp, p, 0, "weight", floats, 2, p->rows, p->cols, err);
}

// ---- shards ---------------------------------------------------------------------------------------------------

static bool begins(const struct gyre_written *t) { return t->first == 0; }

static uint64_t whole_bytes(const struct gyre_written *t)
{
    return t->whole ? t->bytes / t->dims[0] * t->whole : t->bytes;
}

// The entry that describes the tensor of which `t` has some rows; it stands before it.
static const struct gyre_written *lead_of(const struct gyre_written *t)
{
    const struct gyre_written *lead = t;
    while (!begins(lead) || strcmp(lead->name, t->name)) lead--;
    return lead;
}

// Tensors go to shards in their order; one that is larger than a shard has one of its own.
static gyre_status cut(const struct gyre_plan *plan, struct gyre_writer *out, gyre_error *err)
{
    uint64_t bytes = 0;
    uint32_t n = 0;
    for (uint64_t i = 0; i < out->n_tensors; i++) {
        struct gyre_written *t = &out->tensor[i];
        if (!begins(t)) {
            t->file = lead_of(t)->file;
            continue;
        }
        const uint64_t all = whole_bytes(t);
        const bool fits = all <= plan->shard_bytes && bytes <= plan->shard_bytes - all;
        if (i && !fits && t->piece == 0) n++, bytes = 0; // a matrix stays in one piece
        t->file = n;
        bytes += all;
    }
    out->n_files = n + 1;
    out->file = calloc(out->n_files, sizeof *out->file);
    if (!out->file) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the files' fronts");
    for (uint32_t i = 0; i <= n; i++) {
        if (n) snprintf(out->file[i].name, sizeof out->file[i].name, "model-%05u-of-%05u.safetensors", i + 1, n + 1);
        else strcpy(out->file[i].name, "model.safetensors");
    }
    return GYRE_OK;
}

static json_t *described(const struct gyre_written *t)
{
    json_t *shape = json_array();
    for (uint32_t d = 0; d < t->n_dims; d++)
        json_array_append_new(shape, json_integer((json_int_t)(d == 0 && t->whole ? t->whole : t->dims[d])));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", gyre_dtype_info(t->type)->name, "shape", shape, "data_offsets",
                     (json_int_t)t->offset, (json_int_t)(t->offset + whole_bytes(t)));
}

// What no field of compressed-tensors says goes where only gyre looks.
static json_t *metadata(const struct gyre_plan *p)
{
    char act[32], kv[32], group[32];
    const struct gyre_locale locale = gyre_locale_plain();
    snprintf(act, sizeof act, "%.9g", (double)p->choice.act_clip);
    snprintf(kv, sizeof kv, "%.9g", (double)p->choice.kv_clip);
    gyre_locale_back(locale);
    snprintf(group, sizeof group, "%u", p->set.recipe.act_group);
    json_t *out = json_pack("{s:s, s:s, s:s}", "format", "pt", "gyre.recipe", p->set.recipe.name, "gyre.profile",
                            p->set.full ? "full" : "portable");
    if (p->choice.act_clip != 1) json_object_set_new(out, "gyre.act_clip", json_string(act));
    if (p->choice.kv_clip != 1) json_object_set_new(out, "gyre.kv_clip", json_string(kv));
    if (p->set.recipe.act_group && !p->set.full) // else config.json says it
        json_object_set_new(out, "gyre.act_group", json_string(group));
    return out;
}

// Places of the tensors of one shard, and everything before them.
static gyre_status front(const struct gyre_plan *plan, struct gyre_writer *out, uint32_t file, gyre_error *err)
{
    static const uint32_t widths[] = {8, 4, 2, 1};
    struct gyre_written_file *f = &out->file[file];
    json_t *header = json_pack("{s:o}", "__metadata__", metadata(plan));
    uint64_t at = 0;
    for (size_t w = 0; w < GYRE_COUNT(widths); w++)
        for (uint64_t i = 0; i < out->n_tensors; i++) {
            struct gyre_written *t = &out->tensor[i];
            if (t->file != file || gyre_dtype_info(t->type)->block_bytes != widths[w]) continue;
            if (!begins(t)) {
                t->offset = lead_of(t)->offset + t->bytes / t->dims[0] * t->first;
                continue;
            }
            t->offset = at;
            at += whole_bytes(t);
            json_object_set_new(header, t->name, described(t));
        }
    char *text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    const uint64_t n = text ? strlen(text) : 0, length = gyre_round_up(n, 8);
    f->front = text ? malloc(8 + length) : NULL;
    if (f->front) {
        memcpy(f->front, &length, 8);
        memcpy(f->front + 8, text, n);
        memset(f->front + 8 + n, ' ', length - n);
    }
    free(text);
    if (!f->front) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the files' fronts");
    f->front_bytes = 8 + length;
    f->bytes = f->front_bytes + at;
    for (uint64_t i = 0; i < out->n_tensors; i++)
        if (out->tensor[i].file == file) out->tensor[i].offset += f->front_bytes;
    return GYRE_OK;
}

static gyre_status open_hf(const struct gyre_plan *plan, struct gyre_writer *out, gyre_error *err)
{
    out->tensor = malloc(3 * plan->n_tensors * sizeof *out->tensor);
    if (!out->tensor) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the files' fronts");
    for (uint64_t i = 0; i < plan->n_tensors; i++) GYRE_TRY(add_part(out, &plan->hp, &plan->tensor[i], err));
    GYRE_TRY(cut(plan, out, err));
    for (uint32_t i = 0; i < out->n_files; i++) GYRE_TRY(front(plan, out, i, err));
    return gyre_hf_texts(plan, out, err);
}

// ---- bytes ----------------------------------------------------------------------------------------------------

static void pack(const struct gyre_values *v, uint32_t *out)
{
    const uint32_t per = 32 / v->bits, half = 1u << (v->bits - 1);
    const uint64_t words = gyre_div_up(v->cols, per);
    memset(out, 0, v->rows * words * sizeof *out);
    for (uint64_t r = 0; r < v->rows; r++)
        for (uint64_t c = 0; c < v->cols; c++)
            out[r * words + c / per] |= (uint32_t)(v->code[r * v->cols + c] + (int)half) << v->bits * (c % per);
}

static void encode(const struct gyre_written *t, const struct gyre_values *v, void *out)
{
    if (v->bits >= 16) gyre_encode_floats(v->f32, v->rows * v->cols, t->type, out);
    else if (t->piece == PACKED) pack(v, out);
    else if (t->piece == SCALE) memcpy(out, v->scale, t->bytes);
    else {
        const uint64_t whole = (t - SHAPE + SCALE)->whole;
        memcpy(out, (int64_t[2]){(int64_t)(whole ? whole : v->rows), (int64_t)v->cols}, 2 * sizeof(int64_t));
    }
}

const struct gyre_format gyre_format_hf = {"Hugging Face", true, open_hf, encode};
