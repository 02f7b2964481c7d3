/* The parameters of every op, once, for C, GLSL and OpenCL C. GYRE_PARAMS_<op>(I, F) lists the fields: I = int32,
   F = float, nothing else. In C this gives struct gyre_<op>_params; in a kernel PARAMS(op) declares `pc`.

   Letters: R rows of a step, D model width, N outputs, K inputs, F ffn width, H heads, G kv heads, hd head size,
   V vocabulary. "words" are uint32. All tensors are row-major, the last letter contiguous.

   Shared pieces
   rows    int4[R]   {token, sequence, position, flags}; flags bit 0: the row is live, bit 1: it wants logits.
                     A row that is not live writes no KV and its outputs mean nothing.
   quant   a quantized activation is two buffers: codes (four per word along K, each a signed byte; A4 codes are 0..15)
           and meta uint2[R] {bits of f32 scale, int32 zero point}; value = scale * (code - zero). A8 has zero 0.
           span != 0 (A4 alone; a multiple of 4 that divides the row): every `span` values have 16 levels of their own,
           a whole multiple of the row's scale apart; the code is that multiple times the level, and zero is 0.
           24 bits: three bytes a code, 65536 high + 256 middle + low; a row is K high ones, K middle ones, K low ones.
           Its scale is a power of two, NaN where the row is not finite, and zero is 0. No file asks for it.
   weight  a device weight (or one N-range of it, N counted from n0) has N padded to n_pad: codes to whole tiles of 32
           columns, floats to 8. Codes lie tile by tile, so that whoever takes a tile reads one stream: GYRE_BLOCK(K/4,
           k4, n8) is the place of the block of 4 K x 8 N in
           w4   uint4[n_pad/32][K/4][4]: byte b of word j holds codes+8 of (K=b; N=2j low, 2j+1 high nibble)
           w4z  the same, less a zero point 0..15 instead of 8: behind the scales uint[K/group][n_pad/8], eight along N
           w8   uint4[n_pad/32][K/4][4][2]: word j holds four signed bytes along K of N=j
           f16  uint [K][n_pad/2]: two halves along N          f32  float[K][n_pad]
           scale uint[K/group][n_pad/2]: two f16 along N; group = K when per channel.  sums int[K/group][n_pad]:
           sum of the codes (w4z: less the zero point) of that group and column, for the zero point of x. f16 and f32
           weights bind any buffer there.
   kv      per layer a K and a V pool, each with its own bits: codes words[page][G][32][hd*bits/32], packed along hd;
           and meta uint[page][G][32]: f16 scale in the low half, f16-exact integer zero point in the high half (as
           f16); value = scale * (code - zero), codes 0..255 or 0..15. bits 16: two halves a word, meta unused but
           bound. clip is of keys, clip_v of values. centred != 0: less a constant, centre f32[2][G*hd] (of K, then of
           V), which attention adds back for V.
   rope    of a head the pairs (i, i + split) are turned for i < split, behind those (2i, 2i + 1); split 0: all are
           neighbours. A pair whose frequency is 0 stays as it is; the others are multiplied by mscale, queries also by
           1 + q_beta ln(1 + floor(position / q_span)) in all their dimensions.
   window  a query sees the positions beyond its own less this; INT32_MAX: all.
   pages   int[sequence][page_stride]: page number of position/32.
   had     a Hadamard transform of n = k1*k2*k3*2^p along each of `segs` consecutive segments of a row:
           y = x (H_k1 (x) H_k2 (x) H_k3 (x) H_2^p) / sqrt(n), or with the transposed matrix when had_t != 0.
           k's are 1 when absent. base words: for k1, k2, k3 in turn (absent ones take no words) k rows of
           ceil(k/32) words, bit j of row i set = entry (i, j) is -1.                                             */
#pragma once
#define GYRE_HISTORY 16 /* of a row, the tokens that were chosen last: that of position p at p % 16 */
#define GYRE_TILE 32 /* columns of a weight that lie together */
#define GYRE_BLOCK(rows4, k4, n8) ((((n8) / 4) * (rows4) + (k4)) * 4 + (n8) % 4)
#define GYRE_PARAMS_HAD(I, F) I(n) I(segs) I(k1) I(k2) I(k3) I(p) I(had_t)

