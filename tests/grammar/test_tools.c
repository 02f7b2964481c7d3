// Calls of tools in three syntaxes: what their grammars accept, and what answers are read as, wherever they are cut.
#include "tests/grammar/lab.h"

#include "tests/common/files.h"
#include "tests/common/ok.h"

#include "runtime/util/base.h"

#include <gyre/gyre_tools.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct lab lab;

static const char list[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"d\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{"
    "\"a\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99},\"b\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"a\"],"
    "\"$defs\":{\"n\":{\"type\":\"integer\",\"maximum\":9,\"minimum\":0}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"say\",\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"text\":{\"type\":\"string\"},\"how\":{\"enum\":[\"loud\",\"low\"]},\"short\":{\"type\":\"string\",\"maxLength\":"
    "3},"
    "\"at\":{\"type\":[\"string\",\"null\"]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"stop\"}}]";

static gyre_tools *tools_of(gyre_tool_syntax syntax)
{
    gyre_tools *t = NULL;
    OK(gyre_tools_create(list, sizeof list - 1, syntax, &t, err));
    return t;
}

static gyre_grammar *grammar_of(gyre_tool_syntax syntax, gyre_tool_choice choice, const char *name, bool single,
                                gyre_reasoning reasoning)
{
    const gyre_tool_params params = {sizeof params, choice, name, single, reasoning};
    gyre_tools *t = tools_of(syntax);
    gyre_grammar *g = NULL;
    OK(gyre_grammar_of_tools(lab.vocabulary, t, &params, &g, err));
    gyre_tools_destroy(t);
    return g;
}

#define CALL "<tool_call>\n"
#define END "\n</tool_call>"

static const struct {
    gyre_tool_syntax syntax;
    gyre_tool_choice choice;
    const char *name;
    bool single;
    gyre_reasoning reasoning;
    const char *yes[6], *no[6], *begun[4];
} grammars[] = {
    {GYRE_TOOLS_HERMES,
     GYRE_CHOICE_REQUIRED,
     NULL,
     false,
     GYRE_REASONING_NONE,
     {CALL "{\"name\": \"add\", \"arguments\": {\"a\": 5}}" END,
      "<tool_call>{\"name\":\"stop\",\"arguments\":{}}</tool_call>",
      CALL "{\"name\": \"say\", \"arguments\": {\"text\": \"<b>\", \"at\": null}}" END "\n" CALL
           "{\"name\": \"stop\", \"arguments\": {}}" END,
      CALL "{\"name\": \"stop\", \"arguments\": {}}" END "\n"},
     {"x", " <tool_call>", CALL "{\"name\": \"sub", CALL "{\"name\": \"add\", \"arguments\": {}",
      CALL "{\"name\": \"add\", \"arguments\": {\"a\": 100", CALL "{\"name\": \"stop\", \"arguments\": {}}" END "\n\n"},
     {CALL, CALL "{\"name\": \"add\", \"arguments\": {\"a\": 5}}", ""}},
    {GYRE_TOOLS_HERMES,
     GYRE_CHOICE_REQUIRED,
     "stop",
     false,
     GYRE_REASONING_NONE,
     {CALL "{\"name\": \"stop\", \"arguments\": {}}" END},
     {CALL "{\"name\": \"add", CALL "{\"name\": \"stop\", \"arguments\": {}}" END "\n"},
     {""}},
    {GYRE_TOOLS_HERMES,
     GYRE_CHOICE_REQUIRED,
     NULL,
     true,
     GYRE_REASONING_OPEN,
     {"so <tool_call>\n</think>\n\n" CALL "{\"name\": \"stop\", \"arguments\": {}}" END},
     {"</think>x", "</think>" CALL "{\"name\": \"stop\", \"arguments\": {}}" END "\n<"},
     {"any", "</think>"}},
    {GYRE_TOOLS_HERMES,
     GYRE_CHOICE_REQUIRED,
     NULL,
     true,
     GYRE_REASONING_MAY,
     {"<think>x</think>" CALL "{\"name\": \"stop\", \"arguments\": {}}" END,
      CALL "{\"name\": \"stop\", \"arguments\": {}}" END},
     {"x"},
     {"<t"}},
    {GYRE_TOOLS_HERMES,
     GYRE_CHOICE_AUTO,
     NULL,
     false,
     GYRE_REASONING_NONE,
     {"", "anything <tool>", "well: " CALL "{\"name\": \"stop\", \"arguments\": {}}" END "\n", "\xC3\xA9<tool_call"},
     {CALL "x", "a" CALL "{\"name\": \"sub", CALL "{\"name\": \"stop\", \"arguments\": {}}" END " more"},
     {CALL, "a" CALL "{\"name\": \"stop\""}},
    {GYRE_TOOLS_XML,
     GYRE_CHOICE_REQUIRED,
     NULL,
     false,
     GYRE_REASONING_NONE,
     {CALL "<function=add>\n<parameter=a>\n5\n</parameter>\n</function>" END, CALL "<function=stop>\n</function>" END,
      CALL "<function=say>\n<parameter=text>\na <b> "
           "\"c\n\n</parameter>\n<parameter=how>\nlow\n</parameter>\n<parameter=short>\nabc\n</"
           "parameter>\n<parameter=at>\n\"x\"\n</parameter>\n</function>" END},
     {CALL "<function=add>\n</function>", CALL "<function=add>\n<parameter=a>\n100",
      CALL "<function=say>\n<parameter=short>\nabcd", CALL "<function=say>\n<parameter=how>\nx",
      CALL "<function=stop>\n<p"},
     {CALL "<function=say>\n<parameter=text>\n"}},
    {GYRE_TOOLS_LLAMA3,
     GYRE_CHOICE_REQUIRED,
     NULL,
     false,
     GYRE_REASONING_NONE,
     {"{\"name\": \"add\", \"parameters\": {\"a\": 1}}",
      "{\"name\": \"stop\", \"parameters\": {}}; {\"name\": \"stop\", \"parameters\": {}}"},
     {"[", "{\"name\": \"x"},
     {"{"}},
    {GYRE_TOOLS_LLAMA3,
     GYRE_CHOICE_AUTO,
     NULL,
     false,
     GYRE_REASONING_NONE,
     {"", "text {\"name\": 1", "{\"x\": 1}", "{\"name\": \"stop\", \"parameters\": {}}"},
     {"{\"name\": 1", "{\"name\":5"},
     {"{\"name\": \"stop\""}},
};

static void test_grammars(void **state)
{
    (void)state;
    for (size_t i = 0; i < GYRE_COUNT(grammars); i++) {
        gyre_grammar *g = grammar_of(grammars[i].syntax, grammars[i].choice, grammars[i].name, grammars[i].single,
                                     grammars[i].reasoning);
        for (size_t k = 0; k < 6 && grammars[i].yes[k]; k++)
            if (lab_accepts(&lab, g, grammars[i].yes[k]) != 1)
                fail_msg("%zu does not accept %s", i, grammars[i].yes[k]);
        for (size_t k = 0; k < 6 && grammars[i].no[k]; k++)
            if (lab_accepts(&lab, g, grammars[i].no[k]) != -1) fail_msg("%zu takes %s", i, grammars[i].no[k]);
        for (size_t k = 0; k < 4 && grammars[i].begun[k]; k++)
            if (lab_accepts(&lab, g, grammars[i].begun[k]) != 0)
                fail_msg("%zu: %s is no beginning, or whole", i, grammars[i].begun[k]);
        gyre_grammar_destroy(g);
    }
}

// ---- answers: parts as one text, "C[content]R[reasoning]#name(arguments)" -------------------------------------------

struct told {
    char text[4096];
    size_t n;
    int last; // kind of the part that is open; -1: none
};

static void on_part(void *user, const gyre_part *part)
{
    struct told *t = user;
    if (t->last != (int)part->kind || part->kind == GYRE_PART_CALL) {
        static const char *const opens[] = {"C[", "R[", "#", "("}, *const closes[] = {"]", "]", "", ")"};
        if (t->last >= 0) t->n += (size_t)sprintf(t->text + t->n, "%s", closes[t->last]);
        t->n += (size_t)sprintf(t->text + t->n, "%s", opens[part->kind]);
        t->last = (int)part->kind;
    }
    assert_true(t->n + part->bytes + 8 < sizeof t->text);
    memcpy(t->text + t->n, part->text, part->bytes);
    t->n += part->bytes;
    t->text[t->n] = 0;
}

// The parts of a text that comes in pieces of `step` bytes.
static void read_answer(const gyre_tools *tools, gyre_reasoning reasoning, bool live, const char *text, size_t step,
                        struct told *told)
{
    gyre_answer *a = NULL;
    *told = (struct told){.last = -1};
    const gyre_answer_params params = {sizeof params, reasoning, live, on_part, told};
    OK(gyre_answer_create(tools, &params, &a, err));
    for (size_t at = 0, n = strlen(text); at < n; at += step)
        OK(gyre_answer_push(a, text + at, GYRE_MIN(step, n - at), err));
    OK(gyre_answer_finish(a, err));
    gyre_answer_destroy(a);
    static const char *const closes[] = {"]", "]", "", ")"};
    if (told->last >= 0) sprintf(told->text + told->n, "%s", closes[told->last]);
}

static const struct {
    gyre_tool_syntax syntax;
    gyre_reasoning reasoning;
    const char *text, *parts, *live; // live NULL: the same
} answers[] = {
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, "just text", "C[just text]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, "\n\n just < text <tool", "C[\n\n just < text <tool]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{\"name\": \"add\", \"arguments\": {\"a\": 1}}" END,
     "#add({\"a\": 1})", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE,
     "\n" CALL "{\"arguments\": {\"a\": \"}\\\"{\"}, \"name\": \"add\"}" END "\n", "#add({\"a\": \"}\\\"{\"})", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE,
     "I will. " CALL "{\"name\": \"add\", \"arguments\": {\"a\": 1}}" END "\n" CALL
     "{\"name\":\"stop\",\"arguments\":{}}" END,
     "C[I will. ]#add({\"a\": 1})#stop({})", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{\"name\": \"stop\", \"arguments\": {}}" END "\nDone.",
     "#stop({})C[Done.]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{\"name\": \"fly\", \"arguments\": {}}" END,
     "C[" CALL "{\"name\": \"fly\", \"arguments\": {}}" END "]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{broken}" END " x", "C[" CALL "{broken}" END " x]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "no call" END, "C[" CALL "no call" END "]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{\"name\": \"add\", \"arguments\": [1]}" END,
     "C[" CALL "{\"name\": \"add\", \"arguments\": [1]}" END "]", "#add([1])C[" END "]"},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{\"name\": \"add\", \"arguments\": {\"a\": 1",
     "C[" CALL "{\"name\": \"add\", \"arguments\": {\"a\": 1]", "#add({\"a\": 1)"},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, CALL "{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_c",
     "#add({\"a\": 1})", NULL},
    // What the reader of JSON does not know is passed on as it is written.
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE,
     CALL "{\"name\": \"add\", \"arguments\": {\"a\": 12345678901234567890, \"\\u0000\": [-9223372036854775809]}}" END,
     "#add({\"a\": 12345678901234567890, \"\\u0000\": [-9223372036854775809]})", NULL},
    {GYRE_TOOLS_XML, GYRE_REASONING_NONE,
     "<function=add><parameter=a>12345678901234567890</parameter><parameter=b>[1, {\"\\u0000\": 2}]"
     "</parameter></function>",
     "#add({\"a\": 12345678901234567890, \"b\": [1, {\"\\u0000\": 2}]})", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_NONE, "<think>x</think>", "C[<think>x</think>]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_MAY, "<think>\nso <tool_call> it\n</think>\n\nyes", "R[so <tool_call> it]C[yes]",
     NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_MAY, " <thin", "C[ <thin]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_MAY, "yes <think>", "C[yes <think>]", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_OPEN,
     "\nso\n\nit is\n</think>\n\n" CALL "{\"name\":\"stop\",\"arguments\":{}}" END, "R[so\n\nit is]#stop({})", NULL},
    {GYRE_TOOLS_HERMES, GYRE_REASONING_OPEN, "never ends", "R[never ends]", NULL},
    {GYRE_TOOLS_XML, GYRE_REASONING_NONE,
     "Ok\n" CALL "<function=say>\n<parameter=text>\nline "
     "\"1\"\n\n</parameter>\n<parameter=at>\nnull\n</parameter>\n</function>" END,
     "C[Ok\n]#say({\"text\": \"line \\\"1\\\"\\n\", \"at\": null})", NULL},
    {GYRE_TOOLS_XML, GYRE_REASONING_NONE,
     "<function=add><parameter=a>5</parameter><parameter=b>x</parameter></function>", "#add({\"a\": 5, \"b\": \"x\"})",
     NULL},
    {GYRE_TOOLS_XML, GYRE_REASONING_NONE,
     CALL "<function=stop>\n</function>" END CALL "<function=stop>\n</function>" END, "#stop({})#stop({})", NULL},
    {GYRE_TOOLS_XML, GYRE_REASONING_NONE, CALL "<function=fly>\n</function>" END,
     "C[" CALL "<function=fly>\n</function>" END "]", NULL},
    {GYRE_TOOLS_XML, GYRE_REASONING_NONE, "<function=add>\n<x>", "C[<function=add>\n<x>]", NULL},
    {GYRE_TOOLS_LLAMA3, GYRE_REASONING_NONE,
     "{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"stop\", \"parameters\": {}}",
     "#add({\"a\": 1})#stop({})", NULL},
    {GYRE_TOOLS_LLAMA3, GYRE_REASONING_NONE, "<|python_tag|>{\"name\": \"stop\", \"parameters\": {}}", "#stop({})",
     NULL},
    {GYRE_TOOLS_LLAMA3, GYRE_REASONING_NONE, "{\"x\": 1} is JSON", "C[{\"x\": 1} is JSON]", NULL},
    {GYRE_TOOLS_LLAMA3, GYRE_REASONING_NONE, "See {\"name\": \"stop\", \"parameters\": {}}",
     "C[See {\"name\": \"stop\", \"parameters\": {}}]", NULL},
};

static void test_answers(void **state)
{
    (void)state;
    struct told told;
    for (size_t i = 0; i < GYRE_COUNT(answers); i++) {
        gyre_tools *t = tools_of(answers[i].syntax);
        for (size_t step = 1; step < 60; step += step < 8 ? 1 : 17)
            for (int live = 0; live < 2; live++) {
                const char *due = live && answers[i].live ? answers[i].live : answers[i].parts;
                read_answer(t, answers[i].reasoning, live, answers[i].text, step, &told);
                // What is told live depends on where it is cut, where the call turns out to be none.
                if (live && answers[i].live && strstr(answers[i].live, "C[")) continue;
                if (strcmp(told.text, due) != 0)
                    fail_msg("%s\nin pieces of %zu%s is\n%s, not\n%s", answers[i].text, step, live ? ", live," : "",
                             told.text, due);
            }
        gyre_tools_destroy(t);
    }
    read_answer(NULL, GYRE_REASONING_NONE, false, CALL "{\"name\": \"stop\", \"arguments\": {}}" END, 3, &told);
    assert_string_equal(told.text,
                        "C[" CALL "{\"name\": \"stop\", \"arguments\": {}}" END "]"); // nobody looks for calls
}

// Whatever a grammar lets through is read as calls that fit, in every syntax.
static void test_walks(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(11);
    json_t *functions = json_loads(list, 0, NULL);
    unsigned calls = 0;
    for (unsigned i = 0; i < 90; i++) {
        const gyre_tool_syntax syntax = (gyre_tool_syntax)(i % 3);
        gyre_grammar *g = grammar_of(syntax, GYRE_CHOICE_REQUIRED, NULL, true, GYRE_REASONING_NONE);
        gyre_tools *t = tools_of(syntax);
        struct told told;
        bool whole;
        char *text = lab_walk(&lab, g, &rng, 300, &whole);
        read_answer(t, GYRE_REASONING_NONE, true, text, 5, &told);
        char *open = strchr(told.text, '(');
        if (whole && (told.text[0] != '#' || !open)) fail_msg("%s is read as %s", text, told.text);
        if (whole) {
            const size_t n = strlen(open + 1) - 1;
            *open = 0;
            json_t *arguments = json_loadb(open + 1, n, JSON_ALLOW_NUL, NULL), *f;
            size_t k;
            if (!arguments) fail_msg("%s: %s is no JSON", text, open + 1);
            json_array_foreach(functions, k, f)
            {
                const json_t *function = json_object_get(f, "function"),
                             *schema = json_object_get(function, "parameters");
                if (strcmp(json_string_value(json_object_get(function, "name")), told.text + 1) != 0 || !schema)
                    continue;
                const char *why = lab_violates(arguments, schema, schema);
                if (why) fail_msg("%s: %s", text, why);
            }
            json_decref(arguments);
            calls++;
        }
        free(text);
        gyre_tools_destroy(t);
        gyre_grammar_destroy(g);
    }
    assert_true(calls > 40);
    json_decref(functions);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"{}", "list"},
        {"[]", "list"},
        {"5", "list"},
        {"[", "line 1"},
        {"[1]", "number 0"},
        {"[{\"type\":\"function\"}]", "number 0"},
        {"[{\"type\":\"x\",\"function\":{\"name\":\"a\"}}]", "number 0"},
        {"[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]", "name"},
        {"[{\"type\":\"function\",\"function\":{\"name\":\"\"}}]", "name"},
        {"[{\"type\":\"function\",\"function\":{}}]", "name"},
        {"[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"parameters\":5}}]", "no JSON Schema"},
        {"[{\"type\":\"function\",\"function\":{\"name\":\"a\"}},{\"type\":\"function\",\"function\":{\"name\":\"a\"}}"
         "]",
         "two"},
    };
    gyre_error why = {0};
    for (size_t i = 0; i < GYRE_COUNT(wrong); i++) {
        gyre_tools *t = NULL;
        if (gyre_tools_create(wrong[i][0], strlen(wrong[i][0]), GYRE_TOOLS_HERMES, &t, &why) != GYRE_E_FORMAT || t)
            fail_msg("%s: %s", wrong[i][0], why.message);
        if (!strstr(why.message, wrong[i][1]))
            fail_msg("%s: \"%s\" does not say %s", wrong[i][0], why.message, wrong[i][1]);
    }
    static const char bad[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"
                              "\"object\",\"properties\":{\"x\":{\"not\":{}}}}}}]";
    for (unsigned syntax = 0; syntax < 3; syntax++) {
        gyre_tools *t = NULL;
        gyre_grammar *g = NULL;
        OK(gyre_tools_create(bad, sizeof bad - 1, (gyre_tool_syntax)syntax, &t, err));
        assert_int_equal(gyre_grammar_of_tools(lab.vocabulary, t, NULL, &g, &why), GYRE_E_UNSUPPORTED);
        if (!strstr(why.message, "tool f") || !strstr(why.message, "\"not\"") || !strstr(why.message, "/properties/x"))
            fail_msg("%s", why.message);
        const gyre_tool_params params = {.size = sizeof params, .choice = GYRE_CHOICE_REQUIRED, .name = "g"};
        assert_int_equal(gyre_grammar_of_tools(lab.vocabulary, t, &params, &g, &why), GYRE_E_INVALID);
        assert_null(g);
        gyre_tools_destroy(t);
    }
}

