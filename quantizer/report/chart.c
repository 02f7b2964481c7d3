// See chart.h.
#include "quantizer/report/chart.h"
#include "runtime/util/base.h"

#include <utf8proc.h>

#include <math.h>
#include <string.h>

// ---- text ---------------------------------------------------------------------------------------------------

void gyre_html_text(FILE *f, const char *text)
{
    if (!text) return;
    for (size_t left = strlen(text); left;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)left, &c);
        const size_t step = n > 0 ? (size_t)n : 1;
        const bool control =
            n > 0 && ((c < 32 && c != '\n' && c != '\t') || (c >= 127 && c < 160) || (c & 0xFFFE) == 0xFFFE);
        if (n <= 0 || control) fputs("\xEF\xBF\xBD", f);
        else if (c == '&') fputs("&amp;", f);
        else if (c == '<') fputs("&lt;", f);
        else if (c == '>') fputs("&gt;", f);
        else if (c == '"') fputs("&quot;", f);
        else if (c == '\'') fputs("&#39;", f);
        else fwrite(text, 1, step, f);
        text += step;
        left -= step;
    }
}

void gyre_html_number(FILE *f, double value, int digits)
{
    if (!isfinite(value)) fputs("–", f);
    else if (value == 0) fputs("0", f);
    else if (fabs(value) < pow(10, digits - 1)) fprintf(f, "%#.*g", digits, value);
    else fprintf(f, fabs(value) < 1e9 ? "%.0f" : "%.3g", value);
}

void gyre_html_size(FILE *f, uint64_t bytes)
{
    if (!bytes) fputs("–", f);
    else if (bytes >= 10ull << 30) fprintf(f, "%.1f GiB", (double)bytes / (1 << 30));
    else if (bytes >= 1 << 20) fprintf(f, "%.1f MiB", (double)bytes / (1 << 20));
    else fprintf(f, "%.1f KiB", (double)bytes / (1 << 10));
}

void gyre_html_png(FILE *f, const unsigned char *png, size_t bytes)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    fputs("src=\"data:image/png;base64,", f);
    for (size_t i = 0; i < bytes; i += 3) {
        const size_t n = GYRE_MIN(bytes - i, 3);
        const uint32_t word =
            (uint32_t)png[i] << 16 | (n > 1 ? (uint32_t)png[i + 1] << 8 : 0) | (n > 2 ? png[i + 2] : 0);
        fputc(digit[word >> 18], f);
        fputc(digit[word >> 12 & 63], f);
        fputc(n > 1 ? digit[word >> 6 & 63] : '=', f);
        fputc(n > 2 ? digit[word & 63] : '=', f);
    }
    fputc('"', f);
}

// ---- lines --------------------------------------------------------------------------------------------------

enum { LEFT = 52, RIGHT = 14, TOP = 12, BOTTOM = 34 };

struct axis {
    double lo, hi; // of the values; of their logarithms on a logarithmic axis
    bool logarithmic;
};

static bool position(const struct axis *a, double value, double *out)
{
    if (!isfinite(value) || (a->logarithmic && value <= 0)) return false;
    *out = ((a->logarithmic ? log10(value) : value) - a->lo) / (a->hi - a->lo);
    return true;
}

static double point(const struct gyre_chart *c, uint32_t line, uint32_t i)
{
    return c->line[line].y[i * c->line[line].stride];
}

// The range of all points; false where there is none.
static bool range(const struct gyre_chart *c, struct axis *out)
{
    *out = (struct axis){(double)INFINITY, (double)-INFINITY, c->logarithmic};
    for (uint32_t l = 0; l < c->n_lines; l++)
        for (uint32_t i = 0; i < c->n; i++) {
            const double y = point(c, l, i);
            if (!isfinite(y) || (c->logarithmic && y <= 0)) continue;
            out->lo = fmin(out->lo, c->logarithmic ? log10(y) : y);
            out->hi = fmax(out->hi, c->logarithmic ? log10(y) : y);
        }
    return out->lo <= out->hi;
}

bool gyre_chart_has_points(const struct gyre_chart *c)
{
    struct axis a;
    return range(c, &a);
}

// A step of 1, 2 or 5 times a power of ten that cuts `span` into at most `most` parts.
static double nice_step(double span, double most)
{
    const double raw = span / most, power = pow(10, floor(log10(raw)));
    return power * (raw <= power ? 1 : raw <= 2 * power ? 2 : raw <= 5 * power ? 5 : 10);
}

