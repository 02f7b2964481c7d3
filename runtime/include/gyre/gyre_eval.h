// gyre: how good a model is and how fast a device. Beside gyre.h: programs that only generate text do not need it.
//
// Thread-safety: every function here belongs to the thread of the engine it is given; a gyre_reference may be read by
// several threads at once.
#pragma once
#include <gyre/gyre.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- evaluation -------------------------------------------------------------------------------------

// Windows are consecutive runs of ctx tokens without overlap, no BOS; each predicts its last ctx-1 tokens.
//
// Standard errors. Tokens of a window are correlated, windows hardly: with at least 8 windows, the error of a mean is
// that of the W windows' means, sqrt(sum_w (m_w - m)^2 / (W (W - 1))); with fewer it is the same formula over the N
// tokens (stderr_from_windows is false), which is too small where tokens are correlated. ppl_stderr = ppl * nll_stderr,
// by linearising exp. One token alone tells of no error: NaN.
typedef struct gyre_eval_result {
    uint64_t tokens;             // predicted
    double nll, ppl, ppl_stderr; // nats per predicted token; exp(nll)
    bool has_reference;
    double kl,
        top1_agreement; // to the reference: mean KL(reference || model) in nats; share of the same most likely token
    double seconds;
    uint32_t windows;
    bool stderr_from_windows;
    bool kl_is_bound; // from stored logits with k below the vocabulary: kl is a lower bound, see below
    double nll_stderr, kl_stderr, top1_stderr;
    // Of the tokens' KL, by linear interpolation between neighbours in order: a mean hides how bad the worst are.
    double kl_median, kl_p90, kl_p99, kl_max;
    double dp_rms, dp_rms_stderr; // root of the mean squared change of the right token's probability; its error by
                                  // linearising the root
} gyre_eval_result;

// n_tokens >= 2; ctx 2..context; windows 0: as many as there are. progress gets finished fraction and running ppl.
GYRE_API gyre_status gyre_eval(gyre_engine *engine, gyre_engine *reference /* may be NULL */, const uint32_t *tokens,
                               size_t n_tokens, uint32_t ctx, uint32_t windows,
                               int (*progress)(void *user, double fraction, double ppl), void *user,
                               gyre_eval_result *out, gyre_error *err) GYRE_MUST_USE;

