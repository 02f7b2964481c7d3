// The Vulkan library, opened at run time, and the instance.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

// RTLD_NODELETE: drivers keep threads and thread-local data that do not survive being unloaded.
static gyre_status open_library(struct vk_instance *instance, gyre_error *err)
{
    static const char *const names[] = {"libvulkan.so.1", "libvulkan.so", "libvulkan.1.dylib", "libMoltenVK.dylib"};
    for (size_t i = 0; i < GYRE_COUNT(names) && !instance->library; i++)
        instance->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!instance->library) return gyre_fail(err, GYRE_E_NO_DEVICE, "%s not found; install a Vulkan loader", names[0]);
    *(void **)&instance->f.GetInstanceProcAddr = dlsym(instance->library, "vkGetInstanceProcAddr");
    if (!instance->f.GetInstanceProcAddr)
        return gyre_fail(err, GYRE_E_NO_DEVICE, "%s lacks vkGetInstanceProcAddr", names[0]);
    return GYRE_OK;
}

static bool has_layer(const struct vk_instance *instance, const char *name)
{
    VkLayerProperties layers[64];
    uint32_t n = GYRE_COUNT(layers);
    if (instance->f.EnumerateInstanceLayerProperties(&n, layers) < 0) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(layers[i].layerName, name)) return true;
    return false;
}

static bool has_extension(const struct vk_instance *instance, const char *name)
{
    VkExtensionProperties list[128];
    uint32_t n = GYRE_COUNT(list);
    if (instance->f.EnumerateInstanceExtensionProperties(NULL, &n, list) < 0) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(list[i].extensionName, name)) return true;
    return false;
}

static gyre_status create(struct vk_instance *instance, bool validate, gyre_error *err)
{
    const char *extensions[3];
    uint32_t n_extensions = 0;
    VkInstanceCreateFlags flags = 0;
    const bool debug = has_extension(instance, VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    if (debug) extensions[n_extensions++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (has_extension(instance, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        extensions[n_extensions++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        flags = VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    if (validate) extensions[n_extensions++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;

    const VkValidationFeatureEnableEXT enable[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    VkDebugUtilsMessengerCreateInfoEXT messenger = gyre_vk_messenger_info(instance);
    const VkValidationFeaturesEXT features = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                              .pNext = debug ? &messenger : NULL,
                                              .enabledValidationFeatureCount = GYRE_COUNT(enable),
                                              .pEnabledValidationFeatures = enable};
    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pEngineName = "gyre", .apiVersion = VK_API_VERSION_1_3};
    const char *const layers[] = {validation_layer};
    const VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                       .pNext = validate ? (const void *)&features
                                                : debug  ? (const void *)&messenger
                                                         : NULL,
                                       .flags = flags,
                                       .pApplicationInfo = &application,
                                       .enabledLayerCount = validate,
                                       .ppEnabledLayerNames = layers,
                                       .enabledExtensionCount = n_extensions,
                                       .ppEnabledExtensionNames = extensions};
    const VkResult result = instance->f.CreateInstance(&info, NULL, &instance->handle);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return gyre_fail(err, GYRE_E_NO_DEVICE, "no Vulkan driver is installed");
    if (result != VK_SUCCESS) return gyre_vk_fail(err, result, "create instance", "vulkan");
    return GYRE_OK;
}

// One instance more, which lives as long as the process, so that the loader never unloads a driver: NVIDIA's (580.159)
// cannot be loaded a third time, and misbehaves after more cycles (Genesis-Embodied-AI/quadrants #465).
static void keep_drivers_loaded(const struct vk_instance *instance)
{
    static atomic_flag kept = ATOMIC_FLAG_INIT;
    static VkInstance anchor;
    const VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
    if (!atomic_flag_test_and_set(&kept) && instance->f.CreateInstance(&info, NULL, &anchor) != VK_SUCCESS)
        anchor = NULL;
}

gyre_status gyre_vk_instance_create(struct vk_instance *instance, const struct gyre_device_options *options,
                                    gyre_error *err)
{
    struct vk_functions *f = &instance->f;
    uint32_t version = 0;
    instance->log = options->log;
    GYRE_TRY(open_library(instance, err));
#define X(name) f->name = (PFN_vk##name)f->GetInstanceProcAddr(NULL, "vk" #name);
    VK_GLOBAL_FUNCTIONS(X)
#undef X
    if (!f->EnumerateInstanceVersion || f->EnumerateInstanceVersion(&version) || version < VK_API_VERSION_1_1)
        return gyre_fail(err, GYRE_E_NO_DEVICE, "the Vulkan loader is older than 1.1");

    const bool validate = options->validate && has_layer(instance, validation_layer);
    if (options->validate && !validate)
        gyre_logf(options->log, GYRE_LOG_WARN, "vulkan: no validation: layer %s is not installed", validation_layer);
    GYRE_TRY(create(instance, validate, err));
    keep_drivers_loaded(instance);
#define X(name) f->name = (PFN_vk##name)f->GetInstanceProcAddr(instance->handle, "vk" #name);
    VK_INSTANCE_FUNCTIONS(X)
    VK_OPTIONAL_FUNCTIONS(X)
#undef X
    f->GetPhysicalDeviceCooperativeMatrixPropertiesKHR =
        (vk_matrix_shapes)f->GetInstanceProcAddr(instance->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
#define X(name)                                                                                                        \
    if (!f->name) return gyre_fail(err, GYRE_E_NO_DEVICE, "the Vulkan loader lacks vk" #name);
    VK_INSTANCE_FUNCTIONS(X)
#undef X
    if (f->CreateDebugUtilsMessengerEXT) {
        const VkDebugUtilsMessengerCreateInfoEXT info = gyre_vk_messenger_info(instance);
        const VkResult result = f->CreateDebugUtilsMessengerEXT(instance->handle, &info, NULL, &instance->messenger);
        if (result != VK_SUCCESS) return gyre_vk_fail(err, result, "create debug messenger", "vulkan");
    }
    return GYRE_OK;
}

void gyre_vk_instance_destroy(struct vk_instance *instance)
{
    if (instance->messenger) instance->f.DestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    if (instance->handle) instance->f.DestroyInstance(instance->handle, NULL);
    if (instance->library) dlclose(instance->library);
    *instance = (struct vk_instance){0};
}
