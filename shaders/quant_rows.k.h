/* The prologue of a product that quantizes what it reads: TR rows of floats become codes in shared memory, NORMED 1
   after their RMS norm. Every workgroup does it again, which costs less than a dispatch where workgroups are few
   (runtime/graph/tune.c). The codes are those of quantize.k, and those of rms_norm.k where NORM_LANES is the width of
   its workgroup, bit for bit: sums go in the same order.

   A kernel includes quantize.k.h before and declares SPEC ROW16 (codes of a row / 16), NORMED and NORM_LANES (a power
   of two), binds the rows as float4 x_float and the gains as float4 gain (not read unless NORMED), and has pc.k,
   pc.bits, pc.clip and pc.eps.
   PROLOGUE_SHARED declares uint4 x[TR * ROW16] and scratch. QUANT_ROWS(row) fills x, by[TR] (scales) and zero[TR] from
   rows row(0)..row(TR - 1) and ends with a barrier. WGX is a power of two.
   SPLIT: to 24 bits. x is uint4[3 * TR * ROW16], for each row one of high bytes, one of middle and one of low ones;
   pc.bits and pc.clip are not read, and there is no zero.
   Loops: TR (ROW16 / WGX + 4 ROW16 / WGX + 4 ROW16 / min(NORM_LANES, WGX)). */
#ifdef SPLIT
#define PROLOGUE_SHARED                                                                                               \
  SHARED(uint4, x, 3 * TR * ROW16) SHARED(float, norm_part, NORM_LANES) SPLIT_SHARED
#else
#define PROLOGUE_SHARED                                                                                               \
  SHARED(uint4, x, TR * ROW16) SHARED(float, norm_part, NORM_LANES) QUANT_SHARED
#endif
#define ROW_VALUE(i) (NORMED != 0 ? x_float[at_ + (i)] * factor_ * gain[i] : x_float[at_ + (i)])
/* Where a row begins and what its norm multiplies it by. */
#define QUANT_NORM(from)                                                                                              \
  const int at_ = (from) * (4 * ROW16);                                                                               \
  float factor_ = 1.0f;                                                                                               \
  if (NORMED != 0) {                                                                                                  \
    for (int lane = LI_X; lane < NORM_LANES; lane += WGX) {                                                           \
      float sum_ = 0.0f;                                                                                              \
      for (int i = lane; i < 4 * ROW16; i += NORM_LANES) {                                                            \
        const float4 v = x_float[at_ + i];                                                                            \
        sum_ += dot(v, v);                                                                                            \
      }                                                                                                               \
      norm_part[lane] = sum_;                                                                                         \
    }                                                                                                                 \
    BARRIER_L();                                                                                                      \
    for (int half_ = NORM_LANES / 2; half_ > 0; half_ >>= 1) {                                                        \
      for (int lane = LI_X; lane < half_; lane += WGX) norm_part[lane] += norm_part[lane + half_];                    \
      BARRIER_L();                                                                                                    \
    }                                                                                                                 \
    factor_ = RSQRT(norm_part[0] / F(pc.k) + pc.eps);                                                                 \
  }
#ifdef SPLIT
#define QUANT_ROWS(row)                                                                                               \
  UNROLL for (int r = 0; r < TR; r++) {                                                                               \
    QUANT_NORM(row(r))                                                                                                \
    uint top_ = 0u;                                                                                                   \
    for (int i = LI_X; i < 4 * ROW16; i += WGX) top_ = max(top_, quant_bits(ROW_VALUE(i)));                           \
    SPLIT_GREATEST(top_)                                                                                              \
    by[r] = split_scale(top_);                                                                                        \
    const float inverse_ = split_inverse(top_);                                                                       \
    for (int i = LI_X; i < ROW16; i += WGX) {                                                                         \
      const int4 a_ = split_codes(ROW_VALUE(4 * i), inverse_);                                                        \
      const int4 b_ = split_codes(ROW_VALUE(4 * i + 1), inverse_);                                                    \
      const int4 c_ = split_codes(ROW_VALUE(4 * i + 2), inverse_);                                                    \
      const int4 d_ = split_codes(ROW_VALUE(4 * i + 3), inverse_);                                                    \
      const int to_ = 3 * r * ROW16 + i;                                                                              \
      x[to_] = V4U(split_high(a_), split_high(b_), split_high(c_), split_high(d_));                                   \
      x[to_ + ROW16] = V4U(split_middle(a_), split_middle(b_), split_middle(c_), split_middle(d_));                   \
      x[to_ + 2 * ROW16] = V4U(split_low(a_), split_low(b_), split_low(c_), split_low(d_));                           \
    }                                                                                                                 \
    BARRIER_L();                                                                                                      \
  }
#else
#define QUANT_ROWS(row)                                                                                               \
  UNROLL for (int r = 0; r < TR; r++) {                                                                               \
    QUANT_NORM(row(r))                                                                                                \
    float lo_ = 0.0f;                                                                                                 \
    float hi_ = 0.0f;                                                                                                 \
    for (int i = LI_X; i < 4 * ROW16; i += WGX) {                                                                     \
      const float4 v = ROW_VALUE(i);                                                                                  \
      lo_ = min(lo_, quant_least(v));                                                                                 \
      hi_ = max(hi_, quant_most(v));                                                                                  \
    }                                                                                                                 \
    QUANT_EXTREMES(lo_, hi_)                                                                                          \
    const float scale_ = quant_scale(pc.bits, lo_, hi_, pc.clip);                                                     \
    const float inverse_ = quant_inverse(scale_);                                                                     \
    by[r] = quant_stored(scale_);                                                                                     \
    const float zero_ = quant_zero(pc.bits, lo_, pc.clip, inverse_);                                                  \
    zero[r] = I(zero_);                                                                                               \
    for (int i = LI_X; i < ROW16; i += WGX)                                                                           \
      x[r * ROW16 + i] = V4U(quant_word(ROW_VALUE(4 * i), pc.bits, inverse_, zero_),                                  \
                             quant_word(ROW_VALUE(4 * i + 1), pc.bits, inverse_, zero_),                              \
                             quant_word(ROW_VALUE(4 * i + 2), pc.bits, inverse_, zero_),                              \
                             quant_word(ROW_VALUE(4 * i + 3), pc.bits, inverse_, zero_));                             \
    BARRIER_L();                                                                                                      \
  }
#endif
