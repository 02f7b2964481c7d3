/* One kernel source, two languages. At build time the system's C preprocessor turns dialect.h + params.h + a .k
   file into GLSL for Vulkan; with GYRE_CL defined the same text is OpenCL C 1.2, compiled by the driver.

   Rules that keep both compilers content (each one was paid for):
   - output bindings first; 4-byte scalars and their vectors only, never 8- or 16-bit buffers; no pointers, no casts
     of buffers: bind the same memory twice instead
   - F(x) I(x) U(x) convert, V4F(..) constructs; uint never becomes int by itself. I4(u) and U4(i) keep the bits of
     a vector, F4(i) converts an int4 and TO_I4(f) a float4
   - NO_CONTRACT before PARAMS and PRECISE before a float's declaration: its products and sums are rounded one by one
   - no early return before a barrier (Mali-G76 hangs); no #if on a SPEC name (silently false in GLSL): use C `if`
   - helper functions take and return values; helpers that touch buffers or shared memory are macros
   - no words that one side reserves: sample input output filter buffer shared active common half kernel global local
   - what changes from token to token lives in a buffer, never in pc: recordings are replayed
   - a loop over a size of the model is shared by so many invocations that each goes round less than 65,535 times, all
     loops of the kernel together: lavapipe ends them there and says nothing (gyre_device_info.max_loop; a kernel's
     comment says how often, runtime/graph/tune.c sees to it). A sum then also checks itself: CUT
   Workgroup size is WGX, WGY, WGZ (constant ids 0, 1, 2; WORKGROUP(x, y, z) states their defaults); a kernel's own
   constants start at id 3. A kernel may #include "name.k.h" from this folder.
   A source NAME.vk.k is for Vulkan alone and may use GLSL's cooperative matrices.                               */
#ifdef GYRE_CL
/* ------------------------------------------------------------------------------------------------ OpenCL C */
/* A binding arrives as a whole buffer and the place in it (gyre_at, in bytes): sub-buffers would have to lie on the
   driver's boundaries, and NVIDIA's driver crashes when some are released. */
#define BUF_R(b, T, n)  const __global T *, restrict, n, b
#define BUF_W(b, T, n)  __global T *, restrict, n, b
#define BUF_RW(b, T, n) __global T *, , n, b
#define GYRE_ARG(P, Q, n, b) P Q gyre_##n
#define GYRE_AT(P, Q, n, b) P n = (P)((__global char *)gyre_##n + gyre_at.byte[b]);
#define GYRE_LAST const gyre_at_t gyre_at, const gyre_pc_t pc
typedef struct { ulong byte[12]; } gyre_at_t;
#define SPEC(id, n, def) /* arrives as -Dn=value */
#define WORKGROUP(x, y, z) /* arrives as -DWGX=x -DWGY=y -DWGZ=z */
#define GYRE_FIELD_I(n) int n;
#define GYRE_FIELD_F(n) float n;
#define PARAMS(op) typedef struct { GYRE_PARAMS_##op(GYRE_FIELD_I, GYRE_FIELD_F) } gyre_pc_t;
#define SHARED(T, n, count) __local T n[count];
#define GYRE_ATTR __attribute__((reqd_work_group_size(WGX, WGY, WGZ)))
#define GYRE_HEAD(nm) __kernel GYRE_ATTR void GYRE_ENTRY
#define KERNEL2(nm, SH, a, b) GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_LAST) { GYRE_AT(a) GYRE_AT(b) SH
#define KERNEL3(nm, SH, a, b, c) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) SH
#define KERNEL4(nm, SH, a, b, c, d) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) SH
#define KERNEL5(nm, SH, a, b, c, d, e) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) SH
#define KERNEL6(nm, SH, a, b, c, d, e, f) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) SH
#define KERNEL7(nm, SH, a, b, c, d, e, f, g) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_ARG(g), \
    GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) GYRE_AT(g) SH
#define KERNEL8(nm, SH, a, b, c, d, e, f, g, h) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_ARG(g), \
    GYRE_ARG(h), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) GYRE_AT(g) GYRE_AT(h) SH
#define KERNEL9(nm, SH, a, b, c, d, e, f, g, h, i) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_ARG(g), \
    GYRE_ARG(h), GYRE_ARG(i), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) GYRE_AT(g) GYRE_AT(h) GYRE_AT(i) SH
#define KERNEL10(nm, SH, a, b, c, d, e, f, g, h, i, j) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_ARG(g), \
    GYRE_ARG(h), GYRE_ARG(i), GYRE_ARG(j), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) GYRE_AT(g) GYRE_AT(h) GYRE_AT(i) GYRE_AT(j) SH
#define KERNEL11(nm, SH, a, b, c, d, e, f, g, h, i, j, k) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_ARG(g), \
    GYRE_ARG(h), GYRE_ARG(i), GYRE_ARG(j), GYRE_ARG(k), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) GYRE_AT(g) GYRE_AT(h) GYRE_AT(i) GYRE_AT(j) \
    GYRE_AT(k) SH
