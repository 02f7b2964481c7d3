// gyre eval: perplexity of texts, tasks with given answers, and the divergence from a reference model or its stored
// logits.
#include "cli/blocks.h"
#include "cli/cli.h"
#include "cli/tasks.h"
#include "cli/texts.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL_CTX = 2048 };

struct eval {
    const char *model, *reference, *save;
    struct cli_list paths, task_paths;
    struct cli_texts texts;
    struct cli_task task[CLI_LIST_MAX];
    bool calibrated[CLI_LIST_MAX];
    uint32_t ctx, windows, save_k; // ctx 0: not given
    struct cli_engine engine;
    bool json, by_position;
    struct cli_blocks blocks[CLI_LIST_MAX]; // of each text, where positions are asked for
    bool lost;                              // memory ran out for them
};

static int on_token(void *user, const gyre_eval_token *t)
{
    struct eval *e = user;
    e->blocks[t->text].ctx = e->ctx;
    e->lost = !cli_blocks_add(&e->blocks[t->text], t);
    return e->lost;
}

static int on_progress(void *user, double fraction, double ppl)
{
    const struct eval *e = user;
    if (!e->json) {
        char what[64];
        snprintf(what, sizeof what, "perplexity so far %.3f", ppl);
        cli_progress(fraction, -1, what);
    }
    return cli_interrupted();
}

// ---- JSON -------------------------------------------------------------------------------------------------------

static json_t *text_json(const struct eval *e, uint32_t i, const gyre_eval_result *r)
{
    json_t *out = json_pack("{s:o, s:o}", "text", cli_json_text(e->texts.text[i].path), "name",
                            cli_json_text(e->texts.text[i].name));
    if (!out || cli_eval_figures(out, r) || (e->by_position && cli_positions_json(out, &e->blocks[i], 1, r))) {
        json_decref(out);
        return NULL;
    }
    if (e->calibrated[i]) json_object_set_new(out, "calibrated_on", json_true());
    return out;
}

static int add_task(json_t *tasks, const struct cli_task *t)
{
    const struct cli_task_figures figures = cli_answers_figures(&t->answers, &t->reference);
    return json_array_append_new(tasks, cli_task_json(&t->answers, &figures));
}

static int print_json(const struct eval *e, const gyre_engine *engine, const gyre_engine_info *info,
                      const gyre_eval_result *each, const gyre_eval_result *all)
{
    bool calibrated = false;
    json_t *out = json_pack("{s:s, s:i, s:i, s:i, s:i}", "device", info->device, "act", (int)info->act, "kv",
                            (int)info->kv, "kv_v", (int)info->kv_v, "ctx", (int)e->ctx);
    json_t *texts = e->texts.n > 1 ? json_array() : NULL;
    json_t *tasks = e->task_paths.n ? json_array() : NULL;
    int failed =
        !out || (e->texts.n && cli_eval_figures(out, all)) || (e->texts.n > 1 && !texts) || (e->task_paths.n && !tasks);
    for (uint32_t i = 0; i < e->task_paths.n && !failed; i++) failed = add_task(tasks, &e->task[i]);
    if (tasks && !failed) failed = json_object_set(out, "tasks", tasks);
    json_decref(tasks);
    for (uint32_t i = 0; i < e->texts.n; i++) {
        calibrated |= e->calibrated[i];
        if (texts && !failed) failed = json_array_append_new(texts, text_json(e, i, &each[i]));
    }
    gyre_memory memory = {.size = sizeof memory};
    if (e->engine.weights == 8 && !failed && gyre_engine_memory(engine, &memory, NULL) == GYRE_OK)
        failed = json_object_set_new(out, "weight_error", json_real(memory.weight_error));
    if (calibrated && !failed) failed = json_object_set_new(out, "calibrated_on", json_true());
    if (e->by_position && !failed) failed = cli_positions_json(out, e->blocks, e->texts.n, all);
    if (texts && !failed) failed = json_object_set(out, "texts", texts);
    json_decref(texts);
    if (!failed) return cli_print_json(out);
    json_decref(out);
    return cli_print_json(NULL);
}

// ---- text -------------------------------------------------------------------------------------------------------

