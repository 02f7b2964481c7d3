// The walk through a model that every pass makes: a text goes through one or more versions of the model (paths), block
// by block and from tap to tap, on one device. The walk owns the blocks on the device, the residual streams and what
// the taps give; a pass brings the weights of each block and keeps what it does with a tap.
#pragma once
#include "quantizer/file/plan.h"
#include "runtime/model/block.h"

enum { GYRE_WALK_PATHS = 3 };

// The device of a run: the one that was named, else a GPU, else the host (backends/cpu/fast.h): a software GPU would
// take longer than everything else together.
gyre_status gyre_walk_device(const gyre_quantize_params *params, gyre_device **out, gyre_error *err) GYRE_MUST_USE;

struct gyre_walk_params {
    gyre_device *device;       // must outlive the walk
    const gyre_source *source; // for the divisors of RoPE
    const uint32_t *token;     // [windows][tokens]; must outlive the walk
    uint32_t windows, tokens;  // sequences, each from position 0
    uint32_t chunk_rows;       // about so many rows run together: whole windows, at least one
    uint32_t n_paths;
    struct gyre_walk_path {
        const struct gyre_hparams *hp;     // shapes and the online rotations that the path's weights expect
        struct gyre_block_options options; // widths and clips; the rest is the walk's
    } path[GYRE_WALK_PATHS];
    uint64_t head_bytes; // kept in front of the streams, a multiple of 8; zeros at first
};

typedef struct gyre_walk gyre_walk;

gyre_status gyre_walk_open(const struct gyre_walk_params *params, gyre_walk **out, gyre_error *err) GYRE_MUST_USE;
void gyre_walk_close(gyre_walk *walk);

// The residual stream of a path, [windows * tokens][D]; the walk's, free to be changed between blocks.
float *gyre_walk_stream(const gyre_walk *walk, uint32_t path);

// The first head_bytes and the streams in one piece, for the journal.
void *gyre_walk_state(const gyre_walk *walk, uint64_t *bytes);

// Fills the stream of a path: embed(user, tokens, n, out) gives n rows [n][D] of the path's own table, a window at a
// time.
gyre_status gyre_walk_embed(gyre_walk *walk, uint32_t path,
                            gyre_status (*embed)(const void *user, const uint32_t *token, uint32_t n, float *out,
                                                 gyre_error *err),
                            const void *user, gyre_error *err) GYRE_MUST_USE;

// Rows that ran together.
struct gyre_walk_chunk {
    uint32_t window, windows;
    uint64_t first, rows; // of the stream
};

// What a pass does with a tap: x [at->rows][gyre_product_width] is what its linears read, not yet quantized; it is the
// walk's.
typedef gyre_status gyre_walk_look(void *user, const struct gyre_walk_chunk *at, const float *x, gyre_error *err);

// Part `part` of a block (gyre_block_part) for all rows of a path; part 0 to GYRE_PRODUCTS in turn. `look` may be NULL;
// it is not called for GYRE_PRODUCTS, which ends the block.
gyre_status gyre_walk_part(gyre_walk *walk, uint32_t path, uint32_t part, gyre_walk_look *look, void *user,
                           gyre_error *err) GYRE_MUST_USE;

// What the last part gave of the rows of chunk `at`: [at->rows][width of its tap].
const float *gyre_walk_tap(const gyre_walk *walk, uint32_t path, const struct gyre_walk_chunk *at);
struct gyre_walk_chunk gyre_walk_chunk(const gyre_walk *walk, uint32_t window); // the one that begins there

// The block of a path on the device: to be loaded (once with each weight of each layer), and asked for means.
gyre_block *gyre_walk_block(const gyre_walk *walk, uint32_t path);
