// Who answers: the model, its template and its session.
#pragma once
#include "cli/chat/talk.h"
#include "cli/sampling.h"

#include <gyre/gyre_chat.h>

// What an answer is given to while it grows. `reasoning`: what comes before the answer proper. Non-zero: enough.
typedef int (*chat_listener)(void *user, const char *text, size_t bytes, bool reasoning);

struct chat_voice {
    gyre_engine *engine;
    gyre_session *session;
    gyre_template *words;
    struct cli_sampling sampling;
    bool shift; // forget the oldest turns when the context is full, and in the middle of an answer the oldest part

    // What the template writes behind an answer.
    uint32_t end_token;
    char *end_text;
    const char *stops[CLI_LIST_MAX + 1];

    // The last turn, so that the next one takes its tokens as they were said, not as they would be read.
    char *text; // rendered, and the answer behind it
    size_t n_text;
    uint32_t *tokens;
    size_t n_tokens;

    gyre_generate_result result; // of the last answer
    double tokens_per_second;
    uint32_t context;
};

// Opens the template (see gyre_template_open) and a session on an engine that is open.
gyre_status chat_voice_open(struct chat_voice *voice, const char *model, const char *choice,
                            gyre_error *err) GYRE_MUST_USE;
void chat_voice_close(struct chat_voice *voice); // not the engine

// Answers the talk, whose last message is a user's, and adds the answer to it. GYRE_E_CANCELLED where it was stopped:
// then what was said is in the talk. After any other failure the talk is as it was.
gyre_status chat_answer(struct chat_voice *voice, struct chat_talk *talk, chat_listener listener, void *user,
                        gyre_error *err) GYRE_MUST_USE;
