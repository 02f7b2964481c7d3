// See tiny_file.h. Written with the writer under test; test_gguf_write holds that against the format, byte by byte.
#include "tests/quantizer/tiny_file.h"
#include "quantizer/file/gguf_write.h"
#include "runtime/util/half.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct tiny_file tiny_file_default = {.width = 64,
                                            .heads = 6,
                                            .kv_heads = 2,
                                            .head_dim = 16,
                                            .ffn = 96,
                                            .layers = 3,
                                            .vocab = 50,
                                            .tied = true,
                                            .seed = 1};

static char folder[64];

const char *tiny_path(const char *name)
{
    static char paths[64][256];
    static int next;
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "quantizer-test-%ld", (long)getpid());
        if (mkdir(folder, 0777)) abort();
    }
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void remove_tree(const char *path)
{
    char at[512];
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(at, sizeof at, "%s/%s", path, e->d_name);
        if (unlink(at)) remove_tree(at);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

void tiny_folder_remove(void)
{
    if (folder[0]) remove_tree(folder);
    folder[0] = 0;
}

char *tiny_read(const char *path, uint64_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *bytes = (uint64_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    if (fread(data, 1, *bytes, f) != *bytes) abort();
    data[*bytes] = 0;
    fclose(f);
    return data;
}

struct writer {
    struct gyre_gguf gguf;
    const struct tiny_file *shape;
    struct {
        float middle, spread;
    } fill[128];
};

static void add(struct writer *w, const char *name, gyre_dtype type, uint32_t n_dims, uint64_t rows, uint64_t cols,
                float middle, float spread)
{
    const uint64_t i =
        gyre_gguf_add_tensor(&w->gguf, name, type, n_dims, n_dims == 1 ? &cols : (const uint64_t[]){rows, cols});
    w->fill[i].middle = middle;
    w->fill[i].spread = spread;
}

static void add_block(struct writer *w, uint32_t l)
{
    const struct tiny_file *s = w->shape;
    const uint32_t D = s->width, Q = s->heads * s->head_dim, K = s->kv_heads * s->head_dim, F = s->ffn;
    const struct {
        const char *name;
        uint32_t rows, cols;
    } row[] = {{"attn_norm", 0, D}, {"attn_q", Q, D},   {"attn_k", K, D}, {"attn_v", K, D},  {"attn_output", D, Q},
               {"ffn_norm", 0, D},  {"ffn_gate", F, D}, {"ffn_up", F, D}, {"ffn_down", D, F}};
    char name[64];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", l, row[i].name);
        const float size = 1.0f / sqrtf((float)row[i].cols);
        if (row[i].rows) add(w, name, GYRE_DTYPE_F32, 2, row[i].rows, row[i].cols, 0, 3 * size);
        else add(w, name, GYRE_DTYPE_F32, 1, 1, row[i].cols, 1, s->constant_gain ? 0 : 0.8f);
    }
}

static void write_data(struct writer *w, const struct gyre_gguf_tensor *t, uint64_t index, uint32_t *seed, FILE *f)
{
    const uint64_t n = t->dims[0] * t->dims[1];
    const bool broken = w->shape->nan_in && !strcmp(w->shape->nan_in, t->name);
    if (fseek(f, (long)t->offset, SEEK_SET)) abort();
    for (uint64_t i = 0; i < n; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        const float unit = (float)(*seed >> 8) / (1 << 24) - 0.5f;
        const float x = broken && i == n / 2 ? NAN : w->fill[index].middle + w->fill[index].spread * unit;
        const uint16_t half = gyre_f16_from_f32(x);
        if (fwrite(t->type == GYRE_DTYPE_F16 ? (const void *)&half : &x, t->type == GYRE_DTYPE_F16 ? 2 : 4, 1, f) != 1)
            abort();
    }
}

void tiny_file_write(const char *path, const struct tiny_file *s)
{
    struct writer w = {.shape = s};
    struct gyre_gguf *g = &w.gguf;
    unsigned char *front;
    uint64_t front_bytes, file_bytes;
    uint32_t seed = s->seed;
    gyre_gguf_string(g, "general.architecture", "llama");
    gyre_gguf_string(g, "general.name", "tiny");
    gyre_gguf_u32(g, "llama.context_length", 64);
    gyre_gguf_u32(g, "llama.embedding_length", s->width);
    gyre_gguf_u32(g, "llama.block_count", s->layers);
    gyre_gguf_u32(g, "llama.feed_forward_length", s->ffn);
    gyre_gguf_u32(g, "llama.attention.head_count", s->heads);
    gyre_gguf_u32(g, "llama.attention.head_count_kv", s->kv_heads);
    gyre_gguf_u32(g, "llama.attention.key_length", s->head_dim);
    gyre_gguf_u32(g, "llama.attention.value_length", s->head_dim);
    gyre_gguf_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gyre_gguf_f32(g, "llama.rope.freq_base", 10000);
    gyre_gguf_u32(g, "llama.vocab_size", s->vocab);
    add(&w, "token_embd.weight", GYRE_DTYPE_F16, 2, s->vocab, s->width, 0.02f, 1);
    if (!s->tied) add(&w, "output.weight", GYRE_DTYPE_F16, 2, s->vocab, s->width, 0, 1);
    add(&w, "output_norm.weight", GYRE_DTYPE_F32, 1, 1, s->width, 1, s->constant_gain ? 0 : 0.8f);
    for (uint32_t l = 0; l < s->layers; l++) add_block(&w, l);
    if (gyre_gguf_finish(g, &front, &front_bytes, &file_bytes, NULL) != GYRE_OK) abort();
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(front, 1, front_bytes, f) != front_bytes) abort();
    for (uint64_t i = 0; i < g->n_tensors; i++) write_data(&w, &g->tensors[i], i, &seed, f);
    if (fflush(f) || ftruncate(fileno(f), (off_t)file_bytes) || fclose(f)) abort();
    free(front);
    gyre_gguf_free(g);
}
