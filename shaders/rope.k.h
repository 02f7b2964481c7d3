/* The angle of a rotary embedding: position * freq, its cosine and its sine, to 4e-7 for positions up to 2^20 on every
   device, because no built-in sine sees a large argument.

   freq / (2 pi) = k 2^-24 + low, k an integer: the turns of k are counted in integers (exact, only their fraction
   matters), those of low are a small float. With freq = f1 + f2 and 1 / (2 pi) = c1 + c2 + c3, f1 f2 c1 c2 of 12 bits
   each, the products that make `low` are exact, so fused and unfused multiplications agree.                        */
FN float rope_turns(int position, float freq)
{
  const float c1 = 0.1591796875f; /* 652 / 4096 */
  const float c2 = -2.47433782e-05f;
  const float c3 = -1.02994228e-09f;
  const float f1 = BITS_F(BITS_U(freq) & 0xFFFFF000u);
  const float f2 = freq - f1;
  const float k = ROUNDE(freq * 0.15915494f * 16777216.0f);
  const float low = ((f1 * c1 - k * (1.0f / 16777216.0f)) + (f1 * c2 + f2 * c1)) + (f2 * c2 + freq * c3);
  const uint turned = (U(position) * U(I(k))) & 0xFFFFFFu;
  const float t = F(I(turned)) * (1.0f / 16777216.0f) + F(position) * low;
  return t - ROUNDE(t);
}

/* {cos, sin} of `turns` full turns, |turns| <= 1: the nearest quarter turn, then Taylor series on |a| <= pi/4 */
FN float2 rope_cos_sin(float turns)
{
  const float n = ROUNDE(turns * 4.0f);
  const float a = (turns - n * 0.25f) * 6.28318530718f;
  const float z = a * a;
  const float s = a + a * z * (-1.0f / 6.0f + z * (1.0f / 120.0f + z * (-1.0f / 5040.0f + z * (1.0f / 362880.0f))));
  const float c = 1.0f + z * (-1.0f / 2.0f + z * (1.0f / 24.0f + z * (-1.0f / 720.0f +
                  z * (1.0f / 40320.0f + z * (-1.0f / 3628800.0f)))));
  const int quarter = I(n) & 3;
  const float cs = (quarter & 1) == 0 ? c : s;
  const float sn = (quarter & 1) == 0 ? s : c;
  return V2F(quarter == 1 || quarter == 2 ? -cs : cs, quarter >= 2 ? -sn : sn);
}

/* what a query is multiplied by for where it stands: 1 + beta ln(1 + floor(position / span)); beta 0: 1 */
FN float rope_growth(int position, float beta, int span)
{
  return beta == 0.0f ? 1.0f : 1.0f + beta * log(1.0f + F(position / span));
}
