// The parser's lower half: expressions, by jinja2's order of precedence. See syntax.h.
#include "runtime/text/jinja/lookup.h"
#include "runtime/text/jinja/syntax.h"
#include "runtime/util/utf8.h"

#include <string.h>

#define SYNTAX struct jinja_syntax *s

const struct jinja_token *gyre_jinja_peek(const struct jinja_syntax *s) { return &s->token[s->at]; }

bool gyre_jinja_at(const struct jinja_syntax *s, enum jinja_token_kind kind, const char *text)
{
    return s->token[s->at].kind == kind && (!text || strcmp(s->token[s->at].text, text) == 0);
}

bool gyre_jinja_skip(SYNTAX, enum jinja_token_kind kind, const char *text)
{
    const bool there = gyre_jinja_at(s, kind, text);
    if (there) s->at++;
    return there;
}

_Noreturn void gyre_jinja_unexpected(SYNTAX, const char *wanted)
{
    static const char *const kinds[] = {"end of template",        "text", "{{",
                                        "end of print statement", "{%",   "end of statement block"};
    const struct jinja_token *t = gyre_jinja_peek(s);
    const char *got = t->kind <= TOKEN_TAG_END ? kinds[t->kind] : gyre_show(t->text, t->bytes).text;
    gyre_jinja_fault(s, t->line, t->column, "expected %s, got '%.60s'", wanted, got);
}

const struct jinja_token *gyre_jinja_expect(SYNTAX, enum jinja_token_kind kind, const char *text)
{
    static const char *const kinds[] = {
        "the end", "text",     "a print",  "the end of the print", "a tag", "the end of the tag",
        "a name",  "a string", "a number", "an operator"};
    if (!gyre_jinja_at(s, kind, text)) gyre_jinja_unexpected(s, text ? text : kinds[kind]);
    return &s->token[s->at++];
}

void gyre_jinja_nest(SYNTAX)
{
    const struct jinja_token *t = gyre_jinja_peek(s);
    if (++s->depth > JINJA_MAX_DEPTH)
        gyre_jinja_fault(s, t->line, t->column, "it is nested more than %d deep", JINJA_MAX_DEPTH);
}

struct jinja_node *gyre_jinja_node(SYNTAX, enum jinja_node_kind kind)
{
    struct jinja_node *n = gyre_jinja_keep(s, 1, sizeof *n);
    const struct jinja_token *t = gyre_jinja_peek(s);
    n->kind = kind;
    n->line = t->line;
    n->column = t->column;
    return n;
}

void gyre_jinja_add(SYNTAX, struct jinja_nodes *nodes, struct jinja_node *node)
{
    if (nodes->n == nodes->cap) {
        const uint64_t cap = 2 * nodes->cap + 4;
        struct jinja_node **grown = gyre_jinja_keep(s, cap, sizeof *grown);
        if (nodes->n) memcpy(grown, nodes->item, nodes->n * sizeof *grown);
        nodes->item = grown;
        nodes->cap = cap;
    }
    nodes->item[nodes->n++] = node;
}

static bool at_sign(const struct jinja_syntax *s, const char *text) { return gyre_jinja_at(s, TOKEN_SIGN, text); }
static bool skip_sign(SYNTAX, const char *text) { return gyre_jinja_skip(s, TOKEN_SIGN, text); }
static bool at_name(const struct jinja_syntax *s, const char *text) { return gyre_jinja_at(s, TOKEN_NAME, text); }
static bool skip_name(SYNTAX, const char *text) { return gyre_jinja_skip(s, TOKEN_NAME, text); }

// A node around another one, at the operator.
static struct jinja_node *around(SYNTAX, enum jinja_node_kind kind, struct jinja_node *a)
{
    struct jinja_node *n = gyre_jinja_node(s, kind);
    n->a = a;
    return n;
}

static struct jinja_node *constant(SYNTAX, jinja_value value)
{
    struct jinja_node *n = gyre_jinja_node(s, NODE_CONST);
    n->value = value;
    return n;
}

// ---- primaries --------------------------------------------------------------------------------------

