// Token masks equal those of llguidance, position by position (tests/data/make_grammar.py), on a vocabulary with
// merges.
#include "tests/grammar/lab.h"

#include "tests/common/files.h"
#include "tests/common/ok.h"

#include "runtime/util/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct lab lab;

static uint32_t hash_of(gyre_matcher *m)
{
    const uint32_t vocab = gyre_tokenizer_vocab(lab.tokenizer), words = (vocab + 31) / 32;
    uint32_t allowed[64], hash = 2166136261u;
    bool end = false;
    assert_true(words <= 64);
    OK(gyre_matcher_allow(m, allowed, words, err));
    for (uint32_t t = 0; t < vocab; t++) {
        const bool in = allowed[t / 32] >> t % 32 & 1;
        if (gyre_tokenizer_is_end(lab.tokenizer, t)) end |= in;
        else if (in) hash = (hash ^ t) * 16777619u;
    }
    return end ? (hash ^ UINT32_MAX) * 16777619u : hash;
}

static void test_masks(void **state)
{
    (void)state;
    char *text = NULL, *line, *rest = NULL, *schema = NULL, *way = NULL;
    uint64_t bytes;
    unsigned positions = 0;
    OK(gyre_file_read(GYRE_TEST_DATA "/grammar_masks.txt", 1 << 22, &text, &bytes, err));
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (*line == 'S') schema = line + 2;
        else if (*line == 'W') way = line + 1;
        if (*line != 'M') continue;
        const gyre_grammar_params params = {.size = sizeof params, .compact = true};
        gyre_grammar *g = NULL;
        gyre_matcher *m = NULL;
        assert_non_null(schema);
        assert_non_null(way);
        OK(gyre_grammar_of_schema(lab.vocabulary, schema, strlen(schema), &params, &g, err));
        OK(gyre_matcher_create(g, &m, err));
        char *hash = line + 1;
        for (unsigned at = 0;; at++, positions++) {
            const uint32_t due = (uint32_t)strtoul(hash, &hash, 16);
            if (hash_of(m) != due) fail_msg("%s: the mask before token %u of%s is another", schema, at, way);
            while (*way == ' ') way++;
            if (*way < '0' || *way > '9') break;
            OK(gyre_matcher_accept(m, (uint32_t)strtoul(way, &way, 10), err));
        }
        gyre_matcher_destroy(m);
        gyre_grammar_destroy(g);
    }
    assert_true(positions > 2000);
    free(text);
}

static int open_lab(void **state)
{
    (void)state;
    lab_open_json(&lab, files_path("grammar_masks"), GYRE_TEST_DATA "/tokenizer_llama3.json");
    return 0;
}

static int close_lab(void **state)
{
    (void)state;
    lab_close(&lab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks)};
    return cmocka_run_group_tests(tests, open_lab, close_lab);
}
