// Buffers, and copies between host and device.
//
// Where the host sees device memory and nothing is in flight, a copy is a memcpy. Otherwise it goes in
// pieces through a ring of staging slots on the same queue as everything else, which orders it.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { ANY_STAGE = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT };

// ---- staging ------------------------------------------------------------------------------------------

// Host memory whose reads are cached where there is such a type.
static uint32_t staging_type(const struct vk_device *d, uint32_t allowed)
{
    const VkMemoryPropertyFlags coherent = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags wants[] = {coherent | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, coherent};
    const VkMemoryPropertyFlags exotic = VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_PROTECTED_BIT;
    for (size_t w = 0; w < GYRE_COUNT(wants); w++)
        for (uint32_t t = 0; t < d->facts.memory.memoryTypeCount; t++) {
            const VkMemoryPropertyFlags flags = d->facts.memory.memoryTypes[t].propertyFlags;
            if ((allowed >> t & 1) && (flags & wants[w]) == wants[w] && !(flags & exotic)) return t;
        }
    return 0; // cannot happen: Vulkan guarantees a coherent type
}

gyre_status gyre_vk_staging_init(struct vk_device *d, gyre_error *err)
{
    static const char what[] = "create staging ring";
    gyre_status st = GYRE_OK;
    struct vk_staging *s = &d->staging;
    const char *where = d->base.info.name;
    VkMemoryRequirements need;
    const VkBufferCreateInfo buffer = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                       .size = (VkDeviceSize)VK_SLOTS * VK_SLOT_BYTES,
                                       .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VK_GO(d->f.CreateBuffer(d->handle, &buffer, NULL, &s->buffer), what, where);
    d->f.GetBufferMemoryRequirements(d->handle, s->buffer, &need);
    const VkMemoryAllocateInfo memory = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                         .allocationSize = need.size,
                                         .memoryTypeIndex = staging_type(d, need.memoryTypeBits)};
    VK_GO(d->f.AllocateMemory(d->handle, &memory, NULL, &s->memory), what, where);
    VK_GO(d->f.BindBufferMemory(d->handle, s->buffer, s->memory, 0), what, where);
    VK_GO(d->f.MapMemory(d->handle, s->memory, 0, VK_WHOLE_SIZE, 0, (void **)&s->mapped), what, where);
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT |
                                                   VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                          .queueFamilyIndex = d->facts.family};
    VK_GO(d->f.CreateCommandPool(d->handle, &pool, NULL, &s->pool), what, where);
    const VkCommandBufferAllocateInfo commands = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                                  .commandPool = s->pool,
                                                  .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                                  .commandBufferCount = VK_SLOTS};
    VK_GO(d->f.AllocateCommandBuffers(d->handle, &commands, s->commands), what, where);
    gyre_vk_name(d, VK_OBJECT_TYPE_BUFFER, (uint64_t)s->buffer, "staging ring");
done:
    return st;
}

void gyre_vk_staging_free(struct vk_device *d)
{
    struct vk_staging *s = &d->staging;
    if (s->pool) d->f.DestroyCommandPool(d->handle, s->pool, NULL);
    if (s->buffer) d->f.DestroyBuffer(d->handle, s->buffer, NULL);
    if (s->memory) d->f.FreeMemory(d->handle, s->memory, NULL);
}

// The next slot, after the copy that last used it has run.
static gyre_status take_slot(struct vk_device *d, uint32_t *slot, gyre_error *err)
{
    *slot = d->staging.next++ % VK_SLOTS;
    return gyre_vk_queue_wait(d, d->staging.serial[*slot], err);
}

// Queues a copy between a slot's beginning and a buffer's range.
static gyre_status copy(struct vk_device *d, uint32_t slot, const struct vk_buffer *b, uint64_t offset, uint64_t size,
                        bool to_device, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct vk_staging *s = &d->staging;
    const VkCommandBuffer commands = s->commands[slot];
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                            .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    const uint64_t at = (uint64_t)slot * VK_SLOT_BYTES;
    const VkBufferCopy region = {
        .srcOffset = to_device ? at : offset, .dstOffset = to_device ? offset : at, .size = size};
    VK_GO(d->f.BeginCommandBuffer(commands, &begin), "copy buffer", b->base.label);
    gyre_vk_barrier(d, commands, ANY_STAGE, VK_PIPELINE_STAGE_TRANSFER_BIT);
    d->f.CmdCopyBuffer(commands, to_device ? s->buffer : b->handle, to_device ? b->handle : s->buffer, 1, &region);
    gyre_vk_barrier(d, commands, VK_PIPELINE_STAGE_TRANSFER_BIT, ANY_STAGE | VK_PIPELINE_STAGE_HOST_BIT);
    VK_GO(d->f.EndCommandBuffer(commands), "copy buffer", b->base.label);
    GYRE_GO(gyre_vk_queue_submit(d, commands, 1, "copy buffer", err));
    s->serial[slot] = d->queue.submitted;
    d->base.counters.copies++;
done:
    return st;
}

