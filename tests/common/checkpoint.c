// See checkpoint.h. The directory is tiny.h's; its tensors are read back, and those of the linears written anew.
#include "tests/common/checkpoint.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/bytes.h"
#include "tests/common/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t mixed(const char *name, uint64_t a, uint64_t b)
{
    uint64_t h = 1469598103934665603u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    h = (h ^ a) * 1099511628211u;
    h = (h ^ b << 20) * 1099511628211u;
    return (uint32_t)(h >> 24);
}

int checkpoint_code(const struct checkpoint *c, const char *name, uint64_t row, uint64_t col)
{
    return (int)(mixed(name, row, col) % (1u << c->bits)) - (1 << (c->bits - 1));
}

int checkpoint_zero(const struct checkpoint *c, const char *name, uint64_t row, uint64_t group)
{
    return c->asymmetric ? (int)(mixed(name, row + 1000, group) % (1u << c->bits)) - (1 << (c->bits - 1)) : 0;
}

float checkpoint_scale(const char *name, uint64_t row, uint64_t group) // 7 bits: exact in every type
{
    return (float)(64 + mixed(name, row + 2000, group) % 64) * 0x1p-13f;
}

uint64_t checkpoint_group(const struct checkpoint *c, const char *name, uint64_t cols, uint64_t col)
{
    const uint64_t group = c->group ? c->group : cols;
    const uint64_t factor = strstr(name, "q_proj") ? 5 : 7; // prime to the widths of tiny models
    return (c->act_order ? (factor * col + 3) % cols : col) / group;
}

// ---- one safetensors file -----------------------------------------------------------------------------------------

struct file {
    struct bytes head, data;
    const struct checkpoint *c;
};

// Room for a tensor: its zeroed bytes, valid until the next; NULL where it is left out.
static unsigned char *room(struct file *f, const char *name, const char *part, const char *type, uint64_t bytes,
                           uint64_t rows, uint64_t cols)
{
    char text[512], whole[256];
    const size_t from = f->data.size, n = (size_t)snprintf(whole, sizeof whole, "%s%s", name, part);
    const size_t m = f->c->left_out ? strlen(f->c->left_out) : SIZE_MAX;
    if (m <= n && !strcmp(whole + n - m, f->c->left_out)) return NULL;
    put_zeros(&f->data, bytes);
    snprintf(text, sizeof text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", f->head.size > 1 ? "," : "", whole, type);
    put_text(&f->head, text);
    if (rows) snprintf(text, sizeof text, "%llu,%llu", (unsigned long long)rows, (unsigned long long)cols);
    else snprintf(text, sizeof text, "%llu", (unsigned long long)cols);
    put_text(&f->head, text);
    snprintf(text, sizeof text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)from,
             (unsigned long long)f->data.size);
    put_text(&f->head, text);
    return f->data.data + from;
}

// ORs `value` into a word of 32-bit words.
static void put_bits(unsigned char *words, uint64_t word, uint32_t shift, uint32_t value)
{
    uint32_t v;
    if (!words) return;
    memcpy(&v, words + 4 * word, 4);
    v |= value << shift;
    memcpy(words + 4 * word, &v, 4);
}

static void put_scale(unsigned char *p, gyre_dtype type, uint64_t index, float s)
{
    const uint32_t wide = gyre_f32_bits(s);
    const uint16_t half = type == GYRE_DTYPE_F16 ? gyre_f16_from_f32(s) : (uint16_t)(wide >> 16);
    if (!p) return;
    if (type == GYRE_DTYPE_F32) memcpy(p + 4 * index, &wide, 4);
    else memcpy(p + 2 * index, &half, 2);
}

