// Device memory: a few large blocks, cut into ranges. Allocations are few and long-lived (weights, the
// KV pool, one scratch arena per graph), so first fit in address order does.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <stdlib.h>

enum { MAX_BLOCK = 256 << 20, NEAR_BLOCK = 1 << 20 };

// Types in the driver's order, which is by speed; `want` must be there, exotic ones need features that are not enabled.
static void add_types(const struct vk_device *d, struct vk_heap *heap, uint32_t allowed, VkMemoryPropertyFlags want)
{
    const VkMemoryPropertyFlags exotic =
        ~(VkMemoryPropertyFlags)(VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                 VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
    for (uint32_t t = 0; t < d->facts.memory.memoryTypeCount; t++) {
        const VkMemoryPropertyFlags flags = d->facts.memory.memoryTypes[t].propertyFlags;
        bool known = false;
        for (uint32_t i = 0; i < heap->n_types; i++) known |= heap->types[i] == t;
        if (!known && (allowed >> t & 1) && (flags & want) == want && !(flags & exotic))
            heap->types[heap->n_types++] = t;
    }
}

gyre_status gyre_vk_heap_init(struct vk_device *d, gyre_error *err)
{
    // What any storage buffer needs is asked of a small one.
    const VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .size = 4096,
                                     .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                              VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkBuffer buffer;
    VkMemoryRequirements need;
    const VkResult result = d->f.CreateBuffer(d->handle, &info, NULL, &buffer);
    if (result != VK_SUCCESS) return gyre_vk_fail(err, result, "open device", d->base.info.name);
    d->f.GetBufferMemoryRequirements(d->handle, buffer, &need);
    d->f.DestroyBuffer(d->handle, buffer, NULL);

    const VkMemoryPropertyFlags host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    d->heap.map = d->base.info.unified;
    add_types(d, &d->heap, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | (d->heap.map ? host : 0));
    if (d->heap.map) add_types(d, &d->heap, need.memoryTypeBits, host);
    if (!d->heap.n_types)
        return gyre_fail(err, GYRE_E_DEVICE, "cannot open device (%s): it has no memory for buffers",
                         d->base.info.name);
    const uint32_t first = d->facts.memory.memoryTypes[d->heap.types[0]].heapIndex;
    d->heap.granule = GYRE_MAX(need.alignment, (uint64_t)GYRE_BIND_ALIGN);
    d->heap.block_bytes =
        gyre_round_up(GYRE_MIN((uint64_t)MAX_BLOCK, d->facts.memory.memoryHeaps[first].size / 8), d->heap.granule);
    if (!d->heap.map) {
        d->near = (struct vk_heap){.granule = d->heap.granule, .block_bytes = NEAR_BLOCK, .map = true, .near = true};
        add_types(d, &d->near, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | host);
    }
    return GYRE_OK;
}

static void block_free(struct vk_device *d, struct vk_block *block)
{
    for (struct vk_range *r = block->ranges, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    if (block->memory) d->f.FreeMemory(d->handle, block->memory, NULL); // unmaps
    free(block);
}

void gyre_vk_heap_free(struct vk_device *d)
{
    for (int near = 0; near < 2; near++) {
        struct vk_heap *heap = near ? &d->near : &d->heap;
        for (struct vk_block *b = heap->blocks, *next; b; b = next) {
            next = b->next;
            block_free(d, b);
        }
        heap->blocks = NULL;
    }
}

static gyre_status block_create(struct vk_device *d, struct vk_heap *heap, uint64_t size, const char *label,
                                struct vk_block **out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    struct vk_block *block = calloc(1, sizeof *block);
    if (!block || !(block->ranges = calloc(1, sizeof *block->ranges))) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot create buffer (%s): out of host memory", label);
        goto done;
    }
    block->heap = heap;
    *block->ranges = (struct vk_range){.block = block, .size = size};
    for (uint32_t i = 0; i < heap->n_types && result == VK_ERROR_OUT_OF_DEVICE_MEMORY; i++) {
        const VkMemoryAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = size, .memoryTypeIndex = heap->types[i]};
        result = d->f.AllocateMemory(d->handle, &info, NULL, &block->memory);
        block->cached = d->facts.memory.memoryTypes[heap->types[i]].propertyFlags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    }
    VK_GO(result, "create buffer", label);
    if (heap->map)
        VK_GO(d->f.MapMemory(d->handle, block->memory, 0, VK_WHOLE_SIZE, 0, (void **)&block->mapped), "map buffer",
              label);
    block->next = heap->blocks;
    heap->blocks = block;
    *out = block;
    block = NULL;
done:
    if (block) block_free(d, block);
    return st;
}

// Cuts `range`, which is free, to `size`; what remains is free.
static gyre_status split(struct vk_range *range, uint64_t size, const char *label, gyre_error *err)
{
    if (range->size > size) {
        struct vk_range *rest = malloc(sizeof *rest);
        if (!rest) return gyre_fail(err, GYRE_E_NOMEM, "cannot create buffer (%s): out of host memory", label);
        *rest = (struct vk_range){.block = range->block,
                                  .offset = range->offset + size,
                                  .size = range->size - size,
                                  .previous = range,
                                  .next = range->next};
        if (rest->next) rest->next->previous = rest;
        range->next = rest;
        range->size = size;
    }
    range->used = true;
    return GYRE_OK;
}

static gyre_status heap_alloc(struct vk_device *d, struct vk_heap *heap, uint64_t size, const char *label,
                              struct vk_range **out, gyre_error *err)
{
    size = gyre_round_up(size, heap->granule);
    struct vk_range *found = NULL;
    for (struct vk_block *b = heap->blocks; b && !found; b = b->next)
        for (struct vk_range *r = b->ranges; r && !found; r = r->next)
            if (!r->used && r->size >= size) found = r;
    if (!found) {
        struct vk_block *block = NULL;
        // Half a block or more gets a block of its own, so that no tail is lost. So does what fits where a whole block
        // does not.
        const bool own = size > heap->block_bytes / 2;
        if (own || block_create(d, heap, heap->block_bytes, label, &block, NULL) != GYRE_OK)
            GYRE_TRY(block_create(d, heap, size, label, &block, err));
        found = block->ranges;
    }
    GYRE_TRY(split(found, size, label, err));
    *out = found;
    return GYRE_OK;
}

gyre_status gyre_vk_range_alloc(struct vk_device *d, uint64_t size, const char *label, struct vk_range **out,
                                gyre_error *err)
{
    if (size <= VK_NEAR_BYTES && d->near.n_types && heap_alloc(d, &d->near, size, label, out, NULL) == GYRE_OK)
        return GYRE_OK;
    return heap_alloc(d, &d->heap, size, label, out, err);
}

static void merge_with_next(struct vk_range *range)
{
    struct vk_range *next = range->next;
    if (!next || range->used || next->used) return;
    range->size += next->size;
    range->next = next->next;
    if (range->next) range->next->previous = range;
    free(next);
}

void gyre_vk_range_free(struct vk_device *d, struct vk_range *range)
{
    struct vk_block *block = range->block;
    range->used = false;
    merge_with_next(range);
    if (range->previous) merge_with_next(range->previous);
    // An empty block is given back, unless it is the last one: a buffer made and destroyed in a loop stays cheap.
    if (block->ranges->used || block->ranges->next || (block->heap->blocks == block && !block->next)) return;
    struct vk_block **link = &block->heap->blocks;
    while (*link != block) link = &(*link)->next;
    *link = block->next;
    block_free(d, block);
}
