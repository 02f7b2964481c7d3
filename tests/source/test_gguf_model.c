// GGUF files that are whole and describe no model, or one in another form than usual: hyper-parameters, their types,
// tensors that are missing or of another shape, values that are no numbers, the rotations of gyre's own files. See
// test_gguf.c.
#include "tests/common/tiny.h"
#include "tests/source/lying.h"

#include "runtime/model/hparams.h"
#include "runtime/util/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const path = "no-model.gguf";

static unsigned char *find(const struct bytes *b, const void *what, size_t n)
{
    for (size_t i = 0; i + n <= b->size; i++)
        if (!memcmp(b->data + i, what, n)) return b->data + i;
    fail_msg("not in the file");
    return NULL;
}

// The first byte of a key or name, which its length precedes.
static unsigned char *find_name(const struct bytes *b, const char *name)
{
    struct bytes wanted = {0};
    put_string(&wanted, name);
    unsigned char *at = find(b, wanted.data, wanted.size) + 8;
    free(wanted.data);
    return at;
}

static void lying_hyper_parameters(void **state)
{
    (void)state;
    // Another value of 4 bytes under a key.
    static const struct {
        const char *key;
        uint32_t value;
        gyre_status status;
        const char *says;
    } cases[] = {
        {"llama.block_count", 0, GYRE_E_UNSUPPORTED, "llama.block_count is 0"},
        {"llama.block_count", 1 << 30, GYRE_E_UNSUPPORTED, "1 to 512"},
        {"llama.block_count", 3, GYRE_E_FORMAT, "blk.2.attn_q.weight is missing"},
        {"llama.block_count", 1, GYRE_E_UNSUPPORTED, "blk.1."},
        {"llama.embedding_length", 0, GYRE_E_UNSUPPORTED, "embedding_length"},
        {"llama.embedding_length", 72, GYRE_E_FORMAT, "token_embd.weight has shape"},
        {"llama.attention.head_count", 0, GYRE_E_UNSUPPORTED, "head_count"},
        {"llama.attention.head_count", 3, GYRE_E_FORMAT, "multiple of 2"},
        {"llama.attention.head_count", 8, GYRE_E_FORMAT, "attn_q.weight"},
        {"llama.attention.head_count_kv", 0, GYRE_E_UNSUPPORTED, "head_count_kv"},
        {"llama.attention.head_count_kv", 3, GYRE_E_FORMAT, "not a multiple"},
        {"llama.attention.key_length", 12, GYRE_E_UNSUPPORTED, "head size 12"},
        {"llama.attention.key_length", 264, GYRE_E_UNSUPPORTED, "key_length"},
        {"llama.attention.value_length", 8, GYRE_E_UNSUPPORTED, "head size 16"},
        {"llama.feed_forward_length", 97, GYRE_E_UNSUPPORTED, "multiples of 8"},
        {"llama.feed_forward_length", UINT32_MAX, GYRE_E_UNSUPPORTED, "feed_forward_length"},
        {"llama.context_length", 0, GYRE_E_UNSUPPORTED, "context_length"},
        {"llama.rope.dimension_count", 8, GYRE_E_UNSUPPORTED, "whole heads"},
        {"llama.rope.freq_base", 0x7FC00000, GYRE_E_UNSUPPORTED, "freq_base"},
        {"llama.rope.freq_base", 0, GYRE_E_UNSUPPORTED, "freq_base"},
        {"llama.attention.layer_norm_rms_epsilon", 0x7F800000, GYRE_E_UNSUPPORTED, "epsilon"},
        {"llama.rope.scaling.factor", 0xBF800000, GYRE_E_UNSUPPORTED, "scaling.factor"},
        {"llama.rope.scaling.high_freq_factor", 0x3F800000, GYRE_E_FORMAT, "not above"},
    };
    static const char *const missing[] = {"llama.block_count",          "llama.embedding_length",
                                          "llama.attention.head_count", "llama.feed_forward_length",
                                          "llama.context_length",       "llama.attention.layer_norm_rms_epsilon",
                                          "llama.rope.scaling.factor",  "llama.rope.scaling.original_context_length"};
    struct tiny_options o = tiny_defaults();
    o.scaling = GYRE_ROPE_LLAMA3;
    for (size_t i = 0; i < GYRE_COUNT(cases) + GYRE_COUNT(missing); i++) {
        struct bytes b;
        gyre_error err = {0};
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        lying_load(path, &b);
        if (i < GYRE_COUNT(cases)) {
            unsigned char *at = find_name(&b, cases[i].key);
            memcpy(at + strlen(cases[i].key) + 4, &cases[i].value, 4);
        } else {
            *find_name(&b, missing[i - GYRE_COUNT(cases)]) = 'L';
        }
        assert_int_equal(save_bytes(&b, path), 0);
        if (i < GYRE_COUNT(cases))
            lying_expect(cases[i].key, lying_open(path, &err), &err, cases[i].status, cases[i].says);
        else lying_expect(missing[i - GYRE_COUNT(cases)], lying_open(path, &err), &err, GYRE_E_FORMAT, "missing");
        free(b.data);
    }
    // A type that does not fit: number where text is due, text where a number is due, lists of numbers for one.
    struct bytes b;
    gyre_error err = {0};
    assert_int_equal(tiny_write_gguf(path, &o), 0);
    lying_load(path, &b);
    unsigned char *at = find(&b, "llama.block_count", 17);
    at[17] = GYRE_META_F32;
    assert_int_equal(save_bytes(&b, path), 0);
    lying_expect("layers as a float", lying_open(path, &err), &err, GYRE_E_FORMAT, "not a whole number");
    at[17] = GYRE_META_I32;
    memset(at + 21, 0xFF, 4);
    assert_int_equal(save_bytes(&b, path), 0);
    lying_expect("-1 layers", lying_open(path, &err), &err, GYRE_E_FORMAT, "llama.block_count is negative");
    free(b.data);
    assert_int_equal(tiny_write_gguf(path, &o), 0);
    lying_load(path, &b);
    memcpy(find(&b, "llama3", 6), "yarn!!", 6);
    assert_int_equal(save_bytes(&b, path), 0);
    lying_expect("another scaling", lying_open(path, &err), &err, GYRE_E_UNSUPPORTED, "yarn!!");
    free(b.data);
}

