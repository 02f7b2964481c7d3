// Kernels chosen by measuring: what may win, and what a file on disk may do.
#include "tests/graph/lab.h"
#include "backends/faults.h"
#include "backends/kernel_source.h"
#include "runtime/graph/choice.h"
#include "runtime/util/base.h"
#include "tests/common/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum { LAYERS = 3, K = 160, N = 288 };

// Products of one shape behind one another, on codes: x -> [K] -> [N] -> codes -> ...
static gyre_graph *products(struct lab *lab, uint32_t rows, struct gyre_binding *y)
{
    struct gyre_batch batch = {.page_stride = 1};
    gyre_graph *g = NULL;
    gyre_error err = {0};
    batch.rows = lab_bytes(lab, NULL, 16ull * rows);
    batch.pages = lab_bytes(lab, NULL, 256);
    struct gyre_binding none = {0};
    if (gyre_graph_create(lab->device, rows, &batch, &g, &err)) fail_msg("%s", err.message);
    gyre_value x = gyre_g_external(g, "x", rows, K, lab_floats(lab, (uint64_t)rows * K, 0, 1));
    x = gyre_g_add(g, x, x); // a value of the graph's own
    for (int i = 0; i < LAYERS; i++) {
        struct gyre_weight *up = calloc(1, sizeof *up), *down = calloc(1, sizeof *down);
        assert_true(up && down);
        *up = lab_weight(lab, GYRE_WEIGHT_W4, N, K, K, 1);
        *down = lab_weight(lab, GYRE_WEIGHT_W4, K, N, N, 1);
        x = gyre_g_matmul(g, gyre_g_quantize(g, x, 8, 1), up);
        x = gyre_g_matmul(g, gyre_g_quantize(g, x, 8, 1), down);
    }
    *y = lab_bytes(lab, NULL, 4ull * rows * K);
    gyre_g_output(g, gyre_g_hadamard(g, gyre_g_add(g, x, x), NULL, 1, false, none), *y);
    return g;
}

static bool half_the_grid(struct gyre_launch *launch)
{
    launch->tile[0] *= 4; // so few workgroups that columns are left out, and fast
    return true;
}

static bool no_such_kernel(struct gyre_launch *launch)
{
    launch->kernel.name = "matmul_of_dreams";
    return true;
}

struct outcome {
    uint32_t measured, cached, refused;
    float y[8 * K];
};

// One graph of `rows` rows, compiled with a tuner and run.
static struct outcome run(const char *device, uint32_t rows, const char *cache_dir, bool force,
                          bool (*spoil)(struct gyre_launch *), bool tuned)
{
    struct lab lab;
    struct outcome out = {0};
    struct gyre_binding y;
    gyre_error err = {0};
    if (!lab_open(&lab, device, NULL)) skip();
    struct gyre_tuner tuner = {
        .cache_dir = cache_dir, .force = force, .left_ns = force ? 0 : UINT64_MAX / 4, .spoil = spoil};
    gyre_graph *g = products(&lab, rows, &y);
    if (gyre_graph_compile(g, &(struct gyre_graph_options){.tuner = tuned ? &tuner : NULL}, &err))
        fail_msg("%s", err.message);
    assert_int_equal(gyre_graph_submit(g, &err), GYRE_OK);
    lab_read(&lab, y, out.y);
    out.measured = tuner.measured, out.cached = tuner.cached, out.refused = tuner.refused;
    gyre_graph_destroy(g);
    gyre_tuner_free(&tuner);
    lab_close(&lab);
    return out;
}

// Whatever is chosen gives the bits of the rule; what is wrong, or does not build, is refused and named.
static void a_wrong_variant_never_wins(void **state)
{
    for (uint32_t rows = 1; rows <= 8; rows += 7) {
        const struct outcome rule = run(*state, rows, NULL, true, NULL, false);
        const struct outcome wrong = run(*state, rows, NULL, true, half_the_grid, true);
        const struct outcome missing = run(*state, rows, NULL, true, no_such_kernel, true);
        assert_int_equal(wrong.measured, 2);
        assert_int_equal(wrong.refused, 2); // in both shapes
        assert_int_equal(missing.measured, 2);
        assert_int_equal(missing.refused, 2);
        assert_memory_equal(rule.y, wrong.y, sizeof rule.y);
        assert_memory_equal(rule.y, missing.y, sizeof rule.y);
    }
}

