// GGUF's Q4_0 and Q8_0: blocks of 32 with a scale each. A portable file that gyre wrote declares (gyre.wgroup) that
// the blocks of a group repeat one scale; other tools read it as the blocks that it is.
#include "runtime/core/codec.h"
#include "runtime/model/pack.h"
#include "runtime/util/half.h"

#include <string.h>

enum { BLOCK = 32 };

static bool takes_q4_0(gyre_dtype type) { return type == GYRE_DTYPE_Q4_0; }
static bool takes_q8_0(gyre_dtype type) { return type == GYRE_DTYPE_Q8_0; }

static gyre_status open_blocks(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                               struct gyre_linear *l, gyre_error *err)
{
    (void)layer;
    const struct gyre_tensor *t = l->weight;
    if (t->n_dims != 2 || t->rows != l->whole || t->cols != l->cols)
        return gyre_role_misshapen(source, t, l->whole, l->cols, err);
    l->bits = t->type == GYRE_DTYPE_Q4_0 ? 4 : 8;
    l->group = l->stored = BLOCK;
    if (role < GYRE_LINEARS && hp->wgroup_declared) l->group = hp->wgroup ? hp->wgroup : (uint32_t)l->cols;
    return GYRE_OK;
}

static const unsigned char *block_of(const struct gyre_linear *l, uint64_t row, uint64_t block)
{
    const uint64_t bytes = gyre_dtype_info(l->weight->type)->block_bytes;
    return (const unsigned char *)l->weight->data + (row * (l->cols / BLOCK) + block) * bytes;
}

static void values(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out)
{
    gyre_decode_row(l->weight->type, block_of(l, row, col / BLOCK), n, out);
}

static void codes_q4_0(const struct gyre_linear *l, uint64_t row, int8_t *out)
{
    gyre_codes_q4_0(block_of(l, row, 0), l->cols, out);
}

static void codes_q8_0(const struct gyre_linear *l, uint64_t row, int8_t *out)
{
    gyre_codes_q8_0(block_of(l, row, 0), l->cols, out);
}

static float scale(const struct gyre_linear *l, uint64_t row, uint64_t index)
{
    uint16_t half;
    memcpy(&half, block_of(l, row, index), sizeof half);
    return gyre_f32_from_f16(half);
}

const struct gyre_pack gyre_pack_q4_0 = {0, "weight", takes_q4_0, open_blocks, values, codes_q4_0, scale, NULL};
const struct gyre_pack gyre_pack_q8_0 = {0, "weight", takes_q8_0, open_blocks, values, codes_q8_0, scale, NULL};
