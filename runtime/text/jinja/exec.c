// Statements, and what calls them again: macros, call blocks, recursive loops. See exec.h.
#include "runtime/text/jinja/exec.h"

#include "runtime/text/jinja/eval.h"

#include <string.h>

enum { STAYING, BREAKING, CONTINUING };
enum { MAX_OUTPUT = 64 << 20 };

static void exec(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n);

void gyre_jinja_exec(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_nodes *body)
{
    gyre_jinja_deeper(run);
    for (uint64_t i = 0; i < body->n && run->leaving == STAYING; i++) exec(run, scope, body->item[i]);
    run->depth--;
}

// What a body prints, as a string.
static jinja_value capture(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_nodes *body)
{
    struct jinja_build made = {.run = run}, *const before = run->output;
    run->output = &made;
    gyre_jinja_exec(run, scope, body);
    run->output = before;
    return gyre_jinja_built(&made);
}

// Filters over what a block has made.
static jinja_value filtered(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *filters,
                            jinja_value v)
{
    const jinja_value before = run->captured;
    run->captured = v;
    v = gyre_jinja_eval(run, scope, filters);
    run->captured = before;
    return v;
}

// ---- setting ----------------------------------------------------------------------------------------

static void set_attribute(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *target,
                          jinja_value v)
{
    const jinja_value names = gyre_jinja_get(run, scope, target->a->name);
    if (names.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, names);
    if (names.kind != JINJA_NAMESPACE) gyre_jinja_raise(run, "cannot assign attribute on non-namespace object");
    if (target->name[0] == '_')
        gyre_jinja_raise(run, "a namespace has no attributes that begin with an underscore, as '%.40s' does",
                         target->name);
    gyre_jinja_dict_put(run, &names.names->dict, gyre_jinja_string(run, target->name, strlen(target->name), false), v);
}

static void assign(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *target, jinja_value v)
{
    run->line = target->line;
    run->column = target->column;
    if (target->kind == NODE_NAME) {
        gyre_jinja_set(run, scope, target->name, v);
    } else if (target->kind == NODE_ATTRIBUTE) {
        set_attribute(run, scope, target, v);
    } else {
        const struct jinja_list *parts = gyre_jinja_items(run, v);
        if (parts->n != target->items.n)
            gyre_jinja_raise(run, "%s values to unpack (expected %llu, got %llu)",
                             parts->n > target->items.n ? "too many" : "not enough",
                             (unsigned long long)target->items.n, (unsigned long long)parts->n);
        for (uint64_t i = 0; i < parts->n; i++) assign(run, scope, target->items.item[i], parts->item[i]);
    }
}

static void exec_set(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    if (n->b) assign(run, scope, n->a, gyre_jinja_eval(run, scope, n->b));
    else assign(run, scope, n->a, filtered(run, scope, n->c, capture(run, gyre_jinja_scope(run, scope), &n->body)));
}

// ---- loops ------------------------------------------------------------------------------------------

// The items that pass the loop's condition.
static struct jinja_list *passing(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n,
                                  struct jinja_list *all)
{
    if (!n->c) return all;
    struct jinja_list *out = gyre_jinja_list(run, JINJA_LIST, 0).list;
    uint64_t cap = 0;
    for (uint64_t i = 0; i < all->n; i++) {
        struct jinja_scope *inner = gyre_jinja_scope(run, scope);
        assign(run, inner, n->a, all->item[i]);
        if (gyre_jinja_true(gyre_jinja_eval(run, inner, n->c))) gyre_jinja_push(run, out, &cap, all->item[i]);
    }
    return out;
}

static void exec_for(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n, jinja_value over,
                     uint64_t depth)
{
    struct jinja_loop *loop = gyre_jinja_alloc(run, 1, sizeof *loop);
    loop->list = passing(run, scope, n, gyre_jinja_items(run, over));
    loop->depth = depth;
    loop->recursive = n->flag ? n : NULL;
    loop->scope = scope;
    for (; loop->at < loop->list->n && run->leaving != BREAKING; loop->at++) {
        struct jinja_scope *inner = gyre_jinja_scope(run, scope);
        gyre_jinja_work(run, 1);
        gyre_jinja_set(run, inner, "loop", (jinja_value){.kind = JINJA_LOOP, .loop = loop});
        assign(run, inner, n->a, loop->list->item[loop->at]);
        gyre_jinja_exec(run, inner, &n->body);
        if (run->leaving == CONTINUING) run->leaving = STAYING;
    }
    run->leaving = STAYING;
    if (loop->list->n == 0) gyre_jinja_exec(run, gyre_jinja_scope(run, scope), &n->orelse);
}

