// Steps: rows of tokens through recorded graphs. A graph is recorded per bucket of rows at its first use and replayed;
// everything that changes between replays lies in device buffers.
#include "runtime/engine.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "runtime/util/half.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_LIVE = 1, ROW_WANTS_LOGITS = 2 };

uint32_t gyre_engine_bucket(const gyre_engine *e, uint32_t n)
{
    uint32_t bucket = 1;
    while (bucket < n) bucket *= 2;
    return GYRE_MIN(bucket, e->max_rows);
}

gyre_value gyre_engine_body(gyre_engine *e, gyre_graph *g)
{
    gyre_value x = e->embedded.buffer
                       ? gyre_g_external(g, "embeddings", gyre_graph_rows(g), e->model.hp.width, e->embedded)
                       : gyre_g_embed(g, &e->model.table, e->model.hp.embed_scale);
    for (uint32_t i = 0; i < e->model.hp.n_layers; i++) {
        x = gyre_model_block(g, x, &e->model, i, &e->kv.pool[i], &e->precision);
    }
    return x;
}

// `reserve`: nothing is compiled, what it would work in is taken, and there is no graph.
static gyre_status build(gyre_engine *e, uint32_t rows, uint32_t wanting, uint32_t k, bool reserve, gyre_graph **out,
                         gyre_error *err)
{
    struct gyre_binding at = e->rows, history = e->history, logits_at = e->logits;
    at.size = (uint64_t)rows * 16;
    history.size = (uint64_t)wanting * GYRE_HISTORY * 4;
    logits_at.size = (uint64_t)wanting * e->model.hp.vocab * sizeof(float);
    const struct gyre_batch batch = gyre_kv_batch(&e->kv, at);
    gyre_graph *g = NULL;
    GYRE_TRY(gyre_graph_create(e->device, rows, &batch, &g, err));
    const gyre_value last = gyre_g_rows(g, gyre_engine_body(e, g), 0, wanting);
    const gyre_value logits = gyre_model_head(g, last, &e->model);
    gyre_value vals, ids, best, drawn;
    gyre_g_draw(g, logits, at, e->state, &best, &drawn);
    if (k > 1) gyre_g_topk(g, logits, k, &vals, &ids);
    if (k > 1) gyre_g_sample(g, vals, ids, drawn, k, at, history, e->state);
    else gyre_g_sample(g, best, drawn, GYRE_NONE, 1, at, history, e->state);
    gyre_g_output(g, logits, logits_at);
    if (k > 1) {
        gyre_g_output(g, vals, e->best_vals);
        gyre_g_output(g, ids, e->best_ids);
    }
    if (k >= GYRE_STEP_BEST) gyre_g_output(g, gyre_g_mass(g, logits, vals, e->state), e->mass);
    const struct gyre_graph_options options = {.tuner = e->tunes ? &e->tuner : NULL, .scratch = &e->scratch};
    gyre_status st = reserve ? gyre_graph_plan(g, &options, err) : gyre_graph_compile(g, &options, err);
    if (st == GYRE_OK && reserve) st = gyre_scratch_reserve(&e->scratch, g, err);
    if (st == GYRE_OK && !reserve) *out = g;
    else gyre_graph_destroy(g);
    return st;
}

gyre_status gyre_engine_reserve(gyre_engine *e, gyre_error *err)
{
    const uint32_t k = GYRE_MIN((uint32_t)GYRE_STEP_BEST, e->model.hp.vocab);
    return build(e, e->max_rows, GYRE_MIN(e->max_rows, e->logit_rows), k, true, NULL, err);
}

