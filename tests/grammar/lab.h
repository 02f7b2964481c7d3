// What the tests of grammars share: a vocabulary, texts that a grammar accepts, random walks, a validator of its own.
#pragma once
#include <gyre/gyre_grammar.h>
#include <jansson.h>

#include "runtime/source/source.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/rng.h"

// The tiny tokenizer (tests/common/tiny.h): 256 bytes and a few merges, token 2 ends a text.
struct lab {
    gyre_source *source;
    gyre_tokenizer *tokenizer;
    gyre_vocabulary *vocabulary;
};
void lab_open(struct lab *lab, const char *directory);                             // a tiny model, written there
void lab_open_json(struct lab *lab, const char *directory, const char *tokenizer); // with that tokenizer.json
void lab_close(struct lab *lab);

// -1: the text is not the beginning of an accepted one; 0: it is; 1: it is accepted as it stands.
int lab_accepts(const struct lab *lab, gyre_grammar *grammar, const char *text);

// A random accepted text of at most `most` tokens; *whole: it ended by itself. Ends the test where it gets stuck.
char *lab_walk(const struct lab *lab, gyre_grammar *grammar, struct gyre_rng *rng, uint32_t most, bool *whole);

// Why `value` does not validate under `schema` (json-schema.org, the keywords that grammars honour but pattern and
// format); NULL where it does.
const char *lab_violates(const json_t *value, const json_t *schema, const json_t *root);