// Puts entries before those of a file; what they say twice gets another name there. Tensors keep their alignment.
static void put_entries(struct bytes *file, const struct bytes *entries, uint64_t n)
{
    struct bytes b = {0}, filler = {0};
    const size_t bare = entries->size + 8 + 1 + 4 + 8; // a text of no length named "z"
    put_string(&filler, "z");
    put_u32(&filler, GYRE_META_STRING);
    put_u64(&filler, (32 - bare % 32) % 32);
    for (size_t i = 0; i < (32 - bare % 32) % 32; i++) put_u8(&filler, ' ');
    uint64_t count;
    memcpy(&count, file->data + 16, 8);
    put(&b, file->data, 16);
    put_u64(&b, count + n + 1);
    put(&b, entries->data, entries->size);
    put(&b, filler.data, filler.size);
    put(&b, file->data + 24, file->size - 24);
    free(file->data);
    free(filler.data);
    *file = b;
}

enum { ONE = -1 }; // one value, no list

// The same number as other writers put it is the same model; what is no such number is refused by its key.
static void numbers_in_other_forms(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        gyre_meta_type type;
        int list;
        double v[2];
        gyre_status status;
    } cases[] = {
        {"llama.block_count", GYRE_META_U8, ONE, {2}, GYRE_OK},
        {"llama.block_count", GYRE_META_U64, ONE, {2}, GYRE_OK},
        {"llama.block_count", GYRE_META_F64, ONE, {2}, GYRE_OK},
        {"llama.block_count", GYRE_META_STRING, ONE, {2}, GYRE_E_FORMAT},
        {"llama.attention.head_count_kv", GYRE_META_I32, 2, {2, 2}, GYRE_OK},
        {"llama.attention.head_count_kv", GYRE_META_I32, 2, {2, 4}, GYRE_E_UNSUPPORTED},
        {"llama.attention.head_count_kv", GYRE_META_I32, 0, {0}, GYRE_E_FORMAT},
        {"llama.attention.head_count_kv", GYRE_META_STRING, ONE, {2}, GYRE_E_FORMAT},
        {"llama.feed_forward_length", GYRE_META_I64, 2, {96, 96}, GYRE_OK},
        {"llama.attention.key_length", GYRE_META_BOOL, ONE, {1}, GYRE_E_FORMAT},
        {"llama.rope.freq_base", GYRE_META_U32, ONE, {10000}, GYRE_OK},
        {"llama.rope.freq_base", GYRE_META_F64, 1, {10000}, GYRE_OK},
        {"llama.rope.freq_base", GYRE_META_STRING, ONE, {1}, GYRE_E_FORMAT},
        {"llama.rope.dimension_count", GYRE_META_STRING, ONE, {1}, GYRE_E_FORMAT},
        {"llama.expert_count", GYRE_META_F32, ONE, {0}, GYRE_OK},
        {"llama.expert_count", GYRE_META_STRING, ONE, {8}, GYRE_E_FORMAT},
        {"llama.attention.sliding_window", GYRE_META_U32, 2, {0, 64}, GYRE_E_UNSUPPORTED},
        {"general.architecture", GYRE_META_U32, ONE, {1}, GYRE_E_FORMAT},
        {"tokenizer.ggml.tokens", GYRE_META_U32, 2, {1, 2}, GYRE_E_FORMAT},
        {"gyre.act_bits", GYRE_META_STRING, ONE, {8}, GYRE_E_FORMAT},
        {"gyre.act_clip", GYRE_META_STRING, ONE, {1}, GYRE_E_FORMAT},
        {"gyre.wgroup", GYRE_META_BOOL, ONE, {0}, GYRE_E_FORMAT},
        {"gyre.act_group", GYRE_META_U32, ONE, {64}, GYRE_OK},
        {"gyre.act_group", GYRE_META_U32, ONE, {48}, GYRE_E_UNSUPPORTED},
        {"gyre.act_group", GYRE_META_U32, ONE, {8}, GYRE_E_UNSUPPORTED},
        {"gyre.act_group", GYRE_META_STRING, ONE, {32}, GYRE_E_FORMAT},
    };
    const struct tiny_options o = tiny_defaults();
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct bytes b, entry = {0};
        gyre_error err = {0};
        const uint64_t n = cases[i].list == ONE ? 1 : (uint64_t)cases[i].list;
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        lying_load(path, &b);
        put_string(&entry, cases[i].key);
        for (size_t k = 0; k + entry.size <= b.size; k++) // the file's own entry, if any
            if (!memcmp(b.data + k, entry.data, entry.size)) b.data[k + 8] = 'x';
        put_u32(&entry, cases[i].list == ONE ? cases[i].type : GYRE_META_ARRAY);
        if (cases[i].list != ONE) put_u32(&entry, cases[i].type), put_u64(&entry, n);
        for (uint64_t k = 0; k < n; k++) {
            if (cases[i].type == GYRE_META_STRING) put_string(&entry, "8");
            else put_number(&entry, cases[i].type, cases[i].v[k]);
        }
        put_entries(&b, &entry, 1);
        assert_int_equal(save_bytes(&b, path), 0);
        lying_expect(cases[i].key, lying_open(path, &err), &err, cases[i].status,
                     cases[i].status ? cases[i].key : NULL);
        free(entry.data);
        free(b.data);
    }
}