gyre_status gyre_engine_step_graph(gyre_engine *e, uint32_t rows, uint32_t wanting, uint32_t k, gyre_graph **out,
                                   gyre_error *err)
{
    const uint32_t places = GYRE_MIN(rows, wanting > e->sequences ? e->logit_rows : e->sequences);
    for (uint32_t i = 0; i < e->n_steps; i++) {
        if (e->steps[i].rows == rows && e->steps[i].wanting == places && e->steps[i].k == k) {
            *out = e->steps[i].graph;
            return GYRE_OK;
        }
    }
    e->host_allocations++;
    struct gyre_step_graph *grown = realloc(e->steps, (e->n_steps + 1) * sizeof *grown);
    if (!grown) return gyre_fail(err, GYRE_E_NOMEM, "cannot record a step: out of memory");
    e->steps = grown;
    struct gyre_step_graph *s = &e->steps[e->n_steps];
    *s = (struct gyre_step_graph){rows, places, k, NULL};
    GYRE_TRY(build(e, rows, s->wanting, k, false, &s->graph, err));
    e->n_steps++;
    *out = s->graph;
    return GYRE_OK;
}

// How many candidates a row's sampling needs from the device. One that is sampled from all is drawn without.
static uint32_t candidates(const gyre_sampling *s, uint32_t vocab)
{
    if (!s || s->temperature <= 0.0f) return 1;
    if (!s->top_k && (s->top_p <= 0.0f || s->top_p >= 1.0f)) return 1;
    const uint32_t k = s->top_k ? s->top_k : GYRE_MAX_TOP_K;
    return GYRE_MIN(GYRE_MIN(k, (uint32_t)GYRE_MAX_TOP_K), vocab);
}

// A device in software has no way to it that waiting less often would save.
enum { AHEAD = 8 };
_Static_assert((int)GYRE_MAX_AT_ONCE <= (int)GYRE_HISTORY, "what a submission chooses fits the history");

gyre_status gyre_engine_at_once(gyre_engine *e, const gyre_sampling *sampling, uint32_t wanted, uint32_t *out,
                                gyre_error *err)
{
    const bool hardware = gyre_device_info(e->device)->lanes == GYRE_LANES_HARDWARE;
    uint32_t most = GYRE_MIN(e->most_ahead ? e->most_ahead : hardware ? AHEAD : 1u, wanted);
    *out = 1;
    most = GYRE_MIN(most, e->max_rows);                  // that many positions are entered at once
    if (most <= 1 || e->embedded.buffer) return GYRE_OK; // the host hands a step the rows of its own table
    gyre_graph *step = NULL;
    GYRE_TRY(gyre_engine_step_graph(e, 1, 1, candidates(sampling, e->model.hp.vocab), &step, err));
    *out = GYRE_MIN(most, gyre_graph_at_once(step));
    return GYRE_OK;
}

// Brings the device's sampling state for row `i` up to date; writes only when it changes.
static gyre_status set_state(gyre_engine *e, uint32_t i, const gyre_sampling *s, gyre_error *err)
{
    const float top_p = s && s->top_p > 0.0f ? s->top_p : 1.0f;
    const uint32_t want[4] = {s ? gyre_f32_bits(s->temperature) : 0, gyre_f32_bits(top_p), s ? s->seed : 0,
                              s ? s->top_k : 0};
    if (memcmp(e->state_data + 4 * (size_t)i, want, sizeof want) == 0) return GYRE_OK;
    GYRE_TRY(gyre_buffer_write(e->device, e->state.buffer, (uint64_t)i * 16, want, sizeof want, err));
    memcpy(e->state_data + 4 * (size_t)i, want, sizeof want); // only now it is what the device holds
    return GYRE_OK;
}

// The logits that rows of a chunk want on the host; rows whose places lie side by side in both memories are read at
// once.
static gyre_status read_logits(gyre_engine *e, const struct gyre_step_row *rows, uint32_t n, gyre_error *err)
{
    const uint64_t vocab = e->model.hp.vocab;
    uint64_t first = 0, count = 0, at = 0;
    float *to = NULL;
    for (uint32_t i = 0; i <= n; i++) {
        float *const want = i < n && rows[i].next ? rows[i].logits : NULL;
        if (count && want != to + count * vocab) {
            GYRE_TRY(gyre_buffer_read(e->device, e->logits.buffer, first * vocab * sizeof *to, to,
                                      count * vocab * sizeof *to, err));
            count = 0;
        }
        if (want && count++ == 0) first = at, to = want;
        at += i < n && rows[i].next;
    }
    return GYRE_OK;
}

