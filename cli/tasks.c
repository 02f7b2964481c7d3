// See tasks.h.
#include "cli/tasks.h"
#include "cli/json.h"
#include "runtime/util/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gyre_status no_memory(const struct cli_task *t, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot read tasks (%s): out of memory", t->path);
}

static gyre_status bad_line(const struct cli_task *t, uint32_t line, const char *why, gyre_error *err)
{
    return gyre_fail(
        err, GYRE_E_FORMAT,
        "cannot read tasks (%s): line %u %s; a line is {\"context\", \"continuation\", \"label\", \"doc_id\"}", t->path,
        line, why);
}

// ---- tokens -------------------------------------------------------------------------------------------------------

// The continuation's tokens are those that the whole has beyond the context's, as other harnesses count them: spaces at
// the context's end belong to the continuation.
static gyre_status tokenize(struct cli_task *t, const gyre_tokenizer *tok, const struct cli_tokens *how, uint32_t most,
                            const char *context, const char *continuation, uint32_t line, gyre_error *err)
{
    const uint32_t flags = how->bos ? GYRE_TEXT_BOS : 0;
    uint32_t *whole = NULL, *before = NULL;
    size_t n = 0, n_before = 0, bytes = strlen(context);
    gyre_status st = GYRE_OK;
    char *text = gyre_joined(context, "", continuation);
    if (!text) return no_memory(t, err);
    while (bytes && context[bytes - 1] == ' ') bytes--;
    st = gyre_tokenize(tok, text, strlen(text), flags, &whole, &n, err);
    if (st == GYRE_OK) st = gyre_tokenize(tok, context, bytes, flags, &before, &n_before, err);
    free(text);
    gyre_free(before);
    // A text that nothing stands before follows what begins or ends one.
    const int64_t start = gyre_token_bos(tok) >= 0 ? gyre_token_bos(tok) : gyre_token_eos(tok);
    const bool alone = st == GYRE_OK && n_before == 0;
    if (alone && start < 0) st = bad_line(t, line, "has no context, and the model no token that begins a text", err);
    if (st == GYRE_OK && n <= n_before) st = bad_line(t, line, "has a continuation without a token of its own", err);
    if (st == GYRE_OK && n - n_before >= most)
        st = bad_line(t, line, "has a continuation that does not fit; give a larger --ctx", err);
    if (st != GYRE_OK) {
        gyre_free(whole);
        return st;
    }
    uint32_t *own = malloc((n + alone) * sizeof *own);
    if (own) {
        if (alone) own[0] = (uint32_t)start;
        memcpy(own + alone, whole, n * sizeof *own);
    }
    gyre_free(whole);
    if (!own) return no_memory(t, err);
    n += alone;
    n_before += alone;
    const size_t cut = n > most ? n - most : 0;
    if (cut) memmove(own, own + cut, (n - cut) * sizeof *own);
    t->shortened += cut > 0;
    t->request[t->n_requests] =
        (gyre_eval_request){.tokens = own, .n = (uint32_t)(n - cut), .n_context = (uint32_t)(n_before - cut)};
    t->bytes[t->n_requests++] = (uint32_t)strlen(continuation);
    return GYRE_OK;
}

// ---- lines --------------------------------------------------------------------------------------------------------

// The doc_id of the line before, and all that there were: an item whose lines lie apart would be several.
struct documents {
    json_t *now, *seen;
};

