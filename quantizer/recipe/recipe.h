// Recipes: what is done to a model and in which order. A recipe is YAML text; the built-in ones are such texts too.
// Grammar, defaults and what may be combined: docs/recipes.md.
#pragma once
#include "runtime/model/hparams.h"

#include <gyre/gyre_quantize.h>

enum { GYRE_MAX_STAGES = 16, GYRE_MAX_EXCEPTIONS = 256, GYRE_RECIPE_NAME = 64, GYRE_RECIPE_BYTES = 1 << 20 };

// The rungs of the rounding ladder, applied to each linear in the recipe's order. Exactly one of RTN, GPTQ and ADMM
// chooses the first codes; CORRECT comes before it, DESCENT and REFIT after it, any number of times.
typedef enum gyre_stage_kind {
    GYRE_STAGE_CORRECT, // move the target so that the quantized path's inputs give the float path's outputs (QEP)
    GYRE_STAGE_RTN,     // round to nearest
    GYRE_STAGE_GPTQ,    // round column by column, the error carried to the columns that follow
    GYRE_STAGE_ADMM,    // alternate between least squares and the grid
    GYRE_STAGE_DESCENT, // change one code at a time while that lowers the output error
    GYRE_STAGE_REFIT,   // the least-squares scales of the codes there are
    GYRE_STAGES
} gyre_stage_kind;

// How the scale of a row or group is searched before rounding.
typedef enum gyre_clip { GYRE_CLIP_NONE, GYRE_CLIP_WEIGHTS, GYRE_CLIP_HESSIAN } gyre_clip;

// By which loss rotations are learned; what each is: learn/learn.h.
typedef enum gyre_learn_method {
    GYRE_LEARN_NONE,
    GYRE_LEARN_OPTROT,
    GYRE_LEARN_SPINQUANT,
    GYRE_LEARN_KL,
    GYRE_LEARN_AUTO, // gyre_settings_resolve: optrot, or none where that is not known to gain
    GYRE_LEARN_WHIP,
    GYRE_LEARN_KURTOSIS,
    GYRE_LEARN_OSTQUANT // and diagonals with them
} gyre_learn_method;

#define GYRE_AUTO (-1.0)           // chosen on calibration data
#define GYRE_AUTO_COUNT UINT32_MAX // the same of a count: gyre_settings_resolve chooses

struct gyre_stage {
    gyre_stage_kind kind;
    gyre_clip clip;  // rtn, gptq, admm: none (max), weights (sum |error|^2.4), hessian (diag(H)-weighted squares)
    double alpha;    // correct: share of the linear's own correction, 0..1 or GYRE_AUTO (held-out error)
    double residual; // correct: share of the residual stream's error given to o and down to repair; 0..1 or GYRE_AUTO
    double damp;    // correct, gptq, admm: share of mean(diag H) added to the diagonal, > 0; escalates where H needs it
    bool act_order; // gptq: columns by descending diag(H), groups as in the file ("static groups"); else as they lie
    uint32_t
        scales; // gptq: whole runs per row over that many scales around the searched one, the best kept; 1: one run
    uint32_t iterations; // admm, descent: iterations, sweeps
};

// Linears whose names match `tensors` ('*' any run, '?' any character; of GGUF names such as blk.3.ffn_down.weight) get
// other widths than the rest, or what they read does. Later ones win.
struct gyre_exception {
    char tensors[96];
    uint32_t wbits; // 4 or 8; 0: as the rest
    int32_t wgroup; // 0, 32, 64, 128; -1: as the rest
    uint32_t act;   // of what it reads: 16, 8 or 4; 0: as the rest
};

// What a diagonal is made of (transform/diagonals.h).
typedef enum gyre_diagonal_rule {
    GYRE_DIAGONAL_BALANCE,
    GYRE_DIAGONAL_LARGEST,
    GYRE_DIAGONAL_INPUTS
} gyre_diagonal_rule;

