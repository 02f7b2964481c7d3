// The engine through its public face, on tiny random models: devices agree, batches equal solo runs, prefixes are
// reused, decoding allocates and records nothing, tiny device limits change nothing, and integer products mean integer
// products.
#include "runtime/source/source.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

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

static const char *const device_names[] = {"cpu", "vulkan:0", "opencl:0"};
enum { DEVICES = 3, VOCAB = 304 };
static char directory[] = "test-engine-XXXXXX";
static char f32_path[128], q4_path[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(f32_path, sizeof f32_path, "%s/f32.gguf", directory);
    snprintf(q4_path, sizeof q4_path, "%s/q4.gguf", directory);
    struct tiny_options o = tiny_defaults();
    if (tiny_write_gguf(f32_path, &o)) return 1;
    o.type = GYRE_DTYPE_Q4_0;
    o.tied = true;
    return tiny_write_gguf(q4_path, &o);
}

static int teardown(void **state)
{
    (void)state;
    unlink(f32_path);
    unlink(q4_path);
    return rmdir(directory);
}

// NULL where there is no such device and none is demanded; anything else that fails is a failure of the test.
static gyre_engine *open_engine(const char *path, gyre_engine_params p, const char *device)
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    p.device = device;
    p.cache_dir = "";
    const gyre_status st = gyre_engine_open(path, &p, &engine, &err);
    return device_opened(device, st, &err) ? engine : NULL;
}

static double difference(const float *a, const float *b)
{
    double worst = 0, top = 0;
    for (int i = 0; i < VOCAB; i++) {
        worst = fmax(worst, fabs((double)a[i] - b[i]));
        top = fmax(top, fabs((double)a[i]));
    }
    return worst / top;
}

static void logits_of(const char *path, gyre_engine_params p, const char *device, const uint32_t *tokens, size_t n,
                      float *out, int *have)
{
    gyre_engine *e = open_engine(path, p, device);
    *have = e != NULL;
    if (!e) return;
    OK(gyre_logits(e, tokens, n, out, err));
    gyre_engine_close(e, NULL);
}

static void test_devices_agree(void **state)
{
    (void)state;
    uint32_t tokens[75];
    float want[VOCAB], got[VOCAB];
    tiny_tokens(tokens, 75, 1, VOCAB);
    const char *const paths[] = {f32_path, q4_path};
    for (int m = 0; m < 2; m++) {
        for (int d = 0; d < DEVICES; d++) {
            int have;
            logits_of(paths[m], (gyre_engine_params){.act = 16, .kv = 16}, device_names[d], tokens, 75, d ? got : want,
                      &have);
            if (d && have && difference(want, got) > 1e-4)
                fail_msg("model %d: %s differs by %g", m, device_names[d], difference(want, got));
        }
    }
}

// A prompt in chunks of another size, or with other limits of the device, gives the same logits.
static void test_chunks_and_limits(void **state)
{
    (void)state;
    uint32_t tokens[75];
    float want[VOCAB], got[VOCAB];
    int have;
    tiny_tokens(tokens, 75, 2, VOCAB);
    for (int d = 0; d < DEVICES; d++) {
        logits_of(q4_path, (gyre_engine_params){.act = 16, .kv = 16}, device_names[d], tokens, 75, want, &have);
        if (!have) continue;
        const gyre_engine_params other[] = {
            {.act = 16, .kv = 16, .max_rows = 16},
            {.act = 16, .kv = 16, .max_rows = 1},
            {.act = 16, .kv = 16, .max_rows = 8, .context = 96, .limit_binding = 24576, .limit_buffer = 24576},
            {.act = 16, .kv = 16, .max_rows = 1, .as_hardware = true},
            {.act = 16, .kv = 16, .max_rows = 128, .as_hardware = true}}; // all of the prompt in one step
        for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
            logits_of(q4_path, other[i], device_names[d], tokens, 75, got, &have);
            if (difference(want, got) > (other[i].as_hardware ? 1e-4 : 1e-5)) // other kernels, as of another device
                fail_msg("%s, variant %zu: logits differ by %g", device_names[d], i, difference(want, got));
        }
    }
}

static void greedy(gyre_session *s, const uint32_t *prompt, size_t n, uint32_t *out, int count)
{
    OK(gyre_session_sync(s, prompt, n, NULL, &out[0], err));
    for (int i = 1; i < count; i++) OK(gyre_session_decode(s, out[i - 1], &out[i], err));
}

