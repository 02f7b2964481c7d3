// See budget.h.
#include "quantizer/pass/budget.h"
#include "runtime/util/base.h"
#include "runtime/util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gyre_budget_choose(const double *nats, const double *bits, uint32_t n, double left, bool *chosen)
{
    memset(chosen, 0, n * sizeof *chosen);
    for (;;) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            if (chosen[i] || !(nats[i] > 0) || bits[i] > left) continue;
            if (best == n || nats[i] * bits[best] > nats[best] * bits[i]) best = i;
        }
        if (best == n) return;
        chosen[best] = true;
        left -= bits[best];
    }
}

// Parts are products: number layer * GYRE_PRODUCTS + product.
struct spending {
    struct gyre_plan *plan;
    uint32_t n;
    double *nats, *bits; // [n]: what raising saves, and takes; nats 0: nothing to raise
    bool *wide, *read8;  // [n]: weights, inputs get 8 bits
};

static uint64_t weights_of(const struct gyre_hparams *hp, gyre_product product)
{
    uint64_t n = 0, rows, cols;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, hp, &rows, &cols);
        n += rows * cols;
    }
    return n;
}

// Fills nats and bits for one of the two.
static void price(struct spending *s, const struct gyre_sensitivity *costs, bool inputs)
{
    const struct gyre_settings *set = &s->plan->set;
    char name[GYRE_ROLE_NAME];
    for (uint32_t i = 0; i < s->n; i++) {
        const uint32_t layer = i / GYRE_PRODUCTS, product = i % GYRE_PRODUCTS;
        uint32_t bits, group;
        gyre_role_name(gyre_product_first((gyre_product)product), layer, "weight", name);
        gyre_settings_width(set, name, &bits, &group);
        if (inputs) bits = gyre_settings_act(set, name);
        s->bits[i] = 4 * (double)weights_of(&s->plan->hp, (gyre_product)product);
        s->nats[i] = bits != 4 ? 0
                     : inputs  ? gyre_sensitivity_cost(costs, layer, GYRE_COST_A4 + product).nats -
                                    gyre_sensitivity_cost(costs, layer, GYRE_COST_A8 + product).nats
                              : gyre_sensitivity_cost(costs, layer, GYRE_COST_W4 + product).nats;
    }
}

// ---- exceptions -----------------------------------------------------------------------------------------------

struct widths {
    uint32_t wbits, act;
};

static struct widths widths_of(const struct spending *s, gyre_role role, uint32_t layer)
{
    const uint32_t i = layer * GYRE_PRODUCTS + gyre_roles[role].product;
    uint32_t bits, group;
    char name[GYRE_ROLE_NAME];
    gyre_role_name(role, layer, "weight", name);
    gyre_settings_width(&s->plan->set, name, &bits, &group);
    const uint32_t act = gyre_settings_act(&s->plan->set, name);
    return (struct widths){s->wide[i] ? 8 : bits, s->read8[i] ? 8 : act};
}

static bool same(struct widths a, struct widths b) { return a.wbits == b.wbits && a.act == b.act; }

// What most blocks have of a role.
static struct widths usual(const struct spending *s, gyre_role role)
{
    struct widths best = {0, 0};
    uint32_t most = 0;
    for (uint32_t l = 0; l < s->plan->hp.n_layers; l++) {
        const struct widths w = widths_of(s, role, l);
        uint32_t count = 0;
        for (uint32_t k = 0; k < s->plan->hp.n_layers; k++) count += same(w, widths_of(s, role, k));
        if (count <= most) continue;
        best = w;
        most = count;
    }
    return best;
}

static gyre_status except(const struct gyre_settings *set, const char *name, struct widths w,
                          struct gyre_exception *list, uint32_t *n, gyre_error *err)
{
    if (set->recipe.n_exceptions + *n == GYRE_MAX_EXCEPTIONS)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot spend the recipe's budget: its choice takes more than %d exceptions; give it bits for "
                         "fewer products, or for nearly all",
                         GYRE_MAX_EXCEPTIONS);
    struct gyre_exception *e = &list[(*n)++];
    *e = (struct gyre_exception){.wbits = w.wbits, .wgroup = -1, .act = set->act < 16 ? w.act : 0};
    snprintf(e->tensors, sizeof e->tensors, "%s", name);
    return GYRE_OK;
}