// The factor stands in either of two keys, with or without a type (as llama.cpp reads them).
static void scaling_in_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *type, *says;            // NULL: no such key; says: a refusal
        float factor, old, attention, used; // 0: no such key
    } cases[] = {
        {"linear", NULL, 4, 0, 0, 4},
        {NULL, NULL, 4, 0, 0, 4},
        {NULL, NULL, 0, 4, 0, 4},
        {"linear", NULL, 0, 4, 0, 4},
        {"linear", NULL, 0, 0, 0, 1},
        {"none", NULL, 4, 0, 0, 1},
        {"none", NULL, 0, 4, 0, 1},
        {NULL, NULL, 4, 8, 0, 4},
        {NULL, NULL, 4, 0, 1, 4},
        {NULL, "attn_factor", 4, 0, 2, 0},
        {"yarn", "original_context", 4, 0, 0, 0},
        {NULL, "factor", -4, 0, 0, 0},
        {NULL, "factor", 1e-5f, 0, 0, 0},
        {"llama3", "factor is missing", 0, 0, 0, 0},
    };
    const struct tiny_options o = tiny_defaults();
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct bytes b, entries = {0};
        struct gyre_hparams hp;
        gyre_source *source = NULL;
        gyre_error err = {0};
        uint64_t n = 0;
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        lying_load(path, &b);
        if (cases[i].type) put_meta_string(&entries, "llama.rope.scaling.type", cases[i].type), n++;
        if (cases[i].factor != 0) put_meta_f32(&entries, "llama.rope.scaling.factor", cases[i].factor), n++;
        if (cases[i].old != 0) put_meta_f32(&entries, "llama.rope.scale_linear", cases[i].old), n++;
        if (cases[i].attention != 0) put_meta_f32(&entries, "llama.rope.scaling.attn_factor", cases[i].attention), n++;
        put_entries(&b, &entries, n);
        assert_int_equal(save_bytes(&b, path), 0);
        gyre_status st = gyre_source_open(path, &source, &err);
        if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, &err);
        if (cases[i].says ? st == GYRE_OK || !strstr(err.message, cases[i].says) : st != GYRE_OK)
            fail_msg("case %zu: status %d, \"%s\"", i, st, err.message);
        if (st == GYRE_OK) {
            float f[8];
            gyre_rope_freqs(&hp, GYRE_TURN_ROPE, f);
            assert_true(f[0] == 1 / cases[i].used);
            gyre_hparams_free(&hp);
        }
        gyre_source_close(source);
        free(entries.data);
        free(b.data);
    }
}

