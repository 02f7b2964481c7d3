// Answers that follow a grammar: JSON of a schema, calls of tools.
//
// A VOCABULARY is a tokenizer's tokens as bytes; one per model. A GRAMMAR says which texts may be generated. A
// MATCHER is one answer on its way through a grammar: before each token it says which ones may come, and it is told
// which one came.
//
//     gyre_vocabulary_create(gyre_engine_tokenizer(engine), &vocabulary, &err);
//     gyre_grammar_of_schema(vocabulary, schema, strlen(schema), NULL, &grammar, &err);
//     gyre_matcher_create(grammar, &matcher, &err);
//     each token: gyre_matcher_allow(matcher, allowed, words); choose one of them; gyre_matcher_accept(matcher, token);
//
// Every text that the matcher accepts can be completed: it never gets stuck, as long as the vocabulary
// has a token for each byte. Everything is bounded: the size of a schema, what it becomes, the memory of a matcher.
//
// Thread-safety: a vocabulary is immutable. A grammar and its matchers belong to one thread at a time, together.
#pragma once
#include <gyre/gyre.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gyre_vocabulary gyre_vocabulary;
GYRE_API gyre_status gyre_vocabulary_create(const gyre_tokenizer *tokenizer, gyre_vocabulary **out,
                                            gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_vocabulary_destroy(gyre_vocabulary *vocabulary); // after its grammars; accepts NULL

// ---- grammars ---------------------------------------------------------------------------------------

// What comes before the answer proper.
typedef enum gyre_reasoning {
    GYRE_REASONING_NONE, // nothing
    GYRE_REASONING_MAY,  // the answer may begin with "<think>", free text and "</think>"
    GYRE_REASONING_OPEN  // the prompt ends with "<think>": free text and "</think>" come first
} gyre_reasoning;

typedef struct gyre_grammar_params {
    size_t size;
    gyre_reasoning reasoning;
    bool compact; // JSON without any white space between its tokens
} gyre_grammar_params;

typedef struct gyre_grammar gyre_grammar;

// JSON that validates under a JSON Schema (a JSON text of `bytes` bytes); `schema` NULL: any JSON object. Honoured
// are type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems, maxItems,
// minLength, maxLength, pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf of
// integers, anyOf, oneOf of alternatives that exclude each other, allOf of one, $ref into the schema itself, also to
// what contains it. What explains and does not constrain (title, description, default, examples, ...) is passed over.
// GYRE_E_UNSUPPORTED names any other keyword, and what of these is beyond the limits, with its place; GYRE_E_FORMAT
// what is no schema.
//
// The texts are some of those that validate: properties come in the schema's order, others only where the schema says
// additionalProperties (or has no properties), behind them; numbers have at most 15 digits before the point and behind
// it; between tokens stands one space, or a line end and up to 20 spaces, or nothing; strings are spelled in UTF-8.
GYRE_API gyre_status gyre_grammar_of_schema(const gyre_vocabulary *vocabulary, const char *schema, size_t bytes,
                                            const gyre_grammar_params *params, gyre_grammar **out,
                                            gyre_error *err) GYRE_MUST_USE;
// Its matchers keep what they need; accepts NULL.
GYRE_API void gyre_grammar_destroy(gyre_grammar *grammar);

// ---- matchers ---------------------------------------------------------------------------------------

typedef struct gyre_matcher gyre_matcher;
GYRE_API gyre_status gyre_matcher_create(gyre_grammar *grammar, gyre_matcher **out, gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_matcher_destroy(gyre_matcher *matcher); // accepts NULL

// Sets bit t % 32 of allowed[t / 32] for each token t that may come next, and clears all others. The tokens that end a
// text are among them where it may end here; tokens beyond the vocabulary or 32 * words are not. After a failure no bit
// is set: GYRE_E_UNSUPPORTED where too many ways are open at once, or no token of the vocabulary continues.
GYRE_API gyre_status gyre_matcher_allow(gyre_matcher *matcher, uint32_t *allowed, uint32_t words,
                                        gyre_error *err) GYRE_MUST_USE;
// Whether one token may come next: for the few best ones of a long list.
GYRE_API bool gyre_matcher_allows(gyre_matcher *matcher, uint32_t token);
// Advances by one token. If it was not allowed: GYRE_E_INVALID, and nothing changes.
GYRE_API gyre_status gyre_matcher_accept(gyre_matcher *matcher, uint32_t token, gyre_error *err) GYRE_MUST_USE;
GYRE_API bool gyre_matcher_may_end(const gyre_matcher *matcher);  // the text is whole
GYRE_API bool gyre_matcher_must_end(const gyre_matcher *matcher); // ... and nothing can follow it

#ifdef __cplusplus
}
#endif
