// gyre's quantizer: an ordinary model file in, rotated int4 weights out. It also checks whether a file is what its
// manifest claims and was made from a given base model, and makes it again. A library of its own (libgyre-quantize).
//
// Thread-safety: every function may run on any thread; two runs at once must not write the same files. Callbacks come
// on the thread that made the call.
#pragma once
#include <gyre/gyre_base.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- quantize ---------------------------------------------------------------------------------------

enum { GYRE_WGROUP_ROW = -1 }; // one scale for each output channel

// Among the calibration texts: what the float model writes itself, drawn with the run's seed, and the bundled mixture.
// A file of such a name is ./self.
#define GYRE_CALIB_SELF "self"
#define GYRE_CALIB_BUNDLED "bundled"

typedef struct gyre_quantize_params {
    size_t size;                 // sizeof(gyre_quantize_params); see gyre_base.h
    const char *source, *output; // paths
    const char *recipe;          // a built-in name or a YAML file (docs/recipes.md); NULL: the default
    uint32_t wbits;              // 4, 8, 16, 32 (16 and 32: the rotated float model, for checks); 0: 4
    int32_t wgroup;              // weights that share a scale: 32, 64, 128; GYRE_WGROUP_ROW: a whole row; 0: 32
    uint32_t act, kv;            // 16, 8, 4; 0: default 8. What the file is optimized for and defaults to at run time.
    const char *profile;         // "portable" or "full"; NULL: full
    const char *const *calib; // [n_calib] texts for the recipes that calibrate, or GYRE_CALIB_*; none: the bundled one
    uint32_t n_calib;
    uint64_t seed;
    // For calibration and the closing summary; NULL: a GPU, else the host itself, which "host" names. With `from` there
    // are neither: GYRE_E_INVALID unless the model writes its own text, which is done there.
    const char *device;
    bool resume, force;
    const char *report_dir; // the summary goes to DIR/report.html and report.md too; may be NULL. Needs `summary`.
    gyre_log log;
    // Called often. `eta_seconds` is negative while unknown. A non-zero return stops cleanly (GYRE_E_CANCELLED) and
    // leaves a journal for --resume.
    int (*progress)(void *user, double fraction, double eta_seconds, const char *what);
    void *user;
    // "gguf", or "hf": a Hugging Face directory (compressed-tensors). NULL: a name that ends with .gguf is a GGUF file,
    // any other the source's own container.
    const char *format;
    uint64_t shard_bytes; // the most that one file of a directory holds, if no tensor is larger; 0: 5 GB
    // Bits of the head: 8, or 4 (int4 in groups of 32). 4 makes the head a matrix of its own even where the model has
    // none, so that the embedding table, which keeps 8 bits, may stay in host memory (gyre_engine_params.host_table).
    // 0: 8 where it can be. GYRE_E_UNSUPPORTED unless a GGUF file with rounded weights is written.
    uint32_t head;
    uint32_t kv_v; // of values, where `kv` is of keys alone: 16, 8, 4; 0: as `kv`. GGUF files only
    // The device on which a recipe's `distill` runs its forward and backward passes. NULL: the host itself.
    // GYRE_E_INVALID if given where nothing is distilled.
    const char *distill_device;
    // A GGUF file that gyre made from `source` before, its manifest beside it: the run begins with what it holds, and
    // the recipe is one of `distill` alone. Widths, profile and seed are that file's, or left out. NULL: with `source`.
    const char *from;
} gyre_quantize_params;

typedef struct gyre_quantize_layer {
    double rtn_error, recipe_error;
} gyre_quantize_layer; // relative squared output error against float
typedef struct gyre_quantize_summary {
    uint32_t layers;
    gyre_quantize_layer *layer;                   // [layers], malloc'd; free with gyre_quantize_summary_free
    double rtn_kl, recipe_kl;                     // nats, on a bundled text; NaN when there is no device to measure on
    double rtn_weight_error, recipe_weight_error; // mean relative squared weight error
    uint64_t source_bytes, output_bytes;
    double seconds, bits_per_weight; // of the block linears
    uint32_t summary_tokens, resumed_layers;
    char recipe[64];                    // its name, also where it was read from a file
    uint64_t rotation_seed, first_seed; // the rotation that is used; the first of the n_seeds that were tried
    uint32_t n_seeds;                   // 1: the run's seed was taken untried
    double act_clip, kv_clip;           // of the run-time quantizers
    uint32_t raised_damping,
        linears;          // of all linears in the blocks, those that needed more damping than the recipe says,
    double worst_damping; // and the most that one of them needed; 0: none
    uint64_t dead_inputs; // inputs of linears that were zero on the whole calibration text
    // What a recipe with `distill` learned: steps taken (0: none), the step whose parameters were kept (0: those
    // before), and the divergence of the held-out windows before and after, in nats. rtn_kl and recipe_kl are from
    // before.
    uint32_t distill_steps, distill_best, distill_windows;
    double distill_before, distill_after;
    double kv_clip_v; // of values; kv_clip is of keys
} gyre_quantize_summary;

