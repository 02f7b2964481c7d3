// A model's answer (the first byte: syntax of calls, reasoning): its parts are the same wherever it is cut, and the
// arguments of every call that is told are a JSON object.
#include "tests/fuzz/target.h"

#include <gyre/gyre_tools.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char list[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"a\":{\"type\":\"integer\"},\"t\":{\"type\":\"string\"}}}}},{\"type\":\"function\",\"function\":{\"name\":"
    "\"stop\"}}]";

// Everything that is told, kind by kind; pieces of one kind in a row are one.
struct told {
    struct bytes all, arguments;
    int last;
};

static void end_part(struct told *t)
{
    if (t->last == GYRE_PART_ARGUMENTS) {
        json_t *value = json_loadb((const char *)t->arguments.data, t->arguments.size, JSON_ALLOW_NUL, NULL);
        if (!json_is_object(value)) abort();
        json_decref(value);
        t->arguments.size = 0;
    }
}

static void on_part(void *user, const gyre_part *part)
{
    struct told *t = user;
    if (t->last != (int)part->kind || part->kind == GYRE_PART_CALL) {
        end_part(t);
        put_u8(&t->all, (uint8_t)part->kind);
    }
    t->last = (int)part->kind;
    put(&t->all, part->text, part->bytes);
    if (part->kind == GYRE_PART_ARGUMENTS) put(&t->arguments, part->text, part->bytes);
}

static struct told read_in(const gyre_tools *tools, gyre_reasoning reasoning, const char *text, size_t size,
                           size_t step)
{
    struct told t = {.last = -1};
    gyre_answer *a = NULL;
    const gyre_answer_params params = {sizeof params, reasoning, false, on_part, &t};
    if (gyre_answer_create(tools, &params, &a, NULL) != GYRE_OK) exit(2);
    for (size_t at = 0; at < size; at += step)
        if (gyre_answer_push(a, text + at, size - at < step ? size - at : step, NULL) != GYRE_OK) exit(2);
    if (gyre_answer_finish(a, NULL) != GYRE_OK) exit(2);
    end_part(&t);
    gyre_answer_destroy(a);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gyre_tools *tools = NULL;
    if (size < 1) return 0;
    const gyre_reasoning reasoning = (gyre_reasoning)(data[0] / 3 % 3);
    if (gyre_tools_create(list, sizeof list - 1, (gyre_tool_syntax)(data[0] % 3), &tools, NULL) != GYRE_OK) exit(2);
    const char *text = (const char *)data + 1;
    struct told whole = read_in(tools, reasoning, text, size - 1, size);
    for (size_t step = 1; step < 6; step += 2) {
        struct told cut = read_in(tools, reasoning, text, size - 1, step);
        if (cut.all.size != whole.all.size || (cut.all.size && memcmp(cut.all.data, whole.all.data, cut.all.size) != 0))
            abort();
        free(cut.all.data);
        free(cut.arguments.data);
    }
    free(whole.all.data);
    free(whole.arguments.data);
    gyre_tools_destroy(tools);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    static const char *const seeds[] = {
        "Well. <tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"t\": "
        "\"}<\\\"\"}}\n</tool_call>\n<tool_call>{\"name\":\"stop\",\"arguments\":{}}</tool_call>",
        "<tool_call>\n<function=add>\n<parameter=a>\n5\n</parameter>\n<parameter=t>\nx < "
        "y\n</parameter>\n</function>\n</tool_call> then <function=stop></function>",
        "{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"stop\", \"parameters\": {}}",
        "<think>\nso it is\n</think>\n\n<tool_call>\n{\"arguments\": {}, \"name\": \"stop\"}\n</tool_call>",
    };
    const unsigned n = sizeof seeds / sizeof *seeds;
    if (i >= 9 * n) return false;
    put_u8(out, (uint8_t)(i / n));
    put(out, seeds[i % n], strlen(seeds[i % n]));
    return true;
}
