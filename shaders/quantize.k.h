/* The row quantizer (docs: "quant" in params.h). From lo <= 0 <= hi, the least and the greatest value of a row with 0
   among them, to the scale and zero point, and from a value to its code; f32, one rounding per step, so that the same
   row gives the same codes on every device.
   bits 8: symmetric, codes -128..127, scale = max|x| * clip / 127. bits 4: codes 0..15, scale = (hi - lo) * clip /
   15.
   A row that holds an infinity or a NaN has the scale NaN, so that what is made of it is no number either. min and max
   may overlook a NaN: until the row's scale is stored (quant_stored), infinity stands for it. */
NO_CONTRACT
#define QUANT_INFINITY 0x7F800000u
/* the bits of the greatest |x|: QUANT_INFINITY and above where one is not finite */
FN uint quant_bits(float4 x) {
  const uint most = 0x7FFFFFFFu;
  return max(max(BITS_U(x.x) & most, BITS_U(x.y) & most), max(BITS_U(x.z) & most, BITS_U(x.w) & most));
}
FN float quant_scale(int bits, float lo, float hi, float clip) {
  PRECISE const float clipped = (bits == 8 ? max(-lo, hi) : hi - lo) * clip;
  PRECISE const float scale = clipped * (bits == 8 ? 0.007874015748031496f : 0.06666666666666667f);
  if ((BITS_U(scale) & 0x7FFFFFFFu) >= QUANT_INFINITY) return BITS_F(QUANT_INFINITY);
  return scale > 0.0f ? scale : 0.0f; /* never -0 */
}
FN float quant_stored(float scale) { return BITS_U(scale) >= QUANT_INFINITY ? QNAN : scale; }
FN float quant_inverse(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }
FN float quant_zero(int bits, float lo, float clip, float inverse) {
  PRECISE const float clipped = -lo * clip;
  PRECISE const float code = clipped * inverse;
  return bits == 8 ? 0.0f : min(ROUNDE(code), 15.0f);
}
/* the low bytes of four numbers */
FN uint quant_bytes(int4 code) {
  const uint4 u = U4(code) & 0xFFu;
  return u.x | (u.y << 8u) | (u.z << 16u) | (u.w << 24u);
}
/* Four values, one word; all four at once, since PoCL makes a call of rint and clamp of one float. */
FN uint quant_word(float4 x, int bits, float inverse, float zero) {
  const float4 code = ROUNDE(x * inverse) + zero;
  return quant_bytes(TO_I4(bits == 8 ? clamp(code, -128.0f, 127.0f) : clamp(code, 0.0f, 15.0f)));
}
FN float quant_least(float4 x) { return min(min(x.x, x.y), min(x.z, x.w)); }
FN float quant_most(float4 x) {
  return quant_bits(x) >= QUANT_INFINITY ? BITS_F(QUANT_INFINITY) : max(max(x.x, x.y), max(x.z, x.w));
}

/* bits 24: symmetric, codes of three signed bytes, 65536 high + 256 middle + low, so that a product is three of bytes.
   The scale is the power of two by which the row's greatest |x| is a code of at most 127 * 65792 and of at least half
   of that: nothing is rounded but the codes themselves, once, whatever a device's division does. Three bytes hold 127
   more: a value behind a norm is computed once for the greatest and once for its code, and where a compiler orders the
   two products differently the second may be an ulp or two above the first. A row whose greatest is below 2^-103 counts
   as zeros; one with an infinity or a NaN has the scale NaN.
   `top`: the bits of the row's greatest |x|. Its exponent, one more where it would round beyond the greatest code, less
   22 is the scale's. */
FN uint split_exponent(uint top) { return (top + 0x10200u) >> 23u; }
FN float split_scale(uint top) {
  const uint e = split_exponent(top);
  return top >= QUANT_INFINITY ? QNAN : e < 24u ? 0.0f : BITS_F((e - 22u) << 23u);
}
FN float split_inverse(uint top) {
  const uint e = split_exponent(top);
  return e < 24u ? 0.0f : BITS_F((276u - e) << 23u);
}
FN int4 split_codes(float4 x, float inverse) { return TO_I4(ROUNDE(x * inverse)); }
FN uint split_high(int4 code) { return quant_bytes((((code + 128) >> 8) + 128) >> 8); }
FN uint split_middle(int4 code) { return quant_bytes((code + 128) >> 8); }
FN uint split_low(int4 code) { return quant_bytes(code); }

/* Groups of SPAN values with 16 levels each ("span" in params.h). A group's step is what its scale would be alone; the
   row's scale is an eighth of the greatest step, a group's multiple 1..8 is its own step in those. */
FN float quant_times(float step, float inverse) { return clamp(ROUNDE(step * inverse), 1.0f, 8.0f); }
FN uint quant_grouped(float x, float inverse, float zero, float times) {
  return U(I((clamp(ROUNDE(x * inverse) + zero, 0.0f, 15.0f) - zero) * times)) & 0xFFu;
}
FN uint quant_grouped_word(float4 x, float inverse, float zero, float times) {
  return quant_grouped(x.x, inverse, zero, times) | (quant_grouped(x.y, inverse, zero, times) << 8u) |
         (quant_grouped(x.z, inverse, zero, times) << 16u) | (quant_grouped(x.w, inverse, zero, times) << 24u);
}

