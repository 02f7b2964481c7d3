// The grammar of calls: gyre_grammar_of_tools. See gyre_tools.h.
#include "runtime/grammar/schema_types.h"
#include "runtime/grammar/schema_write.h"
#include "runtime/grammar/tools.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

// One character that may stand in a parameter's text where its length or pattern is bounded: none that begins a mark.
static const struct gyre_re *text_character(struct gyre_schema *c)
{
    static const struct gyre_re_range mark[] = {{'<', '<'}};
    return gyre_re_chars(&c->maker, mark, 1, true);
}

// A word of the syntax itself.
static void take_over(struct gyre_schema *c, gyre_status st, struct gyre_dfa *dfa, const gyre_error *err,
                      enum gyre_word kind)
{
    if (st != GYRE_OK) gyre_program_fail(c->program, st, err);
    gyre_emit_word(c->program, dfa, kind);
}

static void optional_line_end(struct gyre_schema *c)
{
    struct gyre_dfa *dfa = NULL;
    gyre_error err;
    const gyre_status st =
        gyre_dfa_make(gyre_re_repeat(&c->maker, gyre_re_text(&c->maker, "\n"), 0, 1), GYRE_DFA_UTF8, &dfa, &err);
    take_over(c, st, dfa, &err, GYRE_WORD_STRICT);
}

// ---- {"name": ..., "arguments": ...} --------------------------------------------------------------------------------

static void json_call(struct gyre_schema *c, const struct gyre_tool *tool, const char *arguments, uint32_t rule)
{
    struct gyre_program *p = c->program;
    gyre_emit_lit(p, "\"");
    gyre_emit_lit(p, tool->name);
    gyre_emit_lit(p, "\",");
    gyre_schema_gap(c);
    gyre_emit_lit(p, "\"");
    gyre_emit_lit(p, arguments);
    gyre_emit_lit(p, "\":");
    gyre_schema_gap(c);
    gyre_emit(p, GYRE_OP_CALL, rule, 0, 0);
    gyre_emit_lit(p, "}");
}

// ---- <function=NAME> ------------------------------------------------------------------------------------------------

