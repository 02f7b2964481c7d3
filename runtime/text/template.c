// See template.h.
#include "runtime/text/template.h"

#include "runtime/source/json_file.h"
#include "runtime/util/arena.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BOS, EOS, PAD, UNK, N_TOKENS, MAX_FILE = 4 << 20 };
static const char *const token_names[N_TOKENS] = {"bos_token", "eos_token", "pad_token", "unk_token"};

struct gyre_template {
    struct gyre_arena arena;
    const char *text, *origin;
    const char *token[N_TOKENS]; // NULL: the model names none
    gyre_jinja *jinja, *tools;   // tools: for conversations with tools; NULL: the same
};

// What is being looked for, while it is.
struct search {
    gyre_template *t;
    const gyre_source *source; // NULL: no model
    const char *with_tools;    // the text of a second template
    gyre_error *err;
};

static const char *keep(gyre_template *t, const char *text) { return gyre_arena_strdup(&t->arena, text); }

static gyre_status no_memory(gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot use template: out of memory");
}

// ---- Hugging Face directories -----------------------------------------------------------------------

// "chat_template": a text, or a list of {"name", "template"}.
static void from_member(struct search *s, const json_t *value)
{
    size_t i;
    json_t *one;
    if (json_is_string(value)) s->t->text = keep(s->t, json_string_value(value));
    json_array_foreach(value, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name")),
                   *text = json_string_value(json_object_get(one, "template"));
        if (!name || !text) continue;
        if (strcmp(name, "default") == 0) s->t->text = keep(s->t, text);
        if (strcmp(name, "tool_use") == 0) s->with_tools = keep(s->t, text);
    }
}

// A token of tokenizer_config.json: a text, or an object with its "content".
static const char *token_text(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static gyre_status from_json(struct search *s, const char *name, bool tokens)
{
    char where[512];
    uint64_t bytes;
    json_t *json = NULL;
    const char *text = gyre_source_file(s->source, name, &bytes);
    if (!text) return GYRE_OK;
    snprintf(where, sizeof where, "%s/%s", gyre_source_path(s->source), name);
    GYRE_TRY(gyre_json_parse(where, text, bytes, &json, s->err));
    for (int i = 0; tokens && i < N_TOKENS; i++) {
        const char *token = token_text(json_object_get(json, token_names[i]));
        if (token) s->t->token[i] = keep(s->t, token);
    }
    const bool had = s->t->text != NULL;
    if (!had) from_member(s, json_object_get(json, "chat_template"));
    if (!had && s->t->text) s->t->origin = keep(s->t, name);
    json_decref(json);
    return GYRE_OK;
}

static gyre_status from_directory(struct search *s)
{
    uint64_t bytes;
    const char *text = gyre_source_file(s->source, "chat_template.jinja", &bytes);
    if (text) {
        s->t->text = keep(s->t, text);
        s->t->origin = "chat_template.jinja";
    }
    GYRE_TRY(from_json(s, "tokenizer_config.json", true));
    return from_json(s, "chat_template.json", false);
}

gyre_status gyre_template_carried(const gyre_source *source, char **text, char **with_tools, gyre_error *err)
{
    struct search s = {.t = calloc(1, sizeof *s.t), .source = source, .err = err};
    *text = *with_tools = NULL;
    if (!s.t) return no_memory(err);
    gyre_status st = from_directory(&s);
    if (st == GYRE_OK && s.t->text) *text = strdup(s.t->text);
    if (st == GYRE_OK && s.with_tools) *with_tools = strdup(s.with_tools);
    if (st == GYRE_OK && (!*text != !s.t->text || !*with_tools != !s.with_tools)) st = no_memory(err);
    gyre_template_free(s.t);
    return st;
}

// ---- GGUF -------------------------------------------------------------------------------------------

static gyre_status tokens_of_gguf(struct search *s)
{
    static const char *const keys[N_TOKENS] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                               "tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id"};
    struct gyre_string *names = NULL;
    uint64_t n = 0;
    GYRE_TRY(gyre_source_array_strings(s->source, "tokenizer.ggml.tokens", &names, &n, s->err));
    gyre_status st = GYRE_OK;
    for (int i = 0; i < N_TOKENS && st == GYRE_OK; i++) {
        uint64_t id = 0;
        bool found = false;
        st = gyre_source_u64(s->source, keys[i], &id, &found, s->err);
        if (st != GYRE_OK || !found || id >= n) continue;
        char *text = gyre_arena_alloc(&s->t->arena, names[id].length + 1);
        if (!text) st = no_memory(s->err);
        else s->t->token[i] = memcpy(text, names[id].data, names[id].length);
    }
    free(names);
    return st;
}

static gyre_status from_gguf(struct search *s)
{
    const char *text = NULL;
    GYRE_TRY(gyre_source_string(s->source, "tokenizer.chat_template", &text, s->err));
    if (text && *text) s->t->text = keep(s->t, text);
    s->t->origin = "tokenizer.chat_template";
    GYRE_TRY(gyre_source_string(s->source, "tokenizer.chat_template.tool_use", &s->with_tools, s->err));
    return tokens_of_gguf(s);
}

