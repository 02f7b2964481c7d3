// The parser's upper half: statements. See syntax.h.
#include "runtime/text/jinja/syntax.h"
#include "runtime/util/utf8.h"

#include <string.h>

#define SYNTAX struct jinja_syntax *s

static bool at_name(const struct jinja_syntax *s, const char *text) { return gyre_jinja_at(s, TOKEN_NAME, text); }
static bool skip_name(SYNTAX, const char *text) { return gyre_jinja_skip(s, TOKEN_NAME, text); }
static void end_tag(SYNTAX) { gyre_jinja_expect(s, TOKEN_TAG_END, NULL); }

static struct jinja_node *statement(SYNTAX);

// The words that end a body, and what it is a body of.
struct ends {
    const char *word[3], *of;
    uint32_t line;
};

static bool at_end(const struct jinja_syntax *s, const struct ends *ends)
{
    for (int i = 0; i < 3 && ends->word[i]; i++)
        if (at_name(s, ends->word[i])) return true;
    return false;
}

// Statements up to a tag that begins with one of `ends`, whose word is the next token; NULL: up to the end.
static struct jinja_nodes body(SYNTAX, const struct ends *ends)
{
    struct jinja_nodes out = {0};
    gyre_jinja_nest(s);
    while (!gyre_jinja_at(s, TOKEN_END, NULL)) {
        if (gyre_jinja_at(s, TOKEN_TEXT, NULL)) {
            const struct jinja_token *t = gyre_jinja_peek(s);
            struct jinja_node *n = gyre_jinja_node(s, NODE_TEXT);
            struct jinja_string *text = gyre_jinja_keep(s, 1, sizeof *text);
            *text = (struct jinja_string){.data = t->text, .bytes = t->bytes};
            n->value = (jinja_value){.kind = JINJA_STRING, .string = text};
            gyre_jinja_add(s, &out, n);
            s->at++;
        } else if (gyre_jinja_at(s, TOKEN_PRINT_BEGIN, NULL)) {
            s->at++;
            struct jinja_node *n = gyre_jinja_node(s, NODE_PRINT);
            n->a = gyre_jinja_tuple(s, true, NULL);
            gyre_jinja_expect(s, TOKEN_PRINT_END, NULL);
            gyre_jinja_add(s, &out, n);
        } else {
            gyre_jinja_expect(s, TOKEN_TAG_BEGIN, NULL);
            if (ends && at_end(s, ends)) {
                s->depth--;
                return out;
            }
            gyre_jinja_add(s, &out, statement(s));
            end_tag(s);
        }
    }
    if (ends) {
        const struct jinja_token *t = gyre_jinja_peek(s);
        gyre_jinja_fault(s, t->line, t->column, "Unexpected end of template: the '%s' of line %u has no '%s'", ends->of,
                         ends->line, ends->word[0]);
    }
    s->depth--;
    return out;
}

// A body that ends with one word, which is taken.
static struct jinja_nodes whole_body(SYNTAX, const char *of, const char *end, uint32_t line)
{
    const struct ends ends = {{end}, of, line};
    const struct jinja_nodes out = body(s, &ends);
    s->at++;
    return out;
}

// ---- one function per tag: at the token behind its word ---------------------------------------------

static struct jinja_node *parse_if(SYNTAX, struct jinja_node *n)
{
    const struct ends ends = {{"endif", "elif", "else"}, "if", n->line};
    struct jinja_node *branch = n;
    s->soft++;
    for (;;) {
        branch->a = gyre_jinja_tuple(s, false, NULL);
        end_tag(s);
        branch->body = body(s, &ends);
        if (!skip_name(s, "elif")) break;
        branch->b = gyre_jinja_node(s, NODE_IF);
        branch = branch->b;
    }
    if (skip_name(s, "else")) {
        end_tag(s);
        branch->orelse = whole_body(s, "if", "endif", n->line);
    } else {
        s->at++;
    }
    s->soft--;
    return n;
}

static struct jinja_node *parse_for(SYNTAX, struct jinja_node *n)
{
    const struct ends ends = {{"endfor", "else"}, "for", n->line};
    n->a = gyre_jinja_target(s, "in");
    gyre_jinja_expect(s, TOKEN_NAME, "in");
    n->b = gyre_jinja_tuple(s, false, "recursive");
    if (skip_name(s, "if")) n->c = gyre_jinja_expression(s, true);
    n->flag = skip_name(s, "recursive");
    end_tag(s);
    s->loops++;
    n->body = body(s, &ends);
    s->loops--;
    if (skip_name(s, "else")) {
        end_tag(s);
        n->orelse = whole_body(s, "for", "endfor", n->line);
    } else {
        s->at++;
    }
    return n;
}

