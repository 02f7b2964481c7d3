// See sha256.h.
#include "runtime/util/sha256.h"

void gyre_sha256_init(struct gyre_sha256 *sha) { sha256_init(&sha->context); }

void gyre_sha256_add(struct gyre_sha256 *sha, const void *data, size_t size)
{
    if (size) sha256_update(&sha->context, size, data);
}

void gyre_sha256_end(struct gyre_sha256 *sha, char hex[GYRE_SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_digest(&sha->context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * sizeof digest] = 0;
}

void gyre_sha256_of(const void *data, size_t size, char hex[GYRE_SHA256_HEX])
{
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    gyre_sha256_add(&sha, data, size);
    gyre_sha256_end(&sha, hex);
}
