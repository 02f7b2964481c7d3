// What an engine takes on its device: a plan made without one is what the engine then takes, and rounding to int8
// halves what floats take, by an error that is told and small.
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include "runtime/engine.h"
#include "runtime/util/base.h"

#include <gyre/gyre_eval.h>
#include <gyre/gyre_schedule.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static const char *device = "cpu";
enum { VOCAB = 304, PROMPT = 100 };

// NULL where there is no such device and none is demanded.
static gyre_engine *open_engine(gyre_engine_params p)
{
    gyre_engine *engine = NULL;
    gyre_error why = {0};
    p.size = sizeof p;
    p.device = device;
    p.cache_dir = "";
    return device_opened(device, gyre_engine_open(path, &p, &engine, &why), &why) ? engine : NULL;
}

static void write_model(gyre_dtype type)
{
    struct tiny_options o = tiny_defaults();
    o.type = type;
    o.width = 256, o.head_dim = 64, o.ffn = 512; // whole super-blocks
    assert_int_equal(tiny_write_gguf(path, &o), 0);
}

// A prompt in steps of the largest size, and one decode step.
static void use(gyre_engine *e, uint32_t rows)
{
    gyre_session *session;
    gyre_error why = {0};
    uint32_t tokens[PROMPT], next;
    tiny_tokens(tokens, PROMPT, 5, VOCAB);
    if (gyre_session_create(e, &session, &why) != GYRE_OK ||
        gyre_session_sync(session, tokens, PROMPT / rows * rows, NULL, &next, &why) != GYRE_OK ||
        gyre_session_decode(session, next, &next, &why) != GYRE_OK)
        fail_msg("%s", why.message);
    gyre_session_destroy(session);
}

static void plans_are_kept(void **state)
{
    (void)state;
    static const struct {
        gyre_dtype type;
        gyre_engine_params p;
    } cases[] = {
        {GYRE_DTYPE_F32, {.max_rows = 32}},
        {GYRE_DTYPE_Q4_0, {.max_rows = 16, .act = 8, .kv = 8, .context = 256}},
        {GYRE_DTYPE_Q4_K, {.max_rows = 32, .sequences = 3, .kv = 4}},
        {GYRE_DTYPE_Q4_0, {.max_rows = 32, .kv = 8, .kv_v = 4, .context = 256}},
        {GYRE_DTYPE_Q4_0, {.max_rows = 32, .kv = 4, .kv_v = 16, .context = 256}},
        {GYRE_DTYPE_Q4_K, {.max_rows = 32, .weights = 8}},
        {GYRE_DTYPE_IQ4_XS, {.max_rows = 64, .weights = 16, .logit_rows = 8}},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_memory plan = {.size = sizeof plan}, now = {.size = sizeof now};
        gyre_error why = {0};
        gyre_engine_params p = cases[i].p;
        write_model(cases[i].type);
        gyre_engine *e = open_engine(p);
        if (!e) return;
        use(e, p.max_rows);
        OK(gyre_engine_memory(e, &now, err));
        gyre_engine_close(e, NULL);
        p.size = sizeof p;
        p.device = "no:7"; // a plan needs none
        if (gyre_plan(path, &p, &plan, &why) != GYRE_OK) fail_msg("%s", why.message);
        assert_int_equal(now.weights + now.kv + now.rest, now.total);
        assert_int_equal(plan.weights, now.weights);
        assert_int_equal(plan.kv, now.kv);
        const double off = fabs((double)plan.total / (double)now.total - 1);
        if (off > 0.01)
            fail_msg("case %zu: %llu bytes planned, %llu taken", i, (unsigned long long)plan.total,
                     (unsigned long long)now.total);
    }
}