// Two sequences of different length, one in the middle of its prompt, in one recorded graph: each one's solo tokens.
static void test_batch_equals_solo(void **state)
{
    (void)state;
    enum { N = 6 };
    uint32_t a[45], b[7], want_a[N], want_b[N];
    tiny_tokens(a, 45, 3, VOCAB);
    tiny_tokens(b, 7, 4, VOCAB);
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e =
            open_engine(q4_path, (gyre_engine_params){.act = 16, .kv = 16, .sequences = 2}, device_names[d]);
        if (!e) continue;
        gyre_session *s[2];
        for (int i = 0; i < 2; i++) OK(gyre_session_create(e, &s[i], err));
        greedy(s[0], a, 45, want_a, N);
        greedy(s[1], b, 7, want_b, N);
        for (int i = 0; i < 2; i++) gyre_session_destroy(s[i]);
        for (int i = 1; i >= 0; i--) OK(gyre_session_create(e, &s[i], err)); // the other slots
        gyre_step_part parts[2] = {{s[0], a, 20, 0, NULL}, {s[1], b, 7, 0, NULL}};
        OK(gyre_step(e, parts, 2, err)); // a in the middle of its prompt, b complete
        assert_int_equal(parts[1].next, want_b[0]);
        parts[0] = (gyre_step_part){s[0], a + 20, 25, 0, NULL};
        parts[1] = (gyre_step_part){s[1], &want_b[0], 1, 0, NULL};
        OK(gyre_step(e, parts, 2, err)); // the rest of a's prompt beside b's first decode step
        assert_int_equal(parts[0].next, want_a[0]);
        assert_int_equal(parts[1].next, want_b[1]);
        for (int i = 1; i + 1 < N; i++) {
            parts[0] = (gyre_step_part){s[0], &want_a[i - 1], 1, 0, NULL};
            parts[1] = (gyre_step_part){s[1], &want_b[i], 1, 0, NULL};
            OK(gyre_step(e, parts, 2, err));
            assert_int_equal(parts[0].next, want_a[i]);
            assert_int_equal(parts[1].next, want_b[i + 1]);
        }
        for (int i = 0; i < 2; i++) gyre_session_destroy(s[i]);
        gyre_engine_close(e, NULL);
    }
}

static void test_prefix_is_reused(void **state)
{
    (void)state;
    uint32_t tokens[70], fresh[3], again[3];
    tiny_tokens(tokens, 70, 5, VOCAB);
    gyre_engine *e = open_engine(f32_path, (gyre_engine_params){0}, "cpu");
    gyre_session *s;
    OK(gyre_session_create(e, &s, err));
    greedy(s, tokens, 70, fresh, 3);
    gyre_session_destroy(s);
    OK(gyre_session_create(e, &s, err));
    uint32_t other[50];
    memcpy(other, tokens, sizeof other);
    other[40] = other[40] == 9 ? 10 : 9;
    greedy(s, other, 50, again, 3);
    const uint64_t before = gyre_session_timings(s).prefill_tokens;
    greedy(s, tokens, 70, again, 3);
    assert_int_equal(gyre_session_timings(s).prefill_tokens - before, 30); // 40 were common
    assert_memory_equal(fresh, again, sizeof fresh);
    greedy(s, tokens, 70, again, 1); // all of it is there: the last token runs again
    assert_int_equal(fresh[0], again[0]);
    gyre_session_destroy(s);
    gyre_engine_close(e, NULL);
}

// Decoding records nothing, makes no buffer and allocates no host memory, also across page borders.
static void test_decode_allocates_nothing(void **state)
{
    (void)state;
    uint32_t tokens[30], next;
    tiny_tokens(tokens, 30, 6, VOCAB);
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(q4_path, (gyre_engine_params){.act = 8, .kv = 8}, device_names[d]);
        if (!e) continue;
        gyre_session *s;
        OK(gyre_session_create(e, &s, err));
        OK(gyre_session_sync(s, tokens, 30, NULL, &next, err));
        OK(gyre_session_decode(s, next, &next, err)); // records the graph of one row
        const gyre_engine_counters before = gyre_engine_count(e);
        for (int i = 0; i < 40; i++) OK(gyre_session_decode(s, next, &next, err));
        const gyre_engine_counters after = gyre_engine_count(e);
        assert_int_equal(before.recordings, after.recordings);
        assert_int_equal(before.buffers, after.buffers);
        assert_int_equal(before.host_allocations, after.host_allocations);
        assert_int_equal(after.submissions - before.submissions, 40);
        gyre_session_destroy(s);
        gyre_engine_close(e, NULL);
    }
}

