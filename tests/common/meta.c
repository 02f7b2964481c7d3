// See meta.h. The pickle is what torch.save's pickler writes, the zip what its container is.
#include "tests/common/meta.h"
#include "runtime/util/half.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { WIDTH = 48, FFN = 128, KEYS = 24, VOCAB = 512, GROUP = 16 };

static const struct tensor {
    const char *name;
    uint32_t rows, cols, groups; // rows 0: a vector of floats
} tensors[] = {
    {"tok_embeddings", VOCAB, WIDTH, 1},
    {"layers.0.attention.wq", WIDTH, WIDTH, WIDTH / GROUP},
    {"layers.0.attention.wk", KEYS, WIDTH, WIDTH / GROUP},
    {"layers.0.attention.wv", KEYS, WIDTH, WIDTH / GROUP},
    {"layers.0.attention.wo", WIDTH, WIDTH, WIDTH / GROUP},
    {"layers.0.feed_forward.w1", FFN, WIDTH, WIDTH / GROUP},
    {"layers.0.feed_forward.w2", WIDTH, FFN, FFN / GROUP},
    {"layers.0.feed_forward.w3", FFN, WIDTH, WIDTH / GROUP},
    {"layers.0.attention_norm", 0, WIDTH, 0},
    {"layers.0.ffn_norm", 0, WIDTH, 0},
    {"norm", 0, WIDTH, 0},
    {"output", VOCAB, WIDTH, 1},
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

int meta_code(unsigned tensor, uint64_t index) { return (int)((index * 7 + tensor * 3 + index / 11) % 16) - 8; }
float meta_scale(unsigned tensor, uint64_t index) { return (float)(64 + (index * 5 + tensor) % 64) * 0x1p-13f; }

// ---- the pickle -----------------------------------------------------------------------------------------------

static void put_name(struct bytes *b, const char *text)
{
    put_u8(b, 'X');
    put_u32(b, (uint32_t)strlen(text));
    put_text(b, text);
}

static void put_int(struct bytes *b, uint32_t v)
{
    put_u8(b, 'J');
    put_u32(b, v);
}

static void put_entry(struct bytes *b, const char *name, const char *type, unsigned key, uint32_t rows, uint32_t cols,
                      const struct meta_options *o)
{
    char text[64];
    const uint32_t n = rows ? rows * cols : cols;
    const bool odd = !strcmp(name, "layers.0.attention.wq.weight");
    put_name(b, name);
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_name(b, "storage");
    snprintf(text, sizeof text, "ctorch\n%s\n", type);
    put_text(b, text);
    snprintf(text, sizeof text, "%u", key);
    put_name(b, text);
    put_name(b, "cpu");
    put_int(b, n);
    put_text(b, "tQK");
    put_u8(b, odd && o->past ? 1 : 0);
    for (int stride = 0; stride < 2; stride++) {
        if (rows) put_int(b, stride ? (odd && o->strided ? 1 : cols) : rows);
        put_int(b, stride ? (odd && o->strided ? rows : 1) : cols);
        put_u8(b, rows ? 0x86 : 0x85);
    }
    put_u8(b, 0x89);
    put_text(b, "ccollections\nOrderedDict\n)RtR");
}

static void put_pickle(struct bytes *b, const struct meta_options *o)
{
    char name[64];
    put_u8(b, 0x80);
    put_u8(b, 2);
    put_text(b, "}q");
    put_u8(b, 0);
    put_u8(b, '(');
    for (unsigned i = 0; i < TENSORS; i++) {
        const struct tensor *t = &tensors[i];
        snprintf(name, sizeof name, "%s.weight", t->name);
        put_entry(b, name, t->rows ? "CharStorage" : "FloatStorage", 2 * i, t->rows, t->cols, o);
        snprintf(name, sizeof name, "%s.scales", t->name);
        if (t->rows) put_entry(b, name, "FloatStorage", 2 * i + 1, t->rows, t->groups, o);
    }
    put_text(b, "u.");
}

// ---- the zip --------------------------------------------------------------------------------------------------

struct zip {
    struct bytes file, list;
    uint32_t n;
    const struct meta_options *o;
};

static void put_u16(struct bytes *b, uint32_t v)
{
    put_u8(b, (uint8_t)v);
    put_u8(b, (uint8_t)(v >> 8));
}

static void put_record(struct zip *z, const char *name, const struct bytes *data)
{
    char whole[80];
    const uint64_t place = z->file.size;
    if (z->o->left_out && !strcmp(z->o->left_out, name)) return;
    snprintf(whole, sizeof whole, "consolidated/%s", name);
    put_u32(&z->file, 0x04034b50);
    put_zeros(&z->file, 4);
    put_u16(&z->file, z->o->method);
    put_zeros(&z->file, 16);
    put_u16(&z->file, (uint32_t)strlen(whole));
    put_u16(&z->file, 0);
    put_text(&z->file, whole);
    put(&z->file, data->data, data->size);
    put_u32(&z->list, 0x02014b50);
    put_zeros(&z->list, 6);
    put_u16(&z->list, z->o->method);
    put_zeros(&z->list, 8);
    for (int i = 0; i < 2; i++) put_u32(&z->list, z->o->zip64 ? UINT32_MAX : (uint32_t)data->size);
    put_u16(&z->list, (uint32_t)strlen(whole));
    put_u16(&z->list, z->o->zip64 ? 28 : 0);
    put_zeros(&z->list, 10);
    put_u32(&z->list, z->o->zip64 ? UINT32_MAX : (uint32_t)place);
    put_text(&z->list, whole);
    if (z->o->zip64) {
        put_u16(&z->list, 1);
        put_u16(&z->list, 24);
        put_u64(&z->list, data->size);
        put_u64(&z->list, data->size);
        put_u64(&z->list, place);
    }
    z->n++;
}

static void put_end(struct zip *z)
{
    const uint64_t place = z->file.size;
    put(&z->file, z->list.data, z->list.size);
    if (z->o->zip64) {
        const uint64_t end = z->file.size;
        put_u32(&z->file, 0x06064b50);
        put_u64(&z->file, 44);
        put_zeros(&z->file, 12);
        put_u64(&z->file, z->n);
        put_u64(&z->file, z->n);
        put_u64(&z->file, z->list.size);
        put_u64(&z->file, place);
        put_u32(&z->file, 0x07064b50);
        put_u32(&z->file, 0);
        put_u64(&z->file, end);
        put_u32(&z->file, 1);
    }
    put_u32(&z->file, 0x06054b50);
    put_zeros(&z->file, 4);
    put_u16(&z->file, z->n);
    put_u16(&z->file, z->n);
    put_u32(&z->file, z->o->zip64 ? UINT32_MAX : (uint32_t)z->list.size);
    put_u32(&z->file, z->o->zip64 ? UINT32_MAX : (uint32_t)place);
    put_u16(&z->file, 0);
}

static void put_numbers(struct zip *z, unsigned i)
{
    const struct tensor *t = &tensors[i];
    struct bytes data = {0}, scales = {0};
    char name[32];
    for (uint32_t k = 0; t->rows && k < t->rows * t->cols; k++) put_u8(&data, (uint8_t)meta_code(i, k));
    for (uint32_t k = 0; t->rows && k < t->rows * t->groups; k++) put_f32(&scales, meta_scale(i, k));
    for (uint32_t k = 0; !t->rows && k < t->cols; k++) put_f32(&data, 1);
    snprintf(name, sizeof name, "data/%u", 2 * i);
    put_record(z, name, &data);
    snprintf(name, sizeof name, "data/%u", 2 * i + 1);
    if (t->rows) put_record(z, name, &scales);
    free(data.data);
    free(scales.data);
}

// ---- the folder -----------------------------------------------------------------------------------------------

// The 256 bytes as tokens.
static void put_tokens(struct bytes *b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char line[32];
    for (unsigned i = 0; i < 256; i++) {
        snprintf(line, sizeof line, "%c%c== %u\n", digits[i >> 2], digits[(i & 3) << 4], i);
        put_text(b, line);
    }
}

int meta_write(const char *directory, const struct meta_options *options)
{
    struct zip z = {.o = options};
    struct bytes pickle = {0}, order = {0}, params = {0}, tokens = {0};
    mkdir(directory, 0777);
    if (options->pickle) put(&pickle, options->pickle->data, options->pickle->size);
    else put_pickle(&pickle, options);
    put_text(&order, "little");
    put_record(&z, "data.pkl", &pickle);
    put_record(&z, "byteorder", &order);
    for (unsigned i = 0; i < TENSORS; i++) put_numbers(&z, i);
    put_end(&z);
    free(z.list.data);
    free(pickle.data);
    free(order.data);
    put_text(&params, options->params
                          ? options->params
                          : "{\"dim\": 48, \"n_layers\": 1, \"n_heads\": 2, \"n_kv_heads\": 1, \"vocab_size\": 512, "
                            "\"multiple_of\": 32, \"norm_eps\": 1e-5, \"rope_theta\": 500000.0, "
                            "\"use_scaled_rope\": true, \"quantization_args\": {\"scheme\": "
                            "\"int4_weight_int8_dynamic_activation\", \"group_size\": 16, \"spinquant\": true}}");
    put_tokens(&tokens);
    return save_bytes_in(directory, "consolidated.00.pth", &z.file) ||
           save_bytes_in(directory, "params.json", &params) || save_bytes_in(directory, "tokenizer.model", &tokens);
}