// Without time nothing is measured, and nothing is lost.
static void without_time_the_rule_decides(void **state)
{
    struct lab lab;
    struct gyre_binding y;
    if (!lab_open(&lab, *state, NULL)) skip();
    struct gyre_tuner tuner = {0};
    gyre_graph *g = products(&lab, 2, &y);
    assert_int_equal(gyre_graph_compile(g, &(struct gyre_graph_options){.tuner = &tuner}, NULL), GYRE_OK);
    assert_int_equal(tuner.measured, 0);
    assert_int_equal(tuner.n, 0);
    gyre_graph_destroy(g);
    lab_close(&lab);
}

// A second start measures nothing; damaged and foreign files are measured again; a folder that cannot be written costs
// nothing but that.
static void the_cache_costs_time_never_a_result(void **state)
{
    const char *const dir = files_path("tune");
    char command[200];
    const struct outcome first = run(*state, 2, dir, false, NULL, true),
                         second = run(*state, 2, dir, false, NULL, true);
    assert_int_equal(first.measured, 2);
    assert_int_equal(second.measured, 0);
    assert_int_equal(second.cached, 2);
    assert_memory_equal(first.y, second.y, sizeof first.y);
    const struct outcome forced = run(*state, 2, dir, true, NULL, true);
    assert_int_equal(forced.measured, 2);
    static const char *const damage[] = {
        "for f in %s/tune-*; do printf X | dd of=$f bs=1 seek=150 conv=notrunc status=none; done",
        "for f in %s/tune-*; do : >$f; done",
        "set -- %s/tune-*; a=$1; b=$2; cp $a $a.x; cp $b $a; mv $a.x $b", // another's
    };
    for (size_t i = 0; i < GYRE_COUNT(damage); i++) {
        snprintf(command, sizeof command, damage[i], dir);
        assert_int_equal(system(command), 0);
        const struct outcome again = run(*state, 2, dir, false, NULL, true);
        assert_int_equal(again.measured, 2);
        assert_int_equal(again.cached, 0);
        assert_memory_equal(first.y, again.y, sizeof first.y);
    }
    const struct outcome nowhere = run(*state, 2, "/proc/no/such", false, NULL, true);
    assert_int_equal(nowhere.measured, 2);
    assert_memory_equal(first.y, nowhere.y, sizeof first.y);
    files_remove();
}

// ---- devices that fail ----------------------------------------------------------------------------------

// The null device with a fault, on a clock of its own. Measuring makes recordings of one product for the self-test, of
// LAYERS for its time.
static struct fault {
    bool variants_kill;          // after the rule's launch has run once, every submission fails
    gyre_status record;          // that recordings of measuring end with
    gyre_status variant;         // that the first variant's recording ends with
    int64_t slow_record;         // ns that the first recording of LAYERS takes
    int64_t slow_round;          // ns that the second run of the first recording of LAYERS takes
    int64_t record_ns, run_ns;   // what every recording of measuring takes, and every submission
    const int64_t *arm_ns;       // where not NULL: what a recording of LAYERS takes to run, by the order of recording
    uint32_t submits, records;   // submissions; recordings of LAYERS
    uint32_t ones;               // recordings of one product
    const gyre_recording *first; // of LAYERS
    const gyre_recording *arm[GYRE_MOST_VARIANTS];
    uint32_t first_runs, arm_runs[GYRE_MOST_VARIANTS];
    int64_t now; // ns
} fault;

static void take(int64_t ns) { fault.now += ns; }
static uint64_t fault_clock(void) { return (uint64_t)fault.now; }

static gyre_status faulty_record(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                                 gyre_recording **out, gyre_error *err)
{
    if (n <= LAYERS && fault.record) return gyre_fail(err, fault.record, "cannot record: a test wants it so");
    if (n == 1 && fault.ones++ == 1 && fault.variant) return gyre_fail(err, fault.variant, "cannot record: a test");
    const uint32_t at = n == LAYERS ? fault.records++ : UINT32_MAX;
    take((at == 0 ? fault.slow_record : 0) + (n <= LAYERS ? fault.record_ns : 0));
    const gyre_status st = gyre_backend_null.record(device, dispatches, n, out, err);
    if (st == GYRE_OK && at < GYRE_MOST_VARIANTS) fault.arm[at] = *out;
    return st;
}

