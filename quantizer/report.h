// The summary as a page for people: DIR/report.md. No time or path in it: equal runs give equal reports on one machine.
#pragma once
#include "quantizer/plan.h"

gyre_status gyre_report_write(const char *folder, const struct gyre_plan *plan, const gyre_quantize_summary *summary,
                              gyre_error *err) GYRE_MUST_USE;
