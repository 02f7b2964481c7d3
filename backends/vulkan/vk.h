// The Vulkan backend's own types, shared by the files of this folder only.
//
//   vk_load.c    the library, the instance          vk_kernel.c  pipelines and their layouts
//   vk_device.c  what a device can do, open, close  vk_cache.c   the pipeline cache on disk
//   vk_memory.c  blocks of device memory            vk_queue.c   submissions and fences
//   vk_buffer.c  buffers, the staging ring          gyre_vk_record.c  recordings, replay, profile
//   vk_matrix.c  matrix units
//   vk_debug.c   validation messages, object names, error texts
//
// Needs Vulkan 1.1. libvulkan is opened at run time; every entry point is in one of the lists below.
#pragma once
#define VK_NO_PROTOTYPES
#include "backends/backend.h"
#include "backends/kernel_source.h"
#include "runtime/util/sha256.h"

#include <vulkan/vulkan.h>

// clang-format off
#define VK_GLOBAL_FUNCTIONS(X)                                                                                         \
    X(CreateInstance) X(EnumerateInstanceVersion) X(EnumerateInstanceExtensionProperties)                              \
    X(EnumerateInstanceLayerProperties)
#define VK_INSTANCE_FUNCTIONS(X)                                                                                       \
    X(DestroyInstance) X(EnumeratePhysicalDevices) X(EnumerateDeviceExtensionProperties)                               \
    X(GetPhysicalDeviceProperties) X(GetPhysicalDeviceProperties2) X(GetPhysicalDeviceFeatures2)                       \
    X(GetPhysicalDeviceMemoryProperties) X(GetPhysicalDeviceQueueFamilyProperties) X(CreateDevice)                     \
    X(GetDeviceProcAddr)
#define VK_OPTIONAL_FUNCTIONS(X) /* NULL where the extension is not enabled */                                         \
    X(CreateDebugUtilsMessengerEXT) X(DestroyDebugUtilsMessengerEXT) X(SetDebugUtilsObjectNameEXT)
#define VK_DEVICE_FUNCTIONS(X)                                                                                         \
    X(DestroyDevice) X(GetDeviceQueue) X(AllocateMemory) X(FreeMemory) X(MapMemory) X(CreateBuffer)                    \
    X(DestroyBuffer) X(GetBufferMemoryRequirements) X(BindBufferMemory) X(CreateShaderModule)                          \
    X(DestroyShaderModule) X(CreateDescriptorSetLayout) X(DestroyDescriptorSetLayout) X(CreatePipelineLayout)          \
    X(DestroyPipelineLayout) X(CreatePipelineCache) X(DestroyPipelineCache) X(GetPipelineCacheData)                    \
    X(CreateComputePipelines) X(DestroyPipeline) X(CreateDescriptorPool) X(DestroyDescriptorPool)                      \
    X(AllocateDescriptorSets) X(UpdateDescriptorSets) X(CreateCommandPool) X(DestroyCommandPool)                       \
    X(AllocateCommandBuffers) X(BeginCommandBuffer) X(EndCommandBuffer) X(CmdBindPipeline)                             \
    X(CmdBindDescriptorSets) X(CmdPushConstants) X(CmdDispatch) X(CmdPipelineBarrier) X(CmdCopyBuffer)                 \
    X(CreateQueryPool) X(DestroyQueryPool) X(CmdResetQueryPool) X(CmdWriteTimestamp) X(GetQueryPoolResults)            \
    X(CreateFence) X(DestroyFence) X(ResetFences) X(GetFenceStatus) X(WaitForFences) X(QueueSubmit)

#define GYRE_VK_MATRICES "VK_KHR_cooperative_matrix"
// VK_KHR_cooperative_matrix, which Debian 12's headers do not have: a row of what a device multiplies at once.
struct vk_matrix_shape {
    VkStructureType type;
    void *next;
    uint32_t m, n, k;
    int32_t a, b, c, result; // types of elements: 0 f16, 1 f32, 2 f64, 3 s8, 4 s16, 5 s32, 6 s64, 7 u8 ...
    VkBool32 saturating;
    int32_t scope; // 3: a subgroup
};
// And its features.
struct vk_matrix_features {
    VkStructureType type;
    void *next;
    VkBool32 matrices, robust;
};
typedef VkResult(VKAPI_PTR *vk_matrix_shapes)(VkPhysicalDevice, uint32_t *, struct vk_matrix_shape *);

