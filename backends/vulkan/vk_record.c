// Recordings: command buffers and descriptor sets made once, submitted any number of times.
//
// A recording is cut into segments by predicted time (gyre_submission_end), mostly one, each its own command
// buffer and submission; several replays of one segment may share a submission. Every segment begins with a
// barrier against all that was queued before it, so replays and copies are ordered without knowing each other;
// inside, a barrier stands only where a dispatch touches bytes that one since the last barrier wrote, or writes
// bytes that one read.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct command {
    VkPipeline pipeline;
    VkPipelineLayout layout;
    VkDescriptorSet set;
    uint32_t groups[3], params_size;
    bool barrier; // before it
    unsigned char params[GYRE_MAX_PARAMS];
};

struct segment {
    VkCommandBuffer commands;
    uint32_t first, end; // of its dispatches
};

struct vk_recording {
    gyre_recording base;
    VkDescriptorPool descriptors;
    VkCommandPool pool;
    struct segment *segments;
    uint32_t n_segments, n;
    struct command commands[];
};

// ---- hazards ------------------------------------------------------------------------------------------

// What has been touched since the last barrier.
struct access {
    const gyre_buffer *buffer;
    uint64_t begin, end;
    bool write;
};
struct window {
    struct access list[256];
    uint32_t n;
};

static bool conflicts(const struct window *window, const struct access *a)
{
    for (uint32_t i = 0; i < window->n; i++) {
        const struct access *b = &window->list[i];
        if ((a->write || b->write) && a->buffer == b->buffer && a->begin < b->end && b->begin < a->end) return true;
    }
    return false;
}

// Whether `dispatch` needs a barrier before it; its accesses join the window, emptied if so.
static bool needs_barrier(struct window *window, const struct gyre_dispatch *dispatch)
{
    const struct gyre_kernel_source *source = dispatch->kernel->source;
    struct access mine[GYRE_MAX_BINDINGS];
    bool hazard = window->n + source->n_bindings > GYRE_COUNT(window->list);
    for (uint32_t i = 0; i < source->n_bindings; i++) {
        const struct gyre_binding *b = &dispatch->bind[i];
        mine[i] = (struct access){b->buffer, b->offset, b->offset + b->size, i < source->n_writes};
        hazard = hazard || conflicts(window, &mine[i]);
    }
    if (hazard) window->n = 0;
    memcpy(window->list + window->n, mine, source->n_bindings * sizeof mine[0]);
    window->n += source->n_bindings;
    return hazard;
}

// ---- recording ----------------------------------------------------------------------------------------

static gyre_status make_sets(struct vk_device *d, struct vk_recording *r, const struct gyre_dispatch *dispatches,
                             gyre_error *err)
{
    gyre_status st = GYRE_OK;
    uint32_t total = 0;
    for (uint32_t i = 0; i < r->n; i++) total += dispatches[i].kernel->source->n_bindings;
    const VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, .descriptorCount = total};
    const VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                             .maxSets = r->n,
                                             .poolSizeCount = 1,
                                             .pPoolSizes = &size};
    VK_GO(d->f.CreateDescriptorPool(d->handle, &pool, NULL, &r->descriptors), "record", "descriptor pool");
    for (uint32_t i = 0; i < r->n; i++) {
        const struct gyre_kernel_source *source = dispatches[i].kernel->source;
        VkDescriptorBufferInfo buffers[GYRE_MAX_BINDINGS];
        const VkDescriptorSetAllocateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                                 .descriptorPool = r->descriptors,
                                                 .descriptorSetCount = 1,
                                                 .pSetLayouts = &d->set_layouts[source->n_bindings]};
        VK_GO(d->f.AllocateDescriptorSets(d->handle, &set, &r->commands[i].set), "record", source->name);
        for (uint32_t b = 0; b < source->n_bindings; b++) {
            const struct gyre_binding *bind = &dispatches[i].bind[b];
            buffers[b] =
                (VkDescriptorBufferInfo){((const struct vk_buffer *)bind->buffer)->handle, bind->offset, bind->size};
        }
        const VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                            .dstSet = r->commands[i].set,
                                            .descriptorCount = source->n_bindings,
                                            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                            .pBufferInfo = buffers};
        d->f.UpdateDescriptorSets(d->handle, 1, &write, 0, NULL);
    }
done:
    return st;
}

