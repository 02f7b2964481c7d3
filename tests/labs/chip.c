// See chip.h. Compiling: the driver, its kernels, what its compiler says of them.
#include "tests/labs/chip.h"
#include "backends/kernel_source.h"
#include "runtime/util/base.h"

#include <fnmatch.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What tune.c may choose beside the defaults. Names are patterns of the shell. Where `weights` is given, the loop
// that loads most goes over so many weights (times rows; of attention: scores) a round: it must ask for `ahead` loads
// before it waits for one, and spend no more than `most` vector instructions a weight; products of codes only on chips
// that have instructions for them, in listings of RADV. Where `matrix` is given, the loop has exactly so many
// instructions that multiply matrices, on chips whose matrices are of 16 x 16 x 16. `shared` are the bytes without
// which tune.c does not choose it.
static const struct {
    const char *kernel, *constants;
    unsigned weights, ahead;
    double most;
    unsigned shared, matrix;
} tuned[] = {
    {"matmul_w4_*_[vm]", ",WGX=16,WGY=8,TR=1", 0, 0, 0, 0, 0},
    {"matmul_w4_*_[vm]", ",WGX=16,WGY=4,TR=4", 0, 0, 0, 0, 0},
    {"matmul_w4_q_[vm]", ",WGX=16,WGY=4,TR=4,K16=1", 0, 0, 0, 0, 0},
    {"matmul_w8_*_[vm]", ",WGX=16,WGY=4,TR=4", 0, 0, 0, 0, 0},
    {"matmul_w8_q_[vm]", ",WGX=16,WGY=4,TR=4,K16=1", 0, 0, 0, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=1", 256, 8, 0.75, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2", 512, 16, 0.75, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2,GROUPED=1", 512, 8, 1.1, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2,ZEROS=1", 512, 16, 0.75, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2,GROUPED=1,ZEROS=1", 512, 8, 1.2, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=4", 0, 0, 0, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=8", 0, 0, 0, 0, 0},
    {"quant_matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2,ROW16=256,NORMED=1,NORM_LANES=256", 512, 8, 0.75, 0, 0},
    {"quant_matmul_w4_i24_t", ",WGX=256,TR=1,AHEAD=1,ROW16=256", 256, 8, 1.3, 0, 0},
    {"quant_matmul_w4_i24_t", ",WGX=256,ROW16=256,NORMED=1,NORM_LANES=256", 0, 0, 0, 0, 0},
    {"quant_matmul_w4_i24_t", ",WGX=256,GROUPED=1,ROW16=256", 256, 8, 1.75, 0, 0},
    {"quant_matmul_w8_i24_t", ",WGX=256,ROW16=256", 128, 8, 0.9, 0, 0},
    {"matmul_w8_q_t", ",WGX=256,TR=1,AHEAD=2", 256, 16, 0.75, 0, 0},
    {"matmul_w8_q_t", ",WGX=256,TR=8", 0, 0, 0, 0, 0},
    {"matmul_w4_f_t", ",WGX=256,TR=1,AHEAD=2", 256, 8, 4.6, 0, 0},
    {"matmul_w4_f_t", ",WGX=256,TR=4", 0, 0, 0, 0, 0},
    {"matmul_w4_f_t", ",WGX=256,TR=1,AHEAD=2,GROUPED=1", 0, 0, 0, 0, 0},
    {"matmul_w4_f_t", ",WGX=256,TR=1,AHEAD=2,GROUPED=1,ZEROS=1", 0, 0, 0, 0, 0},
    {"matmul_w8_f_t", ",WGX=256,TR=1,AHEAD=2", 256, 16, 4.8, 0, 0},
    {"matmul_w8_f_t", ",WGX=256,TR=4", 0, 0, 0, 0, 0},
    {"matmul_w4_q_b", ",WGX=16,WGY=8,TR=8", 2048, 5, 0.31, 0, 0},
    {"matmul_w8_q_b", ",WGX=16,WGY=8,TR=8", 2048, 5, 0.30, 0, 0},
    {"matmul_w[48]_q_b", ",WGX=8,WGY=8,TR=8", 0, 0, 0, 0, 0},
    {"matmul_w[48]_q_b", ",WGX=16,WGY=8,TR=4,GROUPED=1", 0, 0, 0, 0, 0},
    {"matmul_w4_q_b", ",WGX=16,WGY=8,TR=4,GROUPED=1,ZEROS=1", 0, 0, 0, 0, 0},
    {"matmul_w4_q_x", ",WGY=8,RM=4,SX=4,KQ=4", 4096, 6, 0.035, 43008, 32},
    {"matmul_w8_q_x", ",WGY=8,RM=4,SX=4,KQ=4", 4096, 6, 0.03, 43008, 32},
    {"matmul_w[48]_q_x", ",WGY=8,SX=4,KQ=4", 0, 0, 0, 0, 16},
    {"matmul_w[48]_q_x", ",WGY=8,RM=4,SX=4,GROUPED=1", 2048, 6, 0.12, 0, 16},
    {"matmul_w4_q_x", ",WGY=8,RM=4,SX=4,GROUPED=1,ZEROS=1", 2048, 7, 0.13, 0, 16},
    {"matmul_w[48]_q_b", ",WGX=16,WGY=8,TR=2,PLANES=3", 512, 5, 0.9, 0, 0},
    {"matmul_w[48]_q_b", ",WGX=8,WGY=8,TR=2,PLANES=3", 0, 0, 0, 0, 0},
    {"matmul_w4_q_b", ",WGX=16,WGY=8,TR=4,PLANES=3", 0, 0, 0, 0, 0},
    {"matmul_w[48]_q_b", ",WGX=16,WGY=8,TR=2,GROUPED=1,PLANES=3", 512, 5, 1.3, 0, 0},
    {"matmul_w4_q_b", ",WGX=16,WGY=8,TR=2,GROUPED=1,ZEROS=1,PLANES=3", 0, 0, 0, 0, 0},
    {"matmul_w[48]_q_x", ",WGY=8,SX=4,KQ=4,PLANES=3", 2048, 7, 0.065, 53248, 48},
    {"matmul_w[48]_q_x", ",WGY=8,SX=4,PLANES=3", 0, 0, 0, 0, 24},
    {"matmul_w[48]_q_x", ",WGY=8,RM=1,SX=4,GROUPED=1,PLANES=3", 512, 6, 0.37, 0, 12},
    {"matmul_w4_q_x", ",WGY=8,RM=1,SX=4,GROUPED=1,ZEROS=1,PLANES=3", 512, 7, 0.4, 0, 12},
    {"matmul_f*", ",WGX=16,WGY=4,TR=4", 0, 0, 0, 0, 0},
    {"attn_v", ",KBITS=8,VBITS=8,HD=64,GT=3", 0, 0, 0, 0, 0},
    {"attn_v", ",KBITS=4,VBITS=4,HD=128,GT=4", 0, 0, 0, 0, 0},
    {"attn_v", ",KBITS=16,VBITS=16,HD=256,GT=1", 0, 0, 0, 0, 0},
    {"attn_split", ",KBITS=8,VBITS=8,HD=64,GT=3", 0, 0, 0, 0, 0},
    {"attn_split", ",KBITS=8,VBITS=8,HD=128,GT=4", 0, 0, 0, 0, 0},
    {"attn_split", ",KBITS=4,VBITS=4,HD=128,GT=4", 0, 0, 0, 0, 0},
    {"attn_split", ",KBITS=16,VBITS=16,HD=256,GT=1", 0, 0, 0, 0, 0},
    {"attn_m", ",KBITS=8,VBITS=8,HD=64,GT=2", 0, 0, 0, 0, 0},
    {"attn_m", ",KBITS=16,VBITS=16,HD=128,GT=2", 0, 0, 0, 0, 0},
    {"attn_x", ",KBITS=8,VBITS=8,HD=64", 2048, 6, 0.25, 30720, 16},
    {"attn_x", ",KBITS=8,VBITS=8,HD=128", 2048, 10, 0.30, 47104, 32},
    {"attn_x", ",KBITS=4,VBITS=4,HD=128", 2048, 6, 0.30, 47104, 32},
    {"attn_x", ",WGY=2,KBITS=16,VBITS=16,HD=128,PAIRS=2", 1024, 16, 0.75, 43008, 64},
    {"attn_x", ",KBITS=16,VBITS=16,HD=128,PAIRS=2", 2048, 8, 0.30, 64512, 64},
    {"attn_x", ",KBITS=8,VBITS=8,HD=256,BK=16", 1024, 10, 0.50, 58368, 32},
    {"rope_had_kv", ",WGX=64,KBITS=4,VBITS=4,HD=128", 0, 0, 0, 0, 0},
    {"act_mul_had_quant", ",WGX=256,SHARED_N=8064", 0, 0, 0, 4 * 8064 + 8 * 256 + 64, 0},
};

#define FULL_SUBGROUPS VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT

void lab_close(struct lab_chip *c)
{
    if (c->device) c->f.DestroyDevice(c->device, NULL);
    gyre_vk_instance_destroy(&c->instance);
}

static bool offers(const struct lab_chip *c, const char *extension)
{
    static VkExtensionProperties list[512];
    uint32_t n = GYRE_COUNT(list);
    if (c->instance.f.EnumerateDeviceExtensionProperties(c->physical, NULL, &n, list) < 0) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(list[i].extensionName, extension)) return true;
    return false;
}

