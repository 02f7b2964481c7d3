// A Llama-shaped model in double precision, small enough to be obviously right: the judge of the rotations.
#pragma once
#include "quantizer/transform/rotate.h"

struct tiny {
    struct gyre_hparams hp;
    double *linear[2][GYRE_LINEARS], *attn_norm[2], *ffn_norm[2]; // two layers
    double *embedding, *head, *final_norm;                        // head: NULL when tied
    // What the forward pass does online.
    bool r3, r3_before_rope, r4, head_rotation;
    const struct gyre_rotator *rotator; // for r4 and the head
};

void tiny_make(struct tiny *t, uint32_t width, uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint32_t ffn,
               bool tied);
void tiny_copy(struct tiny *to, const struct tiny *from);
void tiny_free(struct tiny *t);
// logits [n, vocab]
void tiny_forward(const struct tiny *t, const uint32_t *tokens, uint32_t n, double *logits);
// max|a - b| / max|a|
double tiny_distance(const double *a, const double *b, uint64_t n);