static void lying_tensors(void **state)
{
    (void)state;
    static const char *const names[] = {"token_embd.weight",      "output_norm.weight",       "output.weight",
                                        "blk.0.attn_norm.weight", "blk.1.attn_q.weight",      "blk.0.attn_k.weight",
                                        "blk.1.attn_v.weight",    "blk.0.attn_output.weight", "blk.1.ffn_norm.weight",
                                        "blk.0.ffn_gate.weight",  "blk.1.ffn_up.weight",      "blk.0.ffn_down.weight"};
    struct tiny_options o = tiny_defaults();
    o.ffn = 160;
    for (size_t i = 0; i < 2 * GYRE_COUNT(names); i++) {
        const char *name = names[i / 2];
        struct bytes b;
        gyre_error err = {0};
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        lying_load(path, &b);
        unsigned char *at = find_name(&b, name);
        if (i % 2) at[0] = 'x';
        else
            memcpy(at + strlen(name) + 4, &(uint64_t){at[strlen(name)] == 1 ? 32 : 16},
                   8); // another width; for most no longer a tiling
        assert_int_equal(save_bytes(&b, path), 0);
        // Without output.weight of its own the head is tied, and the renamed tensor has no place.
        if (i % 2)
            lying_expect(name, lying_open(path, &err), &err,
                         strcmp(name, "output.weight") ? GYRE_E_FORMAT : GYRE_E_UNSUPPORTED,
                         strcmp(name, "output.weight") ? name : "xutput.weight");
        else lying_expect(name, lying_open(path, &err), &err, GYRE_E_FORMAT, NULL);
        free(b.data);
    }
    // Same number of elements, other shape: k is 32 x 64.
    struct bytes b;
    gyre_error err = {0};
    assert_int_equal(tiny_write_gguf(path, &o), 0);
    lying_load(path, &b);
    unsigned char *dims = find(&b, "blk.1.attn_k.weight", 19) + 19 + 4;
    memcpy(dims, (uint64_t[]){32, 64}, 16);
    assert_int_equal(save_bytes(&b, path), 0);
    lying_expect("transposed", lying_open(path, &err), &err, GYRE_E_FORMAT,
                 "blk.1.attn_k.weight has shape 64 x 32; 32 x 64 is due");
    free(b.data);
}

