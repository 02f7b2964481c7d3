// See talk.h.
#include "cli/chat/talk.h"

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/turns.h"

#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool chat_talk_begin(struct chat_talk *talk, const char *system)
{
    talk->messages = json_array();
    return talk->messages && (!system || chat_talk_say(talk, "system", system, strlen(system), NULL, 0));
}

void chat_talk_end(struct chat_talk *talk)
{
    json_decref(talk->messages);
    talk->messages = NULL;
}

// Text that is no UTF-8 has no NUL in it: it is an argument.
static json_t *text_json(const char *text, size_t bytes)
{
    json_t *as_it_is = json_stringn(text, bytes);
    return as_it_is ? as_it_is : cli_json_text(text);
}

bool chat_talk_say(struct chat_talk *talk, const char *role, const char *text, size_t bytes, const char *reasoning,
                   size_t reasoning_bytes)
{
    json_t *message = json_pack("{s:s, s:o}", "role", role, "content", text_json(text, bytes));
    if (message && reasoning &&
        json_object_set_new(message, "reasoning_content", text_json(reasoning, reasoning_bytes))) {
        json_decref(message);
        return false;
    }
    return message && json_array_append_new(talk->messages, message) == 0;
}

gyre_status chat_talk_ask(struct chat_talk *talk, const char *text, size_t bytes, uint32_t line, gyre_error *err)
{
    json_t *good = json_stringn(text, bytes);
    if (!good)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot answer (standard input, line %u): it is no UTF-8; convert it",
                         line);
    json_decref(good);
    if (chat_talk_say(talk, "user", text, bytes, NULL, 0)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot answer: out of memory");
}

static bool said_by(const json_t *message, const char *role)
{
    const char *by = json_string_value(json_object_get(message, "role"));
    return by && strcmp(by, role) == 0;
}

size_t chat_talk_length(const struct chat_talk *talk) { return json_array_size(talk->messages); }

bool chat_talk_take_back(struct chat_talk *talk, const char *role)
{
    const size_t n = chat_talk_length(talk);
    return n && said_by(json_array_get(talk->messages, n - 1), role) && json_array_remove(talk->messages, n - 1) == 0;
}

void chat_talk_forget(struct chat_talk *talk)
{
    const size_t first = cli_turns_first(talk->messages);
    while (chat_talk_length(talk) > first) json_array_remove(talk->messages, chat_talk_length(talk) - 1);
}

bool chat_talk_shorten(struct chat_talk *talk)
{
    const size_t first = cli_turns_first(talk->messages), next = cli_turns_next(talk->messages, first);
    if (next >= chat_talk_length(talk)) return false;
    for (size_t i = first; i < next; i++) json_array_remove(talk->messages, first);
    return true;
}

char *chat_talk_json(const struct chat_talk *talk, bool prompt)
{
    json_t *all = json_pack("{s:O}", "messages", talk->messages);
    if (all && prompt) json_object_set_new(all, "add_generation_prompt", json_true());
    char *text = all ? json_dumps(all, prompt ? JSON_COMPACT : JSON_INDENT(1)) : NULL;
    json_decref(all);
    return text;
}

gyre_status chat_talk_save(const struct chat_talk *talk, const char *path, gyre_error *err)
{
    char *text = chat_talk_json(talk, false);
    if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot save the talk: out of memory");
    const gyre_status st =
        gyre_file_write2(path, (const void *const[]){text, "\n"}, (const uint64_t[]){strlen(text), 1}, err);
    free(text);
    return st;
}

// A message's text: as it is, or the texts of its parts on lines of their own. NULL, with an error, for anything else.
static json_t *text_of(const json_t *content, size_t index, const char *path, gyre_error *err)
{
    size_t i;
    json_t *part;
    if (json_is_string(content)) return json_incref((json_t *)(uintptr_t)content);
    char *text = NULL;
    size_t n = 0, cap = 0;
    bool good = gyre_append(&text, &n, &cap, "", 0);
    json_array_foreach(content, i, part)
    {
        const json_t *said = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type")), *more = json_string_value(said);
        if (!type || strcmp(type, "text") != 0 || !more) {
            free(text);
            gyre_fail(err, GYRE_E_UNSUPPORTED,
                      "cannot load a talk (%s): message %zu holds a part of type \"%.40s\"; only text is taken", path,
                      index, type ? type : "?");
            return NULL;
        }
        good = good && gyre_append(&text, &n, &cap, "\n", i > 0) &&
               gyre_append(&text, &n, &cap, more, json_string_length(said));
    }
    json_t *out = json_is_array(content) && good ? json_stringn(text, n) : NULL;
    free(text);
    if (!out) gyre_fail(err, GYRE_E_FORMAT, "cannot load a talk (%s): message %zu has no text as content", path, index);
    return out;
}

static gyre_status check(json_t *messages, const char *path, gyre_error *err)
{
    size_t i;
    json_t *message;
    if (!json_is_array(messages))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot load a talk (%s): it is no object with a list of messages", path);
    json_array_foreach(messages, i, message)
    {
        if (!json_is_string(json_object_get(message, "role")))
            return gyre_fail(err, GYRE_E_FORMAT, "cannot load a talk (%s): message %zu has no role", path, i);
        json_t *text = text_of(json_object_get(message, "content"), i, path, err);
        if (!text || json_object_set_new(message, "content", text)) return err->code;
    }
    return GYRE_OK;
}

gyre_status chat_talk_load(struct chat_talk *talk, const char *path, gyre_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    json_error_t why;
    GYRE_TRY(cli_read(path, &text, &bytes, err));
    json_t *all = json_loadb(text, bytes, JSON_ALLOW_NUL, &why);
    free(text);
    if (!all)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot load a talk (%s): line %d: %.100s", path, why.line, why.text);
    json_t *messages = json_object_get(all, "messages");
    const gyre_status st = check(messages, path, err);
    if (st == GYRE_OK) {
        json_decref(talk->messages);
        talk->messages = json_incref(messages);
    }
    json_decref(all);
    return st;
}
