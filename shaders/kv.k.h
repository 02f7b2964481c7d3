/* The KV cache: where a head of a position lies, and one head vector from shared memory into it.

   A token's K (or V) of one kv head becomes codes = clamp(round(x / scale) + zero), one scale and zero per vector:
   lo = clip min(0, min x), hi = clip max(0, max x), scale = f16((hi - lo) / qmax), zero = round(-lo / scale).
   The scale is rounded to f16 before the codes are made, so that what is read is what was meant.
   16 bits are halves, no scale. K has KBITS, V has VBITS.

   An element of K or V is lost where the cache has no room for it: NaN, an infinity, from 65520 on at 16 bits, 2^22 at
   8, 2^18 at 4 (two of which make no scale beyond the largest half). The key says so for both: it is NaN there, at 8
   and 4 bits its scale, with codes 0. The value is 0 there, at 8 and 4 bits all of it. So scores with that position are
   NaN, for the rows of its sequence that see it, and the weights 0 of all others meet no value that is no number.

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
#define KV_VALUE(i) (x[value0 + (i)] - (pc.centred != 0 ? centre[centre_v + (i)] : 0.0f))
#define KV_ROOM(bits) ((bits) == 16 ? 0x477FF000u : (bits) == 8 ? 0x4A800000u : 0x48800000u)
#define KV_LOST(number, bits) ((BITS_U(number) & 0x7FFFFFFFu) >= KV_ROOM(bits)) /* also NaN */
/* element i, whose number is x_: where it is lost, a key is NaN and a value 0 */
#define KV_KEPT(i, x_) (KV_LOST(x_, bits) || KV_LOST(KV_VALUE(i), VBITS) ? lost : (x_))

/* Writes v[0..hd) of shared memory, less the hd values from centre[first] on when pc.centred != 0, with `bits` bits to
   the K pool if to_k, to the V pool if to_v; x[beside] begins the V vector of that position, with is_v this one. An
   invocation centres the values that it looks at before the barrier, so that this needs none of its own: PoCL doubles
   what follows a barrier under a condition, which is why only two pools of halves do without. Call it with v complete
   (after a barrier) and in uniform control flow; red is float2[WGX] of shared memory. There is one copy of the work for
   K and V, since devices that mask instead of branching would do both. */
#define KV_STORE(slot, hd, first, beside, width, clip, to_k, to_v)                              \
  const int centre0 = (first);                                                                  \
  const int value0 = (beside);                                                                  \
  const int centre_v = centre0 + (is_v ? 0 : pc.kv_heads * (hd));                               \
  const float lost = is_v ? 0.0f : QNAN;                                                        \
  const int bits = (width);                                                                     \
  const int words = (hd) * bits / 32;                                                           \
  if (KBITS == 16 && VBITS == 16) {                                                             \
    for (int w = LI_X; w < words; w += WGX) {                                                   \
      const float a_ = KV_CENTRED(2 * w);                                                       \
      const float b_ = KV_CENTRED(2 * w + 1);                                                   \
      const uint word = f16_nearest(KV_KEPT(2 * w, a_)) | f16_nearest(KV_KEPT(2 * w + 1, b_)) << 16; \
      KV_PUT((slot) * words + w, word)                                                          \
    }                                                                                           \
  } else {                                                                                      \
    float lo = 0.0f;                                                                            \
    float hi = 0.0f;                                                                            \
    for (int i = LI_X; i < (hd); i += WGX) {                                                    \
      const float x_ = KV_CENTRED(i);                                                           \
      const bool there_ = !KV_LOST(x_, bits) && !KV_LOST(KV_VALUE(i), VBITS);                   \
      v[i] = there_ ? x_ : bits == 16 ? lost : 0.0f;                                            \
      lo = there_ ? min(lo, x_) : lo;                                                           \
      hi = there_ ? max(hi, x_) : 1.0e38f;                                                      \
    }                                                                                           \
    red[LI_X] = V2F(lo, hi);                                                                    \
    BARRIER_L();                                                                                \
    for (int i = 0; i < WGX; i++) { lo = min(lo, red[i].x); hi = max(hi, red[i].y); }           \
    const float qmax = bits == 8 ? 255.0f : 15.0f;                                              \
    const uint scale_bits = hi < 1.0e38f ? f16_nearest((hi - lo) * (clip) / qmax) : is_v ? 0u : 0x7E00u; \
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
