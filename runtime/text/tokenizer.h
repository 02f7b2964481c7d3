// Byte-level BPE, from GGUF metadata or tokenizer.json. Immutable after creation; shared between threads.
#pragma once
#include "runtime/source/source.h"

typedef struct gyre_tokenizer gyre_tokenizer;

gyre_status gyre_tokenizer_create(const gyre_source *source, gyre_tokenizer **out, gyre_error *err) GYRE_MUST_USE;
void gyre_tokenizer_destroy(gyre_tokenizer *tokenizer);

uint32_t gyre_tokenizer_vocab(const gyre_tokenizer *tokenizer);
// Token ids that end a text (EOS, EOT, ...); -1 where the model names none.
int32_t gyre_tokenizer_bos(const gyre_tokenizer *tokenizer);
bool gyre_tokenizer_adds_bos(const gyre_tokenizer *tokenizer);
bool gyre_tokenizer_is_end(const gyre_tokenizer *tokenizer, uint32_t token);
bool gyre_tokenizer_is_special(const gyre_tokenizer *tokenizer, uint32_t token);

// Encodes UTF-8 text (invalid bytes are encoded as bytes, never lost). Special tokens written in the text are
// recognized when `special` is set. *out is malloc'd. No BOS is added.
gyre_status gyre_tokenizer_encode(const gyre_tokenizer *tokenizer, const char *text, uint64_t bytes, bool special,
                                  uint32_t **out, uint64_t *n, gyre_error *err) GYRE_MUST_USE;

// The bytes of one token (not NUL-terminated; may be a part of a UTF-8 character); special tokens give their name.
// NULL if the id is out of range.
const char *gyre_tokenizer_bytes(const gyre_tokenizer *tokenizer, uint32_t token, uint32_t *n);

// Streaming: collects bytes and releases only whole UTF-8 characters (invalid bytes become U+FFFD).
struct gyre_utf8_stream {
    unsigned char pending[4];
    uint32_t n;
};
// Appends `n` bytes; writes what is complete to out (at least 3*n + 16 bytes); returns the number written.
uint64_t gyre_utf8_stream_push(struct gyre_utf8_stream *stream, const char *bytes, uint64_t n, char *out);
uint64_t gyre_utf8_stream_flush(struct gyre_utf8_stream *stream, char *out);