bool lab_open(struct lab_chip *c, const char **why)
{
    static const struct gyre_device_options options;
    static gyre_error err;
    uint32_t n = 1;
    *c = (struct lab_chip){0};
    if (gyre_vk_instance_create(&c->instance, &options, &err)) return *why = err.message, false;
    if (c->instance.f.EnumeratePhysicalDevices(c->instance.handle, &n, &c->physical) < 0 || !n)
        return *why = "the driver offers no such chip", false;

    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES, .pNext = &driver};
    VkPhysicalDeviceShaderIntegerDotProductProperties dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES, .pNext = &sizes};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &dot};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot_feature = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES, .pNext = &executable};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &dot_feature};
    c->instance.f.GetPhysicalDeviceProperties2(c->physical, &properties);
    c->instance.f.GetPhysicalDeviceFeatures2(c->physical, &features);
    if (!executable.pipelineExecutableInfo) return *why = "the driver reports no statistics", false;
    snprintf(c->name, sizeof c->name, "%s", properties.properties.deviceName);
    snprintf(c->driver, sizeof c->driver, "%.60s", driver.driverInfo);
    c->amd = driver.driverID == VK_DRIVER_ID_MESA_RADV;
    c->shared_bytes = properties.properties.limits.maxComputeSharedMemorySize;
    c->dot = dot_feature.shaderIntegerDotProduct;
    c->dot_accelerated = dot.integerDotProduct4x8BitPackedSignedAccelerated;

    struct vk_facts facts = {.handle = c->physical,
                             .properties = properties.properties,
                             .info = {.subgroup_min = sizes.minSubgroupSize, .subgroup_max = sizes.maxSubgroupSize}};
    if (offers(c, GYRE_VK_MATRICES)) gyre_vk_matrix_facts(&c->instance, &facts);
    c->matrix = facts.info.matrix_s8;
    c->matrix_f16 = facts.info.matrix_f16;
    c->sized = sizes.minSubgroupSize != sizes.maxSubgroupSize;

    const char *const extensions[] = {VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME, GYRE_VK_MATRICES};
    struct vk_matrix_chain matrices;
    if (facts.matrices) {
        features.pNext = gyre_vk_matrix_chain(&matrices, features.pNext);
        c->instance.f.GetPhysicalDeviceFeatures2(c->physical, &features); // all that it has is enabled
    }
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    features.features = (VkPhysicalDeviceFeatures){0};
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = &features,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = facts.matrices ? 2 : 1,
                                     .ppEnabledExtensionNames = extensions};
    if (c->instance.f.CreateDevice(c->physical, &info, NULL, &c->device))
        return *why = "the driver opens no device", false;
