// Calibration: windows of a text go through the float model and the one that is being made, block by block as each is
// made, with the run-time quantizers on in the second. What the linears of a tap read becomes second moments
// (moments.h); activations of one tap of one block are all that is held.
#pragma once
#include "quantizer/round/moments.h"
#include "quantizer/round/outputs.h"
#include "quantizer/file/plan.h"
#include "quantizer/transform/diagonals.h"
#include "runtime/model/block.h"

#include <jansson.h>
#include "runtime/util/ticker.h"

typedef struct gyre_calibration gyre_calibration;
struct gyre_calib_text;
struct gyre_own_text;

// Reads and tokenizes the texts; `own` is what the model wrote for them. Blocks run on `device`, which must outlive the
// calibration. *out is NULL where the recipe needs none. GYRE_E_FORMAT where a text is not UTF-8, empty or shorter than
// one window (the file is named).
gyre_status gyre_calibration_open(const gyre_quantize_params *params, const struct gyre_plan *plan,
                                  const struct gyre_own_text *own, gyre_device *device, gyre_calibration **out,
                                  gyre_error *err) GYRE_MUST_USE;
void gyre_calibration_close(gyre_calibration *c);

// Where the recipe says fisher or outputs: measures on the float model what each row and what outputs count for
// (gradient/fisher.h), on the host, with the rotations that will be merged.
// Ticks weights after every block of every window, each way, gyre_calibration_weigh_work(c, block_weights) in all.
gyre_status gyre_calibration_weigh(gyre_calibration *c, uint64_t block_weights, const struct gyre_ticker *ticker,
                                   gyre_error *err) GYRE_MUST_USE;
uint64_t gyre_calibration_weigh_work(const gyre_calibration *c, uint64_t block_weights);

// Embeds the tokens as both models see them.
gyre_status gyre_calibration_begin(gyre_calibration *c, gyre_error *err) GYRE_MUST_USE;

// The weights of a block in the made basis: float, and what is rounded so far (only what lies before the tap is read);
// vectors are what the file holds.
struct gyre_calibration_weights {
    float *exact[GYRE_LINEARS], *made[GYRE_LINEARS];
    struct gyre_block_weights vectors; // its linears are not read; centres are the quantized path's
};

// What the float path's taps read on the first chunk of windows with other weights than those that are being made
// (`exact`: only R1 merged, so that heads and the ffn are in their own bases); gains as in `weights`. tap[i] stays the
// calibration's until the next call.
gyre_status gyre_calibration_sample(gyre_calibration *c, const struct gyre_calibration_weights *weights,
                                    const float *tap[GYRE_PRODUCTS], uint64_t *rows, gyre_error *err) GYRE_MUST_USE;

// Moments of what the linears of `tap` read in block `layer`; taps go up by one from call to call. Release *out.
gyre_status gyre_calibration_tap(gyre_calibration *c, uint32_t layer, const struct gyre_calibration_weights *weights,
                                 gyre_product tap, struct gyre_moments *out, gyre_error *err) GYRE_MUST_USE;
// Means of what is cached on the quantized path, on the first chunk of windows; between its product's tap and the next,
// with the product's linears made. centre: of the roles that are cached.
gyre_status gyre_calibration_centre(gyre_calibration *c, const struct gyre_calibration_weights *weights,
                                    float *const centre[GYRE_LINEARS], gyre_error *err) GYRE_MUST_USE;
// After the last tap, with all linears made: both residual streams go to the next block.
gyre_status gyre_calibration_end_block(gyre_calibration *c, const struct gyre_calibration_weights *weights,
                                       gyre_error *err) GYRE_MUST_USE;

// What the outputs of a linear count for (round/outputs.h); zeros where the recipe does not ask. Release *out also
// after failure.
gyre_status gyre_calibration_outputs(const gyre_calibration *c, uint32_t layer, gyre_role role,
                                     const struct gyre_diagonals *diagonals, struct gyre_outputs *out,
                                     gyre_error *err) GYRE_MUST_USE;

const struct gyre_calib_text *gyre_calibration_windows(const gyre_calibration *c);

// Where it runs: the device's id.
const char *gyre_calibration_device(const gyre_calibration *c);

// The residual streams between two blocks, for the journal. Restoring fails (false) where they are of another size.
const void *gyre_calibration_streams(const gyre_calibration *c, uint64_t *bytes);
bool gyre_calibration_restore(gyre_calibration *c, const void *data, uint64_t bytes);
