// See text.h.
#include "quantizer/pass/text.h"
#include "quantizer/pass/bundled_text.h"
#include "runtime/model/roles.h"
#include "runtime/source/json_file.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/utf8.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 256 << 20 };

static gyre_status check_utf8(const char *name, const char *text, uint64_t bytes, gyre_error *err)
{
    uint32_t code;
    for (uint64_t at = 0; at < bytes;) {
        const int n = gyre_utf8_look(text + at, bytes - at, &code);
        if (n <= 0)
            return gyre_fail(
                err, GYRE_E_FORMAT,
                "cannot calibrate (%s): the text is not UTF-8 at byte %llu; convert it or give another text", name,
                (unsigned long long)at);
        at += (uint64_t)n;
    }
    return GYRE_OK;
}

// `most` windows at most of the text's n tokens, evenly over it; how many there are. Their tokens are taken out of it.
static uint32_t take_evenly(uint32_t *token, uint64_t *n, uint32_t most, uint32_t tokens, uint32_t *window)
{
    const uint64_t windows = GYRE_MIN((uint64_t)most, *n / tokens), slack = *n - windows * tokens;
    uint64_t left = 0, behind = 0; // the last window
    for (uint64_t w = 0; w < windows; w++) {
        const uint64_t first = w * tokens + (windows > 1 ? w * slack / (windows - 1) : 0);
        memcpy(window + w * tokens, token + first, tokens * sizeof *token);
        memmove(token + left, token + behind, (first - behind) * sizeof *token);
        left += first - behind;
        behind = first + tokens;
    }
    memmove(token + left, token + behind, (*n - behind) * sizeof *token);
    *n = left + *n - behind;
    return (uint32_t)windows;
}

static gyre_status check_vocab(const char *name, const uint32_t *token, uint64_t n, uint32_t vocab, gyre_error *err)
{
    for (uint64_t i = 0; i < n; i++)
        if (token[i] >= vocab)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot calibrate (%s): the tokenizer gives token %u, the model's table has %u rows; its "
                             "files do not belong together",
                             name, token[i], vocab);
    return GYRE_OK;
}

// How many windows a text is to give; `more` is where those go that distill alone reads.
struct share {
    uint32_t windows, more, *at;
};

// Windows of one text, appended to both.
static gyre_status take_windows(const char *name, const gyre_tokenizer *tokenizer, const char *text, uint64_t bytes,
                                const struct share *share, uint32_t vocab, struct gyre_calib_text *out, gyre_error *err)
{
    uint32_t *token = NULL, *to[2] = {out->token + (uint64_t)out->windows * out->tokens,
                                      share->at + (uint64_t)out->more * out->tokens};
    uint64_t n = 0;
    gyre_status st = GYRE_OK;
    GYRE_TRY(check_utf8(name, text, bytes, err));
    if (bytes == 0)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot calibrate (%s): the text is empty; give another", name);
    GYRE_GO(gyre_tokenizer_encode(tokenizer, text, bytes, 0, &token, &n, err));
    if (n < out->tokens)
        GYRE_GO(
            gyre_fail(err, GYRE_E_FORMAT,
                      "cannot calibrate (%s): the text has %llu tokens and one window is %u; give a longer text, or "
                      "a recipe with shorter windows",
                      name, (unsigned long long)n, out->tokens));
    const uint32_t windows = take_evenly(token, &n, share->windows, out->tokens, to[0]),
                   more = take_evenly(token, &n, share->more, out->tokens, to[1]);
    out->windows += windows;
    out->more += more;
    GYRE_GO(check_vocab(name, to[0], (uint64_t)windows * out->tokens, vocab, err));
    GYRE_GO(check_vocab(name, to[1], (uint64_t)more * out->tokens, vocab, err));
done:
    free(token);
    return st;
}

// `share` windows of n, evenly over them.
static void copy_own(const uint32_t *from, uint32_t n, uint32_t share, uint32_t tokens, uint32_t *to)
{
    for (uint64_t w = 0; w < share; w++) memcpy(to + w * tokens, from + w * n / share * tokens, tokens * sizeof *to);
}

// Windows that the model wrote.
static void take_own(const struct gyre_own_text *own, const struct share *share, struct gyre_calib_text *out)
{
    const uint64_t tokens = out->tokens;
    copy_own(own->token, own->windows, share->windows, out->tokens, out->token + out->windows * tokens);
    copy_own(own->token + own->windows * tokens, own->more, share->more, out->tokens, share->at + out->more * tokens);
    out->windows += share->windows;
    out->more += share->more;
}

static void name_source(const char *name, const void *text, uint64_t bytes, struct gyre_calib_source *out)
{
    snprintf(out->name, sizeof out->name, "%s", name);
    out->bytes = bytes;
    gyre_sha256_of(text, bytes, out->sha256);
}