// At 8 and 4 bits of activations only integer products run in the blocks over int4 weights.
static void test_a8_means_integers(void **state)
{
    (void)state;
    for (uint32_t act = 4; act <= 16; act *= 2) {
        gyre_engine *e = open_engine(q4_path, (gyre_engine_params){.act = act, .kv = 8}, "cpu");
        gyre_session *s;
        uint32_t tokens[3] = {5, 6, 7}, next, integer = 0, floating = 0;
        gyre_profile_row rows[64];
        size_t n;
        OK(gyre_session_create(e, &s, err));
        OK(gyre_session_sync(s, tokens, 3, NULL, &next, err));
        OK(gyre_session_profile(s, 1, rows, 64, &n, err));
        for (size_t i = 0; i < n; i++) {
            if (strncmp(rows[i].op, "matmul_w4_q_", 12) == 0) integer += rows[i].dispatches;
            if (strncmp(rows[i].op, "matmul_w4_f_", 12) == 0) floating += rows[i].dispatches;
        }
        assert_int_equal(integer, act == 16 ? 0 : 8);  // qkv, o, gate_up, down of two layers
        assert_int_equal(floating, act == 16 ? 9 : 1); // the head reads floats over the int4 table
        gyre_session_destroy(s);
        gyre_engine_close(e, NULL);
    }
}

static void test_sampling(void **state)
{
    (void)state;
    uint32_t tokens[9];
    tiny_tokens(tokens, 9, 7, VOCAB);
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(f32_path, (gyre_engine_params){0}, device_names[d]);
        if (!e) continue;
        gyre_session *s;
        OK(gyre_session_create(e, &s, err));
        const gyre_sampling modes[] = {
            {0}, {5.0f, 1, 1.0f, 1}, {5.0f, 0, 1.0f, 1}, {5.0f, 0, 1.0f, 1}, {5.0f, 0, 1.0f, 2}, {5.0f, 0, 1e-6f, 3}};
        uint32_t out[6][8];
        for (int m = 0; m < 6; m++) {
            OK(gyre_session_sync(s, tokens, 9, &modes[m], &out[m][0], err));
            for (int i = 1; i < 8; i++) OK(gyre_session_decode(s, out[m][i - 1], &out[m][i], err));
        }
        assert_memory_equal(out[0], out[1], sizeof out[0]); // the best one only: greedy
        assert_memory_equal(out[2], out[3], sizeof out[0]); // the same seed
        assert_memory_not_equal(out[2], out[4], sizeof out[0]);
        assert_memory_not_equal(out[0], out[2], sizeof out[0]);
        assert_memory_equal(out[0], out[5], sizeof out[0]); // a vanishing top-p: greedy
        gyre_session_destroy(s);
        gyre_engine_close(e, NULL);
    }
}

static void test_eval(void **state)
{
    (void)state;
    uint32_t tokens[200];
    tiny_tokens(tokens, 200, 8, VOCAB);
    double nll[DEVICES] = {0};
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(q4_path, (gyre_engine_params){.act = 16, .kv = 16, .max_rows = 32},
                                     device_names[d]),
                    *ref = NULL;
        if (!e) continue;
        const gyre_engine_params p = {.act = 16, .kv = 16, .max_rows = 32, .cache_dir = ""};
        OK(gyre_engine_open_beside(e, q4_path, &p, &ref, err));
        gyre_eval_result r;
        OK(gyre_eval(e, ref, tokens, 200, 90, 2, NULL, NULL, &r, err));
        nll[d] = r.nll;
        assert_int_equal(r.tokens, 2 * 89);
        assert_true(r.has_reference && fabs(r.kl) < 1e-5 && r.top1_agreement == 1.0);
        assert_true(fabs(r.nll - nll[0]) < 1e-4 && fabs(r.ppl - exp(r.nll)) < 1e-9 * r.ppl && r.ppl_stderr > 0);
        gyre_engine_close(ref, NULL);
        gyre_engine_close(e, NULL);
    }
    // The same mean from logits, one position at a time.
    gyre_engine *e = open_engine(q4_path, (gyre_engine_params){.act = 16, .kv = 16}, "cpu");
    double sum = 0;
    for (int w = 0; w < 2; w++) {
        for (size_t i = 1; i < 90; i++) {
            float logits[VOCAB];
            double z = 0, top = -1e30;
            OK(gyre_logits(e, tokens + 90 * w, i, logits, err));
            for (int k = 0; k < VOCAB; k++) top = fmax(top, logits[k]);
            for (int k = 0; k < VOCAB; k++) z += exp((double)logits[k] - top);
            sum += log(z) + top - (double)logits[tokens[90 * w + (int)i]];
        }
    }
    assert_true(fabs(sum / (2 * 89) - nll[0]) < 1e-5);
    gyre_engine_close(e, NULL);
}