// The best tokens of rows that want them; the chunk's graph made the k best of `wanting` rows.
static gyre_status read_best(gyre_engine *e, const struct gyre_step_row *rows, uint32_t n, uint32_t k, gyre_error *err)
{
    enum { AT_ONCE = 16 };
    float vals[AT_ONCE * GYRE_MAX_TOP_K], mass[AT_ONCE];
    uint32_t ids[AT_ONCE * GYRE_MAX_TOP_K], at = 0, first = UINT32_MAX, summed = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (!rows[i].next) continue;
        const uint32_t part = at - at % AT_ONCE, here = at++ % AT_ONCE;
        const uint64_t some = GYRE_MIN((uint32_t)AT_ONCE, e->logit_rows - part);
        if (!rows[i].best) continue;
        if (part != first) {
            const uint64_t from = (uint64_t)part * k * 4, bytes = some * k * 4;
            GYRE_TRY(gyre_buffer_read(e->device, e->best_vals.buffer, from, vals, bytes, err));
            GYRE_TRY(gyre_buffer_read(e->device, e->best_ids.buffer, from, ids, bytes, err));
            first = part;
        }
        for (uint32_t j = 0; j < GYRE_STEP_BEST && j < k; j++)
            rows[i].best[j] = (gyre_candidate){ids[here * k + j], vals[here * k + j], 0};
        if (!rows[i].mass) continue;
        if (part != summed) GYRE_TRY(gyre_buffer_read(e->device, e->mass.buffer, part * 4ull, mass, some * 4, err));
        summed = part;
        *rows[i].mass = mass[here];
    }
    return GYRE_OK;
}

// What a step of one row, which ran on by itself, chose: one token a position.
static gyre_status read_history(gyre_engine *e, const struct gyre_step_row *row, gyre_error *err)
{
    uint32_t told[GYRE_HISTORY];
    GYRE_TRY(gyre_buffer_read(e->device, e->history.buffer, 0, told, sizeof told, err));
    for (uint32_t i = 0, ended = 0; i < row->times; i++) { // behind a row that ended stand tokens of other times
        row->next[i] = ended ? UINT32_MAX : told[(row->position + i) % GYRE_HISTORY];
        ended = row->next[i] == UINT32_MAX;
    }
    return GYRE_OK;
}

gyre_status gyre_engine_not_finite(const gyre_engine *e, uint32_t position, gyre_error *err)
{
    const bool halves = e->precision.kv == 16 || e->precision.kv_v == 16;
    return gyre_fail(
        err, GYRE_E_FORMAT,
        "cannot choose a token (%s, position %u): the logits are not finite; the model's weights are damaged "
        "or overflow%s",
        gyre_engine_model(e), position, halves ? ", or its keys and values a 16-bit cache (65504; try --kv 8)" : "");
}

// Row data of a chunk, those that want a sample first, as samples come from the first rows of a graph; their sampling
// state with them. Not yet on the device.
static gyre_status lay_rows(gyre_engine *e, const struct gyre_step_row *rows, uint32_t n, uint32_t bucket,
                            gyre_error *err)
{
    uint32_t at = 0;
    memset(e->row_data, 0, (size_t)bucket * 16);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < n; i++) {
            if ((rows[i].next != NULL) != (pass == 0)) continue;
            const int32_t row[4] = {(int32_t)rows[i].token, (int32_t)rows[i].sequence, (int32_t)rows[i].position,
                                    ROW_LIVE | (pass == 0 ? ROW_WANTS_LOGITS : 0)};
            memcpy(e->row_data + 4 * (size_t)at, row, sizeof row);
            if (pass == 0) GYRE_TRY(set_state(e, at, rows[i].sampling, err));
            at++;
        }
    }
    return GYRE_OK;
}

