// gyre: run large language models with rotated int4 weights on any GPU with a Vulkan or OpenCL driver.
//
// An ENGINE is a device plus an immutable model loaded on it. A SESSION is one timeline of tokens with its KV cache.
// Sessions are children of their engine, and an engine opened beside another is a child of that one; a parent with
// children cannot be closed. What is "malloc'd" by the library is freed with gyre_free. docs/embed.md has a complete
// program.
#pragma once
#include <gyre/gyre_base.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- devices ----------------------------------------------------------------------------------------

typedef struct gyre_device_facts {
    char id[32], name[128], driver[128];
    bool software, f16;
    uint64_t memory_bytes;
    uint32_t subgroup_sizes[4]; // zeros at the end
    const char *int8_dot;       // "none", "emulated", "accelerated"
    char cooperative_matrix[4][32];
} gyre_device_facts;
typedef struct gyre_device_missing {
    char backend[16], why[160];
} gyre_device_missing;

// Lists the devices that exist (hardware first, `cpu` last): fills at most `cap` of out and returns how many there are.
// `missing` receives at most cap_missing backends that have no device, *n_missing how many those are. out, missing and
// n_missing may be NULL. Thread-safety: safe.
GYRE_API int gyre_list_devices(gyre_device_facts *out, int cap, gyre_device_missing *missing, int cap_missing,
                               int *n_missing);
// Kernels of the device that engines no longer use, because they did not compile or gave wrong results (gyre_tuning).
// One line each, with its newline; malloc'd; NULL where nothing is known. They are kept in the cache folder (cache_dir:
// as in gyre_engine_params) until the driver or gyre changes. Thread-safety: safe.
GYRE_API char *gyre_device_faults(const gyre_device_facts *device, const char *cache_dir);

// ---- engine -----------------------------------------------------------------------------------------

// Thread-safety: an engine, its sessions and the engines beside it may be used by one thread at a time, whichever that
// is; only gyre_session_cancel may be called from another. Engines that do not share a device are independent.
typedef struct gyre_engine gyre_engine;

// Whether an engine measures which kernels are fastest when a step of a size is first recorded: for integer products,
// among kernels that give the same bits. The result is kept in the cache folder, by device, driver and kernels.
typedef enum gyre_tuning {
    GYRE_TUNE_DEFAULT, // off, until GPUs have shown that measuring does them no harm
    GYRE_TUNE_OFF,     // kernels by rule
    GYRE_TUNE_ON,      // measures for at most 2 s of an engine's life; what is left then goes by rule
    GYRE_TUNE_FORCE    // measures everything, however long it takes, also what the cache knows
} gyre_tuning;

typedef struct gyre_engine_params {
    size_t size;           // sizeof(gyre_engine_params); see gyre_base.h
    const char *device;    // "vulkan:0", ...; NULL: the best there is
    uint32_t act;          // 16, 8 or 4 bits for all taps; 0, or the file's own: tap by tap as in the file
    uint32_t kv;           // 16, 8 or 4; 0: the file's default. 32: an f32 cache, on the cpu device only
    uint32_t context;      // longest sequence; 0: the model's, at most 4096
    uint32_t max_rows;     // rows of the largest step (prefill chunk); 0: 512
    uint32_t sequences;    // sequences that may be alive at once; 0: 1
    const char *cache_dir; // kernel caches; NULL: $XDG_CACHE_HOME/gyre or ~/.cache/gyre; "": none
    bool validate;         // Vulkan validation layers
    uint64_t limit_binding, limit_buffer; // tests: pretend tiny device limits; 0: the device's
    gyre_log log;
    // Called while loading with 0..1; a non-zero return cancels (GYRE_E_CANCELLED). May be NULL.
    int (*progress)(void *user, double fraction, const char *what);
    void *user;
    const char *pre; // pre-tokenizer (tokenizer.ggml.pre) to use in place of a GGUF file's; NULL: the file's
    // Rows of a step whose logits may be wanted at once: a program that scores prompts (gyre_schedule.h) asks for
    // some dozens. 0: as many as sequences, which is also the least; at most what the device can bind.
    uint32_t logit_rows;
    // For matrices that the file holds neither as int4 nor as int8. 0 or 16: they run as floats of 16 bits (of 32 where
    // f16 does not hold them). 8: as int8 in groups of 32, rounded while loading: half the memory. gyre_engine_memory
    // tells the error.
    uint32_t weights;
    bool as_hardware; // tests: choose kernels for a software device as for a GPU
    // The embedding table stays in the mapped model file, and the host hands each step its rows, which saves its bytes
    // on the device. For a model whose head is a matrix of its own (quantize --head); GYRE_E_UNSUPPORTED for another.
    bool host_table;
    uint32_t shape_head; // of a shape: 4, or 8 (also 0): the bits of its head, a matrix of its own where that is 4
    gyre_tuning tune;
    uint32_t kv_v; // of values, where `kv` is of keys alone: 16, 8 or 4; 0: as `kv`
    // How many tokens the device may choose and continue from in one submission, before the host sees them
    // (gyre_session_decode_ahead, gyre_generate, a scheduler with one task); fewer where the submission's predicted
    // time asks for it. What follows the end of a text is dropped. It changes no token. 0: 8, on a CPU 1; at most 16.
    uint32_t ahead;
} gyre_engine_params;

