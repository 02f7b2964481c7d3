// A device, seeded data on it, and one transformer block as a graph: what the tests of this area share.
// The same seed gives the same bytes on every device. Everything lives until lab_close.
#pragma once
#include "runtime/graph/node.h"

#include <stdbool.h>

struct lab {
    gyre_device *device;
    gyre_buffer *buffers[512];
    struct gyre_weight_range *ranges[64];
    uint32_t n_buffers, n_ranges;
    uint64_t random;
    gyre_log log;
    uint32_t complaints; // of Vulkan's validation layers; lab_close wants none
};

// False: no such device. "vulkan:0 as a GPU" is vulkan:0 with the kernels of hardware.
bool lab_open(struct lab *lab, const char *id, const struct gyre_device_options *options);
void lab_close(struct lab *lab);

// A lab on the null device for all tests of a program: cmocka's setup and teardown of the group.
extern struct lab null_lab;
int null_lab_open(void **state);
int null_lab_close(void **state);

// A row of the list of tests: the test on a device, whose id is its *state.
#define LAB_ON(test, id)                                                                                               \
    {                                                                                                                  \
        .name = #test " on " id, .test_func = test, .initial_state = id                                                \
    }

uint32_t lab_random(struct lab *lab, uint32_t below);
struct gyre_binding lab_bytes(struct lab *lab, const void *data, uint64_t bytes); // data NULL: zeros
struct gyre_binding lab_floats(struct lab *lab, uint64_t n, float mean, float deviation);
void lab_read(struct lab *lab, struct gyre_binding from, void *to);
struct gyre_weight lab_weight(struct lab *lab, gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group,
                              uint32_t n_ranges);

// One block of width 64, 4 heads and 2 kv heads of 32, ffn 96 = 12 x 8 unless the shape says otherwise.
struct block_shape {
    uint32_t rows, act_bits, kv_bits, group;
    gyre_weight_kind kind;
    bool r3, r4;
    uint32_t width, heads, kv_heads, head_dim, ffn;
    bool r1;            // behind both norms; the width a power of two
    bool centred;       // random vectors are subtracted from what is cached
    uint32_t act_group; // of 4-bit activations; 0: none
    uint32_t kv_bits_v; // of values; 0: kv_bits
};
struct block {
    struct block_shape s;
    struct gyre_weight qkv, o, gate_up, down;
    struct gyre_binding x, y, attn_gain, ffn_gain;
    struct gyre_attn_shape attn;
    struct gyre_kv_pool kv;
    struct gyre_had_desc had1, had3, had4;
    struct gyre_batch batch;
};
void lab_block(struct lab *lab, struct block_shape shape, struct block *out);
gyre_graph *lab_block_graph(struct lab *lab, const struct block *b); // built, not compiled
