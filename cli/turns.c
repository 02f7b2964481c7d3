// See turns.h.
#include "cli/turns.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool said_by(const json_t *message, const char *role)
{
    const char *by = json_string_value(json_object_get(message, "role"));
    return by && strcmp(by, role) == 0;
}

size_t cli_turns_first(const json_t *messages)
{
    size_t at = 0;
    while (said_by(json_array_get(messages, at), "system")) at++;
    return at;
}

size_t cli_turns_next(const json_t *messages, size_t at)
{
    const size_t n = json_array_size(messages);
    for (at++; at < n && !said_by(json_array_get(messages, at), "user");) at++;
    return at < n ? at : n;
}

// The same conversation with one turn, which says something else; NULL: out of memory.
static json_t *other_talk(const json_t *variables)
{
    const json_t *messages = json_object_get(variables, "messages");
    const size_t first = cli_turns_first(messages);
    const char *said = json_string_value(json_object_get(json_array_get(messages, first), "content"));
    json_t *other = json_copy((json_t *)variables), *list = json_array();
    for (size_t i = 0; i < first; i++) json_array_append(list, json_array_get(messages, i));
    json_array_append_new(list, json_pack("{s:s, s:s}", "role", "user", "content", said && *said == '0' ? "1" : "0"));
    if (json_object_set_new(other, "messages", list) == 0) return other;
    json_decref(other);
    return NULL;
}

size_t cli_turns_keep(const gyre_template *words, const gyre_tokenizer *tokenizer, const json_t *variables,
                      const uint32_t *tokens, size_t n)
{
    gyre_rendering r = {0};
    uint32_t *other = NULL;
    size_t n_other = 0, same = 0;
    json_t *talk = other_talk(variables);
    char *json = talk ? json_dumps(talk, JSON_COMPACT) : NULL;
    const bool made = json && gyre_template_render(words, json, strlen(json), NULL, &r, NULL) == GYRE_OK &&
                      gyre_tokenize_rendering(tokenizer, &r, &other, &n_other, NULL) == GYRE_OK;
    if (!made) same = n && gyre_token_is_special(tokenizer, tokens[0]);
    while (made && same < n && same < n_other && tokens[same] == other[same]) same++;
    gyre_rendering_free(&r);
    gyre_free(other);
    free(json);
    json_decref(talk);
    return same;
}