static struct jinja_node *parse_name(SYNTAX)
{
    const struct jinja_token *t = gyre_jinja_peek(s);
    static const struct {
        const char *name;
        enum jinja_kind kind;
        bool flag;
    } words[] = {{"true", JINJA_BOOL, true},   {"True", JINJA_BOOL, true},  {"false", JINJA_BOOL, false},
                 {"False", JINJA_BOOL, false}, {"none", JINJA_NONE, false}, {"None", JINJA_NONE, false}};
    struct jinja_node *n = gyre_jinja_node(s, NODE_NAME);
    n->name = t->text;
    for (size_t i = 0; i < GYRE_COUNT(words); i++) {
        if (strcmp(t->text, words[i].name)) continue;
        n->kind = NODE_CONST;
        n->value.kind = words[i].kind;
        if (n->value.kind == JINJA_BOOL) n->value.flag = words[i].flag;
    }
    if (!strcmp(t->text, "caller")) s->seen |= USES_CALLER;
    if (!strcmp(t->text, "kwargs")) s->seen |= USES_KWARGS;
    if (!strcmp(t->text, "varargs")) s->seen |= USES_VARARGS;
    s->at++;
    return n;
}

static struct jinja_node *parse_string(SYNTAX)
{
    struct jinja_node *n = gyre_jinja_node(s, NODE_CONST);
    uint64_t bytes = 0, used = 0, last = s->at;
    while (s->token[last].kind == TOKEN_STRING) bytes += s->token[last++].bytes;
    char *text = gyre_jinja_keep(s, bytes + 1, 1);
    for (; s->at < last; s->at++) {
        memcpy(text + used, s->token[s->at].text, s->token[s->at].bytes);
        used += s->token[s->at].bytes;
    }
    struct jinja_string *string = gyre_jinja_keep(s, 1, sizeof *string);
    *string = (struct jinja_string){.data = text, .bytes = bytes};
    for (uint64_t i = 0; i < bytes; i++) string->chars += ((unsigned char)text[i] & 0xC0) != 0x80;
    n->value = (jinja_value){.kind = JINJA_STRING, .string = string};
    return n;
}

static struct jinja_node *parse_list(SYNTAX)
{
    struct jinja_node *n = gyre_jinja_node(s, NODE_LIST);
    gyre_jinja_expect(s, TOKEN_SIGN, "[");
    while (!at_sign(s, "]")) {
        if (n->items.n) gyre_jinja_expect(s, TOKEN_SIGN, ",");
        if (at_sign(s, "]")) break;
        gyre_jinja_add(s, &n->items, gyre_jinja_expression(s, true));
    }
    gyre_jinja_expect(s, TOKEN_SIGN, "]");
    return n;
}

static struct jinja_node *parse_dict(SYNTAX)
{
    struct jinja_node *n = gyre_jinja_node(s, NODE_DICT);
    gyre_jinja_expect(s, TOKEN_SIGN, "{");
    while (!at_sign(s, "}")) {
        if (n->items.n) gyre_jinja_expect(s, TOKEN_SIGN, ",");
        if (at_sign(s, "}")) break;
        gyre_jinja_add(s, &n->items, gyre_jinja_expression(s, true));
        gyre_jinja_expect(s, TOKEN_SIGN, ":");
        gyre_jinja_add(s, &n->items, gyre_jinja_expression(s, true));
    }
    gyre_jinja_expect(s, TOKEN_SIGN, "}");
    return n;
}

static bool ends_tuple(const struct jinja_syntax *s, const char *end)
{
    return gyre_jinja_at(s, TOKEN_PRINT_END, NULL) || gyre_jinja_at(s, TOKEN_TAG_END, NULL) || at_sign(s, ")") ||
           (end && at_name(s, end));
}

// `bare`: an empty one needs brackets around it, which this has not.
static struct jinja_node *parse_tuple(SYNTAX, struct jinja_node *(*item)(SYNTAX, bool), bool with_choice,
                                      const char *end, bool bare)
{
    struct jinja_node *n = gyre_jinja_node(s, NODE_TUPLE);
    bool comma = false;
    while (!ends_tuple(s, end)) {
        gyre_jinja_add(s, &n->items, item(s, with_choice));
        if (!at_sign(s, ",")) break;
        comma = true;
        s->at++;
    }
    if (n->items.n == 0 && bare) gyre_jinja_unexpected(s, "an expression");
    return n->items.n == 1 && !comma ? n->items.item[0] : n;
}

struct jinja_node *gyre_jinja_tuple(SYNTAX, bool with_choice, const char *end)
{
    return parse_tuple(s, gyre_jinja_expression, with_choice, end, true);
}