/* QUANT_SHARED declares the scratch. QUANT_EXTREMES takes every invocation's `lo` and `hi` and makes them those of the
   workgroup (WGX a power of two). SPLIT_SHARED and SPLIT_GREATEST: the same of `top`. */
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
#define SPLIT_SHARED SHARED(uint, quant_top, WGX)
#define SPLIT_GREATEST(top)                                                                                           \
  quant_top[LI_X] = top;                                                                                              \
  BARRIER_L();                                                                                                        \
  for (int half_ = WGX / 2; half_ > 0; half_ >>= 1) {                                                                 \
    if (LI_X < half_) quant_top[LI_X] = max(quant_top[LI_X], quant_top[LI_X + half_]);                                \
    BARRIER_L();                                                                                                      \
  }                                                                                                                   \
  top = quant_top[0];
/* lo and hi become those of the values VALUE(from) .. VALUE(end - 1) too, every `by`-th of them. */
#define QUANT_LOOK(VALUE, from, end, by, lo, hi)                                                                      \
  for (int i = from; i < (end); i += by) {                                                                            \
    const float4 v = VALUE(i);                                                                                        \
    lo = min(lo, quant_least(v));                                                                                     \
    hi = max(hi, quant_most(v));                                                                                      \
  }

/* One row: its `words` words VALUE(i) become codes[at + i], scale and zero point meta[2 * row] and the next, NaN where
   a loop was cut short (CUT in dialect.h). Two words rather than a vector: oclgrind takes the way clang stores vectors
   for the use of unset values. A kernel declares SPEC SPAN and has pc.bits and pc.clip. With SPAN an invocation takes
   whole groups. Loops: 2 words / WGX, with SPAN up to 3 SPAN / 4 more. */
#define QUANT_ROW(VALUE, row, at, words)                                                                              \
  const int bits = pc.bits;                                                                                           \
  float lo = 0.0f;                                                                                                    \
  float hi = 0.0f;                                                                                                    \
  if (SPAN == 0) {                                                                                                    \
    QUANT_LOOK(VALUE, LI_X, words, WGX, lo, hi)                                                                       \
  } else {                                                                                                            \
    for (int g = LI_X * (SPAN / 4); g < (words); g += WGX * (SPAN / 4)) {                                             \
      float low = 0.0f;                                                                                               \
      float high = 0.0f;                                                                                              \
      QUANT_LOOK(VALUE, g, g + SPAN / 4, 1, low, high)                                                                \
      hi = max(hi, quant_scale(bits, low, high, pc.clip));                                                            \
    }                                                                                                                 \
  }                                                                                                                   \
  QUANT_EXTREMES(lo, hi)                                                                                              \
  const float scale = SPAN == 0 ? quant_scale(bits, lo, hi, pc.clip) : 0.125f * hi;                                   \
  const float inverse = quant_inverse(scale);                                                                         \
  const float zero = SPAN == 0 ? quant_zero(bits, lo, pc.clip, inverse) : 0.0f;                                       \
  int at_ = LI_X;                                                                                                     \
  if (SPAN == 0) {                                                                                                    \
    for (; at_ < (words); at_ += WGX) codes[at + at_] = quant_word(VALUE(at_), bits, inverse, zero);                  \
  } else {                                                                                                            \
    for (at_ = LI_X * (SPAN / 4); at_ < (words); at_ += WGX * (SPAN / 4)) {                                           \
      float low = 0.0f;                                                                                               \
      float high = 0.0f;                                                                                              \
      QUANT_LOOK(VALUE, at_, at_ + SPAN / 4, 1, low, high)                                                            \
      const float times = quant_times(quant_scale(bits, low, high, pc.clip), inverse);                                \
      const float finer = quant_inverse(times * scale);                                                               \
      const float level = quant_zero(bits, low, pc.clip, finer);                                                      \
      for (int i = at_; i < at_ + SPAN / 4; i++) codes[at + i] = quant_grouped_word(VALUE(i), finer, level, times);   \
    }                                                                                                                 \
  }                                                                                                                   \
  if (LI_X == 0) {                                                                                                    \
    meta[2 * (row)] = BITS_U(CUT(at_, words, quant_stored(scale)));                                                   \
    meta[2 * (row) + 1] = U(I(zero));                                                                                 \
  }
/* The same to 24 bits: words of high bytes from codes[at] on, of middle ones behind them, then of low ones. Loops: 2
   words / WGX. */
#define SPLIT_ROW(VALUE, row, at, words)                                                                              \
  uint top = 0u;                                                                                                      \
  for (int i = LI_X; i < (words); i += WGX) top = max(top, quant_bits(VALUE(i)));                                     \
  SPLIT_GREATEST(top)                                                                                                 \
  const float inverse = split_inverse(top);                                                                           \
  int at_ = LI_X;                                                                                                     \
  for (; at_ < (words); at_ += WGX) {                                                                                 \
    const int4 code = split_codes(VALUE(at_), inverse);                                                               \
    codes[(at) + at_] = split_high(code);                                                                             \
    codes[(at) + (words) + at_] = split_middle(code);                                                                 \
    codes[(at) + 2 * (words) + at_] = split_low(code);                                                                \
  }                                                                                                                   \
  if (LI_X == 0) {                                                                                                    \
    meta[2 * (row)] = BITS_U(CUT(at_, words, split_scale(top)));                                                      \
    meta[2 * (row) + 1] = 0u;                                                                                         \
  }
