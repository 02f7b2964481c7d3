// The text that activation statistics are taken on when the user gives none: quantizer/data/calibration.txt, whole.
// What is in it and where it is from: quantizer/data/README.md. quantizer/data/embed.cmake makes the array.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Valid UTF-8 without a NUL inside; one NUL follows. Any prefix is a mixture of kinds.
extern const char gyre_calibration_text[];
extern const uint64_t gyre_calibration_text_bytes; // without the NUL

#ifdef __cplusplus
}
#endif
