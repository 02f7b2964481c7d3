// Models that are nothing but a tokenizer, for the tests of this folder. What fails ends the running test.
#pragma once
#include "runtime/text/tokenizer.h"

struct model {
    gyre_source *source;
    gyre_tokenizer *tokenizer;
};
void close_model(struct model *m);

char *read_data(const char *name, uint64_t *bytes); // a file of tests/data; malloc'd
// A directory with a tiny model of `vocab` rows and the given tokenizer.json.
gyre_status open_json(const char *json, uint64_t bytes, uint32_t vocab, struct model *m, gyre_error *err);
// A GGUF file without tensors that carries the tokenizer of `m`, opened in its place.
gyre_status through_gguf(struct model *m, uint32_t vocab, bool plain, gyre_error *err);

// Encodes the corpus and its lines, and compares with tokenizer_NAME.ids.
void check_corpus(const char *name, const gyre_tokenizer *tokenizer);
char *decode(const gyre_tokenizer *tokenizer, const uint32_t *ids, uint64_t n, uint64_t *bytes); // malloc'd
const char *text_of(const gyre_source *source, const char *key); // of metadata; NULL: absent
// A JSON text with its first `from` replaced; malloc'd.
char *changed(const char *json, const char *from, const char *to);
