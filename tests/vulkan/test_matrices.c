// What is made of the matrices that a driver offers: made-up drivers, so no device is needed.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <stddef.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { F16 = 0, F32 = 1, S8 = 3, S32 = 5, U8 = 7, U32 = 9, WORKGROUP = 2, SUBGROUP = 3, INTEL = 0x8086 };

// One that offers all that kernels need, with subgroups of 32 alone.
static const struct driver {
    uint32_t n, n_halves, shape[3][3];       // the last n_halves are of halves
    int32_t left, right, addend, sum, scope; // types of elements
    VkBool32 saturating, matrices, model, wide, bytes, full, halves;
    uint32_t least, most, subgroups, stages, api, vendor;
} fit = {
    .n = 3,
    .shape = {{8, 8, 16}, {16, 16, 32}, {16, 8, 32}},
    .left = S8,
    .right = S8,
    .addend = S32,
    .sum = S32,
    .scope = SUBGROUP,
    .matrices = 1,
    .model = 1,
    .wide = 1,
    .bytes = 1,
    .full = 1,
    .least = 32,
    .most = 32,
    .subgroups = 32,
    .api = VK_API_VERSION_1_3,
};
static struct driver driver;

static VkResult VKAPI_CALL shapes(VkPhysicalDevice device, uint32_t *n, struct vk_matrix_shape *out)
{
    (void)device;
    assert_true(*n >= driver.n);
    *n = driver.n;
    for (uint32_t i = 0; i < driver.n; i++) {
        out[i].m = driver.shape[i][0], out[i].n = driver.shape[i][1], out[i].k = driver.shape[i][2];
        const bool halves = i >= driver.n - driver.n_halves;
        out[i].a = halves ? F16 : driver.left, out[i].b = halves ? F16 : driver.right;
        out[i].c = halves ? F32 : driver.addend, out[i].result = halves ? F32 : driver.sum;
        out[i].saturating = driver.saturating, out[i].scope = driver.scope;
    }
    return VK_SUCCESS;
}

static void VKAPI_CALL features(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *out)
{
    (void)device;
    struct vk_matrix_chain *c = // its first is the chain's last member
        (struct vk_matrix_chain *)((char *)out->pNext - offsetof(struct vk_matrix_chain, sizes));
    c->matrices.matrices = driver.matrices, c->model.vulkanMemoryModel = driver.model;
    c->model.vulkanMemoryModelDeviceScope = driver.wide;
    c->bytes.shaderInt8 = driver.bytes, c->bytes.shaderFloat16 = driver.halves;
    c->sizes.subgroupSizeControl = c->sizes.computeFullSubgroups = driver.full;
}

static void VKAPI_CALL properties(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *out)
{
    (void)device;
    VkPhysicalDeviceSubgroupSizeControlProperties *sizes = out->pNext;
    sizes->minSubgroupSize = driver.least, sizes->maxSubgroupSize = driver.most;
    sizes->maxComputeWorkgroupSubgroups = driver.subgroups, sizes->requiredSubgroupSizeStages = driver.stages;
}

static struct vk_facts facts_of(struct driver with)
{
    const struct vk_instance instance = {.f = {.GetPhysicalDeviceCooperativeMatrixPropertiesKHR = shapes,
                                               .GetPhysicalDeviceFeatures2 = features,
                                               .GetPhysicalDeviceProperties2 = properties}};
    struct vk_facts facts = {.properties = {.apiVersion = with.api, .vendorID = with.vendor},
                             .info = {.subgroup_min = with.least, .subgroup_max = with.most}};
    driver = with;
    gyre_vk_matrix_facts(&instance, &facts);
    assert_int_equal(facts.matrices, facts.info.matrix_s8.m != 0); // nothing is enabled in vain
    return facts;
}

static void takes(struct driver with, struct gyre_matrix_shape want)
{
    const struct vk_facts facts = facts_of(with);
    assert_memory_equal(&facts.info.matrix_s8, &want, sizeof want);
}

