// gyre: conversations. A chat template turns messages into the text that a model was trained on.
//
// What a message says never becomes a control token: every byte of a rendering knows whether the template wrote it or a
// message brought it along, and only the template's own bytes can be special tokens. docs/chat.md has the rules.
#pragma once
#include <gyre/gyre.h>

#ifdef __cplusplus
extern "C" {
#endif

// A chat template: jinja2 as transformers sets it up, bounded in time, memory and output.
// Thread-safety: immutable; may be used by several threads at once.
typedef struct gyre_template gyre_template;

// The template of a model. `choice`: NULL takes the model's own (chat_template.jinja, tokenizer_config.json, or the
// keys of a GGUF file), or, where it has none, the built-in one that its vocabulary suits; else the name of a built-in
// one, or the path of a file with a template. model_path NULL: `choice` alone. GYRE_E_UNSUPPORTED where there is none.
GYRE_API gyre_status gyre_template_open(const char *model_path, const char *choice, gyre_template **out,
                                        gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_template_close(gyre_template *t); // accepts NULL

GYRE_API const char *gyre_template_text(const gyre_template *t);   // its source
GYRE_API const char *gyre_template_origin(const gyre_template *t); // where it comes from, for people
GYRE_API const char *gyre_template_builtin(unsigned i);            // the name of the i-th built-in one; NULL: no more
// The text of the model's "bos_token", "eos_token", "pad_token" or "unk_token"; NULL: the model names none.
GYRE_API const char *gyre_template_token(const gyre_template *t, const char *name);

typedef struct gyre_rendering {
    char *text;           // UTF-8, NUL-terminated, malloc'd; or NULL
    unsigned char *plain; // malloc'd [bytes]: 1 where text[i] came from a message or another variable
    size_t bytes;
} gyre_rendering;
GYRE_API void gyre_rendering_free(gyre_rendering *rendering); // what it holds

typedef struct gyre_render_params {
    size_t size; // sizeof(gyre_render_params)
    int64_t now; // what strftime_now tells, in seconds since 1970, as UTC; 0: the clock's local time
    bool as_is;  // variables exactly as given. Else messages are normalised as transformers does: members that are
                 // null are removed, and reasoning under any of its names becomes reasoning_content and thinking
} gyre_render_params;

// `json` is one object whose members are the template's variables: messages, tools, add_generation_prompt,
// enable_thinking, ... What it leaves out: tools and documents are none, the model's tokens are there as bos_token and
// so on. Integers have up to 128 bits. GYRE_E_FORMAT where it is no such object, GYRE_E_INVALID where the template
// raises (the message says what), GYRE_E_UNSUPPORTED where it exceeds a limit.
GYRE_API gyre_status gyre_template_render(const gyre_template *t, const char *json, size_t bytes,
                                          const gyre_render_params *params, gyre_rendering *out,
                                          gyre_error *err) GYRE_MUST_USE;

// The tokens of a rendering: special tokens only where all of their bytes are the template's own. Nothing is put around
// them. *tokens is malloc'd.
GYRE_API gyre_status gyre_tokenize_rendering(const gyre_tokenizer *tokenizer, const gyre_rendering *rendering,
                                             uint32_t **tokens, size_t *n, gyre_error *err) GYRE_MUST_USE;

// What the template writes behind an assistant's answer: a special token (*token; none: UINT32_MAX), or else a text
// (*text, malloc'd; none: NULL). An answer ends there, besides at the model's own end tokens.
GYRE_API gyre_status gyre_template_end(const gyre_template *t, const gyre_tokenizer *tokenizer, uint32_t *token,
                                       char **text, gyre_error *err) GYRE_MUST_USE;

#ifdef __cplusplus
}
#endif
