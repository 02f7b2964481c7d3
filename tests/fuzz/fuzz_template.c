// A chat template, filled with a small conversation: it renders, or fails with one line; what it renders is as long as
// it says and has marks for all of it. Bytes that are no UTF-8 are made characters first, unless the first byte is FF.
#include "tests/fuzz/common.h"

#include "runtime/text/jinja/jinja.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *conversation(void)
{
    static json_t *made;
    if (!made)
        made = json_pack("{s:[{s:s, s:s}, {s:s, s:s, s:[{s:{s:s, s:{s:i}}}]}], s:[{s:s}], s:b, s:f, s:n, s:s}",
                         "messages", "role", "user", "content", "h\xC3\xA9 <|x|> 'q'", "role", "assistant", "content",
                         "b", "tool_calls", "function", "name", "f", "arguments", "a", 1, "tools", "name", "f",
                         "add_generation_prompt", 1, "f", 1.5, "n", "s", "a b c");
    return made;
}

static void try_template(const char *text, size_t size)
{
    gyre_jinja *jinja = NULL;
    struct gyre_jinja_variable v[16];
    struct gyre_marked out = {0};
    gyre_error err = {0};
    const char *key;
    json_t *value;
    uint64_t n = 0;
    json_object_foreach(conversation(), key, value) v[n++] = (struct gyre_jinja_variable){key, value, true};
    gyre_status st = gyre_jinja_parse("fuzz", text, size, &jinja, &err);
    if (st == GYRE_OK) st = gyre_jinja_render(jinja, v, n, 0, &out, &err);
    if (st != GYRE_OK && (!err.message[0] || strchr(err.message, '\n'))) abort();
    if (st == GYRE_OK && out.text[out.bytes]) abort();
    for (uint64_t i = 0; i < out.bytes; i++)
        if (out.plain[i] > 1) abort();
    gyre_marked_free(&out);
    gyre_jinja_free(jinja);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gyre_utf8_stream stream = {0};
    if (size && data[0] == 0xFF) {
        try_template((const char *)data + 1, size - 1);
        return 0;
    }
    char *valid = malloc(3 * size + 32);
    if (!valid) return 0;
    uint64_t n = gyre_utf8_stream_push(&stream, (const char *)data, size, valid);
    n += gyre_utf8_stream_flush(&stream, valid + n);
    try_template(valid, n);
    free(valid);
    return 0;
}

// The templates, then every third of the lines.
bool fuzz_seed(unsigned i, struct bytes *out)
{
    static const char *const files[] = {"chatml_tools", "headers", "types"}, between[] = "\n---\n";
    enum { FILES = sizeof files / sizeof *files };
    char path[1024];
    struct bytes all = {0};
    if (i < FILES) {
        snprintf(path, sizeof path, GYRE_TEST_DATA "/templates/%s.jinja", files[i]);
        append_file(path, out);
        return true;
    }
    append_file(GYRE_TEST_DATA "/template_lines.txt", &all);
    put_u8(&all, 0);
    const char *line = (const char *)all.data, *end = strstr(line, between);
    for (unsigned k = 0; k < 3 * (i - FILES) && end; k++) {
        line = end + strlen(between);
        end = strstr(line, between);
    }
    if (end) put(out, line, (size_t)(end - line));
    free(all.data);
    return end != NULL;
}