struct gyre_recipe {
    char name[GYRE_RECIPE_NAME], about[256], source[256];
    bool rotate;    // fold the gains and merge the rotations of the profile
    bool online_r1; // where R1 cannot be merged it runs in front of the linears; else it is left out there
    uint32_t seeds; // rotations tried, from the run's seed on, ranked by a surrogate on real activations; 1: no search
    struct {        // R1 and R2 learned before they are merged
        gyre_learn_method method;
        uint32_t steps;   // one window each
        double rate;      // of a step at first; it falls linearly to 0
        uint32_t act, kv; // bits of activations and cache while it learns
    } learn;
    struct { // closed-form diagonals, exponents; 0: off, GYRE_AUTO (not qk): searched. See diagonals.h.
        gyre_diagonal_rule by;
        double norm;    // lambda, one per norm, in the rotated basis where there is one
        double up_down; // s_ud
        double qk;      // T_qk, per RoPE pair
        double value;   // T_v, per kv head
    } diagonals;
    struct {                      // windows == 0: the recipe needs no text
        uint32_t windows, tokens; // of so many tokens; a shorter text gives fewer windows, one at least
        bool fisher;              // rows of H count by the model's sensitivity there (gradient/fisher.h)
        uint32_t outputs;         // windows by which outputs are weighed (round/outputs.h); 0: all count alike.
                                  // GYRE_AUTO_COUNT: 32 or all at activations of 8 and 16 bits, else 0
    } calibration;
    double act_clip, kv_clip; // ratios 0.5..1 of the run-time quantizers, or GYRE_AUTO
    uint32_t act_group;       // 4-bit activations by groups of so many inputs where these divide the row; 0: by the row
    bool kv_centre;           // subtract the mean key and value of each head from what is cached
    struct {                  // after rounding: scales, gains and clips learned end to end; steps 0: not done
        uint32_t steps;       // GYRE_AUTO_COUNT: in a GGUF file 40, 24 at 4-bit activations; else 0
        uint32_t batch;       // windows a step, by whose mean it goes
        uint32_t windows;     // of the texts, to take those of the steps from; 0: those of the calibration
        double rate;          // Adam's, of the logarithm of scales and gains; GYRE_AUTO: 0.0003, 0.0006 at 4 bits
        double clip_rate;     // of clips
        double pull;          // share of a parameter that is taken away per unit of rate
    } distill;
    struct { // mean bits, spent where the model is sensitive (pass/budget.h); 0: none. In no recipe that was run:
        double bits; // there the choice stands among the exceptions. Of weights, scales included,
        double act;  // and of what they are multiplied by
    } budget;
    uint32_t n_stages, n_exceptions;
    struct gyre_stage stage[GYRE_MAX_STAGES];
    struct gyre_exception exception[GYRE_MAX_EXCEPTIONS];
};

// Fills a recipe from a built-in name or from a file.
// GYRE_E_INVALID for an unknown name, GYRE_E_IO for a file that cannot be read; GYRE_E_FORMAT for a text that is no
// recipe: the message says where, "(FILE:LINE:COLUMN)", and what is allowed there. After an error *out means nothing.
gyre_status gyre_recipe_find(const char *name, struct gyre_recipe *out, gyre_error *err) GYRE_MUST_USE;

// Reads a text of `bytes` bytes (at most GYRE_RECIPE_BYTES); `where` names it in errors. Keys that are absent have
// their defaults afterwards, unused fields of a stage are 0, and so are the bytes between fields.
gyre_status gyre_recipe_parse(const char *text, size_t bytes, const char *where, struct gyre_recipe *out,
                              gyre_error *err) GYRE_MUST_USE;

// The recipe as YAML with all defaults explicit: the same text for the same recipe, and gyre_recipe_parse gives the
// recipe back. The same as JSON: {"name", ..., "rounding": [{"stage", ...}], "exceptions": [...]}, "auto" as a string,
// null for widths that are as the rest. Both malloc'd; NULL when memory ran out.
char *gyre_recipe_text(const struct gyre_recipe *recipe);
char *gyre_recipe_json(const struct gyre_recipe *recipe);

