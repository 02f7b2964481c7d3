/* The row quantizer (docs: "quant" in params.h). From lo <= 0 <= hi, the least and the greatest value of a row with 0
   among them, to the scale and zero point, and from a value to its code; f32, one rounding per step, so that the same
   row gives the same codes on every device.
   bits 8: symmetric, codes -128..127, scale = max|x| * clip / 127. bits 4: codes 0..15, scale = (hi - lo) * clip /
   15. */
NO_CONTRACT
FN float quant_scale(int bits, float lo, float hi, float clip) {
  PRECISE const float clipped = (bits == 8 ? max(-lo, hi) : hi - lo) * clip;
  PRECISE const float scale = clipped * (bits == 8 ? 0.007874015748031496f : 0.06666666666666667f);
  return scale > 0.0f ? scale : 0.0f; /* never -0 */
}
FN float quant_inverse(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }
FN float quant_zero(int bits, float lo, float clip, float inverse) {
  PRECISE const float clipped = -lo * clip;
  PRECISE const float code = clipped * inverse;
  return bits == 8 ? 0.0f : min(ROUNDE(code), 15.0f);
}
/* Four values, one word; all four at once, since PoCL makes a call of rint and clamp of one float. */
FN uint quant_word(float4 x, int bits, float inverse, float zero) {
  const float4 code = ROUNDE(x * inverse) + zero;
  const uint4 u = U4(TO_I4(bits == 8 ? clamp(code, -128.0f, 127.0f) : clamp(code, 0.0f, 15.0f))) & 0xFFu;
  return u.x | (u.y << 8u) | (u.z << 16u) | (u.w << 24u);
}
FN float quant_least(float4 x) { return min(min(x.x, x.y), min(x.z, x.w)); }
FN float quant_most(float4 x) { return max(max(x.x, x.y), max(x.z, x.w)); }

/* QUANT_SHARED declares the scratch. QUANT_EXTREMES takes every invocation's `lo` and `hi` and makes them those of the
   workgroup (WGX a power of two); QUANT_REDUCE also declares `scale`, `inverse` and `zero`. */
#define QUANT_SHARED SHARED(float, quant_lo, WGX) SHARED(float, quant_hi, WGX)
#define QUANT_EXTREMES(lo, hi)                                                                                        \
  quant_lo[LI_X] = lo;                                                                                                \
  quant_hi[LI_X] = hi;                                                                                                \
  BARRIER_L();                                                                                                        \
  for (int half_ = WGX / 2; half_ > 0; half_ >>= 1) {                                                                 \
    if (LI_X < half_) {                                                                                               \
      quant_lo[LI_X] = min(quant_lo[LI_X], quant_lo[LI_X + half_]);                                                   \
      quant_hi[LI_X] = max(quant_hi[LI_X], quant_hi[LI_X + half_]);                                                   \
    }                                                                                                                 \
    BARRIER_L();                                                                                                      \
  }                                                                                                                   \
  lo = quant_lo[0];                                                                                                   \
  hi = quant_hi[0];
#define QUANT_REDUCE(lo, hi, bits, clip)                                                                              \
  QUANT_EXTREMES(lo, hi)                                                                                              \
  const float scale = quant_scale(bits, lo, hi, clip);                                                                \
  const float inverse = quant_inverse(scale);                                                                         \
  const float zero = quant_zero(bits, lo, clip, inverse);
/* Behind the loop that wrote the codes, at and end as for CUT. Two words rather than a vector: oclgrind takes the way
   clang stores vectors for the use of unset values. */
#define QUANT_META(row, at, end)                                                                                      \
  if (LI_X == 0) {                                                                                                    \
    meta[2 * (row)] = BITS_U(CUT(at, end, scale));                                                                    \
    meta[2 * (row) + 1] = U(I(zero));                                                                                 \
  }