// A line for what most blocks have, and one for each other block.
static gyre_status write_exceptions(const struct spending *s, gyre_error *err)
{
    const struct gyre_settings *set = &s->plan->set;
    struct gyre_exception *list = calloc(GYRE_MAX_EXCEPTIONS, sizeof *list);
    uint32_t n = 0;
    gyre_status st = GYRE_OK;
    if (!list) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the budget");
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const struct widths most = usual(s, (gyre_role)r);
        char name[GYRE_ROLE_NAME], all[GYRE_ROLE_NAME];
        gyre_role_name((gyre_role)r, 0, "weight", name);
        snprintf(all, sizeof all, "blk.*%s", strchr(name + 4, '.'));
        const bool plain = same(most, (struct widths){set->wbits, set->act});
        if (!plain) GYRE_GO(except(set, all, most, list, &n, err));
        for (uint32_t l = 0; l < s->plan->hp.n_layers; l++) {
            const struct widths w = widths_of(s, (gyre_role)r, l);
            const uint32_t i = l * GYRE_PRODUCTS + gyre_roles[r].product;
            if (plain ? !s->wide[i] && !s->read8[i] : same(w, most)) continue; // as the recipe says already
            gyre_role_name((gyre_role)r, l, "weight", name);
            GYRE_GO(except(set, name, w, list, &n, err));
        }
    }
    st = gyre_plan_except(s->plan, list, n, err);
done:
    free(list);
    return st;
}

// ---- entry ------------------------------------------------------------------------------------------------------

static void spend(struct spending *s, const struct gyre_sensitivity *costs, bool inputs, double budget, double now,
                  const gyre_log *log)
{
    uint64_t weights = 0, raised = 0, parts = 0;
    double saved = 0, all = 0;
    bool *const chosen = inputs ? s->read8 : s->wide;
    for (uint32_t i = 0; i < s->n; i++) weights += weights_of(&s->plan->hp, (gyre_product)(i % GYRE_PRODUCTS));
    price(s, costs, inputs);
    gyre_budget_choose(s->nats, s->bits, s->n, (budget - now) * (double)weights, chosen);
    for (uint32_t i = 0; i < s->n; i++) {
        all += s->nats[i];
        if (!chosen[i]) continue;
        saved += s->nats[i];
        raised += weights_of(&s->plan->hp, (gyre_product)(i % GYRE_PRODUCTS));
        parts++;
    }
    gyre_logf(log, GYRE_LOG_INFO,
              "budget: %s of %llu products get 8 bits, %.3f in the mean; estimated to spare %.4f of %.4f nats",
              inputs ? "inputs" : "weights", (unsigned long long)parts, now + 4 * (double)raised / (double)weights,
              saved, all);
}

gyre_status gyre_budget_spend(const gyre_quantize_params *params, struct gyre_plan *plan,
                              const struct gyre_ticker *ticker, gyre_error *err)
{
    const double bits = plan->set.recipe.budget.bits, act = plan->set.recipe.budget.act;
    struct spending s = {.plan = plan, .n = plan->hp.n_layers * GYRE_PRODUCTS};
    struct gyre_sensitivity costs = {0};
    gyre_status st = GYRE_OK;
    if (bits == 0 && act == 0) return GYRE_OK;
    s.nats = calloc(s.n, sizeof *s.nats);
    s.bits = calloc(s.n, sizeof *s.bits);
    s.wide = calloc(s.n, sizeof *s.wide);
    s.read8 = calloc(s.n, sizeof *s.read8);
    if (!s.nats || !s.bits || !s.wide || !s.read8)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the budget"));
    GYRE_GO(gyre_sensitivity_measure(params, plan, GYRE_SENSITIVITY_WINDOWS, ticker, &costs, err));
    if (bits > 0) spend(&s, &costs, false, bits, gyre_settings_mean_bits(&plan->set, &plan->hp), &params->log);
    if (act > 0) spend(&s, &costs, true, act, gyre_settings_mean_act(&plan->set, &plan->hp), &params->log);
    GYRE_GO(write_exceptions(&s, err));
done:
    gyre_sensitivity_release(&costs);
    free(s.nats);
    free(s.bits);
    free(s.wide);
    free(s.read8);
    return st;
}
