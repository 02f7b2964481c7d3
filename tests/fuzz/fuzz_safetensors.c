// The input is a file of a Hugging Face directory whose other files are honest. Its first byte says which one.
#include "tests/fuzz/common.h"
#include "tests/common/tiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const dir = "fuzz_hf"; // in the working directory: one process each
static const char *const names[] = {"model-00001-of-00002.safetensors", "config.json", "model.safetensors.index.json",
                                    "generation_config.json", "tokenizer_config.json"};
// What a directory may have beside those that the writer of models makes.
static const char *const optional[] = {"{\"eos_token_id\": [2, 1]}",
                                       "{\"add_bos_token\": true, \"bos_token\": {\"content\": \"<|endoftext|>\"}, "
                                       "\"eos_token\": \"<|im_end|>\", \"add_eos_token\": false}"};
enum { N_NAMES = sizeof names / sizeof *names, N_OPTIONAL = sizeof optional / sizeof *optional };

static struct tiny_options options(void)
{
    struct tiny_options o = tiny_defaults();
    o.layers = 1, o.vocab = 259, o.width = o.ffn = o.head_dim = 16, o.heads = o.kv_heads = 1, o.shards = 2;
    return o;
}

static const char *in_dir(char out[128], const char *name)
{
    snprintf(out, 128, "%s/%s", dir, name);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bytes honest[N_NAMES];
    char path[128];
    if (size == 0) return 0;
    if (!honest[0].data) { // once: the directory and its honest contents
        const struct tiny_options o = options();
        if (tiny_write_hf(dir, &o)) exit(2);
        for (int i = 0; i < N_NAMES - N_OPTIONAL; i++) append_file(in_dir(path, names[i]), &honest[i]);
        for (int i = 0; i < N_OPTIONAL; i++) put_text(&honest[N_NAMES - N_OPTIONAL + i], optional[i]);
    }
    const unsigned which = data[0] % N_NAMES;
    const struct bytes b = {(unsigned char *)(uintptr_t)data + 1, size - 1, size - 1};
    if (save_bytes(&b, in_dir(path, names[which]))) return 0;
    load_everything(dir);
    if (save_bytes(&honest[which], in_dir(path, names[which]))) exit(2);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    char path[128];
    const struct tiny_options o = options();
    if (i >= N_NAMES || tiny_write_hf(dir, &o)) return false;
    put_u8(out, (uint8_t)i);
    if (i >= N_NAMES - N_OPTIONAL) put_text(out, optional[i - (N_NAMES - N_OPTIONAL)]);
    else append_file(in_dir(path, names[i]), out);
    return true;
}
