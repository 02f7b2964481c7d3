// See spin.h. Gradients of linears through the merge: W' = W R reads, W' = R' W writes.
#include "quantizer/learn/spin.h"
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/rules.h"
#include "quantizer/gradient/runner.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct gyre_spin {
    struct gyre_spin_options options;
    struct gyre_runner *runner; // without blocks of its own
    gyre_repacker *repacker;
    struct gyre_hparams hp; // the output's shapes and online rotations; borrows
    struct gyre_shared shared;
    struct gyre_layer_weights *layer; // [n_layers]: folded, R2 merged
    struct gyre_weight turn, back;    // by R1, by R1'
    float **value, **out;             // [n_layers] v and o without R2
    float **bias;                     // [n_layers] of v; NULL: none
    struct gyre_matrices at;
    struct gyre_binding logits; // [GYRE_HEAD_ROWS][V]
    float *dx;                  // [tokens][D]
};

static const gyre_role value_role = GYRE_ROLE_v, out_role = GYRE_ROLE_o;

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotations"); }

// ---- weights ----------------------------------------------------------------------------------------------------

static gyre_status create_float(gyre_spin *s, uint32_t n, uint32_t k, const char *label, struct gyre_weight *out,
                                gyre_error *err)
{
    return gyre_weight_create(s->runner->device, GYRE_WEIGHT_F32, n, k, k, label, out, err);
}

// The first row of a linear in its product.
static uint32_t first_row(const gyre_spin *s, gyre_role role)
{
    uint64_t at = 0, rows, cols;
    for (int r = 0; r < (int)role; r++) {
        if (gyre_roles[r].product != gyre_roles[role].product) continue;
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        at += rows;
    }
    return (uint32_t)at;
}

static float *copied(const float *from, uint64_t n)
{
    float *to = malloc(n * sizeof *to);
    if (to) memcpy(to, from, n * sizeof *to);
    return to;
}

static gyre_status load_product(gyre_spin *s, const struct gyre_folded *from, gyre_product product,
                                struct gyre_layer_weights *w, gyre_error *err)
{
    uint64_t total = 0, rows, cols;
    bool biased = false;
    gyre_status st = GYRE_OK;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        total += rows;
        biased |= from->bias[r] != NULL;
    }
    GYRE_TRY(create_float(s, (uint32_t)total, gyre_product_width(product, &s->hp), gyre_products[product].name,
                          &w->product[product], err));
    float *bias = calloc(total, sizeof *bias);
    if (!bias) return no_memory(err);
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        const uint32_t n0 = first_row(s, (gyre_role)r);
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        GYRE_GO(
            gyre_weight_fill(s->repacker, &w->product[product], n0, (uint32_t)rows, from->linear[r], NULL, NULL, err));
        if (from->bias[r]) memcpy(bias + n0, from->bias[r], rows * sizeof *bias);
    }
    if (biased) GYRE_GO(gyre_upload(s->runner->device, bias, total * sizeof *bias, "bias", &w->bias[product], err));
done:
    free(bias);
    return st;
}

static gyre_status load_block(gyre_spin *s, uint32_t l, const struct gyre_folded *from, gyre_error *err)
{
    struct gyre_layer_weights *w = &s->layer[l];
    gyre_device *device = s->runner->device;
    const uint32_t hd = s->hp.head_dim;
    uint64_t rows, cols;
    w->kind = from->kind;
    for (int p = 0; p < GYRE_PRODUCTS; p++) GYRE_TRY(load_product(s, from, (gyre_product)p, w, err));
    gyre_role_shape(value_role, &s->hp, &rows, &cols);
    s->value[l] = copied(from->linear[value_role], rows * cols);
    s->bias[l] = from->bias[value_role] ? copied(from->bias[value_role], rows) : NULL;
    gyre_role_shape(out_role, &s->hp, &rows, &cols);
    s->out[l] = copied(from->linear[out_role], rows * cols);
    if (!s->value[l] || !s->out[l] || (from->bias[value_role] && !s->bias[l])) return no_memory(err);
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++)
        if (from->vector[r] && !gyre_role_is_of_heads((gyre_role)r))
            GYRE_TRY(gyre_upload(device, from->vector[r], s->hp.width * sizeof(float), "norm", &w->norm[r], err));
    if (!from->vector[GYRE_ROLE_q_norm]) return GYRE_OK;
    float gains[2 * GYRE_MAX_HEAD_DIM];
    memcpy(gains, from->vector[GYRE_ROLE_q_norm], hd * sizeof *gains);
    memcpy(gains + hd, from->vector[GYRE_ROLE_k_norm], hd * sizeof *gains);
    return gyre_upload(device, gains, 2 * (uint64_t)hd * sizeof *gains, "head gains", &w->head_gains, err);
}

