// See canvas.h. The PNG coding is stb's.
#include "cli/compare/canvas.h"

#include "cli/compare/font.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

enum { MAX_SIDE = 16384, CAPITAL = CLI_FONT_BASE - CLI_FONT_TOP };

gyre_status cli_canvas_create(int width, int height, struct cli_canvas *out, gyre_error *err)
{
    *out = (struct cli_canvas){0};
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE)
        return gyre_fail(err, GYRE_E_INVALID, "cannot draw: a plot of %d x %d pixels is impossible", width, height);
    const size_t bytes = (size_t)width * (size_t)height * 3;
    out->rgb = malloc(bytes);
    if (!out->rgb) return gyre_fail(err, GYRE_E_NOMEM, "cannot draw: out of memory");
    memset(out->rgb, 255, bytes);
    out->width = width;
    out->height = height;
    return GYRE_OK;
}

void cli_canvas_free(struct cli_canvas *c)
{
    free(c->rgb);
    *c = (struct cli_canvas){0};
}

static void blend(struct cli_canvas *c, int x, int y, double cover, cli_colour colour)
{
    if (!(cover > 0)) return;
    cover = GYRE_MIN(cover, 1.0);
    uint8_t *at = c->rgb + ((size_t)y * (size_t)c->width + (size_t)x) * 3;
    for (int k = 0; k < 3; k++) {
        const double want = (double)(colour >> (16 - 8 * k) & 255);
        at[k] = (uint8_t)lround(at[k] + (want - at[k]) * cover);
    }
}

static int clamp(double v, int most) { return v < 0 ? 0 : v > most ? most : (int)v; }

void cli_draw_line(struct cli_canvas *c, double x0, double y0, double x1, double y1, double thickness,
                   cli_colour colour)
{
    const double r = thickness / 2, dx = x1 - x0, dy = y1 - y0, square = dx * dx + dy * dy;
    const int left = clamp(floor(fmin(x0, x1) - r - 1), c->width), right = clamp(ceil(fmax(x0, x1) + r + 1), c->width);
    const int top = clamp(floor(fmin(y0, y1) - r - 1), c->height),
              bottom = clamp(ceil(fmax(y0, y1) + r + 1), c->height);
    for (int y = top; y < bottom; y++) {
        for (int x = left; x < right; x++) {
            const double px = x + 0.5 - x0, py = y + 0.5 - y0;
            const double t = square > 0 ? fmin(1, fmax(0, (px * dx + py * dy) / square)) : 0;
            blend(c, x, y, r + 0.5 - hypot(px - t * dx, py - t * dy), colour);
        }
    }
}

void cli_draw_dashed(struct cli_canvas *c, double x0, double y0, double x1, double y1, double thickness, double dash,
                     cli_colour colour)
{
    const double length = hypot(x1 - x0, y1 - y0);
    if (!(length > 0) || !(dash > 0)) return;
    for (double at = 0; at < length; at += 2 * dash) {
        const double a = at / length, b = fmin(at + dash, length) / length;
        cli_draw_line(c, x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0), thickness,
                      colour);
    }
}

void cli_draw_rect(struct cli_canvas *c, double x, double y, double width, double height, cli_colour colour)
{
    const int left = clamp(floor(x), c->width), right = clamp(ceil(x + width), c->width);
    const int top = clamp(floor(y), c->height), bottom = clamp(ceil(y + height), c->height);
    for (int j = top; j < bottom; j++) {
        const double h = fmin(j + 1, y + height) - fmax(j, y);
        for (int i = left; i < right; i++) blend(c, i, j, h * (fmin(i + 1, x + width) - fmax(i, x)), colour);
    }
}

// The next character's glyph; NULL at the end. What is no printable ASCII is one '?'.
static const char *next_glyph(const char **text)
{
    if (!**text) return NULL;
    const unsigned char code = (unsigned char)*(*text)++;
    while (code >= 0xC0 && ((unsigned char)**text & 0xC0) == 0x80) ++*text;
    const bool known = code >= CLI_FONT_FIRST && code < CLI_FONT_FIRST + CLI_FONT_GLYPHS;
    return cli_font[(known ? code : '?') - CLI_FONT_FIRST];
}

double cli_text_width(const char *text, double size)
{
    double units = 0;
    for (const char *g; (g = next_glyph(&text)) != NULL;) units += g[1] - g[0];
    return units * size / CAPITAL;
}

static void draw(struct cli_canvas *c, double x, double y, int align, double size, cli_colour colour, const char *text,
                 bool upright)
{
    const double scale = size / CAPITAL, thickness = fmax(1.15, size / 8);
    double pen = -cli_text_width(text, size) * (align < 0 ? 0 : align > 0 ? 1 : 0.5);
    for (const char *g; (g = next_glyph(&text)) != NULL; pen += (g[1] - g[0]) * scale) {
        double from[2] = {0, 0};
        bool down = false;
        for (const char *p = g + 2; *p; p += 2) {
            if (*p == ' ') {
                down = false;
                continue;
            }
            const double u = pen + (p[0] - g[0]) * scale,
                         v = (p[1] - 'R' - (CLI_FONT_TOP + CLI_FONT_BASE) / 2.0) * scale;
            const double to[2] = {upright ? x + v : x + u, upright ? y - u : y + v};
            if (down) cli_draw_line(c, from[0], from[1], to[0], to[1], thickness, colour);
            memcpy(from, to, sizeof from);
            down = true;
        }
    }
}

void cli_draw_text(struct cli_canvas *c, double x, double y, int align, double size, cli_colour colour,
                   const char *text)
{
    draw(c, x, y, align, size, colour, text, false);
}

void cli_draw_text_upright(struct cli_canvas *c, double x, double y, int align, double size, cli_colour colour,
                           const char *text)
{
    draw(c, x, y, align, size, colour, text, true);
}

struct bytes {
    unsigned char *data;
    size_t size;
    bool failed;
};

static void collect(void *user, void *data, int size)
{
    struct bytes *b = user;
    unsigned char *grown = b->failed ? NULL : realloc(b->data, b->size + (size_t)size);
    if (!grown) {
        b->failed = true;
        return;
    }
    memcpy(grown + b->size, data, (size_t)size);
    b->data = grown;
    b->size += (size_t)size;
}

gyre_status cli_canvas_write(const struct cli_canvas *c, const char *path, gyre_error *err)
{
    struct bytes png = {0};
    const int good = stbi_write_png_to_func(collect, &png, c->width, c->height, 3, c->rgb, c->width * 3);
    const gyre_status st = good && !png.failed
                               ? gyre_file_write(path, png.data, png.size, err)
                               : gyre_fail(err, GYRE_E_NOMEM, "cannot write plot (%s): out of memory", path);
    free(png.data);
    return st;
}
