// Centres of the KV cache in gyre-llama files: the engine computes with them what blocks compute, a cache of 16 bits
// does not see them, and files that lie about them are refused. The files are the quantizer's, with centres added here.
#include "quantizer/file/gguf_write.h"
#include "backends/cpu/fast.h"
#include "runtime/model/block.h"
#include "runtime/util/base.h"
#include "runtime/util/rng.h"
#include "tests/common/bytes.h"
#include "tests/common/device.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_eval.h>
#include <gyre/gyre_quantize.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { D = 64, HEADS = 6, KV_HEADS = 3, HD = 24, FFN = 96, VOCAB = 259, LAYERS = 2, ROWS = 41 };
static const char *const plain = "centre-plain.gguf", *const centred = "centre-centred.gguf",
                         *const lying = "centre-lying.gguf";
static const char *const devices[] = {"cpu", "vulkan:0", "opencl:0"};

// ---- files --------------------------------------------------------------------------------------------

enum lie { HONEST, NO_K, NO_V, SHAPE, MATRIX, CODES, NOT_A_NUMBER, NO_BOOL, NOT_DECLARED, DECLARED_FALSE };

static float centre(uint32_t layer, int kv, uint32_t i)
{
    struct gyre_rng rng = gyre_rng_seed(1000 * layer + 500 * (uint32_t)kv + i);
    return (float)(8 * gyre_rng_unit(&rng) - 4);
}

// The plain file with centres in every block; the lies are told in block 1.
static void add_centres(const char *to, enum lie lie)
{
    gyre_source *in = NULL;
    gyre_error err = {0};
    struct gyre_gguf g = {0};
    struct bytes file = {0};
    unsigned char *front;
    uint64_t front_bytes, file_bytes;
    if (gyre_source_open(plain, &in, &err)) fail_msg("%s", err.message);
    for (uint64_t i = 0; i < gyre_source_meta_count(in); i++) {
        const struct gyre_meta m = gyre_source_meta_at(in, i);
        gyre_gguf_encoded(&g, m.key, m.type, m.raw, m.raw_bytes);
    }
    if (lie == NO_BOOL) gyre_gguf_u32(&g, "gyre.kv_centre", 2);
    else if (lie != NOT_DECLARED) gyre_gguf_bool(&g, "gyre.kv_centre", lie != DECLARED_FALSE);
    const uint64_t n_in = gyre_source_tensor_count(in);
    for (uint64_t i = 0; i < n_in; i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(in, i);
        gyre_gguf_add_tensor(&g, t->name, t->type, t->n_dims, t->dims);
    }
    for (uint32_t l = 0; l < LAYERS; l++)
        for (int kv = 0; kv < 2; kv++) {
            char name[64];
            const bool here = l == 1 && kv == 1;
            if (l == 1 && lie == (kv ? NO_V : NO_K)) continue;
            snprintf(name, sizeof name, "blk.%u.attn_%c.centre", l, kv ? 'v' : 'k');
            const uint64_t n = KV_HEADS * HD - (here && lie == SHAPE ? 8 : 0), matrix[2] = {KV_HEADS, HD};
            gyre_gguf_add_tensor(&g, name, here && lie == CODES ? GYRE_DTYPE_I8 : GYRE_DTYPE_F32,
                                 here && lie == MATRIX ? 2 : 1, here && lie == MATRIX ? matrix : &n);
        }
    assert_int_equal(gyre_gguf_finish(&g, &front, &front_bytes, &file_bytes, &err), GYRE_OK);
    put(&file, front, front_bytes);
    for (uint64_t i = 0; i < g.n_tensors; i++) {
        if (i < n_in) put(&file, gyre_source_tensor_at(in, i)->data, g.tensors[i].bytes);
        uint32_t layer;
        char kv;
        if (i >= n_in && sscanf(g.tensors[i].name, "blk.%u.attn_%c", &layer, &kv) == 2)
            for (uint32_t j = 0; j < g.tensors[i].bytes / 4; j++)
                put_f32(&file,
                        lie == NOT_A_NUMBER && layer == 1 && kv == 'v' && j == 5 ? NAN : centre(layer, kv == 'v', j));
        put_align(&file, 32);
    }
    assert_int_equal(file.size, file_bytes);
    assert_int_equal(save_bytes(&file, to), 0);
    free(front);
    free(file.data);
    gyre_gguf_free(&g);
    gyre_source_close(in);
}

