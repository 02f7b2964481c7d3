// Which of a model's files its tokenizer is made from. See tokenizer.h.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/log.h"

#include <stdlib.h>
#include <string.h>

// The tokenizer.json to use; *text stays NULL where GGUF's keys are the tokenizer.
static gyre_status find_json(const gyre_source *source, const char **text, uint64_t *bytes, gyre_error *err)
{
    *text = gyre_source_file(source, "tokenizer.json", bytes);
    if (*text || gyre_source_has(source, "tokenizer.ggml.model")) return GYRE_OK;
    // A file made from a directory whose tokenizer GGUF's keys cannot express.
    GYRE_TRY(gyre_source_string(source, "tokenizer.huggingface.json", text, err));
    *bytes = *text ? strlen(*text) : 0;
    return GYRE_OK;
}

// What reads patterns and steps does not know whose they are.
static gyre_status name_model(gyre_status st, const char *path, gyre_error *err)
{
    static const char begin[] = "cannot use tokenizer: ";
    if (st == GYRE_OK || !err || strncmp(err->message, begin, sizeof begin - 1) != 0) return st;
    const gyre_error why = *err;
    return gyre_fail(err, st, "cannot use tokenizer (%s): %s", path, why.message + sizeof begin - 1);
}

gyre_status gyre_tokenizer_create(const gyre_source *source, const char *pre, const gyre_log *log, gyre_tokenizer **out,
                                  gyre_error *err)
{
    const char *path = gyre_source_path(source), *json;
    struct tokenizer_settings settings;
    gyre_status st = GYRE_OK;
    uint64_t bytes;
    *out = NULL;
    gyre_tokenizer *tokenizer = gyre_tokenizer_new();
    if (!tokenizer) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
    GYRE_GO(gyre_tokenizer_settings(source, &settings, err));
    GYRE_GO(find_json(source, &json, &bytes, err));
    if (json && pre)
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID,
                          "cannot use pre-tokenizer %s (%s): the model's tokenizer.json has its own; leave --pre out",
                          pre, path));
    if (json) {
        GYRE_GO(gyre_tokenizer_from_json(path, json, bytes, tokenizer, NULL, err));
    } else {
        bool adds_bos = false;
        GYRE_GO(gyre_tokenizer_from_gguf(source, pre, log, tokenizer, &adds_bos, err));
        if (settings.add_bos == UNSAID && adds_bos && settings.bos >= 0) settings.add_bos = SAID_YES;
        if (settings.add_bos == UNSAID && adds_bos && log)
            gyre_logf(log, GYRE_LOG_WARN,
                      "tokenizer: %s names no BOS (tokenizer.ggml.bos_token_id), which models with its pre-tokenizer "
                      "have; none is added",
                      path);
    }
    GYRE_GO(gyre_tokenizer_apply(tokenizer, &settings, path, err));
    *out = tokenizer;
    tokenizer = NULL;
done:
    gyre_tokenizer_destroy(tokenizer);
    return name_model(st, path, err);
}
