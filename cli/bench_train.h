// gyre bench --shape NAME --train N: a step of distillation.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// Prints what one step over a window of `tokens` takes, or with `plan` its memory alone; an exit status.
int bench_train(const char *shape, uint32_t wgroup, uint32_t tokens, const char *device, bool plan, bool json);