static gyre_status faulty_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                                 gyre_error *err)
{
    if (fault.submits++ > 0 && fault.variants_kill)
        return gyre_fail(err, GYRE_E_DEVICE, "cannot submit: a test lost the device");
    if (recording->n_dispatches == LAYERS && !fault.first) fault.first = recording;
    if (recording == fault.first && ++fault.first_runs == 2) take(fault.slow_round);
    take(fault.run_ns);
    for (uint32_t i = 0; fault.arm_ns && i < GYRE_MOST_VARIANTS; i++) // the third run shows what an arm can do
        if (recording == fault.arm[i]) take(fault.arm_ns[i] * (++fault.arm_runs[i] % 3 ? 3 : 2) / 2);
    return gyre_backend_null.submit(device, recording, times, ns, err);
}

// A start on the null device with that fault and so much time; what compiling said.
static gyre_status start(const char *cache_dir, struct fault with, uint64_t left_ns, struct gyre_tuner *tuner)
{
    struct gyre_backend faulty = gyre_backend_null;
    struct lab lab;
    struct gyre_binding y;
    assert_true(lab_open(&lab, "null", NULL));
    gyre_graph *g = products(&lab, 2, &y);
    fault = with;
    faulty.record = faulty_record;
    faulty.submit = faulty_submit;
    lab.device->backend = &faulty;
    *tuner = (struct gyre_tuner){.cache_dir = cache_dir, .left_ns = left_ns, .clock = fault_clock};
    const gyre_status st = gyre_graph_compile(g, &(struct gyre_graph_options){.tuner = tuner}, NULL);
    lab.device->backend = &gyre_backend_null;
    gyre_graph_destroy(g);
    gyre_tuner_free(tuner);
    lab_close(&lab);
    return st;
}

enum { SHAPES = 2 }; // of products()
#define HOURS 36000000000000ull
#define SHORT 300000000ull

// Lines that are known about a device's kernels and say that; each is known once.
static uint32_t faults(const char *dir, const char *device, const char *words)
{
    struct lab lab;
    uint32_t n = 0;
    if (!lab_open(&lab, device, NULL)) return 0;
    char *const text = gyre_faults_load(dir, lab.device->info.name, lab.device->info.driver);
    lab_close(&lab);
    for (const char *line = text; line && *line; line = strchr(line, '\n') + 1) {
        const size_t length = (size_t)(strchr(line, '\n') - line) + 1;
        const char *const at = strstr(line, words);
        n += at && at < line + length;
        for (const char *other = line + length; *other; other = strchr(other, '\n') + 1)
            assert_int_not_equal(strncmp(line, other, length), 0);
    }
    free(text);
    return n;
}

// A variant that loses to none but its own bits, or that does not build, is named for `gyre devices`; twice is once.
static void what_fails_is_named(void **state)
{
    const char *const dir = files_path("tune");
    for (int again = 0; again < 2; again++) {
        const struct outcome wrong = run(*state, 2, dir, true, half_the_grid, true);
        if (wrong.refused) (void)run(*state, 2, dir, true, no_such_kernel, true);
    }
    const uint32_t wrong = faults(dir, *state, "its results are not those of the base kernel");
    assert_in_range(wrong, 1, 2); // two shapes may be cut alike
    assert_int_equal(faults(dir, *state, "matmul_of_dreams"), wrong);
    assert_int_equal(faults(dir, "null", ""), 0);
    files_remove();
}

// Where memory ran out there is nothing wrong with the kernel.
static void a_lack_of_memory_is_not_named(void **state)
{
    (void)state;
    struct gyre_tuner tuner;
    static const gyre_status all[] = {GYRE_E_DEVICE, GYRE_E_DEVICE_MEM, GYRE_E_NOMEM};
    for (size_t i = 0; i < GYRE_COUNT(all); i++) {
        const char *const dir = files_path("tune");
        assert_int_equal(start(dir, (struct fault){.variant = all[i]}, HOURS, &tuner), GYRE_OK);
        assert_int_equal(tuner.measured, SHAPES);
        assert_int_equal(tuner.refused, 1);
        assert_int_equal(faults(dir, "null", "cannot record: a test"), i == 0);
        files_remove();
    }
}

