// The input is a GGUF file.
#include "tests/fuzz/common.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>
#include <stdlib.h>

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
    enum { TYPES = sizeof types / sizeof *types };
    if (i >= TYPES + 3) return false;
    struct tiny_options o = tiny_defaults();
    o.layers = 1;
    o.vocab = 259;
    o.heads = o.kv_heads = 1;
    o.width = o.ffn = i == 4 ? 256 : i < TYPES ? 32 : 64;
    o.head_dim = 32;
    o.type = i < TYPES ? types[i] : GYRE_DTYPE_F32;
    o.tied = i % 2;
    o.rope_freqs = i == 1;
    o.scaling = i == 2 ? GYRE_ROPE_LLAMA3 : GYRE_ROPE_NONE;
    if (tiny_write_gguf(path, &o)) return false;
    const char *made = i < TYPES ? path : "fuzz-made.gguf"; // nibbles, bytes, and blocks that repeat their scales
    const gyre_quantize_params p = {.source = path,
                                    .output = made,
                                    .recipe = "rtn",
                                    .profile = i == TYPES + 2 ? "portable" : "full",
                                    .wbits = i == TYPES + 1 ? 8 : 4,
                                    .wgroup = GYRE_WGROUP_ROW,
                                    .force = true};
    gyre_error err = {0};
    if (i >= TYPES && gyre_quantize(&p, NULL, &err) != GYRE_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(2);
    }
    append_file(made, out);
    remove(path);
    remove(made);
    remove("fuzz-made.gguf.manifest.json");
    return true;
}