static void print_line(const gyre_engine_info *info, const gyre_eval_result *r)
{
    printf("perplexity %.4f +- %s over %llu tokens (%.5f nats each), act %u, kv %s, %s, %.1f s\n", r->ppl,
           cli_error(r->ppl_stderr, 4).text, (unsigned long long)r->tokens, r->nll, info->act,
           cli_widths(info->kv, info->kv_v).text, info->device, r->seconds);
    if (r->has_reference)
        printf("KL to the reference %s%.6f +- %s nats, same most likely token %.2f +- %s %%\n",
               r->kl_is_bound ? "at least " : "", r->kl, cli_error(r->kl_stderr, 6).text, 100 * r->top1_agreement,
               cli_error(100 * r->top1_stderr, 2).text);
    if (r->has_reference)
        printf(
            "KL of the median token %.6f, of 90 %% at most %.5f, of 99 %% %.4f, largest %.3f nats; the right token's "
            "probability changed by %.2f +- %s %% (root mean square)\n",
            r->kl_median, r->kl_p90, r->kl_p99, r->kl_max, 100 * r->dp_rms, cli_error(100 * r->dp_rms_stderr, 2).text);
}

static void print_row(const char *name, int width, const gyre_eval_result *r)
{
    printf("%-*s  %10llu  %11.4f +- %-9s", width, name, (unsigned long long)r->tokens, r->ppl,
           cli_error(r->ppl_stderr, 4).text);
    if (r->has_reference)
        printf("  %9.6f +- %-8s  %6.2f +- %-5s", r->kl, cli_error(r->kl_stderr, 6).text, 100 * r->top1_agreement,
               cli_error(100 * r->top1_stderr, 2).text);
    putchar('\n');
}

static void print_quantiles(const char *name, int width, const gyre_eval_result *r)
{
    printf("%-*s  %9.6f  %9.5f  %9.4f  %9.3f  %6.2f +- %-5s\n", width, name, r->kl_median, r->kl_p90, r->kl_p99,
           r->kl_max, 100 * r->dp_rms, cli_error(100 * r->dp_rms_stderr, 2).text);
}

static void print_table(const struct eval *e, const gyre_engine_info *info, const gyre_eval_result *each,
                        const gyre_eval_result *all)
{
    int width = 9; // "all texts"
    for (uint32_t i = 0; i < e->texts.n; i++) {
        const int n = (int)strlen(e->texts.text[i].name);
        width = n > width ? n : width;
    }
    printf("%-*s  %10s  %-24s", width, "text", "tokens", "  perplexity");
    if (all->has_reference)
        printf("  %-21s  %s", all->kl_is_bound ? "KL (at least), nats" : "KL, nats", "same token, %");
    putchar('\n');
    for (uint32_t i = 0; i < e->texts.n; i++) print_row(e->texts.text[i].name, width, &each[i]);
    print_row("all texts", width, all);
    if (all->has_reference) {
        printf("\n%-*s  %9s  %9s  %9s  %9s  %s\n", width, "KL, nats", "median", "90 %", "99 %", "largest",
               "right token, RMS %");
        for (uint32_t i = 0; i < e->texts.n; i++) print_quantiles(e->texts.text[i].name, width, &each[i]);
        print_quantiles("all texts", width, all);
    }
    printf("act %u, kv %s, %s, %.1f s; errors from %s\n", info->act, cli_widths(info->kv, info->kv_v).text,
           info->device, all->seconds, all->stderr_from_windows ? "windows" : "tokens");
}

static void print_positions(const struct eval *e, bool reference)
{
    struct cli_position p[CLI_POSITIONS];
    const uint32_t n = cli_positions(e->blocks, e->texts.n, p);
    printf("\n%-15s  %10s  %11s%s\n", "tokens before", "tokens", "perplexity", reference ? "  KL, nats" : "");
    for (uint32_t i = 0; i < n; i++) {
        printf("%7u-%-7u  %10llu  %11.4f", p[i].from, p[i].to, (unsigned long long)p[i].tokens, exp(p[i].nll));
        if (reference) printf("  %9.6f", p[i].kl);
        if (reference && !isnan(p[i].kl_stderr)) printf(" +- %.6f", p[i].kl_stderr);
        putchar('\n');
    }
}

static int print(const struct eval *e, const gyre_engine *engine, const gyre_eval_result *each,
                 const gyre_eval_result *all)
{
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    if (e->json) return print_json(e, engine, &info, each, all);
    cli_progress_end();
    if (e->texts.n > 1) print_table(e, &info, each, all);
    else if (e->texts.n) print_line(&info, all);
    if (e->by_position) print_positions(e, all->has_reference);
    if (e->task_paths.n) cli_tasks_print(e->task, e->task_paths.n);
    return 0;
}

// ---- the command --------------------------------------------------------------------------------------------------