// params NULL: all defaults. *out is the caller's, for gyre_engine_close. The model's files stay
// mapped while it is loaded. If another program changes one meanwhile, the result is GYRE_E_IO where that can be
// detected afterwards; if a file becomes shorter, this process gets SIGBUS, which a library must leave to its host
// (cli/guard.c is an example of a handler).
GYRE_API gyre_status gyre_engine_open(const char *model_path, const gyre_engine_params *params, gyre_engine **out,
                                      gyre_error *err) GYRE_MUST_USE;
// A second model on the first one's device (eval --reference); `params->device` is ignored. It counts as a child of
// `first`.
GYRE_API gyre_status gyre_engine_open_beside(gyre_engine *first, const char *model_path,
                                             const gyre_engine_params *params, gyre_engine **out,
                                             gyre_error *err) GYRE_MUST_USE;
// While sessions or engines beside it are open: GYRE_E_INVALID, whose message names them, and the engine stays open.
// Accepts NULL.
GYRE_API gyre_status gyre_engine_close(gyre_engine *engine, gyre_error *err);

typedef struct gyre_engine_info {
    char device[32], device_name[128], arch[32];
    uint32_t act, kv, context, vocab, layers, width, heads, kv_heads, head_dim, ffn, wgroup;
    uint64_t weight_bytes;           // on the device
    uint64_t weight_bytes_per_token; // read by one decode step: everything but the embedding table's untouched rows
    uint64_t kv_bytes;
    bool r3, r4, head_rotation;
    uint32_t kv_v; // of values; `kv` is of keys
} gyre_engine_info;
GYRE_API void gyre_engine_describe(const gyre_engine *engine, gyre_engine_info *out);

// Memory on a device, in bytes. A caller sets `size`; members that it does not know are left out.
typedef struct gyre_memory {
    size_t size;         // sizeof(gyre_memory)
    uint64_t weights;    // matrices, tables included
    uint64_t kv;         // the cache
    uint64_t rest;       // vectors, logits, and what the steps so far work in
    uint64_t total;      // of all; engines beside this one share its device, and count
    uint32_t rounded;    // matrices that `weights` 8 rounded ...
    double weight_error; // ... and their error: root mean square, relative to theirs
    uint64_t host;       // of the embedding table, where it stays in the host's memory; in none of the sums above
} gyre_memory;
GYRE_API gyre_status gyre_engine_memory(const gyre_engine *engine, gyre_memory *out, gyre_error *err) GYRE_MUST_USE;
// What an engine would take on a device, before it is opened, when it prefills in its largest steps and decodes: for a
// model file, or for a shape (gyre_engine_open_shape). No weight is read and no device is needed; a device with small
// bindings pads a little more. `rounded` and `weight_error` are not known yet.
GYRE_API gyre_status gyre_plan(const char *model_path, const gyre_engine_params *params, gyre_memory *out,
                               gyre_error *err) GYRE_MUST_USE;