struct vk_functions {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
#define X(name) PFN_vk##name name;
    VK_GLOBAL_FUNCTIONS(X) VK_INSTANCE_FUNCTIONS(X) VK_OPTIONAL_FUNCTIONS(X) VK_DEVICE_FUNCTIONS(X)
#undef X
    vk_matrix_shapes GetPhysicalDeviceCooperativeMatrixPropertiesKHR; // NULL where the loader is older
};
// clang-format on

enum {
    VK_MAX_DEVICES = 16,
    VK_FENCES = 64, // submissions that may be in flight
    VK_SLOTS = 16,  // pieces of the staging ring, each with its own command buffer
    VK_SLOT_BYTES = 1 << 20,
    VK_NEAR_BYTES = 64 << 10, // buffers up to this lie where host and device both reach them, if there is such memory
};

struct vk_instance {
    void *library;
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    const gyre_log *log;
    struct vk_functions f; // the device's functions are filled by vk_device.c
};

// One physical device as found.
struct vk_facts {
    VkPhysicalDevice handle;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    uint32_t family;                              // of the queue used
    uint32_t timestamp_bits;                      // 0: that queue cannot tell the time
    bool int_dot, float16, matrices, portability; // features and extensions to enable
    struct gyre_device_info info;
};

// A piece of a block, used or free; the pieces of a block form a list in address order without gaps.
struct vk_range {
    struct vk_block *block;
    uint64_t offset, size;
    bool used;
    struct vk_range *previous, *next;
};

// One VkDeviceMemory. `mapped` is NULL where the host has no direct access.
struct vk_block {
    VkDeviceMemory memory;
    unsigned char *mapped;
    bool cached; // the host's reads are cached
    struct vk_heap *heap;
    struct vk_range *ranges;
    struct vk_block *next;
};

struct vk_heap {
    uint32_t types[VK_MAX_MEMORY_TYPES], n_types; // suitable memory types, best first
    uint64_t granule;                             // offsets and sizes are multiples of this
    uint64_t block_bytes;
    bool map; // blocks are mapped for as long as they live
    // Its buffers are small, so that the host reads them where they lie even if slowly: a submission and its fence cost
    // more.
    bool near;
    struct vk_block *blocks;
};

struct vk_staging {
    VkBuffer buffer;
    VkDeviceMemory memory;
    unsigned char *mapped;
    VkCommandPool pool;
    VkCommandBuffer commands[VK_SLOTS];
    uint64_t serial[VK_SLOTS]; // the submission that last used the slot
    uint32_t next;
};

struct vk_queue {
    VkQueue handle;
    uint64_t submitted, completed; // serial numbers; the fence of serial s is fences[s % VK_FENCES]
    VkFence fences[VK_FENCES];
};

struct vk_device {
    gyre_device base;
    struct vk_instance instance;
    struct vk_facts facts;
    struct vk_functions f;
    VkDevice handle;
    struct vk_queue queue;
    struct vk_heap heap, near; // near: device memory that the host sees, for small buffers; no types: there is none
    struct vk_staging staging;
    VkDescriptorSetLayout set_layouts[GYRE_MAX_BINDINGS + 1]; // by number of bindings, made on demand
    VkPipelineLayout layouts[GYRE_MAX_BINDINGS + 1];
    VkPipelineCache cache;
    char cache_hash[GYRE_SHA256_HEX]; // of the cache's bytes as loaded
};

struct vk_buffer {
    gyre_buffer base;
    VkBuffer handle;
    struct vk_range *range;
};
struct vk_kernel {
    gyre_kernel base;
    VkPipeline pipeline;
};

// ---- vk_load.c ----------------------------------------------------------------------------------------

// GYRE_E_NO_DEVICE where there is no library or no driver. Destroy accepts a half-made instance.
gyre_status gyre_vk_instance_create(struct vk_instance *instance, const struct gyre_device_options *options,
                                    gyre_error *err);
void gyre_vk_instance_destroy(struct vk_instance *instance);

// ---- vk_matrix.c --------------------------------------------------------------------------------------

