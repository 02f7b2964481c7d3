#include "quantizer/calibration_text.h"
const char gyre_calibration_text[] = "";
const uint64_t gyre_calibration_text_bytes = 0;
