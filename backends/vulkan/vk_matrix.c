// Matrix units: VK_KHR_cooperative_matrix, which Debian 12's headers do not know. The few structs and numbers of it
// that are needed stand here and in vk.h, after the registry of Khronos; everything else it wants is older.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <stdio.h>

enum { FEATURES = 1000506000, SHAPE = 1000506001 }; // VkStructureType
enum {
    F16 = 0,
    F32 = 1,
    S8 = 3,
    S32 = 5,
    SUBGROUP = 3,
    INTEL = 0x8086,
    MOST_SHAPES = 64
};                           // types of elements, scope, vendor
enum { MOST_SUBGROUPS = 8 }; // of a workgroup in tune.c

void *gyre_vk_matrix_chain(struct vk_matrix_chain *c, void *next)
{
    *c = (struct vk_matrix_chain){
        .matrices = {(VkStructureType)FEATURES, next, VK_FALSE, VK_FALSE},
        .model = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, .pNext = &c->matrices},
        .bytes = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, .pNext = &c->model},
        .sizes = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, .pNext = &c->bytes},
    };
    return &c->sizes;
}

// Whether kernels can use matrices, whatever their shapes are: with subgroups of a size that is asked for, or of the
// only one that the device has, up to MOST_SUBGROUPS in a workgroup. *halves: their elements may be such.
static bool usable(const struct vk_instance *instance, const struct vk_facts *facts, bool *halves)
{
    struct vk_matrix_chain c;
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = gyre_vk_matrix_chain(&c, NULL)};
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &sizes};
    if (facts->properties.apiVersion < VK_API_VERSION_1_3) return false; // which has the other three
    instance->f.GetPhysicalDeviceFeatures2(facts->handle, &features);
    instance->f.GetPhysicalDeviceProperties2(facts->handle, &properties);
    *halves = c.bytes.shaderFloat16;
    return c.matrices.matrices && c.model.vulkanMemoryModel && c.model.vulkanMemoryModelDeviceScope &&
           c.bytes.shaderInt8 && c.sizes.subgroupSizeControl && c.sizes.computeFullSubgroups &&
           sizes.maxComputeWorkgroupSubgroups >= MOST_SUBGROUPS &&
           (sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT ||
            sizes.minSubgroupSize == sizes.maxSubgroupSize);
}

// One line of gyre_device_info.cooperative_matrix per shape; those of integers first, for drivers list more than it
// holds.
static void name_shapes(const struct vk_matrix_shape *shapes, uint32_t n, bool integers, struct vk_facts *facts)
{
    static const char *const types[] = {"f16", "f32", "f64", "s8", "s16", "s32", "s64", "u8", "u16", "u32", "u64"};
    uint32_t kept = 0;
    while (kept < GYRE_COUNT(facts->info.cooperative_matrix) && facts->info.cooperative_matrix[kept][0]) kept++;
    for (uint32_t i = 0; i < n && kept < GYRE_COUNT(facts->info.cooperative_matrix); i++) {
        const struct vk_matrix_shape *s = &shapes[i];
        if (s->scope != SUBGROUP || s->b != s->a || s->saturating || s->result < 0 ||
            (uint32_t)s->result >= GYRE_COUNT(types) || s->a != (integers ? S8 : F16) || (integers && s->result != S32))
            continue;
        snprintf(facts->info.cooperative_matrix[kept++], 32, "%ux%ux%u %s%s%s", s->m, s->n, s->k, types[s->a],
                 types[s->b], types[s->result]);
    }
}

// The largest shape of these elements and sums that kernels can use, and the size of its subgroups: 32 where the device
// has it. Intel's units want the narrowest.
static struct gyre_matrix_shape choose_shape(const struct vk_matrix_shape *shapes, uint32_t n, int32_t element,
                                             int32_t sum, const struct vk_facts *facts)
{
    struct gyre_matrix_shape best = {0};
    const uint32_t least = facts->info.subgroup_min, most = facts->info.subgroup_max;
    const uint32_t lanes = facts->properties.vendorID == INTEL ? least : GYRE_MIN(GYRE_MAX(32u, least), most);
    for (uint32_t i = 0; i < n; i++) {
        const struct vk_matrix_shape *s = &shapes[i];
        if (s->scope == SUBGROUP && s->a == element && s->b == element && s->c == sum && s->result == sum &&
            !s->saturating && s->m <= 32 && s->n <= 32 && s->n % 8 == 0 && s->k <= 32 && 32 % s->k == 0 &&
            s->k % 4 == 0 && s->m * s->n * s->k > best.m * best.n * best.k)
            best = (struct gyre_matrix_shape){s->m, s->n, s->k, lanes};
    }
    return best;
}

void gyre_vk_matrix_facts(const struct vk_instance *instance, struct vk_facts *facts)
{
    struct vk_matrix_shape shapes[MOST_SHAPES];
    uint32_t n = MOST_SHAPES;
    if (!instance->f.GetPhysicalDeviceCooperativeMatrixPropertiesKHR) return;
    for (uint32_t i = 0; i < n; i++) shapes[i] = (struct vk_matrix_shape){.type = (VkStructureType)SHAPE};
    if (instance->f.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(facts->handle, &n, shapes) < 0) return;
    name_shapes(shapes, n, true, facts);
    name_shapes(shapes, n, false, facts);
    bool halves;
    if (!usable(instance, facts, &halves)) return;
    struct gyre_device_info *const info = &facts->info;
    info->matrix_s8 = choose_shape(shapes, n, S8, S32, facts);
    facts->matrices = info->matrix_s8.m != 0; // nothing is enabled that no product uses
    if (facts->matrices && halves) info->matrix_f16 = choose_shape(shapes, n, F16, F32, facts);
}
