// A tiny model of a family, rotated and rounded, with clips below 1 so that some codes are clipped; or, family "awq" or
// "gptq", as another tool rounded it, with zero points, gptq's inputs in an order of their own.
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct setting {
    const char *family;
    uint32_t wbits, act, kv;
    int32_t wgroup;
    bool centre;
    uint32_t group; // of 4-bit activations; 0: none
    uint32_t kv_v;  // of values; 0: kv
};

const char *made_model(const struct setting *setting); // its file or directory
