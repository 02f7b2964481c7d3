// gyre template: fills a chat template with a conversation. Needs no device.
#include "cli/cli.h"
#include "cli/json.h"
#include "runtime/util/json_wide.h"
#include "runtime/util/utf8.h"

#include <gyre/gyre_chat.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// A model, or a text?
static bool is_model(const char *path)
{
    struct stat info;
    char magic[4] = {0};
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return true;
    FILE *file = fopen(path, "rb");
    const bool gguf = file && fread(magic, 1, 4, file) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (file) fclose(file);
    return gguf;
}

// The time that the template is told: SOURCE_DATE_EPOCH's; 0 where that is not set: the clock's.
static gyre_status told_time(int64_t *now, gyre_error *err)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    char *end = NULL;
    errno = 0;
    *now = text ? strtoll(text, &end, 10) : 0;
    if (!text || (end != text && !*end && *now > 0 && errno == 0)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_INVALID,
                     "cannot tell the time (SOURCE_DATE_EPOCH=%s): it is no number of seconds above 0; give one, or "
                     "unset it",
                     gyre_show(text, strlen(text)).text);
}

// Runs of bytes with one origin, as JSON.
static json_t *spans(const gyre_rendering *r)
{
    json_t *list = json_array();
    for (size_t i = 0, end; i < r->bytes; i = end) {
        for (end = i + 1; end < r->bytes && r->plain[end] == r->plain[i];) end++;
        json_array_append_new(list,
                              json_pack("{s:s#, s:b}", "text", r->text + i, (int)(end - i), "plain", r->plain[i]));
    }
    return list;
}

// The ids that the model is given.
static gyre_status tokens_of(const char *model, const gyre_rendering *made, json_t *out, gyre_error *err)
{
    const gyre_log log = cli_log(true);
    gyre_tokenizer *tokenizer = NULL;
    uint32_t *tokens = NULL;
    size_t n = 0;
    GYRE_TRY(gyre_tokenizer_open(model, NULL, &log, &tokenizer, err));
    const gyre_status st = gyre_tokenize_rendering(tokenizer, made, &tokens, &n, err);
    for (size_t i = 0; st == GYRE_OK && i < n; i++) json_array_append_new(out, json_integer(tokens[i]));
    gyre_tokenizer_close(tokenizer);
    gyre_free(tokens);
    return st;
}

// The conversation's text, which is an object in JSON.
static gyre_status read_talk(const char *path, char **text, size_t *bytes, gyre_error *err)
{
    json_error_t why;
    GYRE_TRY(cli_read(path, text, bytes, err));
    json_t *talk = gyre_json_load_wide(*text, *bytes, 0, &why);
    const bool object = json_is_object(talk), other = talk && !object;
    json_decref(talk);
    if (object) return GYRE_OK;
    if (other)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read conversation (%s): it is no JSON object; write {\"messages\": [...]}", path);
    for (char *c = why.text; *c; c++) // it may quote the text
        if ((unsigned char)*c < 32 || *c == 127) *c = '?';
    return gyre_fail(err, GYRE_E_FORMAT, "cannot read conversation (%s, line %d, column %d): %s; mend the JSON", path,
                     why.line, why.column, why.text);
}

static int run(int argc, char **argv)
{
    const char *path = NULL, *talk = NULL, *choice = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--json-file", "FILE", "the conversation: an object with messages and other variables of the template",
         CLI_TEXT, &talk, 0, 0, NULL},
        {"--chat-template", "FILE|NAME", "the template to use with a model, in place of its own", CLI_TEXT, &choice, 0,
         0, NULL},
        {"--json", NULL, "the text in parts, with where each came from, and a model's tokens", CLI_FLAG, &json, 0, 0,
         NULL},
    };
    const int stop = cli_parse(&cli_template, options, sizeof options / sizeof *options, argc, argv, &path);
    if (stop >= 0) return stop;
    if (!talk)
        return cli_usage(
            "missing option (--json-file FILE): gyre template needs a conversation; see gyre template --help");
    gyre_error err = {0};
    gyre_template *t = NULL;
    gyre_rendering made = {0};
    char *text = NULL;
    size_t bytes = 0;
    gyre_status st = GYRE_OK;
    int status = 0;
    gyre_render_params params = {.size = sizeof params, .as_is = true};
    const bool model = is_model(path);
    if (choice && !model) {
        st = gyre_fail(&err, GYRE_E_INVALID, "cannot use --chat-template (%s): %s is no model", choice, path);
        goto done;
    }
    GYRE_GO(told_time(&params.now, &err));
    GYRE_GO(gyre_template_open(model ? path : NULL, model ? choice : path, &t, &err));
    GYRE_GO(read_talk(talk, &text, &bytes, &err));
    GYRE_GO(gyre_template_render(t, text, bytes, &params, &made, &err));
    if (json) {
        json_t *tokens = json_array();
        if (model) st = tokens_of(path, &made, tokens, &err);
        json_t *all = json_pack("{s:o, s:o, s:o}", "spans", spans(&made), "tokens", tokens, "template",
                                cli_json_text(gyre_template_origin(t)));
        if (st == GYRE_OK) status = cli_print_json(all);
        else json_decref(all);
    } else {
        fwrite(made.text, 1, made.bytes, stdout);
    }
done:
    gyre_rendering_free(&made);
    gyre_template_close(t);
    free(text);
    return st == GYRE_OK ? status : cli_fail(&err);
}

const struct cli_command cli_template = {"template", "FILE|MODEL", "Fill a chat template with a conversation", run,
                                         1,          false};
