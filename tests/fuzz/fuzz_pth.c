// The input is one file of a checkpoint as Meta publishes it; its first byte says which. The others are honest.
#include "tests/common/meta.h"
#include "tests/fuzz/common.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const dir = "fuzz_pth", *const names[] = {"consolidated.00.pth", "params.json", "tokenizer.model"};
enum { N_NAMES = sizeof names / sizeof *names };

static const char *in_dir(char out[128], unsigned which)
{
    snprintf(out, 128, "%s/%s", dir, names[which]);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bytes honest[N_NAMES];
    char path[128];
    if (size == 0) return 0;
    if (!honest[0].data) {
        if (meta_write(dir, &(struct meta_options){.zip64 = true})) exit(2);
        for (unsigned i = 0; i < N_NAMES; i++) append_file(in_dir(path, i), &honest[i]);
    }
    const unsigned which = data[0] % N_NAMES;
    const struct bytes b = {(unsigned char *)(uintptr_t)data + 1, size - 1, size - 1};
    if (save_bytes(&b, in_dir(path, which))) return 0;
    load_everything(dir);
    if (save_bytes(&honest[which], in_dir(path, which))) exit(2);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    char path[128];
    if (i > N_NAMES || meta_write(dir, &(struct meta_options){.zip64 = i != N_NAMES})) return false;
    put_u8(out, (uint8_t)(i % N_NAMES));
    append_file(in_dir(path, i % N_NAMES), out);
    return true;
}
