// See spin.h. A window through the blocks and back; what is merged into their weights is spin_merge.c's.
#include "quantizer/gradient/rules.h"
#include "quantizer/learn/spin_impl.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotations"); }

gyre_status gyre_spin_open(gyre_device *device, const struct gyre_plan *plan, const gyre_source *source,
                           const struct gyre_matrices *shape, const struct gyre_spin_options *options, gyre_spin **out,
                           gyre_error *err)
{
    const struct gyre_precision precision = {options->act,     options->kv,      options->kv,      options->act_clip,
                                             options->kv_clip, options->kv_clip, options->act_clip};
    gyre_status st = GYRE_OK;
    gyre_spin *s = *out = calloc(1, sizeof *s);
    if (!s) return no_memory(err);
    s->options = *options;
    s->hp = gyre_folder_hparams(plan);
    s->runner = calloc(1, sizeof *s->runner);
    if (!s->runner) GYRE_GO(no_memory(err));
    GYRE_GO(gyre_runner_open(device, source, &precision, options->tokens, GYRE_RUNNER_KEEPS | GYRE_RUNNER_LOADS,
                             s->runner, err));
    GYRE_GO(gyre_repacker_create(device, &s->repacker, err));
    GYRE_GO(gyre_shared_create(device, &s->hp, &s->shared, err));
    GYRE_GO(gyre_matrices_create_as(shape, &s->at, err));
    s->dx = malloc((uint64_t)options->tokens * s->hp.width * sizeof *s->dx);
    if (!s->dx) GYRE_GO(no_memory(err));
    s->logits.size = (uint64_t)GYRE_HEAD_ROWS * s->hp.vocab * sizeof(float);
    GYRE_GO(gyre_buffer_create(device, s->logits.size, "logits", &s->logits.buffer, err));
    GYRE_GO(gyre_spin_load(s, plan, err));
done:
    if (st != GYRE_OK) {
        gyre_spin_close(s);
        *out = NULL;
    }
    return st;
}

void gyre_spin_close(gyre_spin *s)
{
    if (!s) return;
    gyre_device *device = s->runner ? s->runner->device : NULL; // NULL: nothing was made on it
    gyre_spin_unload(s);
    if (device) {
        gyre_buffer_destroy(device, s->logits.buffer);
        gyre_shared_free(device, &s->shared);
        gyre_repacker_destroy(s->repacker);
    }
    if (s->runner) gyre_runner_close(s->runner);
    gyre_matrices_release(&s->at);
    free(s->runner);
    free(s->dx);
    free(s);
}

// ---- a block ----------------------------------------------------------------------------------------------------

// Builds on from what `b` stands before to the next product (GYRE_PRODUCTS: the end); what reads the stream gets it
// quantized in R1's basis and turned back.
static void build_part(gyre_spin *s, struct gyre_builder *b, gyre_product to)
{
    struct gyre_precision part = s->runner->precision;
    const struct gyre_weight *turn = b->from != GYRE_PRODUCTS ? gyre_spin_turn(s, b->from) : NULL;
    if (turn) {
        const gyre_value x =
            gyre_g_quantize_groups(b->g, gyre_g_matmul(b->g, b->tap, turn), part.act, part.act_clip, s->hp.act_group);
        b->tap = gyre_g_matmul(b->g, x, &s->back[turn - s->turn]);
        part.act = 16;
    }
    b->precision = &part;
    b->to = to;
    gyre_build_block(b);
    b->from = to;
    b->precision = &s->runner->precision; // `part` ends here
}

static gyre_status run_block(gyre_spin *s, uint32_t layer, struct gyre_runner_graph *keep, gyre_error *err)
{
    struct gyre_runner *r = s->runner;
    const struct gyre_batch batch = gyre_kv_batch(&r->kv, r->rows);
    gyre_graph *g;
    GYRE_TRY(gyre_spin_enter(s, layer, err));
    GYRE_TRY(gyre_graph_create(r->device, r->tokens, &batch, &g, err));
    const gyre_value in = gyre_g_external(g, "stream", r->tokens, s->hp.width, r->x[layer]);
    struct gyre_builder b = {.g = g,
                             .hp = &s->hp,
                             .shared = &s->shared,
                             .layer = &s->layer[layer],
                             .kv = &r->kv.pool[0],
                             .from = GYRE_PRODUCTS,
                             .stream = in};
    for (int p = 0; p <= GYRE_PRODUCTS; p++) build_part(s, &b, (gyre_product)p);
    gyre_g_output(g, b.stream, r->x[layer + 1]);
    gyre_status st = gyre_graph_compile(g, &(struct gyre_graph_options){.no_fuse = true, .keep = keep != NULL}, err);
    if (st == GYRE_OK) st = gyre_graph_submit(g, err);
    if (keep && st == GYRE_OK) *keep = (struct gyre_runner_graph){g, in, b.stream};
    else gyre_graph_destroy(g);
    return st;
}

