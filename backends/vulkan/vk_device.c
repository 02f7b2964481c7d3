// Which devices there are, what they can do, opening and closing one; the backend's table.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct extensions {
    VkExtensionProperties list[512];
    uint32_t n;
};

static bool has(const struct extensions *extensions, const char *name)
{
    for (uint32_t i = 0; i < extensions->n; i++)
        if (!strcmp(extensions->list[i].extensionName, name)) return true;
    return false;
}

// ---- facts --------------------------------------------------------------------------------------------

// A family with compute; one without graphics keeps long work away from the desktop's queue. -1: none.
static int choose_family(const struct vk_instance *instance, VkPhysicalDevice device, uint32_t *timestamp_bits)
{
    VkQueueFamilyProperties families[16];
    uint32_t n = GYRE_COUNT(families);
    int best = -1;
    instance->f.GetPhysicalDeviceQueueFamilyProperties(device, &n, families);
    for (uint32_t i = 0; i < n; i++) {
        if (!families[i].queueCount || !(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)) continue;
        if (best < 0 || !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT)) best = (int)i;
        if (best == (int)i) *timestamp_bits = families[i].timestampValidBits;
        if (!(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT)) break;
    }
    return best;
}

static uint64_t memory_bytes(const struct vk_facts *facts)
{
    if (facts->info.software) return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < facts->memory.memoryHeapCount; i++)
        if (facts->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            bytes = GYRE_MAX(bytes, facts->memory.memoryHeaps[i].size);
    return bytes;
}

// Chains what the device knows beyond Vulkan 1.1, asks, and copies the answers into facts->info.
static void extended_facts(const struct vk_instance *instance, const struct extensions *extensions,
                           struct vk_facts *facts)
{
    const uint32_t version = facts->properties.apiVersion;
    const bool v12 = version >= VK_API_VERSION_1_2, v13 = version >= VK_API_VERSION_1_3;
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES};
    VkPhysicalDeviceShaderFloat16Int8Features f16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    VkPhysicalDeviceSubgroupProperties subgroup = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceMaintenance3Properties limits = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = &subgroup};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &limits};
    VkPhysicalDeviceMaintenance4Properties buffers = {.sType =
                                                          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES};
    VkPhysicalDeviceShaderIntegerDotProductProperties dot_facts = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES};
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
#define CHAIN(head, item) ((item).pNext = (head).pNext, (head).pNext = &(item))
    if (v13 || has(extensions, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME))
        CHAIN(features, dot), CHAIN(properties, dot_facts);
    if (v12 || has(extensions, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME)) CHAIN(features, f16);
    if (v13 || has(extensions, VK_KHR_MAINTENANCE_4_EXTENSION_NAME)) CHAIN(properties, buffers);
    if (v13 || has(extensions, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) CHAIN(properties, sizes);
    if (v12 || has(extensions, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME)) CHAIN(properties, driver);
#undef CHAIN
    instance->f.GetPhysicalDeviceFeatures2(facts->handle, &features);
    instance->f.GetPhysicalDeviceProperties2(facts->handle, &properties);

    struct gyre_device_info *info = &facts->info;
    const uint32_t driver_version = facts->properties.driverVersion;
    if (driver.driverID == VK_DRIVER_ID_MESA_LLVMPIPE) info->max_loop = 65535; // Mesa's LP_MAX_TGSI_LOOP_ITERATIONS
    if (driver.driverName[0])
        snprintf(info->driver, sizeof info->driver, "%.60s %.60s", driver.driverName, driver.driverInfo);
    else snprintf(info->driver, sizeof info->driver, "version 0x%08x", driver_version);
    info->subgroup_min = sizes.minSubgroupSize ? sizes.minSubgroupSize : subgroup.subgroupSize;
    info->subgroup_max = sizes.maxSubgroupSize ? sizes.maxSubgroupSize : subgroup.subgroupSize;
    info->max_buffer = limits.maxMemoryAllocationSize ? limits.maxMemoryAllocationSize : UINT64_MAX;
    if (buffers.maxBufferSize) info->max_buffer = GYRE_MIN(info->max_buffer, buffers.maxBufferSize);
    info->f16 = facts->float16 = f16.shaderFloat16;
    facts->int_dot = dot.shaderIntegerDotProduct;
    if (facts->int_dot)
        info->int_dot =
            dot_facts.integerDotProduct4x8BitPackedSignedAccelerated ? GYRE_INT_DOT_ACCELERATED : GYRE_INT_DOT_EMULATED;
}

