// gyre run: continue a text, streaming.
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/sampling.h"

#include "runtime/util/text.h"

#include <gyre/gyre_chat.h>
#include <gyre/gyre_grammar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const char *model, *prompt; // prompt NULL: in the file, or
    const char *file;           // ... where that is NULL, too, on standard input
    bool chat;                  // the prompt is what a user says
    const char *system, *choice;
    const char *schema; // a file: the answer is JSON that validates
    struct cli_sampling sampling;
    struct cli_engine engine;
    bool json;

    // Of a chat: what its template writes behind an answer ends this one.
    uint32_t end_token;
    char *end_text;
    const char *stops[CLI_LIST_MAX + 1];
};

// What was generated.
struct made {
    const struct run *run;
    uint32_t *tokens;
    char *text;
    size_t n_text, cap;
    gyre_generate_result result;
    gyre_error failed; // of the callback, where it ended the text
    gyre_vocabulary *vocabulary;
    gyre_grammar *grammar;
    gyre_matcher *matcher; // NULL: free text
};

static gyre_status emit(struct made *m, const char *bytes, size_t n, gyre_error *err)
{
    if (cli_interrupted()) return gyre_fail(err, GYRE_E_CANCELLED, "interrupted after %zu tokens", m->result.n_tokens);
    if (!m->run->json && n) {
        fwrite(bytes, 1, n, stdout);
        GYRE_TRY(cli_flush(err));
    }
    if (!gyre_append(&m->text, &m->n_text, &m->cap, bytes, n))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot generate: out of memory");
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
    static const char *const whys[] = {"length", "the context's end", "end of text", "end of text", "a stop text"};
    const gyre_generate_result *m = &made->result;
    const bool asked = m->why != GYRE_STOP_TEXT || m->stop_index < r->sampling.stop.n; // else the template's own
    const char *const why = whys[asked ? m->why : GYRE_STOP_END];
    if (r->json) {
        json_t *ids = json_array();
        for (size_t i = 0; i < m->n_tokens; i++) json_array_append_new(ids, json_integer(made->tokens[i]));
        return cli_print_json(json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:i, s:i, s:i, s:f}", "text",
                                        json_stringn(made->text, made->n_text), "tokens", ids, "stop", why, "device",
                                        info.device, "prompt_tokens", (json_int_t)m->prompt_tokens, "generated_tokens",
                                        (json_int_t)m->n_tokens, "prefill_tps", prefill, "decode_tps", decode,
                                        "decode_GBps", gbps, "act", (int)info.act, "kv", (int)info.kv, "kv_v",
                                        (int)info.kv_v, "warmup_s", warmup));
    }
    fputc('\n', stdout);
    fflush(stdout);
    fprintf(
        stderr,
        "%.2f s to warm up, %zu prompt tokens at %.1f tok/s, %zu tokens at %.1f tok/s (%.2f GB/s of weights) on %s, "
        "act %u, kv %s; stopped by %s\n",
        warmup, m->prompt_tokens, prefill, m->n_tokens, decode, gbps, info.device, info.act,
        cli_widths(info.kv, info.kv_v).text, why);
    return 0;
}

// The time to compile is not the prompt's: everything is run once, on nothing, before the clock starts.
static gyre_status generate(struct made *m, gyre_session *session, const uint32_t *prompt, size_t n, gyre_error *err)
{
    gyre_generate_params p = m->run->sampling.params;
    p.prompt = prompt;
    p.n_prompt = n;
    p.tokens = m->tokens;
    p.matcher = m->matcher;
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

static void end_with_template(struct run *r)
{
    gyre_generate_params *const p = &r->sampling.params;
    for (uint32_t i = 0; i < p->n_stop; i++) r->stops[i] = p->stop[i];
    if (r->end_text) r->stops[p->n_stop++] = r->end_text;
    p->stop = r->stops;
    p->stop_tokens = &r->end_token;
    p->n_stop_tokens = r->end_token != UINT32_MAX;
}

static const char *prompt_from(const struct run *r) { return r->file ? r->file : r->prompt ? "-p" : "standard input"; }

// What the model is given: the text, or, for a chat, the talk of which it is the user's turn. JSON's strings are UTF-8.
static gyre_status tokenize(struct run *r, const gyre_engine *engine, const char *text, size_t bytes, uint32_t **tokens,
                            size_t *n, gyre_error *err)
{
    const gyre_tokenizer *tokenizer = gyre_engine_tokenizer(engine);
    if (!r->chat) return gyre_tokenize(tokenizer, text, bytes, cli_prompt_flags(&r->engine.tokens), tokens, n, err);
    gyre_template *words = NULL;
    gyre_rendering made = {0};
    gyre_status st = GYRE_OK;
    json_t *talk = json_pack("{s:[], s:b}", "messages", "add_generation_prompt", 1);
    json_t *said = json_stringn(text, bytes);
    char *json = NULL;
    if (!said)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "cannot chat (%s): the prompt is no UTF-8; convert it", prompt_from(r)));
    if (r->system)
        json_array_append_new(json_object_get(talk, "messages"),
                              json_pack("{s:s, s:o}", "role", "system", "content", cli_json_text(r->system)));
    json_array_append_new(json_object_get(talk, "messages"), json_pack("{s:s, s:O}", "role", "user", "content", said));
    json = json_dumps(talk, JSON_COMPACT);
    if (!json) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot chat: out of memory, or a text is no UTF-8"));
    GYRE_GO(gyre_template_open(r->model, r->choice, &words, err));
    GYRE_GO(gyre_template_render(words, json, strlen(json), NULL, &made, err));
    GYRE_GO(gyre_tokenize_rendering(tokenizer, &made, tokens, n, err));
    GYRE_GO(gyre_template_end(words, tokenizer, &r->end_token, &r->end_text, err));
    end_with_template(r);