// The list has an end, and damage to it costs the list.
static void the_list_of_faults_is_bounded(void **state)
{
    (void)state;
    const char *const dir = files_path("tune");
    char line[200], command[200];
    for (int i = 0; i < 200; i++) {
        snprintf(line, sizeof line, "%0100d", i);
        gyre_faults_note(dir, "a", "b", line, NULL);
        gyre_faults_note(dir, "a", "b", line + 50, NULL); // the end of one is another
    }
    char *const text = gyre_faults_load(dir, "a", "b");
    assert_non_null(text);
    assert_true(strlen(text) > GYRE_FAULTS_MOST / 2 && strlen(text) < GYRE_FAULTS_MOST);
    free(text);
    assert_null(gyre_faults_load(dir, "a", "c"));
    gyre_faults_note(NULL, "a", "b", line, NULL);
    assert_null(gyre_faults_load(NULL, "a", "b"));
    snprintf(command, sizeof command, "for f in %s/faults-*; do printf X >>$f; done", dir);
    assert_int_equal(system(command), 0);
    assert_null(gyre_faults_load(dir, "a", "b"));
    files_remove();
}

// A start that a variant ended is followed by one that leaves that product to the rule.
static void a_variant_that_loses_the_device_is_tried_once(void **state)
{
    (void)state;
    struct gyre_tuner tuner;
    const char *const dir = files_path("tune");
    for (uint32_t i = 0; i < SHAPES; i++) {
        assert_int_equal(start(dir, (struct fault){.variants_kill = true}, HOURS, &tuner), GYRE_E_DEVICE);
        assert_int_equal(tuner.cached, i);
    }
    assert_int_equal(start(dir, (struct fault){.variants_kill = true}, HOURS, &tuner), GYRE_OK);
    assert_int_equal(tuner.cached, SHAPES);
    assert_in_range(faults(dir, "null", "a test lost the device"), 1, SHAPES); // which may be cut alike
    files_remove();
}

// No other failure costs more than the measurement, and the next start measures again.
static void a_failure_ends_measuring_and_nothing_else(void **state)
{
    (void)state;
    struct gyre_tuner tuner;
    const char *const dir = files_path("tune");
    assert_int_equal(start(dir, (struct fault){.record = GYRE_E_NOMEM}, HOURS, &tuner), GYRE_OK);
    assert_int_equal(tuner.measured, 0);
    assert_int_equal(tuner.left_ns, 0);
    assert_int_equal(start(dir, (struct fault){0}, HOURS, &tuner), GYRE_OK);
    assert_int_equal(tuner.cached, 0);
    assert_int_equal(tuner.measured, SHAPES);
    files_remove();
}

// A race that the end of the time cut is no choice for good, and after that time nothing more is recorded.
static void what_was_cut_is_measured_again(void **state)
{
    (void)state;
    struct gyre_tuner tuner;
    const char *const dir = files_path("tune");
    assert_int_equal(start(dir, (struct fault){.slow_round = SHORT + 1}, SHORT, &tuner), GYRE_OK);
    assert_true(tuner.measured < SHAPES);
    assert_int_equal(start(dir, (struct fault){.slow_record = SHORT + 1}, SHORT, &tuner), GYRE_OK);
    assert_true(fault.records <= 1);
    assert_int_equal(tuner.cached, 0);
    assert_int_equal(start(dir, (struct fault){0}, HOURS, &tuner), GYRE_OK);
    assert_int_equal(tuner.cached, 0);
    assert_int_equal(tuner.measured, SHAPES);
    files_remove();
}

// What measuring may take bounds it, but for what is under way when the time ends; a second start takes nothing.
static void measuring_ends_in_time(void **state)
{
    (void)state;
    enum { MS = 1000000 };
    struct gyre_tuner tuner;
    const char *const dir = files_path("tune");
    for (int64_t run_ms = 1; run_ms <= 500; run_ms *= 5) { // how slow the device is
        const struct fault slow = {.record_ns = 2 * run_ms * MS, .run_ns = run_ms * MS};
        assert_int_equal(start(NULL, slow, 2000ull * MS, &tuner), GYRE_OK);
        assert_true(fault.now <= (2000 + 3 * run_ms) * MS);
        assert_true(tuner.left_ns + (uint64_t)fault.now >= 2000ull * MS);
    }
    assert_int_equal(start(dir, (struct fault){.run_ns = MS}, 2000ull * MS, &tuner), GYRE_OK);
    assert_int_equal(tuner.measured, SHAPES);
    assert_int_equal(start(dir, (struct fault){.run_ns = MS}, 2000ull * MS, &tuner), GYRE_OK);
    assert_int_equal(tuner.cached, SHAPES);
    assert_int_equal(fault.submits, 0);
    files_remove();
}

