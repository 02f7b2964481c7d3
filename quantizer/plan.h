// What a run will write, decided before anything is written: rotations, metadata, every tensor with its type and place.
#pragma once
#include "quantizer/gguf_write.h"
#include "quantizer/recipe.h"
#include "quantizer/rotate.h"

struct gyre_plan {
    const gyre_source *source;
    struct gyre_settings set;
    struct gyre_hparams hp;       // of the source; rope_interleaved as the rows will be written
    struct gyre_rotator rotator;  // what is merged; all off under a recipe that does not rotate
    struct gyre_rotations online; // what the file declares; borrows from rotator, r3 and head_gain
    struct gyre_hadamard r3;
    float act_clip, kv_clip; // of the run-time quantizers
    float *final_gain;     // [D], the source's output_norm
    bool permute_qk;       // q and k rows go from half-split (HF) to interleaved (GGUF) order
    bool write_head;       // the output has its own output.weight
    bool fold_head;        // ... with the final gain folded in; output_norm becomes ones
    gyre_dtype table_type; // of the embedding and the head
    struct gyre_gguf gguf;
    uint64_t globals, per_layer; // tensors before the first block, and of each block
    unsigned char *front;        // everything before the first tensor's data
    uint64_t front_bytes, file_bytes;
};

// `source` must outlive the plan. Release also after failure.
gyre_status gyre_plan_make(const gyre_quantize_params *params, const gyre_source *source, struct gyre_plan *out,
                           gyre_error *err) GYRE_MUST_USE;
void gyre_plan_release(struct gyre_plan *plan);

// Hyper-parameters of the output as the runtime will read them; borrows from the plan, do not free.
struct gyre_hparams gyre_plan_output_hparams(const struct gyre_plan *plan);

// Writes the metadata of the output (plan_meta.c).
gyre_status gyre_plan_metadata(struct gyre_plan *plan, gyre_error *err) GYRE_MUST_USE;