static struct jinja_node *primary(SYNTAX)
{
    const struct jinja_token *t = gyre_jinja_peek(s);
    if (t->kind == TOKEN_NAME) return parse_name(s);
    if (t->kind == TOKEN_STRING) return parse_string(s);
    if (t->kind == TOKEN_NUMBER) {
        struct jinja_node *n = constant(s, t->value);
        s->at++;
        return n;
    }
    if (at_sign(s, "[")) return parse_list(s);
    if (at_sign(s, "{")) return parse_dict(s);
    if (!skip_sign(s, "(")) gyre_jinja_unexpected(s, "an expression");
    struct jinja_node *n = parse_tuple(s, gyre_jinja_expression, true, NULL, false);
    gyre_jinja_expect(s, TOKEN_SIGN, ")");
    return n;
}

// ---- what follows a value ---------------------------------------------------------------------------

static struct jinja_node *subscribed(SYNTAX, struct jinja_node *value)
{
    struct jinja_node *n = around(s, NODE_SUBSCRIPT, value), *part[3] = {0};
    int at = 0;
    bool slice = false;
    for (;; s->at++) {
        if (!at_sign(s, ":") && !at_sign(s, "]") && !at_sign(s, ",")) part[at] = gyre_jinja_expression(s, true);
        if (!at_sign(s, ":") || at == 2) break;
        slice = true;
        at++;
    }
    if (at_sign(s, ",") && !slice && part[0]) { // x[a, b]: a tuple is the key
        struct jinja_node *key = gyre_jinja_node(s, NODE_TUPLE);
        gyre_jinja_add(s, &key->items, part[0]);
        while (skip_sign(s, ",")) gyre_jinja_add(s, &key->items, gyre_jinja_expression(s, true));
        part[0] = key;
    }
    if (!slice && !part[0]) gyre_jinja_unexpected(s, "an expression");
    n->b = part[0];
    if (slice) {
        n->kind = NODE_SLICE;
        for (int i = 0; i < 3; i++) gyre_jinja_add(s, &n->items, part[i]);
    }
    gyre_jinja_expect(s, TOKEN_SIGN, "]");
    return n;
}

static struct jinja_node *dotted(SYNTAX, struct jinja_node *value)
{
    const struct jinja_token *t = gyre_jinja_peek(s);
    struct jinja_node *n = around(s, NODE_ATTRIBUTE, value);
    if (t->kind == TOKEN_NUMBER && t->value.kind == JINJA_INT) {
        n->kind = NODE_SUBSCRIPT;
        n->b = constant(s, t->value);
    } else if (t->kind == TOKEN_NAME) {
        n->name = t->text;
    } else {
        gyre_jinja_unexpected(s, "a name or a number");
    }
    s->at++;
    return n;
}

void gyre_jinja_arguments(SYNTAX, struct jinja_nodes *out)
{
    bool named = false, any = false;
    gyre_jinja_expect(s, TOKEN_SIGN, "(");
    while (!at_sign(s, ")")) {
        if (any) gyre_jinja_expect(s, TOKEN_SIGN, ",");
        if (at_sign(s, ")")) break;
        any = true;
        struct jinja_node *n = gyre_jinja_node(s, NODE_SPREAD);
        if (at_sign(s, "*") || at_sign(s, "**")) {
            n->flag = at_sign(s, "**");
            s->at++;
            n->a = gyre_jinja_expression(s, true);
            named = named || n->flag;
        } else if (gyre_jinja_at(s, TOKEN_NAME, NULL) && s->token[s->at + 1].kind == TOKEN_SIGN &&
                   !strcmp(s->token[s->at + 1].text, "=")) {
            n->kind = NODE_KEYWORD;
            n->name = gyre_jinja_peek(s)->text;
            s->at += 2;
            n->a = gyre_jinja_expression(s, true);
            named = true;
        } else {
            if (named) gyre_jinja_unexpected(s, "a named argument (they come last)");
            n = gyre_jinja_expression(s, true);
        }
        gyre_jinja_add(s, out, n);
    }
    gyre_jinja_expect(s, TOKEN_SIGN, ")");
}

static struct jinja_node *called(SYNTAX, struct jinja_node *value)
{
    struct jinja_node *n = around(s, NODE_CALL, value);
    gyre_jinja_arguments(s, &n->items);
    return n;
}

// Postfixes chain without end, so they count as depth: what evaluates them recurses.
static void chained(SYNTAX, uint32_t *links)
{
    gyre_jinja_nest(s);
    ++*links;
}

static struct jinja_node *postfix(SYNTAX, struct jinja_node *n)
{
    uint32_t links = 0;
    for (;; chained(s, &links)) {
        if (skip_sign(s, ".")) n = dotted(s, n);
        else if (skip_sign(s, "[")) n = subscribed(s, n);
        else if (at_sign(s, "(")) n = called(s, n);
        else break;
    }
    s->depth -= links;
    return n;
}