static gyre_status read_line(struct cli_task *t, const gyre_tokenizer *tok, const struct cli_tokens *how, uint32_t most,
                             const char *text, size_t bytes, uint32_t line, struct documents *doc, gyre_error *err)
{
    json_t *row = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    json_t *inner = json_object_get(row, "request") ? json_object_get(row, "request") : row;
    const char *context = json_string_value(json_object_get(inner, "context")),
               *continuation = json_string_value(json_object_get(inner, "continuation"));
    json_t *id = json_object_get(row, "doc_id"), *label = json_object_get(row, "label");
    gyre_status st = GYRE_OK;
    if (!row) GYRE_GO(bad_line(t, line, "is no JSON object", err));
    if (!context || !continuation || !*continuation || (!json_is_integer(id) && !json_is_string(id)))
        GYRE_GO(bad_line(t, line, "lacks a text or its doc_id", err));
    const bool more = doc->now && json_equal(doc->now, id);
    if (!more) {
        char *key = json_dumps(id, JSON_ENCODE_ANY);
        const bool again = key && json_object_get(doc->seen, key);
        const bool kept = key && !json_object_set_new(doc->seen, key, json_true());
        free(key);
        if (!kept) GYRE_GO(no_memory(t, err));
        if (again) GYRE_GO(bad_line(t, line, "has a doc_id that came before; put the lines of one together", err));
        t->item[t->n_items++] = (struct cli_item){.first = t->n_requests, .label = UINT32_MAX};
        json_decref(doc->now);
        doc->now = json_incref(id);
    }
    struct cli_item *item = &t->item[t->n_items - 1];
    const json_int_t right = json_is_integer(label) ? json_integer_value(label) : -1;
    if (more && (right < 0 || right != (json_int_t)item->label))
        GYRE_GO(bad_line(t, line, "has another label than its doc_id's first, or none that is a number", err));
    if (!more && right >= 0 && right < UINT32_MAX) item->label = (uint32_t)right;
    item->n++;
    st = tokenize(t, tok, how, most, context, continuation, line, err);
done:
    json_decref(row);
    return st;
}

static gyre_status check_labels(const struct cli_task *t, gyre_error *err)
{
    for (uint32_t i = 0; i < t->n_items; i++)
        if (t->item[i].n > 1 && t->item[i].label >= t->item[i].n)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot read tasks (%s): item %u has %u answers and no label that names one of them",
                             t->path, i + 1, t->item[i].n);
    return t->n_items ? GYRE_OK : gyre_fail(err, GYRE_E_FORMAT, "cannot read tasks (%s): it holds no line", t->path);
}

gyre_status cli_task_read(const char *path, const gyre_engine *engine, const struct cli_tokens *tokens,
                          uint32_t context, struct cli_task *out, gyre_error *err)
{
    const gyre_tokenizer *tok = gyre_engine_tokenizer(engine);
    char *text = NULL;
    size_t bytes = 0, lines = 1;
    uint32_t line = 0;
    struct documents doc = {NULL, json_object()};
    gyre_status st = GYRE_OK;
    *out = (struct cli_task){.path = path};
    snprintf(out->name, sizeof out->name, "%.*s", (int)strcspn(gyre_base_name(path), "."), gyre_base_name(path));
    GYRE_GO(cli_read(path, &text, &bytes, err));
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    out->request = calloc(lines, sizeof *out->request);
    out->bytes = calloc(lines, sizeof *out->bytes);
    out->item = calloc(lines, sizeof *out->item);
    if (!out->request || !out->bytes || !out->item) GYRE_GO(no_memory(out, err));
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        const size_t n = end ? (size_t)(end - text) - at : bytes - at;
        line++;
        if (strspn(text + at, " \t\r") < n)
            GYRE_GO(read_line(out, tok, tokens, context, text + at, n, line, &doc, err));
        at += n + 1;
    }
    st = check_labels(out, err);
done:
    json_decref(doc.now);
    json_decref(doc.seen);
    free(text);
    return st;
}

void cli_task_free(struct cli_task *t)
{
    for (uint32_t i = 0; i < t->n_requests; i++) free((void *)(uintptr_t)t->request[i].tokens);
    free(t->request);
    free(t->bytes);
    free(t->item);
    cli_answers_free(&t->answers);
    cli_answers_free(&t->reference);
    *t = (struct cli_task){0};
}

// ---- figures ------------------------------------------------------------------------------------------------------

static struct cli_answer answer_of(const struct cli_task *t, const struct cli_item *item, bool *per_byte)
{
    const gyre_eval_request *r = t->request + item->first;
    uint32_t best = 0, short_best = 0;
    *per_byte = r->greedy;
    if (item->n == 1) return (struct cli_answer){r->greedy, r->greedy};
    for (uint32_t i = 1; i < item->n; i++) {
        const double n = t->bytes[item->first + i], m = t->bytes[item->first + short_best];
        if (r[i].loglik > r[best].loglik) best = i;
        if (r[i].loglik / n > r[short_best].loglik / m) short_best = i;
    }
    *per_byte = short_best == item->label;
    return (struct cli_answer){best, best == item->label};
}