// Waits for a chunk and hands each row that wants a sample its token.
static gyre_status read_samples(gyre_engine *e, const struct gyre_step_row *rows, uint32_t n, uint32_t wanting,
                                uint32_t times, bool row_alone, uint64_t *wait_ns, gyre_error *err)
{
    const uint64_t before = gyre_clock_ns();
    GYRE_TRY(gyre_wait(e->device, err));
    if (wait_ns) *wait_ns += gyre_clock_ns() - before;
    GYRE_TRY(gyre_buffer_read(e->device, e->rows.buffer, 0, e->row_data, (uint64_t)wanting * 16, err));
    memcpy(e->resident_row, e->row_data, sizeof e->resident_row);
    e->resident = true;
    if (times > 1) GYRE_TRY(read_history(e, rows, err));
    for (uint32_t i = 0, at = 0; i < n; i++) {
        if (!rows[i].next) continue;
        const uint32_t token = times > 1 ? *rows->next : (uint32_t)e->row_data[4 * (size_t)at];
        const bool finite = token != UINT32_MAX; // what `sample` chooses where the best logit is no finite number
        if (!finite) e->resident = false;
        if (!finite && !row_alone) {
            gyre_engine_forget_logits(e, UINT32_MAX);
            return gyre_engine_not_finite(e, rows[i].position, err);
        }
        const struct gyre_logits_of of = {rows[i].sequence + 1, rows[i].position + times - 1};
        if (finite) e->logits_of[at] = of;
        *rows[i].next = token;
        at++;
    }
    return GYRE_OK;
}

// One chunk of `n` rows: one or several replays of one recording.
static gyre_status run_chunk(gyre_engine *e, const struct gyre_step_row *rows, uint32_t n, bool row_alone,
                             uint64_t *wait_ns, gyre_error *err)
{
    uint32_t wanting = 0, k = 1;
    for (uint32_t i = 0; i < n; i++) {
        if (!rows[i].next) continue;
        wanting++;
        k = GYRE_MAX(k, candidates(rows[i].sampling, e->model.hp.vocab));
        if (rows[i].best) k = GYRE_MAX(k, GYRE_MIN((uint32_t)GYRE_STEP_BEST, e->model.hp.vocab));
    }
    const uint32_t bucket = gyre_engine_bucket(e, n);
    gyre_graph *step = NULL;
    GYRE_TRY(gyre_engine_step_graph(e, bucket, wanting, k, &step, err));
    gyre_engine_forget_logits(e, UINT32_MAX);
    GYRE_TRY(lay_rows(e, rows, n, bucket, err));
    const bool same = e->resident && bucket == 1 && memcmp(e->resident_row, e->row_data, sizeof e->resident_row) == 0;
    e->resident = false;
    if (!same || e->embedded.buffer) GYRE_TRY(gyre_engine_write_rows(e, bucket, err));
    const uint32_t times = n == 1 ? GYRE_MAX(rows->times, 1) : 1;
    GYRE_TRY(gyre_graph_submit_times(step, times, err));
    if (!wanting) return GYRE_OK;
    GYRE_TRY(read_samples(e, rows, n, wanting, times, row_alone, wait_ns, err));
    GYRE_TRY(read_best(e, rows, n, k, err));
    return read_logits(e, rows, n, err);
}

// A chunk takes a whole bucket where that wastes no more than a quarter of it, else the next smaller one.
static uint32_t chunk_size(const gyre_engine *e, size_t left)
{
    if (left >= e->max_rows) return e->max_rows;
    const uint32_t n = (uint32_t)left, bucket = gyre_engine_bucket(e, n);
    return bucket - n <= bucket / 4 || bucket <= 4 ? n : bucket / 2;
}

gyre_status gyre_engine_logits(gyre_engine *e, uint32_t sequence, float *logits, gyre_error *err)
{
    const uint64_t bytes = (uint64_t)e->model.hp.vocab * sizeof *logits;
    for (uint32_t row = 0; row < e->logit_rows; row++) {
        if (e->logits_of[row].owner != sequence + 1) continue;
        return gyre_buffer_read(e->device, e->logits.buffer, row * bytes, logits, bytes, err);
    }
    return gyre_fail(
        err, GYRE_E_INVALID,
        "cannot read logits (session %u): the device has none of its last position; read them right after a "
        "step of the session",
        sequence);
}

