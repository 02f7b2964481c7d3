// gyre eval: perplexity of a text, and the divergence from a reference model.
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

struct eval {
    const char *model, *reference, *text;
    uint32_t ctx, windows;
    struct cli_engine engine;
    bool json;
};

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

static int print(const struct eval *e, const gyre_engine *engine, const gyre_eval_result *r)
{
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    if (e->json) {
        json_t *out = json_pack("{s:I, s:f, s:f, s:f, s:s, s:i, s:i, s:i, s:f}", "tokens", (json_int_t)r->tokens, "nll", r->nll, "ppl", r->ppl, "ppl_stderr", r->ppl_stderr, "device", info.device,
                                "act", (int)info.act, "kv", (int)info.kv, "ctx", (int)e->ctx, "seconds", r->seconds);
        if (out && r->has_reference) {
            json_object_set_new(out, "kl", json_real(r->kl));
            json_object_set_new(out, "top1_agreement", json_real(r->top1_agreement));
        }
        return cli_print_json(out);
    }
    cli_progress_end();
    printf("perplexity %.4f +- %.4f over %llu tokens (%.5f nats each), act %u, kv %u, %s, %.1f s\n", r->ppl, r->ppl_stderr, (unsigned long long)r->tokens, r->nll, info.act, info.kv, info.device, r->seconds);
    if (r->has_reference) printf("KL to the reference %.6f nats, same most likely token %.2f %%\n", r->kl, 100 * r->top1_agreement);
    return 0;
}

static int eval_model(struct eval *e)
{
    gyre_error err = {0};
    gyre_engine *engine = NULL, *reference = NULL;
    char *text = NULL;
    uint32_t *tokens = NULL;
    size_t bytes = 0, n = 0;
    int status = 1;
    gyre_status st = GYRE_OK;
    GYRE_GO(cli_read(e->text, &text, &bytes, &err));
    e->engine.context = e->ctx;
    GYRE_GO(cli_open(e->model, &e->engine, e->json, &engine, &err));
    if (e->reference) {
        const gyre_engine_params params = {.act = 16, .kv = 16, .context = e->ctx, .log = cli_log(e->json)};
        GYRE_GO(gyre_engine_open_beside(engine, e->reference, &params, &reference, &err));
    }
    GYRE_GO(gyre_tokenize(engine, text, bytes, true, &tokens, &n, &err));
    gyre_eval_result result;
    GYRE_GO(gyre_eval(engine, reference, tokens, n, e->ctx, e->windows, on_progress, e, &result, &err));
    status = print(e, engine, &result);
done:
    gyre_engine_close(reference);
    gyre_engine_close(engine);
    free(tokens);
    free(text);
    return st == GYRE_OK ? status : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct eval e = {.ctx = 2048};
    const struct cli_option options[] = {
        {"--text", "FILE", "the text (required)", CLI_TEXT, &e.text, 0, 0, NULL},
        {"--ctx", "N", "tokens in a window (2048)", CLI_U32, &e.ctx, 2, 1 << 24, NULL},
        {"--windows", "N", "windows to evaluate; default: all", CLI_U32, &e.windows, 1, 1 << 24, NULL},
        {"--reference", "MODEL", "also report KL and agreement to this model, run at 16 bits", CLI_TEXT, &e.reference, 0, 0, NULL},
        CLI_ENGINE_OPTIONS(e.engine),
        {"--json", NULL, "machine-readable output", CLI_FLAG, &e.json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_eval, options, sizeof options / sizeof *options, argc, argv, &e.model);
    if (stop >= 0) return stop;
    if (!e.text) return cli_usage("missing option (--text FILE): gyre eval needs a text; see gyre eval --help");
    return eval_model(&e);
}

const struct cli_command cli_eval = {"eval", "MODEL", "Measure perplexity and divergence on a text", run, 1, false};
