// See device_key.h.
#include "backends/device_key.h"
#include "backends/cache.h"
#include "backends/kernel_source.h"

#include <stdio.h>

void gyre_device_key(const char *name, const char *driver, const char *what, char out[GYRE_SHA256_HEX])
{
    char kernels[24];
    uint64_t hash = 14695981039346656037u; // FNV-1a over the kernels' own
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++)
        hash = (hash ^ gyre_kernel_sources[i]->hash) * 1099511628211u;
    snprintf(kernels, sizeof kernels, "%016llx", (unsigned long long)hash);
    gyre_cache_key(out, (const char *[]){name, driver, kernels, what}, 4);
}