static void warn_calibrated(struct eval *e)
{
    cli_texts_calibrated(&e->texts, e->model, e->calibrated);
    for (uint32_t i = 0; i < e->texts.n; i++) {
        if (e->calibrated[i])
            cli_warn("%s was calibrated on %s; figures on that text flatter it", gyre_base_name(e->model),
                     e->texts.text[i].name);
    }
}

// Stored logits must not replace what they are made from.
static gyre_status check_apart(const struct eval *e, gyre_error *err)
{
    static const char *const model[] = {"", ".manifest.json"};
    char path[4096];
    for (size_t i = 0; i < sizeof model / sizeof *model; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s%s", e->model, model[i]) < sizeof path)
            GYRE_TRY(gyre_file_apart(e->save, path, i ? "the model's manifest" : "the model", err));
    }
    if (e->save) GYRE_TRY(gyre_check_file(e->save, err));
    GYRE_TRY(gyre_file_apart(e->save, e->reference, "the reference", err));
    for (uint32_t i = 0; i < e->paths.n; i++)
        GYRE_TRY(gyre_file_apart(e->save, cli_text_path(e->paths.item[i]), "a text", err));
    for (uint32_t i = 0; i < e->task_paths.n; i++)
        GYRE_TRY(gyre_file_apart(e->save, e->task_paths.item[i], "a task", err));
    return GYRE_OK;
}

// A model's own context; 0: unknown, and what is amiss is said by whoever opens it.
static uint32_t own_context(const char *model)
{
    char *text = NULL;
    if (gyre_inspect(model, &text, NULL) != GYRE_OK) return 0;
    json_t *doc = json_loads(text, 0, NULL);
    const json_int_t n = json_integer_value(json_object_get(json_object_get(doc, "model"), "context"));
    json_decref(doc);
    free(text);
    return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

// The windows' tokens: as given, or as many as the models take, at most the usual.
static gyre_status choose_ctx(struct eval *e, bool stored, gyre_error *err)
{
    const char *const path[] = {e->model, e->reference};
    uint32_t most = USUAL_CTX;
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        const uint32_t own = path[i] && !(i == 1 && stored) ? own_context(path[i]) : 0;
        if (!own) continue;
        if (e->ctx > own)
            return gyre_fail(err, GYRE_E_INVALID,
                             "cannot evaluate (%s): --ctx %u is longer than the model's context; give --ctx %u, or "
                             "less",
                             path[i], e->ctx, own);
        if (own < most) most = own;
    }
    if (e->ctx) return GYRE_OK;
    e->ctx = most;
    if (most < USUAL_CTX && e->paths.n && !e->json) // tasks have no windows
        cli_warn("windows of %u tokens (--ctx), as %s has no longer context; figures of other windows do not compare",
                 most, e->reference && !stored ? "one of the models" : "the model");
    return GYRE_OK;
}

static gyre_status eval_texts(struct eval *e, gyre_engine *engine, gyre_engine *reference, gyre_reference *stored,
                              gyre_eval_result *each, gyre_eval_result *all, gyre_error *err)
{
    gyre_eval_text texts[CLI_LIST_MAX];
    const gyre_eval_params params = {.size = sizeof params,
                                     .ctx = e->ctx,
                                     .windows = e->windows,
                                     .reference = reference,
                                     .stored = stored,
                                     .save = e->save,
                                     .save_k = e->save_k,
                                     .progress = on_progress,
                                     .user = e,
                                     .token = e->by_position ? on_token : NULL};
    cli_texts_for_eval(&e->texts, texts);
    const gyre_status st = gyre_eval_texts(engine, texts, e->texts.n, &params, each, all, err);
    return e->lost ? gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory") : st;
}

