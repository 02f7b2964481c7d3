// See eval.h.
#include "runtime/text/jinja/eval.h"

#include "runtime/text/jinja/lookup.h"

#include <string.h>

static void here(struct jinja_run *run, const struct jinja_node *n)
{
    run->line = n->line;
    run->column = n->column;
}

struct jinja_args gyre_jinja_eval_args(struct jinja_run *run, struct jinja_scope *scope,
                                       const struct jinja_nodes *items)
{
    struct jinja_list list = {0};
    struct jinja_args args = {0};
    uint64_t cap = 0, cap_keywords = items->n + 1;
    args.keyword = gyre_jinja_alloc(run, cap_keywords, sizeof *args.keyword);
    for (uint64_t i = 0; i < items->n; i++) {
        const struct jinja_node *n = items->item[i];
        const bool wrapped = n->kind == NODE_KEYWORD || n->kind == NODE_SPREAD;
        const jinja_value v = gyre_jinja_eval(run, scope, wrapped ? n->a : n);
        if (n->kind == NODE_KEYWORD) {
            args.keyword[args.n_keywords++] = (struct jinja_keyword){n->name, v};
        } else if (n->kind == NODE_SPREAD && n->flag) {
            if (v.kind != JINJA_DICT)
                gyre_jinja_raise(run, "argument after ** must be a mapping, not %s", gyre_jinja_type(v));
            cap_keywords += v.dict->n;
            struct jinja_keyword *grown = gyre_jinja_alloc(run, cap_keywords, sizeof *grown);
            if (args.n_keywords) memcpy(grown, args.keyword, args.n_keywords * sizeof *grown);
            args.keyword = grown;
            for (uint64_t k = 0; k < v.dict->n; k++) {
                const jinja_value key = v.dict->entry[k].key;
                if (key.kind != JINJA_STRING) gyre_jinja_raise(run, "keywords must be strings");
                args.keyword[args.n_keywords++] =
                    (struct jinja_keyword){gyre_jinja_c_text(run, key.string), v.dict->entry[k].value};
            }
        } else if (n->kind == NODE_SPREAD) {
            const struct jinja_list *more = gyre_jinja_items(run, v);
            for (uint64_t k = 0; k < more->n; k++) gyre_jinja_push(run, &list, &cap, more->item[k]);
        } else {
            gyre_jinja_push(run, &list, &cap, v);
        }
    }
    args.item = list.item;
    args.n = list.n;
    return args;
}

static bool compared(struct jinja_run *run, const char *op, jinja_value a, jinja_value b)
{
    if (!strcmp(op, "==")) return gyre_jinja_equal(run, a, b);
    if (!strcmp(op, "!=")) return !gyre_jinja_equal(run, a, b);
    if (!strcmp(op, "in")) return gyre_jinja_contains(run, b, a);
    if (!strcmp(op, "not in")) return !gyre_jinja_contains(run, b, a);
    const int c = gyre_jinja_order(run, a, b);
    const bool less = op[0] == '<';
    return c != 2 && (c == (less ? -1 : 1) || (op[1] == '=' && c == 0));
}

static jinja_value eval_compare(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    jinja_value left = gyre_jinja_eval(run, scope, n->a);
    bool so = true;
    for (uint64_t i = 0; i < n->items.n && so; i++) {
        const struct jinja_node *operand = n->items.item[i];
        const jinja_value right = gyre_jinja_eval(run, scope, operand->a);
        here(run, operand);
        so = compared(run, operand->name, left, right);
        left = right;
    }
    return jinja_bool(so);
}

static jinja_value eval_slice(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    const jinja_value v = gyre_jinja_eval(run, scope, n->a);
    jinja_value part[3] = {{0}};
    for (int i = 0; i < 3; i++)
        if (n->items.item[i]) part[i] = gyre_jinja_eval(run, scope, n->items.item[i]);
    here(run, n);
    return gyre_jinja_slice(run, v, part[0], part[1], part[2]);
}

