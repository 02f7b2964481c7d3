// Reference logits as a file: of every predicted token the k largest logits (or all), the log of the sum of all
// exponentials, the probability of what was left out and of the right token. See eval.h; the layout is told in
// docs/evaluation.md.
#include "runtime/eval.h"

#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char magic[8] = "gyre-ref";
enum { VERSION = 2, HEX = GYRE_SHA256_HEX - 1 };

// All integers and floats are little-endian, as on every host that gyre runs on.
struct header {
    char magic[8];
    uint32_t version, texts, vocab, ctx, k, act, kv, kv_v; // kv_v 0: as kv
    uint64_t rows;
    char model[80];
};
struct text_entry {
    char sha256[HEX];
    uint32_t windows, reserved;
    uint64_t first_row;
};
struct row_head {
    double log_sum, rest, target; // log sum exp of all logits; probability of those that are not stored; the right
                                  // token's -log p
};
_Static_assert(sizeof(struct header) == 128 && sizeof(struct text_entry) == 80 && sizeof(struct row_head) == 24,
               "the file's layout has no padding");
// A row: row_head, u32 id[k], f32 logit[k]; by descending logit, equal ones by ascending id. Where k is the whole
// vocabulary: row_head, f32 logit[k] by token.
// The file: header, text_entry[texts], rows, SHA-256 of all that as 64 hex digits.

static uint64_t row_bytes(uint32_t k, uint32_t vocab)
{
    return sizeof(struct row_head) + (uint64_t)k * (k == vocab ? 4 : 8);
}

// The tokens that windows cover; what lies behind them does not matter.
static void hash_tokens(const gyre_eval_text *text, uint32_t windows, uint32_t ctx, char hex[GYRE_SHA256_HEX])
{
    gyre_sha256_of(text->tokens, (size_t)windows * ctx * sizeof *text->tokens, hex);
}

// ---- one row --------------------------------------------------------------------------------------------------

// The largest logit's index (the smaller of equals) and the sum of exp(x - largest).
static double exponentials(const float *x, uint32_t n, uint32_t *best)
{
    uint32_t at = 0;
    double sum = 0;
    for (uint32_t i = 1; i < n; i++) at = x[i] > x[at] ? i : at;
    for (uint32_t i = 0; i < n; i++) sum += (double)expf(x[i] - x[at]);
    *best = at;
    return sum;
}

// True where token a comes behind token b.
static bool behind(const float *x, uint32_t a, uint32_t b) { return x[a] < x[b] || (x[a] == x[b] && a > b); }

static void sift(uint32_t *heap, uint32_t n, uint32_t at, const float *x)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && behind(x, heap[child + 1], heap[child])) child++;
        if (!behind(x, heap[child], heap[at])) return;
        const uint32_t swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

// The k first of n tokens, in order: a heap whose root is the last of those kept, then a heap sort.
static void largest(const float *x, uint32_t n, uint32_t k, uint32_t *out)
{
    for (uint32_t i = 0; i < k; i++) out[i] = i;
    for (uint32_t i = k / 2; i-- > 0;) sift(out, k, i, x);
    for (uint32_t i = k; i < n; i++) {
        if (!behind(x, out[0], i)) continue;
        out[0] = i;
        sift(out, k, 0, x);
    }
    for (uint32_t last = k; last-- > 1;) {
        const uint32_t swap = out[0];
        out[0] = out[last];
        out[last] = swap;
        sift(out, last, 0, x);
    }
}

// ---- writing --------------------------------------------------------------------------------------------------

struct gyre_reference_writer {
    char path[PATH_MAX], temp[PATH_MAX];
    FILE *file;
    struct gyre_sha256 sha;
    gyre_reference_info info;
    uint64_t added;
    uint32_t *ids;
    float *logits; // [k]
};

static gyre_status fail_write(const struct gyre_reference_writer *w, gyre_error *err)
{
    const int why = errno;
    return gyre_fail(err, GYRE_E_IO,
                     "cannot write reference (%s): %s; choose another place, or store fewer logits (--reference-k)",
                     w->path, strerror(why));
}

