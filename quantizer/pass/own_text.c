// See own_text.h. All windows of a batch are written side by side, a row of the step's graph each.
#include "quantizer/pass/own_text.h"
#include "quantizer/gradient/draw.h"
#include "quantizer/pass/bundled_text.h"
#include "runtime/model/kv.h"
#include "runtime/model/model.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, START = 4 };

static const char kept_name[] = "own-text";

uint32_t gyre_own_text_windows(const gyre_quantize_params *p, uint32_t windows)
{
    uint32_t n = 0;
    for (uint64_t i = 0; i < p->n_calib; i++)
        if (!strcmp(p->calib[i], GYRE_CALIB_SELF)) n += gyre_calib_share(windows, i, p->n_calib);
    return n;
}

// ---- the model --------------------------------------------------------------------------------------------------

struct writer {
    gyre_device *device;
    struct gyre_model model;
    struct gyre_kv kv;
    struct gyre_binding rows, logits;
    gyre_graph *graph;
    uint32_t batch, vocab; // of the tokenizer
    float *logit;          // [batch][V]
    int32_t (*row)[4];
};

static gyre_status build(struct writer *w, gyre_error *err)
{
    const struct gyre_precision exact = GYRE_UNROUNDED;
    const struct gyre_batch batch = gyre_kv_batch(&w->kv, w->rows);
    GYRE_TRY(gyre_graph_create(w->device, w->batch, &batch, &w->graph, err));
    gyre_value x = gyre_g_embed(w->graph, &w->model.table, w->model.hp.embed_scale);
    for (uint32_t l = 0; l < w->model.hp.n_layers; l++)
        x = gyre_model_block(w->graph, x, &w->model, l, &w->kv.pool[l], &exact);
    gyre_g_output(w->graph, gyre_model_head(w->graph, x, &w->model), w->logits);
    return gyre_graph_compile(w->graph, NULL, err);
}

static gyre_status open_writer(struct writer *w, const gyre_source *source, uint32_t tokens, gyre_error *err)
{
    GYRE_TRY(gyre_model_load(w->device, source, NULL, &w->model, err));
    const struct gyre_hparams *hp = &w->model.hp;
    if (tokens > hp->context)
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot write a text (self): windows of %u tokens are longer than the model's context of %u; use a "
            "recipe with shorter windows",
            tokens, hp->context);
    GYRE_TRY(gyre_kv_create(w->device, hp, &GYRE_UNROUNDED, w->batch, tokens, 0, &w->kv, err));
    for (uint32_t i = 0; i < w->batch; i++) GYRE_TRY(gyre_kv_reserve(&w->kv, i, tokens, err));
    w->vocab = GYRE_MIN(w->vocab, hp->vocab);
    w->rows.size = (uint64_t)w->batch * sizeof *w->row;
    w->logits.size = (uint64_t)w->batch * hp->vocab * sizeof *w->logit;
    w->row = malloc(w->rows.size);
    w->logit = malloc(w->logits.size);
    if (!w->row || !w->logit) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the model's own text");
    GYRE_TRY(gyre_buffer_create(w->device, w->rows.size, "rows of own text", &w->rows.buffer, err));
    GYRE_TRY(gyre_buffer_create(w->device, w->logits.size, "logits of own text", &w->logits.buffer, err));
    return build(w, err);
}

static void close_writer(struct writer *w)
{
    gyre_graph_destroy(w->graph);
    gyre_buffer_destroy(w->device, w->rows.buffer);
    gyre_buffer_destroy(w->device, w->logits.buffer);
    gyre_kv_free(&w->kv);
    gyre_model_free(&w->model);
    free(w->row);
    free(w->logit);
}