#define X(name) c->f.name = (PFN_vk##name)c->instance.f.GetDeviceProcAddr(c->device, "vk" #name);
    VK_DEVICE_FUNCTIONS(X)
#undef X
    c->statistics = (PFN_vkGetPipelineExecutableStatisticsKHR)c->instance.f.GetDeviceProcAddr(
        c->device, "vkGetPipelineExecutableStatisticsKHR");
    c->representations = (PFN_vkGetPipelineExecutableInternalRepresentationsKHR)c->instance.f.GetDeviceProcAddr(
        c->device, "vkGetPipelineExecutableInternalRepresentationsKHR");
    return true;
}

// ---- one kernel ---------------------------------------------------------------------------------------

// Names of statistics: RADV, Turnip, NVK.
static const struct {
    const char *name;
    size_t at;
} known[] = {
    {"VGPRs", offsetof(struct lab_row, registers)},
    {"Registers used", offsetof(struct lab_row, registers)},
    {"Number of GPRs", offsetof(struct lab_row, registers)},
    {"Spilled VGPRs", offsetof(struct lab_row, spills)},
    {"Spilled SGPRs", offsetof(struct lab_row, spills)},
    {"STP Count", offsetof(struct lab_row, spills)},
    {"Spills to memory", offsetof(struct lab_row, spills)},
    {"Scratch size", offsetof(struct lab_row, scratch)},
    {"LDS size", offsetof(struct lab_row, shared)},
    {"Subgroups per SIMD", offsetof(struct lab_row, waves)},
    {"Max Waves Per Core", offsetof(struct lab_row, waves)},
    {"Max warps/SM", offsetof(struct lab_row, waves)},
    {"Instructions", offsetof(struct lab_row, instructions)},
    {"Instruction Count", offsetof(struct lab_row, instructions)},
    {"Instruction count", offsetof(struct lab_row, instructions)},
};

