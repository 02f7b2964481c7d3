// Heat maps as PNG files in memory. See stats.h.
#include "quantizer/report/stats.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>

// Private to this file: the library's own copy would be one more thing to install where gyre only runs.
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image_write.h>

// Black to purple to orange to pale yellow: "inferno" of matplotlib (CC0), every eighth of it. Lightness rises evenly,
// so that it reads in grey and for all kinds of colour vision.
static const unsigned char inferno[9][3] = {{0, 0, 4},      {31, 12, 72},   {85, 15, 109},
                                            {136, 34, 106}, {186, 54, 85},  {227, 89, 51},
                                            {249, 140, 10}, {249, 201, 50}, {252, 255, 164}};

void gyre_heat_colour(double share, unsigned char rgb[3])
{
    const double at = fmin(fmax(share, 0), 1) * 8;
    const int i = at >= 8 ? 7 : (int)at;
    for (int c = 0; c < 3; c++)
        rgb[c] = (unsigned char)lrint(inferno[i][c] + (at - i) * (inferno[i + 1][c] - inferno[i][c]));
}

gyre_status gyre_heat_png(const struct gyre_heat_map *map, double most, unsigned char **png, size_t *bytes,
                          gyre_error *err)
{
    const uint32_t n = map->rows * map->cols;
    unsigned char *pixels = malloc(GYRE_MAX(n, 1) * 3u);
    int size = 0;
    *png = NULL;
    for (uint32_t i = 0; pixels && i < n; i++) {
        const double share = most > 0 && map->cell[i] > 0 ? 1 + log10((double)map->cell[i] / most) / 3 : 0;
        gyre_heat_colour(isfinite(share) ? share : 0, pixels + 3 * (size_t)i);
    }
    if (pixels && n)
        *png = stbi_write_png_to_mem(pixels, (int)(3 * map->cols), (int)map->cols, (int)map->rows, 3, &size);
    free(pixels);
    if (!*png) return gyre_fail(err, GYRE_E_NOMEM, "cannot draw a heat map: out of memory");
    *bytes = (size_t)size;
    return GYRE_OK;
}
