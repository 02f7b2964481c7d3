// gyre quantize --sensitivity: what each part of a model costs when it alone is rounded.
#pragma once
#include <gyre/gyre_quantize.h>

// Measures and prints, as text or as one JSON document on stdout; returns the exit status. Wants no params->output.
int cli_sensitivity(const gyre_quantize_params *params, uint32_t windows, bool json);
