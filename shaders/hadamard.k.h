/* The online Hadamard transform of one workgroup: in place, over data that the kernel names.

   Before use a kernel defines
     HAD_AT(i)     element i as an lvalue (shared memory, or a buffer bound for reading and writing)
     HAD_SYNC()    the barrier that makes one invocation's HAD_AT writes visible to the others
   and declares `pc` with the fields of GYRE_PARAMS_HAD, a read-only uint buffer `base` (shaders/params.h), and with
   HAD_SPECS(first id) the constants K1, K2, K3, P. They repeat pc's where every k is at most 32: loops unroll and an
   axis is transformed in registers; or K1 is 0 (the default), then pc's are used.

   HAD_TRANSFORM(total, t, threads) transforms elements 0..total-1, a whole number of segments of pc.n = k1*k2*k3*2^p,
   by all `threads` invocations (t = 0..threads-1) in uniform control flow. It starts after a HAD_SYNC of the caller's
   and ends with one. It does not divide: the caller multiplies by HAD_NORM. Needs threads >= ceil(max(k1,k2,k3) / 16).

   x is a tensor [segment][k1][k2][k3][2^p]; every axis is transformed by itself, in f32. The dense axes come first: an
   invocation keeps all (constants) or 16 outputs of one column in registers and reads the column once. The axis 2^p
   takes four butterfly stages per pass in registers. Additions only, in a fixed order: the same bits on every device.

   Loops: per dense axis total / k / threads in registers, else total / floor(threads / ceil(k / 16)), 17 times that
   when transposed; total / 16 / threads for every four stages of 2^p. */
#define HAD_SPECS(a, b, c, d) SPEC(a, K1, 0) SPEC(b, K2, 1) SPEC(c, K3, 1) SPEC(d, P, 0)
#define HAD_NORM RSQRT(F(pc.n))

#define HAD_SIGNED(x, bits, o) BITS_F(BITS_U(x) ^ (((bits) << U(31 - (o))) & 0x80000000u))

/* Dense axis of K (a constant, 2..32) elements at distance s: a column is one invocation's, in registers. Bit i of
   signs_[j]: the sign with which element j enters output i. */
#define HAD_LANES(total, K, s, words, t, threads)                                                                     \
  uint signs_[K];                                                                                                     \
  UNROLL for (int j_ = 0; j_ < K; j_++) signs_[j_] = pc.had_t != 0 ? 0u : base[(words) + j_];                         \
  for (int i_ = 0; i_ < (pc.had_t != 0 ? K : 0); i_++) {                                                              \
    const uint row_ = base[(words) + i_];                                                                             \
    UNROLL for (int j_ = 0; j_ < K; j_++) signs_[j_] |= ((row_ >> U(j_)) & 1u) << U(i_);                              \
  }                                                                                                                   \
  for (int column_ = (t); column_ < (total) / (K); column_ += (threads)) {                                            \
    const int outer_ = column_ / (s);                                                                                 \
    const int at_ = outer_ * ((K) * (s)) + (column_ - outer_ * (s));                                                  \
    float sum_[K];                                                                                                    \
    UNROLL for (int i_ = 0; i_ < K; i_++) sum_[i_] = 0.0f;                                                            \
    UNROLL for (int j_ = 0; j_ < K; j_++) {                                                                           \
      const float x_ = HAD_AT(at_ + j_ * (s));                                                                        \
      UNROLL for (int i_ = 0; i_ < K; i_++) sum_[i_] += HAD_SIGNED(x_, signs_[j_], i_);                               \
    }                                                                                                                 \
    UNROLL for (int i_ = 0; i_ < K; i_++) HAD_AT(at_ + i_ * (s)) = sum_[i_];                                          \
  }                                                                                                                   \
  HAD_SYNC();

/* Dense axis of k elements at distance s. Bits of `signs`: the signs with which element j enters outputs
   first..first+15. */
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

/* Butterfly i of the stage with distance h, h a constant, on the registers a of type T. */
#define HAD_BUTTERFLY(T, a, h, i)                                                                                     \
  {                                                                                                                   \
    const int p_ = (((i) & ~((h) - 1)) << 1) | ((i) & ((h) - 1));                                                     \
    const T u_ = a[p_];                                                                                               \
    const T w_ = a[p_ + (h)];                                                                                         \
    a[p_] = u_ + w_;                                                                                                  \
    a[p_ + (h)] = u_ - w_;                                                                                            \
  }