static void y_tick(FILE *f, const struct gyre_chart *c, const struct axis *a, double value)
{
    double at;
    if (!position(a, value, &at) || at < -1e-9 || at > 1 + 1e-9) return;
    const double y = TOP + (1 - at) * (c->height - TOP - BOTTOM);
    fprintf(f, "<path class=\"grid\" d=\"M%d %.1fH%u\"/><text class=\"end\" x=\"%d\" y=\"%.1f\">%.3g</text>", LEFT, y,
            c->width - RIGHT, LEFT - 8, y + 4, fabs(value) < 1e-12 * fabs(a->hi) ? 0 : value);
}

static void axes(FILE *f, const struct gyre_chart *c, struct axis *a)
{
    if (c->logarithmic) {
        const double pad = fmax(0.05, (a->hi - a->lo) * 0.06);
        a->lo -= pad, a->hi += pad;
        const bool wide = a->hi - a->lo > 2.2;
        const double skip = ceil((a->hi - a->lo) / 6);
        for (double p = floor(a->lo); p <= a->hi; p++) {
            if (wide && fmod(p, fmax(skip, 1)) != 0) continue;
            y_tick(f, c, a, pow(10, p));
            if (wide) continue;
            y_tick(f, c, a, 2 * pow(10, p));
            y_tick(f, c, a, 5 * pow(10, p));
        }
    } else {
        if (a->lo > 0) a->lo = 0;
        if (a->hi <= a->lo) a->hi = a->lo + 1;
        const double step = nice_step(a->hi - a->lo, 5);
        a->hi = ceil(a->hi / step - 1e-9) * step;
        for (double i = ceil(a->lo / step); i * step <= a->hi + step * 1e-6; i++) y_tick(f, c, a, i * step);
    }
}

static double x_of(const struct gyre_chart *c, uint32_t i)
{
    const double width = c->width - LEFT - RIGHT;
    return c->n > 1 ? LEFT + width * i / (c->n - 1) : LEFT + width / 2;
}

static void draw_line(FILE *f, const struct gyre_chart *c, const struct axis *a, uint32_t l)
{
    const double height = c->height - TOP - BOTTOM;
    double at;
    bool open = false;
    fprintf(f, "<g class=\"line %s\"><path d=\"", c->line[l].style);
    for (uint32_t i = 0; i < c->n; i++) {
        const bool there = position(a, point(c, l, i), &at);
        if (there) fprintf(f, "%c%.1f %.1f", open ? 'L' : 'M', x_of(c, i), TOP + (1 - at) * height);
        open = there;
    }
    fputs("\"/>", f);
    for (uint32_t i = 0; c->n <= 128 && i < c->n; i++) { // what a pointer that rests on it is told
        if (!position(a, point(c, l, i), &at)) continue;
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", x_of(c, i), TOP + (1 - at) * height,
                c->n > 48 ? "1.6" : "2.6");
        gyre_html_text(f, c->line[l].name);
        fprintf(f, ", %s %u: %.4g</title></circle>", c->x_name, i, point(c, l, i));
    }
    fputs("</g>", f);
}

void gyre_chart_lines(FILE *f, const struct gyre_chart *c)
{
    struct axis a;
    if (!range(c, &a)) return;
    fprintf(f, "<svg role=\"img\" viewBox=\"0 0 %u %u\" aria-label=\"", c->width, c->height);
    gyre_html_text(f, c->about);
    fputs("\">", f);
    axes(f, c, &a);
    const uint32_t step = c->n > 1 ? (uint32_t)fmax(1, nice_step(c->n - 1, c->width / 60)) : 1;
    for (uint32_t i = 0; i < c->n; i += step)
        fprintf(f, "<text class=\"mid\" x=\"%.1f\" y=\"%u\">%u</text>", x_of(c, i), c->height - BOTTOM + 16, i);
    fprintf(f, "<text class=\"mid\" x=\"%.1f\" y=\"%u\">", (LEFT + c->width - RIGHT) / 2.0, c->height - 3);
    gyre_html_text(f, c->x_name);
    fputs("</text>", f);
    for (uint32_t l = 0; l < c->n_lines; l++) draw_line(f, c, &a, l);
    fputs("</svg>\n", f);
}