// Steps of all sizes work in the same memory: that of the largest, which a scheduler takes at its start.
static void steps_share_what_they_work_in(void **state)
{
    (void)state;
    write_model(GYRE_DTYPE_Q4_0);
    gyre_engine *e = open_engine((gyre_engine_params){.max_rows = 64, .sequences = 4, .logit_rows = 16});
    if (!e) return;
    gyre_memory first = {.size = sizeof first}, last = first;
    gyre_graph *g;
    gyre_scheduler *s;
    OK(gyre_scheduler_create(e, NULL, &s, err));
    OK(gyre_scheduler_warm(s, err));
    OK(gyre_engine_memory(e, &first, err));
    const uint32_t recorded = e->n_steps;
    for (uint32_t rows = 1; rows <= 64; rows *= 2)
        for (uint32_t wanting = 1; wanting <= 16; wanting *= 16)
            for (uint32_t k = 1; k <= GYRE_STEP_BEST; k *= GYRE_STEP_BEST)
                OK(gyre_engine_step_graph(e, rows, GYRE_MIN(rows, wanting), k, &g, err));
    assert_true(e->n_steps > recorded + 10);
    OK(gyre_engine_memory(e, &last, err));
    assert_int_equal(last.total, first.total);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

static void shapes_are_planned(void **state)
{
    (void)state;
    gyre_memory plan = {.size = sizeof plan};
    const gyre_engine_params p = {.size = sizeof p, .context = 1024};
    gyre_error why = {0};
    if (gyre_plan_shape("llama-8b", 0, &p, &plan, &why) != GYRE_OK) fail_msg("%s", why.message);
    // 6.98e9 weights of 4 bits in the blocks, two tables of 9.5 bits (scales and sums), 32 layers of 2 x 8 heads of 128
    // bytes and scales
    assert_true(fabs((double)plan.weights / (6.9793e9 / 2 + 2 * 128256.0 * 4096 * 38 / 32) - 1) < 0.01);
    assert_int_equal(plan.kv, 32ull * 2 * 8 * 1024 * (128 + 4));
    gyre_engine_params apart = p; // keys of 8 bits and values of 4: 6.5 with their scales
    apart.kv = 8, apart.kv_v = 4;
    gyre_memory less = {.size = sizeof less};
    OK(gyre_plan_shape("llama-8b", 0, &apart, &less, err));
    assert_int_equal(less.kv, 32ull * 8 * 1024 * (128 + 4 + 64 + 4));
    assert_int_equal(gyre_plan_shape("llama-9b", 0, &p, &plan, &why), GYRE_E_INVALID);
    plan.size = 0;
    assert_int_equal(gyre_plan_shape("llama-8b", 0, &p, &plan, &why), GYRE_E_INVALID);
    // An older caller's struct ends sooner.
    struct {
        gyre_memory known;
        uint64_t guard;
    } old = {.known.size = offsetof(gyre_memory, rest), .guard = 7};
    old.known.rest = 9;
    OK(gyre_plan_shape("llama-8b", 0, &p, &old.known, err));
    assert_true(old.known.kv == plan.kv && old.known.rest == 9 && old.guard == 7);
}

static void logits(gyre_engine_params p, float *out, gyre_memory *memory)
{
    uint32_t tokens[PROMPT];
    gyre_engine *e = open_engine(p);
    *memory = (gyre_memory){.size = sizeof *memory};
    tiny_tokens(tokens, PROMPT, 6, VOCAB);
    if (!e) return;
    OK(gyre_logits(e, tokens, PROMPT, out, err));
    OK(gyre_engine_memory(e, memory, err));
    gyre_engine_close(e, NULL);
}

static void rounding_is_half_of_it(void **state)
{
    (void)state;
    static const gyre_dtype types[] = {GYRE_DTYPE_F16, GYRE_DTYPE_BF16, GYRE_DTYPE_Q4_K, GYRE_DTYPE_Q2_K};
    for (size_t i = 0; i < GYRE_COUNT(types); i++) {
        float *a = calloc(VOCAB, sizeof *a), *b = calloc(VOCAB, sizeof *b);
        gyre_memory floats, ints;
        double off = 0, all = 0;
        assert_true(a && b);
        write_model(types[i]);
        logits((gyre_engine_params){.weights = 16}, a, &floats);
        logits((gyre_engine_params){.weights = 8}, b, &ints);
        if (!floats.total || !ints.total) return;
        assert_true(floats.rounded == 0 && floats.weight_error == 0);
        assert_int_equal(ints.rounded, 2 * 7 + 2); // two layers, both tables
        assert_true(ints.weight_error > 1e-3 && ints.weight_error < 0.01);
        const double share = (double)ints.weights / (double)floats.weights;
        if (share < 0.5 || share > 0.6) fail_msg("%s: %.3f of the memory", gyre_dtype_info(types[i])->name, share);
        for (int k = 0; k < VOCAB; k++) {
            off += ((double)a[k] - b[k]) * ((double)a[k] - b[k]);
            all += (double)a[k] * a[k];
        }
        if (!(off < 0.05 * 0.05 * all))
            fail_msg("%s: logits off by %.3f", gyre_dtype_info(types[i])->name, sqrt(off / all));
        free(a);
        free(b);
    }
    // What the file holds as integers stays as it is.
    float *out = calloc(VOCAB, sizeof *out);
    gyre_memory memory;
    write_model(GYRE_DTYPE_Q8_0);
    logits((gyre_engine_params){.weights = 8}, out, &memory);
    assert_int_equal(memory.rounded, 0);
    free(out);
    gyre_engine *e = NULL;
    gyre_error why = {0};
    const gyre_engine_params p = {.size = sizeof p, .device = "cpu", .weights = 4};
    assert_int_equal(gyre_engine_open(path, &p, &e, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "not 4"));
}

static double resident(void)
{
    unsigned long all, here;
    FILE *const f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &all, &here), 2);
    fclose(f);
    return (double)here * (double)sysconf(_SC_PAGESIZE);
}

