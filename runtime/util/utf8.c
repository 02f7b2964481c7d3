// UTF-8 (Unicode 15, table 3-7: well-formed sequences) and the stream that holds back incomplete characters.
#include "runtime/util/utf8.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

int gyre_utf8_look(const char *text, uint64_t n, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char lead = p[0];
    *code = lead;
    if (lead < 0x80) return 1;
    const int length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (!length) return -1;
    // The second byte excludes overlong forms, surrogates and what lies above U+10FFFF.
    const unsigned char low = lead == 0xE0   ? 0xA0
                              : lead == 0xF0 ? 0x90
                                             : 0x80,
                        high = lead == 0xED   ? 0x9F
                               : lead == 0xF4 ? 0x8F
                                              : 0xBF;
    uint32_t value = lead & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((uint64_t)i == n) return 0;
        if (i == 1 ? p[1] < low || p[1] > high : (p[i] & 0xC0) != 0x80) return -i;
        value = value << 6 | (p[i] & 63);
    }
    *code = value;
    return length;
}

uint32_t gyre_utf8_last(const char *p, uint64_t n, uint32_t *bytes)
{
    uint32_t code;
    for (uint32_t k = 1; k <= 4 && k <= n; k++) {
        if (gyre_utf8_look(p + n - k, k, &code) != (int)k) continue;
        *bytes = k;
        return code;
    }
    *bytes = 0;
    return 0;
}

uint32_t gyre_utf8_printable(const char *data, uint64_t left)
{
    uint32_t code;
    const int n = gyre_utf8_look(data, left, &code);
    return n > 0 && code >= 32 && (code < 127 || code > 159) ? (uint32_t)n : 0;
}

struct gyre_shown gyre_show(const char *data, uint64_t length)
{
    enum { MOST = 60 };
    struct gyre_shown shown;
    uint64_t at = 0;
    uint32_t n = 0;
    while (at < length) {
        const uint32_t k = gyre_utf8_printable(data + at, length - at);
        if (n + GYRE_MAX(k, 1u) > MOST) break;
        if (k) memcpy(shown.text + n, data + at, k);
        else shown.text[n] = '?';
        at += GYRE_MAX(k, 1u);
        n += GYRE_MAX(k, 1u);
    }
    memcpy(shown.text + n, at < length ? "..." : "", at < length ? 4 : 1);
    return shown;
}

// Removes k bytes from the front of the pending ones, after writing them (valid) or U+FFFD.
static uint64_t release(struct gyre_utf8_stream *stream, uint32_t k, int valid, char *out)
{
    if (valid) memcpy(out, stream->pending, k);
    else memcpy(out, "\xEF\xBF\xBD", 3);
    stream->n -= k;
    memmove(stream->pending, stream->pending + k, stream->n);
    return valid ? k : 3;
}

uint64_t gyre_utf8_stream_push(struct gyre_utf8_stream *stream, const char *bytes, uint64_t n, char *out)
{
    uint64_t written = 0;
    uint32_t code;
    for (uint64_t i = 0; i < n; i++) {
        stream->pending[stream->n++] = (unsigned char)bytes[i];
        for (int seen; stream->n && (seen = gyre_utf8_look((const char *)stream->pending, stream->n, &code)) != 0;)
            written += release(stream, (uint32_t)(seen > 0 ? seen : -seen), seen > 0, out + written);
    }
    return written;
}

uint64_t gyre_utf8_stream_flush(struct gyre_utf8_stream *stream, char *out)
{
    // What is pending is one beginning of a character, or nothing.
    return stream->n ? release(stream, stream->n, 0, out) : 0;
}

char *gyre_utf8_mended(const char *text)
{
    const size_t n = strlen(text);
    struct gyre_utf8_stream stream = {0};
    char *out = malloc(3 * n + 16);
    if (!out) return NULL;
    uint64_t length = gyre_utf8_stream_push(&stream, text, n, out);
    length += gyre_utf8_stream_flush(&stream, out + length);
    out[length] = 0;
    return out;
}
