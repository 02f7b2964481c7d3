// The engine's thread where its device fails: what is under way is told, the next request is answered, a device that is
// lost is opened anew, and while it cannot be, that is said.
#include "cli/serve/queue.h"
#include "runtime/engine.h"
#include "tests/cli/serve/fixture.h"
#include "tests/common/ok.h"

#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { SLOTS = 8 };
static const char path[] = "test-queue.gguf", float_path[] = "test-queue-f32.gguf";

static int setup(void **state)
{
    (void)state;
    const struct tiny_options o = tiny_defaults();
    return fixture_make(path) || tiny_write_gguf(float_path, &o);
}

static int teardown(void **state)
{
    (void)state;
    return fixture_remove(path) || unlink(float_path);
}

// What the queue opens its engine by; the test looks into it while the queue is idle.
struct opener {
    gyre_engine *engine;
    const char *path; // NULL: `path`
    int opened;
    bool fails;
};

// Who holds it holds the engine's steps back.
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static const struct gyre_backend *real;

static gyre_status submit_behind_the_gate(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                                          gyre_error *why)
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return real->submit(device, recording, times, ns, why);
}

static gyre_status open_engine(void *user, gyre_engine **out, gyre_error *err)
{
    struct opener *o = user;
    if (o->fails) return gyre_fail(err, GYRE_E_DEVICE, "cannot open the test's device: it is gone");
    const gyre_engine_params p = {
        .size = sizeof p, .device = "cpu", .act = 16, .kv = 16, .context = 256, .sequences = SLOTS, .cache_dir = ""};
    o->opened++;
    GYRE_TRY(gyre_engine_open(o->path ? o->path : path, &p, out, err));
    o->engine = *out;
    static struct gyre_backend gated;
    real = o->engine->device->backend;
    gated = *real;
    gated.submit = submit_behind_the_gate;
    o->engine->device->backend = &gated;
    return GYRE_OK;
}

// The n-th call of the device from now on fails.
static void fail_after(const struct opener *o, uint64_t n)
{
    o->engine->device->options.fail_call = o->engine->device->counters.calls + n;
}

static struct serve_job *job_of(uint32_t prompts, uint32_t max_tokens)
{
    struct serve_job *j = serve_job_new(prompts);
    assert_non_null(j);
    j->tokenizer = tokenizer;
    j->params.max_tokens = max_tokens;
    j->params.ignore_end = true;
    for (uint32_t i = 0; i < prompts; i++)
        OK(gyre_tokenize(tokenizer, "the cat sat", 11, 0, &j->prompt[i].tokens, &j->prompt[i].n, err));
    assert_true(serve_job_make_choices(j));
    return j;
}

static struct serve_job *job(uint32_t max_tokens) { return job_of(1, max_tokens); }

static void add(serve_queue *q, struct serve_job *j)
{
    struct serve_error error = {0};
    unsigned retry = 0;
    if (!serve_queue_add(q, j, &error, &retry)) fail_msg("%s", error.message);
}

// Adds jobs all of which the queue has before the first one has said anything. The caller opens the gate.
static void add_together(serve_queue *q, struct serve_job **jobs, int n, uint32_t max_tokens)
{
    for (int i = 0; i < n; i++) jobs[i] = job(max_tokens);
    pthread_mutex_lock(&gate);
    for (int i = 0; i < n; i++) add(q, jobs[i]);
}

// Waits for its end; the status it failed with, 0: it did not.
static int end_of(struct serve_job *j)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 60;
    pthread_mutex_lock(&j->lock);
    while (!j->error.status && j->choice[0].finish == SERVE_GOES_ON)
        assert_int_equal(pthread_cond_timedwait(&j->changed, &j->lock, &until), 0);
    const int status = j->error.status;
    pthread_mutex_unlock(&j->lock);
    return status;
}

static int answer(serve_queue *q)
{
    struct serve_job *j = job(4);
    add(q, j);
    const int status = end_of(j);
    serve_job_release(j);
    return status;
}

// Until the queue has let go of everything, so that the test may touch the device.
static struct serve_counts settled(serve_queue *q)
{
    struct serve_counts c;
    do {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        serve_queue_count(q, &c);
    } while (c.running || c.waiting);
    return c;
}

