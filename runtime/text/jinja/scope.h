// What names mean in a place of a template.
#pragma once
#include "runtime/text/jinja/value.h"

// Names are looked up from the innermost scope outwards, and set in the innermost.
struct jinja_scope {
    struct jinja_scope *parent; // NULL: the template's own; behind it lie the language's globals
    struct jinja_binding {
        const char *name;
        jinja_value value;
    } * item;
    uint32_t n, cap;
};

struct jinja_scope *gyre_jinja_scope(struct jinja_run *run, struct jinja_scope *parent);
void gyre_jinja_set(struct jinja_run *run, struct jinja_scope *scope, const char *name, jinja_value value);
jinja_value gyre_jinja_get(struct jinja_run *run, const struct jinja_scope *scope, const char *name);