static gyre_status load_blocks(gyre_spin *s, const struct gyre_plan *plan, gyre_error *err)
{
    gyre_folder *folder = NULL;
    struct gyre_folded block;
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_folder_open(plan, &folder, err));
    for (uint32_t l = 0; l < s->hp.n_layers; l++) {
        GYRE_GO(gyre_folder_block(folder, l, &block, err));
        GYRE_GO(load_block(s, l, &block, err));
    }
done:
    gyre_folder_close(folder);
    return st;
}

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
    const uint32_t layers = s->hp.n_layers, D = s->hp.width;
    GYRE_GO(gyre_repacker_create(device, &s->repacker, err));
    GYRE_GO(gyre_shared_create(device, &s->hp, &s->shared, err));
    GYRE_GO(gyre_matrices_create(D, layers, s->hp.kv_heads, s->hp.head_dim, shape->r1 != NULL, &s->at, err));
    s->layer = calloc(layers, sizeof *s->layer);
    s->value = calloc(layers, sizeof *s->value);
    s->out = calloc(layers, sizeof *s->out);
    s->bias = calloc(layers, sizeof *s->bias);
    s->dx = malloc((uint64_t)options->tokens * D * sizeof *s->dx);
    if (!s->layer || !s->value || !s->out || !s->bias || !s->dx) GYRE_GO(no_memory(err));
    if (shape->r1) GYRE_GO(create_float(s, D, D, "R1", &s->turn, err));
    if (shape->r1) GYRE_GO(create_float(s, D, D, "R1 back", &s->back, err));
    s->logits.size = (uint64_t)GYRE_HEAD_ROWS * s->hp.vocab * sizeof(float);
    GYRE_GO(gyre_buffer_create(device, s->logits.size, "logits", &s->logits.buffer, err));
    GYRE_GO(load_blocks(s, plan, err));
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
    for (uint32_t l = 0; s->layer && s->value && s->out && s->bias && l < s->hp.n_layers; l++) {
        free(s->value[l]);
        free(s->out[l]);
        free(s->bias[l]);
        gyre_layer_weights_free(device, &s->layer[l]);
    }
    if (device) {
        gyre_weight_destroy(device, &s->turn);
        gyre_weight_destroy(device, &s->back);
        gyre_buffer_destroy(device, s->logits.buffer);
        gyre_shared_free(device, &s->shared);
        gyre_repacker_destroy(s->repacker);
    }
    if (s->runner) gyre_runner_close(s->runner);
    gyre_matrices_release(&s->at);
    free(s->runner);
    free(s->layer);
    free(s->value);
    free(s->out);
    free(s->bias);
    free(s->dx);
    free(s);
}

// ---- the matrices -----------------------------------------------------------------------------------------------