static struct jinja_node *captured(SYNTAX) { return gyre_jinja_node(s, NODE_CAPTURED); }

static struct jinja_node *parse_set(SYNTAX, struct jinja_node *n)
{
    n->a = gyre_jinja_target(s, NULL);
    if (gyre_jinja_skip(s, TOKEN_SIGN, "=")) {
        n->b = gyre_jinja_tuple(s, true, NULL);
        return n;
    }
    n->c = gyre_jinja_filters(s, captured(s), false);
    end_tag(s);
    n->body = whole_body(s, "set", "endset", n->line);
    return n;
}

static void parameters(SYNTAX, struct jinja_nodes *out)
{
    gyre_jinja_expect(s, TOKEN_SIGN, "(");
    while (!gyre_jinja_at(s, TOKEN_SIGN, ")")) {
        if (out->n) gyre_jinja_expect(s, TOKEN_SIGN, ",");
        if (gyre_jinja_at(s, TOKEN_SIGN, ")")) break;
        struct jinja_node *p = gyre_jinja_node(s, NODE_NAME);
        p->name = gyre_jinja_expect(s, TOKEN_NAME, NULL)->text;
        if (gyre_jinja_skip(s, TOKEN_SIGN, "=")) p->a = gyre_jinja_expression(s, true);
        else if (out->n && out->item[out->n - 1]->a)
            gyre_jinja_fault(s, p->line, p->column, "non-default argument follows default argument");
        gyre_jinja_add(s, out, p);
    }
    gyre_jinja_expect(s, TOKEN_SIGN, ")");
}

// The body of a macro or call block, and what it uses of what its caller may pass. No loop around it can be left.
static void macro_body(SYNTAX, struct jinja_node *n, const char *of, const char *end)
{
    const uint32_t before = s->seen, loops = s->loops;
    s->seen = 0;
    s->loops = 0;
    n->body = whole_body(s, of, end, n->line);
    n->uses = s->seen;
    s->seen |= before;
    s->loops = loops;
}

static struct jinja_node *parse_macro(SYNTAX, struct jinja_node *n)
{
    n->name = gyre_jinja_expect(s, TOKEN_NAME, NULL)->text;
    parameters(s, &n->items);
    end_tag(s);
    macro_body(s, n, "macro", "endmacro");
    return n;
}

static struct jinja_node *parse_call(SYNTAX, struct jinja_node *n)
{
    if (gyre_jinja_at(s, TOKEN_SIGN, "(")) parameters(s, &n->items);
    n->name = "caller";
    n->a = gyre_jinja_expression(s, true);
    if (n->a->kind != NODE_CALL) gyre_jinja_fault(s, n->line, n->column, "expected call");
    end_tag(s);
    macro_body(s, n, "call", "endcall");
    return n;
}

static struct jinja_node *parse_filter(SYNTAX, struct jinja_node *n)
{
    n->c = gyre_jinja_filters(s, captured(s), true);
    end_tag(s);
    n->body = whole_body(s, "filter", "endfilter", n->line);
    return n;
}

static struct jinja_node *parse_with(SYNTAX, struct jinja_node *n)
{
    while (!gyre_jinja_at(s, TOKEN_TAG_END, NULL)) {
        if (n->items.n) gyre_jinja_expect(s, TOKEN_SIGN, ",");
        struct jinja_node *target = gyre_jinja_node(s, NODE_NAME);
        target->name = gyre_jinja_expect(s, TOKEN_NAME, NULL)->text;
        gyre_jinja_add(s, &n->items, target);
        gyre_jinja_expect(s, TOKEN_SIGN, "=");
        gyre_jinja_add(s, &n->items, gyre_jinja_expression(s, true));
    }
    end_tag(s);
    n->body = whole_body(s, "with", "endwith", n->line);
    return n;
}

enum { MAX_BLOCKS = 1000 }; // each is looked at for each

