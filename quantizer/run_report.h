// From a finished run to its report.
#pragma once
#include "quantizer/learn/learn.h"
#include "quantizer/pass/calibrate.h"
#include "quantizer/file/output.h"
#include "quantizer/pass/summary.h"

struct gyre_report_run {
    const struct gyre_output *out;                // with its plan, and the journal's notes of every block
    const gyre_calibration *calibration;          // NULL: the recipe needs none
    const struct gyre_learned_rotations *learned; // steps 0: none were
    const gyre_quantize_summary *summary;
    const struct gyre_summary_heat *heat; // may be NULL
};

// Everything that the run knows of itself, written by gyre_report_save.
gyre_status gyre_report_write(const char *folder, const struct gyre_report_run *run, gyre_error *err) GYRE_MUST_USE;