// False, with a reason, for a device that gyre cannot use.
static bool describe(const struct vk_instance *instance, VkPhysicalDevice device, struct extensions *extensions,
                     struct vk_facts *facts, char why[160])
{
    *facts = (struct vk_facts){.handle = device};
    const VkPhysicalDeviceProperties *p = &facts->properties;
    instance->f.GetPhysicalDeviceProperties(device, &facts->properties);
    instance->f.GetPhysicalDeviceMemoryProperties(device, &facts->memory);
    extensions->n = GYRE_COUNT(extensions->list);
    if (instance->f.EnumerateDeviceExtensionProperties(device, NULL, &extensions->n, extensions->list) < 0)
        extensions->n = 0;
    const int family = choose_family(instance, device, &facts->timestamp_bits);
    if (family < 0 || p->apiVersion < VK_API_VERSION_1_1) {
        snprintf(why, 160, "%.100s has %s", p->deviceName, family < 0 ? "no compute queue" : "no Vulkan 1.1");
        return false;
    }
    if (p->limits.maxPerStageDescriptorStorageBuffers < GYRE_MAX_BINDINGS ||
        p->limits.maxPushConstantsSize < GYRE_MAX_PARAMS ||
        p->limits.minStorageBufferOffsetAlignment > GYRE_BIND_ALIGN) {
        snprintf(why, 160, "%.60s has %u storage buffers a kernel and %u bytes of parameters; %d and %d are needed",
                 p->deviceName, p->limits.maxPerStageDescriptorStorageBuffers, p->limits.maxPushConstantsSize,
                 GYRE_MAX_BINDINGS, GYRE_MAX_PARAMS);
        return false;
    }
    struct gyre_device_info *info = &facts->info;
    facts->family = (uint32_t)family;
    facts->portability = has(extensions, "VK_KHR_portability_subset");
    snprintf(info->name, sizeof info->name, "%.127s", p->deviceName);
    info->software = p->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    info->lanes = info->software ? GYRE_LANES_SIMD : GYRE_LANES_HARDWARE;
    info->unified = info->software || p->deviceType == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    info->memory_bytes = memory_bytes(facts);
    info->max_binding = p->limits.maxStorageBufferRange;
    info->max_workgroup = p->limits.maxComputeWorkGroupInvocations;
    memcpy(info->max_group_size, p->limits.maxComputeWorkGroupSize, sizeof info->max_group_size);
    memcpy(info->max_groups, p->limits.maxComputeWorkGroupCount, sizeof info->max_groups);
    info->shared_bytes = p->limits.maxComputeSharedMemorySize;
    extended_facts(instance, extensions, facts);
    if (has(extensions, GYRE_VK_MATRICES)) gyre_vk_matrix_facts(instance, facts);
    return true;
}

// All usable devices in the driver's order; `why` gets the reason for the last one that is left out.
static gyre_status find(const struct vk_instance *instance, struct vk_facts *out, int *n, char why[160],
                        gyre_error *err)
{
    VkPhysicalDevice devices[VK_MAX_DEVICES];
    uint32_t count = VK_MAX_DEVICES;
    *n = 0;
    const VkResult result = instance->f.EnumeratePhysicalDevices(instance->handle, &count, devices);
    if (result == VK_ERROR_INITIALIZATION_FAILED)
        return gyre_fail(err, GYRE_E_NO_DEVICE, "no Vulkan driver found a device");
    if (result < 0) return gyre_vk_fail(err, result, "list devices", "vulkan");
    struct extensions *extensions = malloc(sizeof *extensions);
    if (!extensions) return gyre_fail(err, GYRE_E_NOMEM, "cannot list devices (vulkan): out of memory");
    for (uint32_t i = 0; i < count; i++) {
        if (describe(instance, devices[i], extensions, &out[*n], why)) ++*n;
        else gyre_logf(instance->log, GYRE_LOG_INFO, "vulkan: device left out: %s", why);
    }
    free(extensions);
    return GYRE_OK;
}

static int vk_probe(struct gyre_device_info *out, int cap, char why[160])
{
    static const struct gyre_device_options no_options;
    struct vk_instance instance = {0};
    struct vk_facts *facts = calloc(VK_MAX_DEVICES, sizeof *facts);
    gyre_error err = {0};
    int n = 0;
    snprintf(why, 160, "no driver offers a device");
    if (!facts || gyre_vk_instance_create(&instance, &no_options, &err) || find(&instance, facts, &n, why, &err))
        snprintf(why, 160, "%.159s", facts ? err.message : "out of memory");
    for (int i = 0; i < n && i < cap; i++) out[i] = facts[i].info;
    gyre_vk_instance_destroy(&instance);
    free(facts);
    return n;
}

// ---- open and close -----------------------------------------------------------------------------------

