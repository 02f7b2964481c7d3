// Values of a rendering, and the rendering itself. For the files of this folder only.
//
// Everything lives in one arena and dies with the rendering. A failing operation does not return: gyre_jinja_raise
// leaves by longjmp to gyre_jinja_render, so no caller has to look. Lists, tuples and dicts never change after they
// were made, as the sandbox forbids it; a namespace does.
#pragma once
#include "runtime/util/arena.h"
#include "runtime/util/base.h"
#include "runtime/util/status.h"

#include <setjmp.h>

__extension__ typedef __int128 jinja_int;
__extension__ typedef unsigned __int128 jinja_size;

struct json_t;
struct jinja_node;

enum jinja_kind {
    JINJA_MISSING, // an argument that was not given; never seen by a template
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_RANGE,     // a list, with the range's three numbers behind its items
    JINJA_VIEW,      // keys(), values(), items(): a list that is only iterated
    JINJA_GENERATOR, // what can be gone through once
    JINJA_NAMESPACE,
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_FUNCTION
};

typedef struct jinja_value {
    enum jinja_kind kind;
    union {
        bool flag;
        double real;
        struct jinja_string *string;
        struct jinja_list *list; // LIST, TUPLE, RANGE, VIEW
        struct jinja_dict *dict;
        struct jinja_generator *generator;
        struct jinja_namespace *names;
        struct jinja_cycler *cycler;
        struct jinja_joiner *joiner;
        struct jinja_loop *loop;
        struct jinja_macro *macro;
        struct jinja_function *function;
        const char *why; // UNDEFINED: what to say where it is used; NULL: nothing known
        jinja_int integer;
    };
} jinja_value;

// UTF-8, not NUL-terminated. `plain`: a byte per byte, NULL where all are as `input` says.
struct jinja_string {
    const char *data;
    const uint8_t *plain;
    uint64_t bytes, chars; // code points
    bool input, markup;    // markup: came out of `escape` or `safe`; what is joined to it gets escaped
};

struct jinja_list {
    jinja_value *item;
    uint64_t n;
    const char *view; // VIEW and GENERATOR: what Python calls it; TUPLE: not NULL where groupby made it
};

struct jinja_generator {
    struct jinja_list list;
    uint64_t next;
};

// In order of insertion; keys are hashable values.
struct jinja_dict {
    struct jinja_entry {
        jinja_value key, value;
        uint64_t hash;
    } * entry;
    uint64_t n, cap;
    uint32_t *slots; // entry + 1, 0: empty; NULL while there are few entries
    uint64_t mask;
};

struct jinja_namespace {
    struct jinja_dict dict;
};

struct jinja_cycler {
    struct jinja_list list;
    uint64_t at;
};

struct jinja_joiner {
    jinja_value separator;
    bool called;
};

// The variable `loop`.
struct jinja_loop {
    struct jinja_list *list;
    uint64_t at, depth; // depth: from 0
    struct jinja_list *changed;
    const struct jinja_node *recursive; // the statement that loop(...) runs again; NULL: none (exec.c)
    struct jinja_scope *scope;          // ... and where
};

// What a macro is to those who look at it; exec.c has the rest.
struct jinja_macro {
    const struct jinja_node *node; // of the macro or the call block
    struct jinja_scope *scope;     // where it was defined
    const char *name;
    jinja_value arguments; // a tuple of their names
    bool catches_kwargs, catches_varargs, calls;
};

// What a call passes.
struct jinja_args {
    jinja_value *item;
    uint64_t n;
    struct jinja_keyword {
        const char *name; // NUL-terminated
        jinja_value value;
    } * keyword;
    uint64_t n_keywords;
};

struct jinja_run;
// `given` are the arguments in the order of the builtin's parameters, MISSING where left out; `all` as they were
// passed.
typedef jinja_value jinja_call(struct jinja_run *run, jinja_value self, const jinja_value *given,
                               const struct jinja_args *all);

// A function, method, filter or test of the language. `parameters`: names divided by commas, the first `required` must
// be given; "*" at their end: takes any others, too.
struct jinja_builtin {
    const char *name;
    jinja_call *call;
    const char *parameters;
    uint32_t required;
};
enum { JINJA_MAX_PARAMETERS = 10 };