static void read_statistics(const struct lab_chip *c, VkPipeline pipeline, struct lab_row *row)
{
    VkPipelineExecutableStatisticKHR stats[64];
    uint32_t n = 64;
    for (uint32_t i = 0; i < n; i++)
        stats[i] = (VkPipelineExecutableStatisticKHR){.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    const VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                               .pipeline = pipeline};
    if (c->statistics(c->device, &which, &n, stats) < 0) n = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < GYRE_COUNT(known); j++)
            if (!strcmp(stats[i].name, known[j].name))
                *(unsigned *)((char *)row + known[j].at) += (unsigned)stats[i].value.u64;
    }
}

static void read_listing(const struct lab_chip *c, VkPipeline pipeline, struct lab_row *row)
{
    VkPipelineExecutableInternalRepresentationKHR text[8];
    uint32_t n = GYRE_COUNT(text);
    const VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                               .pipeline = pipeline};
    for (uint32_t i = 0; i < n; i++)
        text[i] = (VkPipelineExecutableInternalRepresentationKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR};
    if (c->representations(c->device, &which, &n, text) < 0) n = 0;
    for (uint32_t i = 0; i < n; i++) text[i].pData = calloc(1, text[i].dataSize + 1);
    if (n && c->representations(c->device, &which, &n, text) < 0) n = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (text[i].pData && strstr(text[i].name, "ssembly")) lab_read_loop(text[i].pData, row);
        free(text[i].pData);
    }
}

// The layout is vk_kernel.c's: storage buffers 0..n-1 in set 0, GYRE_MAX_PARAMS bytes of push constants. So is the size
// of subgroups of who multiplies matrices.
static bool compile(const struct lab_chip *c, const struct gyre_kernel_source *source, const uint32_t *spec, bool dot,
                    struct lab_row *row)
{
    VkDescriptorSetLayoutBinding bindings[GYRE_MAX_BINDINGS];
    VkSpecializationMapEntry entries[GYRE_MAX_SPEC];
    VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;
    VkShaderModule module = VK_NULL_HANDLE;
    VkPipeline pipeline = VK_NULL_HANDLE;
    for (uint32_t i = 0; i < source->n_bindings; i++)
        bindings[i] =
            (VkDescriptorSetLayoutBinding){i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, NULL};
    for (uint32_t i = 0; i < source->n_spec; i++) entries[i] = (VkSpecializationMapEntry){i, 4 * i, 4};
    const VkDescriptorSetLayoutCreateInfo set_info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                                      .bindingCount = source->n_bindings,
                                                      .pBindings = bindings};
    c->f.CreateDescriptorSetLayout(c->device, &set_info, NULL, &set_layout);
    const VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, GYRE_MAX_PARAMS};
    const VkPipelineLayoutCreateInfo layout_info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                                    .setLayoutCount = 1,
                                                    .pSetLayouts = &set_layout,
                                                    .pushConstantRangeCount = 1,
                                                    .pPushConstantRanges = &range};
    c->f.CreatePipelineLayout(c->device, &layout_info, NULL, &layout);
    const VkShaderModuleCreateInfo code = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                           .codeSize = dot ? source->spirv_dot_bytes : source->spirv_bytes,
                                           .pCode = dot ? source->spirv_dot : source->spirv};
    c->f.CreateShaderModule(c->device, &code, NULL, &module);
    const VkSpecializationInfo constants = {source->n_spec, entries, 4 * (size_t)source->n_spec, spec};
    const bool matrices = source->needs & GYRE_NEED_MATRICES;
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = spec[0]};
    const VkComputePipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                              .flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
                                                       VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR,
                                              .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                                        .pNext = matrices && c->sized ? &subgroup : NULL,
                                                        .flags = matrices ? FULL_SUBGROUPS : 0,
                                                        .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                                                        .module = module,
                                                        .pName = "main",
                                                        .pSpecializationInfo = &constants},
                                              .layout = layout};
    const bool ok = c->f.CreateComputePipelines(c->device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline) == VK_SUCCESS;
    if (ok) read_statistics(c, pipeline, row);
    if (ok) read_listing(c, pipeline, row);
    c->f.DestroyPipeline(c->device, pipeline, NULL);
    c->f.DestroyShaderModule(c->device, module, NULL);
    c->f.DestroyPipelineLayout(c->device, layout, NULL);
    c->f.DestroyDescriptorSetLayout(c->device, set_layout, NULL);
    return ok;
}