// Whichever variant is the fastest, what is chosen takes at most 1.05 of its time, and no two are confused.
static void the_chosen_is_near_the_best(void **state)
{
    (void)state;
    enum { US = 1000, SLOW = 1000 * US };
    for (uint32_t fastest = 0; fastest < GYRE_MOST_VARIANTS; fastest++)
        for (int64_t gain = 1; gain <= 64; gain *= 2) { // of a hundred
            int64_t arm_ns[GYRE_MOST_VARIANTS];
            struct gyre_backend faulty = gyre_backend_null;
            struct gyre_launch variants[GYRE_MOST_VARIANTS];
            struct gyre_tuner tuner = {.left_ns = HOURS, .clock = fault_clock};
            struct lab lab;
            struct gyre_binding y;
            uint32_t product = 0, chosen = 0;
            for (uint32_t i = 0; i < GYRE_MOST_VARIANTS; i++) arm_ns[i] = SLOW - (i == fastest ? gain * SLOW / 100 : 0);
            assert_true(lab_open(&lab, "null", NULL));
            gyre_graph *g = products(&lab, 2, &y);
            fault = (struct fault){.arm_ns = arm_ns};
            faulty.record = faulty_record;
            faulty.submit = faulty_submit;
            lab.device->backend = &faulty;
            assert_int_equal(gyre_graph_compile(g, &(struct gyre_graph_options){.tuner = &tuner}, NULL), GYRE_OK);
            lab.device->backend = &gyre_backend_null;
            assert_int_equal(tuner.refused, 0);
            while (!gyre_tune_variants(g, &g->nodes[product], variants)) product++; // the first that was measured
            const uint32_t n = gyre_tune_variants(g, &g->nodes[product], variants);
            const struct gyre_launch *const launch = gyre_choice_of(g, &g->nodes[product]);
            assert_non_null(launch);
            while (chosen < n && memcmp(&variants[chosen], launch, sizeof *launch)) chosen++;
            assert_true(n > 2 && chosen < n);
            const int64_t best = arm_ns[fastest < n ? fastest : 0];
            assert_true(arm_ns[chosen] * 100 <= best * 105);
            if (gain > 5 && fastest < n) assert_int_equal(chosen, fastest);
            gyre_graph_destroy(g);
            gyre_tuner_free(&tuner);
            lab_close(&lab);
        }
}

static gyre_status no_matrices(gyre_device *device, const struct gyre_kernel_source *source,
                               const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    if (source->needs & GYRE_NEED_CM_S8) return gyre_fail(err, GYRE_E_DEVICE, "cannot create kernel: a test");
    return gyre_backend_null.kernel_create(device, source, params, out, err);
}

// Where the rule's kernel is for units whose kernels the driver cannot compile, the choice is among the others, at the
// first start and at the next.
static void what_does_not_compile_is_not_measured(void **state)
{
    (void)state;
    const char *const dir = files_path("tune");
    struct gyre_backend broken = gyre_backend_null;
    broken.kernel_create = no_matrices;
    for (uint32_t again = 0; again < 2; again++) {
        struct lab lab;
        struct gyre_binding y;
        struct gyre_tuner tuner = {.cache_dir = dir, .left_ns = HOURS, .clock = fault_clock};
        const gyre_log log = {.level = GYRE_LOG_ERROR};
        assert_true(lab_open(&lab, "null as a GPU", NULL));
        lab.device->options.log = &log; // the one line that says so is test_matrices'
        lab.device->options.cache_dir = dir;
        lab.device->info.int_dot = GYRE_INT_DOT_ACCELERATED;
        lab.device->info.matrix_s8 = (struct gyre_matrix_shape){16, 16, 16, 32};
        lab.device->backend = &broken;
        gyre_graph *g = products(&lab, 128, &y);
        assert_int_equal(gyre_graph_compile(g, &(struct gyre_graph_options){.tuner = &tuner}, NULL), GYRE_OK);
        lab.device->backend = &gyre_backend_null;
        assert_int_equal(lab.device->info.matrix_s8.m, again ? 16 : 0); // what is known needs no trying
        assert_int_equal(tuner.measured, again ? 0 : SHAPES);
        assert_int_equal(tuner.cached, again ? SHAPES : 0);
        assert_int_equal(tuner.refused, 0);
        gyre_graph_destroy(g);
        gyre_tuner_free(&tuner);
        lab_close(&lab);
        assert_int_equal(faults(dir, "null", "its matrix units are not used"), 1);
    }
    files_remove();
}

// ---- what is offered, and how it is submitted -----------------------------------------------------------