struct jinja_function {
    const struct jinja_builtin *builtin;
    jinja_value self;
};

struct jinja_run {
    struct gyre_arena arena;
    uint64_t memory, steps; // used so far
    uint32_t depth, line, column;
    const char *name; // of the template, for messages
    jmp_buf leave;
    gyre_error *err;
    // What lies above the files that need it: calling a value, a filter or a test by name.
    jinja_value (*call)(struct jinja_run *run, jinja_value callee, const struct jinja_args *args);
    jinja_value (*filter)(struct jinja_run *run, const char *name, jinja_value value, const struct jinja_args *args);
    bool (*test)(struct jinja_run *run, const char *name, jinja_value value, const struct jinja_args *args);
    // The method of a value; false: it has none of that name. *unsafe: it has, and the sandbox forbids it.
    bool (*method)(struct jinja_run *run, jinja_value value, const char *name, jinja_value *out, bool *unsafe);
    struct jinja_build *output; // where printed text goes
    jinja_value captured;       // of the block whose filters run (exec.c)
    struct jinja_scope *root;
    int leaving;              // BREAK or CONTINUE on its way to its loop (exec.c)
    int64_t now;              // seconds since 1970 (UTC); < 0: what the clock says
    struct json_t *documents; // a JSON array that keeps what from_json read
};

// ---- value.c: memory, failures, making values -------------------------------------------------------

enum {
    JINJA_MAX_DEPTH = 400, // of nested calls, blocks and brackets: a level takes up to a kilobyte or two of stack
    JINJA_MAX_RANGE = 100000
};

// Zeroed memory of the rendering.
void *gyre_jinja_alloc(struct jinja_run *run, uint64_t n, uint64_t size);
// Counts work; fails where a template does not come to an end.
void gyre_jinja_work(struct jinja_run *run, uint64_t steps);
_Noreturn void gyre_jinja_raise(struct jinja_run *run, const char *format, ...) GYRE_PRINTF(2, 3);
_Noreturn void gyre_jinja_limit(struct jinja_run *run, const char *what); // a limit was reached
void gyre_jinja_deeper(struct jinja_run *run);                            // one level; run->depth-- afterwards

jinja_value gyre_jinja_undefined(struct jinja_run *run, const char *format, ...) GYRE_PRINTF(2, 3);
_Noreturn void gyre_jinja_use_undefined(struct jinja_run *run, jinja_value undefined); // fails as Python does
static inline jinja_value jinja_none(void) { return (jinja_value){.kind = JINJA_NONE}; }
static inline jinja_value jinja_bool(bool b) { return (jinja_value){.kind = JINJA_BOOL, .flag = b}; }
static inline jinja_value jinja_number(jinja_int i) { return (jinja_value){.kind = JINJA_INT, .integer = i}; }
static inline jinja_value jinja_real(double f) { return (jinja_value){.kind = JINJA_FLOAT, .real = f}; }
static inline bool jinja_is_text(jinja_value v) { return v.kind == JINJA_STRING; }
static inline bool jinja_is_list(jinja_value v) { return v.kind == JINJA_LIST || v.kind == JINJA_TUPLE; }
static inline bool jinja_is_number(jinja_value v)
{
    return v.kind == JINJA_INT || v.kind == JINJA_FLOAT || v.kind == JINJA_BOOL;
}
jinja_value gyre_jinja_list(struct jinja_run *run, enum jinja_kind kind, uint64_t n); // its items are zeroed
// A list that grows: cap 0 at first.
void gyre_jinja_push(struct jinja_run *run, struct jinja_list *list, uint64_t *cap, jinja_value value);
jinja_value gyre_jinja_pair(struct jinja_run *run, jinja_value a, jinja_value b); // a tuple
jinja_value gyre_jinja_generator(struct jinja_run *run, struct jinja_list list, const char *view);
jinja_value gyre_jinja_function(struct jinja_run *run, const struct jinja_builtin *builtin, jinja_value self);
const char *gyre_jinja_type(jinja_value value); // Python's name of its type
bool gyre_jinja_true(jinja_value value);
// A whole number that is meant as an index, a count or a width, within int64; a bool counts. `what` names it.
int64_t gyre_jinja_index(struct jinja_run *run, jinja_value value, const char *what);
double gyre_jinja_double(jinja_value value); // of a number

