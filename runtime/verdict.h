// Whether a file runs, and if not, why: what `gyre inspect` says of any file that can be parsed.
#pragma once
#include "runtime/model/hparams.h"

#include <jansson.h>

// {runs, why_not: [lines], architecture, tensor_types: {type: how many}, unread_types: the same of those that gyre does
// not read, rope, tokenizer, pre_tokenizer, quantization: {method, schemes: [{bits, group}]} or null}. Names are the
// file's own, null where it has none. `hp`: as gyre_hparams_read gave it; where it failed, `read` is its status and
// `failed` its line. The numbers of the tensors are not looked at. NULL: out of memory.
json_t *gyre_verdict(const gyre_source *source, const struct gyre_hparams *hp, gyre_status read,
                     const gyre_error *failed);