// ---- built in, or a file ----------------------------------------------------------------------------

const char *gyre_template_nth(unsigned i)
{
    return i < gyre_n_builtin_templates ? gyre_builtin_templates[i].name : NULL;
}

static void take_builtin(struct search *s, const struct gyre_builtin_template *b)
{
    char origin[80];
    snprintf(origin, sizeof origin, "built in: %s", b->name);
    s->t->text = b->text;
    s->t->origin = keep(s->t, origin);
    s->with_tools = NULL;
    if (!s->t->token[BOS]) s->t->token[BOS] = b->bos;
    if (!s->t->token[EOS]) s->t->token[EOS] = b->eos;
}

// Whether the model's vocabulary has a token.
static bool knows(const gyre_source *source, const char *token)
{
    struct gyre_string *names = NULL;
    uint64_t n = 0, bytes;
    bool found = false;
    const char *json = gyre_source_file(source, "tokenizer.json", &bytes);
    if (json) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", token);
        return strstr(json, quoted) != NULL;
    }
    if (gyre_source_array_strings(source, "tokenizer.ggml.tokens", &names, &n, NULL) != GYRE_OK) return false;
    for (uint64_t i = 0; i < n && !found; i++)
        found = names[i].length == strlen(token) && !memcmp(names[i].data, token, names[i].length);
    free(names);
    return found;
}

static gyre_status none_there(const struct search *s)
{
    char names[200] = "";
    for (unsigned i = 0; i < gyre_n_builtin_templates; i++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", gyre_builtin_templates[i].name);
    }
    return gyre_fail(
        s->err, GYRE_E_UNSUPPORTED,
        "cannot find a chat template (%s): the model brings none, and its vocabulary suits no built-in one; "
        "give one with --chat-template FILE, or one of %s",
        gyre_source_path(s->source), names);
}

static gyre_status from_file(struct search *s, const char *path)
{
    struct stat info;
    uint64_t bytes;
    char *text = NULL;
    if (stat(path, &info) != 0 && !strpbrk(path, "/.")) {
        char names[200] = "";
        for (unsigned i = 0; i < gyre_n_builtin_templates; i++) {
            const size_t n = strlen(names);
            snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", gyre_builtin_templates[i].name);
        }
        return gyre_fail(
            s->err, GYRE_E_INVALID,
            "cannot find a chat template (%s): it is neither a file nor built in; the built-in ones are %s", path,
            names);
    }
    GYRE_TRY(gyre_file_read(path, MAX_FILE, &text, &bytes, s->err));
    gyre_status st = GYRE_OK;
    if (strlen(text) != bytes) // a template with a NUL would be cut without a word
        st =
            gyre_fail(s->err, GYRE_E_FORMAT, "cannot read template (%s): it has a NUL at byte %zu", path, strlen(text));
    s->t->text = keep(s->t, text);
    s->t->origin = keep(s->t, path);
    s->with_tools = NULL;
    free(text);
    return st;
}

static gyre_status choose(struct search *s, const char *choice)
{
    for (unsigned i = 0; choice && i < gyre_n_builtin_templates; i++) {
        if (strcmp(choice, gyre_builtin_templates[i].name)) continue;
        take_builtin(s, &gyre_builtin_templates[i]);
        return GYRE_OK;
    }
    if (choice) return from_file(s, choice);
    if (s->t->text) return GYRE_OK;
    for (unsigned i = 0; i < gyre_n_builtin_templates; i++) {
        const char *sign = gyre_builtin_templates[i].sign;
        if (!sign || !knows(s->source, sign)) continue;
        take_builtin(s, &gyre_builtin_templates[i]);
        return GYRE_OK;
    }
    return none_there(s);
}

static gyre_status find(struct search *s, const char *choice)
{
    gyre_template *t = s->t;
    if (s->source && gyre_source_container(s->source) == GYRE_CONTAINER_HF) GYRE_TRY(from_directory(s));
    else if (s->source) GYRE_TRY(from_gguf(s));
    else if (!choice)
        return gyre_fail(s->err, GYRE_E_INVALID,
                         "cannot find a chat template: neither a model nor a template is given");
    GYRE_TRY(choose(s, choice));
    if (!t->text || !t->origin) return no_memory(s->err);
    GYRE_TRY(gyre_jinja_parse(t->origin, t->text, strlen(t->text), &t->jinja, s->err));
    return s->with_tools ? gyre_jinja_parse("tool_use", s->with_tools, strlen(s->with_tools), &t->tools, s->err)
                         : GYRE_OK;
}

gyre_status gyre_template_find(const gyre_source *source, const char *choice, gyre_template **out, gyre_error *err)
{
    struct search s = {.t = calloc(1, sizeof *s.t), .source = source, .err = err};
    *out = NULL;
    if (!s.t) return no_memory(err);
    const gyre_status st = find(&s, choice);
    if (st == GYRE_OK) *out = s.t;
    else gyre_template_free(s.t);
    return st;
}