// Sorts arguments by a builtin's parameters into given[JINJA_MAX_PARAMETERS].
void gyre_jinja_bind(struct jinja_run *run, const struct jinja_builtin *builtin, const struct jinja_args *args,
                     jinja_value *given);
const struct jinja_builtin *gyre_jinja_find(const struct jinja_builtin *table, uint64_t n, const char *name);

// ---- string.c: strings and how they are built -------------------------------------------------------

struct jinja_build {
    struct jinja_run *run;
    char *data;
    uint8_t *plain;
    uint64_t n, cap;
    uint64_t n_plain;
};
void gyre_jinja_put(struct jinja_build *build, const char *data, uint64_t bytes, bool plain);
void gyre_jinja_put_text(struct jinja_build *build, const char *text); // NUL-terminated, the template's own
// Bytes from..to of a string, with their marks.
void gyre_jinja_put_part(struct jinja_build *build, const struct jinja_string *string, uint64_t from, uint64_t to);
void gyre_jinja_put_string(struct jinja_build *build, const struct jinja_string *string);
void gyre_jinja_put_char(struct jinja_build *build, uint32_t code, bool plain);
void gyre_jinja_put_printf(struct jinja_build *build, const char *format, ...) GYRE_PRINTF(2, 3); // < 512 bytes
jinja_value gyre_jinja_built(struct jinja_build *build);

jinja_value gyre_jinja_text(struct jinja_run *run, const char *text); // NUL-terminated; copied
jinja_value gyre_jinja_string(struct jinja_run *run, const char *data, uint64_t bytes, bool input); // borrowed
// A part of a string (bytes from..to), sharing its bytes.
jinja_value gyre_jinja_part(struct jinja_run *run, const struct jinja_string *string, uint64_t from, uint64_t to);
jinja_value gyre_jinja_markup(struct jinja_run *run, jinja_value string, bool markup);
bool gyre_jinja_plain_at(const struct jinja_string *string, uint64_t byte);
// The byte at which the n-th code point begins, n <= chars.
uint64_t gyre_jinja_byte_at(const struct jinja_string *string, uint64_t n);
// The character at a byte, and how many bytes it has.
uint32_t gyre_jinja_char(const struct jinja_string *string, uint64_t at, uint32_t *bytes);
bool gyre_jinja_is(const struct jinja_string *string, const char *text);
// The first (last) place of `what` within from..to, or UINT64_MAX.
uint64_t gyre_jinja_search(const struct jinja_string *string, uint64_t from, uint64_t to,
                           const struct jinja_string *what);
uint64_t gyre_jinja_search_back(const struct jinja_string *string, uint64_t from, uint64_t to,
                                const struct jinja_string *what);
const char *gyre_jinja_c_text(struct jinja_run *run, const struct jinja_string *string); // NUL-terminated copy
bool gyre_jinja_is_space(uint32_t code);                                                 // as str.isspace
// With < > & " ' as HTML entities.
jinja_value gyre_jinja_escape(struct jinja_run *run, jinja_value string);

// ---- compare.c: equality, order, hashing, dicts -----------------------------------------------------

bool gyre_jinja_equal(struct jinja_run *run, jinja_value a, jinja_value b);
int gyre_jinja_order(struct jinja_run *run, jinja_value a, jinja_value b); // -1, 0, 1; 2: neither (NaN); else fails
jinja_value gyre_jinja_dict(struct jinja_run *run);
void gyre_jinja_dict_put(struct jinja_run *run, struct jinja_dict *dict, jinja_value key, jinja_value value);
jinja_value *gyre_jinja_dict_get(struct jinja_run *run, const struct jinja_dict *dict, jinja_value key); // NULL: none
jinja_value *gyre_jinja_dict_name(const struct jinja_dict *dict, const char *key);                       // likewise
bool gyre_jinja_hashable(jinja_value value);

