// gyre run: continue a text, streaming.
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const char *model, *prompt; // prompt NULL: on standard input
    gyre_generate_params params;
    struct cli_list stop;
    struct cli_engine engine;
    bool json;
};

// What was generated.
struct made {
    const struct run *run;
    uint32_t *tokens;
    char *text;
    size_t n_text, cap;
    gyre_generate_result result;
    gyre_error failed; // of the callback, where it ended the text
};

static gyre_status emit(struct made *m, const char *bytes, size_t n, gyre_error *err)
{
    if (cli_interrupted()) return gyre_fail(err, GYRE_E_CANCELLED, "interrupted after %zu tokens", m->result.n_tokens);
    if (!m->run->json && n) {
        fwrite(bytes, 1, n, stdout);
        GYRE_TRY(cli_flush(err));
    }
    if (m->n_text + n + 1 > m->cap) {
        const size_t cap = 2 * (m->n_text + n + 64);
        char *grown = realloc(m->text, cap);
        if (!grown) return gyre_fail(err, GYRE_E_NOMEM, "cannot generate: out of memory");
        m->text = grown;
        m->cap = cap;
    }
    memcpy(m->text + m->n_text, bytes, n);
    m->n_text += n;
    m->text[m->n_text] = 0;
    return GYRE_OK;
}

static int on_text(void *user, const char *text, size_t bytes)
{
    struct made *m = user;
    return emit(m, text, bytes, &m->failed) != GYRE_OK;
}

static double per_second(uint64_t n, uint64_t ns) { return ns ? (double)n * 1e9 / (double)ns : 0; }

static int report(const struct run *r, const gyre_engine *engine, const gyre_session *session, const struct made *made)
{
    const gyre_timings t = gyre_session_timings(session);
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    const double prefill = per_second(t.prefill_tokens, t.prefill_ns),
                 decode = per_second(t.decode_tokens, t.decode_ns);
    const double warmup = (double)t.warmup_ns * 1e-9;
    const double gbps = decode * (double)info.weight_bytes_per_token * 1e-9;
    static const char *const why[] = {"length", "the context's end", "end of text", "a stop token", "a stop text"};
    const gyre_generate_result *m = &made->result;
    if (r->json) {
        json_t *ids = json_array();
        for (size_t i = 0; i < m->n_tokens; i++) json_array_append_new(ids, json_integer(made->tokens[i]));
        return cli_print_json(json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:i, s:i, s:f}", "text",
                                        json_stringn(made->text, made->n_text), "tokens", ids, "stop", why[m->why],
                                        "device", info.device, "prompt_tokens", (json_int_t)m->prompt_tokens,
                                        "generated_tokens", (json_int_t)m->n_tokens, "prefill_tps", prefill,
                                        "decode_tps", decode, "decode_GBps", gbps, "act", (int)info.act, "kv",
                                        (int)info.kv, "warmup_s", warmup));
    }
    fputc('\n', stdout);
    fflush(stdout);
    fprintf(
        stderr,
        "%.2f s to warm up, %zu prompt tokens at %.1f tok/s, %zu tokens at %.1f tok/s (%.2f GB/s of weights) on %s, "
        "act %u, kv %u; stopped by %s\n",
        warmup, m->prompt_tokens, prefill, m->n_tokens, decode, gbps, info.device, info.act, info.kv, why[m->why]);
    return 0;
}

// The time to compile is not the prompt's: everything is run once, on nothing, before the clock starts.
static gyre_status generate(struct made *m, gyre_session *session, const uint32_t *prompt, size_t n, gyre_error *err)
{
    gyre_generate_params p = m->run->params;
    p.prompt = prompt;
    p.n_prompt = n;
    p.tokens = m->tokens;
    GYRE_TRY(emit(m, "", 0, err));
    GYRE_TRY(gyre_session_warm(session, n, &p.sampling, err));
    cli_cancel_on_signal(session);
    GYRE_TRY(emit(m, "", 0, err));
    const gyre_status st = gyre_generate(session, &p, on_text, m, &m->result, err);
    cli_cancel_on_signal(NULL);
    if (st != GYRE_OK && m->failed.code) {
        *err = m->failed;
        return err->code;
    }
    return st == GYRE_E_CANCELLED ? gyre_fail(err, st, "interrupted after %zu tokens", m->result.n_tokens) : st;
}

