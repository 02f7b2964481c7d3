// The input is a GGUF file.
#include "tests/fuzz/common.h"
#include "tests/common/tiny.h"

#include <stdio.h>

static const char *const path = "fuzz.gguf";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes b = {(unsigned char *)(uintptr_t)data, size, size};
    if (save_bytes(&b, path)) return 0;
    load_everything(path);
    remove(path);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    static const gyre_dtype types[] = {GYRE_DTYPE_F32, GYRE_DTYPE_Q4_0, GYRE_DTYPE_Q4_1, GYRE_DTYPE_Q8_0,
                                       GYRE_DTYPE_Q6_K};
    if (i >= sizeof types / sizeof *types) return false;
    struct tiny_options o = tiny_defaults();
    o.layers = 1;
    o.vocab = 259;
    o.heads = o.kv_heads = 1;
    o.width = o.ffn = i == 4 ? 256 : 32;
    o.head_dim = 32;
    o.type = types[i];
    o.tied = i % 2;
    o.rope_freqs = i == 1;
    o.scaling = i == 2 ? GYRE_ROPE_LLAMA3 : GYRE_ROPE_NONE;
    if (tiny_write_gguf(path, &o)) return false;
    append_file(path, out);
    remove(path);
    return true;
}