static gyre_status create_device(struct vk_device *d, gyre_error *err)
{
    const struct vk_facts *facts = &d->facts;
    const uint32_t version = facts->properties.apiVersion;
    const char *const who = facts->info.name;
    const char *names[4];
    uint32_t n = 0;
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
        .shaderIntegerDotProduct = VK_TRUE};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    if (facts->int_dot) {
        features.pNext = &dot;
        if (version < VK_API_VERSION_1_3) names[n++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
    }
    struct vk_matrix_chain matrices;
    if (facts->matrices) {
        features.pNext = gyre_vk_matrix_chain(&matrices, features.pNext);
        matrices.matrices.matrices = matrices.model.vulkanMemoryModel = matrices.bytes.shaderInt8 = VK_TRUE;
        matrices.model.vulkanMemoryModelDeviceScope = VK_TRUE; // BARRIER_G of all kernels wants it beside the model
        matrices.bytes.shaderFloat16 = facts->info.matrix_f16.m ? VK_TRUE : VK_FALSE;
        matrices.sizes.subgroupSizeControl = matrices.sizes.computeFullSubgroups = VK_TRUE;
        names[n++] = GYRE_VK_MATRICES;
    }
    if (facts->portability) names[n++] = "VK_KHR_portability_subset";
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueFamilyIndex = facts->family,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = &features,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = n,
                                     .ppEnabledExtensionNames = names};
    const VkResult result = d->instance.f.CreateDevice(facts->handle, &info, NULL, &d->handle);
    if (result != VK_SUCCESS) return gyre_vk_fail(err, result, "open device", who);
#define X(name)                                                                                                        \
    d->f.name = (PFN_vk##name)d->instance.f.GetDeviceProcAddr(d->handle, "vk" #name);                                  \
    if (!d->f.name) return gyre_fail(err, GYRE_E_DEVICE, "cannot open device (%s): its driver lacks vk" #name, who);
    VK_DEVICE_FUNCTIONS(X)
#undef X
    return GYRE_OK;
}

static void vk_close(gyre_device *device)
{
    struct vk_device *d = (struct vk_device *)device;
    if (d->handle) {
        if (!gyre_vk_queue_idle(d)) (void)gyre_vk_queue_wait(d, d->queue.submitted, NULL);
        gyre_vk_cache_save(d);
        gyre_vk_staging_free(d);
        gyre_vk_queue_free(d);
        gyre_vk_heap_free(d);
        for (int i = 0; i <= GYRE_MAX_BINDINGS; i++) {
            if (d->layouts[i]) d->f.DestroyPipelineLayout(d->handle, d->layouts[i], NULL);
            if (d->set_layouts[i]) d->f.DestroyDescriptorSetLayout(d->handle, d->set_layouts[i], NULL);
        }
        if (d->cache) d->f.DestroyPipelineCache(d->handle, d->cache, NULL);
        if (d->f.DestroyDevice) d->f.DestroyDevice(d->handle, NULL);
    }
    gyre_vk_instance_destroy(&d->instance);
    free(d);
}

static gyre_status vk_open(int index, const struct gyre_device_options *options, gyre_device **out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    char why[160] = "";
    int n;
    struct vk_facts *facts = calloc(VK_MAX_DEVICES, sizeof *facts);
    struct vk_device *d = calloc(1, sizeof *d);
    if (!facts || !d) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot open device (vulkan:%d): out of memory", index);
        goto done;
    }
    d->base.options = *options;
    GYRE_GO(gyre_vk_instance_create(&d->instance, options, err));
    GYRE_GO(find(&d->instance, facts, &n, why, err));
    if (index >= n) {
        st = gyre_fail(err, GYRE_E_NO_DEVICE, "no such device (vulkan:%d): %s", index, n ? "there are fewer" : why);
        goto done;
    }
    d->facts = facts[index];
    if (options->staging) d->facts.info.unified = false;
    d->base.info = d->facts.info;
    GYRE_GO(create_device(d, err));
    GYRE_GO(gyre_vk_queue_init(d, err));
    GYRE_GO(gyre_vk_heap_init(d, err));
    GYRE_GO(gyre_vk_staging_init(d, err));
    gyre_vk_cache_load(d);
    gyre_logf(options->log, GYRE_LOG_DEBUG, "vulkan: opened %s, driver %s, %s memory", d->base.info.name,
              d->base.info.driver, d->heap.map ? "shared" : "separate");
    *out = &d->base;
    d = NULL;
done:
    if (d) vk_close(&d->base);
    free(facts);
    return st;
}

const struct gyre_backend gyre_backend_vulkan = {
    .name = "vulkan",
    .probe = vk_probe,
    .open = vk_open,
    .close = vk_close,
    .buffer_create = gyre_vk_buffer_create,
    .buffer_destroy = gyre_vk_buffer_destroy,
    .buffer_write = gyre_vk_buffer_write,
    .buffer_read = gyre_vk_buffer_read,
    .kernel_create = gyre_vk_kernel_create,
    .kernel_destroy = gyre_vk_kernel_destroy,
    .record = gyre_vk_record,
    .recording_destroy = gyre_vk_recording_destroy,
    .submit = gyre_vk_submit,
    .wait = gyre_vk_wait,
};
