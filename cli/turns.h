// The turns of a conversation, of which the oldest leave where the context is full. A turn begins with a user's message
// and has all up to the next one: an answer, calls of tools and what they gave stay with what they answer.
#pragma once
#include <gyre/gyre_chat.h>
#include <jansson.h>

// Of a list of messages: the place of the first one behind the system's.
size_t cli_turns_first(const json_t *messages);
// The place of the next user's message behind place `at`; the number of messages where there is none.
size_t cli_turns_next(const json_t *messages, size_t at);

// How many of the n tokens that the template makes of `variables` (an object with "messages") come before what the
// first turn says: the system's message, and what the template writes around it. Where the template takes no other talk
// than this one: a special token at the beginning alone.
size_t cli_turns_keep(const gyre_template *words, const gyre_tokenizer *tokenizer, const json_t *variables,
                      const uint32_t *tokens, size_t n);
