// See distill_impl.h. Every tensor is made from the base that the student kept, so that doing it twice changes nothing.
#include "quantizer/pass/distill_impl.h"
#include "quantizer/gradient/runner.h"
#include "runtime/model/clips.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <stdlib.h>

struct writing {
    const struct gyre_plan *plan;
    const gyre_source *part;
    const struct gyre_student *student;
    const double *parameter;
    struct gyre_output *out;
};

static float value(const struct writing *w, const struct gyre_learnt *p, uint64_t i)
{
    return (float)gyre_student_value(w->student, p, i, w->parameter[p->first + i]);
}

// One linear of a product, whose channels begin at n0 of the product's n.
static gyre_status write_linear(const struct writing *w, const struct gyre_learnt *p, gyre_role role, uint64_t n0,
                                uint64_t n, gyre_error *err)
{
    struct gyre_linear linear;
    GYRE_TRY(gyre_linear_find(w->part, &w->student->runner->model.hp, role, p->layer, &linear, err));
    const uint64_t groups = linear.cols / linear.group, count = linear.rows * linear.cols;
    int8_t *code = malloc(count);
    uint16_t *scale = malloc(linear.rows * groups * sizeof *scale);
    void *scratch = malloc(2 * count); // no encoding takes more
    gyre_status st = GYRE_OK;
    if (!code || !scale || !scratch) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for learned scales"));
    GYRE_GO(gyre_linear_codes(&linear, 0, linear.rows, code, scale, NULL, err));
    for (uint64_t r = 0; r < linear.rows; r++)
        for (uint64_t g = 0; g < groups; g++) scale[r * groups + g] = gyre_f16_from_f32(value(w, p, g * n + n0 + r));
    const struct gyre_values values = {.rows = linear.rows,
                                       .cols = linear.cols,
                                       .bits = linear.bits,
                                       .group = linear.group,
                                       .code = code,
                                       .scale = scale};
    st = gyre_output_replace(w->out, (struct gyre_plan_part){GYRE_PART_LINEAR, role, p->layer}, &values, NULL, scratch,
                             err);
done:
    free(code);
    free(scale);
    free(scratch);
    return st;
}

static gyre_status write_scales(const struct writing *w, const struct gyre_learnt *p, gyre_error *err)
{
    const uint64_t n = w->student->runner->model.layer[p->layer].product[p->product].n;
    uint64_t n0 = 0, rows, cols;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != p->product || !gyre_role_present(&w->plan->hp, (gyre_role)r, p->layer)) continue;
        gyre_role_shape((gyre_role)r, &w->plan->hp, &rows, &cols);
        GYRE_TRY(write_linear(w, p, (gyre_role)r, n0, n, err));
        n0 += rows;
    }
    return GYRE_OK;
}

// n parameters from `first` on as the vector of a part.
static gyre_status write_vector(const struct writing *w, const struct gyre_learnt *p, uint64_t first, uint64_t n,
                                struct gyre_plan_part part, gyre_error *err)
{
    float *x = malloc(n * sizeof *x);
    if (!x) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for learned gains");
    for (uint64_t i = 0; i < n; i++) x[i] = value(w, p, first + i);
    const gyre_status st = gyre_output_replace(w->out, part, NULL, x, NULL, err);
    free(x);
    return st;
}

// All clips of a kind are one tensor; where none is learned, what was there stays.
static gyre_status write_clips(const struct writing *w, gyre_learnt_kind kind, gyre_plan_part_kind part, uint32_t each,
                               gyre_error *err)
{
    const uint64_t n = (uint64_t)w->plan->hp.n_layers * each;
    float *clip = malloc(n * sizeof *clip);
    if (!clip) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for learned clips");
    gyre_plan_clips(w->plan, part, clip);
    for (uint32_t k = 0; k < w->student->n_learnt; k++) {
        const struct gyre_learnt *p = &w->student->learnt[k];
        for (uint64_t i = 0; p->kind == kind && i < p->n; i++)
            clip[(uint64_t)p->layer * each + (kind == GYRE_LEARNT_CLIP ? (uint64_t)p->product : i)] = value(w, p, i);
    }
    const gyre_status st =
        gyre_output_replace(w->out, (struct gyre_plan_part){part, GYRE_ROLE_none, 0}, NULL, clip, NULL, err);
    free(clip);
    return st;
}

gyre_status gyre_distill_write(const struct gyre_plan *plan, const gyre_source *part,
                               const struct gyre_student *student, const double *parameter, struct gyre_output *out,
                               gyre_error *err)
{
    const struct writing w = {plan, part, student, parameter, out};
    GYRE_TRY(gyre_journal_replace(&out->journal, err));
    for (uint32_t k = 0; k < student->n_learnt; k++) {
        const struct gyre_learnt *p = &student->learnt[k];
        if (p->kind == GYRE_LEARNT_SCALES) GYRE_TRY(write_scales(&w, p, err));
        if (p->kind == GYRE_LEARNT_GAIN)
            GYRE_TRY(write_vector(&w, p, 0, p->n, (struct gyre_plan_part){GYRE_PART_VECTOR, p->role, p->layer}, err));
        for (uint32_t i = 0; i < 2 && p->kind == GYRE_LEARNT_HEADS; i++)
            GYRE_TRY(write_vector(
                &w, p, i * p->n / 2, p->n / 2,
                (struct gyre_plan_part){GYRE_PART_VECTOR, i ? GYRE_ROLE_k_norm : GYRE_ROLE_q_norm, p->layer}, err));
        if (p->kind == GYRE_LEARNT_FINAL)
            GYRE_TRY(write_vector(&w, p, 0, p->n,
                                  plan->online.head.n
                                      ? (struct gyre_plan_part){GYRE_PART_HEAD_GAIN, GYRE_ROLE_none, 0}
                                      : (struct gyre_plan_part){GYRE_PART_VECTOR, GYRE_ROLE_output_norm, 0},
                                  err));
    }
    if (!plan->writes_clips) return GYRE_OK;
    GYRE_TRY(write_clips(&w, GYRE_LEARNT_CLIP, GYRE_PART_ACT_CLIPS, GYRE_PRODUCTS, err));
    return write_clips(&w, GYRE_LEARNT_CACHE, GYRE_PART_KV_CLIPS, GYRE_CACHED, err);
}
