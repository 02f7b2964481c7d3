// Calls of tools: what a model may write to call one, and what it has written.
//
// TOOLS are the list that a request brings, in the syntax that the model's chat template teaches it. They give a
// grammar, under which every call that begins is one that fits its tool's parameters. An ANSWER takes a model's text
// piece by piece and tells its parts: reasoning, content, calls.
//
//     gyre_tools_create(json, bytes, gyre_tool_syntax_of(chat_template), &tools, &err);
//     gyre_grammar_of_tools(vocabulary, tools, &params, &grammar, &err);
//     gyre_answer_create(tools, &how, &answer, &err);
//     each token: text of gyre_text_push(tokenizer, &stream, token, gyre_token_is_mark(tokenizer, token), ...)
//                 into gyre_answer_push(answer, text, n, &err);
//     gyre_answer_finish(answer, &err);
//
// Thread-safety: tools are immutable; an answer belongs to one thread at a time.
#pragma once
#include <gyre/gyre_grammar.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gyre_tool_syntax {
    GYRE_TOOLS_HERMES, // <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call> (Hermes, Qwen)
    GYRE_TOOLS_XML,    // <tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>...</function>\n</tool_call>
    GYRE_TOOLS_LLAMA3  // {"name": ..., "parameters": {...}} as the whole answer, several divided by ";"
} gyre_tool_syntax;
// The one that a chat template speaks of; Hermes where it speaks of none (or is NULL).
GYRE_API gyre_tool_syntax gyre_tool_syntax_of(const char *chat_template);

typedef struct gyre_tools gyre_tools;
// From OpenAI's list, a JSON text: [{"type": "function", "function": {"name", "description"?, "parameters"?}}]. Names
// have letters, digits, "_", "-" and ".", at most 64, each once; parameters are a schema of an object. GYRE_E_FORMAT
// says what is wrong; what a schema may hold is seen by gyre_grammar_of_tools.
GYRE_API gyre_status gyre_tools_create(const char *json, size_t bytes, gyre_tool_syntax syntax, gyre_tools **out,
                                       gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_tools_destroy(gyre_tools *tools); // after its answers; accepts NULL
GYRE_API bool gyre_tools_has(const gyre_tools *tools, const char *name);

typedef enum gyre_tool_choice {
    GYRE_CHOICE_AUTO,    // text, or calls: from where one begins
    GYRE_CHOICE_REQUIRED // at least one call, no text
} gyre_tool_choice;
typedef struct gyre_tool_params {
    size_t size;
    gyre_tool_choice choice;
    const char *name; // REQUIRED: of this tool, and one call only; NULL: of any
    bool single;      // one call at most
    gyre_reasoning reasoning;
} gyre_tool_params;
// The tools need not outlive the grammar. Failures as those of gyre_grammar_of_schema, with the tool's name.
GYRE_API gyre_status gyre_grammar_of_tools(const gyre_vocabulary *vocabulary, const gyre_tools *tools,
                                           const gyre_tool_params *params, gyre_grammar **out,
                                           gyre_error *err) GYRE_MUST_USE;

// ---- answers ----------------------------------------------------------------------------------------

typedef enum gyre_part_kind {
    GYRE_PART_CONTENT,
    GYRE_PART_REASONING,
    GYRE_PART_CALL,     // a call begins: the text is the tool's name
    GYRE_PART_ARGUMENTS // ... a piece of its arguments; all of them together are a JSON object
} gyre_part_kind;
typedef struct gyre_part {
    gyre_part_kind kind;
    uint32_t call;    // number of the call, from 0
    const char *text; // UTF-8 as it was pushed, no NUL behind it, valid during the call
    size_t bytes;
} gyre_part;

typedef struct gyre_answer_params {
    size_t size;
    gyre_reasoning reasoning; // NONE: "<think>" is text
    // Calls are reported while they are written, not only when they are complete. Only for text that follows a grammar:
    // what was reported as a call cannot become text again if it does not continue as one.
    bool live;
    void (*on_part)(void *user, const gyre_part *part);
    void *user;
} gyre_answer_params;

typedef struct gyre_answer gyre_answer;
// `tools` NULL: no calls are looked for.
GYRE_API gyre_status gyre_answer_create(const gyre_tools *tools, const gyre_answer_params *params, gyre_answer **out,
                                        gyre_error *err) GYRE_MUST_USE;
// More text, cut anywhere between characters. Whatever cannot become a mark is told at once. A call that is none
// (broken JSON, no tool of that name, cut before its end) is told as content, as it was written.
GYRE_API gyre_status gyre_answer_push(gyre_answer *answer, const char *text, size_t bytes,
                                      gyre_error *err) GYRE_MUST_USE;
GYRE_API gyre_status gyre_answer_finish(gyre_answer *answer, gyre_error *err) GYRE_MUST_USE;
GYRE_API uint32_t gyre_answer_calls(const gyre_answer *answer); // told so far
GYRE_API void gyre_answer_destroy(gyre_answer *answer);         // accepts NULL

// A control token that is text for an answer: its name is one of the marks above, "<think>" or "</think>".
GYRE_API bool gyre_token_is_mark(const gyre_tokenizer *tokenizer, uint32_t token);

#ifdef __cplusplus
}
#endif