static void expect(gyre_status want, gyre_status got, const gyre_error *err, const char *word)
{
    assert_int_equal(want, got);
    if (!strstr(err->message, word)) fail_msg("the message lacks '%s': %s", word, err->message);
    assert_null(strchr(err->message, '\n'));
}

static void test_refusals(void **state)
{
    (void)state;
    gyre_error why = {0};
    gyre_engine *none = NULL, *e = open_engine(f32_path, (gyre_engine_params){.context = 40}, "cpu");
    gyre_session *s, *second = NULL;
    uint32_t tokens[64], next;
    tiny_tokens(tokens, 64, 9, VOCAB);
    OK(gyre_session_create(e, &s, err));
    expect(GYRE_E_INVALID, gyre_session_create(e, &second, &why), &why, "sequences");
    expect(GYRE_E_INVALID, gyre_session_sync(s, tokens, 0, NULL, &next, &why), &why, "empty");
    expect(GYRE_E_INVALID, gyre_session_sync(s, tokens, 41, NULL, &next, &why), &why, "context of 40");
    tokens[2] = VOCAB;
    expect(GYRE_E_INVALID, gyre_session_sync(s, tokens, 5, NULL, &next, &why), &why, "vocabulary");
    tokens[2] = 4;
    OK(gyre_session_sync(s, tokens, 39, NULL, &next, err));
    OK(gyre_session_decode(s, next, &next, err));
    expect(GYRE_E_INVALID, gyre_session_decode(s, next, &next, &why), &why, "context of 40");
    gyre_eval_result r;
    expect(GYRE_E_INVALID, gyre_eval(e, NULL, tokens, 64, 33, 2, NULL, NULL, &r, &why), &why, "64 tokens");
    gyre_session_destroy(s);
    gyre_engine_close(e, NULL);
    const gyre_engine_params long_context = {.device = "cpu", .cache_dir = "", .context = 100000},
                             nowhere = {.device = "vulkan:77", .cache_dir = ""};
    expect(GYRE_E_INVALID, gyre_engine_open(f32_path, &long_context, &none, &why), &why, "context");
    expect(GYRE_E_NO_DEVICE, gyre_engine_open(f32_path, &nowhere, &none, &why), &why, "vulkan:77");
    assert_null(none);
}

// A final gain so large that logits overflow: on every device a line, not a token, nor an embedding.
static void test_logits_that_are_not_finite(void **state)
{
    (void)state;
    char path[128];
    gyre_source *source = NULL;
    gyre_error failure = {0};
    snprintf(path, sizeof path, "%s/overflow.gguf", directory);
    OK(gyre_source_open(f32_path, &source, err));
    const struct gyre_tensor *gain = gyre_source_tensor(source, "output_norm.weight");
    FILE *from = fopen(f32_path, "rb"), *to = fopen(path, "wb");
    assert_true(gain && from && to);
    static char data[4 << 20];
    const size_t n = fread(data, 1, sizeof data, from);
    char *at = data;
    while (at < data + n && memcmp(at, gain->data, gain->bytes)) at++;
    assert_true(at < data + n);
    const float huge = 3e38f;
    for (size_t i = 0; i < gain->bytes; i += 4) memcpy(at + i, &huge, 4);
    assert_int_equal(fwrite(data, 1, n, to), n);
    fclose(from);
    assert_int_equal(fclose(to), 0);
    gyre_source_close(source);
    const uint32_t prompt[] = {5, 6, 7};
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(path, (gyre_engine_params){.act = 16, .kv = 16}, device_names[d]);
        if (!e) continue;
        gyre_session *s = NULL;
        uint32_t next = 77;
        OK(gyre_session_create(e, &s, err));
        assert_int_equal(gyre_session_sync(s, prompt, 3, NULL, &next, &failure), GYRE_E_FORMAT);
        assert_non_null(strstr(failure.message, "logits are not finite"));
        assert_int_equal(next, 77);
        assert_int_equal(gyre_session_length(s), 0);
        gyre_session_destroy(s);
        // An embedding is of the same numbers.
        gyre_scheduler *scheduler = NULL;
        gyre_task *task = NULL;
        const gyre_task_params pooled = {
            .size = sizeof pooled, .prompt = prompt, .n_prompt = 3, .pooling = GYRE_POOL_LAST};
        OK(gyre_scheduler_create(e, NULL, &scheduler, err));
        OK(gyre_scheduler_add(scheduler, &pooled, &task, err));
        OK(gyre_scheduler_step(scheduler, err));
        assert_non_null(gyre_task_error(task));
        assert_int_equal(gyre_task_error(task)->code, GYRE_E_FORMAT);
        assert_non_null(strstr(gyre_task_error(task)->message, "position 2): the embedding is not finite"));
        assert_null(gyre_task_embedding(task));
        gyre_scheduler_destroy(scheduler);
        gyre_engine_close(e, NULL);
    }
    unlink(path);
}