// ---- repr.c: values as text -------------------------------------------------------------------------

void gyre_jinja_put_str(struct jinja_build *build, jinja_value value);  // as str()
void gyre_jinja_put_repr(struct jinja_build *build, jinja_value value); // as repr()
jinja_value gyre_jinja_str(struct jinja_run *run, jinja_value value);   // a string; a string stays itself
void gyre_jinja_put_int(struct jinja_build *build, jinja_int value);
void gyre_jinja_float_text(double value, char out[40]); // as repr(float)
// str(int) and int(text) in a base; false: it is none or is too large.
bool gyre_jinja_parse_int(const char *text, uint64_t bytes, int base, jinja_int *out);
bool gyre_jinja_parse_float(const struct jinja_string *text, double *out); // as float(text)
bool gyre_jinja_float_to_int(double value, jinja_int *out);                // cut off; false: too large or no number

// ---- json.c -----------------------------------------------------------------------------------------

jinja_value gyre_jinja_tojson(struct jinja_run *run, jinja_value value, const jinja_value given[4]);
jinja_value gyre_jinja_from_json(struct jinja_run *run, const struct json_t *json, bool plain);

// ---- access.c: what lies inside of a value ----------------------------------------------------------

// The items as a list; fails where the value is none that can be gone through. A generator is used up.
struct jinja_list *gyre_jinja_items(struct jinja_run *run, jinja_value value);
bool gyre_jinja_length(jinja_value value, uint64_t *n);                                       // false: it has none
jinja_value gyre_jinja_attribute(struct jinja_run *run, jinja_value value, const char *name); // value.name
// Without looking at a dict's keys; false: there is none.
bool gyre_jinja_own_attribute(struct jinja_run *run, jinja_value value, const char *name, jinja_value *out);
jinja_value gyre_jinja_subscript(struct jinja_run *run, jinja_value value, jinja_value key); // value[key]
jinja_value gyre_jinja_slice(struct jinja_run *run, jinja_value value, jinja_value from, jinja_value to,
                             jinja_value step);
bool gyre_jinja_contains(struct jinja_run *run, jinja_value all, jinja_value what); // what in all
// Start and end of a slice of n as Python has them: 0..n. MISSING and NONE are the ends.
void gyre_jinja_bounds(struct jinja_run *run, jinja_value from, jinja_value to, uint64_t n, uint64_t *begin,
                       uint64_t *end);

// ---- operators.c ------------------------------------------------------------------------------------

enum jinja_operator { JINJA_ADD, JINJA_SUB, JINJA_MUL, JINJA_DIV, JINJA_FLOOR, JINJA_MOD, JINJA_POW, JINJA_CONCAT };
jinja_value gyre_jinja_operate(struct jinja_run *run, enum jinja_operator op, jinja_value a, jinja_value b);
jinja_value gyre_jinja_negate(struct jinja_run *run, jinja_value value, bool minus);
jinja_value gyre_jinja_concat(struct jinja_run *run, const jinja_value *item, uint64_t n); // a ~ b ~ ...

// ---- format.c ---------------------------------------------------------------------------------------

jinja_value gyre_jinja_percent(struct jinja_run *run, const struct jinja_string *format, jinja_value values);
jinja_value gyre_jinja_format(struct jinja_run *run, const struct jinja_string *format, const struct jinja_args *args);

// ---- the language's tables --------------------------------------------------------------------------

extern const struct jinja_builtin gyre_jinja_text_methods[], gyre_jinja_text_questions[], gyre_jinja_list_methods[],
    gyre_jinja_dict_methods[], gyre_jinja_object_methods[], gyre_jinja_text_filters[], gyre_jinja_list_filters[],
    gyre_jinja_value_filters[], gyre_jinja_tests[], gyre_jinja_globals[];
extern const uint64_t gyre_jinja_n_text_methods, gyre_jinja_n_text_questions, gyre_jinja_n_list_methods,
    gyre_jinja_n_dict_methods, gyre_jinja_n_object_methods, gyre_jinja_n_text_filters, gyre_jinja_n_list_filters,
    gyre_jinja_n_value_filters, gyre_jinja_n_tests, gyre_jinja_n_globals;
