// What compiles JSON Schema to a program: the rules, failures and values that all parts of it share.
#pragma once
#include "runtime/grammar/grammar.h"
#include "runtime/util/strmap.h"

#include <jansson.h>

struct gyre_schema_job {
    const json_t *schema;
    const char *path;
    uint32_t rule;
};

// One schema and everything below it, rule by rule; several schemas may be compiled into one program, one after the
// other.
struct gyre_schema {
    struct gyre_program *program;
    const json_t *root; // what "#" refers to
    const char *name;   // what "#" is called in errors
    bool compact;
    struct gyre_arena arena;
    struct gyre_re_maker maker;
    struct gyre_schema_job *job; // schemas that have a rule; those from `next` on are not written yet
    uint32_t n_job, next;
    size_t cap_job;
    struct gyre_strmap rule_of; // by the schema's address
    uint32_t chars, gap, line;  // automata made once: number + 1
    uint32_t integer, number;
    uint32_t compared; // steps that ways of "oneOf" took to be told apart
};

// The rule of `schema` (within c->root), which gyre_schema_write (schema_write.h) writes.
uint32_t gyre_schema_rule(struct gyre_schema *c, const json_t *schema, const char *path);
void gyre_schema_free(struct gyre_schema *c); // not the program

// The root of what is to be compiled next: `name` is how its place is told ("#", "tool add: #"). Refuses what cannot
// be a schema. Both must outlive the compiler.
uint32_t gyre_schema_root(struct gyre_schema *c, const json_t *root, const char *name);

// ---- for schema_*.c -------------------------------------------------------------------------------------------------

// Fails the program: "cannot constrain the output (schema at PATH): WHY; leave it out".
void gyre_schema_refuse(struct gyre_schema *c, const char *path, const char *why, ...) GYRE_PRINTF(3, 4);
void gyre_schema_malformed(struct gyre_schema *c, const char *path, const char *why, ...) GYRE_PRINTF(3, 4);
// PATH/a or PATH/a/b (b may be NULL), in the arena.
const char *gyre_schema_path(struct gyre_schema *c, const char *path, const char *a, const char *b);
// A number >= 0 of a keyword; `absent` where it is not there.
uint32_t gyre_schema_count(struct gyre_schema *c, const json_t *schema, const char *path, const char *keyword,
                           uint32_t absent);
// The value as compact JSON, in the arena.
const char *gyre_schema_text(struct gyre_schema *c, const json_t *value);

void gyre_schema_no_memory(struct gyre_schema *c);
// After an automaton of `keyword` was made, or not (`st` and, unless GYRE_OK, `err`): one that is too large is refused.
void gyre_schema_made(struct gyre_schema *c, const char *path, const char *keyword, gyre_status st,
                      const gyre_error *err);

enum {
    GYRE_TYPE_NULL = 1,
    GYRE_TYPE_BOOLEAN = 2,
    GYRE_TYPE_INTEGER = 4,
    GYRE_TYPE_NUMBER = 8,
    GYRE_TYPE_STRING = 16,
    GYRE_TYPE_ARRAY = 32,
    GYRE_TYPE_OBJECT = 64,
    GYRE_TYPE_ALL = 127
};
// The types that a schema names; GYRE_TYPE_ALL where it names none. 0 after a failure.
uint32_t gyre_schema_types(struct gyre_schema *c, const json_t *schema, const char *path);
// What a reference refers to; NULL after a failure.
const json_t *gyre_schema_resolve(struct gyre_schema *c, const char *reference, const char *path);
uint32_t gyre_schema_type_of(const json_t *value); // an integer is a number, too
