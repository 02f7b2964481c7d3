// Chooses kernels by measuring: every product of a graph that is about to be lowered is run by each variant that
// tune_product.c offers, over the weights of all layers that have its shape (so that caches are as cold as in a step),
// in turn. A variant must give the bits of the rule's launch, on random operands, before its time counts: their self-
// test.
//
// A variant may take the device with it. So the cache says the rule's launch from before the first variant runs, and
// what was measured to the end takes its place: a start that dies is followed by one that keeps the rule's.
//
// The graph's own buffers are used, which hold nothing yet. Products that read or write a buffer of the caller are left
// to the rule: it may hold something.
#include "backends/faults.h"
#include "runtime/graph/choice.h"
#include "runtime/util/base.h"
#include "runtime/util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 3, MOST = GYRE_MOST_VARIANTS + 1 };
#define RUN_NS 50000000ull // one run of one variant is that long at most, where a layer is shorter

struct arm {
    struct gyre_launch launch;
    gyre_kernel *kernel;       // kept for its recordings
    gyre_recording *one, *all; // the first product, and all that are timed
    uint64_t ns;               // best; UINT64_MAX: not yet timed
};

struct measurement {
    gyre_graph *g;
    struct gyre_tuner *t;
    char key[GYRE_CHOICE_KEY];
    uint32_t *nodes, n_nodes; // products of that key
    struct arm arm[MOST];     // [0]: the rule's
    uint32_t n_arms;
    uint64_t deadline; // UINT64_MAX: none
    bool lost;         // the device
};

static uint64_t now(const struct measurement *m) { return m->t->clock ? m->t->clock() : gyre_clock_ns(); }
static bool over(const struct measurement *m) { return now(m) >= m->deadline; }

// A value that lies in the graph's own memory.
static bool own(const gyre_graph *g, gyre_value v)
{
    while (g->values[v].root) v = g->values[v].root;
    return !g->values[v].external;
}

static bool measurable(const gyre_graph *g, const struct gyre_node *node)
{
    return own(g, node->in[0]) && own(g, node->out[0]) &&
           (!node->in[2] || own(g, node->in[2]) || g->values[node->in[2]].kind == GYRE_VALUE_DATA);
}

// ---- recordings -----------------------------------------------------------------------------------------

static void drop_dispatches(gyre_graph *g)
{
    for (uint32_t i = 0; i < g->n_dispatches; i++) gyre_kernel_destroy(g->device, g->dispatches[i].kernel);
    g->n_dispatches = 0;
}

static gyre_status record(struct measurement *m, const struct gyre_launch *launch, uint32_t n, gyre_recording **out,
                          gyre_error *err)
{
    gyre_status st = GYRE_OK;
    for (uint32_t i = 0; i < n; i++) GYRE_GO(gyre_graph_lower_product(m->g, m->nodes[i], launch, err));
    st = gyre_recording_create(m->g->device, m->g->dispatches, m->g->n_dispatches, out, err);
done:
    drop_dispatches(m->g);
    return st;
}

static void drop(struct measurement *m, struct arm *arm)
{
    gyre_recording_destroy(m->g->device, arm->one);
    gyre_recording_destroy(m->g->device, arm->all);
    gyre_kernel_destroy(m->g->device, arm->kernel);
    arm->one = arm->all = NULL;
    arm->kernel = NULL;
}

static gyre_status run(struct measurement *m, gyre_recording *recording, gyre_error *err)
{
    GYRE_TRY(gyre_submit(m->g->device, recording, err));
    return gyre_wait(m->g->device, err);
}

static gyre_status time_once(struct measurement *m, gyre_recording *recording, uint64_t *ns, gyre_error *err)
{
    const uint64_t begin = now(m);
    GYRE_TRY(run(m, recording, err));
    *ns = now(m) - begin;
    return GYRE_OK;
}

// After a failure: a device that does not run the rule's launch either is lost.
static bool lost(struct measurement *m)
{
    m->lost = m->lost || (m->arm[0].one && run(m, m->arm[0].one, NULL) != GYRE_OK);
    return m->lost;
}

// ---- operands and results -------------------------------------------------------------------------------

static uint32_t noise(uint32_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5;
    return *state;
}

// Codes of all values and a scale a row; or floats from -2 to 2.
static gyre_status fill(struct measurement *m, gyre_value v, gyre_error *err)
{
    const struct gyre_value_info *info = &m->g->values[v];
    uint32_t state = 2463534242u;
    gyre_status st = GYRE_OK;
    for (uint32_t p = 0; p < info->n_planes && st == GYRE_OK; p++) {
        const struct gyre_binding at = gyre_graph_at(m->g, v, p);
        uint32_t *const words = malloc(at.size);
        if (!words) return gyre_fail(err, GYRE_E_NOMEM, "cannot measure: out of host memory");
        for (uint64_t i = 0; i < at.size / 4; i++) {
            const uint32_t r = noise(&state);
            const float f = (float)(int32_t)r * 0x1p-30f, scale = 0.01f;
            if (info->kind == GYRE_VALUE_QUANT && p == 0) words[i] = info->bits == 4 ? r & 0x0F0F0F0Fu : r;
            else if (info->kind == GYRE_VALUE_QUANT && i % 2) words[i] = info->bits == 4 ? r & 15 : 0;
            else memcpy(&words[i], info->kind == GYRE_VALUE_QUANT ? &scale : &f, 4);
        }
        st = gyre_buffer_write(m->g->device, at.buffer, at.offset, words, at.size, err);
        free(words);
    }
    return st;
}

