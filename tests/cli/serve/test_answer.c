// An answer is whole or there is none: wherever JSON runs out of memory, nothing is left out of it silently.
#include "cli/serve/answer.h"
#include "tests/cli/serve/fixture.h"
#include "tests/common/ok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORDS = 10 }; // of a bit for each of the tiny vocabulary's 304
static const char path[] = "test-answer.gguf";

static json_malloc_t watched;
static int left = -1; // allocations until one fails; below 0: none does

static void *counting(size_t bytes) { return watched(left-- == 0 ? PTRDIFF_MAX : bytes); }

static int setup(void **state)
{
    (void)state;
    json_free_t release;
    cli_json_watch();
    json_get_alloc_funcs(&watched, &release);
    json_set_alloc_funcs(counting, release);
    return fixture_make(path);
}

static int teardown(void **state)
{
    (void)state;
    return fixture_remove(path);
}

// Two choices that have ended, with log-probabilities, or two embeddings.
static struct serve_job *job(bool chat, bool embeds)
{
    struct serve_job *j = serve_job_new(1);
    assert_non_null(j);
    j->tokenizer = tokenizer;
    j->chat = chat;
    j->n = 2;
    j->embeds = embeds;
    j->width = 3;
    j->scores = !embeds;
    strcpy(j->id, "cmpl-0123");
    assert_true(serve_job_make_choices(j));
    for (uint32_t i = 0; i < j->n_choices; i++) {
        const gyre_scored best[] = {{70, -0.25f}, {71, -1.5f}};
        const gyre_task_token said = {.token = 70, .scored = true, .logprob = -0.25f, .best = best, .n_best = 2};
        for (int k = 0; k < 3 && !embeds; k++) assert_int_equal(serve_choice_heard(&j->choice[i], &said), 0);
        if (embeds) serve_choice_embedded(&j->choice[i], (float[]){0.6f, 0, 0.8f});
        serve_choice_ended(&j->choice[i], GYRE_STOP_END);
    }
    assert_true(serve_job_done(j));
    return j;
}

// An answer that a grammar ends where nothing may follow is no whole one, and does not look like one.
static void test_dead_end(void **state)
{
    (void)state;
    struct serve_job *j = serve_job_new(1);
    assert_non_null(j);
    j->tokenizer = tokenizer;
    assert_true(serve_job_make_choices(j));
    assert_int_equal(serve_choice_heard(&j->choice[0], &(gyre_task_token){.token = 70}), 0);
    serve_choice_ended(&j->choice[0], GYRE_STOP_BOUND);
    assert_int_equal(j->error.status, 500);
    assert_non_null(strstr(j->error.message, "incomplete"));
    assert_int_equal(j->choice[0].finish, SERVE_FINISH_LENGTH);
    serve_job_release(j);
}

// Where a grammar cannot go on the job fails by what went wrong, its field named, and no token may follow.
static void test_bound_that_fails(void **state)
{
    (void)state;
    static const char tool[] = "[{\"type\":\"function\",\"function\":{\"name\":\"add\"}}]", way[] = "[[[[[[[[[[[[[[";
    gyre_vocabulary *vocabulary = NULL;
    OK(gyre_vocabulary_create(tokenizer, &vocabulary, err));
    for (int tools = 0; tools < 2; tools++) {
        struct serve_job *j = serve_job_new(1);
        uint32_t allowed[WORDS], any = 0, at = 0;
        assert_non_null(j);
        j->tokenizer = tokenizer;
        if (tools) OK(gyre_tools_create(tool, strlen(tool), GYRE_TOOLS_HERMES, &j->tools, err));
        OK(gyre_grammar_of_schema(vocabulary, fixture_wide_schema, strlen(fixture_wide_schema), NULL, &j->grammar,
                                  err));
        assert_true(serve_job_make_choices(j));
        struct serve_choice *c = &j->choice[0];
        assert_false(serve_choice_allow(c, allowed, WORDS)); // no matcher: everything may follow
        OK(gyre_matcher_create(j->grammar, &c->matcher, err));
        for (; at < strlen(way); at++) {
            uint32_t *token;
            size_t n;
            OK(gyre_tokenize(tokenizer, way + at, 1, 0, &token, &n, err));
            assert_true(serve_choice_allow(c, allowed, WORDS));
            if (j->error.status) {
                gyre_free(token);
                break;
            }
            assert_true(allowed[*token / 32] >> *token % 32 & 1);
            assert_int_equal(serve_choice_heard(c, &(gyre_task_token){.token = *token}), 0);
            gyre_free(token);
        }
        assert_int_equal(j->error.status, 400);
        assert_true(at > 0);
        for (uint32_t i = 0; i < WORDS; i++) any |= allowed[i];
        assert_int_equal(any, 0);
        assert_string_equal(j->error.param, tools ? "tools" : "response_format");
        assert_non_null(strstr(j->error.message, "too many ways are open"));
        assert_false(atomic_load(&j->cancelled)); // nobody went away
        serve_choice_ended(c, GYRE_STOP_BOUND);
        assert_int_equal(j->error.status, 400); // as it was told first
        serve_job_release(j);
    }
    gyre_vocabulary_destroy(vocabulary);
}

static void check(bool chat, bool embeds)
{
    const struct serve s = {.name = "tiny"};
    struct serve_job *j = job(chat, embeds);
    json_t *whole = serve_answer(&s, j), *answer = NULL;
    int failed = 0;
    assert_non_null(whole);
    serve_job_release(j);
    for (; !answer; failed++) {
        j = job(chat, embeds);
        left = failed;
        answer = serve_answer(&s, j);
        const bool fell = left < 0;
        left = -1;
        if (answer && fell) fail_msg("an answer in spite of failure %d: %s", failed, json_dumps(answer, 0));
        serve_job_release(j);
    }
    assert_true(json_equal(answer, whole));
    assert_true(failed > 20); // there were some
    json_decref(answer);
    json_decref(whole);
}

static void test_whole(void **state)
{
    (void)state;
    check(false, false);
    check(true, false);
    check(false, true);
}

// A stream's events likewise.
static void test_streams(void **state)
{
    (void)state;
    const struct serve s = {.name = "tiny"};
    bool done = false;
    for (int failed = 0; !done; failed++) {
        struct serve_job *j = job(true, false);
        struct serve_text text = {0};
        j->include_usage = true;
        left = failed;
        done = serve_answer_events(&s, j, &text);
        assert_true(!done || left >= 0);
        left = -1;
        if (done) assert_non_null(strstr(text.text, "[DONE]"));
        serve_text_free(&text);
        serve_job_release(j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_streams),
                                       cmocka_unit_test(test_dead_end), cmocka_unit_test(test_bound_that_fails)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