static void test_faults(void **state)
{
    (void)state;
    struct opener o = {0};
    serve_queue *q = NULL;
    const struct serve_queue_params p = {.slots = SLOTS, .most_waiting = 64, .open = open_engine, .user = &o};
    OK(serve_queue_start(&p, &q, err));
    assert_int_equal(answer(q), 0);
    settled(q);
    // In the middle of eight answers: each is told, and has what was said before.
    struct serve_job *eight[SLOTS];
    fail_after(&o, 150);
    add_together(q, eight, SLOTS, 200);
    pthread_mutex_unlock(&gate);
    size_t said = 0;
    for (int i = 0; i < SLOTS; i++) {
        assert_int_equal(end_of(eight[i]), 503);
        assert_non_null(strstr(eight[i]->error.message, "the model could not go on"));
        said += eight[i]->choice[0].generated;
        serve_job_release(eight[i]);
    }
    assert_true(said > 0);
    struct serve_counts c = settled(q);
    assert_false(c.healthy);
    assert_int_equal(c.faults, 1);
    assert_int_equal(c.failed, SLOTS);
    assert_int_equal(c.cancelled, 0);
    // The next one is answered, on the same engine.
    assert_int_equal(answer(q), 0);
    c = settled(q);
    assert_true(c.healthy);
    assert_int_equal(o.opened, 1);
    // Two failures in a row: the device counts as lost and is opened anew for the next request.
    for (int i = 0; i < 2; i++) {
        fail_after(&o, 1);
        assert_int_equal(answer(q), 503);
        settled(q);
    }
    assert_int_equal(answer(q), 0);
    c = settled(q);
    assert_int_equal(o.opened, 2);
    assert_int_equal(c.reopened, 1);
    assert_true(c.healthy);
    // It cannot be opened: requests hear so until it can.
    for (int i = 0; i < 2; i++) {
        fail_after(&o, 1);
        assert_int_equal(answer(q), 503);
        settled(q);
    }
    o.fails = true;
    assert_int_equal(answer(q), 503);
    c = settled(q);
    assert_false(c.healthy);
    assert_non_null(strstr(c.fault, "it is gone"));
    o.fails = false;
    assert_int_equal(answer(q), 0);
    assert_true(settled(q).healthy);
    serve_queue_stop(q, 0);
    serve_queue_destroy(q);
}

static struct serve_job *cold_job_of(uint32_t prompts, uint32_t token)
{
    struct serve_job *j = job_of(prompts, 40);
    j->params.temperature = 0;
    for (uint32_t i = 0; i < prompts; i++) j->prompt[i].tokens[1] = token, j->prompt[i].tokens[0] = 10 + i;
    return j;
}

static struct serve_job *cold_job(uint32_t token) { return cold_job_of(1, token); }

// No row of a step with this token has numbers from now on.
static void spoil(const struct opener *o, uint32_t token)
{
    const struct gyre_weight *table = &o->engine->model.table;
    assert_true(table->kind == GYRE_WEIGHT_F32 && table->n_ranges == 1);
    for (uint32_t k = 0; k < table->k; k++)
        OK(gyre_buffer_write(o->engine->device, table->range->weight.buffer,
                             table->range->weight.offset + 4ull * (k * table->range->n_pad + token), &(float){NAN}, 4,
                             err));
}

// Of several answers in one batch one has no numbers: its request fails and is counted, the others are what they are
// without it, and the device is well.
static void test_one_without_numbers(void **state)
{
    (void)state;
    enum { ODD = 270, GOOD = 3 }; // a token that nobody else says
    struct opener o = {.path = float_path};
    serve_queue *q = NULL;
    struct serve_job *want[GOOD], *got[GOOD], *bad = cold_job(ODD);
    const struct serve_queue_params p = {.slots = SLOTS, .most_waiting = 64, .open = open_engine, .user = &o};
    OK(serve_queue_start(&p, &q, err));
    for (uint32_t i = 0; i < GOOD; i++) {
        add(q, want[i] = cold_job(20 + i));
        assert_int_equal(end_of(want[i]), 0);
    }
    settled(q);
    spoil(&o, ODD);
    pthread_mutex_lock(&gate);
    add(q, bad);
    for (uint32_t i = 0; i < GOOD; i++) add(q, got[i] = cold_job(20 + i));
    pthread_mutex_unlock(&gate);
    assert_int_equal(end_of(bad), 500);
    assert_non_null(strstr(bad->error.message, "the logits are not finite"));
    for (int i = 0; i < GOOD; i++) {
        assert_int_equal(end_of(got[i]), 0);
        assert_int_equal(got[i]->choice[0].generated, 40);
        assert_int_equal(got[i]->choice[0].n_text, want[i]->choice[0].n_text);
        assert_memory_equal(got[i]->choice[0].text, want[i]->choice[0].text, want[i]->choice[0].n_text);
        serve_job_release(want[i]);
        serve_job_release(got[i]);
    }
    const struct serve_counts c = settled(q);
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.faults, 0);
    assert_int_equal(c.cancelled, 0);
    assert_true(c.healthy);
    assert_int_equal(o.opened, 1);
    serve_queue_stop(q, 0);
    serve_queue_destroy(q);
    serve_job_release(bad);
}