static void not_a_number(void **state)
{
    (void)state;
    static const struct {
        gyre_dtype type;
        uint32_t at;
    } cases[] = {
        {GYRE_DTYPE_F32, 0},    {GYRE_DTYPE_F16, 0},    {GYRE_DTYPE_BF16, 0},   {GYRE_DTYPE_Q4_0, 0},
        {GYRE_DTYPE_Q4_1, 0},   {GYRE_DTYPE_Q4_1, 2},   {GYRE_DTYPE_Q5_0, 0},   {GYRE_DTYPE_Q8_0, 0},
        {GYRE_DTYPE_Q4_K, 0},   {GYRE_DTYPE_Q4_K, 2},   {GYRE_DTYPE_Q5_K, 0},   {GYRE_DTYPE_Q5_K, 2},
        {GYRE_DTYPE_Q6_K, 208}, {GYRE_DTYPE_Q5_1, 0},   {GYRE_DTYPE_Q5_1, 2},   {GYRE_DTYPE_Q2_K, 80},
        {GYRE_DTYPE_Q2_K, 82},  {GYRE_DTYPE_Q3_K, 108}, {GYRE_DTYPE_IQ4_NL, 0}, {GYRE_DTYPE_IQ4_XS, 0},
        {GYRE_DTYPE_MXFP4, 0},  {GYRE_DTYPE_TQ1_0, 52}, {GYRE_DTYPE_TQ2_0, 64},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        const struct gyre_dtype_info *info = gyre_dtype_info(cases[i].type);
        struct tiny_options o = tiny_defaults();
        struct bytes b;
        gyre_error err = {0};
        gyre_source *source = NULL;
        unsigned char sample[64];
        o.type = cases[i].type;
        o.width = 256, o.head_dim = 64, o.ffn = 256;
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        assert_int_equal(lying_open(path, &err), GYRE_OK);
        assert_int_equal(gyre_source_open(path, &source, &err), GYRE_OK);
        const struct gyre_tensor *t = gyre_source_tensor(source, "blk.1.ffn_up.weight");
        const uint64_t last = t->bytes - info->block_bytes;
        memcpy(sample, (const char *)t->data + (info->block_bytes >= 64 ? last : t->bytes - 64), 64);
        gyre_source_close(source);
        lying_load(path, &b);
        unsigned char *block = find(&b, sample, 64) + (info->block_bytes >= 64 ? 0 : 64 - info->block_bytes);
        const uint32_t nan32 = 0x7FC00000;
        const uint16_t infinity = cases[i].type == GYRE_DTYPE_BF16    ? 0xFF80
                                  : cases[i].type == GYRE_DTYPE_MXFP4 ? 0x12FF
                                                                      : 0xFC00;
        memcpy(block + cases[i].at, cases[i].type == GYRE_DTYPE_F32 ? (const void *)&nan32 : &infinity,
               cases[i].type == GYRE_DTYPE_F32 ? 4 : 2);
        assert_int_equal(save_bytes(&b, path), 0);
        lying_expect(info->name, lying_open(path, &err), &err, GYRE_E_FORMAT,
                     "blk.1.ffn_up.weight holds NaN or infinity");
        free(b.data);
    }
}

// Doubles run as floats where floats hold them.
static void doubles(void **state)
{
    (void)state;
    static const double bad[] = {1e39, -4e38, INFINITY, NAN};
    struct tiny_options o = tiny_defaults();
    o.type = GYRE_DTYPE_F64;
    for (size_t i = 0; i < GYRE_COUNT(bad); i++) {
        struct bytes b;
        gyre_error err = {0};
        gyre_source *source = NULL;
        double sample[8];
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        assert_int_equal(lying_open(path, &err), GYRE_OK);
        assert_int_equal(gyre_source_open(path, &source, &err), GYRE_OK);
        const struct gyre_tensor *t = gyre_source_tensor(source, "blk.1.ffn_up.weight");
        assert_int_equal(t->type, GYRE_DTYPE_F64);
        memcpy(sample, t->data, sizeof sample);
        gyre_source_close(source);
        lying_load(path, &b);
        memcpy(find(&b, sample, sizeof sample), &bad[i], sizeof bad[i]);
        assert_int_equal(save_bytes(&b, path), 0);
        lying_expect("F64", lying_open(path, &err), &err, GYRE_E_UNSUPPORTED,
                     "blk.1.ffn_up.weight holds NaN, infinity or what no f32");
        free(b.data);
    }
}

