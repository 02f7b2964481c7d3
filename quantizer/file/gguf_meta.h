// The metadata of an output GGUF file: for gguf_format.c.
#pragma once
#include "quantizer/file/gguf_write.h"
#include "quantizer/file/plan.h"

gyre_status gyre_gguf_metadata(const struct gyre_plan *plan, struct gyre_gguf *out, gyre_error *err) GYRE_MUST_USE;
