// Between distill.c and distill_write.c.
#pragma once
#include "quantizer/file/output.h"
#include "quantizer/gradient/student.h"

// Writes what the parameters [student->n] amount to over OUT.part, which `part` reads: codes are read from there and
// written back with new scales.
gyre_status gyre_distill_write(const struct gyre_plan *plan, const gyre_source *part,
                               const struct gyre_student *student, const double *parameter, struct gyre_output *out,
                               gyre_error *err) GYRE_MUST_USE;
