// Messages: validation layers to the log, names of objects for debuggers, texts of VkResult.
#include "backends/vulkan/vk.h"

#include <string.h>

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT type,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    const struct vk_instance *instance = user;
    const bool validation = type & VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
    gyre_log_level level = GYRE_LOG_DEBUG; // the loader's remarks about other drivers
    if (validation) level = severity >= VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT ? GYRE_LOG_ERROR : GYRE_LOG_WARN;
    gyre_logf(instance->log, level, "vulkan%s: %s", validation ? " validation" : "", data->pMessage);
    return VK_FALSE;
}

VkDebugUtilsMessengerCreateInfoEXT gyre_vk_messenger_info(struct vk_instance *instance)
{
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = instance,
    };
}

void gyre_vk_name(const struct vk_device *device, VkObjectType type, uint64_t handle, const char *name)
{
    if (!device->instance.f.SetDebugUtilsObjectNameEXT || !*name) return;
    const VkDebugUtilsObjectNameInfoEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
                                                .objectType = type,
                                                .objectHandle = handle,
                                                .pObjectName = name};
    device->instance.f.SetDebugUtilsObjectNameEXT(device->handle, &info);
}

gyre_status gyre_vk_fail(gyre_error *err, VkResult result, const char *what, const char *where)
{
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return gyre_fail(err, GYRE_E_NOMEM, "cannot %s (%s): out of host memory", what, where);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTED_POOL:
        return gyre_fail(
            err, GYRE_E_DEVICE_MEM,
            "cannot %s (%s): out of device memory; close other programs or take a smaller model or context", what,
            where);
    case VK_ERROR_DEVICE_LOST:
        return gyre_fail(err, GYRE_E_DEVICE,
                         "cannot %s (%s): the device was lost (hang, driver reset or removal); open it again", what,
                         where);
    default:
        return gyre_fail(err, GYRE_E_DEVICE, "cannot %s (%s): the driver answered VkResult %d", what, where,
                         (int)result);
    }
}
