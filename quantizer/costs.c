// The public face of sensitivity: what each part costs, as JSON. See gyre_quantize.h.
#include "quantizer/pass/sensitivity.h"
#include "quantizer/round/gemm.h"
#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "runtime/util/log.h"

#include <jansson.h>
#include <stdlib.h>
#include <time.h>

struct watch {
    const gyre_quantize_params *params;
    uint64_t started, done, total;
};

static gyre_status tick(void *user, uint64_t blocks, gyre_error *err)
{
    struct watch *w = user;
    w->done = GYRE_MIN(w->done + blocks, w->total);
    if (!w->params->progress) return GYRE_OK;
    const double seconds = 1e-9 * (double)(gyre_clock_ns() - w->started);
    if (!w->params->progress(w->params->user, (double)w->done / (double)w->total,
                             seconds / (double)w->done * (double)(w->total - w->done), "measuring sensitivity"))
        return GYRE_OK;
    return gyre_fail(err, GYRE_E_CANCELLED, "measuring sensitivity stopped");
}

// Seconds of one core of this machine, by the rate of a small product; what else the passes do takes about as long.
static double predicted(double work)
{
    enum { ROWS = 256, N = 768, K = 768, TIMES = 8 };
    float *x = calloc(ROWS * K, sizeof *x), *w = calloc(N * K, sizeof *w), *y = malloc(sizeof *y * ROWS * N);
    double best = 0;
    for (int i = 0; x && w && y && i < TIMES; i++) {
        const clock_t before = clock(); // of all threads: other programs do not count
        gyre_gemm_rows(x, w, ROWS, N, K, y);
        const double rate = (double)ROWS * N * K / ((double)(clock() - before + 1) / CLOCKS_PER_SEC);
        best = GYRE_MAX(best, rate);
    }
    free(x);
    free(w);
    free(y);
    return best > 0 ? 2 * work / best : 0;
}

static bool add_cost(json_t *to, const char *name, const struct gyre_sensitivity *s, uint32_t layer, uint32_t cost)
{
    const struct gyre_cost c = gyre_sensitivity_cost(s, layer, cost);
    return !json_object_set_new(to, name, json_pack("[f, f]", c.nats, c.error));
}

// Of a block, or of all (layer UINT32_MAX). A new reference, NULL where memory ran out.
static json_t *block(const struct gyre_plan *p, const struct gyre_sensitivity *s, uint32_t layer)
{
    static const char *const cache[] = {"k8", "k4", "v8", "v4"};
    const bool all = layer == UINT32_MAX;
    json_t *out = all ? json_object() : json_pack("{s:I}", "block", (json_int_t)layer);
    bool good = out != NULL;
    for (uint32_t i = 0; i < GYRE_PRODUCTS; i++) {
        uint64_t weights = 0, rows, cols;
        for (int r = 0; r < GYRE_LINEARS; r++) {
            if (gyre_roles[r].product != (gyre_product)i) continue;
            gyre_role_shape((gyre_role)r, &p->hp, &rows, &cols);
            weights += rows * cols * (all ? p->hp.n_layers : 1);
        }
        json_t *product = json_pack("{s:I}", "weights", (json_int_t)weights);
        good = good && product && add_cost(product, "w4", s, layer, GYRE_COST_W4 + i) &&
               add_cost(product, "a8", s, layer, GYRE_COST_A8 + i) &&
               add_cost(product, "a4", s, layer, GYRE_COST_A4 + i);
        good &= !json_object_set_new(out, gyre_products[i].name, product);
    }
    for (uint32_t i = 0; i < GYRE_COUNT(cache); i++) good = good && add_cost(out, cache[i], s, layer, GYRE_COST_K8 + i);
    if (good) return out;
    json_decref(out);
    return NULL;
}

static char *costs_text(const struct gyre_plan *p, const struct gyre_sensitivity *s)
{
    json_t *blocks = json_array();
    bool good = blocks != NULL;
    for (uint32_t l = 0; l < s->layers; l++) good = good && !json_array_append_new(blocks, block(p, s, l));
    json_t *doc =
        json_pack("{s:I, s:I, s:s, s:o, s:o}", "windows", (json_int_t)s->windows, "tokens", (json_int_t)s->tokens,
                  "recipe", p->set.recipe.name, "blocks", blocks, "total", block(p, s, UINT32_MAX));
    char *text = good && doc ? json_dumps(doc, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(doc);
    return text;
}

gyre_status gyre_sensitivity(const gyre_quantize_params *given, uint32_t windows, char **json, gyre_error *err)
{
    gyre_quantize_params params;
    gyre_source *source = NULL;
    struct gyre_plan plan = {0};
    struct gyre_sensitivity s = {0};
    gyre_status st = GYRE_OK;
    *json = NULL;
    GYRE_TRY(gyre_params_take(given, &params, sizeof params, GYRE_QUANTIZE_PARAMS_FIRST, "gyre_quantize_params", err));
    if (!windows) windows = GYRE_SENSITIVITY_WINDOWS;
    const int threads = gyre_gemm_begin();
    GYRE_GO(gyre_model_open(params.source, &source, err));
    GYRE_GO(gyre_plan_begin(&params, NULL, source, &plan, err));
    struct watch w = {&params, gyre_clock_ns(), 0, gyre_sensitivity_ticks(&plan, windows)};
    gyre_logf(&params.log, GYRE_LOG_INFO,
              "sensitivity: %u windows, %.3g multiplications, about %.0f seconds of one core", windows,
              gyre_sensitivity_work(&plan, windows), predicted(gyre_sensitivity_work(&plan, windows)));
    const struct gyre_ticker ticker = {tick, &w};
    GYRE_GO(gyre_sensitivity_measure(&params, &plan, windows, &ticker, &s, err));
    *json = costs_text(&plan, &s);
    if (!*json) st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for the model's sensitivity");
done:
    gyre_sensitivity_release(&s);
    gyre_plan_release(&plan);
    gyre_source_close(source);
    gyre_gemm_end(threads);
    return st;
}