// Encodes one segment. With `queries`, a time stamp stands before the first command of all and after each one, and
// nothing overlaps.
static gyre_status encode(const struct vk_device *d, const struct vk_recording *r, const struct segment *segment,
                          VkQueryPool queries, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    const uint32_t first = segment->first, end = segment->end;
    const VkCommandBuffer commands = segment->commands;
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                            .flags = queries ? VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT
                                                             : VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    const VkPipelineStageFlags compute = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
    VK_GO(d->f.BeginCommandBuffer(commands, &begin), "record", "command buffer");
    if (queries && !first) d->f.CmdResetQueryPool(commands, queries, 0, r->n + 1);
    gyre_vk_barrier(d, commands, compute | VK_PIPELINE_STAGE_TRANSFER_BIT, compute);
    if (queries && !first) d->f.CmdWriteTimestamp(commands, compute, queries, 0);
    VkPipeline bound = VK_NULL_HANDLE;
    for (uint32_t i = first; i < end; i++) {
        const struct command *c = &r->commands[i];
        if (c->barrier && !queries) gyre_vk_barrier(d, commands, compute, compute);
        if (c->pipeline != bound) d->f.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, c->pipeline);
        bound = c->pipeline;
        d->f.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, c->layout, 0, 1, &c->set, 0, NULL);
        d->f.CmdPushConstants(commands, c->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, c->params_size, c->params);
        d->f.CmdDispatch(commands, c->groups[0], c->groups[1], c->groups[2]);
        if (!queries) continue;
        gyre_vk_barrier(d, commands, compute, compute);
        d->f.CmdWriteTimestamp(commands, compute, queries, i + 1);
    }
    if (end == r->n) gyre_vk_barrier(d, commands, compute, VK_PIPELINE_STAGE_HOST_BIT); // for reads of mapped buffers
    VK_GO(d->f.EndCommandBuffer(commands), "record", "command buffer");
done:
    return st;
}

static gyre_status make_segments(struct vk_device *d, VkCommandPool *pool, struct segment *segments, uint32_t n,
                                 gyre_error *err)
{
    gyre_status st = GYRE_OK;
    const VkCommandPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .queueFamilyIndex = d->facts.family};
    VK_GO(d->f.CreateCommandPool(d->handle, &info, NULL, pool), "record", "command pool");
    const VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                                  .commandPool = *pool,
                                                  .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                                  .commandBufferCount = 1};
    for (uint32_t i = 0; i < n; i++)
        VK_GO(d->f.AllocateCommandBuffers(d->handle, &allocate, &segments[i].commands), "record", "command buffers");
done:
    return st;
}

void gyre_vk_recording_destroy(gyre_device *device, gyre_recording *recording)
{
    struct vk_device *d = (struct vk_device *)device;
    struct vk_recording *r = (struct vk_recording *)recording;
    if (!gyre_vk_queue_idle(d)) (void)gyre_vk_queue_wait(d, d->queue.submitted, NULL); // a replay may still run
    if (r->pool) d->f.DestroyCommandPool(d->handle, r->pool, NULL);
    if (r->descriptors) d->f.DestroyDescriptorPool(d->handle, r->descriptors, NULL);
    free(r->segments);
    free(r);
}

gyre_status gyre_vk_record(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                           gyre_recording **out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct vk_device *d = (struct vk_device *)device;
    struct window *window = calloc(1, sizeof *window);
    struct vk_recording *r = calloc(1, sizeof *r + n * sizeof r->commands[0]);
    uint32_t n_segments = 0;
    for (uint32_t i = 0; i < n; i = gyre_submission_end(dispatches, n, i)) n_segments++;
    if (r) r->segments = calloc(n_segments, sizeof *r->segments);
    if (!window || !r || !r->segments) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot record (%s): out of host memory", d->base.info.id);
        goto done;
    }
    r->n = n;
    r->n_segments = r->base.n_submissions = n_segments;
    for (uint32_t s = 0, at = 0; s < n_segments; s++, at = r->segments[s - 1].end)
        r->segments[s] = (struct segment){VK_NULL_HANDLE, at, gyre_submission_end(dispatches, n, at)};
    for (uint32_t i = 0, s = 0; i < n; i++) {
        const struct gyre_kernel_source *source = dispatches[i].kernel->source;
        struct command *c = &r->commands[i];
        c->pipeline = ((const struct vk_kernel *)dispatches[i].kernel)->pipeline;
        c->layout = d->layouts[source->n_bindings];
        c->params_size = source->params_size;
        memcpy(c->groups, dispatches[i].groups, sizeof c->groups);
        memcpy(c->params, dispatches[i].params, source->params_size);
        if (i == r->segments[s].end) s++, window->n = 0; // its segment begins with a barrier
        c->barrier = needs_barrier(window, &dispatches[i]);
    }
    GYRE_GO(make_sets(d, r, dispatches, err));
    GYRE_GO(make_segments(d, &r->pool, r->segments, r->n_segments, err));
    for (uint32_t s = 0; s < r->n_segments; s++) GYRE_GO(encode(d, r, &r->segments[s], VK_NULL_HANDLE, err));
    *out = &r->base;
    r = NULL;