static const char *dotted_name(SYNTAX)
{
    const struct jinja_token *t = gyre_jinja_expect(s, TOKEN_NAME, NULL);
    if (at_sign(s, ".")) gyre_jinja_fault(s, t->line, t->column, "there is no filter or test with a dot in its name");
    return t->text;
}

static struct jinja_node *filtered(SYNTAX, struct jinja_node *value)
{
    struct jinja_node *n = around(s, NODE_FILTER, value);
    n->name = dotted_name(s);
    if (!s->soft && !gyre_jinja_has_filter(n->name)) gyre_jinja_add(s, &s->unknown, n);
    if (at_sign(s, "(")) gyre_jinja_arguments(s, &n->items);
    return n;
}

static bool begins_argument(const struct jinja_syntax *s)
{
    const struct jinja_token *t = gyre_jinja_peek(s);
    if (t->kind == TOKEN_NAME) return strcmp(t->text, "else") && strcmp(t->text, "or") && strcmp(t->text, "and");
    return t->kind == TOKEN_STRING || t->kind == TOKEN_NUMBER || at_sign(s, "[") || at_sign(s, "{");
}

static struct jinja_node *tested(SYNTAX, struct jinja_node *value)
{
    const bool negated = skip_name(s, "not");
    struct jinja_node *n = around(s, NODE_TEST, value);
    n->flag = negated;
    n->name = dotted_name(s);
    if (!s->soft && !gyre_jinja_has_test(n->name)) gyre_jinja_add(s, &s->unknown, n);
    if (at_sign(s, "(")) {
        gyre_jinja_arguments(s, &n->items);
    } else if (begins_argument(s)) {
        if (at_name(s, "is")) gyre_jinja_unexpected(s, "no second `is` in a row");
        gyre_jinja_add(s, &n->items, postfix(s, primary(s)));
    }
    return n;
}

struct jinja_node *gyre_jinja_filters(SYNTAX, struct jinja_node *n, bool first)
{
    uint32_t links = 0;
    for (;; chained(s, &links)) {
        if (first || skip_sign(s, "|")) n = filtered(s, n);
        else if (skip_name(s, "is")) n = tested(s, n);
        else if (at_sign(s, "(")) n = called(s, n);
        else break;
        first = false;
    }
    s->depth -= links;
    return n;
}

// ---- operators, the strongest first -----------------------------------------------------------------

static struct jinja_node *unary(SYNTAX, bool with_filters)
{
    struct jinja_node *n;
    gyre_jinja_nest(s);
    if (at_sign(s, "-") || at_sign(s, "+")) {
        n = gyre_jinja_node(s, NODE_SIGN);
        n->op = at_sign(s, "-") ? JINJA_SUB : JINJA_ADD;
        s->at++;
        n->a = unary(s, false);
    } else {
        n = primary(s);
    }
    n = postfix(s, n);
    if (with_filters) n = gyre_jinja_filters(s, n, false);
    s->depth--;
    return n;
}

struct level {
    const char *sign[4];
    enum jinja_operator op[4];
};
static const struct level power = {{"**"}, {JINJA_POW}},
                          times = {{"*", "/", "//", "%"}, {JINJA_MUL, JINJA_DIV, JINJA_FLOOR, JINJA_MOD}},
                          plus = {{"+", "-"}, {JINJA_ADD, JINJA_SUB}};

static struct jinja_node *binary(SYNTAX, const struct level *level, struct jinja_node *(*lower)(SYNTAX))
{
    struct jinja_node *n = lower(s);
    uint32_t links = 0;
    for (bool found = true; found;) {
        found = false;
        for (int i = 0; i < 4 && level->sign[i] && !found; i++) {
            if (!at_sign(s, level->sign[i])) continue;
            struct jinja_node *op = around(s, NODE_BINARY, n);
            op->op = level->op[i];
            s->at++;
            op->b = lower(s);
            n = op;
            found = true;
            chained(s, &links);
        }
    }
    s->depth -= links;
    return n;
}

static struct jinja_node *filtered_unary(SYNTAX) { return unary(s, true); }
static struct jinja_node *math3(SYNTAX) { return binary(s, &power, filtered_unary); }
static struct jinja_node *math2(SYNTAX) { return binary(s, &times, math3); }

