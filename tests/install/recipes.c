// The quantizer's library: lists its recipes and makes int4 weights.
#include <gyre/gyre.h>
#include <gyre/gyre_quantize.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    gyre_error err = {0};
    uint32_t n = 0;
    if (argc != 3) return 2;
    while (gyre_recipe_name(n)) n++;
    const gyre_quantize_params p = {
        .size = sizeof p, .source = argv[1], .output = argv[2], .recipe = "rtn", .wgroup = 32};
    if (gyre_quantize(&p, NULL, &err) != GYRE_OK) fprintf(stderr, "%s\n", err.message);
    printf("%u recipes, gyre %s\n", n, gyre_version());
    return n < 4 || err.code != GYRE_OK;
}
