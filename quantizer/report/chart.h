// Text and charts of an HTML page, written to a stream: escaping, numbers, SVG drawn by the page's style sheet.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// `text` for element content and quoted attributes: & < > " ' escaped; control characters (but newline and tab) and
// what is no UTF-8 become U+FFFD. NULL writes nothing.
void gyre_html_text(FILE *f, const char *text);
// So many significant digits, zeros at the end kept so that columns line up; a dash for what is not finite.
void gyre_html_number(FILE *f, double value, int digits);
// "12.3 MiB"
void gyre_html_size(FILE *f, uint64_t bytes);
// The rest of an <img> after "<img ": src="data:image/png;base64,..."
void gyre_html_png(FILE *f, const unsigned char *png, size_t bytes);

struct gyre_chart_line {
    const char *name, *style; // CSS class: "a" plain, "b" recipe; "thin" added for what is secondary
    const double *y;          // y[i * stride]; NaN, and on a logarithmic axis what is not positive, is a gap
    size_t stride;
};
struct gyre_chart {
    const char *about; // for those who cannot see it
    const char *x_name;
    uint32_t n; // points of each line, at x = 0, 1, ...
    bool logarithmic;
    uint32_t width, height; // of the drawing; the page scales it
    struct gyre_chart_line line[4];
    uint32_t n_lines;
};
// Nothing where no line has a point.
void gyre_chart_lines(FILE *f, const struct gyre_chart *chart);
bool gyre_chart_has_points(const struct gyre_chart *chart);

// A bar for each value, from zero up, labelled; bar `chosen` stands out.
void gyre_chart_bars(FILE *f, const char *about, const uint64_t *label, const double *value, uint32_t n,
                     uint32_t chosen);

// A logarithmic scale from `lo` to `hi` in named zones that end at `end`, with up to two marks on it.
struct gyre_scale_zone {
    const char *name;
    double end;
};
struct gyre_scale_mark {
    const char *name, *style;
    double at; // NaN: none
};
void gyre_chart_scale(FILE *f, const char *about, double lo, const struct gyre_scale_zone *zone, uint32_t n_zones,
                      const struct gyre_scale_mark mark[2]);
