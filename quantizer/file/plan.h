// What a run will write, decided before anything is written: rotations, metadata, every tensor with its type and place.
#pragma once
#include "quantizer/file/gguf_write.h"
#include "quantizer/recipe/recipe.h"
#include "quantizer/transform/rotate.h"

enum { GYRE_MAX_SEEDS = 1024 };

// What was left open by the recipe and then chosen (choose.h).
struct gyre_choice {
    uint64_t seed;                   // of the rotation that is used
    uint32_t n_seeds;                // candidates, from the run's seed on
    float surrogate[GYRE_MAX_SEEDS]; // of each; n_seeds 1: none was computed
    float act_clip, kv_clip;         // of the run-time quantizers
};

struct gyre_plan {
    const gyre_source *source;
    struct gyre_settings set;
    struct gyre_hparams hp;       // of the source; rope_interleaved as the rows will be written
    struct gyre_rotator rotator;  // what is merged; all off under a recipe that does not rotate
    struct gyre_rotations online; // what the file declares; borrows from rotator, r3 and head_gain
    struct gyre_hadamard r3;
    struct gyre_choice choice;
    float *final_gain;         // [D], the source's output_norm
    bool permute_qk;           // q and k rows go from half-split (HF) to interleaved (GGUF) order
    bool writes_rope_divisors; // rope_freqs is in the output
    bool write_head;           // the output has its own output.weight
    bool fold_head;            // ... with the final gain folded in; output_norm becomes ones
    gyre_dtype table_type;     // of the embedding and the head
    struct gyre_gguf gguf;
    uint64_t globals, per_layer; // tensors before the first block, and of each block
    unsigned char *front;        // everything before the first tensor's data
    uint64_t front_bytes, file_bytes;
};

// In two steps, since some recipes choose between them: the first reads and checks model and settings, the second
// decides about rotations, metadata and tensors. `source` must outlive the plan. Release also after failure.
gyre_status gyre_plan_begin(const gyre_quantize_params *params, const gyre_source *source, struct gyre_plan *out,
                            gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_plan_finish(const gyre_quantize_params *params, const struct gyre_choice *choice,
                             struct gyre_plan *plan, gyre_error *err) GYRE_MUST_USE;
void gyre_plan_release(struct gyre_plan *plan);

// Hyper-parameters of the output as the runtime will read them; borrows from the plan, do not free.
struct gyre_hparams gyre_plan_output_hparams(const struct gyre_plan *plan);

// The tensors of a block in the order in which they lie in the file.
typedef enum gyre_part_kind { GYRE_PART_LINEAR, GYRE_PART_VECTOR, GYRE_PART_BIAS, GYRE_PART_CENTRE } gyre_part_kind;
struct gyre_plan_part {
    gyre_role role;
    gyre_part_kind kind; // LINEAR: its codes, and its scales behind them where those are a tensor of their own
};
enum { GYRE_PLAN_PARTS = GYRE_BLOCK_ROLES + 2 * GYRE_LINEARS };
uint32_t gyre_plan_block(const struct gyre_plan *plan, uint32_t layer, struct gyre_plan_part out[GYRE_PLAN_PARTS]);

// Writes the metadata of the output (plan_meta.c).
gyre_status gyre_plan_metadata(struct gyre_plan *plan, gyre_error *err) GYRE_MUST_USE;