#define HAD_STAGE(T, a, m, h) UNROLL for (int i_ = 0; i_ < (m) / 2; i_++) HAD_BUTTERFLY(T, a, h, i_)
#define HAD_STAGES2(T, a) HAD_STAGE(T, a, 2, 1)
#define HAD_STAGES4(T, a) HAD_STAGE(T, a, 4, 1) HAD_STAGE(T, a, 4, 2)
#define HAD_STAGES8(T, a) HAD_STAGE(T, a, 8, 1) HAD_STAGE(T, a, 8, 2) HAD_STAGE(T, a, 8, 4)
#define HAD_STAGES16(T, a) HAD_STAGE(T, a, 16, 1) HAD_STAGE(T, a, 16, 2) HAD_STAGE(T, a, 16, 4) HAD_STAGE(T, a, 16, 8)

/* log2(m) stages, from distance s on, of columns that stand beside each other: T holds `width` of them, each element
   with GET(i), PUT(i, value). */
#define HAD_COLUMNS(T, width, GET, PUT, total, m, s, t, threads)                                                      \
  for (int c_ = (t) * (width); c_ < (total) / (m); c_ += (threads) * (width)) {                                       \
    const int at_ = (c_ & ~((s) - 1)) * (m) + (c_ & ((s) - 1));                                                       \
    T a_[m];                                                                                                          \
    UNROLL for (int j_ = 0; j_ < (m); j_++) a_[j_] = GET(at_ + j_ * (s));                                             \
    HAD_STAGES##m(T, a_)                                                                                              \
    UNROLL for (int j_ = 0; j_ < (m); j_++) PUT(at_ + j_ * (s), a_[j_])                                               \
  }
#define HAD_GET(i) HAD_AT(i)
#define HAD_PUT(i, value) HAD_AT(i) = value;

#if defined(GYRE_CL) && defined(__SSE4_1__)
/* A CPU runs invocations one by one, and its compiler makes no vectors of theirs here: eight columns beside each other
   at once, and where they are an axis of 16 in memory, stages within a vector. The same additions. */
#define HAD_GET8(i) vload8(0, &HAD_AT(i))
#define HAD_PUT8(i, value) vstore8(value, 0, &HAD_AT(i));
#define HAD_WITHIN(v, swapped, a, b, c)                                                                               \
  v = v.swapped + v * (float8)(1.0f, a, b, (a) * (b), c, (a) * (c), (b) * (c), (a) * (b) * (c));
#define HAD_WITHIN8(v)                                                                                                \
  HAD_WITHIN(v, s10325476, -1.0f, 1.0f, 1.0f)                                                                         \
  HAD_WITHIN(v, s23016745, 1.0f, -1.0f, 1.0f)                                                                         \
  HAD_WITHIN(v, s45670123, 1.0f, 1.0f, -1.0f)
#define HAD_PASS(total, m, s, t, threads)                                                                             \
  {                                                                                                                   \
    if ((s) == 1 && (m) == 16) {                                                                                      \
      for (int at_ = (t) * 16; at_ < (total); at_ += (threads) * 16) {                                                \
        float8 u_ = HAD_GET8(at_);                                                                                    \
        float8 w_ = HAD_GET8(at_ + 8);                                                                                \
        HAD_WITHIN8(u_)                                                                                               \
        HAD_WITHIN8(w_)                                                                                               \
        HAD_PUT8(at_, u_ + w_)                                                                                        \
        HAD_PUT8(at_ + 8, u_ - w_)                                                                                    \
      }                                                                                                               \
    } else if ((s) >= 8) {                                                                                            \
      HAD_COLUMNS(float8, 8, HAD_GET8, HAD_PUT8, total, m, s, t, threads)                                             \
    } else {                                                                                                          \
      HAD_COLUMNS(float, 1, HAD_GET, HAD_PUT, total, m, s, t, threads)                                                \
    }                                                                                                                 \
    HAD_SYNC();                                                                                                       \
  }
