// A block as a graph, in the words of architectures: norms, products, attention, gated units. The builder knows
// quantizers, online rotations, the cache and where the block may be cut; an architecture only says the order (arch.h).
#pragma once
#include "runtime/graph/graph.h"
#include "runtime/model/roles.h"

// The weights of one block on a device.
struct gyre_layer_weights {
    struct gyre_layer_kind kind;
    struct gyre_weight product[GYRE_PRODUCTS];  // their linears side by side along N
    struct gyre_binding bias[GYRE_PRODUCTS];    // f32[N]; buffer NULL: none of its linears has one
    struct gyre_binding norm[GYRE_BLOCK_ROLES]; // f32, of the vectors that stand alone
    struct gyre_binding head_gains;             // f32[2][head size] of q_norm and k_norm; buffer NULL: none
    struct gyre_binding kv_centre;              // f32[2][kv_heads * hd], of keys, then of values; buffer NULL: none
    float act_clip[GYRE_PRODUCTS], kv_clip[2];  // learned, for the file's own widths; of keys, of values; 0: none
};

// What every block shares.
struct gyre_shared {
    struct gyre_binding freqs[GYRE_TURNS]; // f32[hd/2]
    struct gyre_had_desc r1, r3, r4, head; // n = 0: none
};

// A block's graph, whole or the part of it between two taps: from what product `from` reads (GYRE_PRODUCTS: from the
// block's input) to what product `to` reads (GYRE_PRODUCTS: to the block's output). Fill all but `live` (and, at the
// block's input, tap) and call gyre_build_block.
struct gyre_builder {
    gyre_graph *g;
    const struct gyre_hparams *hp;
    const struct gyre_shared *shared;
    const struct gyre_layer_weights *layer;
    const struct gyre_kv_pool *kv;
    const struct gyre_precision *precision;
    gyre_product from, to;
    gyre_value stream; // the residual stream at `from`; afterwards, where building ended
    gyre_value tap;    // what product `from` reads, before it is quantized; afterwards, what product `to` reads
    // Building ends where attention would fill its cache: tap is then q, k, v after RoPE and R3, [R, (H + 2G) hd].
    bool cached;
    bool live; // building is between `from` and `to`
};

// By the architecture's block.
void gyre_build_block(struct gyre_builder *b);

// ---- words for architectures ---------------------------------------------------------------------------------
// Outside of the part that is built they do nothing.

// And, where the product that reads it has an online R1, that.
gyre_value gyre_b_norm(struct gyre_builder *b, gyre_value x, gyre_role norm);
// The quantized input times the product's weights, plus its bias.
gyre_value gyre_b_linear(struct gyre_builder *b, gyre_value x, gyre_product product);
// Attention over the cache: norms of heads, RoPE, R3, the cache write. qkv: [R, (H + 2G) hd].
gyre_value gyre_b_attend(struct gyre_builder *b, gyre_value qkv);
typedef enum gyre_act { GYRE_ACT_SILU, GYRE_ACT_GELU } gyre_act;                 // as shaders/act_mul.k counts them
gyre_value gyre_b_glu(struct gyre_builder *b, gyre_value gate_up, gyre_act act); // act(gate) * up, R4
// What a branch computed, added to b->stream.
void gyre_b_add(struct gyre_builder *b, gyre_value branch);

// The block that most families have: norm, attention, add; norm, gated unit, add. With biases and norms of heads where
// the roles say so.
void gyre_b_pre_norm_block(struct gyre_builder *b);
// The same with a norm behind each branch, before it is added.
void gyre_b_sandwich_block(struct gyre_builder *b, gyre_act act);
#define GYRE_PRE_NORM_ROLES                                                                                            \
    ((GYRE_ROLE_BIT(GYRE_LINEARS) - 1) | GYRE_ROLE_BIT(GYRE_ROLE_attn_norm) | GYRE_ROLE_BIT(GYRE_ROLE_ffn_norm))
#define GYRE_ALL_LINEARS (GYRE_ROLE_BIT(GYRE_LINEARS) - 1)
#define GYRE_QKV_LINEARS (GYRE_ROLE_BIT(GYRE_ROLE_q) | GYRE_ROLE_BIT(GYRE_ROLE_k) | GYRE_ROLE_BIT(GYRE_ROLE_v))
