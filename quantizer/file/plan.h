// What a run will write, decided before anything is written: rotations, metadata, every tensor with its type and place.
#pragma once
#include "quantizer/file/base.h"
#include "quantizer/file/choice.h"
#include "quantizer/recipe/recipe.h"
#include "quantizer/transform/rotate.h"

#include <stddef.h>

// Bytes of gyre_quantize_params at level 2000, for gyre_params_take.
enum { GYRE_QUANTIZE_PARAMS_FIRST = offsetof(gyre_quantize_params, distill_device) };

// What is written, by what it is; names, types and places are the writer's (writer.h).
typedef enum gyre_plan_part_kind {
    GYRE_PART_TABLE,     // embedding, head
    GYRE_PART_LINEAR,    // of a block: its codes and scales, or its floats
    GYRE_PART_VECTOR,    // a norm, RoPE's divisors
    GYRE_PART_BIAS,      // of a linear
    GYRE_PART_CENTRE,    // of a linear whose heads are cached
    GYRE_PART_ACT_CLIPS, // learned: of every tap of every block
    GYRE_PART_KV_CLIPS,  // of keys and values of every block
    GYRE_PART_HEAD_MIX,  // the matrix of a head between learned rotations
    GYRE_PART_HEAD_GAIN, // what the online transform at the head undoes and redoes its rotation around
    GYRE_PART_BASE       // a +-1 matrix of an online transform; layer: 3 * gyre_base_site + its place among the factors
} gyre_plan_part_kind;
enum gyre_base_site { GYRE_BASE_R1, GYRE_BASE_R3, GYRE_BASE_R4, GYRE_BASE_HEAD, GYRE_BASE_SITES };

struct gyre_plan_part {
    gyre_plan_part_kind kind;
    gyre_role role; // GYRE_ROLE_none: of no role
    uint32_t layer; // 0 outside of the blocks
};

struct gyre_planned {
    struct gyre_plan_part part;
    uint64_t rows, cols;  // a vector has one row
    uint32_t bits, group; // 4, 8: codes, and the columns that share a scale (0: a row; bases have none); 16, 32: floats
};

struct gyre_plan {
    const gyre_source *source;
    struct gyre_base base; // the same, once it was read
    struct gyre_settings set;
    bool folder;                  // the output is a Hugging Face directory; else a GGUF file
    uint64_t shard_bytes;         // of a folder: most of one of its files
    struct gyre_hparams hp;       // of the source; rope_interleaved as the rows will be written, bits of taps too
    struct gyre_rotator rotator;  // what is merged; all off under a recipe that does not rotate
    struct gyre_rotations online; // what the file declares; borrows from rotator, r3 and head_gain
    struct gyre_hadamard r3;
    struct gyre_choice choice;
    float *final_gain;           // [D], the source's output_norm
    uint32_t window_period;      // a plain file says by it which blocks have the window; 0: it says nothing of it
    bool permute_qk;             // q and k rows go from half-split (HF) to interleaved (GGUF) order
    bool writes_rope_divisors;   // rope_freqs is in the output, or with longrope its two tensors
    bool leaves_centre;          // the recipe centres the cache, which a directory cannot say
    bool writes_clips;           // learned ones are in the output
    bool write_head;             // the output has its own output.weight
    bool fold_head;              // ... with the final gain folded in; output_norm becomes ones
    gyre_dtype table_type;       // of the embedding and, where it is no other, the head
    gyre_dtype head_type;        // of the head
    struct gyre_planned *tensor; // in the order in which they are written
    uint64_t n_tensors;
};

// What is written where: `format` decides, else the name (.gguf), else the source's own container.
gyre_status gyre_plan_folder(const gyre_quantize_params *params, const gyre_source *source, bool *folder,
                             gyre_error *err) GYRE_MUST_USE;

// What of gyre_plan_begin needs no number of a tensor: whether the model and the settings go together. recipe NULL: the
// one that params name.
gyre_status gyre_plan_allow(const gyre_quantize_params *params, const struct gyre_recipe *recipe,
                            const gyre_source *source, struct gyre_plan *out, gyre_error *err) GYRE_MUST_USE;

// In two steps, since some recipes choose between them: the first reads and checks model and settings, the second
// decides about rotations, metadata and tensors. `source` must outlive the plan. Release also after failure.
gyre_status gyre_plan_begin(const gyre_quantize_params *params, const struct gyre_recipe *recipe,
                            const gyre_source *source, struct gyre_plan *out, gyre_error *err) GYRE_MUST_USE;
// Between the two: exceptions that were found for the recipe's budget (gyre_settings_except).
gyre_status gyre_plan_except(struct gyre_plan *plan, const struct gyre_exception *list, uint32_t n,
                             gyre_error *err) GYRE_MUST_USE;
// The rotations (GYRE_ROTATE_*) that recipe, profile and container ask for.
unsigned gyre_plan_sites(const struct gyre_plan *plan);
gyre_status gyre_plan_finish(const gyre_quantize_params *params, const struct gyre_choice *choice,
                             struct gyre_plan *plan, gyre_error *err) GYRE_MUST_USE;
void gyre_plan_release(struct gyre_plan *plan);

// Hyper-parameters of the output as the runtime will read them; borrows from the plan, do not free.
struct gyre_hparams gyre_plan_output_hparams(const struct gyre_plan *plan);

// Bits of what the linears of a product read in block `layer`.
uint32_t gyre_plan_act(const struct gyre_plan *plan, uint32_t layer, gyre_product product);
// Clips of all taps, or of keys and values, of all blocks as they are before anything is learned; kind:
// GYRE_PART_ACT_CLIPS, out [n_layers][GYRE_PRODUCTS], or GYRE_PART_KV_CLIPS, out [n_layers][GYRE_CACHED].
void gyre_plan_clips(const struct gyre_plan *plan, gyre_plan_part_kind kind, float *out);

// The numbers of a vector as the output's container holds them, in place.
void gyre_plan_stored(const struct gyre_plan *plan, gyre_role role, float *x, uint64_t n);

// The parts of block `layer` in their order.
enum { GYRE_PLAN_PARTS = GYRE_BLOCK_ROLES + 2 * GYRE_LINEARS };
uint32_t gyre_plan_block(const struct gyre_plan *plan, uint32_t layer, struct gyre_plan_part out[GYRE_PLAN_PARTS]);
