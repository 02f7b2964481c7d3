// The pipeline cache on disk: one file per device and driver, under options.cache_dir.
//
// Drivers check their own header but not what follows it, and some crash on a damaged payload. So the
// file begins with our header, which names the device, the driver and the payload's SHA-256; whatever
// does not match is ignored and replaced at close.
#include "backends/vulkan/vk.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct header {
    char magic[8];
    uint32_t vendor, device, driver;
    uint8_t uuid[VK_UUID_SIZE]; // pipelineCacheUUID
    char sha256[GYRE_SHA256_HEX + 7];
    uint64_t size; // of the payload, which follows
};

enum { MAX_CACHE = 256 << 20 };

static struct header make_header(const struct vk_device *d, const void *payload, uint64_t size)
{
    const VkPhysicalDeviceProperties *p = &d->facts.properties;
    struct header h;
    memset(&h, 0, sizeof h); // padding too: headers are compared as bytes
    memcpy(h.magic, "gyrevkp1", 8);
    h.vendor = p->vendorID;
    h.device = p->deviceID;
    h.driver = p->driverVersion;
    memcpy(h.uuid, p->pipelineCacheUUID, VK_UUID_SIZE);
    gyre_sha256_of(payload, size, h.sha256);
    h.size = size;
    return h;
}

// False if there is no cache directory or the path is too long.
static bool cache_path(const struct vk_device *d, char path[1024])
{
    const VkPhysicalDeviceProperties *p = &d->facts.properties;
    char uuid[2 * VK_UUID_SIZE + 1];
    if (!d->base.options.cache_dir) return false;
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++) snprintf(uuid + 2 * i, 3, "%02x", p->pipelineCacheUUID[i]);
    return snprintf(path, 1024, "%s/vulkan-%04x-%04x-%s.cache", d->base.options.cache_dir, p->vendorID, p->deviceID, uuid) < 1024;
}

// The payload inside `data`, or NULL with a reason.
static const void *check(const struct vk_device *d, const char *data, uint64_t size, const char **why)
{
    struct header h;
    if (size < sizeof h) return *why = "it is cut short", NULL;
    memcpy(&h, data, sizeof h);
    const void *payload = data + sizeof h;
    const struct header good = make_header(d, payload, size - sizeof h);
    if (memcmp(h.magic, good.magic, sizeof h.magic)) return *why = "it is not a pipeline cache", NULL;
    if (h.vendor != good.vendor || h.device != good.device || h.driver != good.driver || memcmp(h.uuid, good.uuid, sizeof h.uuid))
        return *why = "it belongs to another device or driver", NULL;
    if (memcmp(&h, &good, sizeof h)) return *why = "it is damaged", NULL;
    return payload;
}

void vk_cache_load(struct vk_device *d)
{
    const gyre_log *log = d->base.options.log;
    char path[1024], *data = NULL;
    const char *why = NULL;
    uint64_t size = 0;
    gyre_error err = {0};
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    if (cache_path(d, path) && gyre_file_exists(path)) {
        if (gyre_file_read(path, MAX_CACHE, &data, &size, &err) != GYRE_OK) why = err.message;
        else info.pInitialData = check(d, data, size, &why);
        if (why) gyre_logf(log, GYRE_LOG_WARN, "vulkan: pipeline cache ignored (%s): %s", path, why);
    }
    if (info.pInitialData) {
        info.initialDataSize = size - sizeof(struct header);
        gyre_sha256_of(info.pInitialData, info.initialDataSize, d->cache_hash);
        gyre_logf(log, GYRE_LOG_DEBUG, "vulkan: pipeline cache loaded (%s): %zu bytes", path, info.initialDataSize);
    }
    if (d->f.CreatePipelineCache(d->handle, &info, NULL, &d->cache) != VK_SUCCESS) d->cache = VK_NULL_HANDLE; // works without
    free(data);
}

void vk_cache_save(struct vk_device *d)
{
    const gyre_log *log = d->base.options.log;
    char path[1024], *data = NULL;
    size_t size = 0;
    gyre_error err = {0};
    if (!cache_path(d, path)) return;
    if (d->f.GetPipelineCacheData(d->handle, d->cache, &size, NULL) != VK_SUCCESS || !size || size > MAX_CACHE - sizeof(struct header)) return;
    if (!(data = malloc(sizeof(struct header) + size))) return;
    char *payload = data + sizeof(struct header);
    if (d->f.GetPipelineCacheData(d->handle, d->cache, &size, payload) == VK_SUCCESS) {
        const struct header h = make_header(d, payload, size);
        memcpy(data, &h, sizeof h);
        if (!strcmp(h.sha256, d->cache_hash)) gyre_logf(log, GYRE_LOG_DEBUG, "vulkan: pipeline cache unchanged (%s)", path);
        else if (gyre_make_dirs(d->base.options.cache_dir, &err) != GYRE_OK || gyre_file_write(path, data, sizeof h + size, &err) != GYRE_OK)
            gyre_logf(log, GYRE_LOG_WARN, "vulkan: pipeline cache not saved: %s", err.message);
        else gyre_logf(log, GYRE_LOG_DEBUG, "vulkan: pipeline cache saved (%s): %zu bytes", path, size);
    }
    free(data);
}
