// Sessions when something goes wrong: every device call of a conversation fails once and the text stays the same; what
// the caller may leave out, and what the caller must not do.
#include "runtime/engine.h"
#include "backends/faults.h"
#include "tests/common/device.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <omp.h>

enum { VOCAB = 304, TOLD = 32 };
static const char *device_id = "cpu";
static char directory[] = "test-session-XXXXXX";
static char path[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/q4.gguf", directory);
    struct tiny_options o = tiny_defaults();
    o.type = GYRE_DTYPE_Q4_0;
    return tiny_write_gguf(path, &o);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static gyre_engine *open_engine(uint32_t sequences)
{
    const gyre_engine_params p = {.device = device_id,
                                  .cache_dir = "",
                                  .act = 16,
                                  .kv = 8,
                                  .sequences = sequences,
                                  .max_rows = 16,
                                  .context = 128};
    gyre_engine *e = NULL;
    OK(gyre_engine_open(path, &p, &e, err));
    return e;
}

// Runs a verb; after a failure that the hook made, once more. It may fail in no other way.
#define AGAIN(call, unchanged)                                                                                         \
    do {                                                                                                               \
        gyre_error err_ = {0};                                                                                         \
        gyre_error *err = &err_;                                                                                       \
        if ((call) == GYRE_OK) break;                                                                                  \
        if (!strstr(err_.message, "a test wants")) fail_msg("%s", err_.message);                                       \
        if (!(unchanged)) fail_msg("call %llu: a failed step left a session longer", (unsigned long long)fail);        \
        if ((call) != GYRE_OK) fail_msg("%s", err_.message);                                                           \
    } while (0)

// A conversation of two sessions whose call number `fail` fails (0: none); what it said, and its number of calls.
static uint64_t converse(uint64_t fail, uint32_t said[TOLD])
{
    gyre_engine *e = open_engine(2);
    const uint64_t before = e->device->counters.calls;
    gyre_session *a = NULL, *b = NULL;
    uint32_t first[45], second[52], n = 0;
    const gyre_sampling warm = {1.5f, 40, 0.95f, 7};
    OK(gyre_session_create(e, &a, err));
    OK(gyre_session_create(e, &b, err));
    if (fail) e->device->options.fail_call = before + fail;
    tiny_tokens(first, 45, 1, VOCAB);
    memcpy(second, first, 30 * sizeof *first);
    tiny_tokens(second + 30, 22, 2, VOCAB);
    uint32_t x, y = 0; // what follows in a and in b
    AGAIN(gyre_session_sync(a, first, 45, NULL, &x, err), gyre_session_length(a) == 0);
    said[n++] = x;
    for (size_t i = 0; i < 3; i++, said[n++] = x)
        AGAIN(gyre_session_decode(a, x, &x, err), gyre_session_length(a) == 45 + i);
    AGAIN(gyre_session_sync(a, second, 52, &warm, &x, err), gyre_session_length(a) == 30); // 30 are common
    said[n++] = x;
    for (size_t i = 0; i < 4; i++) {
        gyre_step_part parts[2] = {{b, i ? &y : first, i ? 1 : 28, 0, NULL}, {a, &x, 1, 0, NULL}};
        AGAIN(gyre_step(e, parts, 2, err),
              gyre_session_length(a) == 52 + i && gyre_session_length(b) == (i ? 27 + i : 0));
        said[n++] = y = parts[0].next;
        said[n++] = x = parts[1].next;
    }
    for (size_t i = 0; i < 9; i++, said[n++] = x) // over the border of a page
        AGAIN(gyre_session_decode(a, x, &x, err), gyre_session_length(a) == 56 + i);
    AGAIN(gyre_session_sync(a, first, 40, NULL, &x, err), gyre_session_length(a) == 30);
    said[n++] = x;
    assert_true(n <= TOLD);
    const uint64_t calls = e->device->counters.calls - before;
    gyre_session_destroy(a);
    gyre_session_destroy(b);
    OK(gyre_engine_close(e, err));
    return calls;
}

static void test_every_call_fails_once(void **state)
{
    (void)state;
    uint32_t want[TOLD] = {0}, got[TOLD];
    const uint64_t calls = converse(0, want);
    assert_true(calls > 100);
    const uint64_t stride = strcmp(device_id, "cpu") == 0 ? 1 : 11; // an engine is slow to open on a GPU
    for (uint64_t fail = 1; fail <= calls; fail += stride) {
        memset(got, 0, sizeof got);
        converse(fail, got);
        if (memcmp(want, got, sizeof got) != 0)
            fail_msg("call %llu of %llu: another text", (unsigned long long)fail, (unsigned long long)calls);
    }
}

static void refused(gyre_status st, const gyre_error *err, const char *word)
{
    assert_int_equal(st, GYRE_E_INVALID);
    if (!strstr(err->message, word)) fail_msg("the message lacks '%s': %s", word, err->message);
    assert_null(strchr(err->message, '\n'));
}

static void test_parents_outlive_children(void **state)
{
    (void)state;
    gyre_engine *e = open_engine(3), *beside = NULL;
    gyre_session *a = NULL, *b = NULL;
    gyre_error why = {0};
    uint32_t tokens[7], next;
    tiny_tokens(tokens, 7, 3, VOCAB);
    OK(gyre_session_create(e, &a, err));
    OK(gyre_session_create(e, &b, err));
    OK(gyre_engine_open_beside(e, path, NULL, &beside, err));
    OK(gyre_session_sync(b, tokens, 7, NULL, &next, err));
    refused(gyre_engine_close(e, &why), &why, "session 0 (0 tokens), session 1 (7 tokens), 1 engine beside it");
    gyre_session_destroy(a);
    OK(gyre_session_decode(b, next, &next, err)); // a refused close closes nothing
    refused(gyre_engine_close(e, &why), &why, "still open: session 1 (8 tokens), 1 engine");
    gyre_session_destroy(b);
    refused(gyre_engine_close(e, &why), &why, "still open: 1 engine beside it");
    OK(gyre_engine_close(beside, err));
    OK(gyre_engine_close(e, err));
    OK(gyre_engine_close(NULL, err));
    gyre_session_destroy(NULL);
}

static void test_what_may_be_left_out(void **state)
{
    (void)state;
    gyre_engine *e = NULL;
    gyre_session *s = NULL;
    gyre_error why = {0};
    refused(gyre_engine_open(NULL, NULL, &e, &why), &why, "no model");
    assert_null(e);
    refused(gyre_engine_open_beside(NULL, path, NULL, &e, &why), &why, "first engine");
    refused(gyre_session_create(NULL, &s, &why), &why, "no engine");
    why = (gyre_error){0};
    assert_int_equal(gyre_engine_open("no/such.gguf", NULL, &e, &why), GYRE_E_IO); // params NULL: the best device
    assert_true(gyre_list_devices(NULL, 0, NULL, 0, NULL) >= 1);
    gyre_device_facts d[32];
    assert_int_equal(gyre_list_devices(d, 32, NULL, 0, NULL), gyre_list_devices(NULL, 32, NULL, 0, NULL));
}

// What an engine wrote down about its device's kernels is told of the device that is listed.
static void test_faults_are_told_of_a_device(void **state)
{
    (void)state;
    const char *const dir = files_path("cache");
    gyre_device_facts d[32];
    const int n = gyre_list_devices(d, 32, NULL, 0, NULL);
    int at = 0;
    gyre_engine *e = open_engine(1);
    const struct gyre_device_info *const info = gyre_device_info(e->device);
    while (at < n && strcmp(d[at].id, info->id) != 0) at++;
    assert_in_range(at, 0, n - 1);
    assert_null(gyre_device_faults(&d[at], dir));
    gyre_faults_note(dir, info->name, info->driver, "matmul is not used: a test", NULL);
    char *const lines = gyre_device_faults(&d[at], dir);
    assert_non_null(lines);
    assert_string_equal(lines, "matmul is not used: a test\n");
    assert_null(gyre_device_faults(&d[at], ""));
    gyre_free(lines);
    OK(gyre_engine_close(e, err));
    files_remove();
}

// A step that names one session twice cannot be what anybody means: its second part would overwrite the first.
static void test_a_session_is_in_a_step_once(void **state)
{
    (void)state;
    gyre_engine *e = open_engine(1);
    gyre_session *s = NULL;
    gyre_error why = {0};
    uint32_t tokens[129];
    tiny_tokens(tokens, 129, 4, VOCAB);
    OK(gyre_session_create(e, &s, err));
    gyre_step_part parts[2] = {{s, tokens, 4, 0, NULL}, {s, tokens + 4, 5, 0, NULL}};
    refused(gyre_step(e, parts, 2, &why), &why, "same session");
    assert_int_equal(gyre_session_length(s), 0);
    parts[1].n = 0;
    refused(gyre_step(e, parts + 1, 1, &why), &why, "no tokens");
    parts[0].n = 129;
    refused(gyre_step(e, parts, 1, &why), &why, "context of 128");
    OK(gyre_session_sync(s, tokens, 9, NULL, NULL, err));
    OK(gyre_session_decode(s, tokens[0], NULL, err));
    gyre_session_destroy(s);
    OK(gyre_engine_close(e, err));
}

// After a warm-up nothing is left to record, and what the session says is not another.
static void test_warm(void **state)
{
    (void)state;
    uint32_t tokens[45], next[2][6];
    const gyre_sampling sampling = {1.0f, 20, 0.9f, 5};
    tiny_tokens(tokens, 45, 5, VOCAB);
    for (int w = 0; w < 2; w++) {
        gyre_engine *e = open_engine(1);
        gyre_session *s = NULL;
        OK(gyre_session_create(e, &s, err));
        if (w) OK(gyre_session_warm(s, 45, &sampling, err));
        assert_true((gyre_session_timings(s).warmup_ns > 0) == (w == 1));
        const uint64_t before = gyre_engine_count(e).recordings;
        OK(gyre_session_sync(s, tokens, 45, &sampling, &next[w][0], err));
        for (int i = 1; i < 6; i++) OK(gyre_session_decode(s, next[w][i - 1], &next[w][i], err));
        assert_true((gyre_engine_count(e).recordings == before) == (w == 1));
        gyre_session_destroy(s);
        OK(gyre_engine_close(e, err));
    }
    assert_memory_equal(next[0], next[1], sizeof next[0]);
}

// device: cpu unless told.
int main(int argc, char **argv)
{
    if (argc > 1) device_id = argv[1];
    const int missing = device_probe(device_id);
    if (missing) return missing;
    omp_set_num_threads(1); // the model is tiny: threads would only wait for each other
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_fails_once),       cmocka_unit_test(test_parents_outlive_children),
        cmocka_unit_test(test_what_may_be_left_out),        cmocka_unit_test(test_faults_are_told_of_a_device),
        cmocka_unit_test(test_a_session_is_in_a_step_once), cmocka_unit_test(test_warm),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