// What answers are not read with must not be written: names over 128 bytes. Lengths that exclude each other have no
// text.
static void test_xml_parameters(void **state)
{
    (void)state;
    static const char *const values[] = {"{\"type\":\"string\"}",
                                         "{\"type\":\"string\",\"minLength\":5,\"maxLength\":2}",
                                         "{\"type\":\"string\",\"pattern\":\"^a*$\",\"minLength\":5,\"maxLength\":2}"};
    for (unsigned i = 0; i < GYRE_COUNT(values) + 1; i++) {
        const bool longer = i == GYRE_COUNT(values);
        char name[160], json[512];
        gyre_tools *t = NULL;
        gyre_grammar *g = NULL;
        gyre_error why = {0};
        memset(name, 'x', sizeof name);
        name[longer ? 129 : 128] = 0;
        snprintf(json, sizeof json,
                 "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
                 "\"required\":[\"%s\"],\"properties\":{\"%s\":%s}}}}]",
                 name, name, values[longer ? 0 : i]);
        OK(gyre_tools_create(json, strlen(json), GYRE_TOOLS_XML, &t, err));
        const gyre_tool_params params = {.size = sizeof params, .choice = GYRE_CHOICE_REQUIRED};
        const gyre_status st = gyre_grammar_of_tools(lab.vocabulary, t, &params, &g, &why);
        char call[512];
        snprintf(call, sizeof call, "<tool_call>\n<function=f>\n<parameter=%s>\naa", name);
        if (longer) assert_true(st == GYRE_E_UNSUPPORTED && strstr(why.message, "128 bytes") && !g);
        else if (i) assert_true(st == GYRE_E_UNSUPPORTED && strstr(why.message, "no finite value") && !g);
        else if (st != GYRE_OK) fail_msg("%s", why.message);
        else assert_int_equal(lab_accepts(&lab, g, call), 0);
        gyre_grammar_destroy(g);
        gyre_tools_destroy(t);
    }
}

static void test_syntax(void **state)
{
    (void)state;
    assert_int_equal(gyre_tool_syntax_of(NULL), GYRE_TOOLS_HERMES);
    assert_int_equal(gyre_tool_syntax_of("{{ messages }}"), GYRE_TOOLS_HERMES);
    assert_int_equal(gyre_tool_syntax_of("within <tool_call></tool_call> XML tags"), GYRE_TOOLS_HERMES);
    assert_int_equal(gyre_tool_syntax_of("<tool_call>\\n<function=example>"), GYRE_TOOLS_XML);
    assert_int_equal(gyre_tool_syntax_of("Respond in the format {\"name\": function name, \"parameters\": dictionary}"),
                     GYRE_TOOLS_LLAMA3);
}

static int open_lab(void **state)
{
    (void)state;
    lab_open(&lab, files_path("grammar_tools"));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_grammars), cmocka_unit_test(test_answers),
                                       cmocka_unit_test(test_walks),    cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_syntax),   cmocka_unit_test(test_xml_parameters)};
    return cmocka_run_group_tests(tests, open_lab, close_lab);
}