static struct jinja_node *parse_block(SYNTAX, struct jinja_node *n)
{
    n->name = gyre_jinja_expect(s, TOKEN_NAME, NULL)->text;
    n->flag = skip_name(s, "scoped");
    const bool required = skip_name(s, "required");
    end_tag(s);
    for (uint64_t i = 0; i < s->blocks.n; i++)
        if (!strcmp(s->blocks.item[i]->name, n->name))
            gyre_jinja_fault(s, n->line, n->column, "block '%.40s' defined twice", n->name);
    if (s->blocks.n == MAX_BLOCKS) gyre_jinja_fault(s, n->line, n->column, "more than %d blocks", MAX_BLOCKS);
    gyre_jinja_add(s, &s->blocks, n);
    const uint32_t loops = s->loops;
    s->loops = 0;
    n->body = whole_body(s, "block", "endblock", n->line);
    s->loops = loops;
    skip_name(s, n->name);
    if (required) {
        struct jinja_node *none = gyre_jinja_node(s, NODE_REQUIRED);
        *none = (struct jinja_node){.kind = NODE_REQUIRED, .line = n->line, .column = n->column, .name = n->name};
        n->body = (struct jinja_nodes){0};
        gyre_jinja_add(s, &n->body, none);
    }
    return n;
}

static struct jinja_node *parse_generation(SYNTAX, struct jinja_node *n)
{
    end_tag(s);
    const uint32_t loops = s->loops;
    s->loops = 0;
    n->body = whole_body(s, "generation", "endgeneration", n->line);
    s->loops = loops;
    return n;
}

static struct jinja_node *parse_print(SYNTAX, struct jinja_node *n)
{
    n->a = gyre_jinja_node(s, NODE_CONCAT);
    do gyre_jinja_add(s, &n->a->items, gyre_jinja_expression(s, true));
    while (gyre_jinja_skip(s, TOKEN_SIGN, ","));
    return n;
}

static struct jinja_node *parse_jump(SYNTAX, struct jinja_node *n)
{
    n->kind = n->name[0] == 'b' ? NODE_BREAK : NODE_CONTINUE;
    if (!s->loops) gyre_jinja_fault(s, n->line, n->column, "'%s' outside loop", n->name);
    return n;
}

// What would load another template: refused where it is reached.
static struct jinja_node *parse_loader(SYNTAX, struct jinja_node *n)
{
    gyre_jinja_expression(s, true);
    while (!gyre_jinja_at(s, TOKEN_TAG_END, NULL) && !gyre_jinja_at(s, TOKEN_END, NULL)) s->at++;
    return n;
}

static struct jinja_node *statement(SYNTAX)
{
    static const struct {
        const char *word;
        enum jinja_node_kind kind;
        struct jinja_node *(*parse)(SYNTAX, struct jinja_node *n);
    } tags[] = {
        {"if", NODE_IF, parse_if},
        {"for", NODE_FOR, parse_for},
        {"set", NODE_SET, parse_set},
        {"macro", NODE_MACRO, parse_macro},
        {"call", NODE_CALLER, parse_call},
        {"filter", NODE_FILTERED, parse_filter},
        {"with", NODE_WITH, parse_with},
        {"block", NODE_BLOCK, parse_block},
        {"generation", NODE_GENERATION, parse_generation},
        {"print", NODE_PRINT, parse_print},
        {"break", NODE_BREAK, parse_jump},
        {"continue", NODE_CONTINUE, parse_jump},
        {"include", NODE_NO_LOADER, parse_loader},
        {"import", NODE_NO_LOADER, parse_loader},
        {"from", NODE_NO_LOADER, parse_loader},
        {"extends", NODE_NO_LOADER, parse_loader},
    };
    const struct jinja_token *t = gyre_jinja_peek(s);
    struct jinja_node *n = gyre_jinja_node(s, NODE_PRINT);
    gyre_jinja_expect(s, TOKEN_NAME, NULL);
    for (size_t i = 0; i < GYRE_COUNT(tags); i++) {
        if (strcmp(t->text, tags[i].word)) continue;
        n->kind = tags[i].kind;
        n->name = tags[i].word;
        return tags[i].parse(s, n);
    }
    gyre_jinja_fault(s, t->line, t->column, "Encountered unknown tag '%s'.", gyre_show(t->text, t->bytes).text);
}

struct jinja_nodes gyre_jinja_statements(SYNTAX)
{
    const struct jinja_nodes out = body(s, NULL);
    if (s->unknown.n) {
        const struct jinja_node *n = s->unknown.item[0];
        gyre_jinja_fault(s, n->line, n->column, "No %s named '%s'.", n->kind == NODE_FILTER ? "filter" : "test",
                         gyre_show(n->name, strlen(n->name)).text);
    }
    return out;
}
