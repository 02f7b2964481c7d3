/* What the kernels over rows of logits share: the best column of a row, sums over a workgroup, and exp and log that are
   good to about 1e-7 on every device (built-in ones may be off by 1e-5, and by different amounts). */

/* e^x for x <= 0: 2^n times a Taylor series on |r| <= ln2 / 2 */
FN float exp_negative(float x)
{
  const float c = max(x, -87.0f);
  const float n = ROUNDE(c * 1.44269504f);
  const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
  const float p = 1.0f + r * (1.0f + r * (1.0f / 2.0f + r * (1.0f / 6.0f + r * (1.0f / 24.0f +
                  r * (1.0f / 120.0f + r * (1.0f / 720.0f + r * (1.0f / 5040.0f)))))));
  const float y = p * BITS_F(U(I(n) + 127) << 23);
  return x < -87.0f ? 0.0f : (x <= 0.0f ? y : x); /* NaN stays NaN */
}

/* ln x for normal x > 0: the exponent, and 2 artanh((m - 1) / (m + 1)) for the mantissa m in [sqrt(1/2), sqrt 2) */
FN float log_positive(float x)
{
  const uint bits = BITS_U(x) - 0x3F3504F3u;
  const float e = F(I(bits) >> 23);
  const float m = BITS_F((bits & 0x7FFFFFu) + 0x3F3504F3u);
  const float t = (m - 1.0f) / (m + 1.0f);
  const float z = t * t;
  const float a = 2.0f * t * (1.0f + z * (1.0f / 3.0f + z * (1.0f / 5.0f + z * (1.0f / 7.0f + z * (1.0f / 9.0f)))));
  return x <= 3.0e38f ? e * 0.693359375f + (a - e * 2.12194440e-4f) : x; /* NaN stays NaN */
}

/* Folds the invocations' values pairwise: `fold(i, j)` merges entry j of shared memory into entry i. Ends with a
   barrier, the result in entry 0; n_ is 1 then. */
#define FOLD_ALL(fold)                                                                          \
  int n_ = WGX;                                                                                 \
  BARRIER_L();                                                                                  \
  for (; n_ > 1; n_ = (n_ + 1) / 2) {                                                           \
    if (LI_X < n_ / 2) fold(LI_X, LI_X + (n_ + 1) / 2)                                          \
    BARRIER_L();                                                                                \
  }

/* The largest value of x[base..base+width) and its (smallest) column, for all invocations. Needs shared float best[WGX]
   and int best_at[WGX]. NaN is passed over. */
#define FOLD_BEST(i, j)                                                                         \
  {                                                                                             \
    const float u_ = best[i];                                                                   \
    const float w_ = best[j];                                                                   \
    const int a_ = best_at[i];                                                                  \
    const int b_ = best_at[j];                                                                  \
    const bool take_ = w_ > u_ || (w_ == u_ && b_ < a_);                                        \
    best[i] = take_ ? w_ : u_;                                                                  \
    best_at[i] = take_ ? b_ : a_;                                                               \
  }
#define ROW_BEST(x, base, width, value, column)                                                 \
  {                                                                                             \
    float v_ = BITS_F(0xFF800000u);                                                             \
    int at_ = 0;                                                                                \
    for (int i = LI_X; i < (width); i += WGX) {                                                 \
      const float now_ = x[(base) + i];                                                         \
      at_ = now_ > v_ ? i : at_;                                                                \
      v_ = now_ > v_ ? now_ : v_;                                                               \
    }                                                                                           \
    best[LI_X] = v_;                                                                            \
    best_at[LI_X] = at_;                                                                        \
    FOLD_ALL(FOLD_BEST)                                                                         \
    value = best[0];                                                                            \
    column = best_at[0];                                                                        \
    BARRIER_L();                                                                                \
  }

/* sum = the sum of `term` (an expression in i) over i < width. Two levels of partial sums keep 1e-6 over 10^5 terms.
   NaN where a driver ended a loop before its last column (CUT in dialect.h). Uses shared float best[WGX]. */
#define FOLD_SUM(i, j) best[i] += best[j];
#define ROW_SUM(width, term, sum)                                                               \
  {                                                                                             \
    float all_ = 0.0f;                                                                          \
    int i0_ = LI_X;                                                                             \
    for (; i0_ < (width); i0_ += WGX * 32) {                                                    \
      float some_ = 0.0f;                                                                       \
      const int end_ = min(width, i0_ + WGX * 32);                                              \
      int i = i0_;                                                                              \
      for (; i < end_; i += WGX) some_ += term;                                                 \
      all_ += CUT(i, end_, some_);                                                              \
    }                                                                                           \
    best[LI_X] = CUT(i0_, width, all_);                                                         \
    FOLD_ALL(FOLD_SUM)                                                                          \
    sum = CUT(1, n_, best[0]);                                                                  \
    BARRIER_L();                                                                                \
  }