struct stopper {
    int calls, at; // the call that stops; 0: the first; below: none
    double fraction;
};

static int stop_warming(void *user, double fraction)
{
    struct stopper *const s = user;
    assert_true(fraction >= (s->calls ? s->fraction : 0) && fraction <= 1);
    s->fraction = fraction;
    s->calls++;
    return s->at >= 0 && s->calls >= s->at;
}

// A host hands out memory when it is written to. What serves takes its cache's before the first request.
static void a_warm_cache_is_there(void **state)
{
    (void)state;
    gyre_error why = {0};
    write_model(GYRE_DTYPE_Q4_0);
    gyre_engine *e = open_engine((gyre_engine_params){.max_rows = 16, .kv = 16, .sequences = 128});
    if (!e) return;
    if (!gyre_device_info(e->device)->unified) {
        gyre_engine_close(e, NULL);
        return;
    }
    // Asked to stop anywhere it does, at once; asked again, without harm, it goes all the way.
    struct stopper stopper = {0};
    const gyre_scheduler_params p = {.size = sizeof p, .progress = stop_warming, .user = &stopper};
    gyre_scheduler *s;
    OK(gyre_scheduler_create(e, &p, &s, err));
    assert_int_equal(gyre_scheduler_warm(s, &why), GYRE_E_CANCELLED);
    const double before = resident(), cache = (double)e->kv.bytes;
    assert_true(cache > 64e6);
    stopper = (struct stopper){.at = -1};
    OK(gyre_scheduler_warm(s, err));
    const double taken = resident() - before;
    if (taken < 0.95 * cache) fail_msg("%.1f of %.1f MB are there", taken * 1e-6, cache * 1e-6);
    const int parts = stopper.calls;
    assert_true(parts > 4);
    for (stopper.at = 2; stopper.at < parts; stopper.at += 2) {
        stopper.calls = 0;
        assert_int_equal(gyre_scheduler_warm(s, &why), GYRE_E_CANCELLED);
        assert_non_null(strstr(why.message, "warming up"));
        assert_int_equal(stopper.calls, stopper.at);
    }

    // What others left in it stays.
    uint32_t tokens[PROMPT], next, again;
    gyre_session *session;
    float *const a = calloc(2, VOCAB * sizeof *a), *const b = a + VOCAB;
    tiny_tokens(tokens, PROMPT, 5, VOCAB);
    if (gyre_session_create(e, &session, &why) != GYRE_OK) fail_msg("%s", why.message);
    for (int i = 0; i < 2; i++) OK(gyre_session_sync(session, tokens, PROMPT, NULL, &next, err));
    OK(gyre_session_logits(session, a, err));
    stopper = (struct stopper){.at = -1};
    OK(gyre_scheduler_warm(s, err));
    OK(gyre_session_sync(session, tokens, PROMPT, NULL, &again, err)); // only its last token
    OK(gyre_session_logits(session, b, err));
    assert_int_equal(next, again);
    assert_memory_equal(a, b, VOCAB * sizeof *a);
    free(a);
    gyre_session_destroy(session);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_warm_cache_is_there), // first: no memory lies around that others have given back
        cmocka_unit_test(plans_are_kept),        cmocka_unit_test(steps_share_what_they_work_in),
        cmocka_unit_test(shapes_are_planned),    cmocka_unit_test(rounding_is_half_of_it),
    };
    if (argc > 1) device = argv[1];
    snprintf(path, sizeof path, "memory-%.3s.gguf", device); // the devices' tests run side by side
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