// v R2 and R2' of what o reads, of one block.
static gyre_status merge_r2(gyre_spin *s, uint32_t layer, double *wide, float *narrow, gyre_error *err)
{
    struct gyre_layer_weights *w = &s->layer[layer];
    const uint32_t hd = s->hp.head_dim, group = s->hp.heads / s->hp.kv_heads, n0 = first_row(s, value_role);
    uint64_t rows, cols;
    gyre_role_shape(value_role, &s->hp, &rows, &cols);
    for (uint64_t i = 0; i < rows * cols; i++) wide[i] = (double)s->value[layer][i];
    for (uint32_t j = 0; j < s->hp.kv_heads; j++)
        GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(&s->at, layer, j), hd, wide + (uint64_t)j * hd * cols, cols, cols, 1,
                                  false, err));
    for (uint64_t i = 0; i < rows * cols; i++) narrow[i] = (float)wide[i];
    GYRE_TRY(gyre_weight_fill(s->repacker, &w->product[gyre_roles[value_role].product], n0, (uint32_t)rows, narrow,
                              NULL, NULL, err));
    if (s->bias[layer]) {
        const struct gyre_binding *at = &w->bias[gyre_roles[value_role].product];
        for (uint64_t i = 0; i < rows; i++) wide[i] = (double)s->bias[layer][i];
        for (uint32_t j = 0; j < s->hp.kv_heads; j++)
            GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(&s->at, layer, j), hd, wide + (uint64_t)j * hd, 1, 1, hd, false,
                                      err));
        for (uint64_t i = 0; i < rows; i++) narrow[i] = (float)wide[i];
        GYRE_TRY(gyre_buffer_write(s->runner->device, at->buffer, at->offset + n0 * sizeof *narrow, narrow,
                                   rows * sizeof *narrow, err));
    }
    gyre_role_shape(out_role, &s->hp, &rows, &cols);
    for (uint64_t i = 0; i < rows * cols; i++) wide[i] = (double)s->out[layer][i];
    for (uint32_t h = 0; h < s->hp.heads; h++)
        GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(&s->at, layer, h / group), hd, wide + (uint64_t)h * hd, 1, rows,
                                  cols, false, err));
    for (uint64_t i = 0; i < rows * cols; i++) narrow[i] = (float)wide[i];
    return gyre_weight_fill(s->repacker, &w->product[gyre_roles[out_role].product], 0, (uint32_t)rows, narrow, NULL,
                            NULL, err);
}

gyre_status gyre_spin_set(gyre_spin *s, const struct gyre_matrices *at, gyre_error *err)
{
    const uint64_t D = s->hp.width;
    uint64_t rows, cols, most = D * D;
    gyre_status st = GYRE_OK;
    memcpy(gyre_matrices_data(&s->at), gyre_matrices_data(at), gyre_matrices_count(at) * sizeof(double));
    gyre_role_shape(value_role, &s->hp, &rows, &cols);
    most = GYRE_MAX(most, rows * cols);
    gyre_role_shape(out_role, &s->hp, &rows, &cols);
    most = GYRE_MAX(most, rows * cols);
    double *wide = malloc(most * sizeof *wide);
    float *narrow = malloc(most * sizeof *narrow);
    if (!wide || !narrow) GYRE_GO(no_memory(err));
    if (at->r1) {
        for (uint64_t i = 0; i < D * D; i++) narrow[i] = (float)at->r1[i % D * D + i / D];
        GYRE_GO(gyre_weight_fill(s->repacker, &s->turn, 0, (uint32_t)D, narrow, NULL, NULL, err));
        for (uint64_t i = 0; i < D * D; i++) narrow[i] = (float)at->r1[i];
        GYRE_GO(gyre_weight_fill(s->repacker, &s->back, 0, (uint32_t)D, narrow, NULL, NULL, err));
    }
    for (uint32_t l = 0; l < s->hp.n_layers; l++) GYRE_GO(merge_r2(s, l, wide, narrow, err));
done:
    free(wide);
    free(narrow);
    return st;
}

// ---- a block ----------------------------------------------------------------------------------------------------

// Builds on from what `b` stands before to the next product (GYRE_PRODUCTS: the end); what reads the stream gets it
// quantized in R1's basis and turned back.
static void build_part(const gyre_spin *s, struct gyre_builder *b, gyre_product to)
{
    struct gyre_precision part = s->runner->precision;
    const bool turned = b->from != GYRE_PRODUCTS && gyre_products[b->from].reads == GYRE_ROTATION_R1 && s->at.r1;
    if (turned) {
        const gyre_value x = gyre_g_quantize_groups(b->g, gyre_g_matmul(b->g, b->tap, &s->turn), part.act,
                                                    part.act_clip, s->hp.act_group);
        b->tap = gyre_g_matmul(b->g, x, &s->back);
        part.act = 16;
    }
    b->precision = &part;
    b->to = to;
    gyre_build_block(b);
    b->from = to;
}

