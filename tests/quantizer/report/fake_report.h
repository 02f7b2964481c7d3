// A report with every section filled, for tests and for looking at it.
#pragma once
#include "quantizer/report/report.h"

struct fake_report {
    struct gyre_report report;
    struct gyre_report_row setting[6], rotation[3];
    uint64_t seed[16];
    double surrogate[16];
    gyre_quantize_layer layer[30];
    struct gyre_report_tap tap[30 * GYRE_PRODUCTS];
    struct gyre_heat_map before, after;
    struct gyre_report_linear linear[30 * 7];
    char name[30 * 7][64];
};
void fake_report(struct fake_report *out);