static gyre_status put(struct gyre_reference_writer *w, const void *data, size_t size, gyre_error *err)
{
    gyre_sha256_add(&w->sha, data, size);
    return fwrite(data, 1, size, w->file) == size ? GYRE_OK : fail_write(w, err);
}

static gyre_status put_head(struct gyre_reference_writer *w, const gyre_eval_text *texts, const uint32_t *windows,
                            gyre_error *err)
{
    const gyre_reference_info *info = &w->info;
    struct header h = {.version = VERSION,
                       .texts = info->texts,
                       .vocab = info->vocab,
                       .ctx = info->ctx,
                       .k = info->k,
                       .act = info->act,
                       .kv = info->kv,
                       .kv_v = info->kv_v == info->kv ? 0 : info->kv_v,
                       .rows = info->tokens};
    memcpy(h.magic, magic, sizeof magic);
    snprintf(h.model, sizeof h.model, "%s", info->model);
    GYRE_TRY(put(w, &h, sizeof h, err));
    uint64_t row = 0;
    for (uint32_t i = 0; i < info->texts; i++) {
        char hex[GYRE_SHA256_HEX];
        struct text_entry t = {.windows = windows[i], .first_row = row};
        hash_tokens(&texts[i], windows[i], info->ctx, hex);
        memcpy(t.sha256, hex, HEX);
        GYRE_TRY(put(w, &t, sizeof t, err));
        row += (uint64_t)windows[i] * (info->ctx - 1);
    }
    return GYRE_OK;
}

gyre_status gyre_reference_begin(const char *path, const gyre_reference_info *info, const gyre_eval_text *texts,
                                 const uint32_t *text_windows, struct gyre_reference_writer **out, gyre_error *err)
{
    *out = NULL;
    struct gyre_reference_writer *w = calloc(1, sizeof *w);
    if (!w) return gyre_fail(err, GYRE_E_NOMEM, "cannot write reference (%s): out of memory", path);
    w->info = *info;
    gyre_sha256_init(&w->sha);
    gyre_status st = GYRE_OK;
    snprintf(w->path, sizeof w->path, "%s", path);
    if (!gyre_file_temp(path, w->temp, sizeof w->temp)) {
        errno = ENAMETOOLONG;
        w->temp[0] = 0;
        GYRE_GO(fail_write(w, err));
    }
    w->ids = malloc(info->k * sizeof *w->ids);
    w->logits = malloc(info->k * sizeof *w->logits);
    if (!w->ids || !w->logits)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot write reference (%s): out of memory", path));
    GYRE_GO(gyre_check_file(path, err));
    gyre_file_clear_temps(path);
    w->file = fopen(w->temp, "wb");
    if (!w->file) GYRE_GO(fail_write(w, err));
    GYRE_GO(put_head(w, texts, text_windows, err));
    *out = w;
    return GYRE_OK;
done:
    gyre_reference_drop(w);
    return st;
}

gyre_status gyre_reference_add(struct gyre_reference_writer *w, const float *logits, uint32_t target, gyre_error *err)
{
    const uint32_t k = w->info.k;
    uint32_t best;
    const double sum = exponentials(logits, w->info.vocab, &best), log_sum = (double)logits[best] + log(sum);
    struct row_head head = {.log_sum = log_sum, .target = log_sum - (double)logits[target]};
    w->added++;
    if (k == w->info.vocab) {
        GYRE_TRY(put(w, &head, sizeof head, err));
        return put(w, logits, k * sizeof *logits, err);
    }
    double kept = 0;
    largest(logits, w->info.vocab, k, w->ids);
    for (uint32_t i = 0; i < k; i++) {
        w->logits[i] = logits[w->ids[i]];
        kept += (double)expf(w->logits[i] - logits[best]);
    }
    head.rest = GYRE_MAX(0.0, (sum - kept) / sum);
    GYRE_TRY(put(w, &head, sizeof head, err));
    GYRE_TRY(put(w, w->ids, k * sizeof *w->ids, err));
    return put(w, w->logits, k * sizeof *w->logits, err);
}

