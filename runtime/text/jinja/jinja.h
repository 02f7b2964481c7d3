// Chat templates: the language of Python's jinja2, set up as transformers does it (sandboxed and immutable,
// trim_blocks, lstrip_blocks, loop controls, {% generation %}, tojson without HTML escapes, raise_exception,
// strftime_now).
//
// A template comes from a stranger. It reads no file and no environment, changes nothing outside of itself, and is
// bounded in steps, memory, output and depth; whatever stops it is one line that names the template's line and column.
//
// Input marking: every byte of the output knows where it came from. What a variable brought along that is marked
// `plain` stays plain through slices, joins, filters and macros; what the template's own text says does not become it.
// So a tokenizer can see control tokens in the template's words and only letters in a user's.
//
// Strings are UTF-8 and counted in code points. Differences from jinja2: integers have 128 bits (more is an error),
// there is no autoescape, no loader (include,
// import and extends are errors where they are reached), and none of the filters pprint, random and urlize.
#pragma once
#include "runtime/util/status.h"

#include <jansson.h>
#include <stdint.h>

typedef struct gyre_jinja gyre_jinja; // a parsed template; immutable, shared between threads

// `name` is what messages call the template. GYRE_E_FORMAT with line and column where it is none.
gyre_status gyre_jinja_parse(const char *name, const char *text, uint64_t bytes, gyre_jinja **out,
                             gyre_error *err) GYRE_MUST_USE;
void gyre_jinja_free(gyre_jinja *jinja); // accepts NULL

// `text` of whole UTF-8 characters, malloc'd, NUL-terminated; plain[i] is 1 where text[i] came from a plain variable.
struct gyre_marked {
    char *text;
    uint8_t *plain; // malloc'd, [bytes + 1]
    uint64_t bytes;
};
void gyre_marked_free(struct gyre_marked *marked);

struct gyre_jinja_variable {
    const char *name;
    const json_t *value;
    // Its strings are marked as input. Not so the words for who speaks (system, user, assistant, tool, ...) under a key
    // "role": many templates make the control token from them.
    bool plain;
};

// `now` is the time that strftime_now tells, in seconds since 1970 and as UTC; < 0: the clock's, where the machine is.
// GYRE_E_INVALID where the template raises or an operation fails in it, GYRE_E_UNSUPPORTED where it exceeds a limit.
gyre_status gyre_jinja_render(const gyre_jinja *jinja, const struct gyre_jinja_variable *variables, uint64_t n,
                              int64_t now, struct gyre_marked *out, gyre_error *err) GYRE_MUST_USE;
