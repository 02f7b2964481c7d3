// Compiles every kernel for real AMD chips on a machine without one: RADV, Mesa's AMD driver, pretends to be the
// chip that RADV_FORCE_FAMILY names and tells what its compiler made of a pipeline.
//
//   lab_radv check TABLE   fails when a pipeline does not compile, spills registers or uses scratch memory, or has
//                          clearly more instructions than TABLE says; counts are compared only for TABLE's driver
//   lab_radv write TABLE   writes TABLE anew
//
// Each kernel is compiled with its default constants, and the heavy ones also as runtime/graph/tune.c sets them on
// hardware, in the form that gyre takes on that chip (int8 dot products in hardware or not). Ends with 77 (skipped)
// where RADV is not installed.
#include "backends/vulkan/vk.h"
#include "runtime/util/base.h"

#include <fnmatch.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 1024, MAX_STATS = 64 };

struct row {
    char chip[16], kernel[80], form[8]; // kernel: its name, then ",CONSTANT=value" for what is not the default
    unsigned vgprs, spills, scratch, lds, instructions;
    unsigned loads, ahead, valu; // of the loop that loads most: see read_loop
};

struct table {
    char driver[64];
    struct row rows[MAX_ROWS];
    int n;
};

struct chip {
    struct vk_instance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    struct vk_functions f;
    PFN_vkGetPipelineExecutableStatisticsKHR statistics;
    PFN_vkGetPipelineExecutableInternalRepresentationsKHR representations;
    bool dot, dot_accelerated;
    char driver[64];
};

// What tune.c may choose beside the defaults. Names are patterns of the shell. Where `weights` is given, the loop that
// loads most goes over so many weights a round: it must ask for `ahead` loads before it waits for one, and spend no
// more than `most` vector instructions a weight; products of codes only on chips that have instructions for them.
static const struct {
    const char *kernel, *constants;
    unsigned weights, ahead;
    double most;
} tuned[] = {
    {"matmul_w4_*_[vm]", ",WGX=16,WGY=8,TR=1", 0, 0, 0},
    {"matmul_w4_*_[vm]", ",WGX=16,WGY=4,TR=4", 0, 0, 0},
    {"matmul_w4_q_[vm]", ",WGX=16,WGY=4,TR=4,K16=1", 0, 0, 0},
    {"matmul_w8_*_[vm]", ",WGX=16,WGY=4,TR=4", 0, 0, 0},
    {"matmul_w8_q_[vm]", ",WGX=16,WGY=4,TR=4,K16=1", 0, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=1", 256, 8, 0.75},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2", 512, 16, 0.75},
    {"matmul_w4_q_t", ",WGX=256,TR=1,AHEAD=2,GROUPED=1", 512, 8, 1.1},
    {"matmul_w4_q_t", ",WGX=256,TR=4", 0, 0, 0},
    {"matmul_w4_q_t", ",WGX=256,TR=8", 0, 0, 0},
    {"matmul_w8_q_t", ",WGX=256,TR=1,AHEAD=2", 256, 16, 0.75},
    {"matmul_w8_q_t", ",WGX=256,TR=8", 0, 0, 0},
    {"matmul_w4_f_t", ",WGX=256,TR=1,AHEAD=2", 256, 8, 4.6},
    {"matmul_w4_f_t", ",WGX=256,TR=4", 0, 0, 0},
    {"matmul_w8_f_t", ",WGX=256,TR=1,AHEAD=2", 256, 16, 4.8},
    {"matmul_w8_f_t", ",WGX=256,TR=4", 0, 0, 0},
    {"matmul_f*", ",WGX=16,WGY=4,TR=4", 0, 0, 0},
    {"attn_v", ",KVBITS=8,HD=64,GT=3", 0, 0, 0},
    {"attn_v", ",KVBITS=4,HD=128,GT=4", 0, 0, 0},
    {"attn_v", ",KVBITS=16,HD=256,GT=1", 0, 0, 0},
    {"attn_split", ",KVBITS=8,HD=64,GT=3", 0, 0, 0},
    {"attn_split", ",KVBITS=8,HD=128,GT=4", 0, 0, 0},
    {"attn_split", ",KVBITS=4,HD=128,GT=4", 0, 0, 0},
    {"attn_split", ",KVBITS=16,HD=256,GT=1", 0, 0, 0},
    {"attn_m", ",KVBITS=8,HD=64,GT=2", 0, 0, 0},
    {"attn_m", ",KVBITS=16,HD=128,GT=2", 0, 0, 0},
    {"rope_had_kv", ",WGX=64,KVBITS=4,HD=128", 0, 0, 0},
    {"act_mul_had_quant", ",WGX=256,SHARED_N=8064", 0, 0, 0},
};

