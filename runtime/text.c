// The public text verbs: thin over the tokenizer of the model layer.
#include "runtime/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert((int)GYRE_TEXT_SPECIAL == GYRE_ENCODE_SPECIAL && (int)GYRE_TEXT_AROUND == GYRE_ENCODE_AROUND &&
                  (int)GYRE_TEXT_BOS == GYRE_ENCODE_BOS && (int)GYRE_TEXT_NO_BOS == GYRE_ENCODE_NO_BOS,
              "the public flags are the tokenizer's");

gyre_status gyre_tokenize(const gyre_tokenizer *tokenizer, const char *text, size_t bytes, uint32_t flags,
                          uint32_t **tokens, size_t *n, gyre_error *err)
{
    uint64_t count = 0;
    if (!tokenizer)
        return gyre_fail(err, GYRE_E_INVALID, "cannot tokenize: the engine's model is a shape without text");
    const gyre_status st = gyre_tokenizer_encode(tokenizer, text, bytes, flags, tokens, &count, err);
    *n = count;
    return st;
}

gyre_status gyre_tokenizer_open(const char *model_path, const char *pre, const gyre_log *log, gyre_tokenizer **out,
                                gyre_error *err)
{
    gyre_source *source = NULL;
    *out = NULL;
    GYRE_TRY(gyre_source_look(model_path, &source, err));
    const gyre_status st = gyre_tokenizer_create(source, pre, log, out, err);
    gyre_source_close(source);
    return st;
}

void gyre_tokenizer_close(gyre_tokenizer *tokenizer) { gyre_tokenizer_destroy(tokenizer); }
const gyre_tokenizer *gyre_engine_tokenizer(const gyre_engine *engine) { return engine->tokenizer; }

bool gyre_token_is_end(const gyre_tokenizer *tokenizer, uint32_t token)
{
    return tokenizer && gyre_tokenizer_is_end(tokenizer, token);
}
bool gyre_token_is_special(const gyre_tokenizer *tokenizer, uint32_t token)
{
    return tokenizer && gyre_tokenizer_is_special(tokenizer, token);
}

const char *gyre_token_bytes(const gyre_tokenizer *tokenizer, uint32_t token, size_t *n)
{
    uint32_t bytes = 0;
    const char *at = gyre_tokenizer_bytes(tokenizer, token, &bytes);
    *n = at ? bytes : 0;
    return at;
}

int64_t gyre_token_bos(const gyre_tokenizer *tokenizer) { return gyre_tokenizer_bos(tokenizer); }
int64_t gyre_token_eos(const gyre_tokenizer *tokenizer) { return gyre_tokenizer_eos(tokenizer); }

size_t gyre_text_push(const gyre_tokenizer *tokenizer, gyre_text_stream *stream, uint32_t token, bool special,
                      char *out, size_t cap)
{
    uint32_t n = 0;
    const char *bytes = tokenizer ? gyre_tokenizer_bytes(tokenizer, token, &n) : NULL;
    if (!bytes || (!special && gyre_tokenizer_is_special(tokenizer, token))) return 0;
    if (cap < 16) return 0;
    n = n > (cap - 16) / 3 ? (uint32_t)((cap - 16) / 3) : n; // longer than any token: cut rather than overrun
    struct gyre_utf8_stream s;
    memcpy(s.pending, stream->pending, sizeof s.pending);
    s.n = stream->n;
    const size_t written = gyre_utf8_stream_push(&s, bytes, n, out);
    memcpy(stream->pending, s.pending, sizeof s.pending);
    stream->n = s.n;
    return written;
}

size_t gyre_text_flush(gyre_text_stream *stream, char *out, size_t cap)
{
    struct gyre_utf8_stream s = {.n = stream->n};
    memcpy(s.pending, stream->pending, sizeof s.pending);
    stream->n = 0;
    return cap < 16 ? 0 : gyre_utf8_stream_flush(&s, out);
}