static void the_largest_shape_is_taken(void **state)
{
    (void)state;
    const struct gyre_matrix_shape want = {16, 16, 32, 32}, wide = {16, 16, 32, 64}, narrow = {16, 16, 32, 8};
    struct driver d = fit;
    takes(d, want); // the only size needs no asking for
    assert_string_equal(facts_of(d).info.cooperative_matrix[1], "16x16x32 s8s8s32");
    d.stages = VK_SHADER_STAGE_COMPUTE_BIT, d.most = 64;
    takes(d, want);
    d.least = 64;
    takes(d, wide);
    d.least = 8, d.most = 32, d.vendor = INTEL;
    takes(d, narrow);
    d = fit, d.shape[1][0] = d.shape[1][1] = 8; // whose sides are not the same
    takes(d, (struct gyre_matrix_shape){16, 8, 32, 32});
    d.shape[1][1] = 32;
    takes(d, (struct gyre_matrix_shape){8, 32, 32, 32});
}

// Shapes of halves are a matter of their own, but of a device that has some of integers.
static void halves_are_taken_beside(void **state)
{
    (void)state;
    const struct gyre_matrix_shape want = {16, 16, 32, 32}, of_halves = {16, 8, 32, 32}, none = {0};
    struct driver d = fit;
    d.n_halves = 1, d.halves = 1;
    takes(d, want);
    struct vk_facts facts = facts_of(d);
    assert_memory_equal(&facts.info.matrix_f16, &of_halves, sizeof want);
    d.halves = 0;
    takes(d, want);
    facts = facts_of(d);
    assert_memory_equal(&facts.info.matrix_f16, &none, sizeof want);
    d.halves = 1, d.n_halves = 3;
    takes(d, none);
    facts = facts_of(d);
    assert_memory_equal(&facts.info.matrix_f16, &none, sizeof want);
}

// A driver that lacks anything, or has other shapes only, is as one without the extension.
static void what_does_not_fit_is_left_alone(void **state)
{
    (void)state;
    struct driver d[16];
    for (size_t i = 0; i < GYRE_COUNT(d); i++) d[i] = fit;
    d[0].n = 0;
    d[1].left = d[1].right = F16, d[1].addend = d[1].sum = F32;
    d[2].left = d[2].right = U8, d[2].addend = d[2].sum = U32;
    d[3].saturating = 1;
    d[4].scope = WORKGROUP;
    d[5].n = 1, d[5].shape[0][0] = 64, d[5].shape[0][1] = 64;
    d[6].n = 2, d[6].shape[0][2] = 64, d[6].shape[1][1] = 4;
    d[7].matrices = 0;
    d[8].model = 0;
    d[9].api = VK_API_VERSION_1_2;
    d[10].most = 64; // two sizes, of which none can be asked for
    d[11].subgroups = 4;
    d[12].wide = 0; // other kernels wait for the whole device
    d[13].right = U8;
    d[14].sum = U32;
    d[15].addend = U32;
    for (size_t i = 0; i < GYRE_COUNT(d); i++)
        if (facts_of(d[i]).matrices) fail_msg("driver %zu", i);
    assert_string_equal(facts_of(d[1]).info.cooperative_matrix[0], "8x8x16 f16f16f32"); // still told
}

// A loader that does not know the extension.
static void an_old_loader_tells_nothing(void **state)
{
    (void)state;
    const struct vk_instance old = {0};
    struct vk_facts facts = {.properties = {.apiVersion = VK_API_VERSION_1_3}};
    gyre_vk_matrix_facts(&old, &facts);
    assert_false(facts.matrices);
    assert_int_equal(facts.info.cooperative_matrix[0][0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_shape_is_taken),
        cmocka_unit_test(halves_are_taken_beside),
        cmocka_unit_test(what_does_not_fit_is_left_alone),
        cmocka_unit_test(an_old_loader_tells_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