static struct jinja_node *concat(SYNTAX)
{
    struct jinja_node *first = math2(s);
    if (!at_sign(s, "~")) return first;
    struct jinja_node *n = gyre_jinja_node(s, NODE_CONCAT);
    gyre_jinja_add(s, &n->items, first);
    while (skip_sign(s, "~")) gyre_jinja_add(s, &n->items, math2(s));
    return n;
}

static struct jinja_node *math1(SYNTAX) { return binary(s, &plus, concat); }

static const char *comparison(const struct jinja_syntax *s)
{
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < GYRE_COUNT(signs); i++)
        if (at_sign(s, signs[i])) return signs[i];
    if (at_name(s, "in")) return "in";
    const struct jinja_token *next = &s->token[s->at + (s->token[s->at].kind != TOKEN_END)];
    return at_name(s, "not") && next->kind == TOKEN_NAME && !strcmp(next->text, "in") ? "not in" : NULL;
}

static struct jinja_node *compare(SYNTAX)
{
    struct jinja_node *first = math1(s), *n = NULL;
    for (const char *op; (op = comparison(s));) {
        if (!n) n = around(s, NODE_COMPARE, first);
        struct jinja_node *operand = gyre_jinja_node(s, NODE_KEYWORD);
        operand->name = op;
        s->at += op[0] == 'n' ? 2 : 1;
        operand->a = math1(s);
        gyre_jinja_add(s, &n->items, operand);
    }
    return n ? n : first;
}

static struct jinja_node *not_(SYNTAX)
{
    if (!at_name(s, "not")) return compare(s);
    struct jinja_node *n = gyre_jinja_node(s, NODE_NOT);
    gyre_jinja_nest(s);
    s->at++;
    n->a = not_(s);
    s->depth--;
    return n;
}

static struct jinja_node *and_(SYNTAX)
{
    struct jinja_node *n = not_(s);
    uint32_t links = 0;
    for (; at_name(s, "and"); chained(s, &links)) {
        n = around(s, NODE_AND, n);
        s->at++;
        n->b = not_(s);
    }
    s->depth -= links;
    return n;
}

static struct jinja_node *or_(SYNTAX)
{
    struct jinja_node *n = and_(s);
    uint32_t links = 0;
    for (; at_name(s, "or"); chained(s, &links)) {
        n = around(s, NODE_OR, n);
        s->at++;
        n->b = and_(s);
    }
    s->depth -= links;
    return n;
}

struct jinja_node *gyre_jinja_expression(SYNTAX, bool with_choice)
{
    gyre_jinja_nest(s);
    const uint64_t unknown = s->unknown.n;
    struct jinja_node *n = or_(s);
    uint32_t links = 0;
    if (with_choice && at_name(s, "if")) s->unknown.n = unknown; // it may never be reached
    for (; with_choice && at_name(s, "if"); chained(s, &links)) {
        struct jinja_node *choice = gyre_jinja_node(s, NODE_CHOICE);
        s->at++;
        choice->b = n;
        s->soft++;
        choice->a = or_(s);
        if (skip_name(s, "else")) choice->c = gyre_jinja_expression(s, true);
        s->soft--;
        n = choice;
    }
    s->depth -= links + 1;
    return n;
}

// ---- targets ----------------------------------------------------------------------------------------

static struct jinja_node *one_target(SYNTAX, bool unused)
{
    (void)unused;
    const struct jinja_token *t = gyre_jinja_peek(s);
    if (skip_sign(s, "(")) {
        struct jinja_node *inner = parse_tuple(s, one_target, false, NULL, true);
        gyre_jinja_expect(s, TOKEN_SIGN, ")");
        return inner;
    }
    struct jinja_node *n = gyre_jinja_node(s, NODE_NAME);
    n->name = gyre_jinja_expect(s, TOKEN_NAME, NULL)->text;
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < GYRE_COUNT(reserved); i++)
        if (!strcmp(n->name, reserved[i])) gyre_jinja_fault(s, t->line, t->column, "can't assign to '%s'", n->name);
    if (!skip_sign(s, ".")) return n;
    struct jinja_node *attribute = around(s, NODE_ATTRIBUTE, n);
    attribute->name = gyre_jinja_expect(s, TOKEN_NAME, NULL)->text;
    return attribute;
}

struct jinja_node *gyre_jinja_target(SYNTAX, const char *end)
{
    gyre_jinja_nest(s);
    struct jinja_node *n = parse_tuple(s, one_target, false, end, true);
    s->depth--;
    return n;
}
