// The losses on activations that need no gradient through the model: how far rows of what R1 and R2 turn are from
// filling their range evenly, which is what a quantizer likes best.
//
// whip (DartQuant, arXiv 2511.04063): the sum of exp(-|y|) over a row; it pushes small numbers away from zero, and the
// row's length, which rotations keep, brings large ones down.
// kurtosis (KurTail, arXiv 2503.01483): |mean y^4 - 1.8| of a row; 1.8 is that of an even distribution.
//
// Rows have root mean square 1, since a quantizer takes its scale from the row. R1 sees what the norms of every block
// give (gains folded), R2 the values that are cached; of a window every so many tokens, without the first, which
// carries the attention sink. The loss is the mean over rows, blocks and places. The float model reads the text once,
// one block of it in memory.
#include "quantizer/file/plan.h"
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/runner.h"
#include "quantizer/learn/objective.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, PLACES = 2 };

struct taps {
    const struct gyre_calib_text *text;
    struct gyre_hparams hp; // borrows
    bool whip;
    uint32_t rows;              // of a window
    gyre_product place[PLACES]; // that read the stream
    float *stream[PLACES];      // [windows][layers][rows][D], of root mean square 1
    float *value;               // [windows][layers][kv heads][rows][hd]
    double *x, *y;              // [rows][widest]
};

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for learning"); }

static void close_it(void *self)
{
    struct taps *t = self;
    for (int i = 0; i < PLACES; i++) free(t->stream[i]);
    free(t->value);
    free(t->x);
    free(t->y);
    free(t);
}

// ---- reading --------------------------------------------------------------------------------------------------

// A row of n numbers over `gain` (NULL: 1), scaled.
static void take_row(const float *from, const float *gain, uint64_t n, float *to)
{
    double square = 0;
    for (uint64_t i = 0; i < n; i++) {
        to[i] = gain ? gain[i] != 0 ? from[i] / gain[i] : 0 : from[i];
        square += (double)to[i] * (double)to[i];
    }
    const double scale = square > 0 ? sqrt((double)n / square) : 0;
    for (uint64_t i = 0; i < n; i++) to[i] = (float)(scale * (double)to[i]);
}

static uint64_t token_of(const struct taps *t, uint32_t row)
{
    return t->text->tokens > 1 ? 1 + (uint64_t)row * (t->text->tokens - 1) / t->rows : 0;
}

// What block `layer` made of window `w`.
static gyre_status take_block(struct taps *t, const struct gyre_runner *runner, const gyre_graph *graph, uint32_t layer,
                              uint32_t w, const float *const gain[PLACES], gyre_error *err)
{
    const uint64_t D = t->hp.width, hd = t->hp.head_dim, heads = t->hp.kv_heads,
                   at = (uint64_t)w * t->hp.n_layers + layer;
    const float *x, *gradient;
    uint64_t stride = 0;
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_reverse_open(graph, false, &r, err));
    for (int i = 0; i < PLACES; i++) {
        if (!gyre_reverse_reads(r, &runner->model.layer[layer].product[t->place[i]], &x, &gradient))
            GYRE_GO(no_memory(err));
        for (uint32_t row = 0; row < t->rows; row++)
            take_row(x + token_of(t, row) * D, gain[i], D, t->stream[i] + (at * t->rows + row) * D);
    }
    gyre_reverse_cached(r, &x, &stride, &gradient);
    for (uint64_t h = 0; x && h < heads; h++)
        for (uint32_t row = 0; row < t->rows; row++)
            take_row(x + token_of(t, row) * stride + (heads + h) * hd, NULL, hd,
                     t->value + ((at * heads + h) * t->rows + row) * hd);
done:
    gyre_reverse_close(r);
    return st;
}

static gyre_status read_gain(const struct gyre_plan *p, gyre_product place, uint32_t layer, float *out, gyre_error *err)
{
    const gyre_role norm = gyre_products[place].norm;
    const struct gyre_tensor *tensor;
    GYRE_TRY(gyre_role_need(p->source, norm, layer, "weight", &tensor, err));
    gyre_role_vector_f32(&p->hp, norm, tensor, out);
    return GYRE_OK;
}

// All windows through block `layer`; x [windows][tokens][D] becomes what it gives.
static gyre_status read_layer(struct taps *t, struct gyre_runner *runner, const struct gyre_plan *p, uint32_t layer,
                              float *x, float *gains, gyre_error *err)
{
    const uint64_t each = (uint64_t)t->text->tokens * t->hp.width;
    const float *gain[PLACES] = {NULL};
    for (int i = 0; i < PLACES && p->rotator.fold; i++) {
        GYRE_TRY(read_gain(p, t->place[i], layer, gains + (uint64_t)i * t->hp.width, err));
        gain[i] = gains + (uint64_t)i * t->hp.width;
    }
    GYRE_TRY(gyre_runner_load(runner, layer, err));
    for (uint32_t w = 0; w < t->text->windows; w++) {
        const struct gyre_binding in = gyre_runner_rows(runner, layer, 0, t->text->tokens),
                                  out = gyre_runner_rows(runner, layer + 1, 0, t->text->tokens);
        struct gyre_runner_graph g = {0};
        if (layer == 0) GYRE_TRY(gyre_runner_embed(runner, t->text->token + (uint64_t)w * t->text->tokens, err));
        else GYRE_TRY(gyre_buffer_write(runner->device, in.buffer, in.offset, x + w * each, in.size, err));
        GYRE_TRY(gyre_runner_block(runner, layer, &g, err));
        const gyre_status st = take_block(t, runner, g.graph, layer, w, gain, err);
        gyre_graph_destroy(g.graph);
        GYRE_TRY(st);
        GYRE_TRY(gyre_buffer_read(runner->device, out.buffer, out.offset, x + w * each, out.size, err));
    }
    return GYRE_OK;
}