static int setup(void **state)
{
    (void)state;
    const char *model = "centre-tiny.gguf";
    struct tiny_options o = tiny_defaults();
    gyre_error err = {0};
    gyre_quantize_summary summary = {0};
    o.width = D, o.heads = HEADS, o.kv_heads = KV_HEADS, o.head_dim = HD, o.ffn = FFN, o.vocab = VOCAB,
    o.layers = LAYERS;
    if (tiny_write_gguf(model, &o)) return 1;
    const gyre_quantize_params p = {.source = model,
                                    .output = plain,
                                    .recipe = "quarot-rtn",
                                    .wbits = 32,
                                    .wgroup = 0,
                                    .profile = "full",
                                    .seed = 3,
                                    .device = "cpu",
                                    .force = true};
    if (gyre_quantize(&p, &summary, &err)) fail_msg("%s", err.message);
    gyre_quantize_summary_free(&summary);
    unlink(model);
    add_centres(centred, HONEST);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(plain);
    unlink(centred);
    unlink(lying);
    return unlink("centre-plain.gguf.manifest.json");
}

// ---- both ways through a model --------------------------------------------------------------------------

static void make_tokens(uint32_t tokens[ROWS])
{
    for (uint32_t i = 0; i < ROWS; i++) tokens[i] = 3 + i * 7919 % (VOCAB - 3);
}

// False where there is no such device.
static bool engine_logits(const char *path, const char *device, uint32_t kv, float out[VOCAB])
{
    gyre_engine *e = NULL;
    gyre_error err = {0};
    uint32_t tokens[ROWS];
    make_tokens(tokens);
    const gyre_engine_params p = {
        .device = device, .act = 16, .kv = kv, .context = 64, .max_rows = 64, .cache_dir = ""};
    const gyre_status st = gyre_engine_open(path, &p, &e, &err);
    if (!device_opened(device, st, &err)) return false;
    if (gyre_logits(e, tokens, ROWS, out, &err)) fail_msg("%s", err.message);
    gyre_engine_close(e, NULL);
    return true;
}

struct model { // a file's hyper-parameters and floats
    gyre_source *source;
    struct gyre_hparams hp;
    float *block[LAYERS][11];
};

static float *floats(const gyre_source *s, const char *name)
{
    const struct gyre_tensor *t = gyre_source_tensor(s, name);
    if (!t) return NULL;
    float *x = malloc(t->rows * t->cols * sizeof *x);
    assert_non_null(x);
    gyre_tensor_rows_f32(t, 0, t->rows, x);
    return x;
}

static void model_open(const char *path, struct model *m)
{
    static const char *const names[11] = {"attn_q.weight",   "attn_k.weight", "attn_v.weight",   "attn_output.weight",
                                          "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight", "attn_norm.weight",
                                          "ffn_norm.weight", "attn_k.centre", "attn_v.centre"};
    gyre_error err = {0};
    char name[64];
    if (gyre_source_open(path, &m->source, &err) || gyre_hparams_read(m->source, &m->hp, &err) ||
        gyre_model_check(m->source, &m->hp, &err))
        fail_msg("%s", err.message);
    assert_true(m->hp.rot.r3 && !m->hp.tied);
    for (uint32_t l = 0; l < LAYERS; l++)
        for (int i = 0; i < 11; i++) {
            snprintf(name, sizeof name, "blk.%u.%s", l, names[i]);
            m->block[l][i] = floats(m->source, name);
        }
}

static void model_close(struct model *m)
{
    for (uint32_t l = 0; l < LAYERS; l++)
        for (int i = 0; i < 11; i++) free(m->block[l][i]);
    gyre_hparams_free(&m->hp);
    gyre_source_close(m->source);
}

static struct gyre_block_weights weights_of(const struct model *m, uint32_t layer)
{
    float *const *w = m->block[layer];
    struct gyre_block_weights out = {0};
    for (int r = 0; r < GYRE_LINEARS; r++) out.linear[r].f32 = w[r];
    out.vector[GYRE_ROLE_attn_norm] = w[7];
    out.vector[GYRE_ROLE_ffn_norm] = w[8];
    out.centre[GYRE_ROLE_k] = w[9];
    out.centre[GYRE_ROLE_v] = w[10];
    return out;
}

static struct gyre_block_options options_of(const struct model *m, uint32_t kv)
{
    return (struct gyre_block_options){
        .act_bits = 16, .kv_bits = kv, .max_rows = ROWS, .act_clip = 1, .kv_clip = m->hp.kv_clip};
}

static void embed(const struct model *m, float *x)
{
    uint32_t tokens[ROWS];
    make_tokens(tokens);
    for (uint32_t i = 0; i < ROWS; i++)
        gyre_tensor_rows_f32(gyre_source_tensor(m->source, "token_embd.weight"), tokens[i], 1, x + i * D);
}

