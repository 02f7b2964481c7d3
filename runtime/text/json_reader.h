// A tokenizer.json while it is read, for tokenizer_json.c and json_steps.c only.
#pragma once
#include "runtime/text/tokenizer_impl.h"

#include <jansson.h>

struct json_reader {
    const char *path;
    json_t *root;
    struct gyre_string *names, (*merges)[2];
    uint8_t *kinds;
    bool *modelled;
    struct added_token *added;
    struct tokenizer_parts parts;
    bool byte_level, moves_front; // a ByteLevel was read; a normalizer that may take away what a text begins with
    const char *wrong;            // a field that has another type than it should
    gyre_tokenizer *tokenizer;
    gyre_error *err;
};

// What the file asks for and gyre does not do; what it lacks, or says in no known form.
gyre_status gyre_json_refuse(const struct json_reader *r, const char *what, const char *name);
gyre_status gyre_json_malformed(const struct json_reader *r, const char *what);

bool gyre_json_absent(const json_t *value);
const char *gyre_json_type(const json_t *object); // its "type"; NULL where it has none
bool gyre_json_is(const json_t *object, const char *type);
// Fields that a file may leave out. One that is there and has another type than it should is remembered, and the file
// refused at the end: it is not the same as absent.
bool gyre_json_flag(struct json_reader *r, const json_t *object, const char *name, bool otherwise);
const char *gyre_json_string(struct json_reader *r, const json_t *object, const char *name); // NULL: absent

// ---- json_steps.c

// Normalizer, pre-tokenizer, decoder and post-processor, after the model's flags.
gyre_status gyre_json_steps(struct json_reader *r) GYRE_MUST_USE;
