// See page.h.
#include "cli/serve/page.h"

#include <nettle/base64.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH_TEXT = BASE64_ENCODE_RAW_LENGTH(SHA256_DIGEST_SIZE) + 1 };

// The hash of what stands between <tag> and </tag>, as CSP writes it.
static void hash_of(const char *open, const char *close, char out[HASH_TEXT])
{
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE];
    const char *from = strstr(serve_page, open), *to = from ? strstr(from, close) : NULL;
    sha256_init(&sha);
    if (to) sha256_update(&sha, (size_t)(to - from) - strlen(open), (const uint8_t *)from + strlen(open));
    sha256_digest(&sha, sizeof digest, digest);
    base64_encode_raw(out, sizeof digest, digest);
    out[HASH_TEXT - 1] = 0;
}

char *serve_page_policy(void)
{
    enum { MOST = 512 };
    char script[HASH_TEXT], style[HASH_TEXT], *policy = malloc(MOST);
    if (!policy) return NULL;
    hash_of("<script>", "</script>", script);
    hash_of("<style>", "</style>", style);
    snprintf(policy, MOST,
             "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; connect-src 'self'; img-src data:; "
             "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             script, style);
    return policy;
}