GYRE_API gyre_status gyre_plan_shape(const char *shape, uint32_t wgroup, const gyre_engine_params *params,
                                     gyre_memory *out, gyre_error *err) GYRE_MUST_USE;

// Graphviz text of the decode graph after fusion, which it records if need be; malloc'd in *out.
GYRE_API gyre_status gyre_engine_dot(gyre_engine *engine, char **out, gyre_error *err) GYRE_MUST_USE;

// What the tensors of a model file take, without a device.
typedef struct gyre_model_size {
    uint64_t bytes;                      // all tensors
    uint64_t block_bytes, block_weights; // of the blocks' linears, scales included; and how many weights those have
    double bits_per_weight;              // of the two
} gyre_model_size;
GYRE_API gyre_status gyre_model_weigh(const char *path, gyre_model_size *out, gyre_error *err) GYRE_MUST_USE;

// Whether an engine with these params fits its device: gyre_plan compared with what the device has. `progress` and
// `log` are not called.
typedef struct gyre_memory_plan {
    char device[32];
    uint64_t weights, kv, work;           // bytes: as gyre_memory's weights, kv and rest
    uint64_t memory;                      // of the device; of the host, where it is a software device
    uint32_t context, sequences, kv_bits; // as the engine would have them
    bool fits;                            // all of it in nine tenths of that memory, and each buffer in one binding
    uint32_t kv_bits_v;                   // of values; kv_bits is of keys
} gyre_memory_plan;
GYRE_API gyre_status gyre_plan_memory(const char *path, const gyre_engine_params *params, gyre_memory_plan *out,
                                      gyre_error *err) GYRE_MUST_USE;

// What a model file holds, without a device: JSON text, malloc'd. Keys: path, container, bytes, metadata (arrays are
// given by their length), tensors [{name, type, shape, bytes}], model {arch, layers, ...}, rotations {r1, r3, r4,
// head, head_mix}, memory {weights_bytes, kv_bytes_per_token, table_bytes}: what an engine allocates for the matrices
// (0 where one is missing), and for a token that all layers keep (the model's windowed_layers keep about the last
// `window` only), verdict {runs, why_not: [lines], architecture, tensor_types, unread_types, rope, tokenizer,
// pre_tokenizer, quantization}. A file that can be parsed is no failure, whether it runs or not: model and rotations
// are null where its architecture is not known or its keys make no sense, bytes of tensors that gyre does not read. No
// number of a tensor is looked at.
GYRE_API gyre_status gyre_inspect(const char *path, char **json, gyre_error *err) GYRE_MUST_USE;

// ---- text -------------------------------------------------------------------------------------------

enum gyre_text_flags {
    GYRE_TEXT_SPECIAL = 1, // special tokens written in the text are recognized
    GYRE_TEXT_AROUND = 2,  // what the model puts around a text (BOS, EOS), if it does; never doubled
    GYRE_TEXT_BOS = 4,     // a BOS before the text whatever the model says; GYRE_E_INVALID where it has none
    GYRE_TEXT_NO_BOS = 8   // nothing before the text whatever the model says
};

// Thread-safety: immutable; may be used by several threads at once.
typedef struct gyre_tokenizer gyre_tokenizer;

