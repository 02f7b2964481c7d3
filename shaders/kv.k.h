/* The KV cache: where a head of a position lies, and one head vector from shared memory into it.

   A token's K (or V) of one kv head becomes codes = clamp(round(x / scale) + zero), one scale and zero per vector:
   lo = clip min(0, min x), hi = clip max(0, max x), scale = f16((hi - lo) / qmax), zero = round(-lo / scale).
   The scale is rounded to f16 before the codes are made, so that what is read is what was meant.
   16 bits are halves (values beyond the largest half become it), no scale. K has KBITS, V has VBITS.

   A centred cache holds x less a constant vector c of its kv head. q (k - c) = q k - q c shifts all scores of a query
   alike, so softmax does not see c; sum p (v - c) = sum p v - c, and attention adds c back.                      */

/* bits of the half nearest to v (ties to even), beyond the largest half that one; packHalf2x16 may round otherwise */
FN uint f16_nearest(float v)
{
  const uint bits = BITS_U(v);
  const uint sign = (bits >> 16) & 0x8000u;
  const uint a = bits & 0x7FFFFFFFu;
  const uint norm = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
  const uint sub = BITS_U(BITS_F(a) + 0.5f) - 0x3F000000u; /* 0.5 has the unit 2^-24 of subnormal halves */
  const uint h = a > 0x7F800000u ? 0x7E00u : a >= 0x477FE000u ? 0x7BFFu : a >= 0x38800000u ? norm : sub;
  return sign | h;
}

/* Vectors lie at slot * words per vector; slot counts [page][kv head][position in page]. */
#define KV_SLOT(page, heads, head, position) (((page) * (heads) + (head)) * 32 + ((position) & 31))
#define KV_CODES(i) U4(TO_I4(clamp(ROUNDE(V4F(v[i], v[(i) + 1], v[(i) + 2], v[(i) + 3]) / scale) + zero, 0.0f, qmax)))
#define KV_PUT(at, word) { if (to_k) kpool[at] = (word); if (to_v) vpool[at] = (word); }
#define KV_CENTRED(i) (v[i] - (pc.centred != 0 ? centre[centre0 + (i)] : 0.0f))

/* Writes v[0..hd) of shared memory, less the hd values from centre[first] on when pc.centred != 0, with `bits` bits to
   the K pool if to_k, to the V pool if to_v. An invocation centres the values that it looks at before the barrier, so
   that this needs none of its own: PoCL doubles what follows a barrier under a condition, which is why only two pools
   of halves do without. Call it with v complete (after a barrier) and in uniform control flow; red is float2[WGX] of
   shared memory. There is one copy of the work for K and V, since devices that mask instead of branching would do
   both. */
#define KV_STORE(slot, hd, first, width, clip, to_k, to_v)                                      \
  const int centre0 = (first);                                                                  \
  const int bits = (width);                                                                     \
  const int words = (hd) * bits / 32;                                                           \
  if (KBITS == 16 && VBITS == 16) {                                                             \
    for (int w = LI_X; w < words; w += WGX) {                                                   \
      const uint word = f16_nearest(KV_CENTRED(2 * w)) | f16_nearest(KV_CENTRED(2 * w + 1)) << 16; \
      KV_PUT((slot) * words + w, word)                                                          \
    }                                                                                           \
  } else {                                                                                      \
    float lo = 0.0f;                                                                            \
    float hi = 0.0f;                                                                            \
    for (int i = LI_X; i < (hd); i += WGX) {                                                    \
      const float x_ = KV_CENTRED(i);                                                           \
      v[i] = x_;                                                                                \
      lo = min(lo, x_);                                                                         \
      hi = max(hi, x_);                                                                         \
    }                                                                                           \
    red[LI_X] = V2F(lo, hi);                                                                    \
    BARRIER_L();                                                                                \
    for (int i = 0; i < WGX; i++) { lo = min(lo, red[i].x); hi = max(hi, red[i].y); }           \
    const float qmax = bits == 8 ? 255.0f : 15.0f;                                              \
    const uint scale_bits = f16_nearest((hi - lo) * (clip) / qmax);                             \
    const float stored = UNPACK_H2(scale_bits).x;                                               \
    const float scale = stored > 0.0f ? stored : 3.0e38f; /* a zero vector: every code is 0 */  \
    const float zero = clamp(ROUNDE((0.0f - lo) * (clip) / scale), 0.0f, qmax);                 \
    for (int w = LI_X; w < words; w += WGX) {                                                   \
      uint word = 0u;                                                                           \
      if (bits == 16) {                                                                         \
        word = f16_nearest(v[2 * w]) | f16_nearest(v[2 * w + 1]) << 16;                         \
      } else {                                                                                  \
        const uint step_ = bits == 8 ? 8u : 4u;                                                 \
        const uint4 c_ = KV_CODES(w * (bits == 8 ? 4 : 8));                                     \
        word = c_.x | c_.y << step_ | c_.z << (2u * step_) | c_.w << (3u * step_);              \
        if (bits == 4) {                                                                        \
          const uint4 d_ = KV_CODES(8 * w + 4);                                                 \
          word |= d_.x << 16 | d_.y << 20 | d_.z << 24 | d_.w << 28;                            \
        }                                                                                       \
      }                                                                                         \
      KV_PUT((slot) * words + w, word)                                                          \
    }                                                                                           \
    const uint meta = scale_bits | f16_nearest(zero) << 16;                                     \
    if (KBITS != 16 && to_k && LI_X == 0) kmeta[slot] = meta;                                   \
    if (VBITS != 16 && to_v && LI_X == 0) vmeta[slot] = meta;                                   \
  }
