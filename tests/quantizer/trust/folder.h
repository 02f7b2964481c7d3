// Runs whose output is a Hugging Face directory, or whose source is one, on tiny models.
#pragma once
#include "tests/common/tiny.h"
#include <gyre/gyre_quantize.h>

// The family's tiny model, with inner rows for which R4 is one transform in both containers.
struct tiny_options folder_shape(const char *arch);
// gyre_quantize of `from` to `to` on the reference device; the rest as p says.
gyre_status folder_quantize(gyre_quantize_params p, const char *from, const char *to, gyre_error *err);