// Position `at` of windows first..first+n-1 of token [..][tokens] goes in; position at + 1 is drawn where no start has
// it (`given` of each window).
static gyre_status one_position(struct writer *w, uint64_t seed, uint32_t first, uint32_t n, uint32_t at,
                                uint32_t tokens, const uint32_t *given, uint32_t *token, gyre_error *err)
{
    const uint32_t V = w->model.hp.vocab;
    bool good = true;
    for (uint32_t i = 0; i < w->batch; i++) {
        const uint32_t window =
            first + GYRE_MIN(i, n - 1); // rows without a window repeat the last, and nobody reads them
        w->row[i][0] = (int32_t)token[(uint64_t)window * tokens + at];
        w->row[i][1] = (int32_t)i;
        w->row[i][2] = (int32_t)at;
        w->row[i][3] = 1;
    }
    GYRE_TRY(gyre_buffer_write(w->device, w->rows.buffer, 0, w->row, w->rows.size, err));
    GYRE_TRY(gyre_graph_submit(w->graph, err));
    GYRE_TRY(gyre_wait(w->device, err));
    GYRE_TRY(gyre_buffer_read(w->device, w->logits.buffer, 0, w->logit, w->logits.size, err));
#pragma omp parallel for schedule(dynamic) reduction(&& : good)
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *next = token + (uint64_t)(first + i) * tokens + at + 1;
        if (at + 1 < given[first + i]) continue;
        *next = gyre_draw_token(w->logit + (uint64_t)i * V, w->vocab,
                                gyre_draw(GYRE_DRAWN_TEXT, seed, first + i, at + 1), NULL);
        good = good && *next != UINT32_MAX;
    }
    return good ? GYRE_OK
                : gyre_fail(err, GYRE_E_FORMAT,
                            "cannot write a text (self): the model's logits are not finite; its weights are "
                            "damaged or overflow");
}

// ---- starts -----------------------------------------------------------------------------------------------------

// Windows of `out` that are written by one writer; the second ones begin between the first.
struct range {
    uint32_t first, n;
    bool second;
};

// A model that puts no BOS before its texts does not know how to go on behind a lone one.
static gyre_status begin(const gyre_tokenizer *tokenizer, const struct range *range, uint32_t tokens, uint32_t *given,
                         uint32_t *token, gyre_error *err)
{
    const int32_t bos = gyre_tokenizer_bos(tokenizer);
    uint32_t *mixture = NULL;
    uint64_t n = 0;
    GYRE_TRY(gyre_tokenizer_encode(tokenizer, gyre_calibration_text, gyre_calibration_text_bytes, GYRE_ENCODE_AROUND,
                                   &mixture, &n, err));
    const bool begins = bos >= 0 && mixture[0] == (uint32_t)bos;
    for (uint32_t i = 0; i < range->n; i++) {
        uint32_t *at = token + (uint64_t)(range->first + i) * tokens, *some = &given[range->first + i];
        *some = begins && i % 3 == 0 ? 1 : GYRE_MIN((uint32_t)START, tokens);
        if (*some == 1) *at = (uint32_t)bos;
        else memcpy(at, mixture + (2ull * i + range->second) * (n - START) / (2ull * range->n), *some * sizeof *at);
    }
    free(mixture);
    return GYRE_OK;
}

static gyre_status write_range(const gyre_quantize_params *params, const gyre_source *source, struct writer *w,
                               const struct range *range, uint32_t *given, const struct gyre_ticker *ticker,
                               struct gyre_own_text *out, gyre_error *err)
{
    const uint32_t end = range->first + range->n;
    GYRE_TRY(open_writer(w, source, out->tokens, err));
    for (uint32_t i = range->first; i < end; i++)
        for (uint32_t k = 0; k < given[i]; k++)
            if (out->token[(uint64_t)i * out->tokens + k] >= w->vocab)
                return gyre_fail(err, GYRE_E_FORMAT,
                                 "cannot write a text (self): the tokenizer has token %u, the model's table %u rows; "
                                 "its files do not belong together",
                                 out->token[(uint64_t)i * out->tokens + k], w->model.hp.vocab);
    for (uint32_t first = range->first; first < end; first += w->batch)
        for (uint32_t at = 0; at + 1 < out->tokens; at++) {
            GYRE_TRY(one_position(w, params->seed, first, GYRE_MIN(w->batch, end - first), at, out->tokens, given,
                                  out->token, err));
            GYRE_TRY(gyre_tick(ticker, 0, err));
        }
    return GYRE_OK;
}

