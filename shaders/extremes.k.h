/* Sums and the places of extremes over a workgroup, for the gradients of quantizers. An invocation brings the
   least value it saw and where (lo, lo_at), the greatest (hi, hi_at) and a part of a sum; all get those of the
   workgroup. Of equal values the first place counts, so that what comes out does not depend on who saw what. WGX
   is a power of two. */
#define EXTREMES_SHARED SHARED(float4, seen, WGX) SHARED(int2, seen_at, WGX)
#define EXTREMES(lo, lo_at, hi, hi_at, sum)                                                                           \
  seen[LI_X] = V4F(lo, hi, sum, 0.0f);                                                                                \
  seen_at[LI_X].x = lo_at;                                                                                            \
  seen_at[LI_X].y = hi_at;                                                                                            \
  BARRIER_L();                                                                                                        \
  for (int half_ = WGX / 2; half_ > 0; half_ >>= 1) {                                                                 \
    if (LI_X < half_) {                                                                                               \
      const float4 a_ = seen[LI_X];                                                                                   \
      const float4 b_ = seen[LI_X + half_];                                                                           \
      const int2 at_a_ = seen_at[LI_X];                                                                               \
      const int2 at_b_ = seen_at[LI_X + half_];                                                                       \
      const bool low_ = b_.x < a_.x || (b_.x == a_.x && at_b_.x < at_a_.x);                                           \
      const bool high_ = b_.y > a_.y || (b_.y == a_.y && at_b_.y < at_a_.y);                                          \
      seen[LI_X] = V4F(low_ ? b_.x : a_.x, high_ ? b_.y : a_.y, a_.z + b_.z, 0.0f);                                   \
      seen_at[LI_X].x = low_ ? at_b_.x : at_a_.x;                                                                     \
      seen_at[LI_X].y = high_ ? at_b_.y : at_a_.y;                                                                    \
    }                                                                                                                 \
    BARRIER_L();                                                                                                      \
  }                                                                                                                   \
  lo = seen[0].x;                                                                                                     \
  hi = seen[0].y;                                                                                                     \
  sum = seen[0].z;                                                                                                    \
  lo_at = seen_at[0].x;                                                                                               \
  hi_at = seen_at[0].y;