// ---- the driver ---------------------------------------------------------------------------------------

static bool use_radv(void)
{
    static const char *const patterns[] = {"/usr/share/vulkan/icd.d/radeon_icd*.json",
                                           "/usr/local/share/vulkan/icd.d/radeon_icd*.json",
                                           "/etc/vulkan/icd.d/radeon_icd*.json"};
    for (size_t i = 0; i < GYRE_COUNT(patterns); i++) {
        glob_t found = {0};
        const bool ok = !glob(patterns[i], 0, NULL, &found) && found.gl_pathc;
        if (ok) {
            setenv("VK_ICD_FILENAMES", found.gl_pathv[0], 1);
            setenv("VK_DRIVER_FILES", found.gl_pathv[0], 1);
            setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
        }
        globfree(&found);
        if (ok) return true;
    }
    return false;
}

static void close_chip(struct chip *c)
{
    if (c->device) c->f.DestroyDevice(c->device, NULL);
    gyre_vk_instance_destroy(&c->instance);
}

// False, with a reason, where this driver cannot pretend to be that chip.
static bool open_chip(struct chip *c, const char *name, const char **why)
{
    static const struct gyre_device_options options;
    static gyre_error err;
    uint32_t n = 1;
    *c = (struct chip){0};
    setenv("RADV_FORCE_FAMILY", name, 1);
    if (gyre_vk_instance_create(&c->instance, &options, &err)) return *why = err.message, false;
    if (c->instance.f.EnumeratePhysicalDevices(c->instance.handle, &n, &c->physical) < 0 || !n)
        return *why = "the driver offers no such chip", false;

    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceShaderIntegerDotProductProperties dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES, .pNext = &driver};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &dot};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot_feature = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES, .pNext = &executable};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &dot_feature};
    c->instance.f.GetPhysicalDeviceProperties2(c->physical, &properties);
    c->instance.f.GetPhysicalDeviceFeatures2(c->physical, &features);
    if (!executable.pipelineExecutableInfo) return *why = "the driver reports no statistics", false;
    snprintf(c->driver, sizeof c->driver, "%.60s", driver.driverInfo);
    c->dot = dot_feature.shaderIntegerDotProduct;
    c->dot_accelerated = dot.integerDotProduct4x8BitPackedSignedAccelerated;

    const char *const extensions[] = {VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME};
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    features.features = (VkPhysicalDeviceFeatures){0};
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = &features,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = 1,
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

static void read_statistics(const struct chip *c, VkPipeline pipeline, struct row *row)
{
    VkPipelineExecutableStatisticKHR stats[MAX_STATS];
    uint32_t n = MAX_STATS;
    for (uint32_t i = 0; i < n; i++)
        stats[i] = (VkPipelineExecutableStatisticKHR){.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    const VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                               .pipeline = pipeline};
    if (c->statistics(c->device, &which, &n, stats) < 0) n = 0;
    for (uint32_t i = 0; i < n; i++) {
        const unsigned value = (unsigned)stats[i].value.u64;
        if (!strcmp(stats[i].name, "VGPRs")) row->vgprs = value;
        else if (!strncmp(stats[i].name, "Spilled", 7)) row->spills += value;
        else if (!strcmp(stats[i].name, "Scratch size")) row->scratch = value;
        else if (!strcmp(stats[i].name, "LDS size")) row->lds = value;
        else if (!strcmp(stats[i].name, "Instructions")) row->instructions = value;
    }
}

// One basic block of the compiler's listing.
struct piece {
    int number;
    unsigned loads, ahead, valu; // ahead: loads before the first wait for one
    bool waited;
};

