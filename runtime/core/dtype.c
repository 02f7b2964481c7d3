// See dtype.h.
#include "runtime/core/dtype.h"

#include "runtime/util/base.h"

#include <stdio.h>

static const struct gyre_dtype_info table[GYRE_DTYPE_COUNT] = {
#define X(id, name, gguf, elements, bytes) {name, gguf, elements, bytes},
    GYRE_DTYPE_MAP(X)
#undef X
};

const struct gyre_dtype_info *gyre_dtype_info(gyre_dtype type)
{
    return (unsigned)type < GYRE_DTYPE_COUNT ? &table[type] : NULL;
}

bool gyre_dtype_from_gguf(uint32_t id, gyre_dtype *out)
{
    for (int i = 0; i < GYRE_DTYPE_COUNT; i++) {
        if (table[i].gguf < 0 || (uint32_t)table[i].gguf != id) continue;
        *out = (gyre_dtype)i;
        return true;
    }
    return false;
}

const char *gyre_gguf_type_name(uint32_t id)
{
    // Every id that was ever given out, whether gyre reads it or not; NULL marks retired ids.
    static const char *const names[] = {
        "F32",   "F16",    "Q4_0",  "Q4_1", NULL,   NULL,      "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
        "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
        "IQ2_S", "IQ4_XS", "I8",    "I16",  "I32",  "I64",     "F64",    "IQ1_M",   "BF16",  NULL,     NULL,
        NULL,    "TQ1_0",  "TQ2_0", NULL,   NULL,   NULL,      "MXFP4",  "NVFP4",   "Q1_0",  "Q2_0",
    };
    return id < GYRE_COUNT(names) ? names[id] : NULL;
}

void gyre_gguf_type_list(char *out, size_t size)
{
    size_t at = 0;
    int last = GYRE_DTYPE_COUNT - 1;
    while (table[last].gguf < 0) last--;
    for (int i = 0; i <= last && at < size; i++)
        if (table[i].gguf >= 0)
            at += (size_t)snprintf(out + at, size - at, "%s%s", !i ? "" : i == last ? " and " : ", ", table[i].name);
}

bool gyre_dtype_row_bytes(gyre_dtype type, uint64_t n, uint64_t *bytes)
{
    const struct gyre_dtype_info *info = gyre_dtype_info(type);
    return info && n % info->block_elements == 0 && gyre_mul_u64(n / info->block_elements, info->block_bytes, bytes);
}
