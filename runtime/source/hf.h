// The parts of the Hugging Face reader, for hf*.c and safetensors.c only.
#pragma once
#include "runtime/source/json_file.h"
#include "runtime/source/source_impl.h"

// ---- hf_config.c: the model's keys ("general.architecture" is model_type, "qwen3.block_count", ...) from
// config.json.
gyre_status gyre_hf_config(gyre_source *source, const json_t *json, gyre_error *err) GYRE_MUST_USE;

// A bool of config.json; absent or null: *out stays as it was.
gyre_status gyre_hf_bool(const gyre_source *source, const json_t *json, const char *field, bool *out,
                         gyre_error *err) GYRE_MUST_USE;

// ---- hf_quantization.c: what `json`, a quantization_config, says about the linears; everything that gyre would
// compute otherwise than meant is refused by name.
struct gyre_hf_made_for {
    uint32_t act_bits, kv_bits; // of activations and cache; 16 unless it says so
    uint32_t r3, r4;            // segments of online Hadamard transforms; 0: none, GYRE_HF_WHOLE: of the whole width
    uint32_t act_group;         // of 4-bit activations; 0: by the token
};
#define GYRE_HF_WHOLE UINT32_MAX
gyre_status gyre_hf_quantization(gyre_source *source, const json_t *json, struct gyre_hf_made_for *out,
                                 gyre_error *err) GYRE_MUST_USE;

// The keys under which gyre's own files declare online transforms of Sylvester's matrix: of q and k heads after RoPE
// (R3) and of segments of what down reads (R4). 0: none; else powers of two.
gyre_status gyre_hf_online(gyre_source *source, uint32_t r3, uint32_t r4, gyre_error *err) GYRE_MUST_USE;

// ---- safetensors.c
// The name of a tensor of the text model; false: it is none, or carries nothing (a buffer that old checkpoints store,
// the head of a tied model, matrices of transforms that are known by their kind). A directory that holds more has a
// prefix before the names of its text model.
enum { GYRE_HF_TEXT_NAME = 256 };
bool gyre_hf_text_name(const gyre_source *source, const char *name, char out[GYRE_HF_TEXT_NAME]);
// Adds the tensors of one file.
gyre_status gyre_safetensors_read(gyre_source *source, const char *path, gyre_error *err) GYRE_MUST_USE;
// The head that a tied model's files hold all the same: the embedding once more, which nobody needs, or, where it holds
// other numbers, the head. After all files.
gyre_status gyre_safetensors_tied_head(gyre_source *source, gyre_error *err) GYRE_MUST_USE;