// Multiplies a float tensor of a model's bytes.
static void multiply(char *data, size_t n, const gyre_source *source, const char *name, float by)
{
    const struct gyre_tensor *t = gyre_source_tensor(source, name);
    assert_non_null(t);
    for (char *at = data; at + t->bytes <= data + n; at++) {
        if (memcmp(at, t->data, t->bytes)) continue;
        for (size_t i = 0; i < t->bytes; i += 4) {
            float x;
            memcpy(&x, at + i, 4);
            x *= by;
            memcpy(at + i, &x, 4);
        }
        return;
    }
    fail_msg("%s is not in the file", name);
}

// Values 1e5 times as large, and what follows them as much smaller, are the same model: a cache of 8 bits holds them,
// one of 16 bits does not and says so, whatever the bits of activations.
static void test_values_beyond_halves(void **state)
{
    (void)state;
    static char data[4 << 20];
    char path[128];
    gyre_source *source = NULL;
    snprintf(path, sizeof path, "%s/large-values.gguf", directory);
    OK(gyre_source_open(f32_path, &source, err));
    FILE *from = fopen(f32_path, "rb"), *to = fopen(path, "wb");
    assert_true(from && to);
    const size_t n = fread(data, 1, sizeof data, from);
    multiply(data, n, source, "blk.1.attn_v.weight", 1e5f);
    multiply(data, n, source, "blk.1.attn_output.weight", 1e-5f);
    assert_int_equal(fwrite(data, 1, n, to), n);
    fclose(from);
    assert_int_equal(fclose(to), 0);
    gyre_source_close(source);
    const uint32_t prompt[] = {5, 6, 7};
    for (int d = 0; d < DEVICES; d++)
        for (int i = 0; i < 4; i++) {
            const uint32_t act = 16 >> i % 3, kv = i < 3 ? 16 : 8;
            gyre_engine *want = open_engine(f32_path, (gyre_engine_params){.act = act, .kv = kv}, device_names[d]),
                        *e = open_engine(path, (gyre_engine_params){.act = act, .kv = kv}, device_names[d]);
            if (!e || !want) continue;
            gyre_session *a = NULL, *b = NULL;
            gyre_error failure = {0};
            uint32_t next = 0, same = 0;
            OK(gyre_session_create(want, &a, err));
            OK(gyre_session_create(e, &b, err));
            OK(gyre_session_sync(a, prompt, 3, NULL, &same, err));
            const gyre_status st = gyre_session_sync(b, prompt, 3, NULL, &next, &failure);
            assert_int_equal(st, kv == 16 ? GYRE_E_FORMAT : GYRE_OK);
            if (kv == 16) assert_non_null(strstr(failure.message, "a 16-bit cache (65504; try --kv 8)"));
            else assert_int_equal(next, same);
            gyre_session_destroy(a);
            gyre_session_destroy(b);
            gyre_engine_close(e, NULL);
            gyre_engine_close(want, NULL);
        }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_agree),
        cmocka_unit_test(test_chunks_and_limits),
        cmocka_unit_test(test_batch_equals_solo),
        cmocka_unit_test(test_prefix_is_reused),
        cmocka_unit_test(test_decode_allocates_nothing),
        cmocka_unit_test(test_a8_means_integers),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_eval),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_logits_that_are_not_finite),
        cmocka_unit_test(test_values_beyond_halves),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