static int on_progress(void *user, double fraction)
{
    const struct cli_task *t = user;
    if (t) cli_progress(fraction, -1, t->name);
    return cli_interrupted();
}

static void count(const struct cli_task *t, struct cli_answers *out)
{
    double nats = 0, bytes = 0, per_byte = 0;
    for (uint32_t i = 0; i < t->n_items; i++) {
        const struct cli_item *item = &t->item[i];
        const uint32_t gold = item->first + (item->n > 1 ? item->label : 0);
        bool right;
        out->item[i] = answer_of(t, item, &right);
        per_byte += right;
        nats -= t->request[gold].loglik;
        bytes += t->bytes[gold];
    }
    out->per_byte = per_byte / t->n_items;
    out->bits_per_byte = nats / (bytes * log(2));
}

gyre_status cli_task_answer(struct cli_task *t, gyre_engine *engine, bool quiet, struct cli_answers *out,
                            gyre_error *err)
{
    *out = (struct cli_answers){.n = t->n_items, .requests = t->n_requests};
    snprintf(out->name, sizeof out->name, "%s", t->name);
    out->item = calloc(t->n_items, sizeof *out->item);
    if (!out->item) return gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate (%s): out of memory", t->path);
    GYRE_TRY(gyre_eval_requests(engine, t->request, t->n_requests, on_progress, quiet ? NULL : t, err));
    count(t, out);
    return GYRE_OK;
}

void cli_task_warn(const struct cli_task *t)
{
    if (t->shortened)
        cli_warn("%u contexts of %s do not fit and lost their beginning; a larger --ctx keeps it", t->shortened,
                 t->name);
}

// Flips against a model that reads other texts in the same numbers say nothing; gyre_eval_texts asks this of texts.
static gyre_status check_same_tokens(const struct cli_task *t, const gyre_engine *engine, const gyre_engine *reference,
                                     gyre_error *err)
{
    const gyre_tokenizer *mine = gyre_engine_tokenizer(engine), *theirs = gyre_engine_tokenizer(reference);
    for (uint32_t i = 0; i < t->n_requests; i++)
        for (size_t k = 0; k < t->request[i].n; k++) {
            size_t n = 0, m = 0;
            const char *a = gyre_token_bytes(mine, t->request[i].tokens[k], &n),
                       *b = gyre_token_bytes(theirs, t->request[i].tokens[k], &m);
            if (!gyre_same_bytes(a, n, b, m))
                return gyre_fail(err, GYRE_E_INVALID,
                                 "cannot evaluate (%s): to the reference token %u is another text; use the model that "
                                 "this one was made from",
                                 t->name, t->request[i].tokens[k]);
        }
    return GYRE_OK;
}

gyre_status cli_task_run(struct cli_task *t, gyre_engine *engine, gyre_engine *reference, bool quiet, gyre_error *err)
{
    if (reference) GYRE_TRY(check_same_tokens(t, engine, reference, err));
    cli_task_warn(t);
    GYRE_TRY(cli_task_answer(t, engine, quiet, &t->answers, err));
    return reference ? cli_task_answer(t, reference, quiet, &t->reference, err) : GYRE_OK;
}

void cli_tasks_print(const struct cli_task *tasks, uint32_t n)
{
    int width = 4; // "task"
    for (uint32_t i = 0; i < n; i++) {
        const int k = (int)strlen(tasks[i].name);
        width = k > width ? k : width;
    }
    printf("%-*s  %7s  %-16s  %8s  %9s", width, "task", "items", "accuracy, %", "per byte", "bits/byte");
    if (tasks[0].reference.n) printf("  %-22s  %s", "less than reference, %", "flips");
    putchar('\n');
    for (uint32_t i = 0; i < n; i++) {
        const struct cli_task_figures figures = cli_answers_figures(&tasks[i].answers, &tasks[i].reference),
                                      *f = &figures;
        printf("%-*s  %7u  %6.2f +- %-6s  %8.2f  %9.4f", width, tasks[i].name, tasks[i].n_items, 100 * f->accuracy,
               cli_error(100 * f->stderror, 2).text, 100 * f->per_byte, f->bits_per_byte);
        if (f->has_reference)
            printf("  %9.2f +- %-9s  %u", 100 * (f->reference - f->accuracy),
                   cli_error(100 * f->difference_stderr, 2).text, f->flips);
        putchar('\n');
    }
}
