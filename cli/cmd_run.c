// gyre run: continue a text, streaming.
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const char *model, *prompt;
    uint32_t n, context;
    gyre_sampling sampling;
    struct cli_engine engine;
    bool json, special;
};

struct text {
    char *data;
    size_t n, cap;
};

// What generation made, and why it stopped.
struct made {
    uint32_t *tokens, n;
    size_t prompt_tokens;
    struct text text;
    const char *why;
};

static bool text_append(struct text *t, const char *bytes, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        const size_t cap = 2 * (t->n + n + 64);
        char *grown = realloc(t->data, cap);
        if (!grown) return false;
        t->data = grown;
        t->cap = cap;
    }
    memcpy(t->data + t->n, bytes, n);
    t->n += n;
    t->data[t->n] = 0;
    return true;
}

static gyre_status emit(const struct run *r, struct text *all, const char *bytes, size_t n, gyre_error *err)
{
    if (!r->json && n) {
        fwrite(bytes, 1, n, stdout);
        GYRE_TRY(cli_flush(err));
    }
    return text_append(all, bytes, n) ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot generate: out of memory");
}

static double per_second(uint64_t n, uint64_t ns) { return ns ? (double)n * 1e9 / (double)ns : 0; }

static int report(const struct run *r, const gyre_engine *engine, const gyre_session *session, const struct made *m)
{
    const gyre_timings t = gyre_session_timings(session);
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    const double prefill = per_second(t.prefill_tokens, t.prefill_ns),
                 decode = per_second(t.decode_tokens, t.decode_ns);
    const double warmup = (double)t.warmup_ns * 1e-9;
    const double gbps = decode * (double)info.weight_bytes_per_token * 1e-9;
    if (r->json) {
        json_t *ids = json_array();
        for (uint32_t i = 0; i < m->n; i++) json_array_append_new(ids, json_integer(m->tokens[i]));
        return cli_print_json(json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:i, s:i, s:f}", "text",
                                        json_stringn(m->text.data, m->text.n), "tokens", ids, "stop", m->why, "device",
                                        info.device, "prompt_tokens", (json_int_t)m->prompt_tokens, "generated_tokens",
                                        (json_int_t)m->n, "prefill_tps", prefill, "decode_tps", decode, "decode_GBps",
                                        gbps, "act", (int)info.act, "kv", (int)info.kv, "warmup_s", warmup));
    }
    fputc('\n', stdout);
    fflush(stdout);
    fprintf(stderr,
            "%.2f s to warm up, %zu prompt tokens at %.1f tok/s, %u tokens at %.1f tok/s (%.2f GB/s of weights) on %s, "
            "act %u, kv %u; stopped by %s\n",
            warmup, m->prompt_tokens, prefill, m->n, decode, gbps, info.device, info.act, info.kv, m->why);
    return 0;
}

static gyre_status generate(const struct run *r, const gyre_engine *engine, gyre_session *session, uint32_t next,
                            struct made *m, gyre_error *err)
{
    gyre_text_stream stream = {0};
    char piece[2048];
    m->why = "length";
    GYRE_TRY(emit(r, &m->text, "", 0, err));
    for (;;) {
        if (cli_interrupted()) return gyre_fail(err, GYRE_E_CANCELLED, "interrupted after %u tokens", m->n);
        const bool end = gyre_token_is_end(engine, next);
        if (!end || r->special) {
            m->tokens[m->n++] = next;
            GYRE_TRY(
                emit(r, &m->text, piece, gyre_text_push(engine, &stream, next, r->special, piece, sizeof piece), err));
        }
        if (end) m->why = "end of text";
        else if (m->n < r->n && m->prompt_tokens + m->n >= r->context) m->why = "the context's end";
        else if (m->n < r->n) {
            GYRE_TRY(gyre_session_decode(session, next, &next, err));
            continue;
        }
        return emit(r, &m->text, piece, gyre_text_flush(&stream, piece, sizeof piece), err);
    }
}

static int run_model(struct run *r)
{
    gyre_error err = {0};
    gyre_engine *engine = NULL;
    gyre_session *session = NULL;
    uint32_t *prompt = NULL, next = 0;
    struct made m = {.tokens = malloc((r->n + 1) * sizeof *m.tokens)};
    int status = 1;
    gyre_status st = m.tokens ? GYRE_OK : gyre_fail(&err, GYRE_E_NOMEM, "cannot generate: out of memory");
    if (st != GYRE_OK) goto done;
    GYRE_GO(cli_open(r->model, &r->engine, r->json, &engine, &err));
    GYRE_GO(gyre_tokenize(engine, r->prompt, strlen(r->prompt), cli_prompt_flags(&r->engine.tokens), &prompt,
                          &m.prompt_tokens, &err));
    if (m.prompt_tokens == 0) {
        st = gyre_fail(&err, GYRE_E_INVALID,
                       "cannot continue an empty prompt (-p): there is nothing to start from; give some text");
        goto done;
    }
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    r->context = info.context;
    GYRE_GO(gyre_session_create(engine, &session, &err));
    GYRE_GO(gyre_session_warm(session, m.prompt_tokens, &r->sampling, &err));
    GYRE_GO(gyre_session_sync(session, prompt, m.prompt_tokens, &r->sampling, &next, &err));
    GYRE_GO(generate(r, engine, session, next, &m, &err));
    status = report(r, engine, session, &m);
done:
    gyre_session_destroy(session);
    gyre_engine_close(engine, NULL);
    free(prompt);
    free(m.text.data);
    free(m.tokens);
    return st == GYRE_OK ? status : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct run r = {.n = 128, .sampling = {.top_p = 1.0f}};
    const struct cli_option options[] = {
        {"-p", "TEXT", "the prompt (required)", CLI_TEXT, &r.prompt, 0, 0, NULL},
        {"-n", "N", "tokens to generate at most (128)", CLI_U32, &r.n, 1, 1000000, NULL},
        {"--temp", "T", "temperature; 0 takes the most likely token (0)", CLI_F32, &r.sampling.temperature, 0, 100,
         NULL},
        {"--top-k", "K", "sample among the K most likely; 0: 256 (0)", CLI_U32, &r.sampling.top_k, 0, 256, NULL},
        {"--top-p", "P", "... and among the smallest set with probability P (1)", CLI_F32, &r.sampling.top_p, 0.000001,
         1, NULL},
        {"--seed", "S", "seed of the sampling (0)", CLI_U32, &r.sampling.seed, 0, 4294967295.0, NULL},
        {"--ctx", "N", "longest text in tokens; default: the model's, at most 4096", CLI_U32, &r.engine.context, 1,
         1 << 24, NULL},
        CLI_ENGINE_OPTIONS(r.engine),
        CLI_TOKEN_OPTIONS(r.engine.tokens),
        {"--special", NULL, "show special tokens in the text", CLI_FLAG, &r.special, 0, 0, NULL},
        {"--json", NULL, "one JSON document instead of the stream", CLI_FLAG, &r.json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_run, options, sizeof options / sizeof *options, argc, argv, &r.model);
    if (stop >= 0) return stop;
    if (r.engine.tokens.bos && r.engine.tokens.no_bos)
        return cli_usage("options that exclude each other: --bos and --no-bos; give one of them");
    if (!r.prompt) return cli_usage("missing option (-p TEXT): gyre run needs a prompt; see gyre run --help");
    return run_model(&r);
}

const struct cli_command cli_run = {"run", "MODEL", "Continue a text", run, 1, false};
