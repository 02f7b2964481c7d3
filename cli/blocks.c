// See blocks.h.
#include "cli/blocks.h"
#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>

uint32_t cli_blocks_per_window(const struct cli_blocks *b) { return (b->ctx - 1 + CLI_BLOCK - 1) / CLI_BLOCK; }

uint32_t cli_blocks_windows(const struct cli_blocks *b) { return (uint32_t)(b->n / cli_blocks_per_window(b)); }

uint32_t cli_block_tokens(const struct cli_blocks *b, size_t i)
{
    const uint32_t before = (uint32_t)(i % cli_blocks_per_window(b)) * CLI_BLOCK;
    return GYRE_MIN((uint32_t)CLI_BLOCK, b->ctx - 1 - before);
}

bool cli_blocks_add(struct cli_blocks *b, const gyre_eval_token *t)
{
    const uint32_t at = (t->seen - 1) % CLI_BLOCK;
    if (at == 0) {
        if (!GYRE_ROOM(b->block, b->n + 1, b->room)) return false;
        b->block[b->n++] = (struct cli_block){0};
    }
    struct cli_block *block = &b->block[b->n - 1];
    block->nll += (t->nll - block->nll) / (at + 1); // a running mean
    block->kl += (t->kl - block->kl) / (at + 1);
    return true;
}

void cli_blocks_free(struct cli_blocks *b)
{
    free(b->block);
    *b = (struct cli_blocks){0};
}

int cli_blocks_json(json_t *out, const struct cli_blocks *b)
{
    json_t *nll = json_array(), *kl = json_array();
    int failed = !nll || !kl || json_object_set_new(out, "ctx", json_integer(b->ctx));
    for (size_t i = 0; i < b->n && !failed; i++)
        failed = json_array_append_new(nll, json_real(b->block[i].nll)) ||
                 json_array_append_new(kl, json_real(b->block[i].kl));
    if (!failed) failed = json_object_set_new(out, "blocks", json_pack("{s:O, s:O}", "nll", nll, "kl", kl));
    json_decref(nll);
    json_decref(kl);
    return failed;
}

bool cli_blocks_read(const json_t *object, struct cli_blocks *out)
{
    const json_t *blocks = json_object_get(object, "blocks"), *nll = json_object_get(blocks, "nll"),
                 *kl = json_object_get(blocks, "kl");
    const size_t n = json_array_size(nll);
    *out = (struct cli_blocks){.ctx = (uint32_t)json_integer_value(json_object_get(object, "ctx"))};
    if (out->ctx < 2 || n == 0 || json_array_size(kl) != n || n % cli_blocks_per_window(out) ||
        !GYRE_ROOM(out->block, n, out->room)) {
        *out = (struct cli_blocks){0};
        return false;
    }
    for (out->n = 0; out->n < n; out->n++)
        out->block[out->n] = (struct cli_block){json_number_value(json_array_get(nll, out->n)),
                                                json_number_value(json_array_get(kl, out->n))};
    return true;
}

// ---- by position ----------------------------------------------------------------------------------------------------

// Blocks first..end-1 of each window, as one row.
static struct cli_position position(const struct cli_blocks *texts, uint32_t n_texts, uint32_t first, uint32_t end)
{
    struct cli_position p = {.from = first * CLI_BLOCK + 1, .to = GYRE_MIN(end * CLI_BLOCK, texts->ctx - 1)};
    const double width = p.to - p.from + 1;
    double sum = 0, squares = 0, windows = 0;
    for (uint32_t t = 0; t < n_texts; t++) {
        const uint32_t per = cli_blocks_per_window(&texts[t]);
        for (uint32_t w = 0; w < cli_blocks_windows(&texts[t]); w++) {
            double nll = 0, kl = 0;
            for (uint32_t i = first; i < end; i++) {
                const size_t at = (size_t)w * per + i;
                const double share = cli_block_tokens(&texts[t], at) / width;
                nll += share * texts[t].block[at].nll;
                kl += share * texts[t].block[at].kl;
            }
            p.nll += nll;
            sum += kl;
            squares += kl * kl;
            windows++;
        }
    }
    if (!(windows > 0)) return p;
    p.tokens = (uint64_t)(width * windows);
    p.nll /= windows;
    p.kl = sum / windows;
    const double spread = squares - sum * sum / windows;
    p.kl_stderr = windows > 1 ? spread > 0 ? sqrt(spread / (windows * (windows - 1))) : 0 : (double)NAN;
    return p;
}

uint32_t cli_positions(const struct cli_blocks *texts, uint32_t n_texts, struct cli_position out[CLI_POSITIONS])
{
    const uint32_t per = n_texts ? cli_blocks_per_window(texts) : 0;
    uint32_t n = 0;
    for (uint32_t first = 0, end = 1; first < per && n < CLI_POSITIONS; first = end, end *= 2)
        out[n++] = position(texts, n_texts, first, GYRE_MIN(end, per));
    return n;
}

int cli_positions_json(json_t *out, const struct cli_blocks *texts, uint32_t n_texts, const gyre_eval_result *result)
{
    struct cli_position p[CLI_POSITIONS];
    const uint32_t n = cli_positions(texts, n_texts, p);
    json_t *list = json_array();
    int failed = !list;
    for (uint32_t i = 0; i < n && !failed; i++) {
        json_t *row = json_pack("{s:I, s:I, s:I, s:f, s:f}", "from", (json_int_t)p[i].from, "to", (json_int_t)p[i].to,
                                "tokens", (json_int_t)p[i].tokens, "nll", p[i].nll, "ppl", exp(p[i].nll));
        failed = !row || (result->has_reference && json_object_set_new(row, "kl", json_real(p[i].kl))) ||
                 (result->has_reference && !isnan(p[i].kl_stderr) &&
                  json_object_set_new(row, "kl_stderr", json_real(p[i].kl_stderr)));
        if (!failed) failed = json_array_append(list, row);
        json_decref(row);
    }
    if (!failed) failed = json_object_set(out, "positions", list);
    json_decref(list);
    return failed;
}
