// Inside of the evaluation: sums and their standard errors, and the file of reference logits. The public face is
// gyre_eval.h.
#pragma once
#include <gyre/gyre_eval.h>

// ---- sums (eval_stats.c) --------------------------------------------------------------------------------------

// One quantity per predicted token, summed over tokens and over the means of windows. All windows of an evaluation
// predict the same number of tokens.
struct gyre_mean {
    double sum, squares, window, window_sum, window_squares;
};

struct gyre_eval_sums {
    uint64_t tokens, window_tokens; // window_tokens: of the window under way
    uint32_t windows;
    struct gyre_mean nll, kl, top1, dp; // dp: the squared change of the right token's probability
};

void gyre_eval_count(struct gyre_eval_sums *sums, const gyre_eval_token *token);
void gyre_eval_window(struct gyre_eval_sums *sums); // the window is complete
void gyre_eval_merge(struct gyre_eval_sums *into, const struct gyre_eval_sums *from);
// Means and standard errors as gyre_eval.h defines them; needs a token. Leaves the other fields alone.
void gyre_eval_finish(const struct gyre_eval_sums *sums, gyre_eval_result *out);
// The quantiles of n > 0 divergences, which are put in order.
void gyre_eval_quantiles(float *kl, uint64_t n, gyre_eval_result *out);

// ---- reference files (eval_reference.c; layout: docs/evaluation.md) ---------------------------------------------

struct gyre_reference_writer;

// Opens a temporary file beside `path`. text_windows[i]: windows of text i.
gyre_status gyre_reference_begin(const char *path, const gyre_reference_info *info, const gyre_eval_text *texts,
                                 const uint32_t *text_windows, struct gyre_reference_writer **out,
                                 gyre_error *err) GYRE_MUST_USE;
// The next row's logits[vocab] and the token that it should predict, in the order of texts, windows and positions.
gyre_status gyre_reference_add(struct gyre_reference_writer *writer, const float *logits, uint32_t target,
                               gyre_error *err) GYRE_MUST_USE;
// Puts the file under its name. All rows must have been added.
gyre_status gyre_reference_end(struct gyre_reference_writer *writer, gyre_error *err) GYRE_MUST_USE;
void gyre_reference_drop(struct gyre_reference_writer *writer); // frees; removes what was not ended. Accepts NULL

// The first row of a text with these windows. GYRE_E_INVALID where the file holds other tokens, windows, a context or a
// vocabulary of another size.
gyre_status gyre_reference_find(const gyre_reference *reference, const gyre_eval_text *text, uint32_t windows,
                                uint32_t ctx, uint32_t vocab, uint64_t *row, gyre_error *err) GYRE_MUST_USE;
// A stored row against logits[vocab]: fills in kl, with all that is not stored as one bucket, same_top and
// reference_nll.
void gyre_reference_compare(const gyre_reference *reference, uint64_t row, const float *logits, gyre_eval_token *out);