done:
    gyre_rendering_free(&made);
    gyre_template_close(words);
    free(json);
    json_decref(said);
    json_decref(talk);
    return st;
}

// Where a schema was given: what the answer has to follow.
static gyre_status follow_schema(struct made *m, const gyre_engine *engine, gyre_error *err)
{
    char *schema = NULL;
    size_t bytes = 0;
    gyre_error why = {0};
    gyre_status st = GYRE_OK;
    if (!m->run->schema) return GYRE_OK;
    GYRE_GO(cli_read(m->run->schema, &schema, &bytes, err));
    GYRE_GO(gyre_vocabulary_create(gyre_engine_tokenizer(engine), &m->vocabulary, err));
    if (gyre_grammar_of_schema(m->vocabulary, schema, bytes, NULL, &m->grammar, &why) != GYRE_OK)
        GYRE_GO(gyre_fail(err, why.code, "cannot use schema (%s): %s", m->run->schema, why.message));
    GYRE_GO(gyre_matcher_create(m->grammar, &m->matcher, err));
done:
    free(schema);
    return st;
}

static gyre_status check_length(const struct run *r, const gyre_engine *engine, size_t n, gyre_error *err)
{
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    if (n == 0)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot continue an empty prompt (%s): there is nothing to start from; give some text",
                         prompt_from(r));
    if (n <= info.context) return GYRE_OK;
    return gyre_fail(
        err, GYRE_E_INVALID,
        "cannot continue the prompt (%s): its %zu tokens do not fit the context of %u; shorten it, or give "
        "a larger --ctx where the model has one",
        prompt_from(r), n, info.context);
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
    struct made m = {.run = r, .tokens = malloc(r->sampling.params.max_tokens * sizeof *m.tokens)};
    int status = 1;
    gyre_status st = m.tokens ? GYRE_OK : gyre_fail(&err, GYRE_E_NOMEM, "cannot generate: out of memory");
    if (st != GYRE_OK) goto done;
    if (r->file) GYRE_GO(cli_read(r->file, &given, &bytes, &err));
    GYRE_GO(cli_open(r->model, &r->engine, r->json, &engine, &err));
    if (!r->prompt && !r->file) GYRE_GO(cli_read_stdin(&given, &bytes, &err));
    GYRE_GO(tokenize(r, engine, given ? given : r->prompt, given ? bytes : strlen(r->prompt), &prompt, &n, &err));
    GYRE_GO(check_length(r, engine, n, &err));
    GYRE_GO(follow_schema(&m, engine, &err));
    GYRE_GO(gyre_session_create(engine, &session, &err));
    GYRE_GO(generate(&m, session, prompt, n, &err));
    status = report(r, engine, session, &m);
done:
    gyre_matcher_destroy(m.matcher);
    gyre_grammar_destroy(m.grammar);
    gyre_vocabulary_destroy(m.vocabulary);
    gyre_session_destroy(session);
    gyre_engine_close(engine, NULL);
    gyre_free(prompt);
    gyre_free(r->end_text);
    free(given);
    free(m.text);
    free(m.tokens);
    return st == GYRE_OK ? status : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct run r = {0};
    cli_sampling_begin(&r.sampling, 128);
    gyre_generate_params *const p = &r.sampling.params;
    const struct cli_option options[] = {
        {"-p", "TEXT", "the prompt; without it and -f, what comes on standard input", CLI_TEXT, &r.prompt, 0, 0, NULL},
        {"-f", "FILE", "a file with the prompt", CLI_TEXT, &r.file, 0, 0, NULL},
        {"--chat", NULL, "the prompt is what a user says: the model answers it", CLI_FLAG, &r.chat, 0, 0, NULL},
        {"--system", "TEXT", "with --chat: what the model is told before", CLI_TEXT, &r.system, 0, 0, NULL},
        {"--chat-template", "FILE|NAME", "with --chat: in place of the model's own", CLI_TEXT, &r.choice, 0, 0, NULL},
        {"-n", "N", "tokens to generate at most (128)", CLI_U32, &p->max_tokens, 1, 1000000, NULL},
        CLI_SAMPLING_OPTIONS(r.sampling),
        {"--json-schema", "FILE", "the text is JSON that validates under this schema", CLI_TEXT, &r.schema, 0, 0, NULL},
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
    if (r.chat && (r.engine.tokens.bos || r.engine.tokens.no_bos))
        return cli_usage("unusable option (%s): in a chat the template says what a talk begins with; leave it out",
                         r.engine.tokens.bos ? "--bos" : "--no-bos");
    if (r.prompt && r.file) return cli_usage("options that exclude each other: -p and -f; give one of them");
    if (!r.chat && (r.system || r.choice))
        return cli_usage("incomplete options (--system, --chat-template): they belong to a chat; give --chat, too");
    if (!r.prompt && !r.file && !cli_stdin_waits())
        return cli_usage(
            "missing option (-p TEXT): gyre run needs a prompt, there, in a file (-f) or piped in; see gyre "
            "run --help");
    const int wrong = cli_sampling_check(&r.sampling);
    if (wrong >= 0) return wrong;
    cli_sampling_warn(&r.sampling);
    return run_model(&r);
}

const struct cli_command cli_run = {"run", "MODEL", "Continue a text", run, 1, false};
