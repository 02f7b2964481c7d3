// UTF-8, one character at a time, without trusting the input.
#pragma once
#include <stdint.h>

// Looks at the character that begins at p (n >= 1 bytes left).
//   > 0: it is valid and has that many bytes; *code is its code point
//     0: what is there could be the beginning of a character
//   < 0: that many bytes (negated) are invalid: the longest beginning of a character, at least one byte
int gyre_utf8_look(const char *p, uint64_t n, uint32_t *code);

// The code point that ends right before p + n; 0 and *bytes = 0 where there is no valid one.
uint32_t gyre_utf8_last(const char *p, uint64_t n, uint32_t *bytes);

// The length of a valid character that is no control character; 0 for anything else. n >= 1 bytes are left.
uint32_t gyre_utf8_printable(const char *p, uint64_t n);

// Any bytes as text for a message: at most 60 bytes, what is not printable as "?".
struct gyre_shown {
    char text[64];
};
struct gyre_shown gyre_show(const char *data, uint64_t length);

// Streaming: collects bytes and releases only whole UTF-8 characters (invalid bytes become U+FFFD).
struct gyre_utf8_stream {
    unsigned char pending[4];
    uint32_t n;
};
// Appends `n` bytes; writes what is complete to out (at least 3*n + 16 bytes); returns the number written.
uint64_t gyre_utf8_stream_push(struct gyre_utf8_stream *stream, const char *bytes, uint64_t n, char *out);
uint64_t gyre_utf8_stream_flush(struct gyre_utf8_stream *stream, char *out);

// The text with U+FFFD where it is no UTF-8: malloc'd, NUL-terminated; NULL where memory ran out.
char *gyre_utf8_mended(const char *text);