done:
    free(window);
    if (r) gyre_vk_recording_destroy(device, &r->base);
    return st;
}

// ---- replay -------------------------------------------------------------------------------------------

// Time between consecutive stamps; the queue's stamps have timestamp_bits valid bits and wrap.
static void spans(const struct vk_device *d, const uint64_t *stamps, uint32_t n, uint64_t *ns)
{
    const uint64_t mask = d->facts.timestamp_bits >= 64 ? UINT64_MAX : (UINT64_C(1) << d->facts.timestamp_bits) - 1;
    const double period = (double)d->facts.properties.limits.timestampPeriod;
    for (uint32_t i = 0; i < n; i++) ns[i] = (uint64_t)((double)((stamps[i + 1] - stamps[i]) & mask) * period);
}

static gyre_status profile(struct vk_device *d, const struct vk_recording *r, uint64_t *ns, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    VkQueryPool queries = VK_NULL_HANDLE;
    VkCommandPool pool = VK_NULL_HANDLE;
    struct segment *segments = calloc(r->n_segments, sizeof *segments);
    uint64_t *stamps = calloc((size_t)r->n + 1, sizeof *stamps);
    if (!segments || !stamps) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot profile (%s): out of host memory", d->base.info.id);
        goto done;
    }
    const VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                        .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                        .queryCount = r->n + 1};
    VK_GO(d->f.CreateQueryPool(d->handle, &info, NULL, &queries), "profile", d->base.info.id);
    memcpy(segments, r->segments, r->n_segments * sizeof *segments);
    GYRE_GO(make_segments(d, &pool, segments, r->n_segments, err));
    for (uint32_t s = 0; s < r->n_segments; s++) GYRE_GO(encode(d, r, &segments[s], queries, err));
    for (uint32_t s = 0; s < r->n_segments; s++)
        GYRE_GO(gyre_vk_queue_submit(d, segments[s].commands, 1, "profile", err));
    GYRE_GO(gyre_vk_queue_wait(d, d->queue.submitted, err));
    VK_GO(d->f.GetQueryPoolResults(d->handle, queries, 0, r->n + 1, ((size_t)r->n + 1) * sizeof *stamps, stamps,
                                   sizeof *stamps, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
          "profile", d->base.info.id);
    spans(d, stamps, r->n, ns);
done:
    if (!gyre_vk_queue_idle(d)) (void)gyre_vk_queue_wait(d, d->queue.submitted, NULL); // after a failure half-way
    if (pool) d->f.DestroyCommandPool(d->handle, pool, NULL);
    if (queries) d->f.DestroyQueryPool(d->handle, queries, NULL);
    free(segments);
    free(stamps);
    return st;
}

gyre_status gyre_vk_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                           gyre_error *err)
{
    struct vk_device *d = (struct vk_device *)device;
    struct vk_recording *r = (struct vk_recording *)recording;
    if (ns) {
        memset(ns, 0, r->n * sizeof *ns);
        GYRE_TRY(gyre_vk_wait(device, err));
        if (d->facts.timestamp_bits && d->facts.properties.limits.timestampPeriod > 0) return profile(d, r, ns, err);
    }
    for (uint32_t done = 0; done < times; done += r->base.at_once) { // one segment where that is above 1
        const uint32_t now = GYRE_MIN(times - done, r->base.at_once);
        for (uint32_t s = 0; s < r->n_segments; s++)
            GYRE_TRY(gyre_vk_queue_submit(d, r->segments[s].commands, now, "submit", err));
    }
    return ns ? gyre_vk_wait(device, err) : GYRE_OK;
}

gyre_status gyre_vk_wait(gyre_device *device, gyre_error *err)
{
    struct vk_device *d = (struct vk_device *)device;
    return gyre_vk_queue_wait(d, d->queue.submitted, err);
}
