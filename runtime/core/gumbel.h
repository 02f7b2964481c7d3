// Draws without a sum, as shaders/gumbel.k.h makes them, bit for bit: the largest of x + temperature * g over all
// columns is a draw from softmax(x / temperature) where every g is -ln(-ln u) of a u of its own in (0, 1), a hash of
// (seed, position, column).
#pragma once
#include <stdint.h>

uint32_t gyre_gumbel_mix(uint32_t x); // the hash
// Of all draws behind one position of a text.
uint32_t gyre_gumbel_stream(uint32_t seed, uint32_t position);
// g of a column.
float gyre_gumbel(uint32_t stream, uint32_t column);
