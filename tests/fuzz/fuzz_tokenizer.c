// First byte 0: the rest is a tokenizer.json; 1: a GGUF file with a tokenizer. Else: the rest is a text for one of the
// fixtures, whose tokens must give the same bytes back where the vocabulary has all bytes and nothing is normalized.
#include "tests/fuzz/common.h"
#include "tests/common/tiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const dir = "fuzz_tokenizer", *const gguf = "fuzz_tokenizer.gguf"; // one process each
static const char *const fixtures[] = {"llama3", "gpt2",  "qwen2",     "smollm", "odd",
                                       "llama2", "gemma", "metaspace", "pieces"};
enum { N_FIXTURES = sizeof fixtures / sizeof *fixtures, LOSSLESS = 2 };

static void write_dir(const struct bytes *json)
{
    char path[128];
    struct tiny_options o = tiny_defaults();
    o.layers = 1, o.vocab = 259, o.width = o.ffn = o.head_dim = 8, o.heads = o.kv_heads = 1;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    static bool there;
    if ((!there && tiny_write_hf(dir, &o)) || save_bytes(json, path)) exit(2);
    there = true;
}

static gyre_tokenizer *fixture(unsigned i)
{
    static gyre_tokenizer *made[N_FIXTURES];
    char path[1024];
    struct bytes json = {0};
    gyre_source *source = NULL;
    gyre_error err = {0};
    if (made[i]) return made[i];
    snprintf(path, sizeof path, GYRE_TEST_DATA "/tokenizer_%s.json", fixtures[i]);
    append_file(path, &json);
    write_dir(&json);
    free(json.data);
    if (gyre_source_open(dir, &source, &err) != GYRE_OK ||
        gyre_tokenizer_create(source, NULL, NULL, &made[i], &err) != GYRE_OK)
        exit(2);
    gyre_source_close(source);
    return made[i];
}

static void encode(unsigned i, const char *text, size_t size)
{
    uint32_t *ids;
    uint64_t n, at = 0;
    gyre_error err = {0};
    const gyre_tokenizer *tokenizer = fixture(i);
    if (gyre_tokenizer_encode(tokenizer, text, size, GYRE_ENCODE_SPECIAL, &ids, &n, &err) != GYRE_OK) exit(2);
    for (uint64_t k = 0; k < n; k++) {
        uint32_t length;
        const char *part = gyre_tokenizer_bytes(tokenizer, ids[k], &length);
        if (!part || (i < LOSSLESS && (at + length > size || memcmp(text + at, part, length)))) abort();
        at += length;
    }
    if (i < LOSSLESS && at != size) abort();
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    if (data[0] == 1) {
        const struct bytes b = {(unsigned char *)(uintptr_t)data + 1, size - 1, size - 1};
        if (save_bytes(&b, gguf)) return 0;
        load_everything(gguf);
        remove(gguf);
        return 0;
    }
    if (data[0]) {
        encode(data[0] % N_FIXTURES, (const char *)data + 1, size - 1);
        return 0;
    }
    const struct bytes b = {(unsigned char *)(uintptr_t)data + 1, size - 1, size - 1};
    write_dir(&b);
    load_everything(dir);
    return 0;
}

static struct bytes entries;
static uint64_t n_entries;

static void put_entry(void *user, const struct gyre_meta *meta)
{
    (void)user;
    put_string(&entries, meta->key);
    put_u32(&entries, meta->type);
    put(&entries, meta->raw, meta->raw_bytes);
    n_entries++;
}

// A fixture as GGUF's keys.
static void put_gguf(const char *fixture, struct bytes *out)
{
    char path[1024];
    struct bytes json = {0};
    gyre_source *source = NULL;
    gyre_error err = {0};
    snprintf(path, sizeof path, GYRE_TEST_DATA "/tokenizer_%s.json", fixture);
    append_file(path, &json);
    write_dir(&json);
    free(json.data);
    if (gyre_source_open(dir, &source, &err) != GYRE_OK ||
        gyre_tokenizer_write(source, 1000, true, put_entry, NULL, &err) != GYRE_OK)
        exit(2);
    gyre_source_close(source);
    put_text(out, "GGUF");
    put_u32(out, 3);
    put_u64(out, 0);
    put_u64(out, n_entries);
    put(out, entries.data, entries.size);
    free(entries.data);
    entries = (struct bytes){0};
    n_entries = 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    char path[1024];
    static const char *const in_keys[] = {"llama2", "gemma", "qwen2"};
    if (i >= 2 * N_FIXTURES + 3) return false;
    if (i >= 2 * N_FIXTURES) {
        put_u8(out, 1);
        put_gguf(in_keys[i - 2 * N_FIXTURES], out);
        return true;
    }
    put_u8(out, i < N_FIXTURES ? 0 : (uint8_t)(i - N_FIXTURES + N_FIXTURES * 3));
    if (i < N_FIXTURES) snprintf(path, sizeof path, GYRE_TEST_DATA "/tokenizer_%s.json", fixtures[i]);
    else snprintf(path, sizeof path, GYRE_TEST_DATA "/tokenizer_corpus.txt");
    append_file(path, out);
    return true;
}
