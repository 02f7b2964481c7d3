// See lookup.h.
#include "runtime/text/jinja/lookup.h"

#include <string.h>

#define TABLE(name) gyre_jinja_##name, gyre_jinja_n_##name

static const struct jinja_builtin *find_filter(const char *name)
{
    const struct jinja_builtin *b = gyre_jinja_find(TABLE(list_filters), name);
    if (!b) b = gyre_jinja_find(TABLE(text_filters), name);
    return b ? b : gyre_jinja_find(TABLE(value_filters), name);
}

bool gyre_jinja_has_filter(const char *name) { return find_filter(name) != NULL; }

bool gyre_jinja_has_test(const char *name)
{
    return !strcmp(name, "filter") || !strcmp(name, "test") || gyre_jinja_find(TABLE(tests), name);
}

static jinja_value call(struct jinja_run *run, const struct jinja_builtin *b, jinja_value self,
                        const struct jinja_args *args)
{
    jinja_value given[JINJA_MAX_PARAMETERS];
    gyre_jinja_work(run, 1);
    gyre_jinja_bind(run, b, args, given);
    return b->call(run, self, given, args);
}

jinja_value gyre_jinja_filter(struct jinja_run *run, const char *name, jinja_value value, const struct jinja_args *args)
{
    const struct jinja_builtin *b = find_filter(name);
    if (!b) gyre_jinja_raise(run, "No filter named '%s'.", name);
    return call(run, b, value, args);
}

bool gyre_jinja_test(struct jinja_run *run, const char *name, jinja_value value, const struct jinja_args *args)
{
    if (!strcmp(name, "filter") || !strcmp(name, "test")) { // whether there is one of that name
        if (value.kind != JINJA_STRING) return false;
        const char *asked = gyre_jinja_c_text(run, value.string);
        return *name == 'f' ? gyre_jinja_has_filter(asked) : gyre_jinja_has_test(asked);
    }
    const struct jinja_builtin *b = gyre_jinja_find(TABLE(tests), name);
    if (!b) gyre_jinja_raise(run, "No test named '%s'.", name);
    return gyre_jinja_true(call(run, b, value, args));
}

// What Python's objects have and the immutable sandbox hides.
static bool is_unsafe(jinja_value v, const char *name)
{
    static const char *const of_lists[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"},
                             *const of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
    const size_t length = strlen(name);
    if (length > 4 && !strncmp(name, "__", 2) && !strcmp(name + length - 2, "__")) return true;
    for (size_t i = 0; v.kind == JINJA_LIST && i < GYRE_COUNT(of_lists); i++)
        if (!strcmp(name, of_lists[i])) return true;
    for (size_t i = 0; v.kind == JINJA_DICT && i < GYRE_COUNT(of_dicts); i++)
        if (!strcmp(name, of_dicts[i])) return true;
    return false;
}

bool gyre_jinja_method(struct jinja_run *run, jinja_value v, const char *name, jinja_value *out, bool *unsafe)
{
    const struct jinja_builtin *b = NULL;
    if (v.kind == JINJA_STRING) {
        b = gyre_jinja_find(TABLE(text_methods), name);
        if (!b) b = gyre_jinja_find(TABLE(text_questions), name);
    } else if (jinja_is_list(v)) {
        b = gyre_jinja_find(TABLE(list_methods), name);
        if (b && v.kind == JINJA_TUPLE && !strcmp(name, "copy")) b = NULL;
    } else if (v.kind == JINJA_DICT) {
        b = gyre_jinja_find(TABLE(dict_methods), name);
    } else if (v.kind == JINJA_CYCLER || v.kind == JINJA_LOOP) {
        b = gyre_jinja_find(TABLE(object_methods), name);
        const bool of_loop = b && (!strcmp(name, "cycle") || !strcmp(name, "changed"));
        if (b && of_loop != (v.kind == JINJA_LOOP)) b = NULL;
    }
    if (b) *out = gyre_jinja_function(run, b, v);
    else *unsafe = is_unsafe(v, name);
    return b || *unsafe;
}
