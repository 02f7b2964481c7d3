// The chat template of a model: found, parsed, and filled with a conversation.
#pragma once
#include "runtime/source/source.h"
#include "runtime/text/jinja/jinja.h"
#include "runtime/text/tokenizer.h"

typedef struct gyre_template gyre_template; // immutable; shared between threads

// As gyre_template_open of gyre_chat.h; `source` NULL: no model.
gyre_status gyre_template_find(const gyre_source *source, const char *choice, gyre_template **out,
                               gyre_error *err) GYRE_MUST_USE;
void gyre_template_free(gyre_template *t); // accepts NULL

// The templates that a directory brings, for a GGUF file made of it: malloc'd, NULL where there is none.
gyre_status gyre_template_carried(const gyre_source *source, char **text, char **with_tools,
                                  gyre_error *err) GYRE_MUST_USE;

// As text, origin, builtin and token of gyre_chat.h.
const char *gyre_template_words(const gyre_template *t);
const char *gyre_template_where(const gyre_template *t);
const char *gyre_template_nth(unsigned i);
const char *gyre_template_names(const gyre_template *t, const char *name);

// Fills it with the members of `variables` (an object), which count as input; `as_is` and `now` as in gyre_chat.h.
gyre_status gyre_template_fill(const gyre_template *t, const json_t *variables, bool as_is, int64_t now,
                               struct gyre_marked *out, gyre_error *err) GYRE_MUST_USE;

// As gyre_template_end of gyre_chat.h.
gyre_status gyre_template_find_end(const gyre_template *t, const gyre_tokenizer *tokenizer, uint32_t *token,
                                   char **text, gyre_error *err) GYRE_MUST_USE;

// ---- template_builtin.c
struct gyre_builtin_template {
    const char *name, *text, *sign; // sign: a token of the vocabularies that it suits
    const char *bos, *eos;          // of a model that names none
};
extern const struct gyre_builtin_template gyre_builtin_templates[];
extern const unsigned gyre_n_builtin_templates;
