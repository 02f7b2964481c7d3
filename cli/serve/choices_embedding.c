// The elements of /v1/embeddings.
#include "cli/serve/choices.h"

#include <stdlib.h>
#include <string.h>

// RFC 4648.
static json_t *base64(const unsigned char *bytes, size_t n)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((n + 2) / 3 * 4 + 1), *out = text;
    if (!text) return NULL;
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t b =
            (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);
        *out++ = letters[b >> 18];
        *out++ = letters[b >> 12 & 63];
        *out++ = i + 1 < n ? letters[b >> 6 & 63] : '=';
        *out++ = i + 2 < n ? letters[b & 63] : '=';
    }
    *out = 0;
    json_t *json = json_string(text);
    free(text);
    return json;
}

json_t *serve_embedding_choice(const struct serve_job *job, const struct serve_choice *c)
{
    json_t *value = NULL;
    if (!c->embedding) return NULL;
    if (job->base64) { // of little-endian floats, as every machine that gyre runs on has them
        value = base64((const unsigned char *)c->embedding, job->width * sizeof *c->embedding);
    } else {
        value = json_array();
        for (uint32_t i = 0; i < job->width; i++) json_array_append_new(value, json_real((double)c->embedding[i]));
    }
    return json_pack("{s:s, s:I, s:o}", "object", "embedding", "index", (json_int_t)c->index, "embedding", value);
}
