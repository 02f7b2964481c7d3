// SHA-256 (FIPS 180-4) of memory, in one call or in pieces. The work is nettle's.
#pragma once
#include <nettle/sha2.h>
#include <stddef.h>

enum { GYRE_SHA256_HEX = 65 }; // 64 lower-case hex digits and a NUL

struct gyre_sha256 {
    struct sha256_ctx context;
};

void gyre_sha256_init(struct gyre_sha256 *sha);
void gyre_sha256_add(struct gyre_sha256 *sha, const void *data, size_t size);
// Writes the digest; `sha` is then as after init.
void gyre_sha256_end(struct gyre_sha256 *sha, char hex[GYRE_SHA256_HEX]);

void gyre_sha256_of(const void *data, size_t size, char hex[GYRE_SHA256_HEX]);