// Sets ",NAME=value,..." in `spec`; false if the kernel has no such constant.
static bool set_constants(const struct gyre_kernel_source *source, const char *constants, uint32_t *spec)
{
    char name[32];
    unsigned value;
    for (const char *at = constants; at; at = strchr(at + 1, ',')) {
        bool found = false;
        if (sscanf(at, ",%31[A-Z0-9_]=%u", name, &value) != 2) return false;
        for (uint32_t i = 0; i < source->n_spec && !found; i++)
            if (!strcmp(source->spec_names[i], name)) spec[i] = value, found = true;
        if (!found) return false;
    }
    return true;
}

// Appends a row; false, with a message, if the kernel does not compile.
static bool add_row(const struct lab_chip *c, const char *name, const struct gyre_kernel_source *source,
                    const char *constants, struct lab_table *out)
{
    const bool dot = c->dot && c->dot_accelerated && source->spirv_dot;
    uint32_t spec[GYRE_MAX_SPEC];
    struct lab_row row = {0};
    memcpy(spec, source->spec_defaults, sizeof spec);
    const struct gyre_matrix_shape *const m = source->needs & GYRE_NEED_CM_F16 ? &c->matrix_f16 : &c->matrix;
    if (source->needs & GYRE_NEED_MATRICES) spec[0] = m->lanes, spec[3] = m->m, spec[4] = m->n, spec[5] = m->k;
    snprintf(row.chip, sizeof row.chip, "%s", name);
    snprintf(row.kernel, sizeof row.kernel, "%s%s", source->name, constants);
    snprintf(row.form, sizeof row.form, "%s", dot ? "dot" : "base");
    const bool ok = out->n < LAB_MOST_ROWS && (!*constants || set_constants(source, constants, spec)) &&
                    compile(c, source, spec, dot, &row);
    if (ok) out->rows[out->n++] = row;
    else fprintf(stderr, "%s on %s does not compile\n", row.kernel, name);
    return ok;
}

// What `tuned` asks of a loop, where the chip has the instructions that it was made for.
static bool judge_loop(const struct lab_chip *c, const struct lab_row *row, size_t t)
{
    if (c->amd && tuned[t].matrix && row->matrix != tuned[t].matrix)
        return fprintf(stderr, "%s on %s: %u instructions of matrices in the loop (%u are due)\n", row->kernel,
                       row->chip, row->matrix, tuned[t].matrix),
               false;
    if (!c->amd || !tuned[t].weights || (strstr(row->kernel, "_q_") && strcmp(row->form, "dot") && !tuned[t].matrix))
        return true;
    const double each = (double)row->vector / tuned[t].weights;
    const bool ok = row->ahead >= tuned[t].ahead && row->vector && each <= tuned[t].most;
    if (!ok)
        fprintf(
            stderr,
            "%s on %s: %u loads before the first wait (%u are due), %.2f vector instructions a weight (%.2f at most)\n",
            row->kernel, row->chip, row->ahead, tuned[t].ahead, each, tuned[t].most);
    return ok;
}

int lab_compile_all(const struct lab_chip *c, const char *name, struct lab_table *out)
{
    int failed = 0;
    snprintf(out->driver, sizeof out->driver, "%s", c->driver);
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++) {
        const struct gyre_kernel_source *source = gyre_kernel_sources[i];
        if (!source->spirv || source->form & GYRE_FORM_SHORT /* for CPUs */ ||
            (source->needs & GYRE_NEED_CM_S8 && !c->matrix.m) ||
            (source->needs & GYRE_NEED_CM_F16 && !c->matrix_f16.m) ||
            (source->needs & GYRE_NEED_DOT && !(c->dot && c->dot_accelerated)))
            continue;
        failed += !add_row(c, name, source, "", out);
        for (size_t t = 0; t < GYRE_COUNT(tuned); t++)
            if (tuned[t].shared <= c->shared_bytes && !fnmatch(tuned[t].kernel, source->name, 0)) {
                failed += !add_row(c, name, source, tuned[t].constants, out);
                failed += !judge_loop(c, &out->rows[out->n - 1], t);
            }
    }
    return failed;
}
