// See walk.h. A chunk's piece of the tap array keeps its place whatever the width of the tap.
#include "quantizer/pass/walk.h"
#include "backends/cpu/fast.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct gyre_walk {
    struct gyre_walk_params params;
    uint32_t width, widest, chunk_windows;
    uint64_t rows, state_bytes;
    unsigned char *state; // the head, then float[n_paths][rows][width]
    gyre_block *block[GYRE_WALK_PATHS];
    float *tap[GYRE_WALK_PATHS]; // [rows][widest]
    float embed_scale;           // of the model, whose hyper-parameters need not outlive opening
};

gyre_status gyre_walk_device(const gyre_quantize_params *params, gyre_device **out, gyre_error *err)
{
    struct gyre_device_info info;
    const struct gyre_device_options options = {.log = &params->log};
    *out = NULL;
    if (params->device && strcmp(params->device, "null") == 0)
        return gyre_fail(err, GYRE_E_NO_DEVICE,
                         "cannot calibrate (null): that device computes nothing; name another, or none for the host");
    if (params->device && strcmp(params->device, "host") == 0) return gyre_fast_device_create(&options, out, err);
    if (params->device) return gyre_device_open(params->device, &options, out, err);
    if (gyre_devices_list(&info, 1, NULL, 0, NULL) >= 1 && !info.software &&
        gyre_device_open(info.id, &options, out, NULL) == GYRE_OK)
        return GYRE_OK;
    return gyre_fast_device_create(&options, out, err);
}

// ---- opening ------------------------------------------------------------------------------------------------

static gyre_status allocate(gyre_walk *w, gyre_error *err)
{
    const struct gyre_hparams *hp = w->params.path[0].hp;
    for (int t = 0; t < GYRE_PRODUCTS; t++) w->widest = GYRE_MAX(w->widest, gyre_product_width((gyre_product)t, hp));
    w->state_bytes = w->params.head_bytes + w->params.n_paths * w->rows * w->width * sizeof(float);
    bool good = (w->state = calloc(1, w->state_bytes)) != NULL;
    for (uint32_t i = 0; i < w->params.n_paths; i++)
        good &= (w->tap[i] = malloc(w->rows * w->widest * sizeof(float))) != NULL;
    return good ? GYRE_OK
                : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the activations of %llu tokens",
                            (unsigned long long)w->rows);
}

gyre_status gyre_walk_open(const struct gyre_walk_params *params, gyre_walk **out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    gyre_walk *w = *out = calloc(1, sizeof *w);
    if (!w) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a pass through the model");
    w->params = *params;
    w->width = params->path[0].hp->width;
    w->embed_scale = params->path[0].hp->embed_scale;
    w->rows = (uint64_t)params->windows * params->tokens;
    const uint32_t most = GYRE_MIN(GYRE_MAX(params->chunk_rows / params->tokens, 1u), params->windows);
    w->chunk_windows = (uint32_t)gyre_div_up(params->windows, gyre_div_up(params->windows, most)); // of equal sizes
    GYRE_GO(allocate(w, err));
    for (uint32_t i = 0; i < params->n_paths; i++) {
        struct gyre_block_options o = params->path[i].options;
        o.max_rows = w->chunk_windows * params->tokens;
        o.sequence = params->tokens;
        GYRE_GO(gyre_block_create(params->device, params->path[i].hp, &o, &w->block[i], err));
    }
done:
    if (st != GYRE_OK) {
        gyre_walk_close(w);
        *out = NULL;
    }
    return st;
}

void gyre_walk_close(gyre_walk *w)
{
    if (!w) return;
    for (uint32_t i = 0; i < w->params.n_paths; i++) {
        gyre_block_destroy(w->block[i]);
        free(w->tap[i]);
    }
    free(w->state);
    free(w);
}

// ---- streams ------------------------------------------------------------------------------------------------

float *gyre_walk_stream(const gyre_walk *w, uint32_t path)
{
    return (float *)(void *)(w->state + w->params.head_bytes) + path * w->rows * w->width;
}

void *gyre_walk_state(const gyre_walk *w, uint64_t *bytes)
{
    *bytes = w->state_bytes;
    return w->state;
}

gyre_status gyre_walk_embed(gyre_walk *w, uint32_t path,
                            gyre_status (*embed)(const void *, const uint32_t *, uint32_t, float *, gyre_error *),
                            const void *user, gyre_error *err)
{
    const uint32_t n = w->params.tokens;
    const float scale = w->embed_scale;
    float *const x = gyre_walk_stream(w, path);
    for (uint64_t window = 0; window < w->params.windows; window++)
        GYRE_TRY(embed(user, w->params.token + window * n, n, x + window * n * w->width, err));
    for (uint64_t i = 0; i < w->rows * w->width && scale != 1; i++) x[i] *= scale;
    return GYRE_OK;
}

// ---- parts --------------------------------------------------------------------------------------------------

struct gyre_walk_chunk gyre_walk_chunk(const gyre_walk *w, uint32_t window)
{
    const uint32_t n = GYRE_MIN(w->chunk_windows, w->params.windows - window);
    return (struct gyre_walk_chunk){window, n, (uint64_t)window * w->params.tokens, (uint64_t)n * w->params.tokens};
}

static float *tap_at(const gyre_walk *w, uint32_t path, const struct gyre_walk_chunk *at)
{
    return w->tap[path] + at->first * w->widest;
}

const float *gyre_walk_tap(const gyre_walk *w, uint32_t path, const struct gyre_walk_chunk *at)
{
    return tap_at(w, path, at);
}

gyre_status gyre_walk_part(gyre_walk *w, uint32_t path, uint32_t part, gyre_walk_look *look, void *user,
                           gyre_error *err)
{
    for (uint32_t window = 0; window < w->params.windows; window += w->chunk_windows) {
        const struct gyre_walk_chunk at = gyre_walk_chunk(w, window);
        float *x = gyre_walk_stream(w, path) + at.first * w->width, *tap = tap_at(w, path, &at);
        GYRE_TRY(gyre_block_part(w->block[path], part, x, tap, (uint32_t)at.rows, tap, err));
        if (look && part < GYRE_PRODUCTS) GYRE_TRY(look(user, &at, tap, err));
    }
    return GYRE_OK;
}

gyre_block *gyre_walk_block(const gyre_walk *w, uint32_t path) { return w->block[path]; }
