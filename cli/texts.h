// The texts that eval and compare are given: read, checked, tokenized, and looked up in a model's manifest.
#pragma once
#include "cli/args.h"
#include "runtime/util/sha256.h"

#include <gyre/gyre_eval.h>
#include <jansson.h>

struct cli_text {
    const char *path; // of the file
    char *name;       // as given, else the path's last component; malloc'd
    char sha256[GYRE_SHA256_HEX];
    char *bytes;
    size_t n_bytes, n_tokens;
    uint32_t *tokens; // NULL until cli_texts_tokenize
};
struct cli_texts {
    struct cli_text text[CLI_LIST_MAX];
    uint32_t n;
};

// The file that a text's argument names: NAME=FILE, or FILE alone. A NAME has no '/', so that ./a=b is a file.
const char *cli_text_path(const char *argument);
// Reads all files. Bytes that are no UTF-8 are evaluated as they are, after a line on stderr. Free with cli_texts_free,
// also after a failure.
gyre_status cli_texts_read(const struct cli_list *paths, struct cli_texts *out, gyre_error *err);
// Without BOS, or (bos_window > 0) with one at the beginning of every window of that many tokens.
gyre_status cli_texts_tokenize(struct cli_texts *texts, const gyre_engine *engine, uint32_t bos_window,
                               gyre_error *err);
void cli_texts_free(struct cli_texts *texts);

// As gyre_eval_texts takes them; out[CLI_LIST_MAX].
void cli_texts_for_eval(const struct cli_texts *texts, gyre_eval_text *out);

// calibrated[i]: the manifest beside `model` names text i among those it was calibrated on, or the file that it was
// made from. All false without a manifest that says so. out[CLI_LIST_MAX].
void cli_texts_calibrated(const struct cli_texts *texts, const char *model, bool *out);

// What --calib names. Returns -1 to go on; else the exit status, after a line on stderr: a text that is no file, named
// twice, would give the same windows twice.
int cli_calib_check(const struct cli_list *calib);
