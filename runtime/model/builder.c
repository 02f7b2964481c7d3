// See builder.h. The order inside attention and gated units follows the proofs in docs/numerics.md: RoPE before R3, R3
// before the cache, R4 behind act * up, an online R1 behind the norm.
#include "runtime/model/builder.h"
#include "runtime/model/arch.h"

static const struct gyre_binding none = {0};

void gyre_build_block(struct gyre_builder *b)
{
    b->live = b->from == GYRE_PRODUCTS;
    b->hp->family->block(b);
}

gyre_value gyre_b_norm(struct gyre_builder *b, gyre_value x, gyre_role norm)
{
    if (!b->live) return GYRE_NONE;
    const struct gyre_had_desc *r1 = &b->shared->r1;
    const gyre_product product = gyre_norm_product(norm);
    const gyre_value y = gyre_g_rms_norm(b->g, x, b->layer->norm[norm], b->hp->stream_eps);
    if (!r1->n || product == GYRE_PRODUCTS || gyre_products[product].reads != GYRE_ROTATION_R1) return y;
    return gyre_g_hadamard(b->g, y, r1, b->hp->width / r1->n, false, none);
}

gyre_value gyre_b_linear(struct gyre_builder *b, gyre_value x, gyre_product product)
{
    if (b->from == product) {
        b->live = true;
        x = b->tap;
    }
    if (!b->live) return GYRE_NONE;
    if (b->to == product) {
        b->tap = x;
        b->live = false;
        return GYRE_NONE;
    }
    const struct gyre_weight *w = &b->layer->product[product];
    const bool learned = b->layer->act_clip[product] > 0 && b->precision->act == b->hp->act_bits;
    x = gyre_g_gather(b->g, x, w->order);
    const struct gyre_tap tap = gyre_tap_at(b->hp, &b->layer->kind, product, b->precision);
    const float clip = learned ? b->layer->act_clip[product] : tap.clip;
    const gyre_value q = gyre_g_quantize_groups(b->g, x, tap.bits, clip, b->hp->act_group);
    return gyre_g_linear(b->g, q, w, b->layer->bias[product]);
}

gyre_value gyre_b_attend(struct gyre_builder *b, gyre_value qkv)
{
    if (!b->live) return GYRE_NONE;
    const struct gyre_hparams *hp = b->hp;
    const gyre_turn turn = (gyre_turn)b->layer->kind.turn;
    const struct gyre_precision *p = b->precision;
    const bool low = p->kv < 16 || p->kv_v < 16; // 16 bits have nothing to gain from R3 or a centre
    const struct gyre_attn_shape shape = {.heads = hp->heads,
                                          .kv_heads = hp->kv_heads,
                                          .head_dim = hp->head_dim,
                                          .split = gyre_rope_split(hp),
                                          .mscale = turn == GYRE_TURN_ROPE ? hp->rope_mscale : 1,
                                          .q_beta = hp->q_beta,
                                          .q_span = hp->q_span,
                                          .scale = hp->attn_scale,
                                          .window = b->layer->kind.windowed ? hp->window : 0,
                                          .freqs = b->shared->freqs[turn],
                                          .gains = b->layer->head_gains,
                                          .eps = hp->norm_eps};
    qkv = gyre_g_rope(b->g, qkv, &shape);
    if (hp->rot.r3 && low) qkv = gyre_g_hadamard(b->g, qkv, &b->shared->r3, hp->heads + hp->kv_heads, false, none);
    if (b->cached) {
        b->tap = qkv;
        b->live = false;
        return GYRE_NONE;
    }
    struct gyre_kv_pool pool = *b->kv;
    pool.centre = low ? b->layer->kv_centre : none;
    if (b->layer->kv_clip[0] > 0 && p->kv == hp->kv_bits && p->kv_v == hp->kv_bits_v) {
        pool.clip = b->layer->kv_clip[0];
        pool.clip_v = b->layer->kv_clip[1];
    }
    gyre_g_kv_write(b->g, qkv, &shape, &pool);
    return gyre_g_attn(b->g, qkv, &shape, &pool);
}

gyre_value gyre_b_glu(struct gyre_builder *b, gyre_value gate_up, gyre_act act)
{
    if (!b->live) return GYRE_NONE;
    const gyre_value a = gyre_g_act_mul(b->g, gate_up, act);
    const struct gyre_had_desc *r4 = &b->shared->r4;
    return r4->n ? gyre_g_hadamard(b->g, a, r4, b->hp->ffn / r4->n, false, none) : a;
}

void gyre_b_add(struct gyre_builder *b, gyre_value branch)
{
    if (b->live) b->stream = gyre_g_add(b->g, branch, b->stream);
}

void gyre_b_pre_norm_block(struct gyre_builder *b)
{
    gyre_value h = gyre_b_norm(b, b->stream, GYRE_ROLE_attn_norm);
    h = gyre_b_attend(b, gyre_b_linear(b, h, GYRE_PRODUCT_qkv));
    gyre_b_add(b, gyre_b_linear(b, h, GYRE_PRODUCT_o));
    h = gyre_b_norm(b, b->stream, GYRE_ROLE_ffn_norm);
    h = gyre_b_glu(b, gyre_b_linear(b, h, GYRE_PRODUCT_gate_up), GYRE_ACT_SILU);
    gyre_b_add(b, gyre_b_linear(b, h, GYRE_PRODUCT_down));
}

void gyre_b_sandwich_block(struct gyre_builder *b, gyre_act act)
{
    gyre_value h = gyre_b_norm(b, b->stream, GYRE_ROLE_attn_norm);
    h = gyre_b_attend(b, gyre_b_linear(b, h, GYRE_PRODUCT_qkv));
    h = gyre_b_norm(b, gyre_b_linear(b, h, GYRE_PRODUCT_o), GYRE_ROLE_attn_post_norm);
    gyre_b_add(b, h);
    h = gyre_b_norm(b, b->stream, GYRE_ROLE_ffn_norm);
    h = gyre_b_glu(b, gyre_b_linear(b, h, GYRE_PRODUCT_gate_up), act);
    h = gyre_b_norm(b, gyre_b_linear(b, h, GYRE_PRODUCT_down), GYRE_ROLE_ffn_post_norm);
    gyre_b_add(b, h);
}