// The first windows are written as if there were no others, whatever a device makes of the number of rows.
static gyre_status write_all(const gyre_quantize_params *params, const gyre_source *source, gyre_device *device,
                             const struct gyre_ticker *ticker, struct gyre_own_text *out, gyre_error *err)
{
    const struct range ranges[] = {{0, out->windows, false}, {out->windows, out->more, true}};
    gyre_tokenizer *tokenizer = NULL;
    gyre_status st = GYRE_OK;
    uint32_t *given = calloc((uint64_t)out->windows + out->more, sizeof *given);
    if (!given) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the model's own text");
    GYRE_GO(gyre_tokenizer_create(source, NULL, NULL, &tokenizer, err));
    for (size_t i = 0; i < GYRE_COUNT(ranges); i++) {
        if (!ranges[i].n) continue;
        struct writer w = {.device = device, .batch = GYRE_MIN(ranges[i].n, (uint32_t)BATCH)};
        gyre_error why = {0};
        w.vocab = gyre_tokenizer_vocab(tokenizer);
        GYRE_GO(begin(tokenizer, &ranges[i], out->tokens, given, out->token, err));
        st = write_range(params, source, &w, &ranges[i], given, ticker, out, &why);
        close_writer(&w);
        if (st != GYRE_OK) GYRE_GO(gyre_fail(err, st, "%s", why.message));
    }
done:
    gyre_tokenizer_destroy(tokenizer);
    free(given);
    return st;
}

// ---- entry ------------------------------------------------------------------------------------------------------

struct kept {
    uint64_t windows, tokens, more;
};

static uint64_t bytes_of(const struct gyre_own_text *t)
{
    return ((uint64_t)t->windows + t->more) * t->tokens * sizeof *t->token;
}

gyre_status gyre_own_text_keep(const struct gyre_journal *journal, const struct gyre_own_text *t, gyre_error *err)
{
    const struct kept head = {t->windows, t->tokens, t->more};
    return gyre_journal_keep(journal, kept_name, (const void *const[]){&head, t->token},
                             (const uint64_t[]){sizeof head, bytes_of(t)}, err);
}

// From the journal beside the output; false where there is none of this size.
static bool take_kept(const gyre_quantize_params *params, struct gyre_own_text *out)
{
    struct gyre_journal journal = {0};
    struct kept head = {0};
    char *data = NULL;
    uint64_t bytes = 0;
    const uint64_t size = bytes_of(out);
    // Without a state what lies there is of no run that goes on.
    bool good = params->resume && gyre_journal_init(params->output, &journal, NULL) == GYRE_OK &&
                gyre_file_exists(journal.state_path) &&
                gyre_journal_kept(&journal, kept_name, &data, &bytes, NULL) == GYRE_OK && data &&
                bytes == sizeof head + size;
    if (good) memcpy(&head, data, sizeof head);
    good = good && head.windows == out->windows && head.tokens == out->tokens && head.more == out->more;
    if (good) memcpy(out->token, data + sizeof head, size);
    free(data);
    gyre_journal_free(&journal);
    return good;
}

gyre_status gyre_own_text_write(const gyre_quantize_params *params, const gyre_source *source, gyre_device *device,
                                uint32_t windows, uint32_t more, uint32_t tokens, const struct gyre_ticker *ticker,
                                struct gyre_own_text *out, gyre_error *err)
{
    *out =
        (struct gyre_own_text){calloc(((uint64_t)windows + more) * tokens, sizeof *out->token), windows, tokens, more};
    if (!out->token) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the model's own text");
    if (take_kept(params, out)) return GYRE_OK;
    return write_all(params, source, device, ticker, out, err);
}
