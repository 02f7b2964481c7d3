/* Draws without a sum (Gumbel 1954): where every g is -ln(-ln u) of a u of its own in (0, 1), the largest of
   x / temperature + g is distributed as softmax(x / temperature). Here x + temperature * g, the same order without a
   division. u is a hash of (seed, position, column): it does not depend on how often, with whom or where a row runs.
   Logarithms are a polynomial in steps that are rounded one by one, so that all devices draw the same token from the
   same logits (on the host: runtime/core/gumbel.h). */
FN uint gumbel_mix(uint x)
{
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

/* The temperature of a row that is sampled from all columns; 0: it takes the largest, or `sample` truncates. */
FN float gumbel_heat(uint4 state)
{
  return BITS_F(state.x) > 0.0f && BITS_F(state.y) >= 1.0f && state.w == 0u ? BITS_F(state.x) : 0.0f;
}
FN uint gumbel_stream(uint4 state, int4 row) { return gumbel_mix(state.z ^ gumbel_mix(U(row.z) + 0x9E3779B9u)); }

/* ln of a normal number (the polynomial of Cephes' logf: 1e-7). */
FN float gumbel_ln(float y)
{
  const uint bits = BITS_U(y);
  const uint one = (bits & 0x007FFFFFu) | 0x3F800000u;
  const bool high = one > 0x3FB504F3u; /* sqrt 2 */
  const float e = F(I(bits >> 23u) - 127 + (high ? 1 : 0));
  PRECISE const float f = BITS_F(high ? one - 0x00800000u : one) - 1.0f;
  PRECISE const float z = f * f;
  PRECISE float p = 7.0376836292e-2f * f;
  p = (p - 1.1514610310e-1f) * f;
  p = (p + 1.1676998740e-1f) * f;
  p = (p - 1.2420140846e-1f) * f;
  p = (p + 1.4249322787e-1f) * f;
  p = (p - 1.6668057665e-1f) * f;
  p = (p + 2.0000714765e-1f) * f;
  p = (p - 2.4999993993e-1f) * f;
  p = (p + 3.3333331174e-1f) * f;
  PRECISE const float low = e * -2.12194440e-4f;
  PRECISE const float high_part = e * 0.693359375f;
  PRECISE const float cubic = p * z;
  PRECISE const float square = 0.5f * z;
  PRECISE const float rest = (cubic + low) - square;
  PRECISE const float sum = (f + rest) + high_part;
  return sum;
}

FN float gumbel_raised(float x, float heat, uint stream, uint column)
{
  const uint h = gumbel_mix(stream ^ gumbel_mix(column)) | 1u;
  /* w in (0, 1), small ones with all their bits; -ln(1 - w) is w + w^2 / 2 where that is nearer than 1 - w */
  PRECISE const float w = h < 0x1000000u ? F(I(h)) * 2.3283064365386963e-10f : F(I(h >> 8u)) * 5.9604644775390625e-8f;
  const bool small = w < 0.000244140625f;
  PRECISE const float rest = 1.0f - w;
  const float ln_rest = gumbel_ln(rest);
  const float ln = gumbel_ln(small ? w : -ln_rest);
  PRECISE const float half_w = 0.5f * w;
  PRECISE const float whole = ln + half_w;
  const float g = small ? -whole : -ln;
  PRECISE const float lift = heat * g;
  PRECISE const float raised = x + lift;
  return raised;
}