// What a launch makes of the first product's operands; `out` holds the output's bytes.
static gyre_status result(struct measurement *m, gyre_recording *recording, void *out, gyre_error *err)
{
    const struct gyre_binding y = gyre_graph_at(m->g, m->g->nodes[m->nodes[0]].out[0], 0);
    memset(out, 0xA5, y.size);
    GYRE_TRY(gyre_buffer_write(m->g->device, y.buffer, y.offset, out, y.size, err));
    GYRE_TRY(run(m, recording, err));
    return gyre_buffer_read(m->g->device, y.buffer, y.offset, out, y.size, err);
}

// ---- one product ----------------------------------------------------------------------------------------

// After `failure`; GYRE_OK: it ran, and wrongly.
static void refuse(struct measurement *m, struct arm *arm, gyre_status failure, const char *why)
{
    const struct gyre_device_info *const info = gyre_device_info(m->g->device);
    char text[256], line[1024];
    m->t->refused++;
    if (gyre_launch_text(&arm->launch, text)) {
        snprintf(line, sizeof line, "%s is not used: %s", text, why);
        gyre_logf(m->t->log, GYRE_LOG_WARN, "tune: %s", line);
        if (gyre_faults_own(failure)) gyre_faults_note(m->t->cache_dir, info->name, info->driver, line, m->t->log);
    }
    drop(m, arm);
}

static gyre_status prepare(struct measurement *m, struct arm *arm, gyre_error *err)
{
    if (!arm->kernel) GYRE_TRY(gyre_kernel_create(m->g->device, &arm->launch.kernel, &arm->kernel, err));
    return record(m, &arm->launch, 1, &arm->one, err);
}

// Keeps in front the arms that compile and give the bits of the first.
static gyre_status self_test(struct measurement *m, gyre_error *err)
{
    const struct gyre_node *node = &m->g->nodes[m->nodes[0]];
    const uint64_t bytes = gyre_graph_at(m->g, node->out[0], 0).size;
    char *const want = malloc(bytes), *const got = malloc(bytes);
    gyre_status st = GYRE_OK;
    uint32_t n = 1;
    if (!want || !got) st = gyre_fail(err, GYRE_E_NOMEM, "cannot measure: out of host memory");
    if (st == GYRE_OK) st = fill(m, node->in[0], err);
    if (st == GYRE_OK && node->in[2] && own(m->g, node->in[2])) st = fill(m, node->in[2], err);
    if (st == GYRE_OK && !over(m)) st = prepare(m, &m->arm[0], err);
    if (st == GYRE_OK && !over(m)) st = result(m, m->arm[0].one, want, err);
    for (uint32_t i = 1; i < m->n_arms && st == GYRE_OK && !over(m); i++) {
        struct arm arm = m->arm[i];
        gyre_error why = {0};
        gyre_status ran = prepare(m, &arm, &why);
        if (ran == GYRE_OK) ran = result(m, arm.one, got, &why);
        if (ran != GYRE_OK && lost(m)) {
            st = gyre_fail(err, ran, "%s", why.message);
            refuse(m, &arm, ran, why.message);
        } else if (ran != GYRE_OK) refuse(m, &arm, ran, why.message);
        else if (memcmp(want, got, bytes)) refuse(m, &arm, ran, "its results are not those of the base kernel");
        else m->arm[n++] = arm;
    }
    m->n_arms = n;
    free(want);
    free(got);
    return st;
}

// Times the arms in turn; the index of the best, the rule's unless another is 3 % faster. *ended: all rounds were run.
static gyre_status race(struct measurement *m, uint32_t *best, bool *ended, gyre_error *err)
{
    uint64_t one = 0;
    if (over(m)) return GYRE_OK;
    GYRE_TRY(time_once(m, m->arm[0].one, &one, err));
    const uint32_t n = (uint32_t)GYRE_MIN((uint64_t)m->n_nodes, GYRE_MAX(RUN_NS / GYRE_MAX(one, 1u), 1u));
    for (uint32_t i = 0; i < m->n_arms; i++) {
        if (over(m)) return GYRE_OK;
        GYRE_TRY(record(m, &m->arm[i].launch, n, &m->arm[i].all, err));
    }
    uint32_t runs = 0;
    for (; runs < ROUNDS * m->n_arms && !over(m); runs++) {
        struct arm *const arm = &m->arm[runs % m->n_arms];
        uint64_t ns = 0;
        GYRE_TRY(time_once(m, arm->all, &ns, err));
        arm->ns = GYRE_MIN(arm->ns, ns);
    }
    *ended = runs == ROUNDS * m->n_arms;
    for (uint32_t i = 0; i < m->n_arms; i++)
        if (m->arm[i].ns < m->arm[*best].ns && m->arm[i].ns / 97 < m->arm[0].ns / 100) *best = i;
    return GYRE_OK;
}