// ---- gyre-llama -----------------------------------------------------------------------------------------

static const int8_t hadamard12[12][12] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},       {-1, 1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1},
    {-1, -1, 1, 1, -1, 1, 1, 1, -1, -1, -1, 1}, {-1, 1, -1, 1, 1, -1, 1, 1, 1, -1, -1, -1},
    {-1, -1, 1, -1, 1, 1, -1, 1, 1, 1, -1, -1}, {-1, -1, -1, 1, -1, 1, 1, -1, 1, 1, 1, -1},
    {-1, -1, -1, -1, 1, -1, 1, 1, -1, 1, 1, 1}, {-1, 1, -1, -1, -1, 1, -1, 1, 1, -1, 1, 1},
    {-1, 1, 1, -1, -1, -1, 1, -1, 1, 1, -1, 1}, {-1, 1, 1, 1, -1, -1, -1, 1, -1, 1, 1, -1},
    {-1, -1, 1, 1, 1, -1, -1, -1, 1, -1, 1, 1}, {-1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1, 1},
};

enum rotation_lie {
    HONEST,
    FACTORS_PRODUCT,
    FACTORS_DIVIDE,
    FACTORS_COUNT,
    NO_BASE,
    BASE_SHAPE,
    BASE_ZERO,
    BASE_SKEW,
    NO_GAIN,
    R3_PART,
    NO_FLAG,
    VERSION,
    WGROUP,
    BITS,
    N_ROTATION_LIES
};