// The tokenizer of a model without an engine or a device: reads only the model's metadata. `pre` as in
// gyre_engine_params; `log` may be NULL.
GYRE_API gyre_status gyre_tokenizer_open(const char *model_path, const char *pre, const gyre_log *log,
                                         gyre_tokenizer **out, gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_tokenizer_close(gyre_tokenizer *tokenizer); // accepts NULL
// The engine's own; lives as long as the engine and is not closed. NULL for a shape (gyre_eval.h).
GYRE_API const gyre_tokenizer *gyre_engine_tokenizer(const gyre_engine *engine);

// `flags`: of enum gyre_text_flags. A prompt is GYRE_TEXT_SPECIAL | GYRE_TEXT_AROUND. *tokens is malloc'd.
GYRE_API gyre_status gyre_tokenize(const gyre_tokenizer *tokenizer, const char *text, size_t bytes, uint32_t flags,
                                   uint32_t **tokens, size_t *n, gyre_error *err) GYRE_MUST_USE;
GYRE_API bool gyre_token_is_end(const gyre_tokenizer *tokenizer, uint32_t token);
GYRE_API bool gyre_token_is_special(const gyre_tokenizer *tokenizer, uint32_t token);
// The bytes that a token stands for, which may be a part of a character; a special token's name. NULL where there is
// none of that id. The tokenizer's own.
GYRE_API const char *gyre_token_bytes(const gyre_tokenizer *tokenizer, uint32_t token, size_t *n);
// The token that begins a text, and the one that ends it; -1: the model names none.
GYRE_API int64_t gyre_token_bos(const gyre_tokenizer *tokenizer);
GYRE_API int64_t gyre_token_eos(const gyre_tokenizer *tokenizer);
// Feeds one token to a UTF-8 stream: writes complete characters to out[cap >= 1024] and returns their number of bytes.
// gyre_text_flush releases an incomplete character as U+FFFD. The state is the caller's: one per text, zeroed.
typedef struct gyre_text_stream {
    unsigned char pending[4];
    uint32_t n;
} gyre_text_stream;
GYRE_API size_t gyre_text_push(const gyre_tokenizer *tokenizer, gyre_text_stream *stream, uint32_t token, bool special,
                               char *out, size_t cap);
GYRE_API size_t gyre_text_flush(gyre_text_stream *stream, char *out, size_t cap);

// ---- sessions ---------------------------------------------------------------------------------------

// Thread-safety: as its engine.
typedef struct gyre_session gyre_session;
GYRE_API gyre_status gyre_session_create(gyre_engine *engine, gyre_session **out, gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_session_destroy(gyre_session *session); // accepts NULL

typedef struct gyre_sampling {
    float temperature;
    uint32_t top_k; // 0: all; where it or top_p cuts, the 256 most likely tokens at most are drawn from
    float top_p;
    uint32_t seed;
} gyre_sampling; // zeros: greedy

// Makes the session hold exactly `tokens`, n of them, 1..context (reusing the longest common prefix), and samples the
// token that follows into *next (may be NULL). After a failure the session holds no more than the common prefix. Layers
// with a window may no longer have all of the prefix; then more of it is computed again.
GYRE_API gyre_status gyre_session_sync(gyre_session *session, const uint32_t *tokens, size_t n,
                                       const gyre_sampling *sampling, uint32_t *next, gyre_error *err) GYRE_MUST_USE;
// Appends `token` (normally the last *next) and samples again: one recorded replay, no allocation. After a failure
// the session is as it was.
GYRE_API gyre_status gyre_session_decode(gyre_session *session, uint32_t token, uint32_t *next,
                                         gyre_error *err) GYRE_MUST_USE;
// The same, for a caller who will append each *next, up to `more` times: the device may run some of those steps at once
// (gyre_engine_params.ahead), and following calls that append the chosen token find the next one ready. Any other call
// forgets them.
GYRE_API gyre_status gyre_session_decode_ahead(gyre_session *session, uint32_t token, uint32_t more, uint32_t *next,
                                               gyre_error *err) GYRE_MUST_USE;
GYRE_API size_t gyre_session_length(const gyre_session *session);

typedef struct gyre_timings {
    uint64_t prefill_tokens, prefill_ns, decode_tokens, decode_ns, decode_host_ns;
    uint64_t warmup_ns;
} gyre_timings;
GYRE_API gyre_timings
gyre_session_timings(const gyre_session *session); // decode_host_ns: time not spent waiting for the device

// Makes, compiles and runs once, on no tokens, every recording that a prompt of so many new tokens and the decoding
// after it will replay, so that later times are those of the work alone. The time this took is added to warmup_ns.
// Changes nothing else.
GYRE_API gyre_status gyre_session_warm(gyre_session *session, size_t prompt_tokens, const gyre_sampling *sampling,
                                       gyre_error *err) GYRE_MUST_USE;

// What the session holds, oldest first: gyre_session_length of them, valid until the session is used again.
GYRE_API const uint32_t *gyre_session_tokens(const gyre_session *session);

// Asks the call that is running on the session (sync, decode, step, generate) to stop: it ends with GYRE_E_CANCELLED
// before the next chunk of a prompt, or the next token, and leaves the session as after any failure. If none is
// running, nothing happens. Thread-safety: from any thread, or a signal handler, as long as the session lives.
GYRE_API void gyre_session_cancel(gyre_session *session);

// Logits of the position after what the session holds, into logits[vocab]; right after a sync, decode, step or
// generate of the session. GYRE_E_INVALID where the device has gone on to something else.
GYRE_API gyre_status gyre_session_logits(const gyre_session *session, float *logits, gyre_error *err) GYRE_MUST_USE;

typedef struct gyre_candidate {
    uint32_t token;
    float logit;
    float logprob; // natural logarithm of its probability, all tokens of the vocabulary counted
} gyre_candidate;
// The n most likely tokens of that position, best first; *found (may be NULL): how many there are.
GYRE_API gyre_status gyre_session_top(const gyre_session *session, gyre_candidate *out, uint32_t n, uint32_t *found,
                                      gyre_error *err) GYRE_MUST_USE;

// Writes what the session holds, tokens and KV cache, to a file or to memory (malloc'd), and reads it back into a
// session of an engine with the same model and KV bits, on any device and with any context that is long enough (with
// LongRoPE: on the same side of the model's original context, beyond which keys differ). The model is recognised by the
// names, shapes and samples of its tensors. GYRE_E_INVALID for another model, other bits or other keys,
// GYRE_E_FORMAT for bytes that are no saved session; the session is empty then.
GYRE_API gyre_status gyre_session_save(const gyre_session *session, const char *path, gyre_error *err) GYRE_MUST_USE;
GYRE_API gyre_status gyre_session_load(gyre_session *session, const char *path, gyre_error *err) GYRE_MUST_USE;
GYRE_API gyre_status gyre_session_store(const gyre_session *session, void **bytes, size_t *n,
                                        gyre_error *err) GYRE_MUST_USE;
GYRE_API gyre_status gyre_session_restore(gyre_session *session, const void *bytes, size_t n,
                                          gyre_error *err) GYRE_MUST_USE;

// Steps several sessions of one engine in one recorded graph (a server's unit of work). Each part appends n tokens to
// another session. After a failure all of them are as they were; where the step was of more tokens than max_rows and
// layers have windows, sessions may hold less of what they held (gyre_session_length).
typedef struct gyre_step_part {
    gyre_session *session;
    const uint32_t *tokens;
    uint32_t n;
    uint32_t next;                 // receives the token that follows
    const gyre_sampling *sampling; // NULL: as in the session's last step or sync
} gyre_step_part;
GYRE_API gyre_status gyre_step(gyre_engine *engine, gyre_step_part *parts, size_t n_parts,
                               gyre_error *err) GYRE_MUST_USE;

// Logits of the position after `tokens` (tests, golden data): logits[vocab].
GYRE_API gyre_status gyre_logits(gyre_engine *engine, const uint32_t *tokens, size_t n, float *logits,
                                 gyre_error *err) GYRE_MUST_USE;

// ---- generating -------------------------------------------------------------------------------------

typedef struct gyre_logit_bias {
    uint32_t token;
    float bias; // added to its logit; -INFINITY forbids it
} gyre_logit_bias;

typedef struct gyre_generate_params {
    size_t size;            // sizeof(gyre_generate_params)
    const char *text;       // the whole text so far, tokenized with its special tokens; or
    const uint32_t *prompt; // ... its tokens, n_prompt of them; neither: goes on behind what was said last
    size_t n_prompt;
    uint32_t max_tokens; // 0: as many as the context holds

    // Applied in this order: penalties, bias, temperature, top-k, min-p, top-p. Without penalties, bias and min-p the
    // device chooses and the logits never leave it.
    gyre_sampling sampling;
    float min_p;          // drops tokens less likely than this share of the likeliest; 0: none
    float repeat_penalty; // divides positive logits of tokens seen, multiplies negative; 0, 1: none
    float presence_penalty, frequency_penalty; // subtracted from them once, and for each time
    uint32_t penalty_window;                   // tokens back that count as seen, the prompt's too; 0: 64
    const gyre_logit_bias *bias;
    uint32_t n_bias;

    const char *const *stop; // texts that end it, also across the borders of tokens; not given to on_text
    uint32_t n_stop;
    const uint32_t *stop_tokens; // beside the model's own end tokens
    uint32_t n_stop_tokens;
    bool ignore_end; // go on behind the model's end tokens
    bool special;    // special tokens are text

    uint32_t *tokens; // [max_tokens] receives what was generated; NULL: not wanted

    // What is generated follows a grammar (gyre_grammar.h): before all that changes the choice, tokens that it does
    // not allow are dropped; each that is chosen is accepted. Stop tokens and ignore_end do not go around it. NULL:
    // none.
    struct gyre_matcher *matcher;

    // In place of ending where the context is full, the oldest tokens behind the first `keep` leave it
    // (gyre_context_shift), and what stays is computed anew at its new places. max_tokens 0 is the context's size then.
    bool shift;
    uint32_t keep;
} gyre_generate_params;

// For a text of n tokens that does not fit the context with one more token: how many tokens after the first `keep` must
// be dropped. Whole halves of what is not kept are dropped at once, so a growing text loses tokens seldom, and always
// the same ones. 0: it fits, or less than a quarter of the context is not kept, so that nothing helps.
GYRE_API size_t gyre_context_shift(size_t n, size_t keep, size_t context);

typedef enum gyre_stop {
    GYRE_STOP_LENGTH,  // max_tokens
    GYRE_STOP_CONTEXT, // the context is full
    GYRE_STOP_END,     // an end token of the model
    GYRE_STOP_TOKEN,   // stop_tokens[stop_index]
    GYRE_STOP_TEXT,    // stop[stop_index]
    GYRE_STOP_BOUND,   // no token was allowed (gyre_schedule.h)
    GYRE_STOP_FAILED   // what gyre_task_error says (gyre_schedule.h)
} gyre_stop;

typedef struct gyre_generate_result {
    gyre_stop why;
    uint32_t stop_index;
    size_t prompt_tokens, reused_tokens; // of the prompt; those of them that were in the session already
    size_t n_tokens;                     // generated; the token that ended it does not count, unless it is shown
} gyre_generate_result;

// Continues a text. on_text (may be NULL) gets it in pieces of whole UTF-8 characters, each with a NUL behind it, as
// soon as no stop text can begin in them; a non-zero return ends with GYRE_E_CANCELLED. `out` (may be NULL) is
// filled in any case. Afterwards the session holds the prompt and what was generated, less what has not been run:
// normally the last token. After a failure or a cancel it holds a beginning of that.
GYRE_API gyre_status gyre_generate(gyre_session *session, const gyre_generate_params *params,
                                   int (*on_text)(void *user, const char *text, size_t bytes), void *user,
                                   gyre_generate_result *out, gyre_error *err) GYRE_MUST_USE;

// The token that gyre_generate would choose next with these settings, from the logits of the session's last position:
// for programs that step many sessions at once. Only the members about choosing are used. Conditions as for
// gyre_session_logits.
GYRE_API gyre_status gyre_session_choose(const gyre_session *session, const gyre_generate_params *params,
                                         uint32_t *token, gyre_error *err) GYRE_MUST_USE;

// ---- counters ---------------------------------------------------------------------------------------

// Device work done so far: a test asserts that decoding records and allocates nothing.
typedef struct gyre_engine_counters {
    uint64_t recordings, submissions, dispatches, buffers, host_allocations;
} gyre_engine_counters;
GYRE_API gyre_engine_counters gyre_engine_count(const gyre_engine *engine);

#ifdef __cplusplus
}
#endif
