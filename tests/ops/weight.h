// Random weights in the layout of shaders/params.h, and rows that products read.
#pragma once
#include "tests/ops/check.h"

enum { W_F32 = 32, W_F16 = 16, W_W8 = 8, W_W4 = 4, W_W4Z = 3 }; // Z: W4 with zero points
// A random device weight in the layout of shaders/params.h; `scale` and `sums` are real for W_W8 and W_W4.
struct weight {
    int kind, n, k, group, n_pad; // kind W_W4 and zeros for W_W4Z
    bool zeros;
    struct check_bind words, scale, sums;
};
const char *weight_name(int kind); // as in the names of kernels
struct weight weight_random(struct check *check, int kind, int n, int k, int group);

struct input {
    struct check_bind x, meta;
};
// bits 0: floats; 24, 8, 4: quantized rows (24: three bytes each, 4: with zero points).
struct input input_random(struct check *check, int rows, int k, int bits);
