/* Zero points of an int4 weight (params.h, `weight`) whose scales a kernel binds as uint4: a word of eight for each
   block of 8 columns in each group. `behind`: the uint4 of scales in front of them; block b of `blocks`, a multiple
   of 4. What is loaded early is taken apart late: a word picked at once would be waited for at once. */
FN uint pick(uint4 v, int i)
{
  const uint low = (i & 1) == 0 ? v.x : v.y;
  const uint high = (i & 1) == 0 ? v.z : v.w;
  return i < 2 ? low : high;
}
#define FOUR_ZEROS(g, b) scale[behind + ((g) * blocks + (b)) / 4] /* those of four blocks */
#define ZEROS_OF(four, b) pick(four, (b) & 3)
/* columns 0..3, 4..7; 0 2 4 6, 1 3 5 7 */
#define ZEROS_LOW(u) V4I(I((u) & 15u), I((u) >> 4u & 15u), I((u) >> 8u & 15u), I((u) >> 12u & 15u))
#define ZEROS_HIGH(u) ZEROS_LOW((u) >> 16u)
#define ZEROS_EVEN(u) V4I(I((u) & 15u), I((u) >> 8u & 15u), I((u) >> 16u & 15u), I((u) >> 24u & 15u))
#define ZEROS_ODD(u) ZEROS_EVEN((u) >> 4u)
/* Of columns 2h and 2h + 1, in every byte: the even one's in the low half. What makes signed bytes of four codes less
   their zero point: SIGNED(codes, ZEROS_TAKEN(pair)). */
#define ZEROS_PAIR(u, h) spread_byte((u) >> U(8 * (h)) & 0xFFu)
#define ZEROS_TAKEN(four) (0x80808080u - ((four) & 0x0F0F0F0Fu))
#define EIGHTS_TAKEN 0x78787878u
#define SIGNED(v, taken) ((((v) & 0x0F0F0F0Fu) + (taken)) ^ 0x80808080u)
/* Four codes of int4 less their zero points, as floats times 2^at: bits at.. of each word, at 0, 8 or 16. A code is put
   into the bits of 2^23, which is taken off with the zero point: exact, and what meets a code of nothing is multiplied
   by zero. (Sums of codes from 0 up, less the zero point times the sum of x, left of an outlier what it was rounded
   by.) BYTE_FACTORS: for an x that meets bytes at 0, 8, 16, and 24 shifted to 16. */
#define CODES_F(u, at, zeros) \
  (F4_BITS(((u) & (0xFu << at)) | 0x4B000000u) - (8388608.0f + (zeros) * F(1 << at)))
#define BYTE_FACTORS V4F(1.0f, 0.00390625f, 0.0000152587890625f, 0.0000152587890625f)
FN uint spread_byte(uint b)
{
  const uint two = b | b << 8u;
  return two | two << 16u;
}
