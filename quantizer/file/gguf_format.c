// GGUF behind the writer. A full file has integers beside a tensor of scales, a portable one the blocks that other
// tools read; gyre's own tensors are "gyre.SOMETHING". See docs/model-format.md.
#include "quantizer/file/gguf_meta.h"
#include "quantizer/file/writer.h"
#include "runtime/core/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct adder {
    struct gyre_gguf g;
    struct gyre_writer *out;
    const struct gyre_plan *plan;
};

// The first of the linears that share a tensor of a plain file describes it; the others have rows of it.
static void add(struct adder *a, const struct gyre_planned *p, uint32_t piece, const char *name, gyre_dtype type,
                uint32_t n_dims, uint64_t rows, uint64_t cols)
{
    struct gyre_written *w = &a->out->tensor[a->out->n_tensors++];
    *w = (struct gyre_written){
        .part = p->part, .piece = piece, .n_dims = n_dims, .dims = {n_dims == 2 ? rows : cols, cols}};
    if (!a->plan->set.full) gyre_written_share(w, &a->plan->hp, GYRE_CONTAINER_GGUF);
    snprintf(w->name, sizeof w->name, "%s", name);
    if (w->first) return;
    const uint64_t first = w->whole ? w->whole : w->dims[0], dims[2] = {first, n_dims == 2 ? cols : first};
    gyre_gguf_add_tensor(&a->g, name, type, n_dims, dims);
}

// "blk.3.attn_qkv.PART", or where it shares nothing "blk.3.attn_q.PART".
static void name_of(const struct adder *a, const struct gyre_plan_part *part, const char *piece,
                    char name[GYRE_ROLE_NAME])
{
    const struct gyre_fused fused = gyre_role_fusion(&a->plan->hp, part->role, GYRE_CONTAINER_GGUF);
    if (a->plan->set.full || !fused.stem) gyre_role_name(part->role, part->layer, piece, name);
    else snprintf(name, GYRE_ROLE_NAME, "blk.%u.%s.%s", part->layer, fused.stem, piece);
}

static gyre_dtype plain_type(uint32_t bits)
{
    return bits == 4 ? GYRE_DTYPE_Q4_0 : bits == 8 ? GYRE_DTYPE_Q8_0 : bits == 16 ? GYRE_DTYPE_F16 : GYRE_DTYPE_F32;
}

static void add_linear(struct adder *a, const struct gyre_planned *p, bool full)
{
    char name[GYRE_ROLE_NAME];
    name_of(a, &p->part, "weight", name);
    if (p->bits >= 16 || !full) {
        add(a, p, 0, name, plain_type(p->bits), 2, p->rows, p->cols);
        return;
    }
    add(a, p, 0, name, GYRE_DTYPE_I8, 2, p->rows, p->bits == 4 ? p->cols / 2 : p->cols);
    gyre_role_name(p->part.role, p->part.layer, "weight.scale", name);
    add(a, p, 1, name, GYRE_DTYPE_F16, 2, p->rows, p->group ? p->cols / p->group : 1);
}

static void add_part(struct adder *a, const struct gyre_planned *p, bool full)
{
    static const char *const site[GYRE_BASE_SITES] = {"r1", "r3", "r4", "head"};
    const struct gyre_plan_part *part = &p->part;
    char name[GYRE_ROLE_NAME];
    switch (part->kind) {
    case GYRE_PART_LINEAR:
        add_linear(a, p, full);
        return;
    case GYRE_PART_TABLE:
        gyre_role_name(part->role, part->layer, "weight", name);
        add(a, p, 0, name, plain_type(p->bits), 2, p->rows, p->cols);
        return;
    case GYRE_PART_HEAD_MIX:
        add(a, p, 0, "gyre.head_mix", plain_type(p->bits), 2, p->rows, p->cols);
        return;
    case GYRE_PART_BASE:
        snprintf(name, sizeof name, "gyre.%s.base.%u", site[part->layer / 3], part->layer % 3);
        add(a, p, 0, name, GYRE_DTYPE_I8, 2, p->rows, p->cols);
        return;
    case GYRE_PART_ACT_CLIPS:
        snprintf(name, sizeof name, "gyre.act_clips");
        break;
    case GYRE_PART_KV_CLIPS:
        snprintf(name, sizeof name, "gyre.kv_clips");
        break;
    case GYRE_PART_HEAD_GAIN:
        snprintf(name, sizeof name, "gyre.head_gain");
        break;
    case GYRE_PART_VECTOR:
        gyre_role_name(part->role, part->layer, "weight", name);
        break;
    case GYRE_PART_BIAS:
        name_of(a, part, "bias", name);
        break;
    case GYRE_PART_CENTRE:
        gyre_role_name(part->role, part->layer, "centre", name);
        break;
    }
    add(a, p, 0, name, GYRE_DTYPE_F32, 1, 1, p->cols);
}

// The tensor that `w` has rows of: `last`, or one that was described before it.
static const struct gyre_gguf_tensor *shared(const struct gyre_gguf_tensor *last, const struct gyre_written *w)
{
    while (strcmp(last->name, w->name)) last--;
    return last;
}

static gyre_status open_gguf(const struct gyre_plan *plan, struct gyre_writer *out, gyre_error *err)
{
    struct adder a = {.out = out, .plan = plan};
    gyre_status st = GYRE_OK;
    out->tensor = malloc(2 * plan->n_tensors * sizeof *out->tensor);
    out->file = calloc(1, sizeof *out->file);
    if (!out->tensor || !out->file) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the file's front");
    for (uint64_t i = 0; i < plan->n_tensors; i++) add_part(&a, &plan->tensor[i], plan->set.full);
    GYRE_GO(gyre_gguf_metadata(plan, &a.g, err));
    GYRE_GO(gyre_gguf_finish(&a.g, &out->file[0].front, &out->file[0].front_bytes, &out->file[0].bytes, err));
    out->n_files = 1;
    for (uint64_t i = 0, n = 0; i < out->n_tensors; i++) {
        struct gyre_written *w = &out->tensor[i];
        const struct gyre_gguf_tensor *t = w->first ? shared(&a.g.tensors[n - 1], w) : &a.g.tensors[n++];
        const uint64_t row = t->bytes / t->dims[0];
        memcpy(w->name, t->name, sizeof w->name);
        w->type = t->type;
        w->bytes = row * w->dims[0];
        w->offset = t->offset + row * w->first;
    }
done:
    gyre_gguf_free(&a.g);
    return st;
}

// The scale of a group is repeated in each block of 32.
static void encode_blocks(const struct gyre_values *v, gyre_dtype type, unsigned char *out)
{
    const uint64_t n = v->rows * v->cols, bytes = gyre_dtype_info(type)->block_bytes;
    for (uint64_t at = 0; at < n; at += 32, out += bytes) {
        if (type == GYRE_DTYPE_Q4_0) gyre_encode_q4_0(v->code + at, &v->scale[at / v->group], 32, out);
        else gyre_encode_q8_0(v->code + at, &v->scale[at / v->group], 32, out);
    }
}

static void encode(const struct gyre_written *t, const struct gyre_values *v, void *out)
{
    const uint64_t n = v->rows * v->cols;
    if (v->bits >= 16) gyre_encode_floats(v->f32, n, t->type, out);
    else if (t->piece == 1) memcpy(out, v->scale, t->bytes);
    else if (t->type != GYRE_DTYPE_I8) encode_blocks(v, t->type, out);
    else if (v->bits == 4) gyre_pack_i4(v->code, n, out);
    else memcpy(out, v->code, n);
}

const struct gyre_format gyre_format_gguf = {"GGUF", false, open_gguf, encode};
