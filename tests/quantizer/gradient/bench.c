// See bench.h.
#include "tests/quantizer/gradient/bench.h"
#include "tests/common/ok.h"
#include "backends/cpu/fast.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

const struct setting settings[] = {
    {"llama", 4, 8, 8, -1, false, 0, 0},   {"llama", 4, 4, 4, -1, true, 0, 0},    {"llama", 4, 8, 4, 32, false, 0, 0},
    {"qwen2", 4, 4, 8, -1, true, 0, 0},    {"qwen3", 4, 8, 4, -1, false, 0, 0},   {"qwen3", 8, 8, 8, -1, false, 0, 0},
    {"qwen2", 32, 16, 16, 0, false, 0, 0}, {"mistral", 16, 8, 8, 0, false, 0, 0}, {"llama", 4, 4, 8, -1, false, 32, 0},
    {"qwen3", 4, 4, 4, 32, true, 16, 0},   {"llama", 4, 8, 8, -1, true, 0, 4},    {"qwen3", 4, 8, 4, -1, false, 0, 8},
    {"awq", 4, 16, 16, 32, false, 0, 0},   {"gptq", 4, 16, 16, 32, false, 0, 0},
};
const size_t n_settings = sizeof settings / sizeof *settings;

static uint64_t state = 1;
float bench_random(void) // roughly normal
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(state >> 40) / (float)(1 << 24) - 0.5f;
    }
    return sum * 1.7f;
}

void bench_open(const struct setting *s, const char *device, struct bench *b)
{
    const char *file = made_model(s);
    state = 1;
    if (device) OK(gyre_device_open(device, NULL, &b->device, err));
    else OK(gyre_fast_device_create(NULL, &b->device, err));
    OK(gyre_source_open(file, &b->source, err));
    OK(gyre_model_load(b->device, b->source, NULL, &b->model, err));
}

void bench_close(struct bench *b)
{
    gyre_graph_destroy(b->graph);
    gyre_buffer_destroy(b->device, b->rows.buffer);
    gyre_buffer_destroy(b->device, b->x.buffer);
    gyre_kv_free(&b->kv);
    gyre_model_free(&b->model);
    gyre_source_close(b->source);
    gyre_device_close(b->device);
}

void bench_fill(struct bench *b)
{
    const uint32_t D = b->model.hp.width;
    float *x = malloc(ROWS * D * sizeof *x);
    int32_t rows[ROWS][4];
    for (uint32_t i = 0; i < ROWS * D; i++) x[i] = bench_random();
    for (int i = 0; i < ROWS; i++) {
        rows[i][0] = 0;
        rows[i][1] = i / TOKENS;
        rows[i][2] = i % TOKENS;
        rows[i][3] = 1;
    }
    OK(gyre_upload(b->device, x, ROWS * D * sizeof *x, "x", &b->x, err));
    OK(gyre_upload(b->device, rows, sizeof rows, "rows", &b->rows, err));
    free(x);
}

void bench_block(struct bench *b)
{
    const struct gyre_hparams *hp = &b->model.hp;
    const struct gyre_precision precision = gyre_made_for(hp);
    OK(gyre_kv_create(b->device, hp, &precision, SEQUENCES, TOKENS, 0, &b->kv, err));
    for (uint32_t i = 0; i < SEQUENCES; i++) OK(gyre_kv_reserve(&b->kv, i, TOKENS, err));
    const struct gyre_batch batch = gyre_kv_batch(&b->kv, b->rows);
    OK(gyre_graph_create(b->device, ROWS, &batch, &b->graph, err));
    b->in = gyre_g_external(b->graph, "x", ROWS, hp->width, b->x);
    b->out = gyre_model_block(b->graph, b->in, &b->model, 1, &b->kv.pool[1], &precision);
    OK(gyre_graph_compile(b->graph, &(struct gyre_graph_options){.no_fuse = true, .keep = true}, err));
    OK(gyre_graph_submit(b->graph, err));
}

void bench_head(struct bench *b)
{
    const struct gyre_batch none = {0};
    OK(gyre_graph_create(b->device, ROWS, &none, &b->graph, err));
    b->in = gyre_g_external(b->graph, "x", ROWS, b->model.hp.width, b->x);
    b->out = gyre_model_head(b->graph, b->in, &b->model);
    OK(gyre_graph_compile(b->graph, &(struct gyre_graph_options){.no_fuse = true, .keep = true}, err));
    OK(gyre_graph_submit(b->graph, err));
}
