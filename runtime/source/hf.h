// The parts of the Hugging Face reader, for hf*.c and safetensors.c only.
#pragma once
#include "runtime/source/json_file.h"
#include "runtime/source/source_impl.h"

// ---- hf_names.c
// "model.layers.7.self_attn.q_proj.weight" -> "blk.7.attn_q.weight"; false: no counterpart.
bool gyre_hf_translate(const char *name, char out[96]);
// Tensors that carry nothing: a buffer that old checkpoints store, and the head of a tied model.
bool gyre_hf_ignored(const char *name, bool tied);

// ---- hf_config.c: the model's keys ("general.architecture", "llama.block_count", ...) from config.json.
gyre_status gyre_hf_config(gyre_source *source, const json_t *json, gyre_error *err) GYRE_MUST_USE;

// A bool of config.json; absent or null: *out stays as it was.
gyre_status gyre_hf_bool(const gyre_source *source, const json_t *json, const char *field, bool *out,
                         gyre_error *err) GYRE_MUST_USE;

// ---- hf.c
// Adds a tensor under its GGUF name; FORMAT unless it has `bytes` bytes. Names without a GGUF counterpart stay.
gyre_status gyre_hf_add_tensor(gyre_source *source, const struct gyre_tensor *tensor, const char *name, uint64_t bytes,
                               const char *path, gyre_error *err) GYRE_MUST_USE;

// ---- safetensors.c: adds the tensors of one file.
gyre_status gyre_safetensors_read(gyre_source *source, const char *path, gyre_error *err) GYRE_MUST_USE;