static int eval_model(struct eval *e)
{
    gyre_error err = {0};
    gyre_engine *engine = NULL, *reference = NULL;
    gyre_reference *stored = NULL;
    int status = 1;
    gyre_status st = GYRE_OK;
    GYRE_GO(check_apart(e, &err));
    GYRE_GO(cli_texts_read(&e->paths, &e->texts, &err));
    warn_calibrated(e);
    if (e->reference && gyre_reference_is(e->reference)) GYRE_GO(gyre_reference_open(e->reference, &stored, &err));
    GYRE_GO(choose_ctx(e, stored != NULL, &err));
    e->engine.context = e->ctx;
    e->engine.sequences = e->task_paths.n ? CLI_TASK_SEQUENCES : 0;
    e->engine.logit_rows = e->task_paths.n ? CLI_TASK_ROWS : 0;
    GYRE_GO(cli_open(e->model, &e->engine, e->json, &engine, &err));
    if (e->reference && !stored) {
        const gyre_engine_params params = {.size = sizeof params,
                                           .act = 16,
                                           .kv = 16,
                                           .context = e->ctx,
                                           .sequences = e->engine.sequences,
                                           .logit_rows = e->engine.logit_rows,
                                           .log = cli_log(e->json)};
        GYRE_GO(gyre_engine_open_beside(engine, e->reference, &params, &reference, &err));
    }
    GYRE_GO(cli_texts_tokenize(&e->texts, engine, e->engine.tokens.bos ? e->ctx : 0, &err));
    gyre_eval_result each[CLI_LIST_MAX], all = {0};
    for (uint32_t i = 0; i < e->task_paths.n; i++) // all of them before any work
        GYRE_GO(cli_task_read(e->task_paths.item[i], engine, &e->engine.tokens, e->ctx, &e->task[i], &err));
    if (e->texts.n) GYRE_GO(eval_texts(e, engine, reference, stored, each, &all, &err));
    for (uint32_t i = 0; i < e->task_paths.n; i++) GYRE_GO(cli_task_run(&e->task[i], engine, reference, e->json, &err));
    status = print(e, engine, each, &all);
done:
    gyre_engine_close(reference, NULL);
    gyre_engine_close(engine, NULL);
    gyre_reference_close(stored);
    cli_texts_free(&e->texts);
    for (uint32_t i = 0; i < e->task_paths.n; i++) cli_task_free(&e->task[i]);
    for (uint32_t i = 0; i < CLI_LIST_MAX; i++) cli_blocks_free(&e->blocks[i]);
    return st == GYRE_OK ? status : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct eval e = {0};
    const struct cli_option options[] = {
        {"--text", "FILE", "a text, or NAME=FILE; may be repeated for a row each (this or --tasks is required)",
         CLI_LIST, &e.paths, 0, 0, NULL},
        {"--tasks", "FILE", "requests with given answers: context, continuation, label, doc_id; may be repeated",
         CLI_LIST, &e.task_paths, 0, 0, NULL},
        {"--ctx", "N", "tokens in a window; default: as many as the model takes, at most 2048", CLI_U32, &e.ctx, 2,
         1 << 24, NULL},
        {"--windows", "N", "windows of each text to evaluate; default: all", CLI_U32, &e.windows, 1, 1 << 24, NULL},
        {"--reference", "MODEL", "also report KL and agreement to this model, run at 16 bits, or to stored logits",
         CLI_TEXT, &e.reference, 0, 0, NULL},
        {"--save-reference", "FILE", "store MODEL's logits for a later --reference FILE", CLI_TEXT, &e.save, 0, 0,
         NULL},
        {"--reference-k", "K", "logits of a token to store; the others count as one (64)", CLI_U32, &e.save_k, 1,
         1 << 24, NULL},
        {"--by-position", NULL, "also by how many tokens of the window come before", CLI_FLAG, &e.by_position, 0, 0,
         NULL},
        CLI_ENGINE_OPTIONS(e.engine),
        CLI_PRE_OPTION(e.engine.tokens),
        {"--bos", NULL, "begin every window with a BOS token; default: without", CLI_FLAG, &e.engine.tokens.bos, 0, 0,
         NULL},
        {"--json", NULL, "machine-readable output", CLI_FLAG, &e.json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_eval, options, sizeof options / sizeof *options, argc, argv, &e.model);
    if (stop >= 0) return stop;
    if (!e.paths.n && !e.task_paths.n)
        return cli_usage("missing option (--text FILE or --tasks FILE): gyre eval needs one; see gyre eval --help");
    if (!e.paths.n && (e.save || (e.reference && gyre_reference_is(e.reference))))
        return cli_usage(
            "missing option (--text FILE): --save-reference and stored logits need a text; tasks compare with a model");
    if (e.save_k && !e.save)
        return cli_usage("missing option (--save-reference FILE): --reference-k is of what it stores; name that file, "
                         "or leave the number out");
    if (!e.paths.n && e.windows)
        return cli_usage("missing option (--text FILE): --windows are of a text; give one, or leave them out");
    if (!e.paths.n && e.by_position)
        return cli_usage("missing option (--text FILE): --by-position is of a text; give one, or leave it out");
    return eval_model(&e);
}

const struct cli_command cli_eval = {"eval", "MODEL", "Measure perplexity and divergence on texts", run, 1, false};
