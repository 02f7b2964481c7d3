#pragma once
#include <stdint.h>
extern const char gyre_calibration_text[];
extern const uint64_t gyre_calibration_text_bytes;