#define KERNEL12(nm, SH, a, b, c, d, e, f, g, h, i, j, k, l) \
  GYRE_HEAD(nm)(GYRE_ARG(a), GYRE_ARG(b), GYRE_ARG(c), GYRE_ARG(d), GYRE_ARG(e), GYRE_ARG(f), GYRE_ARG(g), \
    GYRE_ARG(h), GYRE_ARG(i), GYRE_ARG(j), GYRE_ARG(k), GYRE_ARG(l), GYRE_LAST) { \
  GYRE_AT(a) GYRE_AT(b) GYRE_AT(c) GYRE_AT(d) GYRE_AT(e) GYRE_AT(f) GYRE_AT(g) GYRE_AT(h) GYRE_AT(i) GYRE_AT(j) \
    GYRE_AT(k) GYRE_AT(l) SH
#define END_KERNEL }
#define FN static inline
#define WG_X ((int)get_group_id(0))
#define WG_Y ((int)get_group_id(1))
#define WG_Z ((int)get_group_id(2))
#define GYRE_LI(d) ((int)get_local_id(d))
#define BARRIER_L() barrier(CLK_LOCAL_MEM_FENCE)
#define BARRIER_G() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define I(x) ((int)(x))
#define U(x) ((uint)(x))
#define F(x) ((float)(x))
#define V2F(a, b) ((float2)(a, b))
#define V4F(a, b, c, d) ((float4)(a, b, c, d))
#define V2U(a, b) ((uint2)(a, b))
#define V4U(a, b, c, d) ((uint4)(a, b, c, d))
#define V4I(a, b, c, d) ((int4)(a, b, c, d))
#define ABSF(x) fabs(x)
#ifdef __SSE4_1__ /* one instruction; PoCL's own for one float is a call */
static inline float __attribute__((overloadable)) gyre_rint(float x) { return __builtin_rintf(x); }
static inline float4 __attribute__((overloadable)) gyre_rint(float4 x) { return rint(x); }
#define ROUNDE(x) gyre_rint(x)
#else
#define ROUNDE(x) rint(x)
#endif
#define RSQRT(x) rsqrt(x)
#define TANHF(x) tanh(x)
#define BITS_U(x) as_uint(x)
#define BITS_I(x) as_int(x)
#define BITS_F(x) as_float(x)
#define F4_BITS(x) as_float4(x)
#define I4(x) as_int4(x)
#define U4(x) as_uint4(x)
#define NO_CONTRACT _Pragma("OPENCL FP_CONTRACT OFF")
#define PRECISE
#define F4(x) convert_float4(x)
#define TO_I4(x) convert_int4(x)
#define UNROLL __attribute__((opencl_unroll_hint))
/* two halves in one uint word: both as a float2, the low one, the high one */
#define UNPACK_H2(u) gyre_unpack_h2(u)
#define PACK_H2(v) gyre_pack_h2(v)
#define H_LO(u) gyre_half(u)
#define H_HI(u) gyre_half((u) >> 16)
static inline float2 gyre_unpack_h2(uint u) { return vload_half2(0, (const __private half *)&u); }
static inline float gyre_half(uint u) { return vload_half(0, (const __private half *)&u); }
static inline uint gyre_pack_h2(float2 v) { uint u; vstore_half2_rte(v, 0, (__private half *)&u); return u; }
#if defined(__opencl_c_integer_dot_product_input_4x8bit_packed) && defined(GYRE_INT_DOT)
#define DOT4_SS(a, b, c) ((c) + dot_4x8packed_ss_int((a), (b)))
#endif
#else
/* -------------------------------------------------------------------------------------------- GLSL (Vulkan) */
#define GYRE_HASH # /* directives of GLSL, not of this preprocessor */
GYRE_HASH version 450
GYRE_HASH extension GL_EXT_control_flow_attributes : require
#ifdef GYRE_INT_DOT
GYRE_HASH extension GL_EXT_spirv_intrinsics : require
/* OpSDot with both packed capabilities: DotProductKHR, DotProductInput4x8BitPackedKHR; format 0 = packed 4x8 */
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int gyre_sdot(uint a, uint b, spirv_literal int format);
#endif
#define int2 ivec2
#define int4 ivec4
#define uint2 uvec2
#define uint4 uvec4
#define float2 vec2
#define float4 vec4
#define BUF_R(b, T, n)  layout(set = 0, binding = b, std430) restrict readonly buffer B_##n { T n[]; };
#define BUF_W(b, T, n)  layout(set = 0, binding = b, std430) restrict writeonly buffer B_##n { T n[]; };
#define BUF_RW(b, T, n) layout(set = 0, binding = b, std430) buffer B_##n { T n[]; };
#define SPEC(id, n, def) layout(constant_id = id) const int n = def;
#define WORKGROUP(x, y, z) const ivec3 gyre_workgroup = ivec3(x, y, z);
#define GYRE_FIELD_I(n) int n;
#define GYRE_FIELD_F(n) float n;
#define PARAMS(op) layout(push_constant, std430) uniform gyre_pc_t { GYRE_PARAMS_##op(GYRE_FIELD_I, GYRE_FIELD_F) } pc;
#define SHARED(T, n, count) shared T n[count];
#define GYRE_HEAD layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in; void main() {
#define KERNEL2(nm, SH, a, b) a b SH GYRE_HEAD
#define KERNEL3(nm, SH, a, b, c) a b c SH GYRE_HEAD
#define KERNEL4(nm, SH, a, b, c, d) a b c d SH GYRE_HEAD
#define KERNEL5(nm, SH, a, b, c, d, e) a b c d e SH GYRE_HEAD
#define KERNEL6(nm, SH, a, b, c, d, e, f) a b c d e f SH GYRE_HEAD
#define KERNEL7(nm, SH, a, b, c, d, e, f, g) a b c d e f g SH GYRE_HEAD
#define KERNEL8(nm, SH, a, b, c, d, e, f, g, h) a b c d e f g h SH GYRE_HEAD
#define KERNEL9(nm, SH, a, b, c, d, e, f, g, h, i) a b c d e f g h i SH GYRE_HEAD
#define KERNEL10(nm, SH, a, b, c, d, e, f, g, h, i, j) a b c d e f g h i j SH GYRE_HEAD
#define KERNEL11(nm, SH, a, b, c, d, e, f, g, h, i, j, k) a b c d e f g h i j k SH GYRE_HEAD
#define KERNEL12(nm, SH, a, b, c, d, e, f, g, h, i, j, k, l) a b c d e f g h i j k l SH GYRE_HEAD
#define END_KERNEL }
#define FN
layout(constant_id = 0) const int WGX = 1;
layout(constant_id = 1) const int WGY = 1;
layout(constant_id = 2) const int WGZ = 1;
#define WG_X int(gl_WorkGroupID.x)
#define WG_Y int(gl_WorkGroupID.y)
#define WG_Z int(gl_WorkGroupID.z)
#define GYRE_LI(d) int(gl_LocalInvocationID[d])
#define BARRIER_L() barrier()
#define BARRIER_G() memoryBarrierBuffer(); barrier()
#define I(x) int(x)
#define U(x) uint(x)
#define F(x) float(x)
#define V2F(a, b) vec2(a, b)
#define V4F(a, b, c, d) vec4(a, b, c, d)
#define V2U(a, b) uvec2(a, b)
#define V4U(a, b, c, d) uvec4(a, b, c, d)
#define V4I(a, b, c, d) ivec4(a, b, c, d)
#define ABSF(x) abs(x)
#define ROUNDE(x) roundEven(x)
#define RSQRT(x) inversesqrt(x)
#define TANHF(x) tanh(x)
#define BITS_U(x) floatBitsToUint(x)
#define BITS_I(x) floatBitsToInt(x)
#define BITS_F(x) uintBitsToFloat(x)
#define F4_BITS(x) uintBitsToFloat(x)
#define I4(x) ivec4(x)
#define U4(x) uvec4(x)
#define NO_CONTRACT
#define PRECISE precise
#define F4(x) vec4(x)
#define TO_I4(x) ivec4(x)
#define UNROLL [[unroll]]
#define UNPACK_H2(u) unpackHalf2x16(u)
#define H_LO(u) unpackHalf2x16(u).x
#define H_HI(u) unpackHalf2x16(u).y
#define PACK_H2(v) packHalf2x16(v)
#ifdef GYRE_INT_DOT
#define DOT4_SS(a, b, c) ((c) + gyre_sdot(U(a), U(b), 0))
#endif
#endif
/* ------------------------------------------------------------------------------------------------ both sides */
#define NOSHARED
/* local ids that fold to 0 when the workgroup has no extent there, so that compilers see uniform addresses */
#define LI_X (WGX > 1 ? GYRE_LI(0) : 0)
#define LI_Y (WGY > 1 ? GYRE_LI(1) : 0)
/* Whether a loop that goes on while at < end came to its end, or the driver ended it early; a subtraction, since
   compilers conclude the loop's own condition. Where a kernel goes over the same extent several times, the last time
   tells for all.
   CUT: what such a loop has made, `value`, or NaN. */
#define DONE(at, end) ((at) - (end) >= 0)
#define QNAN BITS_F(0x7FC00000u)
#define CUT(at, end, value) (DONE(at, end) ? (value) : QNAN)
/* signed byte k (0..3) of a word */
#define BYTE_S(w, k) (I(U(w) << U(24 - 8 * (k))) >> 24)
/* c + sum over four packed signed bytes; the accelerated form (DOT4_FAST) gives the same bits */
#ifdef DOT4_SS
#define DOT4_FAST 1
#else
#define DOT4_SS(a, b, c) \
  ((c) + BYTE_S(a, 0) * BYTE_S(b, 0) + BYTE_S(a, 1) * BYTE_S(b, 1) + BYTE_S(a, 2) * BYTE_S(b, 2) + \
   BYTE_S(a, 3) * BYTE_S(b, 3))
#endif