static jinja_value call_loop(struct jinja_run *run, const struct jinja_loop *loop, const struct jinja_args *args)
{
    if (!loop->recursive) gyre_jinja_raise(run, "The loop must have the 'recursive' marker to be called recursively.");
    if (args->n != 1 || args->n_keywords) gyre_jinja_raise(run, "loop() takes one argument");
    struct jinja_build made = {.run = run}, *const before = run->output;
    gyre_jinja_deeper(run);
    run->output = &made;
    exec_for(run, loop->scope, loop->recursive, args->item[0], loop->depth + 1);
    run->output = before;
    run->depth--;
    return gyre_jinja_built(&made);
}

// ---- macros -----------------------------------------------------------------------------------------

static jinja_value make_macro(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    struct jinja_macro *m = gyre_jinja_alloc(run, 1, sizeof *m);
    *m = (struct jinja_macro){n,
                              scope,
                              n->name,
                              gyre_jinja_list(run, JINJA_TUPLE, n->items.n),
                              (n->uses & USES_KWARGS) != 0,
                              (n->uses & USES_VARARGS) != 0,
                              (n->uses & USES_CALLER) != 0};
    for (uint64_t i = 0; i < n->items.n; i++) {
        const char *name = n->items.item[i]->name;
        m->arguments.list->item[i] = gyre_jinja_string(run, name, strlen(name), false);
    }
    return (jinja_value){.kind = JINJA_MACRO, .macro = m};
}

// A block that is called is a macro without parameters, which sees the template's own names alone.
void gyre_jinja_set_blocks(struct jinja_run *run, const struct jinja_nodes *blocks)
{
    const jinja_value self = {.kind = JINJA_NAMESPACE, .names = gyre_jinja_alloc(run, 1, sizeof *self.names)};
    for (uint64_t i = 0; i < blocks->n; i++) {
        const struct jinja_node *n = blocks->item[i];
        gyre_jinja_dict_put(run, &self.names->dict, gyre_jinja_text(run, n->name), make_macro(run, run->root, n));
    }
    gyre_jinja_set(run, run->root, "self", self);
}

static const struct jinja_keyword *keyword(const struct jinja_args *args, const char *name)
{
    for (uint64_t i = 0; i < args->n_keywords; i++)
        if (!strcmp(args->keyword[i].name, name)) return &args->keyword[i];
    return NULL;
}

static bool is_parameter(const struct jinja_node *n, const char *name)
{
    for (uint64_t i = 0; i < n->items.n; i++)
        if (!strcmp(n->items.item[i]->name, name)) return true;
    return false;
}

// What was passed beyond the parameters.
static void bind_rest(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_macro *m,
                      const struct jinja_args *args)
{
    const struct jinja_node *n = m->node;
    const jinja_value names = gyre_jinja_dict(run);
    for (uint64_t i = 0; i < args->n_keywords; i++) {
        const struct jinja_keyword *k = &args->keyword[i];
        gyre_jinja_work(run, n->items.n / 16);
        if (is_parameter(n, k->name) || (m->calls && !strcmp(k->name, "caller"))) continue;
        if (!m->catches_kwargs) gyre_jinja_raise(run, "macro '%s' takes no keyword argument '%s'", m->name, k->name);
        gyre_jinja_dict_put(run, names.dict, gyre_jinja_text(run, k->name), k->value);
    }
    if (m->catches_kwargs) gyre_jinja_set(run, scope, "kwargs", names);
    const uint64_t more = args->n > n->items.n ? args->n - n->items.n : 0;
    if (more && !m->catches_varargs)
        gyre_jinja_raise(run, "macro '%s' takes not more than %llu argument(s)", m->name,
                         (unsigned long long)n->items.n);
    const jinja_value rest = gyre_jinja_list(run, JINJA_TUPLE, more);
    for (uint64_t i = 0; i < more; i++) rest.list->item[i] = args->item[n->items.n + i];
    if (m->catches_varargs) gyre_jinja_set(run, scope, "varargs", rest);
}

static jinja_value call_macro(struct jinja_run *run, const struct jinja_macro *m, const struct jinja_args *args)
{
    const struct jinja_node *n = m->node;
    struct jinja_scope *scope = gyre_jinja_scope(run, m->scope);
    const struct jinja_keyword *k;
    bind_rest(run, scope, m, args);
    if (m->calls && !is_parameter(n, "caller")) {
        k = keyword(args, "caller");
        gyre_jinja_set(run, scope, "caller", k ? k->value : gyre_jinja_undefined(run, "No caller defined"));
    }
    for (uint64_t i = 0; i < n->items.n; i++) {
        const struct jinja_node *p = n->items.item[i];
        k = keyword(args, p->name);
        gyre_jinja_work(run, args->n_keywords / 16);
        if (k && i < args->n)
            gyre_jinja_raise(run, "macro '%s' got multiple values for argument '%s'", m->name, p->name);
        const jinja_value v = k             ? k->value
                              : i < args->n ? args->item[i]
                              : p->a        ? gyre_jinja_eval(run, scope, p->a)
                                            : gyre_jinja_undefined(run, "parameter '%s' was not provided", p->name);
        gyre_jinja_set(run, scope, p->name, v);
    }
    return capture(run, scope, &n->body);
}