// What kernels on matrix units need of a device, as a chain of structs to ask with or to enable; no feature is set yet.
// Returns the first; the last is followed by `next`.
struct vk_matrix_chain {
    struct vk_matrix_features matrices;
    VkPhysicalDeviceVulkanMemoryModelFeatures model;
    VkPhysicalDeviceShaderFloat16Int8Features bytes;
    VkPhysicalDeviceSubgroupSizeControlFeatures sizes;
};
void *gyre_vk_matrix_chain(struct vk_matrix_chain *chain, void *next);
// For a device that has GYRE_VK_MATRICES and whose other facts are known: fills facts->matrices and what facts->info
// says of matrices.
void gyre_vk_matrix_facts(const struct vk_instance *instance, struct vk_facts *facts);

// ---- vk_memory.c --------------------------------------------------------------------------------------

gyre_status gyre_vk_heap_init(struct vk_device *device, gyre_error *err);
void gyre_vk_heap_free(struct vk_device *device);
// Memory for a buffer of at least `size` bytes; `label` is for messages.
gyre_status gyre_vk_range_alloc(struct vk_device *device, uint64_t size, const char *label, struct vk_range **out,
                                gyre_error *err);
void gyre_vk_range_free(struct vk_device *device, struct vk_range *range);

// ---- vk_buffer.c --------------------------------------------------------------------------------------

gyre_status gyre_vk_staging_init(struct vk_device *device, gyre_error *err);
void gyre_vk_staging_free(struct vk_device *device);
gyre_status gyre_vk_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                                  gyre_error *err);
void gyre_vk_buffer_destroy(gyre_device *device, gyre_buffer *buffer);
gyre_status gyre_vk_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                                 uint64_t size, gyre_error *err);
gyre_status gyre_vk_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target, uint64_t size,
                                gyre_error *err);

// ---- vk_kernel.c, vk_cache.c --------------------------------------------------------------------------

gyre_status gyre_vk_kernel_create(gyre_device *device, const struct gyre_kernel_source *source,
                                  const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err);
void gyre_vk_kernel_destroy(gyre_device *device, gyre_kernel *kernel);
// A cache that is absent, damaged or another device's is an empty one; saving failures are only logged.
void gyre_vk_cache_load(struct vk_device *device);
void gyre_vk_cache_save(struct vk_device *device);

// ---- vk_queue.c ---------------------------------------------------------------------------------------

gyre_status gyre_vk_queue_init(struct vk_device *device, gyre_error *err);
void gyre_vk_queue_free(struct vk_device *device);
// Queues one command buffer, `times` times (at most GYRE_MAX_AT_ONCE) in one submission; its serial number is then
// queue.submitted. Allocates nothing.
gyre_status gyre_vk_queue_submit(struct vk_device *device, VkCommandBuffer commands, uint32_t times, const char *what,
                                 gyre_error *err);
gyre_status gyre_vk_queue_wait(struct vk_device *device, uint64_t serial, gyre_error *err);
bool gyre_vk_queue_idle(struct vk_device *device);
// Orders everything queued before against what follows, memory included.
void gyre_vk_barrier(const struct vk_device *device, VkCommandBuffer commands, VkPipelineStageFlags from,
                     VkPipelineStageFlags to);

// ---- gyre_vk_record.c --------------------------------------------------------------------------------------

gyre_status gyre_vk_record(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                           gyre_recording **out, gyre_error *err);
void gyre_vk_recording_destroy(gyre_device *device, gyre_recording *recording);
gyre_status gyre_vk_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                           gyre_error *err);
gyre_status gyre_vk_wait(gyre_device *device, gyre_error *err);

// ---- vk_debug.c ---------------------------------------------------------------------------------------

VkDebugUtilsMessengerCreateInfoEXT gyre_vk_messenger_info(struct vk_instance *instance);
void gyre_vk_name(const struct vk_device *device, VkObjectType type, uint64_t handle, const char *name);
// Fills err with "cannot WHAT (WHERE): why" and returns the status that fits `result`.
gyre_status gyre_vk_fail(gyre_error *err, VkResult result, const char *what, const char *where);

// Runs a Vulkan call; on failure sets `st` and jumps to `done`.
#define VK_GO(call, what, where)                                                                                       \
    do {                                                                                                               \
        const VkResult vk_result_ = (call);                                                                            \
        if (vk_result_ != VK_SUCCESS) {                                                                                \
            st = gyre_vk_fail(err, vk_result_, what, where);                                                           \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)
