// A canvas for plots: antialiased strokes, rectangles and text, written as PNG. Coordinates are pixels from the upper
// left corner, fractions allowed; what lies outside is cut off. Drawing cannot fail.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

struct cli_canvas {
    int width, height;
    uint8_t *rgb;
}; // rgb[height][width][3]

typedef uint32_t cli_colour; // 0xRRGGBB

// White. width and height 1..16384. Free with cli_canvas_free, also after a failure.
gyre_status cli_canvas_create(int width, int height, struct cli_canvas *out, gyre_error *err) GYRE_MUST_USE;
void cli_canvas_free(struct cli_canvas *canvas);

// A line with round ends; of zero length: a disc of that diameter.
void cli_draw_line(struct cli_canvas *canvas, double x0, double y0, double x1, double y1, double thickness,
                   cli_colour colour);
void cli_draw_dashed(struct cli_canvas *canvas, double x0, double y0, double x1, double y1, double thickness,
                     double dash, cli_colour colour);
void cli_draw_rect(struct cli_canvas *canvas, double x, double y, double width, double height, cli_colour colour);

// ASCII text; other characters become '?'. (x, y) is the middle of the text's height and, by align, its left end (-1),
// middle (0) or right end (1). size: height of a capital letter in pixels; 10 reads well. upright: turned a quarter,
// read from below.
void cli_draw_text(struct cli_canvas *canvas, double x, double y, int align, double size, cli_colour colour,
                   const char *text);
void cli_draw_text_upright(struct cli_canvas *canvas, double x, double y, int align, double size, cli_colour colour,
                           const char *text);
double cli_text_width(const char *text, double size);

// Replaces `path` by the canvas as a PNG file, atomically.
gyre_status cli_canvas_write(const struct cli_canvas *canvas, const char *path, gyre_error *err) GYRE_MUST_USE;
