// Values of one type as programs, each with what the schema says of it.
#pragma once
#include "runtime/grammar/schema.h"

// White space behind a colon, and between brackets and what they hold.
void gyre_schema_gap(struct gyre_schema *c);
void gyre_schema_line(struct gyre_schema *c);

// Values of one type, each with what the schema says of it, and GYRE_OP_RETURN.
void gyre_schema_object(struct gyre_schema *c, const json_t *schema, const char *path);
void gyre_schema_array(struct gyre_schema *c, const json_t *schema, const char *path);
void gyre_schema_string(struct gyre_schema *c, const json_t *schema, const char *path);
void gyre_schema_number(struct gyre_schema *c, const json_t *schema, const char *path, bool integer);
// What pattern, format and lengths of a string allow, as an automaton over `text`; NULL where only lengths do (then
// min..max characters), or after a failure.
struct gyre_dfa *gyre_schema_string_dfa(struct gyre_schema *c, const json_t *schema, const char *path,
                                        enum gyre_dfa_text text, uint32_t *min, uint32_t *max);
