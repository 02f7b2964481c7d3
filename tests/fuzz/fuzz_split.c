// A model in two GGUF files. First byte even: the rest is the first of them, beside an honest second; odd: the second.
#include "tests/fuzz/common.h"
#include "tests/common/tiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const part[2] = {"fuzz-split-00001-of-00002.gguf", "fuzz-split-00002-of-00002.gguf"};

// Makes the honest parts of one file: all metadata and no tensor, and the tensors alone.
static const struct bytes *honest(void)
{
    static struct bytes made[2];
    struct tiny_options o = tiny_defaults();
    gyre_source *source = NULL;
    gyre_error err = {0};
    if (made[0].data) return made;
    o.layers = 1, o.vocab = 259, o.width = o.ffn = o.head_dim = 32, o.heads = o.kv_heads = 1;
    if (tiny_write_gguf(part[0], &o) || gyre_source_open(part[0], &source, &err) != GYRE_OK) exit(2);
    const uint64_t metas = gyre_source_meta_count(source), tensors = gyre_source_tensor_count(source);
    for (uint32_t i = 0; i < 2; i++) {
        struct bytes *b = &made[i];
        put_text(b, "GGUF");
        put_u32(b, 3);
        put_u64(b, i ? tensors : 0);
        put_u64(b, i ? 3 : metas + 3);
        put_meta_u32(b, "split.no", i);
        put_meta_u32(b, "split.count", 2);
        put_meta_u32(b, "split.tensors.count", (uint32_t)tensors);
        for (uint64_t k = 0; k < metas && !i; k++) {
            const struct gyre_meta m = gyre_source_meta_at(source, k);
            put_string(b, m.key);
            put_u32(b, m.type);
            put(b, m.raw, m.raw_bytes);
        }
        uint64_t offset = 0;
        for (uint64_t k = 0; k < tensors && i; k++) {
            const struct gyre_tensor *t = gyre_source_tensor_at(source, k);
            put_tensor_info(b, t->name, t->n_dims, t->dims, (uint32_t)gyre_dtype_info(t->type)->gguf, offset);
            offset = (offset + t->bytes + 31) / 32 * 32;
        }
        put_align(b, 32);
        for (uint64_t k = 0; k < tensors && i; k++) {
            const struct gyre_tensor *t = gyre_source_tensor_at(source, k);
            put(b, t->data, t->bytes);
            put_align(b, 32);
        }
    }
    gyre_source_close(source);
    if (save_bytes(&made[0], part[0]) || save_bytes(&made[1], part[1]) ||
        gyre_source_open(part[0], &source, &err) != GYRE_OK || gyre_source_tensor_count(source) != tensors)
        exit(2);
    gyre_source_close(source);
    return made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const struct bytes *made = honest(), b = {(unsigned char *)(uintptr_t)data + 1, size - 1, size - 1};
    if (save_bytes(&b, part[data[0] & 1]) || save_bytes(&made[!(data[0] & 1)], part[!(data[0] & 1)])) return 0;
    load_everything(part[0]);
    remove(part[0]);
    remove(part[1]);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    if (i > 1) return false;
    put_u8(out, (uint8_t)i);
    put(out, honest()[i].data, honest()[i].size);
    return true;
}