// The damping that a linear starts with: the largest that a stage asks for; 0.01 where none does.
double gyre_recipe_damp(const struct gyre_recipe *recipe);

// A recipe without rounding learns on a file that was rounded before. The recipe of what it makes is that file's
// (`whole`) with its own name, texts, calibration and distill; and, of such a whole, what it was (`leave`).
void gyre_recipe_join_learning(struct gyre_recipe *whole, const struct gyre_recipe *own);
void gyre_recipe_leave_learning(struct gyre_recipe *whole);

// A stage moves the target on purpose: what comes out need not be near the weights that went in.
bool gyre_recipe_corrects(const struct gyre_recipe *recipe);

// The groups that a GGUF file of weights in groups of `wgroup` declares. In a portable one the number promises that
// scales repeat so; one exception with other groups breaks that.
uint32_t gyre_recipe_declared_group(const struct gyre_recipe *recipe, bool full, uint32_t wgroup);

// Rotations are learned from the calibration text.
static inline bool gyre_learn_reads(const struct gyre_recipe *recipe)
{
    const gyre_learn_method method = recipe->learn.method;
    return method != GYRE_LEARN_NONE && method != GYRE_LEARN_OPTROT && method != GYRE_LEARN_AUTO;
}

// Statistics of the inputs are needed: the run reads a calibration text.
bool gyre_recipe_calibrates(const struct gyre_recipe *recipe);
// Windows of it that are read for `distill` alone, besides those of the calibration.
uint32_t gyre_recipe_more_windows(const struct gyre_recipe *recipe);

struct gyre_settings {
    struct gyre_recipe recipe;
    uint32_t wbits, wgroup; // of all but the exceptions; wgroup 0: per channel, and for wbits 16 and 32
    uint32_t act, kv, kv_v; // act of all taps but the exceptions'; kv of keys, kv_v of values
    bool taps;              // exceptions give taps another width than act
    bool act4;              // some tap has 4 bits
    bool head4;             // the head is a matrix of its own, of int4 in groups of 32
    bool full;              // profile
    bool learn_auto;        // the recipe left learn.method open
    bool distill_auto;      // the recipe left distill.steps open
    bool blocks;            // a portable output has GGUF's blocks of 32
    uint64_t seed;
};

// Exceptions are held against the model too. GYRE_E_INVALID for a value that does not exist, an exception that matches
// no linear, and linears of one product (q, k, v; gate, up) that differ in width or in that of what they read;
// GYRE_E_UNSUPPORTED for a group that does not divide a row of the model (the message names the sizes that do).
// recipe NULL: the one that params name.
gyre_status gyre_settings_resolve(const gyre_quantize_params *params, const struct gyre_recipe *recipe,
                                  const struct gyre_hparams *hp, bool blocks, struct gyre_settings *out,
                                  gyre_error *err) GYRE_MUST_USE;
// True where the recipe leaves something to be chosen on data (pass/search.h).
bool gyre_settings_undecided(const struct gyre_settings *settings);
// Widths of one linear, by its GGUF name: the settings', changed by every exception that matches, in their order. With
// 16 or 32 bits there is nothing to round, and exceptions change nothing.
void gyre_settings_width(const struct gyre_settings *settings, const char *tensor, uint32_t *wbits, uint32_t *wgroup);
// Means over the weights of all blocks: bits that they take, with their scales, and bits of what each is multiplied by.
double gyre_settings_mean_bits(const struct gyre_settings *settings, const struct gyre_hparams *hp);
double gyre_settings_mean_act(const struct gyre_settings *settings, const struct gyre_hparams *hp);
// Appends exceptions, in place of the budget, as if the recipe had said so: errors as above.
gyre_status gyre_settings_except(struct gyre_settings *settings, const struct gyre_hparams *hp,
                                 const struct gyre_exception *list, uint32_t n, gyre_error *err) GYRE_MUST_USE;
// The same of what it reads. Where activations have 16 bits exceptions change nothing.
uint32_t gyre_settings_act(const struct gyre_settings *settings, const char *tensor);
