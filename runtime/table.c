// The embedding table in host memory: a step reads the rows of its tokens from a buffer that the host fills from the
// mapped file, in the very numbers that the embedding op would make. One row a sequence and step while decoding.
#include "runtime/engine.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <stdlib.h>

gyre_status gyre_engine_keep_table(gyre_engine *e, gyre_error *err)
{
    const uint64_t n = (uint64_t)e->max_rows * e->model.hp.width;
    if (e->source) GYRE_TRY(gyre_linear_find(e->source, &e->model.hp, GYRE_ROLE_embedding, 0, &e->host_table, err));
    e->embedded_data = calloc(n, sizeof *e->embedded_data);
    if (!e->embedded_data) return gyre_fail(err, GYRE_E_NOMEM, "cannot open engine: out of memory");
    e->embedded.size = n * sizeof *e->embedded_data;
    return gyre_buffer_create(e->device, e->embedded.size, "embeddings", &e->embedded.buffer, err);
}

uint64_t gyre_engine_host_bytes(const gyre_engine *e)
{
    const struct gyre_tensor *all[GYRE_LINEAR_TENSORS];
    uint64_t bytes = 0;
    if (!e->embedded.buffer) return 0;
    if (!e->host_table.weight) return (uint64_t)e->model.hp.vocab * e->model.hp.width / 32 * 34; // as Q8_0
    for (uint32_t i = 0, n = gyre_linear_tensors(&e->host_table, all); i < n; i++) bytes += all[i]->bytes;
    return bytes;
}

// The row of a token of a shape: uniform numbers as large as what norms make.
static void noise(uint32_t token, uint32_t width, float *out)
{
    struct gyre_rng rng = gyre_rng_seed(token);
    for (uint32_t i = 0; i < width; i++) out[i] = (float)((gyre_rng_unit(&rng) * 2 - 1) * 1.7320508);
}

gyre_status gyre_engine_write_rows(gyre_engine *e, uint32_t rows, gyre_error *err)
{
    const uint32_t width = e->model.hp.width;
    const float scale = e->model.hp.embed_scale;
    GYRE_TRY(gyre_buffer_write(e->device, e->rows.buffer, 0, e->row_data, (uint64_t)rows * 16, err));
    if (!e->embedded.buffer) return GYRE_OK;
#pragma omp parallel for schedule(static) if (rows > 4)
    for (uint32_t i = 0; i < rows; i++) {
        float *const x = e->embedded_data + (uint64_t)i * width;
        const uint32_t token = (uint32_t)e->row_data[4 * (size_t)i];
        if (e->host_table.weight) gyre_linear_rows_f32(&e->host_table, token, 1, x);
        else noise(token, width, x);
        for (uint32_t k = 0; k < width && scale != 1; k++) x[k] *= scale;
    }
    return gyre_buffer_write(e->device, e->embedded.buffer, 0, e->embedded_data,
                             (uint64_t)rows * width * sizeof *e->embedded_data, err);
}