bool gyre_engine_logits_at(const gyre_engine *e, uint32_t sequence, uint32_t *position)
{
    for (uint32_t row = 0; row < e->logit_rows; row++) {
        *position = e->logits_of[row].position;
        if (e->logits_of[row].owner == sequence + 1) return true;
    }
    return false;
}

void gyre_engine_forget_logits(gyre_engine *e, uint32_t sequence)
{
    for (uint32_t i = 0; i < e->logit_rows; i++)
        if (sequence == UINT32_MAX || e->logits_of[i].owner == sequence + 1) e->logits_of[i].owner = 0;
}

gyre_status gyre_engine_step(gyre_engine *e, const struct gyre_step_row *rows, size_t n,
                             const struct gyre_step_watch *watch, uint64_t *wait_ns, gyre_error *err)
{
    size_t first = n; // rows from here on all want a sample: they stay together, as a replay reads the weights once
    while (first > 0 && rows[first - 1].next) first--;
    for (size_t at = 0, entered = 0; at < n;) {
        if (at) GYRE_TRY(gyre_wait(e->device, err));
        GYRE_TRY(watch->asked(watch->user, err));
        uint32_t chunk = chunk_size(e, n - at), wanting = 0;
        if (at >= first) chunk = (uint32_t)GYRE_MIN(n - at, (size_t)e->max_rows);
        else if (at + chunk > first && at + chunk < n) chunk = (uint32_t)(first - at);
        for (uint32_t i = 0; i < chunk; i++) { // no more samples than a graph of that size has places for
            wanting += rows[at + i].next != NULL;
            if (wanting > GYRE_MIN(gyre_engine_bucket(e, chunk), e->logit_rows)) chunk = i;
        }
        if (at + chunk > entered) { // as much as may be at once, so that what fails in few rows takes nothing away
            entered = GYRE_MIN(n, at + e->max_rows);
            for (size_t i = at; i < entered; i++)
                gyre_kv_want(&e->kv, rows[i].sequence, rows[i].position, GYRE_MAX(rows[i].times, 1));
            GYRE_TRY(gyre_kv_enter(&e->kv, err));
        }
        GYRE_TRY(run_chunk(e, rows + at, chunk, watch->row_alone, wait_ns, err));
        at += chunk;
    }
    return GYRE_OK;
}

// One replay of a bucket on rows of which none is live.
static gyre_status warm(gyre_engine *e, uint32_t bucket, uint32_t k, gyre_error *err)
{
    gyre_graph *step = NULL;
    GYRE_TRY(gyre_engine_step_graph(e, bucket, 1, k, &step, err));
    e->resident = false;
    gyre_engine_forget_logits(e, UINT32_MAX);
    memset(e->row_data, 0, (size_t)bucket * 16);
    GYRE_TRY(gyre_engine_write_rows(e, bucket, err));
    GYRE_TRY(gyre_graph_submit(step, err));
    return gyre_wait(e->device, err);
}

gyre_status gyre_engine_warm(gyre_engine *e, size_t n, const gyre_sampling *sampling, gyre_error *err)
{
    const uint32_t k = candidates(sampling, e->model.hp.vocab);
    for (size_t at = 0, last = 0; at < n;) {
        const uint32_t chunk = chunk_size(e, n - at), bucket = gyre_engine_bucket(e, chunk);
        at += chunk;
        const bool samples = at == n; // only the last row of a prompt wants one, so the chunks before take the best
        if (bucket != last || samples) GYRE_TRY(warm(e, bucket, samples ? k : 1, err));
        last = bucket;
    }
    return warm(e, 1, k, err);
}

gyre_status gyre_engine_dot(gyre_engine *e, char **out, gyre_error *err)
{
    gyre_graph *step = NULL;
    GYRE_TRY(gyre_engine_step_graph(e, 1, 1, 1, &step, err));
    return gyre_graph_dot(step, out, err);
}