void gyre_template_free(gyre_template *t)
{
    if (!t) return;
    gyre_jinja_free(t->jinja);
    gyre_jinja_free(t->tools);
    gyre_arena_free(&t->arena);
    free(t);
}

const char *gyre_template_words(const gyre_template *t) { return t->text; }
const char *gyre_template_where(const gyre_template *t) { return t->origin; }

const char *gyre_template_names(const gyre_template *t, const char *name)
{
    for (int i = 0; i < N_TOKENS; i++)
        if (strcmp(name, token_names[i]) == 0) return t->token[i];
    return NULL;
}

// ---- filling ----------------------------------------------------------------------------------------

// A message without members that are null, and with its reasoning under all of its names.
static json_t *regular(const json_t *message)
{
    static const char *const reasons[] = {"reasoning_content", "thinking", "reasoning"};
    if (!json_is_object(message)) return json_incref((json_t *)(uintptr_t)message);
    json_t *out = json_object(), *reason = NULL, *value;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)message, key, value)
    {
        if (!json_is_null(value)) json_object_set(out, key, value);
    }
    for (size_t i = 0; i < GYRE_COUNT(reasons) && !reason; i++) reason = json_object_get(out, reasons[i]);
    if (reason) {
        json_incref(reason);
        json_object_set(out, "reasoning_content", reason);
        if (!json_object_get(out, "thinking")) json_object_set(out, "thinking", reason);
        json_decref(reason);
    }
    return out;
}

static json_t *regular_messages(const json_t *messages)
{
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach(messages, i, message) json_array_append_new(out, regular(message));
    return out;
}

gyre_status gyre_template_fill(const gyre_template *t, const json_t *given, bool as_is, int64_t now,
                               struct gyre_marked *out, gyre_error *err)
{
    const uint64_t most = json_object_size(given) + N_TOKENS + 2;
    struct gyre_jinja_variable *v = calloc(most, sizeof *v);
    json_t *own = json_object(), *value; // what is made here
    const char *key;
    uint64_t n = 0;
    gyre_status st = v && own ? GYRE_OK : no_memory(err);
    for (int i = 0; st == GYRE_OK && i < N_TOKENS; i++)
        if (t->token[i] && !json_object_get(given, token_names[i]))
            json_object_set_new(own, token_names[i], json_string(t->token[i]));
    if (!json_object_get(given, "tools")) json_object_set_new(own, "tools", json_null());
    if (!json_object_get(given, "documents")) json_object_set_new(own, "documents", json_null());
    if (v) json_object_foreach(own, key, value) v[n++] = (struct gyre_jinja_variable){key, value, false};
    json_object_foreach((json_t *)(uintptr_t)given, key, value)
    {
        if (st != GYRE_OK) break;
        if (!as_is && strcmp(key, "messages") == 0 && json_is_array(value)) {
            json_object_set_new(own, "gyre messages", value = regular_messages(value));
            if (!value) st = no_memory(err);
        }
        v[n++] = (struct gyre_jinja_variable){key, value, true};
    }
    const json_t *tools = json_object_get(given, "tools");
    const bool with_tools = t->tools && json_array_size(tools) > 0;
    if (st == GYRE_OK) st = gyre_jinja_render(with_tools ? t->tools : t->jinja, v, n, now, out, err);
    json_decref(own);
    free(v);
    return st;
}

// ---- the end of an answer ---------------------------------------------------------------------------

// What the template writes behind an answer; malloc'd. NULL where that cannot be told.
static char *behind_answer(const gyre_template *t)
{
    static const char answer[] = "ANSWER0ANSWER";
    struct gyre_marked made;
    json_t *talk = json_pack("{s:[{s:s, s:s}, {s:s, s:s}]}", "messages", "role", "user", "content", "Question", "role",
                             "assistant", "content", answer);
    char *rest = NULL;
    if (talk && gyre_template_fill(t, talk, false, 0, &made, NULL) == GYRE_OK) {
        const char *found = strstr(made.text, answer);
        if (found) rest = strdup(found + strlen(answer));
        gyre_marked_free(&made);
    }
    json_decref(talk);
    return rest;
}

gyre_status gyre_template_find_end(const gyre_template *t, const gyre_tokenizer *tokenizer, uint32_t *token,
                                   char **text, gyre_error *err)
{
    uint32_t *ids = NULL;
    uint64_t n = 0;
    char *rest = behind_answer(t);
    *token = UINT32_MAX;
    *text = NULL;
    if (!rest) return GYRE_OK;
    const size_t blanks = strspn(rest, " \t\r\n");
    const gyre_status st =
        gyre_tokenizer_encode(tokenizer, rest + blanks, strlen(rest + blanks), GYRE_ENCODE_SPECIAL, &ids, &n, err);
    if (st == GYRE_OK && n && gyre_tokenizer_is_special(tokenizer, ids[0])) {
        *token = ids[0];
    } else if (st == GYRE_OK && rest[blanks]) { // up to its line's end: what follows belongs to the next turn
        rest[blanks + strcspn(rest + blanks, "\n")] = 0;
        *text = strdup(rest + blanks);
    }
    free(ids);
    free(rest);
    return st;
}