// The last row's logits by one device block that takes one layer's weights after the other's.
static bool block_logits(const char *path, const char *device_name, uint32_t kv, float out[VOCAB])
{
    gyre_device *device = device_try(device_name, NULL);
    gyre_block *block = NULL;
    gyre_error err = {0};
    struct model m;
    static float x[ROWS * D], y[ROWS * D];
    if (!device) return false;
    model_open(path, &m);
    embed(&m, x);
    const struct gyre_block_options o = options_of(&m, kv);
    if (gyre_block_create(device, &m.hp, &o, &block, &err)) fail_msg("%s", err.message);
    for (uint32_t l = 0; l < LAYERS; l++) {
        const struct gyre_block_weights w = weights_of(&m, l);
        if (gyre_block_load(block, &w, &err) || gyre_block_run(block, x, ROWS, y, &err)) fail_msg("%s", err.message);
        memcpy(x, y, sizeof x);
    }
    float *gain = floats(m.source, "output_norm.weight"), *head = floats(m.source, "output.weight");
    const float *last = x + (ROWS - 1) * D;
    double square = 0;
    for (int i = 0; i < D; i++) square += (double)last[i] * (double)last[i];
    for (int v = 0; v < VOCAB; v++) {
        double sum = 0;
        for (int i = 0; i < D; i++) sum += (double)head[v * D + i] * (double)last[i] * (double)gain[i];
        out[v] = (float)(sum / sqrt(square / D + (double)m.hp.norm_eps));
    }
    free(gain);
    free(head);
    gyre_block_destroy(block);
    gyre_device_close(device);
    model_close(&m);
    return true;
}

// Root of the relative squared difference.
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, power = 0;
    for (size_t i = 0; i < n; i++) d += pow((double)a[i] - (double)b[i], 2), power += pow((double)b[i], 2);
    return sqrt(d / power);
}

static void engine_equals_blocks(void **state)
{
    (void)state;
    for (size_t d = 0; d < GYRE_COUNT(devices); d++)
        for (uint32_t kv = 4; kv <= 16; kv *= 2) {
            float engine[VOCAB], blocks[VOCAB], without[VOCAB];
            if (!engine_logits(centred, devices[d], kv, engine)) continue;
            assert_true(block_logits(centred, devices[d], kv, blocks));
            assert_true(engine_logits(plain, devices[d], kv, without));
            const double same = distance(engine, blocks, VOCAB), effect = distance(engine, without, VOCAB);
            print_message("%s, kv %u: engine and blocks %.2g apart, with and without centres %.2g\n", devices[d], kv,
                          same, effect);
            assert_true(same < (kv == 16 ? 1e-5 : effect / 10));
            if (kv == 16) assert_memory_equal(engine, without, sizeof engine); // they are not used at all
            else assert_true(effect > 1e-4 && effect < (kv == 8 ? 0.05 : 1)); // they are used, and only round otherwise
        }
}

// ---- blocks ---------------------------------------------------------------------------------------------

// One block without centres, with them, with others, with one alone, without: each time as if it were new.
static void blocks_take_and_drop_centres(void **state)
{
    (void)state;
    static float x[ROWS * D], fresh[ROWS * D], again[ROWS * D], first[ROWS * D];
    struct model m;
    model_open(centred, &m);
    embed(&m, x);
    const struct gyre_block_options o = options_of(&m, 4);
    for (size_t d = 0; d < GYRE_COUNT(devices); d++) {
        gyre_device *device = device_try(devices[d], NULL);
        gyre_block *kept = NULL, *new = NULL;
        gyre_error err = {0};
        if (!device) continue;
        assert_int_equal(gyre_block_create(device, &m.hp, &o, &kept, &err), GYRE_OK);
        for (int step = 0; step < 6; step++) {
            struct gyre_block_weights w = weights_of(&m, 0);
            if (step == 0 || step == 5) w.centre[GYRE_ROLE_k] = w.centre[GYRE_ROLE_v] = NULL;
            if (step == 2) w.centre[GYRE_ROLE_k] = m.block[1][9], w.centre[GYRE_ROLE_v] = m.block[1][10];
            if (step == 3) w.centre[GYRE_ROLE_k] = NULL;
            if (step == 4) w.centre[GYRE_ROLE_v] = NULL;
            assert_int_equal(gyre_block_create(device, &m.hp, &o, &new, &err), GYRE_OK);
            if (gyre_block_load(kept, &w, &err) || gyre_block_run(kept, x, ROWS, again, &err))
                fail_msg("%s", err.message);
            if (gyre_block_load(new, &w, &err) || gyre_block_run(new, x, ROWS, fresh, &err))
                fail_msg("%s", err.message);
            assert_memory_equal(fresh, again, sizeof fresh);
            if (step == 0) memcpy(first, fresh, sizeof first);
            else if (step < 5) assert_true(distance(fresh, first, ROWS * D) > 1e-3);
            else assert_memory_equal(fresh, first, sizeof first);
            gyre_block_destroy(new);
        }
        gyre_block_destroy(kept);
        assert_int_equal(gyre_device_counters(device).live_objects, 0);
        gyre_device_close(device);
    }
    model_close(&m);
}

