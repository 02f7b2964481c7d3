// The part of config.json that is about attention: RoPE, windows, and what differs between layers.
#pragma once
#include "runtime/source/hf_values.h"

gyre_status gyre_hf_attention(struct config *c) GYRE_MUST_USE;