// The loop that loads most: vector instructions and loads of a round, and loads asked for before the first wait. The
// listing has blocks "BB7:" and branches back to them.
static void read_loop(const char *listing, struct row *row)
{
    enum { MOST = 512 };
    static struct piece piece[MOST];
    int n = 0;
    for (const char *line = listing; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        int number = 0;
        char name[48] = "", rest[96] = "";
        if (sscanf(line, "BB%d:", &number) == 1 && n < MOST) piece[n++] = (struct piece){.number = number};
        if (!n || sscanf(line, " %47[a-z0-9_] %95[^\n]", name, rest) < 1 || line[0] == 'B') continue;
        struct piece *p = &piece[n - 1];
        if (!strncmp(name, "buffer_load", 11) || !strncmp(name, "global_load", 11)) p->loads++, p->ahead += !p->waited;
        else if (!strcmp(name, "s_waitcnt") && strstr(rest, "vmcnt")) p->waited = true;
        else if (name[0] == 'v' && name[1] == '_') p->valu++;
        if ((strncmp(name, "s_branch", 8) && strncmp(name, "s_cbranch", 9)) || sscanf(rest, "BB%d", &number) != 1)
            continue;
        int first = n - 1;
        while (first >= 0 && piece[first].number != number) first--;
        struct row loop = {0};
        bool waited = false;
        for (int i = first; first >= 0 && i < n; i++) {
            loop.loads += piece[i].loads, loop.valu += piece[i].valu;
            if (!waited) loop.ahead += piece[i].ahead;
            waited = waited || piece[i].waited;
        }
        if (loop.loads > row->loads) row->loads = loop.loads, row->valu = loop.valu, row->ahead = loop.ahead;
    }
}

static void read_listing(const struct chip *c, VkPipeline pipeline, struct row *row)
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
        if (text[i].pData && strstr(text[i].name, "ssembly")) read_loop(text[i].pData, row);
        free(text[i].pData);
    }
}

// The layout is vk_kernel.c's: storage buffers 0..n-1 in set 0, GYRE_MAX_PARAMS bytes of push constants.
static bool compile(const struct chip *c, const struct gyre_kernel_source *source, const uint32_t *spec, bool dot,
                    struct row *row)
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
    const VkComputePipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                              .flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
                                                       VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR,
                                              .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
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
static bool add_row(const struct chip *c, const char *name, const struct gyre_kernel_source *source,
                    const char *constants, struct table *out)
{
    const bool dot = c->dot && c->dot_accelerated && source->spirv_dot;
    uint32_t spec[GYRE_MAX_SPEC];
    struct row row = {0};
    memcpy(spec, source->spec_defaults, sizeof spec);
    snprintf(row.chip, sizeof row.chip, "%s", name);
    snprintf(row.kernel, sizeof row.kernel, "%s%s", source->name, constants);
    snprintf(row.form, sizeof row.form, "%s", dot ? "dot" : "base");
    const bool ok = out->n < MAX_ROWS && (!*constants || set_constants(source, constants, spec)) &&
                    compile(c, source, spec, dot, &row);
    if (ok) out->rows[out->n++] = row;
    else fprintf(stderr, "%s on %s does not compile\n", row.kernel, name);
    return ok;
}

// What `tuned` asks of a loop, where the chip has the instructions that it was made for.
static bool judge_loop(const struct row *row, size_t t)
{
    if (!tuned[t].weights || (strstr(row->kernel, "_q_") && strcmp(row->form, "dot"))) return true;
    const double each = (double)row->valu / tuned[t].weights;
    const bool ok = row->ahead >= tuned[t].ahead && row->valu && each <= tuned[t].most;
    if (!ok)
        fprintf(
            stderr,
            "%s on %s: %u loads before the first wait (%u are due), %.2f vector instructions a weight (%.2f at most)\n",
            row->kernel, row->chip, row->ahead, tuned[t].ahead, each, tuned[t].most);
    return ok;
}

// Appends the rows of every kernel; returns the number that did not compile.
static int compile_all(const struct chip *c, const char *name, struct table *out)
{
    int failed = 0;
    snprintf(out->driver, sizeof out->driver, "%s", c->driver);
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++) {
        const struct gyre_kernel_source *source = gyre_kernel_sources[i];
        failed += !add_row(c, name, source, "", out);
        for (size_t t = 0; t < GYRE_COUNT(tuned); t++)
            if (!fnmatch(tuned[t].kernel, source->name, 0)) {
                failed += !add_row(c, name, source, tuned[t].constants, out);
                failed += !judge_loop(&out->rows[out->n - 1], t);
            }
    }
    return failed;
}

// ---- the table ----------------------------------------------------------------------------------------