static gyre_status read_text(struct taps *t, const struct gyre_objective_params *p, gyre_error *err)
{
    const struct gyre_precision exact = GYRE_UNROUNDED;
    struct gyre_runner runner = {0};
    gyre_status st = GYRE_OK;
    float *x = malloc((uint64_t)t->text->windows * t->text->tokens * t->hp.width * sizeof *x),
          *gains = malloc((uint64_t)PLACES * t->hp.width * sizeof *gains);
    if (!x || !gains) GYRE_GO(no_memory(err));
    GYRE_GO(gyre_runner_open(p->device, p->source, &exact, t->text->tokens, GYRE_RUNNER_LOADS, &runner, err));
    for (uint32_t l = 0; l < t->hp.n_layers; l++) GYRE_GO(read_layer(t, &runner, p->plan, l, x, gains, err));
done:
    gyre_runner_close(&runner);
    free(x);
    free(gains);
    return st;
}

// ---- the loss -------------------------------------------------------------------------------------------------

// Of one row; y becomes its gradient.
static double row_loss(bool whip, double *y, uint64_t n)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += whip ? exp(-fabs(y[i])) : y[i] * y[i] * y[i] * y[i] / (double)n;
    const double side = sum < 1.8 ? -1 : 1;
    for (uint64_t i = 0; i < n; i++)
        y[i] = whip ? copysign(exp(-fabs(y[i])), -y[i]) : side * 4 * y[i] * y[i] * y[i] / (double)n;
    return whip ? sum : fabs(sum - 1.8);
}

// Adds the mean over rows [rows][n], turned by r, times `scale`, to *loss, and its gradient to dr (may be NULL).
static void add_rows(struct taps *t, const float *rows, uint32_t n, const double *r, double scale, double *loss,
                     double *dr)
{
    for (uint64_t i = 0; i < (uint64_t)t->rows * n; i++) t->x[i] = (double)rows[i];
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)t->rows, (int)n, (int)n, 1, t->x, (int)n, r, (int)n, 0,
                t->y, (int)n);
    scale /= t->rows;
    for (uint64_t i = 0; i < t->rows; i++) *loss += scale * row_loss(t->whip, t->y + i * n, n);
    if (dr)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)n, (int)t->rows, scale, t->x, (int)n, t->y,
                    (int)n, 1, dr, (int)n);
}

static gyre_status taps_at(void *self, const struct gyre_matrices *at, uint32_t window, double *loss,
                           struct gyre_matrices *gradient, gyre_error *err)
{
    struct taps *t = self;
    const uint32_t layers = t->hp.n_layers, heads = t->hp.kv_heads, hd = t->hp.head_dim;
    (void)err;
    *loss = 0;
    if (gradient) memset(gyre_matrices_data(gradient), 0, gyre_matrices_count(gradient) * sizeof(double));
    for (uint32_t l = 0; l < layers; l++) {
        const uint64_t place = (uint64_t)window * layers + l;
        for (int i = 0; i < PLACES && at->r1; i++)
            add_rows(t, t->stream[i] + place * t->rows * t->hp.width, t->hp.width, at->r1, 1.0 / (PLACES * layers),
                     loss, gradient ? gradient->r1 : NULL);
        for (uint32_t h = 0; h < heads; h++)
            add_rows(t, t->value + (place * heads + h) * t->rows * hd, hd, gyre_matrices_r2(at, l, h),
                     1.0 / ((double)heads * layers), loss, gradient ? gyre_matrices_r2(gradient, l, h) : NULL);
    }
    return GYRE_OK;
}

gyre_status gyre_objective_taps(const struct gyre_objective_params *p, bool whip, struct gyre_objective *out,
                                gyre_error *err)
{
    struct taps *t = calloc(1, sizeof *t);
    if (!t) return no_memory(err);
    *out = (struct gyre_objective){.at = taps_at, .close = close_it, .self = t};
    t->text = p->text;
    t->hp = p->plan->hp;
    t->whip = whip;
    t->rows = GYRE_MIN((uint32_t)ROWS, GYRE_MAX(p->text->tokens, 2u) - 1);
    uint32_t n = 0;
    for (int i = 0; i < GYRE_PRODUCTS && n < PLACES; i++)
        if (gyre_products[i].reads == GYRE_ROTATION_R1) t->place[n++] = (gyre_product)i;
    const uint64_t rows = (uint64_t)p->text->windows * t->hp.n_layers * t->rows,
                   widest = GYRE_MAX(t->hp.width, t->hp.head_dim);
    bool good = true;
    for (int i = 0; i < PLACES; i++) good &= (t->stream[i] = malloc(rows * t->hp.width * sizeof(float))) != NULL;
    good &= (t->value = calloc(rows * t->hp.kv_heads * t->hp.head_dim, sizeof(float))) != NULL;
    good &= (t->x = malloc(t->rows * widest * sizeof *t->x)) != NULL;
    good &= (t->y = malloc(t->rows * widest * sizeof *t->y)) != NULL;
    return good ? read_text(t, p, err) : no_memory(err);
}
