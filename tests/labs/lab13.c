// Compiles every kernel for one chip that is not there, in the lab of Debian 13 (scripts/lab):
//
//   scripts/lab chip CHIP lab13 check CHIP TABLE    fails when there is no such chip, a pipeline does not compile or
//                                                   spills, or has clearly more instructions than TABLE says
//   scripts/lab chip CHIP lab13 write CHIP TABLE    writes TABLE anew
//
// Nothing is ever skipped: a lab that opens no chip has failed.
#include "runtime/util/base.h"
#include "tests/labs/chip.h"

#include <stdio.h>
#include <string.h>

// What the driver calls the chip that it believes in: another device must not pass for it.
static const struct {
    const char *chip, *name;
} names[] = {
    {"vega10", "VEGA10"},
    {"navi10", "NAVI10"},
    {"navi21", "NAVI21"},
    {"navi31", "NAVI31"},
    {"gfx1201", "GFX1201"},
    {"adreno740", "Adreno (TM) 740"},
    {"adreno750", "Adreno (TM) 750"},
    {"adreno830", "Adreno (TM) 830"},
    {"turing", "NVK"},
    {"ampere", "NVK"},
};

static const char *name_of(const char *chip)
{
    for (size_t i = 0; i < GYRE_COUNT(names); i++)
        if (!strcmp(names[i].chip, chip)) return names[i].name;
    return NULL;
}

int main(int argc, char **argv)
{
    static struct lab_table now, was;
    static const char how[] = "ninja lab13_tables";
    struct lab_chip chip;
    const char *why = "";
    const bool writing = argc == 4 && !strcmp(argv[1], "write");
    const char *name = argc == 4 ? name_of(argv[2]) : NULL;
    if (!name || (!writing && strcmp(argv[1], "check")))
        return fprintf(stderr, "usage: lab13 check|write CHIP TABLE\n"), 2;
    const bool open = lab_open(&chip, &why);
    if (open && !strstr(chip.name, name)) why = chip.name;
    if (!open || !strstr(chip.name, name))
        return fprintf(stderr, "cannot open %s: %s; run scripts/lab remake\n", argv[2], why), lab_close(&chip), 1;
    int failed = lab_compile_all(&chip, argv[2], &now);
    lab_close(&chip);
    if (writing) return !lab_write_table(argv[3], how, &now) || failed;
    if (!lab_read_table(argv[3], &was)) return 1;
    failed += lab_compare(&now, &was, how);
    printf("%s: %d pipelines, %d complaints\n", argv[2], now.n, failed);
    return failed != 0 || !now.n;
}
