// Compiles every kernel for real AMD chips on a machine without one: RADV, Mesa's AMD driver, pretends to be the
// chip that RADV_FORCE_FAMILY names (until Mesa 25) and tells what its compiler made of a pipeline.
//
//   lab_radv check TABLE   fails when a pipeline does not compile, spills registers or uses scratch memory, or has
//                          clearly more instructions than TABLE says; counts are compared only for TABLE's driver
//   lab_radv write TABLE   writes TABLE anew
//
// Ends with 77 (skipped) where RADV is not installed or opens no chip.
#include "runtime/util/base.h"
#include "tests/labs/chip.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(int argc, char **argv)
{
    static const char *const chips[] = {"vega10", "navi10", "navi21", "gfx1100"}, how[] = "ninja radv_stats";
    static struct lab_table now, was;
    int failed = 0, opened = 0;
    const bool writing = argc == 3 && !strcmp(argv[1], "write");
    if (!writing && (argc != 3 || strcmp(argv[1], "check")))
        return fprintf(stderr, "usage: lab_radv check|write TABLE\n"), 2;
    if (!use_radv()) return fprintf(stderr, "skipped: RADV is not installed\n"), 77;
    for (size_t i = 0; i < GYRE_COUNT(chips); i++) {
        struct lab_chip chip;
        const char *why;
        setenv("RADV_FORCE_FAMILY", chips[i], 1);
        if (lab_open(&chip, &why)) {
            failed += lab_compile_all(&chip, chips[i], &now);
            opened++;
        } else {
            fprintf(stderr, "%s left out: %s\n", chips[i], why);
        }
        lab_close(&chip);
    }
    if (!opened) return 77;
    if (writing) return !lab_write_table(argv[2], how, &now) || failed;
    if (!lab_read_table(argv[2], &was)) return 1;
    failed += lab_compare(&now, &was, how);
    printf("%d pipelines on %d chips, %d complaints\n", now.n, opened, failed);
    return failed != 0;
}