// Refuses an existing output without `force`, a journal of another recipe or model, too little disk space. Writes
// OUT.part and OUT.journal/ while running; OUT and OUT.manifest.json appear only when complete.
// Same recipe, seed, source and machine: the same bytes.
GYRE_API gyre_status gyre_quantize(const gyre_quantize_params *params, gyre_quantize_summary *summary,
                                   gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_quantize_summary_free(gyre_quantize_summary *summary);

// Whether gyre_quantize would take params->source with these settings, as far as its metadata and the names, shapes and
// types of its tensors tell. Reads no tensor, writes nothing; `output` may be NULL. Fails with the status and the
// message that gyre_quantize would give.
GYRE_API gyre_status gyre_quantize_check(const gyre_quantize_params *params, gyre_error *err) GYRE_MUST_USE;

// What each part of params->source costs when it alone is rounded with these settings: an estimate in nats per token,
// by the gradients of the float model on `windows` windows of 256 tokens of the texts (0: 8; docs/recipes.md says what
// it is worth). Runs on the host, writes nothing; `output`, `resume`, `force`, `report_dir` and `from` are not
// looked at.
// *json, malloc'd: {"windows", "tokens", "recipe", "blocks": [{"block", "qkv": {"weights", "w4", "a8", "a4"}, "o",
// "gate_up", "down", "k8", "k4", "v8", "v4"}], "total": the same of all blocks together}, each figure [nats, standard
// error over windows; of one window 0].
GYRE_API gyre_status gyre_sensitivity(const gyre_quantize_params *params, uint32_t windows, char **json,
                                      gyre_error *err) GYRE_MUST_USE;

// ---- what a step of `distill` costs -------------------------------------------------------------------

typedef struct gyre_train_params {
    size_t size;        // sizeof(gyre_train_params)
    const char *shape;  // as of gyre_engine_open_shape: weights made on the device, 8-bit activations and cache
    uint32_t wgroup;    // 0 (per channel), 32, 64, 128
    uint32_t tokens;    // of a window; 0: 512
    const char *device; // NULL: a GPU, else the host itself
    bool plan;          // only the memory, on a device without limits; none is needed (the host still computes the
                        // loss, which means nothing then: seconds at long windows)
    gyre_log log;
} gyre_train_params;
typedef struct gyre_train_result {
    size_t size;                     // sizeof(gyre_train_result), set by the caller
    char device[32];                 // empty for a plan
    uint64_t weights, streams, peak; // bytes on the device: of the model, of what stands between blocks, most of all
    uint64_t parameters;             // that are learned
    double seconds;                  // of a step behind the first, forward and back; 0 for a plan
} gyre_train_result;

// One step of `distill` (gradients of the loss by scales and gains, no teacher, no optimizer) of a shape, to measure
// with.
GYRE_API gyre_status gyre_train_shape(const gyre_train_params *params, gyre_train_result *result,
                                      gyre_error *err) GYRE_MUST_USE;

// ---- recipes ----------------------------------------------------------------------------------------

#define GYRE_DEFAULT_RECIPE "quarot-rtn"
// The built-in recipes: name, one line, and where it comes from; NULL past the end.
GYRE_API const char *gyre_recipe_name(uint32_t index);
GYRE_API const char *gyre_recipe_about(uint32_t index);
GYRE_API const char *gyre_recipe_source(uint32_t index);

typedef enum gyre_recipe_form {
    GYRE_RECIPE_YAML, // a built-in one as it was written; a file's with every default explicit
    GYRE_RECIPE_JSON, // every default explicit
    GYRE_RECIPE_FULL  // as YAML with every default explicit, a built-in one too: the same text for the same recipe
} gyre_recipe_form;
// Reads and checks a recipe, as gyre_quantize_params.recipe names one, and writes it out; *text is malloc'd.
// GYRE_E_INVALID: there is none of that name. GYRE_E_FORMAT, GYRE_E_IO: the file is no recipe, or cannot be read.
GYRE_API gyre_status gyre_recipe_describe(const char *recipe, gyre_recipe_form form, char **text,
                                          gyre_error *err) GYRE_MUST_USE;

// Whether `recipe`, as gyre_quantize_params names one, is a file's name: it has a '/', or ends with .yaml or .yml.
GYRE_API bool gyre_recipe_is_file(const char *recipe);

typedef struct gyre_recipe_info {
    char name[64];   // as it calls itself; may be ""
    bool calibrates; // reads a calibration text
} gyre_recipe_info;
// Errors as gyre_recipe_describe.
GYRE_API gyre_status gyre_recipe_inspect(const char *recipe, gyre_recipe_info *out, gyre_error *err) GYRE_MUST_USE;

// ---- trust: what each answer proves and what not is in docs/trust.md ----------------------------------

enum { GYRE_VERIFY_CHECKS = 16 };

typedef struct gyre_verify_params {
    size_t size; // sizeof(gyre_verify_params)
    const char *file;
    const char *manifest; // NULL: FILE.manifest.json
    const char *base; // the model that FILE was made from, file or folder; NULL: only FILE and manifest are compared
    // Called often; a non-zero return ends with GYRE_E_CANCELLED. May be NULL.
    int (*progress)(void *user, double fraction, double eta_seconds, const char *what);
    void *user;
} gyre_verify_params;

typedef struct gyre_verify_check {
    const char *name; // "container", "manifest", "metadata", "tensors", "hashes", "values", "base", "sources", "norms",
                      // "weights"
    bool ok;
    char detail[480]; // what was found; where not ok, the message of the error
} gyre_verify_check;

typedef struct gyre_verify_result {
    uint32_t n_checks;
    gyre_verify_check check[GYRE_VERIFY_CHECKS]; // in order; a failed one is the last
    uint64_t tensors;                            // compared with the manifest
    uint64_t linears;                            // compared with the base; 0 without one
    bool rotated;                                // they were un-rotated for that
    // The tensor with the largest relative squared weight error: measured against the base, without one as the manifest
    // says; -1 where neither is known.
    char worst[64];
    double worst_error;
} gyre_verify_result;

// Runs all checks up to the first that fails; `result` tells of those that ran, also after a failure. Nothing is
// written. GYRE_E_FORMAT where FILE, manifest and base disagree; the message names the first tensor or key and how it
// differs.
GYRE_API gyre_status gyre_verify(const gyre_verify_params *params, gyre_verify_result *result,
                                 gyre_error *err) GYRE_MUST_USE;

typedef struct gyre_reproduce_params {
    size_t size; // sizeof(gyre_reproduce_params)
    const char *manifest, *base;
    const char *const *calib; // the calibration texts that the manifest names, in any order
    uint32_t n_calib;
    // Where the file is made again, and stays; an interrupted run is taken up there. NULL: in a folder beside the
    // manifest that is removed afterwards, whatever happens.
    const char *work;
    gyre_log log;
    int (*progress)(void *user, double fraction, double eta_seconds, const char *what);
    void *user;
    const char *from; // the finished file that the manifest names, where it names one, with its own manifest beside it
} gyre_reproduce_params;

typedef struct gyre_reproduce_result {
    uint64_t tensors, differing;
    char first[64];        // the first tensor that differs; "" where none does
    bool metadata_differs; // the bytes before the first tensor
    // What is known to differ around the two runs ("gyre 0.1.0, here 0.2.0; ..."); "" where nothing is.
    char surroundings[200];
} gyre_reproduce_result;

// Quantizes `base` once more with the settings of the manifest and compares hash by hash. Another base, finished file
// or calibration text is refused before any work. GYRE_E_FORMAT where bytes differ; the message names the first tensor.
GYRE_API gyre_status gyre_reproduce(const gyre_reproduce_params *params, gyre_reproduce_result *result,
                                    gyre_error *err) GYRE_MUST_USE;

#ifdef __cplusplus
}
#endif
