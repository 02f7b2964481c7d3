// Evaluates expressions. For exec.c and eval.c.
#pragma once
#include "runtime/text/jinja/scope.h"
#include "runtime/text/jinja/syntax.h"

jinja_value gyre_jinja_eval(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *node);
// The arguments of a call, with room for one more keyword.
struct jinja_args gyre_jinja_eval_args(struct jinja_run *run, struct jinja_scope *scope,
                                       const struct jinja_nodes *items);
