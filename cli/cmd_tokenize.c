// gyre tokenize: a text's token ids, by the model's own tokenizer. Needs no device.
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv)
{
    const char *model = NULL, *prompt = NULL, *path = NULL;
    struct cli_tokens how = {0};
    bool json = false;
    const struct cli_option options[] = {
        {"-p", "TEXT", "the text itself", CLI_TEXT, &prompt, 0, 0, NULL},
        {"--text", "FILE", "a file with the text", CLI_TEXT, &path, 0, 0, NULL},
        CLI_TOKEN_OPTIONS(how),
        {"--json", NULL, "machine-readable output", CLI_FLAG, &json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_tokenize, options, sizeof options / sizeof *options, argc, argv, &model);
    if (stop >= 0) return stop;
    if (prompt && path) return cli_usage("options that exclude each other: -p and --text; give one of them");
    if (!prompt && !path)
        return cli_usage(
            "missing option (-p TEXT or --text FILE): gyre tokenize needs one of them; see gyre tokenize --help");
    if (how.bos && how.no_bos)
        return cli_usage("options that exclude each other: --bos and --no-bos; give one of them");
    gyre_error err = {0};
    const gyre_log log = cli_log(json);
    char *text = NULL;
    gyre_tokenizer *tokenizer = NULL;
    uint32_t *tokens = NULL;
    size_t bytes = 0, n = 0;
    gyre_status st = GYRE_OK;
    if (path) GYRE_GO(cli_read(path, &text, &bytes, &err));
    GYRE_GO(gyre_tokenizer_open(model, how.pre, &log, &tokenizer, &err));
    GYRE_GO(gyre_tokenize(tokenizer, path ? text : prompt, path ? bytes : strlen(prompt), cli_prompt_flags(&how),
                          &tokens, &n, &err));
done:
    gyre_tokenizer_close(tokenizer);
    free(text);
    if (st != GYRE_OK) return cli_fail(&err);
    int status = 0;
    if (json) {
        json_t *ids = json_array();
        for (size_t i = 0; i < n; i++) json_array_append_new(ids, json_integer(tokens[i]));
        status = cli_print_json(json_pack("{s:o}", "tokens", ids));
    } else {
        for (size_t i = 0; i < n; i++) printf("%u%c", tokens[i], i + 1 == n ? '\n' : ' ');
    }
    free(tokens);
    return status;
}

const struct cli_command cli_tokenize = {"tokenize", "MODEL", "Turn text into token ids", run, 1, false};
