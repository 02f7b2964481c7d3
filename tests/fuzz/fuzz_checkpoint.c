// The input is config.json or the tensors of a checkpoint that another tool rounded; the rest of the directory is
// honest. Its first byte says which form, and which of the two files.
#include "tests/common/checkpoint.h"
#include "tests/fuzz/common.h"

#include <stdio.h>
#include <stdlib.h>

static const struct checkpoint forms[] = {
    {.form = CHECKPOINT_WORDS, .bits = 4, .group = 8, .asymmetric = true, .act_order = true, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_BYTES, .bits = 8, .asymmetric = true, .scale = GYRE_DTYPE_F32},
    {.form = CHECKPOINT_GPTQ, .bits = 4, .group = 8, .asymmetric = true, .act_order = true, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_AWQ, .bits = 4, .group = 8, .asymmetric = true, .scale = GYRE_DTYPE_F16},
};
static const char *const files[] = {"model.safetensors", "config.json"};
enum { FORMS = sizeof forms / sizeof *forms, FILES = sizeof files / sizeof *files };

static struct tiny_options options(void)
{
    struct tiny_options o = tiny_defaults();
    o.layers = 1, o.vocab = 259, o.width = o.ffn = o.head_dim = 16, o.heads = o.kv_heads = 1;
    return o;
}

static const char *path_of(unsigned which, const char *file, char out[128])
{
    snprintf(out, 128, "fuzz_checkpoint_%u%s%s", which / FILES, *file ? "/" : "", file);
    return out;
}

static void write_honest(unsigned which)
{
    char path[128];
    const struct tiny_options o = options();
    if (checkpoint_write(path_of(which, "", path), &o, &forms[which / FILES])) exit(2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bytes honest[FORMS * FILES];
    char path[128];
    if (size == 0) return 0;
    const unsigned which = data[0] % (FORMS * FILES);
    if (!honest[which].data) {
        write_honest(which);
        append_file(path_of(which, files[which % FILES], path), &honest[which]);
    }
    const struct bytes b = {(unsigned char *)(uintptr_t)data + 1, size - 1, size - 1};
    if (save_bytes(&b, path_of(which, files[which % FILES], path))) return 0;
    load_everything(path_of(which, "", path));
    if (save_bytes(&honest[which], path_of(which, files[which % FILES], path))) exit(2);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    char path[128];
    if (i >= FORMS * FILES) return false;
    write_honest(i);
    put_u8(out, (uint8_t)i);
    append_file(path_of(i, files[i % FILES], path), out);
    return true;
}
