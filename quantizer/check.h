// What is refused, or said, before a run's work begins: where model, recipe, place and device do not go together beyond
// what the plan refuses. Public: gyre_quantize_check, the same without a run.
#pragma once
#include "quantizer/file/plan.h"

enum { GYRE_DISTILLS_ON = 32 }; // bytes of a device's id

// GYRE_E_UNSUPPORTED: the recipe distills, and the output is a folder. A source whose tokenizer nothing here can run is
// warned of, one whose tokenizer cannot be written is refused.
gyre_status gyre_check_run(const gyre_quantize_params *params, const struct gyre_plan *plan,
                           gyre_error *err) GYRE_MUST_USE;
// The device that distillation is to run on is there; its id, or nothing where params name none: the host.
gyre_status gyre_check_distill_device(const gyre_quantize_params *params, const struct gyre_plan *plan,
                                      char id[GYRE_DISTILLS_ON], gyre_error *err) GYRE_MUST_USE;
// A word of what was asked for and comes to nothing.
void gyre_warn_unused(const gyre_quantize_params *params, const struct gyre_plan *plan);
