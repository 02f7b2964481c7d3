// distill on a device: it learns what it learns on the host, twice the same bytes, and the manifest says where.
#include "tests/common/device.h"
#include "tests/common/files.h"
#include "tests/quantizer/run.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char in[256], out[256], recipe[256], text[256];

static gyre_quantize_params params(const char *device)
{
    static const char *const texts[] = {text};
    gyre_quantize_params p = run_params(in, out, recipe, texts);
    p.size = sizeof p;
    p.distill_device = device;
    return p;
}

static gyre_quantize_summary quantized(const char *device)
{
    gyre_error err = {0};
    gyre_quantize_summary s = {0};
    if (run_until(params(device), 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
    return s;
}

// What the manifest says of where it was; NULL: nothing.
static json_t *manifest(void)
{
    char path[300];
    snprintf(path, sizeof path, "%s.manifest.json", out);
    json_t *m = json_load_file(path, 0, NULL);
    assert_non_null(m);
    return m;
}

static void test_device(void **unused)
{
    (void)unused;
    files_write(recipe, "name: learned\nrotate: true\ncalibration: {windows: 9, tokens: 32}\n"
                        "activations: {clip: 0.95}\ncache: {clip: 0.98}\nrounding: [gptq]\n"
                        "distill: {steps: 8, rate: 0.005, clip_rate: 0.01, pull: 0.01}\n");
    gyre_quantize_summary host = quantized(NULL);
    json_t *m = manifest();
    assert_null(json_object_get(json_object_get(m, "arithmetic"), "distill"));
    json_decref(m);
    gyre_quantize_summary first = quantized("vulkan");
    uint64_t n, again_n;
    char *bytes = files_read(out, &n);
    m = manifest();
    assert_string_equal(json_string_value(json_object_get(json_object_get(m, "arithmetic"), "distill")), "vulkan:0");
    json_decref(m);
    gyre_quantize_summary again = quantized("vulkan:0");
    char *same = files_read(out, &again_n);
    assert_int_equal(n, again_n);
    assert_memory_equal(bytes, same, n);
    assert_true(again.distill_after == first.distill_after);
    printf("held out: host %.6f -> %.6f, device %.6f -> %.6f\n", host.distill_before, host.distill_after,
           first.distill_before, first.distill_after);
    assert_int_equal(first.distill_steps, 8);
    assert_true(first.distill_best > 0);
    assert_true(fabs(first.distill_before - host.distill_before) < 0.01 * host.distill_before);
    assert_true(first.distill_after < first.distill_before);
    assert_true(fabs(first.distill_after - host.distill_after) < 0.02 * host.distill_after);
    free(bytes);
    free(same);
    gyre_quantize_summary_free(&host);
    gyre_quantize_summary_free(&first);
    gyre_quantize_summary_free(&again);
}

static void test_refusals(void **unused)
{
    (void)unused;
    gyre_error err = {0};
    assert_int_equal(run_until(params("vulkan:99"), 0, NULL, &err), GYRE_E_NO_DEVICE);
    files_write(recipe, "name: plain\nrotate: true\nrounding: [rtn]\ncalibration: {windows: 0}\n");
    assert_int_equal(run_until(params("vulkan:0"), 0, NULL, &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "cannot distill on vulkan:0: recipe plain does not distill"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_device), cmocka_unit_test(test_refusals)};
    const int missing = device_probe("vulkan:0");
    if (missing) return missing;
    snprintf(in, sizeof in, "%s", files_path("base.gguf"));
    snprintf(out, sizeof out, "%s", files_path("out.gguf"));
    snprintf(recipe, sizeof recipe, "%s", files_path("recipe.yaml"));
    snprintf(text, sizeof text, "%s", files_path("text.txt"));
    run_base(in, text, "llama", false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
