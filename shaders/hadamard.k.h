/* The online Hadamard transform of one workgroup: in place, over data that the kernel names.

   Before use a kernel defines
     HAD_AT(i)     element i as an lvalue (shared memory, or a buffer bound for reading and writing)
     HAD_SYNC()    the barrier that makes one invocation's HAD_AT writes visible to the others
   and declares `pc` with the fields of GYRE_PARAMS_HAD, a read-only uint buffer `base` (shaders/params.h), and SPEC AXES:
   only the first AXES of k1, k2, k3 may exceed 1. 3 is always right; devices that mask code instead of skipping it
   (lavapipe) gain from less.

   HAD_TRANSFORM(total, t, threads) transforms elements 0..total-1, a whole number of segments of pc.n = k1*k2*k3*2^p,
   by all `threads` invocations (t = 0..threads-1) in uniform control flow. It starts after a HAD_SYNC of the caller's
   and ends with one. It does not divide: the caller multiplies by HAD_NORM. Needs threads >= ceil(max(k1,k2,k3) / 16).

   x is a tensor [segment][k1][k2][k3][2^p]; every axis is transformed by itself, in f32. The dense axes come first: an
   invocation keeps 16 outputs of one column in registers and reads the column once. The axis 2^p takes four butterfly
   stages per pass in registers. Additions only, in a fixed order: the same bits on every device.                    */
#define HAD_NORM RSQRT(F(pc.n))

#define HAD_SIGNED(x, bits, o) BITS_F(BITS_U(x) ^ (((bits) << U(31 - (o))) & 0x80000000u))

/* Dense axis of k elements at distance s. Bits of `signs`: the signs with which element j enters outputs first..first+15. */
#define HAD_DENSE(total, k, s, words, t, threads)                                                                     \
  const int blocks_ = ((k) + 15) >> 4;                                                                                \
  const int slots_ = (threads) / blocks_;                                                                             \
  const int slot_ = (t) / blocks_;                                                                                    \
  const int first_ = ((t) - slot_ * blocks_) * 16;                                                                    \
  const int row_words_ = ((k) + 31) >> 5;                                                                             \
  const int columns_ = (k) > 1 ? (total) / (k) : 0;                                                                   \
  const int gathered_ = pc.had_t != 0 ? min(16, (k) - first_) : 0;                                                    \
  for (int c0_ = 0; c0_ < columns_; c0_ += slots_) {                                                                  \
    const int column_ = c0_ + slot_;                                                                                  \
    const int live_ = slot_ < slots_ && column_ < columns_ ? (k) : 0;                                                 \
    const int outer_ = column_ / (s);                                                                                 \
    const int at_ = outer_ * ((k) * (s)) + (column_ - outer_ * (s));                                                  \
    float sum_[16];                                                                                                   \
    UNROLL for (int o_ = 0; o_ < 16; o_++) sum_[o_] = 0.0f;                                                           \
    for (int j_ = 0; j_ < live_; j_++) {                                                                              \
      const float x_ = HAD_AT(at_ + j_ * (s));                                                                        \
      uint signs_ = base[(words) + (gathered_ > 0 ? 0 : j_ * row_words_ + (first_ >> 5))] >> U(first_ & 31);          \
      if (gathered_ > 0) signs_ = 0u;                                                                                 \
      for (int o_ = 0; o_ < gathered_; o_++)                                                                          \
        signs_ |= ((base[(words) + (first_ + o_) * row_words_ + (j_ >> 5)] >> U(j_ & 31)) & 1u) << U(o_);             \
      UNROLL for (int o_ = 0; o_ < 16; o_++) sum_[o_] += HAD_SIGNED(x_, signs_, o_);                                  \
    }                                                                                                                 \
    HAD_SYNC();                                                                                                       \
    UNROLL for (int o_ = 0; o_ < 16; o_++) {                                                                          \
      if (first_ + o_ < live_) HAD_AT(at_ + (first_ + o_) * (s)) = sum_[o_];                                          \
    }                                                                                                                 \
  }                                                                                                                   \
  HAD_SYNC();

/* Butterfly i of the stage with distance h, h a constant, on the registers a. */
#define HAD_BUTTERFLY(a, h, i)                                                                                        \
  {                                                                                                                   \
    const int p_ = (((i) & ~((h) - 1)) << 1) | ((i) & ((h) - 1));                                                     \
    const float u_ = a[p_];                                                                                           \
    const float w_ = a[p_ + (h)];                                                                                     \
    a[p_] = u_ + w_;                                                                                                  \
    a[p_ + (h)] = u_ - w_;                                                                                            \
  }
#define HAD_STAGE(a, m, h) UNROLL for (int i_ = 0; i_ < (m) / 2; i_++) HAD_BUTTERFLY(a, h, i_)
#define HAD_STAGES2(a) HAD_STAGE(a, 2, 1)
#define HAD_STAGES4(a) HAD_STAGE(a, 4, 1) HAD_STAGE(a, 4, 2)
#define HAD_STAGES8(a) HAD_STAGE(a, 8, 1) HAD_STAGE(a, 8, 2) HAD_STAGE(a, 8, 4)
#define HAD_STAGES16(a) HAD_STAGE(a, 16, 1) HAD_STAGE(a, 16, 2) HAD_STAGE(a, 16, 4) HAD_STAGE(a, 16, 8)

/* log2(m) stages, from distance s on, of all columns. */
#define HAD_PASS(total, m, s, t, threads)                                                                             \
  for (int c_ = (t); c_ < (total) / (m); c_ += (threads)) {                                                           \
    const int at_ = (c_ & ~((s) - 1)) * (m) + (c_ & ((s) - 1));                                                       \
    float a_[m];                                                                                                      \
    UNROLL for (int j_ = 0; j_ < (m); j_++) a_[j_] = HAD_AT(at_ + j_ * (s));                                          \
    HAD_STAGES##m(a_)                                                                                                 \
    UNROLL for (int j_ = 0; j_ < (m); j_++) HAD_AT(at_ + j_ * (s)) = a_[j_];                                          \
  }

#define HAD_TRANSFORM(total, t, threads)                                                                              \
  {                                                                                                                   \
    int stride_ = pc.n;                                                                                               \
    int base_ = 0;                                                                                                    \
    for (int axis_ = 0; axis_ < AXES; axis_++) {                                                                         \
      const int k_ = axis_ == 0 ? pc.k1 : (axis_ == 1 ? pc.k2 : pc.k3);                                               \
      stride_ /= k_;                                                                                                  \
      HAD_DENSE(total, k_, stride_, base_, t, threads)                                                                \
      base_ += k_ > 1 ? k_ * row_words_ : 0;                                                                          \
    }                                                                                                                 \
    int reach_ = 1;                                                                                                   \
    int left_ = pc.p;                                                                                                 \
    while (left_ >= 4) {                                                                                              \
      HAD_PASS(total, 16, reach_, t, threads)                                                                         \
      HAD_SYNC();                                                                                                     \
      reach_ <<= 4;                                                                                                   \
      left_ -= 4;                                                                                                     \
    }                                                                                                                 \
    if (left_ == 3) HAD_PASS(total, 8, reach_, t, threads)                                                            \
    if (left_ == 2) HAD_PASS(total, 4, reach_, t, threads)                                                            \
    if (left_ == 1) HAD_PASS(total, 2, reach_, t, threads)                                                            \
    HAD_SYNC();                                                                                                       \
  }
