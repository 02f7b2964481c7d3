// A conversation: the messages so far, as the API and the files of /save and /load have them.
#pragma once
#include <gyre/gyre_base.h>
#include <jansson.h>
#include <stdint.h>

struct chat_talk {
    json_t *messages; // the system's first, where there is one
};

bool chat_talk_begin(struct chat_talk *talk, const char *system); // system NULL: none. False: out of memory
void chat_talk_end(struct chat_talk *talk);

// Text that is no UTF-8 becomes U+FFFD where it is not. reasoning NULL: none. False: out of memory.
bool chat_talk_say(struct chat_talk *talk, const char *role, const char *text, size_t bytes, const char *reasoning,
                   size_t reasoning_bytes);
// The user's turn, which may hold NULs: GYRE_E_FORMAT, naming `line` of the input, where it is no UTF-8.
gyre_status chat_talk_ask(struct chat_talk *talk, const char *text, size_t bytes, uint32_t line,
                          gyre_error *err) GYRE_MUST_USE;
// Takes back the last message if that role said it.
bool chat_talk_take_back(struct chat_talk *talk, const char *role);
void chat_talk_forget(struct chat_talk *talk); // all but the system's message
// Takes away the first message behind the system's and those up to the next of a user; false: there is only one turn.
bool chat_talk_shorten(struct chat_talk *talk);
size_t chat_talk_length(const struct chat_talk *talk); // messages, the system's too

// {"messages": [...]}; `prompt` adds what asks the template for an answer. malloc'd; NULL: out of memory.
char *chat_talk_json(const struct chat_talk *talk, bool prompt);
gyre_status chat_talk_save(const struct chat_talk *talk, const char *path, gyre_error *err) GYRE_MUST_USE;
// The talk stays as it is where the file is none.
gyre_status chat_talk_load(struct chat_talk *talk, const char *path, gyre_error *err) GYRE_MUST_USE;