static void exec_caller(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    const jinja_value callee = gyre_jinja_eval(run, scope, n->a->a);
    struct jinja_args args = gyre_jinja_eval_args(run, scope, &n->a->items);
    args.keyword[args.n_keywords++] = (struct jinja_keyword){"caller", make_macro(run, scope, n)};
    run->line = n->line;
    run->column = n->column;
    gyre_jinja_put_str(run->output, gyre_jinja_call(run, callee, &args));
}

jinja_value gyre_jinja_call(struct jinja_run *run, jinja_value callee, const struct jinja_args *args)
{
    jinja_value given[JINJA_MAX_PARAMETERS], out;
    gyre_jinja_work(run, 1);
    switch (callee.kind) {
    case JINJA_FUNCTION:
        gyre_jinja_bind(run, callee.function->builtin, args, given);
        return callee.function->builtin->call(run, callee.function->self, given, args);
    case JINJA_MACRO:
        gyre_jinja_deeper(run);
        out = call_macro(run, callee.macro, args);
        run->depth--;
        return out;
    case JINJA_LOOP:
        return call_loop(run, callee.loop, args);
    case JINJA_JOINER:
        out = callee.joiner->called ? callee.joiner->separator : gyre_jinja_text(run, "");
        callee.joiner->called = true;
        return out;
    case JINJA_UNDEFINED:
        gyre_jinja_use_undefined(run, callee);
    default:
        gyre_jinja_raise(run, "'%s' object is not callable", gyre_jinja_type(callee));
    }
}

// ---- all of them ------------------------------------------------------------------------------------

static void print(struct jinja_run *run, jinja_value v)
{
    gyre_jinja_put_str(run->output, v);
    if (run->output->n > MAX_OUTPUT) gyre_jinja_limit(run, "64 MiB of output");
}

static void exec_if(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    for (;; n = n->b) {
        if (gyre_jinja_true(gyre_jinja_eval(run, scope, n->a))) {
            gyre_jinja_exec(run, scope, &n->body);
            return;
        }
        if (!n->b) break;
    }
    gyre_jinja_exec(run, scope, &n->orelse);
}

static void exec_with(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    struct jinja_scope *inner = gyre_jinja_scope(run, scope);
    for (uint64_t i = 0; i < n->items.n; i += 2)
        gyre_jinja_set(run, inner, n->items.item[i]->name, gyre_jinja_eval(run, scope, n->items.item[i + 1]));
    gyre_jinja_exec(run, inner, &n->body);
}

static void exec(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    gyre_jinja_work(run, 1);
    run->line = n->line;
    run->column = n->column;
    switch (n->kind) {
    case NODE_TEXT:
        print(run, n->value);
        break;
    case NODE_PRINT:
        print(run, gyre_jinja_eval(run, scope, n->a));
        break;
    case NODE_IF:
        exec_if(run, scope, n);
        break;
    case NODE_FOR:
        exec_for(run, scope, n, gyre_jinja_eval(run, scope, n->b), 0);
        break;
    case NODE_SET:
        exec_set(run, scope, n);
        break;
    case NODE_MACRO:
        gyre_jinja_set(run, scope, n->name, make_macro(run, scope, n));
        break;
    case NODE_CALLER:
        exec_caller(run, scope, n);
        break;
    case NODE_FILTERED:
        print(run, filtered(run, scope, n->c, capture(run, gyre_jinja_scope(run, scope), &n->body)));
        break;
    case NODE_WITH:
        exec_with(run, scope, n);
        break;
    case NODE_GENERATION:
        gyre_jinja_exec(run, gyre_jinja_scope(run, scope), &n->body);
        break;
    case NODE_BLOCK:
        gyre_jinja_exec(run, gyre_jinja_scope(run, n->flag ? scope : run->root), &n->body);
        break;
    case NODE_BREAK:
        run->leaving = BREAKING;
        break;
    case NODE_CONTINUE:
        run->leaving = CONTINUING;
        break;
    case NODE_REQUIRED:
        gyre_jinja_raise(run, "Required block '%.40s' not found", n->name);
    case NODE_NO_LOADER:
        gyre_jinja_raise(run, "no loader for this environment specified: a chat template cannot %s another file",
                         n->name);
    default:
        gyre_jinja_raise(run, "this is no statement");
    }
}
