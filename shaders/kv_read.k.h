/* Eight dims of a cached vector (params.h, `kv`) as floats, for kernels that go through a cache vector by vector:
   chunk c of the vector at `slot` of a pool of `bits`, its HD a constant, into float4 a and b. `meta` is its meta
   word; a caller of 16 bits gives KV_ONE. */
#define KV_ONE 0x3C00u /* scale 1, zero 0 */
FN float4 kv_codes(uint u, int bits)
{
  const uint step = U(bits);
  const uint mask = (1u << step) - 1u;
  return V4F(F(I(u & mask)), F(I(u >> step & mask)), F(I(u >> (2u * step) & mask)), F(I(u >> (3u * step) & mask)));
}
#define KV_CHUNK(pool, slot, c, bits, meta, a, b)                                                                     \
  {                                                                                                                   \
    const int word_ = (slot) * (HD * (bits) / 32) + (c) * ((bits) / 4);                                               \
    const float2 m_ = UNPACK_H2(meta);                                                                                \
    if ((bits) == 16) {                                                                                               \
      const float2 p_ = UNPACK_H2(pool[word_]);                                                                       \
      const float2 q_ = UNPACK_H2(pool[word_ + ((bits) == 16 ? 1 : 0)]);                                              \
      const float2 r_ = UNPACK_H2(pool[word_ + ((bits) == 16 ? 2 : 0)]);                                              \
      const float2 s_ = UNPACK_H2(pool[word_ + ((bits) == 16 ? 3 : 0)]);                                              \
      a = V4F(p_.x, p_.y, q_.x, q_.y);                                                                                \
      b = V4F(r_.x, r_.y, s_.x, s_.y);                                                                                \
    } else {                                                                                                          \
      const uint first_ = pool[word_];                                                                                \
      const uint second_ = (bits) == 8 ? pool[word_ + ((bits) == 8 ? 1 : 0)] : first_ >> 16u;                         \
      a = (kv_codes(first_, (bits) == 8 ? 8 : 4) - m_.y) * m_.x;                                                      \
      b = (kv_codes(second_, (bits) == 8 ? 8 : 4) - m_.y) * m_.x;                                                     \
    }                                                                                                                 \
  }
/* dim i of a vector, from its word */
FN float kv_dim(uint u, int i, int bits, float2 meta)
{
  if (bits == 16) return (i & 1) == 0 ? H_LO(u) : H_HI(u);
  return (F(I(u >> U(i * bits & 31) & ((1u << U(bits)) - 1u))) - meta.y) * meta.x;
}
#define KV_META(metas, slot, bits) ((bits) == 16 ? KV_ONE : metas[slot])
/* the sum of eight products */
#define DOT8(q, at, a, b)                                                                                             \
  (q[at] * a.x + q[(at) + 1] * a.y + q[(at) + 2] * a.z + q[(at) + 3] * a.w + q[(at) + 4] * b.x + q[(at) + 5] * b.y + \
   q[(at) + 6] * b.z + q[(at) + 7] * b.w)