// ---- bars ---------------------------------------------------------------------------------------------------

void gyre_chart_bars(FILE *f, const char *about, const uint64_t *label, const double *value, uint32_t n,
                     uint32_t chosen)
{
    enum { HEIGHT = 150, WIDTH = 720, BASE = HEIGHT - 22 };
    double most = 0;
    for (uint32_t i = 0; i < n; i++)
        if (isfinite(value[i])) most = fmax(most, value[i]);
    const double slot = fmin(64, (double)WIDTH / n);
    const uint32_t every = (uint32_t)ceil(36 / slot); // labels need room
    fprintf(f, "<svg role=\"img\" class=\"bars\" viewBox=\"0 0 %d %d\" aria-label=\"", WIDTH, HEIGHT);
    gyre_html_text(f, about);
    fputs("\">", f);
    for (uint32_t i = 0; i < n; i++) {
        const double height =
            most > 0 && value[i] > 0 && isfinite(value[i]) ? fmax(1, value[i] / most * (BASE - 18)) : 0;
        const double x = i * slot + slot * 0.14, width = slot * 0.72, middle = i * slot + slot / 2;
        fprintf(
            f, "<rect class=\"bar%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\"><title>seed %llu: ",
            i == chosen ? " chosen" : "", x, BASE - height, width, height, (unsigned long long)label[i]);
        gyre_html_number(f, value[i], 5);
        fputs("</title></rect>", f);
        if (i == chosen || slot >= 36) {
            fprintf(f, "<text class=\"mid%s\" x=\"%.1f\" y=\"%.1f\">", i == chosen ? " strong" : "", middle,
                    BASE - height - 5);
            gyre_html_number(f, value[i], 3);
            fputs("</text>", f);
        }
        if (i % every == 0 || i == chosen)
            fprintf(f, "<text class=\"mid%s\" x=\"%.1f\" y=\"%d\">%llu</text>", i == chosen ? " strong" : "", middle,
                    BASE + 16, (unsigned long long)label[i]);
    }
    fprintf(f, "<path class=\"axis\" d=\"M0 %d.5H%.1f\"/></svg>\n", BASE, slot * n);
}

// ---- a scale ------------------------------------------------------------------------------------------------

void gyre_chart_scale(FILE *f, const char *about, double lo, const struct gyre_scale_zone *zone, uint32_t n_zones,
                      const struct gyre_scale_mark mark[2])
{
    enum { WIDTH = 720, HEIGHT = 104, BAR = 42, THICK = 18 };
    const double from = log10(lo), span = log10(zone[n_zones - 1].end) - from;
    fprintf(f, "<svg role=\"img\" class=\"scale\" viewBox=\"0 0 %d %d\" aria-label=\"", WIDTH, HEIGHT);
    gyre_html_text(f, about);
    fputs("\">", f);
    double left = 0;
    for (uint32_t i = 0; i < n_zones; i++) {
        const double right = (log10(zone[i].end) - from) / span * WIDTH;
        fprintf(f, "<rect class=\"zone%u\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>", i, left + 1, BAR,
                right - left - 2, THICK);
        fprintf(f, "<text class=\"mid zone\" x=\"%.1f\" y=\"%d\">", (left + right) / 2, BAR + 13);
        gyre_html_text(f, zone[i].name);
        fputs("</text>", f);
        left = right;
    }
    for (int i = 0; i < 2; i++) {
        if (!isfinite(mark[i].at)) continue;
        const double at = fmin(fmax((log10(fmax(mark[i].at, lo)) - from) / span, 0), 1) * WIDTH;
        const double tip = i ? BAR + THICK : BAR, back = i ? tip + 9 : tip - 9, text = i ? back + 13 : back - 5;
        const char *anchor = at < 90 ? "" : at > WIDTH - 90 ? "end" : "mid";
        fprintf(
            f, "<g class=\"mark %s\"><path d=\"M%.1f %.1fL%.1f %.1fH%.1fZ\"/><text class=\"%s\" x=\"%.1f\" y=\"%.1f\">",
            mark[i].style, at, tip, at - 6, back, at + 6, anchor, at, text);
        gyre_html_text(f, mark[i].name);
        fputc(' ', f);
        gyre_html_number(f, mark[i].at, 3);
        fputs("</text></g>", f);
    }
    fputs("</svg>\n", f);
}