static jinja_value eval_items(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    if (n->kind == NODE_DICT) {
        const jinja_value out = gyre_jinja_dict(run);
        for (uint64_t i = 0; i < n->items.n; i += 2) {
            const jinja_value key = gyre_jinja_eval(run, scope, n->items.item[i]);
            gyre_jinja_dict_put(run, out.dict, key, gyre_jinja_eval(run, scope, n->items.item[i + 1]));
        }
        return out;
    }
    const jinja_value out = gyre_jinja_list(run, n->kind == NODE_TUPLE ? JINJA_TUPLE : JINJA_LIST, n->items.n);
    for (uint64_t i = 0; i < n->items.n; i++) out.list->item[i] = gyre_jinja_eval(run, scope, n->items.item[i]);
    return n->kind == NODE_CONCAT ? gyre_jinja_concat(run, out.list->item, out.list->n) : out;
}

static jinja_value eval_choice(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    if (gyre_jinja_true(gyre_jinja_eval(run, scope, n->a))) return gyre_jinja_eval(run, scope, n->b);
    if (n->c) return gyre_jinja_eval(run, scope, n->c);
    return gyre_jinja_undefined(
        run, "the inline if-expression on line %u evaluated to false and no else section was defined.", n->line);
}

static jinja_value eval_applied(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    const jinja_value v = gyre_jinja_eval(run, scope, n->a);
    const struct jinja_args args = gyre_jinja_eval_args(run, scope, &n->items);
    here(run, n);
    if (n->kind == NODE_CALL) return run->call(run, v, &args);
    if (n->kind == NODE_FILTER) return gyre_jinja_filter(run, n->name, v, &args);
    return jinja_bool(gyre_jinja_test(run, n->name, v, &args) != n->flag);
}

static jinja_value eval(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    jinja_value a, b;
    switch (n->kind) {
    case NODE_CONST:
        return n->value;
    case NODE_CAPTURED:
        return run->captured;
    case NODE_NAME:
        return gyre_jinja_get(run, scope, n->name);
    case NODE_LIST:
    case NODE_TUPLE:
    case NODE_DICT:
    case NODE_CONCAT:
        return eval_items(run, scope, n);
    case NODE_ATTRIBUTE:
        a = gyre_jinja_eval(run, scope, n->a);
        here(run, n);
        return gyre_jinja_attribute(run, a, n->name);
    case NODE_SUBSCRIPT:
        a = gyre_jinja_eval(run, scope, n->a);
        b = gyre_jinja_eval(run, scope, n->b);
        here(run, n);
        return gyre_jinja_subscript(run, a, b);
    case NODE_SLICE:
        return eval_slice(run, scope, n);
    case NODE_CALL:
    case NODE_FILTER:
    case NODE_TEST:
        return eval_applied(run, scope, n);
    case NODE_NOT:
        return jinja_bool(!gyre_jinja_true(gyre_jinja_eval(run, scope, n->a)));
    case NODE_AND:
    case NODE_OR:
        a = gyre_jinja_eval(run, scope, n->a);
        return gyre_jinja_true(a) == (n->kind == NODE_AND) ? gyre_jinja_eval(run, scope, n->b) : a;
    case NODE_CHOICE:
        return eval_choice(run, scope, n);
    case NODE_COMPARE:
        return eval_compare(run, scope, n);
    case NODE_BINARY:
        a = gyre_jinja_eval(run, scope, n->a);
        b = gyre_jinja_eval(run, scope, n->b);
        here(run, n);
        return gyre_jinja_operate(run, n->op, a, b);
    case NODE_SIGN:
        a = gyre_jinja_eval(run, scope, n->a);
        here(run, n);
        return gyre_jinja_negate(run, a, n->op == JINJA_SUB);
    default:
        gyre_jinja_raise(run, "this is no expression");
    }
}

jinja_value gyre_jinja_eval(struct jinja_run *run, struct jinja_scope *scope, const struct jinja_node *n)
{
    gyre_jinja_work(run, 1);
    gyre_jinja_deeper(run);
    here(run, n);
    const jinja_value v = eval(run, scope, n);
    run->depth--;
    return v;
}