static void count_line(void *lines, gyre_log_level level, const char *line) // of what the engine's thread says
{
    *(int *)lines += level == GYRE_LOG_ERROR && strstr(line, "not finite");
}

// So many requests in a row without numbers, and the server says that it is not well, until one is answered. A request
// with several texts is one, also in what is said of it.
static void test_none_has_numbers(void **state)
{
    (void)state;
    enum { ODD = 270, MOST = SERVE_MOST_WITHOUT_NUMBERS };
    struct opener o = {.path = float_path};
    serve_queue *q = NULL;
    int lines = 0;
    const struct serve_queue_params p = {.slots = SLOTS,
                                         .most_waiting = 64,
                                         .open = open_engine,
                                         .user = &o,
                                         .log = {.write = count_line, .user = &lines, .level = GYRE_LOG_ERROR}};
    OK(serve_queue_start(&p, &q, err));
    spoil(&o, ODD);
    for (int i = 0; i < 3 * MOST; i++) {
        struct serve_job *j = cold_job_of(1 + (uint32_t)i % 3, i % (2 * MOST) == MOST - 1 ? 20 : ODD);
        add(q, j);
        assert_int_equal(end_of(j), j->prompt[0].tokens[1] == ODD ? 500 : 0);
        const struct serve_counts c = settled(q);
        serve_job_release(j);
        const bool well = i < 2 * MOST - 1 || i == 3 * MOST - 1;
        assert_int_equal(c.healthy, well);
        if (!well) assert_non_null(strstr(c.fault, "requests had no numbers: cannot choose a token (test-queue-f32"));
        assert_int_equal(c.faults, 0);
    }
    serve_queue_stop(q, 0);
    serve_queue_destroy(q);
    assert_int_equal(lines, 3 * MOST - 2);
}

// A grammar that cannot be followed further fails its own request, with all its choices, and nobody has gone away.
static void test_bound_that_fails(void **state)
{
    (void)state;
    struct opener o = {0};
    serve_queue *q = NULL;
    gyre_vocabulary *vocabulary = NULL;
    uint32_t *open;
    size_t n;
    const struct serve_queue_params p = {.slots = SLOTS, .most_waiting = 1, .open = open_engine, .user = &o};
    OK(gyre_vocabulary_create(tokenizer, &vocabulary, err));
    OK(serve_queue_start(&p, &q, err));
    struct serve_job *j = serve_job_new(1);
    assert_non_null(j);
    j->tokenizer = tokenizer;
    j->n = SLOTS + 3; // some of them do not begin
    j->params.max_tokens = 100;
    OK(gyre_tokenize(tokenizer, "[", 1, 0, &open, &n, err));
    const gyre_logit_bias bias = {*open, 100};
    j->params.bias = &bias;
    j->params.n_bias = 1;
    OK(gyre_tokenize(tokenizer, "the cat sat", 11, 0, &j->prompt[0].tokens, &j->prompt[0].n, err));
    OK(gyre_grammar_of_schema(vocabulary, fixture_wide_schema, strlen(fixture_wide_schema), NULL, &j->grammar, err));
    assert_true(serve_job_make_choices(j));
    add(q, j);
    assert_int_equal(end_of(j), 400);
    assert_non_null(strstr(j->error.message, "too many ways"));
    const struct serve_counts c = settled(q);
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.cancelled, 0);
    assert_int_equal(c.scheduler.pages_held, 0);
    assert_int_equal(answer(q), 0);
    serve_queue_stop(q, 0);
    serve_queue_destroy(q);
    serve_job_release(j);
    gyre_vocabulary_destroy(vocabulary);
    gyre_free(open);
}