static void text_value(struct gyre_schema *c, const json_t *schema, const char *path)
{
    static const char end[] = "</parameter>";
    struct gyre_program *p = c->program;
    const json_t *list = json_object_get(schema, "enum"), *one = json_object_get(schema, "const");
    struct gyre_dfa *dfa = NULL, *free_text = NULL;
    gyre_error err = {0};
    gyre_status st = GYRE_OK;
    uint32_t min = 0, max = GYRE_RE_MANY;
    const char *keyword = one ? "const" : list ? "enum" : "pattern";
    if (list || one) {
        const size_t all = one ? 1 : json_array_size(list);
        const char **texts = gyre_arena_array(&c->arena, all + 1, sizeof *texts);
        uint32_t n = 0;
        for (size_t i = 0; texts && i < all; i++) {
            const char *text = json_string_value(one ? one : json_array_get(list, i));
            if (text && strstr(text, "</parameter>"))
                gyre_schema_refuse(c, path, "keyword \"%s\" has a value with \"</parameter>\"", keyword);
            if (text) texts[n++] = text;
        }
        st = texts ? gyre_dfa_texts(texts, n, &dfa, &err)
                   : gyre_fail(&err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
    } else {
        dfa = gyre_schema_string_dfa(c, schema, path, GYRE_DFA_UTF8, &min, &max);
        if (min > max) { // impossible
            gyre_dfa_free(dfa);
            gyre_emit_alt(p, 0);
            return;
        }
        if (!dfa && min == 0 && max == GYRE_RE_MANY) { // any text up to the mark
            st = gyre_dfa_until(end, true, &dfa, &err);
            take_over(c, st, dfa, &err, GYRE_WORD_STRICT);
            gyre_emit_lit(p, "\n");
            return;
        }
        const struct gyre_re *any =
            gyre_re_repeat(&c->maker, text_character(c), dfa ? 0 : min, dfa ? GYRE_RE_MANY : max);
        if (!dfa) keyword = max == GYRE_RE_MANY ? "minLength" : "maxLength";
        if (!dfa && (max == GYRE_RE_MANY ? min : max) > 2000)
            gyre_schema_refuse(c, path, "keyword \"%s\" of a parameter's text may be at most 2000", keyword);
        else st = gyre_dfa_make(any, GYRE_DFA_UTF8, &free_text, &err);
        if (st == GYRE_OK && dfa && free_text) {
            struct gyre_dfa *both = NULL;
            st = gyre_dfa_both(dfa, free_text, false, &both, &err);
            gyre_dfa_free(dfa);
            gyre_dfa_free(free_text);
            dfa = both;
        } else if (!dfa) dfa = free_text;
        else gyre_dfa_free(free_text);
    }
    gyre_schema_made(c, path, keyword, st, &err);
    gyre_emit_word(p, dfa, GYRE_WORD_STRICT);
    gyre_emit_lit(p, "\n</parameter>\n");
}

// One parameter, whole; goes on behind it.
static void parameter(struct gyre_schema *c, const struct gyre_tool *tool, const char *key, const json_t *given,
                      const char *path)
{
    struct gyre_program *p = c->program;
    const json_t *schema = gyre_tool_parameter(tool, key);
    if (strpbrk(key, ">\n") || !*key || strlen(key) > 128) // as answer.c reads them
        gyre_schema_refuse(c, path,
                           "the name of a parameter is empty, longer than 128 bytes, or has a \">\" or a line end");
    gyre_emit_lit(p, "<parameter=");
    gyre_emit_lit(p, key);
    gyre_emit_lit(p, ">\n");
    if (gyre_schema_is_text(schema)) {
        text_value(c, schema, gyre_schema_path(c, path, "properties", key));
        return;
    }
    gyre_emit(p, GYRE_OP_CALL, gyre_schema_rule(c, given, gyre_schema_path(c, path, "properties", key)), 0, 0);
    gyre_emit_lit(p, "\n</parameter>\n");
}

static bool required(const json_t *schema, const char *key)
{
    size_t i;
    const json_t *name;
    json_array_foreach(json_object_get(schema, "required"), i,
                       name) if (json_is_string(name) && strcmp(json_string_value(name), key) == 0) return true;
    return false;
}

static void xml_call(struct gyre_schema *c, const struct gyre_tool *tool, const char *path)
{
    static const char *const known[] = {"type",    "properties",  "required", "additionalProperties",
                                        "title",   "description", "$defs",    "$schema",
                                        "$comment"};
    struct gyre_program *p = c->program;
    json_t *properties = json_object_get(tool->parameters, "properties"), *value;
    const char *key;
    size_t i;
    json_object_foreach(tool->parameters, key, value)
    {
        for (i = 0; i < GYRE_COUNT(known) && strcmp(known[i], key) != 0;) i++;
        if (i == GYRE_COUNT(known))
            gyre_schema_refuse(
                c, path, "keyword \"%.60s\" of all parameters is not one that gyre can honour in this syntax of calls",
                key);
    }
    if (gyre_schema_types(c, tool->parameters, path) != GYRE_TYPE_OBJECT)
        gyre_schema_malformed(c, path, "parameters are of no object");
    json_array_foreach(json_object_get(tool->parameters, "required"), i, value)
    {
        if (!json_is_string(value) || !json_object_get(properties, json_string_value(value)))
            gyre_schema_refuse(c, path, "keyword \"required\" has what is no property");
    }
    gyre_emit_lit(p, tool->name);
    gyre_emit_lit(p, ">\n");
    json_object_foreach(properties, key, value)
    {
        const uint32_t skip = required(tool->parameters, key) ? 0 : gyre_emit_alt(p, 2);
        const bool optional = !required(tool->parameters, key);
        if (optional) gyre_set_target(p, skip, 0, p->n);
        parameter(c, tool, key, value, path);
        if (optional) gyre_set_target(p, skip, 1, p->n);
    }
    gyre_emit_lit(p, "</function>");
}

// ---- the whole ------------------------------------------------------------------------------------------------------

// A call behind its mark, up to the mark at its end, as a rule.
static uint32_t call_rule(struct gyre_schema *c, const gyre_tools *t, const char *name)
{
    struct gyre_program *p = c->program;
    const uint32_t rule = gyre_new_rule(p);
    const bool xml = t->syntax == GYRE_TOOLS_XML, llama = t->syntax == GYRE_TOOLS_LLAMA3;
    uint32_t n = 0, i = 0, arguments[512];
    for (uint32_t k = 0; k < t->n; k++) n += !name || strcmp(t->tool[k].name, name) == 0;
    for (uint32_t k = 0; k < t->n && !xml; k++) {
        char path[96];
        snprintf(path, sizeof path, "tool %s: #", t->tool[k].name);
        if (name && strcmp(t->tool[k].name, name) != 0) continue;
        const char *kept = gyre_arena_strdup(&c->arena, path);
        arguments[k] = gyre_schema_root(c, t->tool[k].parameters, kept ? kept : "#");
        gyre_schema_write(c);
    }
    if (p->st != GYRE_OK) return rule;
    p->rule[rule] = p->n;
    if (!llama) optional_line_end(c);
    gyre_emit_lit(p, xml ? "<function=" : "{\"name\":");
    if (!xml) gyre_schema_gap(c);
    const uint32_t alt = gyre_emit_alt(p, n);
    for (uint32_t k = 0; k < t->n; k++) {
        if (name && strcmp(t->tool[k].name, name) != 0) continue;
        gyre_set_target(p, alt, i++, p->n);
        if (xml) {
            char path[96];
            snprintf(path, sizeof path, "tool %s: #", t->tool[k].name);
            const char *kept = gyre_arena_strdup(&c->arena, path);
            c->root = t->tool[k].parameters;
            c->name = kept ? kept : "#";
            xml_call(c, &t->tool[k], c->name);
        } else json_call(c, &t->tool[k], llama ? "parameters" : "arguments", arguments[k]);
        if (!llama) {
            optional_line_end(c);
            gyre_emit_lit(p, GYRE_MARK_CALL_END);
        }
        gyre_emit(p, GYRE_OP_RETURN, 0, 0, 0);
        if (xml) gyre_schema_write(c); // what its parameters refer to, while c->root is theirs
    }
    return rule;
}

// Free text, and the way to a first call's body; returns where that has to jump to.
static uint32_t text_or_call(struct gyre_schema *c, bool llama)
{
    struct gyre_program *p = c->program;
    struct gyre_re_maker *m = &c->maker;
    struct gyre_dfa *text = NULL, *call = NULL, *any = NULL;
    gyre_error err = {0};
    gyre_status st;
    const uint32_t alt = gyre_emit_alt(p, 2);
    gyre_set_target(p, alt, 0, p->n);
    if (llama) { // an answer that begins as a call is one
        const struct gyre_re *all = gyre_re_repeat(m, gyre_re_chars(m, NULL, 0, true), 0, GYRE_RE_MANY);
        st = gyre_dfa_make(all, GYRE_DFA_UTF8, &any, &err);
        if (st == GYRE_OK)
            st = gyre_dfa_make(gyre_re_cat(m, gyre_re_text(m, "{\"name\":"), all), GYRE_DFA_UTF8, &call, &err);
        if (st == GYRE_OK) st = gyre_dfa_both(any, call, true, &text, &err);
        gyre_dfa_free(any);
        gyre_dfa_free(call);
        call = NULL;
    } else st = gyre_dfa_until(GYRE_MARK_CALL, false, &text, &err);
    take_over(c, st, text, &err, GYRE_WORD_FREE);
    gyre_emit(p, GYRE_OP_RETURN, 0, 0, 0);
    gyre_set_target(p, alt, 1, p->n);
    if (!llama) {
        st = gyre_dfa_until(GYRE_MARK_CALL, true, &call, &err);
        take_over(c, st, call, &err, GYRE_WORD_FREE);
    }
    return gyre_emit(p, GYRE_OP_JUMP, 0, 0, 0);
}

static void write_start(struct gyre_schema *c, const gyre_tools *t, const gyre_tool_params *params, uint32_t call)
{
    struct gyre_program *p = c->program;
    const bool llama = t->syntax == GYRE_TOOLS_LLAMA3;
    uint32_t to_body = 0;
    gyre_emit_reasoning(p, params->reasoning);
    if (params->choice == GYRE_CHOICE_AUTO) to_body = text_or_call(c, llama);
    else if (!llama) gyre_emit_lit(p, GYRE_MARK_CALL);
    const uint32_t body = p->n;
    if (params->choice == GYRE_CHOICE_AUTO && p->st == GYRE_OK) p->instr[to_body].a = body;
    gyre_emit(p, GYRE_OP_CALL, call, 0, 0);
    if (!params->single && !params->name) {
        if (!llama) optional_line_end(c); // many write one behind the last call too: it is no promise of another
        const uint32_t more = gyre_emit_alt(p, 2);
        gyre_set_target(p, more, 0, p->n);
        gyre_emit(p, GYRE_OP_RETURN, 0, 0, 0);
        gyre_set_target(p, more, 1, p->n);
        if (llama) {
            gyre_emit_lit(p, ";");
            gyre_schema_gap(c);
        } else gyre_emit_lit(p, GYRE_MARK_CALL);
        gyre_emit(p, GYRE_OP_JUMP, body, 0, 0);
    } else gyre_emit(p, GYRE_OP_RETURN, 0, 0, 0);
}

gyre_status gyre_grammar_of_tools(const gyre_vocabulary *vocabulary, const gyre_tools *tools,
                                  const gyre_tool_params *given, gyre_grammar **out, gyre_error *err)
{
    gyre_tool_params params;
    struct gyre_program program = {0};
    *out = NULL;
    GYRE_TRY(gyre_params_take(given, &params, sizeof params, sizeof params, "gyre_tool_params", err));
    if (params.name && !gyre_tool_find(tools, params.name))
        return gyre_fail(err, GYRE_E_INVALID, "cannot call tool %.64s: the list has none of that name; name one of it",
                         params.name);
    struct gyre_schema c = {.program = &program};
    const uint32_t start = gyre_new_rule(&program), call = call_rule(&c, tools, params.name);
    if (program.st == GYRE_OK) program.rule[start] = program.n;
    write_start(&c, tools, &params, call);
    program.mark[program.n_mark++] = GYRE_MARK_CALL;
    program.mark[program.n_mark++] = GYRE_MARK_CALL_END;
    const gyre_status st = gyre_grammar_make(vocabulary, &program, start, out, err);
    gyre_schema_free(&c);
    return st;
}
