// Texts into windows of tokens for calibration.
#pragma once
#include "runtime/source/source.h"
#include "runtime/util/sha256.h"

#include <gyre/gyre_quantize.h>
#include <jansson.h>

struct gyre_calib_source {
    char name[128]; // the file's name without folders; "" for the bundled text, GYRE_CALIB_SELF for the model's own
    bool own;       // the model wrote it: bytes and hash are of its tokens, 32 bits each, the lowest byte first
    uint64_t bytes;
    char sha256[GYRE_SHA256_HEX];
};

struct gyre_calib_text {
    uint32_t n_sources, windows, tokens; // windows of `tokens` tokens
    uint32_t more;                       // and what `distill` alone reads, of what those leave of the texts
    struct gyre_calib_source *source;    // [n_sources]
    uint32_t *token;                     // [windows + more][tokens]
};

// What the float model wrote itself for this run (own_text.h); windows 0: nothing.
struct gyre_own_text {
    uint32_t *token; // [windows + more][tokens]
    uint32_t windows, tokens, more;
};

// How many of `windows` windows text i of n gives.
uint32_t gyre_calib_share(uint32_t windows, uint64_t i, uint64_t n);

// Reads `n` texts (0: the bundled one; GYRE_CALIB_BUNDLED among them is that, GYRE_CALIB_SELF is `own`) and takes
// `windows` windows of `tokens` tokens from them, in equal shares and evenly spread over each; fewer where a text is
// short. `more` windows are taken the same way from what these leave of each text, put together in its order: no token
// of a text is in two windows, and the first ones do not depend on `more`. GYRE_E_FORMAT, naming the file, where one is
// empty, not UTF-8 or shorter than one window.
gyre_status gyre_calib_text_read(const gyre_source *model, const char *const *paths, uint32_t n,
                                 const struct gyre_own_text *own, uint32_t windows, uint32_t more, uint32_t tokens,
                                 struct gyre_calib_text *out, gyre_error *err) GYRE_MUST_USE;
void gyre_calib_text_free(struct gyre_calib_text *text);

// For the manifest: {"texts": [{"name", "bytes", "sha256"}], "windows", "tokens"}, and "more_windows" where there are
// any; a new reference, NULL when out of memory.
json_t *gyre_calib_text_identity(const struct gyre_calib_text *text);
