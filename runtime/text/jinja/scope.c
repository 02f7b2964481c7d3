// See scope.h.
#include "runtime/text/jinja/scope.h"

#include <string.h>

struct jinja_scope *gyre_jinja_scope(struct jinja_run *run, struct jinja_scope *parent)
{
    struct jinja_scope *scope = gyre_jinja_alloc(run, 1, sizeof *scope);
    scope->parent = parent;
    return scope;
}

static struct jinja_binding *find(const struct jinja_scope *scope, const char *name)
{
    for (uint32_t i = 0; i < scope->n; i++)
        if (scope->item[i].name == name || strcmp(scope->item[i].name, name) == 0) return &scope->item[i];
    return NULL;
}

void gyre_jinja_set(struct jinja_run *run, struct jinja_scope *scope, const char *name, jinja_value value)
{
    struct jinja_binding *there = find(scope, name);
    gyre_jinja_work(run, scope->n / 16);
    if (there) {
        there->value = value;
        return;
    }
    if (scope->n == scope->cap) {
        scope->cap = 2 * scope->cap + 4;
        struct jinja_binding *grown = gyre_jinja_alloc(run, scope->cap, sizeof *grown);
        if (scope->n) memcpy(grown, scope->item, scope->n * sizeof *grown);
        scope->item = grown;
    }
    scope->item[scope->n++] = (struct jinja_binding){name, value};
}

jinja_value gyre_jinja_get(struct jinja_run *run, const struct jinja_scope *scope, const char *name)
{
    for (; scope; scope = scope->parent) {
        const struct jinja_binding *there = find(scope, name);
        gyre_jinja_work(run, scope->n / 16);
        if (there) return there->value;
    }
    const struct jinja_builtin *global = gyre_jinja_find(gyre_jinja_globals, gyre_jinja_n_globals, name);
    if (global) return gyre_jinja_function(run, global, (jinja_value){0});
    return gyre_jinja_undefined(run, "'%s' is undefined", name);
}