static gyre_status run_block(gyre_spin *s, uint32_t layer, struct gyre_runner_graph *keep, gyre_error *err)
{
    struct gyre_runner *r = s->runner;
    const struct gyre_batch batch = gyre_kv_batch(&r->kv, r->rows);
    gyre_graph *g;
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

// dR += of y = x R in weights: a [n][m], b [n][m] of one head, dR [m][m] += a' b; row strides la, lb.
static void cross(const float *a, uint64_t la, const float *b, uint64_t lb, uint64_t n, uint32_t m, bool by_rows,
                  double *sum)
{
    float *part = malloc((uint64_t)m * m * sizeof *part);
    for (uint64_t i = 0; !part && i < (uint64_t)m * m; i++) sum[i] = NAN; // refused as any other
    if (!part) return;
    // Heads are columns of o (a' b), and rows of v (a b').
    if (by_rows)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)m, (int)n, 1, a, (int)la, b, (int)lb, 0, part,
                    (int)m);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)m, (int)n, 1, a, (int)la, b, (int)lb, 0, part,
                    (int)m);
    for (uint64_t i = 0; i < (uint64_t)m * m; i++) sum[i] += (double)part[i];
    free(part);
}

// Through the merge into v and o.
static void collect_r2(const gyre_spin *s, uint32_t layer, const float *dqkv, const float *dbias, const float *dout,
                       struct gyre_matrices *gradient)
{
    const uint32_t hd = s->hp.head_dim, group = s->hp.heads / s->hp.kv_heads, n0 = first_row(s, value_role);
    uint64_t rows, cols;
    for (uint32_t j = 0; j < s->hp.kv_heads; j++) {
        double *to = gyre_matrices_r2(gradient, layer, j);
        gyre_role_shape(value_role, &s->hp, &rows, &cols);
        cross(s->value[layer] + (uint64_t)j * hd * cols, cols, dqkv + (n0 + (uint64_t)j * hd) * cols, cols, cols, hd,
              true, to);
        for (uint32_t i = 0; dbias && i < hd * hd; i++)
            to[i] += (double)s->bias[layer][j * hd + i / hd] * (double)dbias[n0 + j * hd + i % hd];
        gyre_role_shape(out_role, &s->hp, &rows, &cols);
        for (uint32_t h = j * group; h < (j + 1) * group; h++)
            cross(s->out[layer] + (uint64_t)h * hd, cols, dout + (uint64_t)h * hd, cols, rows, hd, false, to);
    }
}

// s->dx from behind a block to before it, and what its rotations get.
static gyre_status block_back(gyre_spin *s, uint32_t layer, struct gyre_matrices *gradient, gyre_error *err)
{
    const uint64_t D = s->hp.width, n = (uint64_t)s->runner->tokens * D;
    struct gyre_layer_weights *w = &s->layer[layer];
    const gyre_product qkv = gyre_roles[value_role].product, o = gyre_roles[out_role].product;
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(run_block(s, layer, &g, err));
    GYRE_GO(gyre_reverse_open(g.graph, s->options.plain, &r, err));
    float *out = gyre_reverse_value(r, g.out), *in = gyre_reverse_value(r, g.in),
          *dqkv = gyre_reverse_weight(r, &w->product[qkv]), *dout = gyre_reverse_weight(r, &w->product[o]),
          *turn = s->at.r1 ? gyre_reverse_weight(r, &s->turn) : NULL,
          *back = s->at.r1 ? gyre_reverse_weight(r, &s->back) : NULL,
          *dbias = s->bias[layer] ? gyre_reverse_data(r, w->bias[qkv]) : NULL;
    if (!out || !in || !dqkv || !dout || (s->at.r1 && (!turn || !back)) || (s->bias[layer] && !dbias))
        GYRE_GO(no_memory(err));
    memcpy(out, s->dx, n * sizeof *out);
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(s->dx, in, n * sizeof *in);
    for (uint64_t i = 0; s->at.r1 && i < D * D; i++) // turn holds R1', back R1
        gradient->r1[i] += (double)back[i] + (double)turn[i % D * D + i / D];
    collect_r2(s, layer, dqkv, dbias, dout, gradient);
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
