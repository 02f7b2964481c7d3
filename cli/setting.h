// Settings as people write them: W4A8KV8, W4g32A4KV4, W4A8K8V4, W4A16.
//
//   setting = weights ["g" group] activations [cache]
//   weights = "W4" | "W8" | "W16"      group = 0 (per channel) | 32 | 64 | 128, not with W16
//   activations = "A16" | "A8" | "A4"  cache = "KV16" | "KV8" | "KV4" | "K" bits "V" bits,
//   KV16 where absent
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLI_SETTING_NAME = 32 };
struct cli_setting {
    uint32_t wbits, wgroup, act, kv, kv_v; // kv of keys, kv_v of values
};                                         // wgroup 0: per channel, and for W16

// Reads text[0..n); `wgroup` is taken where no group is given. On failure `why` says in one clause what is wrong.
bool cli_setting_parse(const char *text, size_t n, uint32_t wgroup, struct cli_setting *out, char *why,
                       size_t why_size);
// The same with the group always told: "W4g32A8KV8".
void cli_setting_name(const struct cli_setting *setting, char out[CLI_SETTING_NAME]);
// What the weights alone depend on: "W4g32".
void cli_setting_weights(const struct cli_setting *setting, char out[CLI_SETTING_NAME]);