// s->dx from behind a block to before it, and what its rotations get.
static gyre_status block_back(gyre_spin *s, uint32_t layer, struct gyre_matrices *gradient, gyre_error *err)
{
    const uint64_t n = (uint64_t)s->runner->tokens * s->hp.width;
    struct gyre_spin_found found;
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(run_block(s, layer, &g, err));
    GYRE_GO(gyre_reverse_open(g.graph, s->options.plain, &r, err));
    float *out = gyre_reverse_value(r, g.out), *in = gyre_reverse_value(r, g.in);
    if (!out || !in) GYRE_GO(no_memory(err));
    GYRE_GO(gyre_spin_ask(s, r, layer, &found, err));
    memcpy(out, s->dx, n * sizeof *out);
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(s->dx, in, n * sizeof *in);
    st = gyre_spin_collect(s, layer, &found, gradient, err);
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

// ---- the head ---------------------------------------------------------------------------------------------------

// Cross entropy of one row in nats; x (NULL: only that) becomes weight times its gradient.
static double entropy(const float *logits, uint32_t n, uint32_t target, double weight, float *x)
{
    float top = logits[0];
    double sum = 0;
    for (uint32_t i = 1; i < n; i++) top = logits[i] > top ? logits[i] : top;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)(logits[i] - top));
    const double loss = log(sum) - (double)(logits[target] - top);
    for (uint32_t i = 0; x && i < n; i++)
        x[i] = (float)(weight * (exp((double)(logits[i] - top)) / sum - (i == target)));
    return loss;
}

// The loss of n rows from `first` on, of which the last of a window predicts nothing; seed (NULL: none) gets the
// gradient of the window's mean.
static gyre_status loss_of_rows(const gyre_spin *s, const uint32_t *token, gyre_teacher *teacher, uint32_t window,
                                uint32_t first, uint32_t n, double *loss, float *seed, gyre_error *err)
{
    const uint32_t V = s->hp.vocab, tokens = s->runner->tokens;
    const float *logits = gyre_back_memory(s->logits);
    if (teacher) {
        const float *want;
        GYRE_TRY(gyre_teacher_logits(teacher, window, first, n, &want, err));
        if (s->options.top) {
            *loss += gyre_back_kl_top(want, logits, n, V, s->options.top, 1.0 / tokens, seed) / tokens;
            return GYRE_OK;
        }
        if (seed) memcpy(seed, logits, (uint64_t)n * V * sizeof *seed);
        *loss +=
            (seed ? gyre_back_kl(want, seed, n, V, 1.0 / tokens) : gyre_back_divergence(want, logits, n, V)) / tokens;
        return GYRE_OK;
    }
    double row[GYRE_HEAD_ROWS] = {0};
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) {
        if (first + i + 1 < tokens)
            row[i] = entropy(logits + (uint64_t)i * V, V, token[first + i + 1], 1.0 / (tokens - 1),
                             seed ? seed + (uint64_t)i * V : NULL);
    }
    for (uint32_t i = 0; i < n; i++) *loss += row[i] / (tokens - 1);
    return GYRE_OK;
}

static gyre_status head_rows(gyre_spin *s, const uint32_t *token, gyre_teacher *teacher, uint32_t window,
                             uint32_t first, uint32_t n, double *loss, bool backwards, gyre_error *err)
{
    struct gyre_runner *runner = s->runner;
    const uint64_t D = s->hp.width;
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_runner_head(runner, gyre_runner_rows(runner, s->hp.n_layers, first, n), n, s->logits,
                              backwards ? &g : NULL, err));
    if (!backwards) return loss_of_rows(s, token, teacher, window, first, n, loss, NULL, err);
    GYRE_GO(gyre_reverse_open(g.graph, s->options.plain, &r, err));
    float *seed = gyre_reverse_value(r, g.out), *in = gyre_reverse_value(r, g.in);
    if (!seed || !in) GYRE_GO(no_memory(err));
    GYRE_GO(loss_of_rows(s, token, teacher, window, first, n, loss, seed, err));
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(s->dx + first * D, in, n * D * sizeof *in);
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

gyre_status gyre_spin_window(gyre_spin *s, const uint32_t *token, gyre_teacher *teacher, uint32_t window, double *loss,
                             struct gyre_matrices *gradient, gyre_error *err)
{
    struct gyre_runner *r = s->runner;
    const uint32_t layers = s->hp.n_layers;
    *loss = 0;
    if (gradient) memset(gyre_matrices_data(gradient), 0, gyre_matrices_count(gradient) * sizeof(double));
    GYRE_TRY(gyre_runner_embed(r, token, err));
    for (uint32_t l = 0; l < layers; l++) GYRE_TRY(run_block(s, l, NULL, err));
    for (uint32_t first = 0; first < r->tokens; first += GYRE_HEAD_ROWS)
        GYRE_TRY(head_rows(s, token, teacher, window, first, GYRE_MIN((uint32_t)GYRE_HEAD_ROWS, r->tokens - first),
                           loss, gradient != NULL, err));
    for (uint32_t l = layers; gradient && l-- > 0;) GYRE_TRY(block_back(s, l, gradient, err));
    return GYRE_OK;
}