static gyre_status name_own(const struct gyre_own_text *own, struct gyre_calib_source *out, gyre_error *err)
{
    const uint64_t n = ((uint64_t)own->windows + own->more) * own->tokens;
    uint8_t *bytes = malloc(4 * n);
    if (!bytes) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the calibration text");
    for (uint64_t i = 0; i < 4 * n; i++) bytes[i] = (uint8_t)(own->token[i / 4] >> 8 * (i % 4));
    name_source(GYRE_CALIB_SELF, bytes, 4 * n, out);
    out->own = true;
    free(bytes);
    return GYRE_OK;
}

// Tokens that the model has a row of its table for; a tokenizer of another model may know more.
static uint32_t known_tokens(const gyre_source *model, const gyre_tokenizer *tokenizer)
{
    const uint32_t vocab = gyre_tokenizer_vocab(tokenizer);
    const struct gyre_tensor *table = gyre_role_tensor(model, GYRE_ROLE_embedding, 0, "weight", NULL);
    return table ? (uint32_t)GYRE_MIN((uint64_t)vocab, table->rows) : vocab;
}

// Text `path`, NULL for the bundled one: its windows and its name.
static gyre_status read_file(const char *path, const gyre_tokenizer *tokenizer, uint32_t vocab,
                             const struct share *share, struct gyre_calib_text *out, struct gyre_calib_source *source,
                             gyre_error *err)
{
    const char *from = gyre_calibration_text, *slash = path ? strrchr(path, '/') : NULL;
    uint64_t bytes = gyre_calibration_text_bytes;
    char *text = NULL;
    if (path) {
        GYRE_TRY(gyre_file_read(path, MAX_TEXT, &text, &bytes, err));
        from = text;
    }
    const gyre_status st = take_windows(path ? path : "bundled text", tokenizer, from, bytes, share, vocab, out, err);
    if (st == GYRE_OK) name_source(slash ? slash + 1 : path ? path : "", from, bytes, source);
    free(text);
    return st;
}

uint32_t gyre_calib_share(uint32_t windows, uint64_t i, uint64_t n)
{
    return (uint32_t)(windows * (i + 1) / n - windows * i / n);
}

gyre_status gyre_calib_text_read(const gyre_source *model, const char *const *paths, uint32_t n,
                                 const struct gyre_own_text *own, uint32_t windows, uint32_t more, uint32_t tokens,
                                 struct gyre_calib_text *out, gyre_error *err)
{
    const uint32_t sources = GYRE_MAX(n, 1u);
    gyre_tokenizer *tokenizer = NULL;
    gyre_status st = GYRE_OK;
    *out = (struct gyre_calib_text){.n_sources = sources,
                                    .tokens = tokens,
                                    .source = calloc(sources, sizeof *out->source),
                                    .token = calloc(((uint64_t)windows + more) * tokens + 1, sizeof *out->token)};
    if (!out->source || !out->token) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the calibration text"));
    GYRE_GO(gyre_tokenizer_create(model, NULL, NULL, &tokenizer, err));
    for (uint32_t i = 0; i < sources; i++) {
        const struct share share = {gyre_calib_share(windows, i, sources), gyre_calib_share(more, i, sources),
                                    out->token + (uint64_t)windows * tokens};
        const bool bundled = !n || !strcmp(paths[i], GYRE_CALIB_BUNDLED);
        if (!bundled && !strcmp(paths[i], GYRE_CALIB_SELF)) {
            take_own(own, &share, out);
            GYRE_GO(name_own(own, &out->source[i], err));
        } else
            GYRE_GO(read_file(bundled ? NULL : paths[i], tokenizer, known_tokens(model, tokenizer), &share, out,
                              &out->source[i], err));
    }
    // Where the texts gave fewer.
    memmove(out->token + (uint64_t)out->windows * tokens, out->token + (uint64_t)windows * tokens,
            (uint64_t)out->more * tokens * sizeof *out->token);
    if (out->windows == 0) // more texts than windows
        st = gyre_fail(err, GYRE_E_INVALID, "cannot calibrate: %u texts for %u windows; give fewer", sources, windows);
done:
    gyre_tokenizer_destroy(tokenizer);
    if (st != GYRE_OK) gyre_calib_text_free(out);
    return st;
}

void gyre_calib_text_free(struct gyre_calib_text *text)
{
    free(text->source);
    free(text->token);
    *text = (struct gyre_calib_text){0};
}

json_t *gyre_calib_text_identity(const struct gyre_calib_text *t)
{
    json_t *texts = json_array();
    for (uint32_t i = 0; texts && i < t->n_sources; i++) {
        const struct gyre_calib_source *s = &t->source[i];
        json_t *row = json_pack("{s:o, s:I, s:s}", "name", gyre_json_text(s->name), "bytes", (json_int_t)s->bytes,
                                "sha256", s->sha256);
        if (row && !*s->name) json_object_set_new(row, "bundled", json_true());
        if (row && s->own) json_object_set_new(row, "self", json_true());
        if (json_array_append_new(texts, row)) {
            json_decref(texts);
            return NULL;
        }
    }
    json_t *all = json_pack("{s:o, s:i, s:i}", "texts", texts, "windows", (int)t->windows, "tokens", (int)t->tokens);
    if (!all || !t->more || !json_object_set_new(all, "more_windows", json_integer((json_int_t)t->more))) return all;
    json_decref(all);
    return NULL;
}
