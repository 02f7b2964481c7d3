// POST /tokenize, POST /detokenize, GET /tokenizer_info.
#include "cli/serve/ask.h"
#include "cli/serve/event.h"
#include "cli/serve/routes.h"

#include <stdlib.h>
#include <string.h>

static json_t *tokens_json(const struct serve *s, const uint32_t *tokens, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(tokens[i]));
    return json_pack("{s:o, s:I, s:I}", "tokens", list, "count", (json_int_t)n, "max_model_len",
                     (json_int_t)s->context);
}

// What a conversation becomes: the tokens of its rendering.
static bool tokenize_messages(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    json_t *variables = json_object(), *tools = serve_field(json, "tools");
    struct serve_rendered made = {0};
    bool done = variables || serve_no_memory(e);
    if (tools && !json_is_array(tools)) done = serve_refuse(e, 400, NULL, "tools", "'tools' must be a list");
    done = done && serve_ask_variables(json, tools, variables, e) && serve_ask_rendered(r->serve, variables, &made, e);
    json_decref(variables);
    if (!done) return false;
    json_t *answer = tokens_json(r->serve, made.tokens, made.n);
    gyre_free(made.tokens);
    return serve_reply_json(r, 200, answer);
}

bool serve_tokenize(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    const struct serve *s = r->serve;
    const json_t *prompt = serve_field(json, "prompt");
    gyre_error err = {0};
    uint32_t *tokens = NULL;
    size_t n = 0;
    bool around = true;
    if (!serve_field_flag(json, "add_special_tokens", &around, e) || !serve_ask_model(s, json, e)) return false;
    if (!prompt && serve_field(json, "messages")) return tokenize_messages(r, json, e);
    if (!json_is_string(prompt)) return serve_refuse(e, 400, NULL, "prompt", "'prompt' must be a text");
    const uint32_t flags = around ? cli_prompt_flags(&s->engine.tokens) : GYRE_TEXT_SPECIAL;
    const gyre_status st =
        gyre_tokenize(s->tokenizer, json_string_value(prompt), json_string_length(prompt), flags, &tokens, &n, &err);
    if (st == GYRE_E_NOMEM) return serve_no_memory(e);
    if (st != GYRE_OK) return serve_refuse(e, 400, NULL, "prompt", "%s", err.message);
    json_t *answer = tokens_json(s, tokens, n);
    gyre_free(tokens);
    return serve_reply_json(r, 200, answer);
}

bool serve_detokenize(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    const json_t *list = serve_field(json, "tokens");
    struct serve_text text = {0};
    gyre_text_stream stream = {0};
    char piece[2048];
    uint32_t *tokens = NULL;
    size_t n = 0;
    if (!json_is_array(list)) return serve_refuse(e, 400, NULL, "tokens", "'tokens' must be a list of token ids");
    bool done = serve_ask_tokens(r->serve, list, "tokens", &tokens, &n, e);
    for (size_t i = 0; done && i <= n; i++) {
        const size_t more = i < n ? gyre_text_push(r->serve->tokenizer, &stream, tokens[i], true, piece, sizeof piece)
                                  : gyre_text_flush(&stream, piece, sizeof piece);
        done = serve_text_add(&text, piece, more) || serve_no_memory(e);
    }
    json_t *answer =
        done ? json_pack("{s:o}", "prompt", json_stringn_nocheck(text.text ? text.text : "", text.n)) : NULL;
    free(tokens);
    free(text.text);
    return done && serve_reply_json(r, 200, answer);
}

// A token's name, or null.
static json_t *named(const gyre_tokenizer *tokenizer, int64_t id)
{
    size_t n = 0;
    const char *name = id >= 0 ? gyre_token_bytes(tokenizer, (uint32_t)id, &n) : NULL;
    json_t *text = name ? json_stringn(name, n) : NULL;
    return text ? text : json_null();
}

static json_t *padding(const struct serve *s)
{
    const char *pad = s->template ? gyre_template_token(s->template, "pad_token") : NULL;
    return pad ? json_string(pad) : named(s->tokenizer, gyre_token_eos(s->tokenizer));
}

bool serve_tokenizer_info(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    const struct serve *s = r->serve;
    (void)json, (void)e;
    return serve_reply_json(r, 200,
                            json_pack("{s:s, s:o, s:o, s:o, s:I, s:I, s:s?}", "tokenizer_class",
                                      "PreTrainedTokenizerFast", "bos_token",
                                      named(s->tokenizer, gyre_token_bos(s->tokenizer)), "eos_token",
                                      named(s->tokenizer, gyre_token_eos(s->tokenizer)), "pad_token", padding(s),
                                      "vocab_size", (json_int_t)s->vocab, "model_max_length", (json_int_t)s->context,
                                      "chat_template", s->template ? gyre_template_text(s->template) : NULL));
}
