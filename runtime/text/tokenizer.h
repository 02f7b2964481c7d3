// Byte-level BPE, from GGUF metadata or tokenizer.json. Immutable after creation; shared between threads.
#pragma once
#include "runtime/source/source.h"
#include "runtime/util/log.h"
#include "runtime/util/utf8.h"

typedef struct gyre_tokenizer gyre_tokenizer;

// The tokenizer of a model. `pre` (may be NULL) is the pre-tokenizer to use in place of the one that a GGUF file names,
// or fails to name; `log` (may be NULL) gets a warning where something had to be guessed.
gyre_status gyre_tokenizer_create(const gyre_source *source, const char *pre, const gyre_log *log, gyre_tokenizer **out,
                                  gyre_error *err) GYRE_MUST_USE;
void gyre_tokenizer_destroy(gyre_tokenizer *tokenizer);

uint32_t gyre_tokenizer_vocab(const gyre_tokenizer *tokenizer); // largest id + 1; a model may have more rows
int32_t gyre_tokenizer_bos(const gyre_tokenizer *tokenizer);    // -1 where the model names none
int32_t gyre_tokenizer_eos(const gyre_tokenizer *tokenizer);    // likewise
// Tokens that end a text or a turn (EOS, EOT, ...), from every place where a model may name them.
bool gyre_tokenizer_is_end(const gyre_tokenizer *tokenizer, uint32_t token);
bool gyre_tokenizer_is_special(const gyre_tokenizer *tokenizer, uint32_t token);

// What is put around the text, and how it is read.
enum gyre_encode {
    GYRE_ENCODE_SPECIAL = 1, // special tokens written in the text are recognized
    GYRE_ENCODE_AROUND = 2,  // the tokens that the model puts before and after a text (BOS, EOS), if it does
    GYRE_ENCODE_BOS = 4,     // a BOS before the text whatever the model says
    GYRE_ENCODE_NO_BOS = 8   // nothing before the text whatever the model says
};

// Encodes UTF-8 text (invalid bytes become bytes, where the vocabulary has those). `flags`: of enum gyre_encode.
// What the text's own tokens begin (end) with already is not put there again. *out is malloc'd. GYRE_E_INVALID for
// GYRE_ENCODE_BOS where the model names no BOS.
gyre_status gyre_tokenizer_encode(const gyre_tokenizer *tokenizer, const char *text, uint64_t bytes, uint32_t flags,
                                  uint32_t **out, uint64_t *n, gyre_error *err) GYRE_MUST_USE;

// The same for a text that others may have a hand in: plain[i] != 0 marks text[i] as theirs, and a special token is one
// only where none of its bytes is. Nothing is put around it.
gyre_status gyre_tokenizer_encode_marked(const gyre_tokenizer *tokenizer, const char *text, const uint8_t *plain,
                                         uint64_t bytes, uint32_t **out, uint64_t *n, gyre_error *err) GYRE_MUST_USE;

// The bytes of one token (not NUL-terminated; may be a part of a UTF-8 character); special tokens give their name.
// NULL if the id is out of range.
const char *gyre_tokenizer_bytes(const gyre_tokenizer *tokenizer, uint32_t token, uint32_t *n);

// The tokenizer and the chat templates of an HF directory as GGUF metadata, one entry after another (each valid
// during its call), so that a GGUF file made from it can be read by every reader of GGUF. Where those keys cannot
// say the same, or gyre does not understand the tokenizer, the file's text is given as tokenizer.huggingface.json;
// `plain` refuses that. `vocab`: the model's rows, to which the list of tokens is padded. Nothing for a GGUF
// source, whose keys can be copied.
typedef void (*gyre_meta_sink)(void *user, const struct gyre_meta *meta);
gyre_status gyre_tokenizer_write(const gyre_source *source, uint32_t vocab, bool plain, gyre_meta_sink put, void *user,
                                 gyre_error *err) GYRE_MUST_USE;