// ---- buffers ------------------------------------------------------------------------------------------

void gyre_vk_buffer_destroy(gyre_device *device, gyre_buffer *buffer)
{
    struct vk_device *d = (struct vk_device *)device;
    struct vk_buffer *b = (struct vk_buffer *)buffer;
    if (!gyre_vk_queue_idle(d)) (void)gyre_vk_queue_wait(d, d->queue.submitted, NULL); // a copy may still use it
    if (b->handle) d->f.DestroyBuffer(d->handle, b->handle, NULL);
    if (b->range) gyre_vk_range_free(d, b->range);
    free(b);
}

gyre_status gyre_vk_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                                  gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct vk_device *d = (struct vk_device *)device;
    struct vk_buffer *b = calloc(1, sizeof *b);
    if (!b) return gyre_fail(err, GYRE_E_NOMEM, "cannot create buffer (%s): out of host memory", label);
    VkMemoryRequirements need;
    const VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .size = gyre_round_up(size, 4),
                                     .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                              VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VK_GO(d->f.CreateBuffer(d->handle, &info, NULL, &b->handle), "create buffer", label);
    d->f.GetBufferMemoryRequirements(d->handle, b->handle, &need);
    GYRE_GO(gyre_vk_range_alloc(d, need.size, label, &b->range, err));
    VK_GO(d->f.BindBufferMemory(d->handle, b->handle, b->range->block->memory, b->range->offset), "create buffer",
          label);
    gyre_vk_name(d, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->handle, label);
    *out = &b->base;
    b = NULL;
done:
    if (b) gyre_vk_buffer_destroy(device, &b->base);
    return st;
}

static unsigned char *direct(const struct vk_buffer *b)
{
    return b->range->block->mapped ? b->range->block->mapped + b->range->offset : NULL;
}

gyre_status gyre_vk_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                                 uint64_t size, gyre_error *err)
{
    struct vk_device *d = (struct vk_device *)device;
    struct vk_buffer *b = (struct vk_buffer *)buffer;
    const unsigned char *from = source;
    if (direct(b) && gyre_vk_queue_idle(d)) {
        memcpy(direct(b) + offset, from, size);
        return GYRE_OK;
    }
    for (uint64_t done = 0, n; done < size; done += n) {
        uint32_t slot;
        n = GYRE_MIN(size - done, (uint64_t)VK_SLOT_BYTES);
        GYRE_TRY(take_slot(d, &slot, err));
        memcpy(d->staging.mapped + (size_t)slot * VK_SLOT_BYTES, from + done, n);
        GYRE_TRY(copy(d, slot, b, offset + done, n, true, err));
    }
    return GYRE_OK;
}

gyre_status gyre_vk_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target, uint64_t size,
                                gyre_error *err)
{
    struct vk_device *d = (struct vk_device *)device;
    const struct vk_buffer *b = (const struct vk_buffer *)buffer;
    unsigned char *to = target;
    if (direct(b) && (b->range->block->cached || b->range->block->heap->near)) {
        GYRE_TRY(gyre_vk_queue_wait(d, d->queue.submitted, err));
        memcpy(to, direct(b) + offset, size);
        return GYRE_OK;
    }
    for (uint64_t done = 0, n; done < size; done += n) {
        uint32_t slot;
        n = GYRE_MIN(size - done, (uint64_t)VK_SLOT_BYTES);
        GYRE_TRY(take_slot(d, &slot, err));
        GYRE_TRY(copy(d, slot, b, offset + done, n, false, err));
        GYRE_TRY(gyre_vk_queue_wait(d, d->queue.submitted, err));
        memcpy(to + done, d->staging.mapped + (size_t)slot * VK_SLOT_BYTES, n);
    }
    return GYRE_OK;
}