// Variants are no wider than the rule ever goes, and what is measured has a predicted time as steps have.
static void variants_are_bounded_and_predicted(void **state)
{
    (void)state;
    enum { LONG = 16384 };
    struct lab lab;
    gyre_graph *g = NULL;
    struct gyre_launch variants[GYRE_MOST_VARIANTS];
    uint32_t widest = 0, product = 0;
    assert_true(lab_open(&lab, "null as a GPU", NULL));
    struct gyre_batch batch = {
        .page_stride = 1, .rows = lab_bytes(&lab, NULL, 16), .pages = lab_bytes(&lab, NULL, 256)};
    const struct gyre_weight w = lab_weight(&lab, GYRE_WEIGHT_W4, 32, LONG, LONG, 1);
    assert_int_equal(gyre_graph_create(lab.device, 1, &batch, &g, NULL), GYRE_OK);
    const gyre_value x = gyre_g_external(g, "x", 1, LONG, lab_floats(&lab, LONG, 0, 1));
    gyre_g_output(g, gyre_g_matmul(g, gyre_g_quantize(g, x, 8, 1), &w), lab_bytes(&lab, NULL, 4 * 32));
    assert_int_equal(gyre_graph_compile(g, NULL, NULL), GYRE_OK);
    while (!gyre_tune_variants(g, &g->nodes[product], variants)) product++;
    const uint32_t n = gyre_tune_variants(g, &g->nodes[product], variants), lowered = g->n_dispatches;
    assert_true(n > 1);
    for (uint32_t i = 0; i < n; i++) {
        widest = GYRE_MAX(widest, variants[i].kernel.spec[0]);
        assert_int_equal(gyre_graph_lower_product(g, product, &variants[i], NULL), GYRE_OK);
    }
    assert_int_equal(widest, 512);
    for (uint32_t i = lowered; i < g->n_dispatches; i++) assert_true(g->dispatches[i].ms > 0);
    gyre_graph_destroy(g);
    lab_close(&lab);
}

// Products of many rows, where int8 dot products are hardware: other blocks of rows and columns that fit the device.
static void many_rows_are_cut_in_other_blocks(void **state)
{
    (void)state;
    struct lab lab;
    struct gyre_launch variants[GYRE_MOST_VARIANTS];
    struct gyre_binding y;
    uint32_t product = 0;
    assert_true(lab_open(&lab, "null as a GPU", NULL));
    lab.device->info.int_dot = GYRE_INT_DOT_ACCELERATED;
    gyre_graph *g = products(&lab, 128, &y);
    assert_int_equal(gyre_graph_compile(g, NULL, NULL), GYRE_OK);
    while (!gyre_tune_variants(g, &g->nodes[product], variants)) product++;
    const uint32_t n = gyre_tune_variants(g, &g->nodes[product], variants);
    assert_int_equal(n, 4);
    for (uint32_t i = 0; i < n; i++) {
        assert_string_equal(variants[i].kernel.name, "matmul_w4_q_b");
        assert_int_equal(variants[i].tile[0], 8 * variants[i].kernel.spec[0]);
        for (uint32_t k = 0; k < i; k++) assert_true(memcmp(&variants[i], &variants[k], sizeof *variants));
    }
    gyre_graph_destroy(g);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_ON(a_wrong_variant_never_wins, "vulkan:0"),
        LAB_ON(a_wrong_variant_never_wins, "vulkan:0 as a GPU"),
        LAB_ON(a_wrong_variant_never_wins, "opencl:0"),
        LAB_ON(what_fails_is_named, "vulkan:0"),
        LAB_ON(without_time_the_rule_decides, "vulkan:0"),
        LAB_ON(the_cache_costs_time_never_a_result, "vulkan:0"),
        cmocka_unit_test(a_variant_that_loses_the_device_is_tried_once),
        cmocka_unit_test(a_failure_ends_measuring_and_nothing_else),
        cmocka_unit_test(a_lack_of_memory_is_not_named),
        cmocka_unit_test(what_was_cut_is_measured_again),
        cmocka_unit_test(measuring_ends_in_time),
        cmocka_unit_test(the_chosen_is_near_the_best),
        cmocka_unit_test(what_does_not_compile_is_not_measured),
        cmocka_unit_test(the_list_of_faults_is_bounded),
        cmocka_unit_test(variants_are_bounded_and_predicted),
        cmocka_unit_test(many_rows_are_cut_in_other_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