// A reader may make its answer as soon as the last token was heard, before the task is settled: by then it is known how
// much of the prompt was shared.
static void test_cached_at_once(void **state)
{
    (void)state;
    enum { PROMPT = 100, SHARED = 96 };
    struct opener o = {0};
    gyre_engine *engine = NULL;
    gyre_scheduler *scheduler = NULL;
    OK(open_engine(&o, &engine, err));
    OK(gyre_scheduler_create(engine, NULL, &scheduler, err));
    for (int again = 0; again < 2; again++) {
        struct serve_job *j = job(4);
        struct serve_choice *c = &j->choice[0];
        uint32_t prompt[PROMPT];
        for (uint32_t i = 0; i < PROMPT; i++) prompt[i] = 10 + i % 90;
        gyre_task_params t = j->params;
        t.prompt = prompt;
        t.n_prompt = PROMPT;
        t.on_token = serve_choice_heard;
        t.user = c;
        OK(gyre_scheduler_add(scheduler, &t, &c->task, err));
        while (!c->generated) OK(gyre_scheduler_step(scheduler, err));
        assert_int_equal(j->prompt[0].cached, again ? SHARED : 0);
        gyre_scheduler_remove(scheduler, c->task);
        serve_job_release(j);
    }
    gyre_scheduler_destroy(scheduler);
    gyre_engine_close(engine, NULL);
}

static bool yes(void) { return true; }

// What warms up can be told to end.
static void test_interrupted_start(void **state)
{
    (void)state;
    struct opener o = {0};
    serve_queue *q = NULL;
    gyre_error why = {0};
    const struct serve_queue_params p = {
        .slots = SLOTS, .most_waiting = 1, .open = open_engine, .interrupted = yes, .user = &o};
    assert_int_equal(serve_queue_start(&p, &q, &why), GYRE_E_CANCELLED);
    assert_null(q);
    assert_int_equal(o.opened, 1);
}

static void test_full_and_cancelled(void **state)
{
    (void)state;
    struct opener o = {0};
    serve_queue *q = NULL;
    struct serve_error error = {0};
    unsigned retry = 0;
    const struct serve_queue_params p = {.slots = SLOTS, .most_waiting = 1, .open = open_engine, .user = &o};
    OK(serve_queue_start(&p, &q, err));
    struct serve_job *all[SLOTS + 1], *late = job(1);
    add_together(q, all, SLOTS + 1, 240);
    assert_false(serve_queue_add(q, late, &error, &retry)); // eight run, one waits
    assert_int_equal(error.status, 503);
    assert_true(retry >= 1);
    for (struct serve_counts now = {0}; !now.running; serve_queue_count(q, &now)) sched_yield();
    for (int i = 0; i <= SLOTS; i++) serve_job_cancel(all[i]); // the first in the middle of its step
    pthread_mutex_unlock(&gate);
    serve_queue_wake(q);
    const struct serve_counts c = settled(q);
    assert_int_equal(c.refused, 1);
    assert_int_equal(c.cancelled, SLOTS + 1);
    assert_int_equal(c.failed, 0);
    assert_int_equal(c.scheduler.pages_held, 0);
    add(q, late);
    assert_int_equal(end_of(late), 0);
    serve_queue_stop(q, 0);
    assert_false(serve_queue_add(q, late, &error, &retry)); // a connection that is still there
    assert_non_null(strstr(error.message, "shutting down"));
    assert_true(settled(q).healthy);
    serve_queue_destroy(q);
    assert_false(end_of(late));
    for (int i = 0; i <= SLOTS; i++) serve_job_release(all[i]);
    serve_job_release(late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_faults),
                                       cmocka_unit_test(test_full_and_cancelled),
                                       cmocka_unit_test(test_one_without_numbers),
                                       cmocka_unit_test(test_none_has_numbers),
                                       cmocka_unit_test(test_bound_that_fails),
                                       cmocka_unit_test(test_cached_at_once),
                                       cmocka_unit_test(test_interrupted_start)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