// Metadata and base tensors of a gyre-llama file without weights: enough for gyre_hparams_read.
static void build_rotations(enum rotation_lie lie, struct bytes *b)
{
    static const struct {
        const char *key;
        uint32_t value;
    } counts[] = {
        {"gyre-llama.block_count", 2},
        {"gyre-llama.embedding_length", 48},
        {"gyre-llama.feed_forward_length", 96},
        {"gyre-llama.attention.head_count", 3},
        {"gyre-llama.attention.head_count_kv", 1},
        {"gyre-llama.context_length", 64},
        {"gyre-llama.vocab_size", 300},
    };
    const uint32_t r3[] = {lie == R3_PART ? 8 : 16, 1, 1, 1, lie == R3_PART ? 3 : 4}, head[] = {48, 12, 1, 1, 2};
    uint32_t r4[] = {96, 1, 12, 1, 3};
    if (lie == FACTORS_PRODUCT) r4[4] = 2;
    if (lie == FACTORS_DIVIDE) r4[0] = 192, r4[4] = 4;
    lying_begin(b, lie == NO_BASE || lie == NO_GAIN ? 2 : 3, GYRE_COUNT(counts) + 14 - (lie == NO_FLAG));
    put_meta_string(b, "general.architecture", "gyre-llama");
    for (size_t i = 0; i < GYRE_COUNT(counts); i++) put_meta_u32(b, counts[i].key, counts[i].value);
    put_meta_f32(b, "gyre-llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_meta_u32(b, "gyre.version", lie == VERSION ? GYRE_FILE_VERSION + 1 : 1);
    put_meta_u32(b, "gyre.wgroup", lie == WGROUP ? 32 : 0);
    put_meta_u32(b, "gyre.act_bits", lie == BITS ? 5 : 8);
    put_meta_u32(b, "gyre.kv_bits", 4);
    put_meta_bool(b, "gyre.rope_interleaved", 1);
    put_meta_bool(b, "gyre.r3", 1);
    if (lie != NO_FLAG) put_meta_bool(b, "gyre.r4", 1);
    put_meta_bool(b, "gyre.head_rotation", 1);
    put_meta_array(b, "gyre.r3.factors", GYRE_META_U32, 5), put(b, r3, sizeof r3);
    put_meta_array(b, "gyre.r4.factors", GYRE_META_U32, lie == FACTORS_COUNT ? 4 : 5),
        put(b, r4, lie == FACTORS_COUNT ? 16 : sizeof r4);
    put_meta_array(b, "gyre.head.factors", GYRE_META_U32, 5), put(b, head, sizeof head);
    put_meta_f32(b, "gyre.act_clip", 0.9f);
    uint64_t offset = 0;
    if (lie != NO_BASE)
        lying_tensor(b, "gyre.r4.base.1", lie == BASE_SHAPE ? 6 : 12, lie == BASE_SHAPE ? 24 : 12, 24, offset),
            offset += 160;
    lying_tensor(b, "gyre.head.base.0", 12, 12, 24, offset), offset += 160;
    if (lie != NO_GAIN) put_tensor_info(b, "gyre.head_gain", 1, (uint64_t[]){48}, 0, offset);
    put_align(b, 32);
    for (int i = 0; i < (lie == NO_BASE ? 1 : 2); i++) {
        put(b, hadamard12, sizeof hadamard12);
        if (i == 0 && lie == BASE_ZERO) b->data[b->size - 5] = 0;
        if (i == 0 && lie == BASE_SKEW) b->data[b->size - 5] ^= 0xFE;
        put_align(b, 32);
    }
    for (int i = 0; lie != NO_GAIN && i < 48; i++) put_f32(b, (float)i);
}

static void rotations(void **state)
{
    (void)state;
    static const char *const says[N_ROTATION_LIES] = {NULL,
                                                      "gyre.r4.factors",
                                                      "gyre.r4.factors",
                                                      "gyre.r4.factors",
                                                      "gyre.r4.base.1 is missing",
                                                      "gyre.r4.base.1 is of another",
                                                      "not a Hadamard",
                                                      "not a Hadamard",
                                                      "gyre.head_gain is missing",
                                                      "whole heads",
                                                      "gyre.r4 is missing",
                                                      "gyre.version",
                                                      "groups of 32",
                                                      "act_bits is 5"};
    for (int lie = 0; lie < N_ROTATION_LIES; lie++) {
        struct bytes b = {0};
        gyre_error err = {0};
        gyre_source *source = NULL;
        struct gyre_hparams hp;
        build_rotations((enum rotation_lie)lie, &b);
        assert_int_equal(save_bytes(&b, path), 0);
        if (gyre_source_open(path, &source, &err) != GYRE_OK) fail_msg("%d: %s", lie, err.message);
        const gyre_status st = gyre_hparams_read(source, &hp, &err);
        gyre_source_close(source);
        free(b.data);
        if (lie != HONEST) {
            if (st == GYRE_OK || !strstr(err.message, says[lie])) fail_msg("%d: status %d, %s", lie, st, err.message);
            continue;
        }
        // The struct outlives its source.
        assert_int_equal(st, GYRE_OK);
        assert_true(hp.tied && hp.rope_interleaved && hp.wgroup_declared && hp.rot.r3);
        assert_int_equal(hp.rot.r4.n, 96);
        assert_int_equal(hp.rot.r4.k[1], 12);
        assert_null(hp.rot.r4.base[0]);
        assert_memory_equal(hp.rot.r4.base[1], hadamard12, sizeof hadamard12);
        assert_memory_equal(hp.rot.head.base[0], hadamard12, sizeof hadamard12);
        assert_true(hp.rot.head_gain[47] == 47);
        assert_int_equal(hp.act_bits, 8);
        assert_int_equal(hp.kv_bits, 4);
        assert_true(hp.act_clip == 0.9f && hp.kv_clip == 1);
        gyre_hparams_free(&hp);
    }
}

static int clean(void **state)
{
    (void)state;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lying_hyper_parameters),
        cmocka_unit_test(numbers_in_other_forms),
        cmocka_unit_test(scaling_in_every_form),
        cmocka_unit_test(lying_tensors),
        cmocka_unit_test(not_a_number),
        cmocka_unit_test(doubles),
        cmocka_unit_test(rotations),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