gyre_status gyre_reference_end(struct gyre_reference_writer *w, gyre_error *err)
{
    char hex[GYRE_SHA256_HEX];
    if (w->added != w->info.tokens)
        return gyre_fail(err, GYRE_E_INVALID, "cannot write reference (%s): rows are missing", w->path);
    gyre_sha256_end(&w->sha, hex);
    if (fwrite(hex, 1, HEX, w->file) != HEX) return fail_write(w, err);
    FILE *file = w->file;
    w->file = NULL;
    if (fclose(file)) return fail_write(w, err);
    GYRE_TRY(gyre_file_commit(w->temp, w->path, err));
    w->temp[0] = 0; // nothing is left to remove
    return GYRE_OK;
}

void gyre_reference_drop(struct gyre_reference_writer *w)
{
    if (!w) return;
    if (w->file) fclose(w->file);
    if (w->temp[0]) unlink(w->temp);
    free(w->ids);
    free(w->logits);
    free(w);
}

// ---- reading --------------------------------------------------------------------------------------------------

struct gyre_reference {
    char *path;
    struct gyre_file_map map;
    struct header head;
    const unsigned char *texts, *rows; // in the map
};

bool gyre_reference_is(const char *path)
{
    char start[sizeof magic] = "";
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    const bool same = fread(start, 1, sizeof start, f) == sizeof start && memcmp(start, magic, sizeof magic) == 0;
    fclose(f);
    return same;
}

static struct text_entry entry(const gyre_reference *r, uint32_t i)
{
    struct text_entry t;
    memcpy(&t, r->texts + (size_t)i * sizeof t, sizeof t);
    return t;
}

// Sizes first, so that nothing outside the map is touched; then the digest, which finds every other damage.
static gyre_status check_file(const gyre_reference *r, gyre_error *err)
{
    const struct header *h = &r->head;
    uint64_t rows = 0, want = 0, texts = 0;
    if (r->map.size < sizeof *h + HEX || memcmp(h->magic, magic, sizeof magic) != 0)
        return gyre_fail(
            err, GYRE_E_FORMAT,
            "cannot read reference (%s): it is no file of reference logits; make one with gyre eval --save-reference",
            r->path);
    if (h->version != VERSION)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot read reference (%s): its version is %u and this gyre reads %d; make it anew", r->path,
                         h->version, VERSION);
    const bool sane = h->texts && h->vocab && h->ctx >= 2 && h->k && h->k <= h->vocab && !h->model[sizeof h->model - 1];
    if (!sane || !gyre_mul_u64(h->rows, row_bytes(h->k, h->vocab), &rows) ||
        !gyre_mul_u64(h->texts, sizeof(struct text_entry), &texts) || !gyre_add_u64(rows, texts, &want) ||
        !gyre_add_u64(want, sizeof *h + HEX, &want) || want != r->map.size)
        return gyre_fail(
            err, GYRE_E_FORMAT,
            "cannot read reference (%s): its size does not fit its header: it is truncated or damaged; make it anew",
            r->path);
    char hex[GYRE_SHA256_HEX];
    gyre_sha256_of(r->map.data, (size_t)r->map.size - HEX, hex);
    bool good = memcmp(hex, r->map.data + r->map.size - HEX, HEX) == 0;
    uint64_t row = 0;
    for (uint32_t i = 0; good && i < h->texts; i++) {
        const struct text_entry t = entry(r, i);
        good = t.first_row == row;
        row += (uint64_t)t.windows * (h->ctx - 1);
    }
    if (!good || row != h->rows)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read reference (%s): its checksum does not fit: it is damaged; make it anew", r->path);
    return GYRE_OK;
}

gyre_status gyre_reference_open(const char *path, gyre_reference **out, gyre_error *err)
{
    *out = NULL;
    gyre_reference *r = calloc(1, sizeof *r);
    if (r) r->path = strdup(path);
    gyre_status st =
        r && r->path ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot read reference (%s): out of memory", path);
    if (st == GYRE_OK) st = gyre_file_map(path, &r->map, err);
    if (st == GYRE_OK) {
        memcpy(&r->head, r->map.data, GYRE_MIN((size_t)r->map.size, sizeof r->head));
        r->texts = r->map.data + sizeof r->head;
        st = check_file(r, err);
        r->rows = r->texts + (size_t)r->head.texts * sizeof(struct text_entry);
    }
    if (st != GYRE_OK) {
        gyre_reference_close(r);
        return st;
    }
    *out = r;
    return GYRE_OK;
}

