// The pipeline cache on disk: one blob per device and driver (backends/cache.h guards it against damage:
// drivers check their own header but not what follows it).
#include "backends/cache.h"
#include "backends/vulkan/vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What the driver says identifies its cache, and its version.
static void make_key(const struct vk_device *d, char key[GYRE_SHA256_HEX])
{
    const VkPhysicalDeviceProperties *p = &d->facts.properties;
    char ids[48], uuid[2 * VK_UUID_SIZE + 1];
    snprintf(ids, sizeof ids, "%08x %08x %08x", p->vendorID, p->deviceID, p->driverVersion);
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++) snprintf(uuid + 2 * i, 3, "%02x", p->pipelineCacheUUID[i]);
    gyre_cache_key(key, (const char *const[]){"vulkan pipelines", ids, uuid}, 3);
}

void gyre_vk_cache_load(struct vk_device *d)
{
    char key[GYRE_SHA256_HEX];
    size_t size = 0;
    make_key(d, key);
    void *data = gyre_cache_load(d->base.options.cache_dir, "vulkan", key, &size);
    const VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                            .initialDataSize = data ? size : 0,
                                            .pInitialData = data};
    if (d->f.CreatePipelineCache(d->handle, &info, NULL, &d->cache) != VK_SUCCESS)
        d->cache = VK_NULL_HANDLE; // works without
    if (data) {
        gyre_sha256_of(data, size, d->cache_hash);
        gyre_logf(d->base.options.log, GYRE_LOG_DEBUG, "vulkan: pipeline cache loaded: %zu bytes", size);
    }
    free(data);
}

void gyre_vk_cache_save(struct vk_device *d)
{
    const gyre_log *log = d->base.options.log;
    char key[GYRE_SHA256_HEX], hash[GYRE_SHA256_HEX];
    size_t size = 0;
    if (!d->base.options.cache_dir || !d->cache) return;
    if (d->f.GetPipelineCacheData(d->handle, d->cache, &size, NULL) != VK_SUCCESS || !size) return;
    void *data = malloc(size);
    if (data && d->f.GetPipelineCacheData(d->handle, d->cache, &size, data) == VK_SUCCESS) {
        gyre_sha256_of(data, size, hash);
        make_key(d, key);
        if (strcmp(hash, d->cache_hash)) gyre_cache_store(d->base.options.cache_dir, "vulkan", key, data, size, log);
        else gyre_logf(log, GYRE_LOG_DEBUG, "vulkan: pipeline cache unchanged");
    }
    free(data);
}