static bool write_table(const char *path, const struct table *t)
{
    FILE *f = fopen(path, "w");
    if (!f) return perror(path), false;
    fprintf(f, "# What RADV's compiler makes of every kernel; `ninja radv_stats` writes this file.\n");
    fprintf(f,
            "driver %s\n# chip kernel form vgprs spills scratch lds instructions, of the loop that loads most: loads, "
            "before the "
            "first wait, vector instructions\n",
            t->driver);
    for (int i = 0; i < t->n; i++) {
        const struct row *r = &t->rows[i];
        fprintf(f, "%s %s %s %u %u %u %u %u %u %u %u\n", r->chip, r->kernel, r->form, r->vgprs, r->spills, r->scratch,
                r->lds, r->instructions, r->loads, r->ahead, r->valu);
    }
    return fclose(f) == 0;
}

static bool read_table(const char *path, struct table *t)
{
    char line[256];
    FILE *f = fopen(path, "r");
    if (!f) return perror(path), false;
    *t = (struct table){0};
    while (fgets(line, sizeof line, f) && t->n < MAX_ROWS) {
        struct row *r = &t->rows[t->n];
        if (sscanf(line, "driver %63[^\n]", t->driver) == 1 || line[0] == '#') continue;
        if (sscanf(line, "%15s %79s %7s %u %u %u %u %u %u %u %u", r->chip, r->kernel, r->form, &r->vgprs, &r->spills,
                   &r->scratch, &r->lds, &r->instructions, &r->loads, &r->ahead, &r->valu) == 11)
            t->n++;
    }
    fclose(f);
    return true;
}

static const struct row *find_row(const struct table *t, const struct row *like)
{
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->rows[i].chip, like->chip) && !strcmp(t->rows[i].kernel, like->kernel)) return &t->rows[i];
    return NULL;
}

static bool judge(const struct row *now, const struct row *was, bool counts)
{
    bool ok = now->vgprs && now->instructions;
    if (!ok) fprintf(stderr, "%s on %s: the driver reported no statistics\n", now->kernel, now->chip);
    // Mesa 22 keeps large workgroups of this chip to 132 registers; later ones give 256 and spill nothing.
    const bool few = !strcmp(now->chip, "gfx1100") && now->vgprs == 132;
    if ((now->spills || now->scratch) && !few) {
        fprintf(stderr, "%s on %s spills %u registers and uses %u bytes of scratch memory\n", now->kernel, now->chip,
                now->spills, now->scratch);
        ok = false;
    }
    if (!counts || !was) return ok && !counts;
    // An edit may cost a little; a tenth more (and 16 instructions, for the smallest) wants to be looked at.
    if (now->instructions > was->instructions + was->instructions / 10 + 16) {
        fprintf(stderr,
                "%s on %s grew from %u to %u instructions; make it smaller, or run `ninja radv_stats` and say why in "
                "the commit\n",
                now->kernel, now->chip, was->instructions, now->instructions);
        ok = false;
    }
    return ok;
}

int main(int argc, char **argv)
{
    static const char *const chips[] = {"vega10", "navi10", "navi21", "gfx1100"};
    static struct table now, was;
    int failed = 0, opened = 0;
    const bool writing = argc == 3 && !strcmp(argv[1], "write");
    if (!writing && (argc != 3 || strcmp(argv[1], "check")))
        return fprintf(stderr, "usage: lab_radv check|write TABLE\n"), 2;
    if (!use_radv()) return fprintf(stderr, "skipped: RADV is not installed\n"), 77;
    for (size_t i = 0; i < GYRE_COUNT(chips); i++) {
        struct chip chip;
        const char *why;
        if (open_chip(&chip, chips[i], &why)) {
            failed += compile_all(&chip, chips[i], &now);
            opened++;
        } else {
            fprintf(stderr, "%s left out: %s\n", chips[i], why);
        }
        close_chip(&chip);
    }
    if (!opened) return 77;
    if (writing) return !write_table(argv[2], &now) || failed;

    if (!read_table(argv[2], &was)) return 1;
    const bool counts = !strcmp(now.driver, was.driver);
    if (!counts)
        fprintf(stderr, "the table is of %s, this driver is %s: counts are not compared\n", was.driver, now.driver);
    int unknown = 0;
    for (int i = 0; i < now.n; i++) {
        const struct row *before = find_row(&was, &now.rows[i]);
        unknown += !before;
        failed += !judge(&now.rows[i], before, counts);
    }
    if (counts && unknown)
        fprintf(stderr, "%d rows are not in the table; run `ninja radv_stats` and commit it\n", unknown);
    printf("%d pipelines on %d chips, %d complaints\n", now.n, opened, failed);
    return failed != 0;
}