static void the_quick_host_agrees(void **state)
{
    (void)state;
    static float x[ROWS * D], y[ROWS * D], host[ROWS * D], bare[ROWS * D];
    for (uint32_t kv = 4; kv <= 16; kv *= 2) {
        struct model m;
        gyre_device *device = NULL, *quick = NULL;
        gyre_block *block = NULL, *h = NULL;
        gyre_error err = {0};
        model_open(centred, &m);
        embed(&m, x);
        const struct gyre_block_options o = options_of(&m, kv);
        struct gyre_block_weights w = weights_of(&m, 1);
        if (gyre_device_open("cpu", NULL, &device, &err) || gyre_block_create(device, &m.hp, &o, &block, &err) ||
            gyre_fast_device_create(NULL, &quick, &err) || gyre_block_create(quick, &m.hp, &o, &h, &err))
            fail_msg("%s", err.message);
        if (gyre_block_load(block, &w, &err) || gyre_block_run(block, x, ROWS, y, &err) ||
            gyre_block_load(h, &w, &err) || gyre_block_run(h, x, ROWS, host, &err))
            fail_msg("%s", err.message);
        w.centre[GYRE_ROLE_k] = w.centre[GYRE_ROLE_v] = NULL;
        if (gyre_block_load(h, &w, &err) || gyre_block_run(h, x, ROWS, bare, &err)) fail_msg("%s", err.message);
        const double same = distance(host, y, ROWS * D), effect = distance(bare, host, ROWS * D);
        print_message("kv %u: host and device %.2g apart, with and without centres %.2g\n", kv, same, effect);
        if (kv == 16) assert_true(same < 1e-4 && effect == 0); // halves may round otherwise
        else assert_true(same < effect / 5);
        gyre_block_destroy(h);
        gyre_block_destroy(block);
        gyre_device_close(quick);
        gyre_device_close(device);
        model_close(&m);
    }
}

// ---- lies -----------------------------------------------------------------------------------------------

static void lies(void **state)
{
    (void)state;
    static const struct {
        enum lie lie;
        gyre_status status;
        const char *says;
    } cases[] = {
        {HONEST, GYRE_OK, ""},
        {NO_K, GYRE_E_FORMAT, "tensor blk.1.attn_k.centre is missing"},
        {NO_V, GYRE_E_FORMAT, "tensor blk.1.attn_v.centre is missing"},
        {SHAPE, GYRE_E_FORMAT, "tensor blk.1.attn_v.centre has shape 1 x 64; 1 x 72 is due"},
        {MATRIX, GYRE_E_FORMAT, "tensor blk.1.attn_v.centre has shape 3 x 24; 1 x 72 is due"},
        {CODES, GYRE_E_UNSUPPORTED, "tensor blk.1.attn_v.centre has type I8"},
        {NOT_A_NUMBER, GYRE_E_FORMAT, "tensor blk.1.attn_v.centre holds NaN or infinity"},
        {NO_BOOL, GYRE_E_FORMAT, "gyre.kv_centre"},
        {NOT_DECLARED, GYRE_E_UNSUPPORTED, "tensor blk.0.attn_k.centre has no place"},
        {DECLARED_FALSE, GYRE_E_UNSUPPORTED, "tensor blk.0.attn_k.centre has no place"},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_engine *e = NULL;
        gyre_error err = {0};
        add_centres(lying, cases[i].lie);
        const gyre_engine_params p = {.device = "cpu", .context = 64, .cache_dir = ""};
        const gyre_status st = gyre_engine_open(lying, &p, &e, &err);
        if (st != cases[i].status || !strstr(err.message, cases[i].says) || strchr(err.message, '\n'))
            fail_msg("lie %zu: status %d, \"%s\" (due: %s)", i, st, err.message, cases[i].says);
        gyre_engine_close(e, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_equals_blocks),
        cmocka_unit_test(blocks_take_and_drop_centres),
        cmocka_unit_test(the_quick_host_agrees),
        cmocka_unit_test(lies),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