void gyre_reference_close(gyre_reference *r)
{
    if (!r) return;
    gyre_file_unmap(&r->map);
    free(r->path);
    free(r);
}

void gyre_reference_describe(const gyre_reference *r, gyre_reference_info *out)
{
    const struct header *h = &r->head;
    *out = (gyre_reference_info){.texts = h->texts,
                                 .vocab = h->vocab,
                                 .ctx = h->ctx,
                                 .k = h->k,
                                 .act = h->act,
                                 .kv = h->kv,
                                 .tokens = h->rows,
                                 .kv_v = h->kv_v ? h->kv_v : h->kv};
    snprintf(out->model, sizeof out->model, "%s", h->model);
}

gyre_status gyre_reference_find(const gyre_reference *r, const gyre_eval_text *text, uint32_t windows, uint32_t ctx,
                                uint32_t vocab, uint64_t *row, gyre_error *err)
{
    const struct header *h = &r->head;
    char hex[GYRE_SHA256_HEX];
    uint32_t other = 0;
    if (h->vocab != vocab)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot compare with reference (%s): it has a vocabulary of %u tokens and the model %u; use "
                         "one of the model that this one was made from",
                         r->path, h->vocab, vocab);
    if (h->ctx != ctx)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot compare with reference (%s): it was made with windows of %u tokens, not %u; use --ctx "
                         "%u or make it anew",
                         r->path, h->ctx, ctx, h->ctx);
    hash_tokens(text, windows, ctx, hex);
    for (uint32_t i = 0; i < h->texts; i++) {
        const struct text_entry t = entry(r, i);
        char prefix[GYRE_SHA256_HEX] = "";
        if (t.windows == windows && memcmp(t.sha256, hex, HEX) == 0) {
            *row = t.first_row;
            return GYRE_OK;
        }
        // The same text with another number of windows: worth a better answer.
        if (t.windows == windows || text->n / ctx < t.windows) continue;
        hash_tokens(text, t.windows, ctx, prefix);
        if (memcmp(t.sha256, prefix, HEX) == 0) other = t.windows;
    }
    const char *name = text->name ? text->name : "the text";
    if (other)
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot compare with reference (%s): it has %u windows of %s, not %u; use --windows %u or make it anew",
            r->path, other, name, windows, other);
    return gyre_fail(err, GYRE_E_INVALID,
                     "cannot compare with reference (%s): it does not hold the tokens of %s: another text, tokenizer "
                     "or number of windows; make it anew",
                     r->path, name);
}

void gyre_reference_compare(const gyre_reference *r, uint64_t row, const float *logits, gyre_eval_token *out)
{
    const uint32_t k = r->head.k, vocab = r->head.vocab;
    const bool whole = k == vocab;
    const unsigned char *at = r->rows + row * row_bytes(k, vocab);
    struct row_head head;
    uint32_t best, top = 0;
    double kept = 0, kl = 0;
    float largest_p = -INFINITY;
    const double sum = exponentials(logits, vocab, &best), log_sum = (double)logits[best] + log(sum);
    memcpy(&head, at, sizeof head);
    const unsigned char *ids = at + sizeof head, *values = whole ? ids : ids + (size_t)k * 4;
    for (uint32_t i = 0; i < k; i++) {
        uint32_t id = i;
        float p;
        if (!whole) memcpy(&id, ids + (size_t)i * 4, 4);
        memcpy(&p, values + (size_t)i * 4, 4);
        id = GYRE_MIN(id, vocab - 1); // the digest fits, so only a writer that lies needs this
        const double log_p = (double)p - head.log_sum, share = exp(log_p);
        kept += (double)expf(logits[id] - logits[best]);
        if (share != 0) kl += share * (log_p - ((double)logits[id] - log_sum));
        if (p > largest_p) largest_p = p, top = id;
    }
    // 2^-80: less than any float softmax leaves to a bucket, so that nothing divides by zero
    if (head.rest > 0) kl += head.rest * log(head.rest / GYRE_MAX((sum - kept) / sum, 0x1p-80));
    out->kl = kl < 0 ? 0 : kl; // NaN stays NaN
    out->same_top = top == best;
    out->reference_nll = head.target;
}