/* One invocation for all, so that signs become factors once. */
#define HAD_SMALL(total, K, s, words, t, threads)                                                                     \
  if ((s) % 8 == 0) {                                                                                                 \
    float factor_[(K) * (K)];                                                                                         \
    for (int i_ = 0; i_ < ((t) == 0 ? (K) * (K) : 0); i_++) {                                                         \
      const int from_ = pc.had_t != 0 ? i_ % (K) : i_ / (K);                                                          \
      const int to_ = pc.had_t != 0 ? i_ / (K) : i_ % (K);                                                            \
      factor_[i_] = BITS_F(0x3F800000u | ((base[(words) + from_] >> U(to_)) << 31));                                  \
    }                                                                                                                 \
    for (int column_ = 0; column_ < ((t) == 0 ? (total) / (K) : 0); column_ += 8) {                                   \
      const int outer_ = column_ / (s);                                                                               \
      const int at_ = outer_ * ((K) * (s)) + (column_ - outer_ * (s));                                                \
      float8 sum_[K];                                                                                                 \
      UNROLL for (int i_ = 0; i_ < K; i_++) sum_[i_] = (float8)(0.0f);                                                \
      UNROLL for (int j_ = 0; j_ < K; j_++) {                                                                         \
        const float8 x_ = HAD_GET8(at_ + j_ * (s));                                                                   \
        UNROLL for (int i_ = 0; i_ < K; i_++) sum_[i_] += x_ * factor_[j_ * (K) + i_];                                \
      }                                                                                                               \
      UNROLL for (int i_ = 0; i_ < K; i_++) HAD_PUT8(at_ + i_ * (s), sum_[i_])                                        \
    }                                                                                                                 \
    HAD_SYNC();                                                                                                       \
  } else {                                                                                                            \
    HAD_LANES(total, K, s, words, t, threads)                                                                         \
  }
#else
#define HAD_PASS(total, m, s, t, threads)                                                                             \
  {                                                                                                                   \
    HAD_COLUMNS(float, 1, HAD_GET, HAD_PUT, total, m, s, t, threads)                                                  \
    HAD_SYNC();                                                                                                       \
  }
#define HAD_SMALL(total, K, s, words, t, threads) HAD_LANES(total, K, s, words, t, threads)
#endif

/* An axis whose factor is a constant; one of 1 is none. */
#define HAD_AXIS(total, K, s, words, t, threads)                                                                      \
  if (K1 > 0 && (K) > 1) {                                                                                            \
    HAD_SMALL(total, (K1 > 0 && (K) <= 32 ? (K) : 1), s, words, t, threads)                                           \
  }
#define HAD_WORDS(k) ((k) > 1 ? (k) * (((k) + 31) >> 5) : 0)

#define HAD_TRANSFORM(total, t, threads)                                                                              \
  {                                                                                                                   \
    const int k2_ = K1 > 0 ? K2 : pc.k2;                                                                              \
    const int k3_ = K1 > 0 ? K3 : pc.k3;                                                                              \
    int left_ = K1 > 0 ? P : pc.p;                                                                                    \
    const int s3_ = 1 << left_;                                                                                       \
    const int s2_ = k3_ * s3_;                                                                                        \
    const int s1_ = k2_ * s2_;                                                                                        \
    if (K1 > 0) {                                                                                                     \
      HAD_AXIS(total, K1, s1_, 0, t, threads)                                                                         \
      HAD_AXIS(total, K2, s2_, HAD_WORDS(K1), t, threads)                                                             \
      HAD_AXIS(total, K3, s3_, HAD_WORDS(K1) + HAD_WORDS(K2), t, threads)                                             \
    } else {                                                                                                          \
      int axis_k_ = pc.k1;                                                                                            \
      int axis_s_ = s1_;                                                                                              \
      int axis_words_ = 0;                                                                                            \
      for (int axis_ = 0; axis_ < 3; axis_++) {                                                                       \
        HAD_DENSE(total, axis_k_, axis_s_, axis_words_, t, threads)                                                   \
        axis_words_ += HAD_WORDS(axis_k_);                                                                            \
        axis_k_ = axis_ == 0 ? k2_ : k3_;                                                                             \
        axis_s_ = axis_ == 0 ? s2_ : s3_;                                                                             \
      }                                                                                                               \
    }                                                                                                                 \
    int reach_ = 1;                                                                                                   \
    while (left_ >= 4) {                                                                                              \
      HAD_PASS(total, 16, reach_, t, threads)                                                                         \
      reach_ <<= 4;                                                                                                   \
      left_ -= 4;                                                                                                     \
    }                                                                                                                 \
    if (K1 > 0 && left_ == 3) HAD_PASS(total, 8, reach_, t, threads)                                                  \
    if (K1 > 0 && left_ == 2) HAD_PASS(total, 4, reach_, t, threads)                                                  \
    /* without constants one small pass must do for all: code is short */                                             \
    while (left_ > 0 && (K1 == 0 || left_ == 1)) {                                                                    \
      HAD_PASS(total, 2, reach_, t, threads)                                                                          \
      reach_ <<= 1;                                                                                                   \
      left_ -= 1;                                                                                                     \
    }                                                                                                                 \
  }