static int run_model(struct run *r)
{
    gyre_error err = {0};
    gyre_engine *engine = NULL;
    gyre_session *session = NULL;
    uint32_t *prompt = NULL;
    char *given = NULL;
    size_t bytes = 0;
    size_t n = 0;
    struct made m = {.run = r, .tokens = malloc(r->params.max_tokens * sizeof *m.tokens)};
    int status = 1;
    gyre_status st = m.tokens ? GYRE_OK : gyre_fail(&err, GYRE_E_NOMEM, "cannot generate: out of memory");
    if (st != GYRE_OK) goto done;
    GYRE_GO(cli_open(r->model, &r->engine, r->json, &engine, &err));
    if (!r->prompt) GYRE_GO(cli_read_stdin(&given, &bytes, &err));
    GYRE_GO(gyre_tokenize(gyre_engine_tokenizer(engine), given ? given : r->prompt, given ? bytes : strlen(r->prompt),
                          cli_prompt_flags(&r->engine.tokens), &prompt, &n, &err));
    if (n == 0) {
        st = gyre_fail(&err, GYRE_E_INVALID,
                       "cannot continue an empty prompt (-p): there is nothing to start from; give some text");
        goto done;
    }
    GYRE_GO(gyre_session_create(engine, &session, &err));
    GYRE_GO(generate(&m, session, prompt, n, &err));
    status = report(r, engine, session, &m);
done:
    gyre_session_destroy(session);
    gyre_engine_close(engine, NULL);
    gyre_free(prompt);
    free(given);
    free(m.text);
    free(m.tokens);
    return st == GYRE_OK ? status : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct run r = {.params = {.size = sizeof r.params, .max_tokens = 128, .sampling = {.top_p = 1.0f}}};
    gyre_generate_params *const p = &r.params;
    const struct cli_option options[] = {
        {"-p", "TEXT", "the prompt; without it, what comes on standard input", CLI_TEXT, &r.prompt, 0, 0, NULL},
        {"-n", "N", "tokens to generate at most (128)", CLI_U32, &p->max_tokens, 1, 1000000, NULL},
        {"--temp", "T", "temperature; 0 takes the most likely token (0)", CLI_F32, &p->sampling.temperature, 0, 100,
         NULL},
        {"--top-k", "K", "sample among the K most likely; 0: 256 (0)", CLI_U32, &p->sampling.top_k, 0, 256, NULL},
        {"--top-p", "P", "... and among the smallest set with probability P (1)", CLI_F32, &p->sampling.top_p, 0.000001,
         1, NULL},
        {"--min-p", "P", "... and at least as likely as P times the likeliest (0)", CLI_F32, &p->min_p, 0, 1, NULL},
        {"--repeat-penalty", "R", "makes tokens that were said less likely; 1: does not (1)", CLI_F32,
         &p->repeat_penalty, 0.000001, 1000, NULL},
        {"--presence-penalty", "R", "subtracted from their logits (0)", CLI_F32, &p->presence_penalty, -1000, 1000,
         NULL},
        {"--frequency-penalty", "R", "subtracted for each time they were said (0)", CLI_F32, &p->frequency_penalty,
         -1000, 1000, NULL},
        {"--penalty-window", "N", "tokens back that count as said (64)", CLI_U32, &p->penalty_window, 1, 1 << 24, NULL},
        {"--stop", "TEXT", "ends before this text; may be repeated", CLI_LIST, &r.stop, 0, 0, NULL},
        {"--seed", "S", "seed of the sampling (0)", CLI_U32, &p->sampling.seed, 0, 4294967295.0, NULL},
        {"--ctx", "N", "longest text in tokens; default: the model's, at most 4096", CLI_U32, &r.engine.context, 1,
         1 << 24, NULL},
        CLI_ENGINE_OPTIONS(r.engine),
        CLI_TOKEN_OPTIONS(r.engine.tokens),
        {"--special", NULL, "show special tokens in the text", CLI_FLAG, &p->special, 0, 0, NULL},
        {"--json", NULL, "one JSON document instead of the stream", CLI_FLAG, &r.json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_run, options, sizeof options / sizeof *options, argc, argv, &r.model);
    if (stop >= 0) return stop;
    if (r.engine.tokens.bos && r.engine.tokens.no_bos)
        return cli_usage("options that exclude each other: --bos and --no-bos; give one of them");
    if (!r.prompt && !cli_stdin_waits())
        return cli_usage("missing option (-p TEXT): gyre run needs a prompt, there or piped in; see gyre run --help");
    for (uint32_t i = 0; i < r.stop.n; i++)
        if (!*r.stop.item[i]) return cli_usage("impossible value (--stop): a text that ends something is not empty");
    p->stop = r.stop.item;
    p->n_stop = r.stop.n;
    return run_model(&r);
}

const struct cli_command cli_run = {"run", "MODEL", "Continue a text", run, 1, false};