// Reference logits from a file: of every predicted token the k largest logits of a model and the probability of all
// others together. The KL of such a row counts the others as one bucket. Merging outcomes never raises a KL (data
// processing inequality), so it is a lower bound of the exact one, and the exact one where k is the whole vocabulary.
// The agreement of the most likely token is exact.
typedef struct gyre_reference gyre_reference;
typedef struct gyre_reference_info {
    char model[80];                         // base name of the file that made it
    uint32_t texts, vocab, ctx, k, act, kv; // act, kv: what the model ran at
    uint64_t tokens;                        // predicted, in all texts
    uint32_t kv_v;                          // of values; kv is of keys
} gyre_reference_info;
GYRE_API bool gyre_reference_is(const char *path); // by its first bytes; false, too, for what cannot be read
// Reads and checks a whole file. GYRE_E_FORMAT for a truncated or damaged one.
GYRE_API gyre_status gyre_reference_open(const char *path, gyre_reference **out, gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_reference_close(gyre_reference *reference); // accepts NULL
GYRE_API void gyre_reference_describe(const gyre_reference *reference, gyre_reference_info *out);

typedef struct gyre_eval_text {
    const uint32_t *tokens;
    size_t n;
    const char *name;
} gyre_eval_text; // name: in messages, or NULL
// What is known of one predicted token. kl, reference_nll and same_top are 0 without a reference.
typedef struct gyre_eval_token {
    uint32_t text, window, seen;   // seen: tokens of its window before it, 1..ctx-1
    uint32_t token;                // the right one
    double nll, reference_nll, kl; // -log of its probability, the reference's; KL(reference || model) there
    bool same_top;                 // both find the same token the most likely one
} gyre_eval_token;
typedef struct gyre_eval_params {
    size_t size;                  // sizeof(gyre_eval_params)
    uint32_t ctx, windows;        // windows of each text, at most; 0: as many as it has
    gyre_engine *reference;       // a model opened beside the engine, or
    const gyre_reference *stored; // ... stored logits of the same tokens, ctx and windows; or neither
    const char *save;             // also store the engine's logits as this file; NULL: not
    uint32_t save_k;              // logits of a token in it; 0: 64, or the vocabulary where that is smaller
    int (*progress)(void *user, double fraction, double ppl); // as in gyre_eval; may be NULL
    void *user;
    // Every predicted token, in order, whatever a caller wants to know of it beyond the result; may be NULL. Non-zero
    // cancels.
    int (*token)(void *user, const gyre_eval_token *token);
} gyre_eval_params;

// Evaluates several texts in one go: each[n] (may be NULL) gets theirs, *all that of all their tokens together. The
// file `save` appears only when everything succeeded. GYRE_E_INVALID for a text that is too short or whose windows
// another one has, too, a token outside the vocabulary, a reference that does not fit; GYRE_E_IO for a file that cannot
// be written, before anything is computed where possible.
GYRE_API gyre_status gyre_eval_texts(gyre_engine *engine, const gyre_eval_text *texts, uint32_t n,
                                     const gyre_eval_params *params, gyre_eval_result *each, gyre_eval_result *all,
                                     gyre_error *err) GYRE_MUST_USE;

// How likely continuations are: what tasks with given answers are made of. Requests go through the model together, as
// many as the engine has sequences (gyre_engine_params.sequences, and logit_rows: some dozens).
typedef struct gyre_eval_request {
    const uint32_t *tokens; // a context and what continues it
    uint32_t n, n_context;  // 0 < n_context < n <= the engine's context
    double loglik;          // result: the sum over the tokens of the continuation, nats
    bool greedy;            // result: each of them is the most likely one at its place
} gyre_eval_request;
// GYRE_E_INVALID for a request out of those bounds (its number is in the message) or while other sessions leave no
// sequence; results are undefined after a failure.
GYRE_API gyre_status gyre_eval_requests(gyre_engine *engine, gyre_eval_request *requests, size_t n,
                                        int (*progress)(void *user, double fraction), void *user,
                                        gyre_error *err) GYRE_MUST_USE;

// ---- benchmark --------------------------------------------------------------------------------------

typedef struct gyre_roofs {
    char device[32], name[128];
    double read_gbps, int8_gops, f32_gflops, dispatch_us, round_trip_us;
} gyre_roofs;
// device NULL: the best there is. Rates are the device's own time stamps where it has them, over a third of a second
// after as long a warm-up (its clocks rise); round trip and dispatch are the host's clock, the best of as long.
// Software devices: the best of three runs by the host's clock.
GYRE_API gyre_status gyre_measure_roofs(const char *device, const gyre_log *log, gyre_roofs *out,
                                        gyre_error *err) GYRE_MUST_USE;

// The same, and what its matrix units reach. A caller sets `size`; members that it does not know are left out.
typedef struct gyre_ceilings {
    size_t size; // sizeof(gyre_ceilings)
    gyre_roofs roofs;
    // Products of int8 with sums in int32, and of f16 with sums in f32, from registers: an operation is a product or a
    // sum. 0: no such units, or none that gyre's kernels can use.
    double matrix_s8_gops, matrix_f16_gflops;
    bool software; // the device is a CPU
} gyre_ceilings;
GYRE_API gyre_status gyre_measure_ceilings(const char *device, const gyre_log *log, gyre_ceilings *out,
                                           gyre_error *err) GYRE_MUST_USE;

// An engine whose model has the sizes of a published one ("llama-1b", "qwen3-8b", ...; an unknown name is
// GYRE_E_INVALID and its message lists them) and weights made on the device: speed without a download. Its output means
// nothing. It has no tokenizer: gyre_engine_tokenizer is NULL, and verbs that need text fail. wgroup: 0 (per channel),
// 32, 64 or 128.
GYRE_API gyre_status gyre_engine_open_shape(const char *shape, uint32_t wgroup, const gyre_engine_params *params,
                                            gyre_engine **out, gyre_error *err) GYRE_MUST_USE;

typedef struct gyre_profile_row {
    char op[32];
    uint32_t dispatches;
    double ms;
} gyre_profile_row;
// Per-kernel device time of one recorded step of `step_rows` rows (1: decode), longest first; returns rows in *n (cap
// at most).
GYRE_API gyre_status gyre_session_profile(gyre_session *session, uint32_t step_rows, gyre_profile_row *rows, size_t cap,
                                          size_t *n, gyre_error *err) GYRE_MUST_USE;

#ifdef __cplusplus
}
#endif
