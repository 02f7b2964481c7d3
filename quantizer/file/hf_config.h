// The small files of a Hugging Face directory that gyre writes, for hf_format.c.
#pragma once
#include "quantizer/file/writer.h"

// config.json, the index of the shards, and everything that belongs to the tokenizer, carried along from the source:
// fills out->text from the plan and the tensors of `out`. `module`: the name of a linear in the directory.
gyre_status gyre_hf_texts(const struct gyre_plan *plan, struct gyre_writer *out, gyre_error *err) GYRE_MUST_USE;

// Names of the files that are carried along where the source has them, in their order; ends with NULL.
extern const char *const gyre_hf_carried[];

enum { GYRE_HF_NAME = 96 };
// "model.layers.3.mlp.up_proj.PART", or without PART (NULL) the module; of the tensor that it shares with others where
// the architecture has such.
void gyre_hf_name(const struct gyre_hparams *hp, gyre_role role, uint32_t layer, const char *part,
                  char out[GYRE_HF_NAME]);
