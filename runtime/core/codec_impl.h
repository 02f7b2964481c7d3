// Between codec.c, codec_k.c and codec_table.c only: decoders by type.
#pragma once
#include <stdint.h>
#include <string.h>

void gyre_decode_q2_k(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_q3_k(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_q4_k(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_q5_k(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_q6_k(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_iq4_nl(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_iq4_xs(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_mxfp4(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_tq1_0(const uint8_t *blocks, uint64_t n_blocks, float *out);
void gyre_decode_tq2_0(const uint8_t *blocks, uint64_t n_blocks, float *out);

// Files promise no alignment.
static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
