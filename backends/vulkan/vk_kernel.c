// Compute pipelines. All kernels with the same number of bindings share one layout: set 0 with storage
// buffers 0..n-1, and GYRE_MAX_PARAMS bytes of push constants.
#include "backends/vulkan/vk.h"

#include <stdlib.h>

#define FULL_SUBGROUPS VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT

static gyre_status ensure_layout(struct vk_device *d, uint32_t n, const char *name, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    VkDescriptorSetLayoutBinding bindings[GYRE_MAX_BINDINGS];
    if (d->layouts[n]) return GYRE_OK;
    for (uint32_t i = 0; i < n; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){.binding = i,
                                                     .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                                     .descriptorCount = 1,
                                                     .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    const VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = n, .pBindings = bindings};
    if (!d->set_layouts[n])
        VK_GO(d->f.CreateDescriptorSetLayout(d->handle, &set, NULL, &d->set_layouts[n]), "create kernel", name);
    const VkPushConstantRange range = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = GYRE_MAX_PARAMS};
    const VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                               .setLayoutCount = 1,
                                               .pSetLayouts = &d->set_layouts[n],
                                               .pushConstantRangeCount = 1,
                                               .pPushConstantRanges = &range};
    VK_GO(d->f.CreatePipelineLayout(d->handle, &layout, NULL, &d->layouts[n]), "create kernel", name);
done:
    return st;
}

// The form with hardware dot products pays only where they are hardware: elsewhere drivers expand them
// to more instructions than the plain form has (reference: RADV on NAVI10, 258 against 251).
static bool wants_dot(const struct vk_device *d, const struct gyre_kernel_source *source)
{
    const gyre_int_dot have = d->base.info.int_dot;
    return source->spirv_dot &&
           (have == GYRE_INT_DOT_ACCELERATED || (have == GYRE_INT_DOT_EMULATED && d->base.options.emulated_dot));
}

gyre_status gyre_vk_kernel_create(gyre_device *device, const struct gyre_kernel_source *source,
                                  const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct vk_device *d = (struct vk_device *)device;
    const bool dot = wants_dot(d, source);
    VkShaderModule module = VK_NULL_HANDLE;
    struct vk_kernel *k = NULL;
    if (!source->spirv)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot create kernel (%s): it was built without SPIR-V",
                         source->name);
    const bool matrices = source->needs & GYRE_NEED_MATRICES;
    if (matrices && !d->facts.matrices)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot create kernel (%s): %s has no matrix units that it can use",
                         source->name, d->facts.info.name);
    GYRE_TRY(ensure_layout(d, source->n_bindings, source->name, err));
    if (!(k = calloc(1, sizeof *k)))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot create kernel (%s): out of host memory", source->name);

    VkSpecializationMapEntry entries[GYRE_MAX_SPEC];
    for (uint32_t i = 0; i < params->n_spec; i++)
        entries[i] = (VkSpecializationMapEntry){.constantID = i, .offset = 4 * i, .size = 4};
    const VkSpecializationInfo constants = {.mapEntryCount = params->n_spec,
                                            .pMapEntries = entries,
                                            .dataSize = 4 * (size_t)params->n_spec,
                                            .pData = params->spec};
    const VkShaderModuleCreateInfo code = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                           .codeSize = dot ? source->spirv_dot_bytes : source->spirv_bytes,
                                           .pCode = dot ? source->spirv_dot : source->spirv};
    VK_GO(d->f.CreateShaderModule(d->handle, &code, NULL, &module), "create kernel", source->name);
    // Who multiplies matrices must know how many invocations a subgroup has; the kernel says so by its WGX, and the
    // driver where it has several sizes.
    const bool sized = matrices && d->facts.info.subgroup_min != d->facts.info.subgroup_max;
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = params->spec[0]};
    const VkComputePipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                              .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                                        .pNext = sized ? &subgroup : NULL,
                                                        .flags = matrices ? FULL_SUBGROUPS : 0,
                                                        .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                                                        .module = module,
                                                        .pName = "main",
                                                        .pSpecializationInfo = &constants},
                                              .layout = d->layouts[source->n_bindings]};
    VK_GO(d->f.CreateComputePipelines(d->handle, d->cache, 1, &info, NULL, &k->pipeline), "create kernel",
          source->name);
    gyre_vk_name(d, VK_OBJECT_TYPE_PIPELINE, (uint64_t)k->pipeline, source->name);
    *out = &k->base;
    k = NULL;
done:
    if (module) d->f.DestroyShaderModule(d->handle, module, NULL);
    free(k);
    return st;
}

void gyre_vk_kernel_destroy(gyre_device *device, gyre_kernel *kernel)
{
    struct vk_device *d = (struct vk_device *)device;
    d->f.DestroyPipeline(d->handle, ((struct vk_kernel *)kernel)->pipeline, NULL);
    free(kernel);
}
