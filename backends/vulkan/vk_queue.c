// The one in-order queue: submissions are numbered, each has a fence of a fixed ring.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

gyre_status gyre_vk_queue_init(struct vk_device *d, gyre_error *err)
{
    const VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    d->f.GetDeviceQueue(d->handle, d->facts.family, 0, &d->queue.handle);
    for (int i = 0; i < VK_FENCES; i++) {
        const VkResult result = d->f.CreateFence(d->handle, &info, NULL, &d->queue.fences[i]);
        if (result != VK_SUCCESS) return gyre_vk_fail(err, result, "create fence", d->base.info.name);
    }
    return GYRE_OK;
}

void gyre_vk_queue_free(struct vk_device *d)
{
    for (int i = 0; i < VK_FENCES; i++)
        if (d->queue.fences[i]) d->f.DestroyFence(d->handle, d->queue.fences[i], NULL);
}

gyre_status gyre_vk_queue_wait(struct vk_device *d, uint64_t serial, gyre_error *err)
{
    struct vk_queue *queue = &d->queue;
    if (serial <= queue->completed) return GYRE_OK;
    // A fence also covers everything queued before it.
    const VkResult result = d->f.WaitForFences(d->handle, 1, &queue->fences[serial % VK_FENCES], VK_TRUE, UINT64_MAX);
    if (result != VK_SUCCESS) return gyre_vk_fail(err, result, "wait for device", d->base.info.name);
    queue->completed = serial;
    return GYRE_OK;
}

bool gyre_vk_queue_idle(struct vk_device *d)
{
    struct vk_queue *queue = &d->queue;
    if (queue->completed < queue->submitted &&
        d->f.GetFenceStatus(d->handle, queue->fences[queue->submitted % VK_FENCES]) == VK_SUCCESS)
        queue->completed = queue->submitted;
    return queue->completed == queue->submitted;
}

gyre_status gyre_vk_queue_submit(struct vk_device *d, VkCommandBuffer commands, uint32_t times, const char *what,
                                 gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct vk_queue *queue = &d->queue;
    const uint64_t serial = queue->submitted + 1;
    const VkFence fence = queue->fences[serial % VK_FENCES];
    VkCommandBuffer list[GYRE_MAX_AT_ONCE];
    for (uint32_t t = 0; t < times; t++) list[t] = commands;
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = times, .pCommandBuffers = list};
    if (serial > VK_FENCES) {
        GYRE_TRY(gyre_vk_queue_wait(d, serial - VK_FENCES, err));
        VK_GO(d->f.ResetFences(d->handle, 1, &fence), what, d->base.info.name);
    }
    VK_GO(d->f.QueueSubmit(queue->handle, 1, &info, fence), what, d->base.info.name);
    queue->submitted = serial;
done:
    return st;
}

void gyre_vk_barrier(const struct vk_device *d, VkCommandBuffer commands, VkPipelineStageFlags from,
                     VkPipelineStageFlags to)
{
    VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER};
    if (from & VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT) barrier.srcAccessMask |= VK_ACCESS_SHADER_WRITE_BIT;
    if (from & VK_PIPELINE_STAGE_TRANSFER_BIT) barrier.srcAccessMask |= VK_ACCESS_TRANSFER_WRITE_BIT;
    if (to & VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT)
        barrier.dstAccessMask |= VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;
    if (to & VK_PIPELINE_STAGE_TRANSFER_BIT)
        barrier.dstAccessMask |= VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    if (to & VK_PIPELINE_STAGE_HOST_BIT) barrier.dstAccessMask |= VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT;
    d->f.CmdPipelineBarrier(commands, from, to, 0, 1, &barrier, 0, NULL, 0, NULL);
}
