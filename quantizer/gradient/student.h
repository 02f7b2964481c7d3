// A finished file as a student: the model on a device, its continuous parameters, and the gradient of its divergence
// from a teacher by all of them, through the integer forward pass that devices execute. Codes stay as they are.
//
// Parameters are in one array, as logarithms of factors: what the file says is exp(0) times itself. Learned are
//   scales of int4 and int8 weights · gains of norms, those of heads included · the final norm, or the gain of a
//   rotated head · at 4 bits, in files that can say so, the clip of every such tap and of the keys and values of every
//   block
// Scales are applied as f16 and clips up to 1, so that what is measured is what a file can hold.
#pragma once
#include "quantizer/gradient/teacher.h"

typedef enum gyre_learnt_kind {
    GYRE_LEARNT_SCALES, // of a product: [k / group][n]
    GYRE_LEARNT_GAIN,   // of a norm of blocks: [D]
    GYRE_LEARNT_HEADS,  // of the norms of q and k heads: [2][head size]
    GYRE_LEARNT_FINAL,  // of the final norm or the rotated head: [D]
    GYRE_LEARNT_CLIP,   // of what a product reads: [1]
    GYRE_LEARNT_CACHE,  // of keys, of values: [2]
} gyre_learnt_kind;

struct gyre_learnt {
    gyre_learnt_kind kind;
    uint32_t layer;
    gyre_product product; // scales, clip
    gyre_role role;       // gain
    uint64_t first, n;    // of the array
};

struct gyre_student {
    struct gyre_runner *runner;
    struct gyre_learnt *learnt; // [n_learnt]
    uint32_t n_learnt;
    uint64_t n;   // parameters
    double *base; // [n] what the file said
    bool dry;     // the device computes nothing: no loss is taken, and one piece of the head stands for all
    // private
    float *dx;                  // [tokens][D]
    struct gyre_binding logits; // [GYRE_HEAD_ROWS][V]
    float *alike;               // [GYRE_HEAD_ROWS][V] zeros, of a shape
    float *seen;                // the same, where the device's memory is not the host's
};

// `source`: a file that gyre wrote. Windows are of `tokens` tokens. Close also after failure.
gyre_status gyre_student_open(gyre_device *device, const gyre_source *source, uint32_t tokens, struct gyre_student *out,
                              gyre_error *err) GYRE_MUST_USE;
// Of a shape without a file; its windows have no teacher (NULL), for whom all tokens are alike then.
gyre_status gyre_student_open_shape(gyre_device *device, const char *shape, uint32_t wgroup, uint32_t tokens,
                                    struct gyre_student *out, gyre_error *err) GYRE_MUST_USE;
void gyre_student_close(struct gyre_student *student);

// Applies the parameters.
gyre_status gyre_student_set(struct gyre_student *student, const double *parameter, gyre_error *err) GYRE_MUST_USE;
// What a parameter amounts to in a file: base * exp(parameter), a clip at most 1.
double gyre_student_value(const struct gyre_student *student, const struct gyre_learnt *learnt, uint64_t i,
                          double parameter);

// Mean divergence per token of one window, which the teacher knows by its number; gradient [n] (NULL: none) is
// overwritten.
gyre_status gyre_student_window(struct gyre_student *student, gyre_teacher *teacher, uint32_t window,
                                const uint32_t *token, double *kl, double *gradient, gyre_error *err) GYRE_MUST_USE;
