// Executes statements. For exec.c and jinja.c.
#pragma once
#include "runtime/text/jinja/scope.h"
#include "runtime/text/jinja/syntax.h"

// Prints what a template's statements make to run->output.
void gyre_jinja_exec(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_nodes *body);
// The variable `self`: calls of the template's blocks, by their names.
void gyre_jinja_set_blocks(struct jinja_run *run, const struct jinja_nodes *blocks);
// As jinja_run.call.
jinja_value gyre_jinja_call(struct jinja_run *run, jinja_value callee, const struct jinja_args *args);