#define GYRE_PARAMS_embed(I, F) I(rows) I(width) I(n0) I(n) I(n_pad) I(group) F(scale)
#define GYRE_PARAMS_rms_norm(I, F) I(rows) I(width) F(eps) I(bits) F(clip) I(span)
#define GYRE_PARAMS_rms_norm_had(I, F) GYRE_PARAMS_rms_norm(I, F) GYRE_PARAMS_HAD(I, F)
#define GYRE_PARAMS_quantize(I, F) I(rows) I(width) I(bits) F(clip) I(span)
#define GYRE_PARAMS_matmul(I, F) I(rows) I(k) I(n) I(n_pad) I(group) I(ldy) I(n0) I(add)
#define GYRE_PARAMS_quant_matmul(I, F) GYRE_PARAMS_matmul(I, F) I(bits) F(clip) I(normed) F(eps)
#define GYRE_PARAMS_add(I, F) I(count)
#define GYRE_PARAMS_hadamard(I, F) GYRE_PARAMS_HAD(I, F) I(rows) I(width) I(scaled)
#define GYRE_PARAMS_gather(I, F) I(rows) I(width)
#define GYRE_PARAMS_act_mul(I, F) I(rows) I(width) I(act) I(bits) F(clip) I(span) GYRE_PARAMS_HAD(I, F)
#define GYRE_PARAMS_rope(I, F) \
  I(rows) I(heads) I(kv_heads) I(hd) I(split) F(mscale) F(q_beta) I(q_span) I(normed) F(eps)
#define GYRE_PARAMS_kv_write(I, F) I(rows) I(heads) I(kv_heads) I(hd) I(page_stride) F(clip) I(centred) F(clip_v)
#define GYRE_PARAMS_rope_kv(I, F) \
  I(rows) I(heads) I(kv_heads) I(hd) I(split) F(mscale) F(q_beta) I(q_span) I(page_stride) F(clip) \
  GYRE_PARAMS_HAD(I, F) I(centred) I(normed) F(eps) F(clip_v)
#define GYRE_PARAMS_attn(I, F) I(rows) I(heads) I(kv_heads) I(hd) I(ldq) I(page_stride) F(scale) I(centred) I(window)
#define GYRE_PARAMS_attn_split(I, F) GYRE_PARAMS_attn(I, F) I(splits)
#define GYRE_PARAMS_attn_merge(I, F) I(rows) I(heads) I(kv_heads) I(hd) I(splits) I(centred)
#define GYRE_PARAMS_topk(I, F) I(rows) I(width) I(k) I(parts)
#define GYRE_PARAMS_sample(I, F) I(rows) I(k) I(drawn)
#define GYRE_PARAMS_mass(I, F) I(rows) I(width) I(k)
#define GYRE_PARAMS_loglik(I, F) I(rows) I(width)
#define GYRE_PARAMS_kl(I, F) I(rows) I(width)
#define GYRE_PARAMS_repack(I, F) I(n) I(k) I(group) I(n_pad) I(first)
#define GYRE_PARAMS_roof(I, F) I(threads) I(count) I(loops)
#define GYRE_PARAMS_matmul_back(I, F) GYRE_PARAMS_matmul(I, F)
#define GYRE_PARAMS_scale_back(I, F) GYRE_PARAMS_matmul(I, F)
#define GYRE_PARAMS_columns(I, F) I(rows) I(width) I(segs) I(first) I(count) I(b) I(less) I(by)
#define GYRE_PARAMS_norm_back(I, F) I(rows) I(width) I(segs) I(heads) I(kv_heads) F(eps)
#define GYRE_PARAMS_quantize_back(I, F) GYRE_PARAMS_quantize(I, F)
#define GYRE_PARAMS_act_mul_back(I, F) I(rows) I(width) I(act)
#define GYRE_PARAMS_kv_back(I, F) GYRE_PARAMS_kv_write(I, F)
#define GYRE_PARAMS_attn_back(I, F) I(rows) I(heads) I(kv_heads) I(hd) I(ldq) I(page_stride) F(scale) I(window)

#if !defined(GYRE_CL) && !defined(GYRE_GLSL)
#include <stdint.h>
#define GYRE_C_FIELD_I(name) int32_t name;
#define GYRE_C_FIELD_F(name) float name;
#define GYRE_C_PARAMS(op) struct gyre_##op##_params { GYRE_PARAMS_##op(GYRE_C_FIELD_I, GYRE_C_FIELD_F) };
/* every struct there is */
#define GYRE_PARAMS_LIST(X) \
  X(embed) X(rms_norm) X(rms_norm_had) X(quantize) X(matmul) X(quant_matmul) X(add) X(hadamard) X(gather) X(act_mul) \
  X(rope) X(kv_write) X(rope_kv) X(attn) X(attn_split) X(attn_merge) \
  X(topk) X(sample) X(mass) X(loglik) X(kl) X(repack) X(roof) \
  X(matmul_back) X(scale_back) X(columns) X(norm_back) X(quantize_back) X(act_mul_back) X(kv_back) X(attn_back)
GYRE_PARAMS_LIST(GYRE_C_PARAMS)
#endif