// On disk stays what was measured to the end, or, where the device was lost, the rule's launch.
static gyre_status choose(struct measurement *m, gyre_error *err)
{
    const struct gyre_device_info *const info = gyre_device_info(m->g->device);
    char text[256];
    uint32_t best = 0;
    bool ended = false;
    gyre_choice_store(m->t, info, m->key, &m->arm[0].launch);
    gyre_status st = self_test(m, err);
    if (st == GYRE_OK) st = race(m, &best, &ended, err);
    if (st == GYRE_OK && m->arm[0].ns != UINT64_MAX) {
        m->t->measured++;
        st = gyre_choice_keep(m->t, m->key, &m->arm[best].launch, err);
        if (gyre_launch_text(&m->arm[best].launch, text))
            gyre_logf(m->t->log, GYRE_LOG_DEBUG, "tune: %s: %s, %.1f us; by the rule %.1f us, %u variants", m->key,
                      text, (double)m->arm[best].ns * 1e-3, (double)m->arm[0].ns * 1e-3, m->n_arms);
    }
    if (ended) gyre_choice_store(m->t, info, m->key, &m->arm[best].launch);
    else if (st == GYRE_OK || !lost(m)) gyre_choice_forget(m->t, info, m->key);
    for (uint32_t i = 0; i < m->n_arms; i++) drop(m, &m->arm[i]);
    return st;
}

// ---- all of a graph -------------------------------------------------------------------------------------

// The products that have the first one's key, from node `from` on.
static void gather(struct measurement *m, uint32_t from)
{
    char key[GYRE_CHOICE_KEY];
    m->n_nodes = 0;
    for (uint32_t i = from; i < m->g->n_nodes; i++)
        if (gyre_choice_key(m->g, &m->g->nodes[i], key) && !strcmp(key, m->key) && measurable(m->g, &m->g->nodes[i]))
            m->nodes[m->n_nodes++] = i;
}

static gyre_status choose_for(struct measurement *m, uint32_t node, gyre_error *err)
{
    gyre_graph *const g = m->g;
    struct gyre_launch variants[GYRE_MOST_VARIANTS];
    if (!gyre_choice_key(g, &g->nodes[node], m->key) || !measurable(g, &g->nodes[node]) ||
        gyre_choice_find(m->t, m->key))
        return GYRE_OK;
    const uint32_t n = gyre_tune_variants(g, &g->nodes[node], variants);
    if (n == 0 || (n == 1 && !m->t->spoil)) return GYRE_OK;
    const int known = m->t->force ? -1 : gyre_choice_load(m->t, gyre_device_info(g->device), m->key, variants, n);
    if (known >= 0) {
        m->t->cached++;
        return gyre_choice_keep(m->t, m->key, &variants[known], err);
    }
    const uint64_t begin = now(m);
    if (!m->t->force && !m->t->left_ns) return GYRE_OK;
    m->deadline = m->t->force ? UINT64_MAX : begin + m->t->left_ns;
    m->n_arms = n;
    for (uint32_t i = 0; i < n; i++) m->arm[i] = (struct arm){.launch = variants[i], .ns = UINT64_MAX};
    if (m->t->spoil) {
        m->arm[n] = m->arm[0];
        if (m->t->spoil(&m->arm[n].launch)) m->n_arms++;
    }
    gather(m, node);
    struct arm *const rule = &m->arm[0];
    gyre_status st = gyre_kernel_create(g->device, &rule->launch.kernel, &rule->kernel, err);
    const bool lacks = st != GYRE_OK && gyre_device_forgo(g->device, rule->launch.kernel.name, st, err);
    if (st == GYRE_OK) st = choose(m, err);
    const uint64_t took = now(m) - begin;
    m->t->left_ns = took < m->t->left_ns ? m->t->left_ns - took : 0;
    return lacks ? choose_for(m, node, err) : st; // among what the device does have
}

gyre_status gyre_graph_measure(gyre_graph *g, gyre_error *err)
{
    if (!g->tuner) return GYRE_OK;
    struct measurement m = {.g = g, .t = g->tuner, .nodes = malloc(g->n_nodes * sizeof *m.nodes)};
    gyre_error why = {0};
    gyre_status st = m.nodes ? GYRE_OK : gyre_fail(&why, GYRE_E_NOMEM, "cannot measure: out of host memory");
    for (uint32_t i = 0; i < g->n_nodes && st == GYRE_OK; i++) st = choose_for(&m, i, &why);
    free(m.nodes);
    if (m.lost) return gyre_fail(err, st, "%s", why.message);
    if (st != GYRE_OK) {
        gyre_logf(m.t->log, GYRE_LOG_WARN, "tune: no more is measured, the rest runs by the rule: %s", why.message);
        m.t->left_ns = 0;
        m.t->force = false;
    }
    return GYRE_OK;
}