static void add_linear(struct file *f, const char *name, uint64_t rows, uint64_t cols)
{
    const struct checkpoint *c = f->c;
    const struct gyre_dtype_info *type = gyre_dtype_info(c->scale);
    const uint32_t per = 32 / c->bits, half = 1u << (c->bits - 1), mask = 2 * half - 1;
    const uint64_t groups = c->group ? cols / c->group : 1, kept = groups - c->cut_groups, out_words = rows / per;
    const bool words = c->form == CHECKPOINT_WORDS, gptq = c->form == CHECKPOINT_GPTQ, awq = c->form == CHECKPOINT_AWQ;
    static const uint8_t awq_order[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const uint64_t row_words = gyre_div_up(cols, per) - c->cut_words;
    unsigned char *p = words  ? room(f, name, ".weight_packed", "I32", 4 * rows * row_words, rows, row_words)
                       : gptq ? room(f, name, ".qweight", "I32", 4 * rows * (cols / per), cols / per, rows)
                       : awq  ? room(f, name, ".qweight", "I32", 4 * cols * out_words, cols, out_words)
                              : room(f, name, ".weight", "I8", rows * cols, rows, cols);
    for (uint64_t r = 0; p && r < rows; r++)
        for (uint64_t k = 0; k < cols; k++) {
            const int code = checkpoint_code(c, name, r, k);
            const uint32_t v = (uint32_t)(code + (int)half);
            if (words && k / per < row_words) put_bits(p, r * row_words + k / per, c->bits * (uint32_t)(k % per), v);
            if (gptq) put_bits(p, k / per * rows + r, c->bits * (uint32_t)(k % per), v);
            if (awq) put_bits(p, k * out_words + r / 8, 4u * awq_order[r % 8], v);
            if (c->form == CHECKPOINT_BYTES) p[r * cols + k] = (unsigned char)code;
        }
    const bool rows_first = words || c->form == CHECKPOINT_BYTES,
               packed_zeros = !rows_first || (words && !c->byte_zeros);
    p = room(f, name, rows_first ? ".weight_scale" : ".scales", type->name, rows * kept * type->block_bytes,
             rows_first ? rows : kept, rows_first ? kept : rows);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t g = 0; g < kept; g++)
            put_scale(p, c->scale, rows_first ? r * kept + g : g * rows + r, checkpoint_scale(name, r, g));
    if (!rows_first) p = room(f, name, ".qzeros", "I32", 4 * groups * out_words, groups, out_words);
    else if (c->asymmetric && packed_zeros)
        p = room(f, name, ".weight_zero_point", "I32", 4 * gyre_div_up(rows, per) * groups, gyre_div_up(rows, per),
                 groups);
    else if (c->asymmetric) p = room(f, name, ".weight_zero_point", "I8", rows * groups, rows, groups);
    for (uint64_t r = 0; p && (!rows_first || c->asymmetric) && r < rows; r++)
        for (uint64_t g = 0; g < groups; g++) {
            const int zero = checkpoint_zero(c, name, r, g);
            const uint32_t v = ((uint32_t)(zero + (int)half) - (gptq && !c->version_2)) & mask;
            const uint32_t shift = c->bits * (awq ? awq_order[r % 8] : (uint32_t)(r % per));
            if (!packed_zeros) p[r * groups + g] = (unsigned char)zero;
            else put_bits(p, rows_first ? r / per * groups + g : g * out_words + r / per, shift, v);
        }
    if (c->act_order || gptq) {
        p = room(f, name, words ? ".weight_g_idx" : ".g_idx", "I32", 4 * cols, 0, cols);
        for (uint64_t k = 0; p && k < cols; k++) put_bits(p, k, 0, (uint32_t)checkpoint_group(c, name, cols, k));
        if (p && c->bad_index && strstr(name, "layers.0.mlp.down")) memcpy(p + 4 * (cols / 2), &c->bad_index, 4);
    }
    const int64_t shape[2] = {(int64_t)rows, (int64_t)cols};
    p = words ? room(f, name, ".weight_shape", "I64", sizeof shape, 0, 2) : NULL;
    if (p) memcpy(p, shape, sizeof shape);
}

static void config_text(const struct checkpoint *c, char *out, size_t size)
{
    const char *sym = c->asymmetric ? "false" : "true";
    if (c->config) snprintf(out, size, "%s", c->config);
    else if (c->form == CHECKPOINT_AWQ)
        snprintf(out, size,
                 "{\"quant_method\":\"awq\",\"bits\":%u,\"group_size\":%d,\"zero_point\":true,\"version\":\"GEMM\"}",
                 c->bits, c->group ? (int)c->group : -1);
    else if (c->form == CHECKPOINT_GPTQ)
        snprintf(out, size, "{\"quant_method\":\"gptq\",\"bits\":%u,\"group_size\":%d,\"desc_act\":%s,\"sym\":%s%s}",
                 c->bits, c->group ? (int)c->group : -1, c->act_order ? "true" : "false", sym,
                 c->version_2 ? ",\"checkpoint_format\":\"gptq_v2\"" : "");
    else {
        char group[32] = "null";
        if (c->group) snprintf(group, sizeof group, "%u", c->group);
        snprintf(
            out, size,
            "{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\",\"ignore\":[\"lm_head\"],\"config_groups\":{"
            "\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":%u,\"type\":\"int\",\"symmetric\":%s,"
            "\"strategy\":\"%s\",\"group_size\":%s,\"dynamic\":false}}}}",
            c->form == CHECKPOINT_WORDS ? "pack-quantized" : "int-quantized", c->bits, sym,
            c->group ? "group" : "channel", group);
    }
}

// config.json of the directory, with a quantization_config.
static int write_config(const char *directory, const struct checkpoint *c)
{
    char path[512], quantized[1024];
    struct bytes b = {0};
    snprintf(path, sizeof path, "%s/config.json", directory);
    uint64_t n;
    char *old = files_read(path, &n);
    char *end = old ? strrchr(old, '}') : NULL;
    if (!end) return 1;
    *end = 0;
    config_text(c, quantized, sizeof quantized);
    put_text(&b, old);
    put_text(&b, ",\"quantization_config\":");
    put_text(&b, quantized);
    put_text(&b, "}");
    const int failed = save_bytes(&b, path);
    free(b.data);
    free(old);
    return failed;
}

int checkpoint_write(const char *directory, const struct tiny_options *options, const struct checkpoint *c)
{
    struct file f = {.c = c};
    char path[512], name[128];
    gyre_source *source = NULL;
    if (tiny_write_hf(directory, options) || gyre_source_open(directory, &source, NULL) != GYRE_OK) return 1;
    put_text(&f.head, "{");
    for (uint64_t i = 0; i < gyre_source_tensor_count(source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(source, i);
        const char *end = strstr(t->name, "_proj.weight");
        if (end && !(c->float_part && strstr(t->name, c->float_part))) {
            snprintf(name, sizeof name, "%.*s", (int)(end - t->name) + 5, t->name);
            add_linear(&f, name, t->rows, t->cols);
            continue;
        }
        unsigned char *p =
            room(&f, t->name, "", gyre_dtype_info(t->type)->name, t->bytes, t->n_dims == 2 ? t->rows : 0, t->cols);
        if (p) memcpy(p, t->data, t->bytes);
    }
    gyre_source_close(source);
    put_text(&f.head, "}");
    struct bytes all = {0};
    put_u64(&all, f.head.size);
    put(&all, f.head.data, f.head.size);
    put(&all, f.data.data, f.data.size);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    const int failed = save_bytes(&all, path) || write_config(directory, c);
    free(f.head.data);
    free(f.data.data);
    free(all.data);
    return failed;
}
