// Templates as text, tokens and a tree. For the lexer, the parser and what walks the tree.
//
// All of it lives in the template's arena. A fault leaves by longjmp to gyre_jinja_parse with its line in *err.
#pragma once
#include "runtime/text/jinja/value.h"

// ---- lexer.c ----------------------------------------------------------------------------------------

enum jinja_token_kind {
    TOKEN_END,
    TOKEN_TEXT,        // outside of all tags, blanks cut as the tags around it ask for
    TOKEN_PRINT_BEGIN, // {{
    TOKEN_PRINT_END,
    TOKEN_TAG_BEGIN, // {%
    TOKEN_TAG_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_NUMBER, // in `value`
    TOKEN_SIGN    // operators and brackets
};

struct jinja_token {
    enum jinja_token_kind kind;
    uint32_t line, column;
    const char *text; // NUL-terminated, for END too; a STRING's and a TEXT's content
    uint64_t bytes;
    jinja_value value;
};

// ---- the tree ---------------------------------------------------------------------------------------

enum jinja_node_kind {
    // expressions
    NODE_CONST,     // value
    NODE_CAPTURED,  // what a filter or set block has made
    NODE_NAME,      // name
    NODE_LIST,      // items
    NODE_TUPLE,     // items
    NODE_DICT,      // items: key, value, key, ...
    NODE_ATTRIBUTE, // a.name
    NODE_SUBSCRIPT, // a[b]
    NODE_SLICE,     // a[items 0..2], NULL where left out
    NODE_CALL,      // a(items)
    NODE_FILTER,    // a | name(items)
    NODE_TEST,      // a is name(items); flag: is not
    NODE_KEYWORD,   // name=a, among items
    NODE_SPREAD,    // *a; flag: **a
    NODE_NOT,
    NODE_AND,
    NODE_OR,
    NODE_CHOICE,  // b if a else c; c may be NULL
    NODE_COMPARE, // a, then items: each an operand a with its operator as name
    NODE_BINARY,  // a op b
    NODE_CONCAT,  // items
    NODE_SIGN,    // op JINJA_SUB or JINJA_ADD: -a, +a
    // statements
    NODE_TEXT,     // value
    NODE_PRINT,    // a
    NODE_IF,       // a, body; b: the elif behind it; orelse
    NODE_FOR,      // for a in b if c: body, orelse; flag: recursive
    NODE_SET,      // a = b; b NULL: a block, filtered by c
    NODE_MACRO,    // name, items (parameters: NAME with default a), body, uses
    NODE_CALLER,   // call block: a with a macro of items and body
    NODE_FILTERED, // c of the body
    NODE_WITH,     // items: target, value, ...; body
    NODE_BLOCK,    // body; flag: sees local names
    NODE_GENERATION,
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_NO_LOADER, // include, import, extends: name
    NODE_REQUIRED   // what a block named `name` has in place of its body, which another template would give
};

enum jinja_uses { USES_CALLER = 1, USES_KWARGS = 2, USES_VARARGS = 4 };

struct jinja_nodes {
    struct jinja_node **item;
    uint64_t n, cap;
};

struct jinja_node {
    enum jinja_node_kind kind;
    enum jinja_operator op;
    uint32_t line, column, uses;
    bool flag;
    const char *name;
    jinja_value value;
    struct jinja_node *a, *b, *c;
    struct jinja_nodes items, body, orelse;
};

// ---- what is read and built -------------------------------------------------------------------------

struct jinja_syntax {
    struct gyre_arena *arena;
    const char *name; // of the template
    const char *text; // with line ends as \n, and less one at the end
    uint64_t bytes;
    jmp_buf leave;
    gyre_error *err;
    struct jinja_token *token;
    uint64_t n_tokens, cap_tokens, at; // at: of the parser
    uint32_t depth, loops, soft;       // nesting of everything, of loops, of what may never run
    struct jinja_nodes unknown;        // filters and tests that do not exist and would be reached
    struct jinja_nodes blocks;         // all of the template
    uint32_t seen;                     // enum jinja_uses, of the macro that is being read
};

void *gyre_jinja_keep(struct jinja_syntax *syntax, uint64_t n, uint64_t size); // zeroed; never NULL
_Noreturn void gyre_jinja_fault(struct jinja_syntax *syntax, uint32_t line, uint32_t column, const char *format, ...)
    GYRE_PRINTF(4, 5);
void gyre_jinja_lex(struct jinja_syntax *syntax); // fills `token`; the last is END

// ---- parser: expression.c and statement.c -----------------------------------------------------------

const struct jinja_token *gyre_jinja_peek(const struct jinja_syntax *syntax);
bool gyre_jinja_at(const struct jinja_syntax *syntax, enum jinja_token_kind kind, const char *text); // text NULL: any
bool gyre_jinja_skip(struct jinja_syntax *syntax, enum jinja_token_kind kind, const char *text);     // and goes on
const struct jinja_token *gyre_jinja_expect(struct jinja_syntax *syntax, enum jinja_token_kind kind, const char *text);
_Noreturn void gyre_jinja_unexpected(struct jinja_syntax *syntax, const char *wanted);
void gyre_jinja_nest(struct jinja_syntax *syntax); // one level; syntax->depth-- afterwards

struct jinja_node *gyre_jinja_node(struct jinja_syntax *syntax, enum jinja_node_kind kind); // at the present token
void gyre_jinja_add(struct jinja_syntax *syntax, struct jinja_nodes *nodes, struct jinja_node *node);
struct jinja_node *gyre_jinja_expression(struct jinja_syntax *syntax, bool with_choice);
// A list without brackets: a tuple where a comma follows, else the expression itself. `end`: a name that ends it.
struct jinja_node *gyre_jinja_tuple(struct jinja_syntax *syntax, bool with_choice, const char *end);
// What can be assigned to: names, tuples of them, and attributes of a namespace.
struct jinja_node *gyre_jinja_target(struct jinja_syntax *syntax, const char *end);
void gyre_jinja_arguments(struct jinja_syntax *syntax, struct jinja_nodes *out); // (...)
// name | name(...) on top of a value; the first without its bar where `first`.
struct jinja_node *gyre_jinja_filters(struct jinja_syntax *syntax, struct jinja_node *value, bool first);
struct jinja_nodes gyre_jinja_statements(struct jinja_syntax *syntax); // the whole template
