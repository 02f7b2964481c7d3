// Floats, and the blocks that run expanded: no codes that a product could multiply.
#include "runtime/core/codec.h"
#include "runtime/model/pack.h"

static bool takes(gyre_dtype type) { return type != GYRE_DTYPE_I8 && type != GYRE_DTYPE_I32 && type != GYRE_DTYPE_I64; }

static gyre_status open_float(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                              struct gyre_linear *l, gyre_error *err)
{
    (void)hp, (void)role, (void)layer;
    const struct gyre_tensor *t = l->weight;
    if (t->n_dims != 2 || t->rows != l->whole || t->cols != l->cols)
        return gyre_role_misshapen(source, t, l->whole, l->cols, err);
    return GYRE_OK;
}

static void values(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out)
{
    const struct gyre_dtype_info *info = gyre_dtype_info(l->weight->type);
    const unsigned char *p = (const unsigned char *)l->weight->data + row * (l->weight->bytes / l->weight->rows);
    gyre_decode_row(l->weight->type, p + col / info->block_elements * info->block_bytes, n, out);
}

const struct gyre_pack gyre_pack_float = {0, "weight", takes, open_float, values, NULL, NULL, NULL};
