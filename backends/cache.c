// See cache.h. File layout: 8 bytes magic, 32 key, 32 SHA-256 of the payload, payload up to the end of the file.
#include "backends/cache.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = "gyreblb1";

struct header {
    char magic[8];
    uint8_t key[GYRE_CACHE_KEY_BYTES];
    uint8_t payload[SHA256_DIGEST_SIZE];
};

void gyre_cache_key(uint8_t key[GYRE_CACHE_KEY_BYTES], const char *const *texts, size_t n)
{
    struct sha256_ctx sha;
    sha256_init(&sha);
    for (size_t i = 0; i < n; i++)
        sha256_update(&sha, strlen(texts[i]) + 1, (const uint8_t *)texts[i]);
    sha256_digest(&sha, GYRE_CACHE_KEY_BYTES, key);
}

static void hash_payload(uint8_t out[SHA256_DIGEST_SIZE], const void *data, size_t size)
{
    struct sha256_ctx sha;
    sha256_init(&sha);
    sha256_update(&sha, size, data);
    sha256_digest(&sha, SHA256_DIGEST_SIZE, out);
}

// The first half of the key is name enough: the header holds all of it. False if the path does not fit.
static bool cache_path(char *out, size_t cap, const char *dir, const char *kind, const uint8_t *key)
{
    int at = snprintf(out, cap, "%s/%s-", dir, kind);
    for (int i = 0; i < GYRE_CACHE_KEY_BYTES / 2 && at > 0 && (size_t)at < cap; i++)
        at += snprintf(out + at, cap - (size_t)at, "%02x", key[i]);
    return at > 0 && (size_t)at < cap;
}

static bool make_folders(const char *dir)
{
    char path[1024];
    if (snprintf(path, sizeof path, "%s", dir) >= (int)sizeof path) return false;
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        if (mkdir(path, 0700) && errno != EEXIST) return false;
        *p = '/';
    }
    return !mkdir(path, 0700) || errno == EEXIST;
}

bool gyre_cache_load(const char *dir, const char *kind, const uint8_t key[GYRE_CACHE_KEY_BYTES], void **data,
                     size_t *size)
{
    char path[1100];
    struct header head;
    struct stat info;
    uint8_t hash[SHA256_DIGEST_SIZE];
    unsigned char *payload = NULL;
    bool good = false;
    if (!dir || !cache_path(path, sizeof path, dir, kind, key)) return false;
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    if (fstat(fileno(file), &info) || info.st_size <= (off_t)sizeof head) goto done;
    if (fread(&head, sizeof head, 1, file) != 1) goto done;
    if (memcmp(head.magic, magic, sizeof magic) || memcmp(head.key, key, sizeof head.key)) goto done;
    const size_t bytes = (size_t)info.st_size - sizeof head;
    payload = malloc(bytes);
    if (!payload || fread(payload, bytes, 1, file) != 1) goto done;
    hash_payload(hash, payload, bytes);
    good = !memcmp(hash, head.payload, sizeof hash);
    *size = bytes;
done:
    fclose(file);
    if (!good) free(payload);
    *data = good ? payload : NULL;
    return good;
}

void gyre_cache_store(const char *dir, const char *kind, const uint8_t key[GYRE_CACHE_KEY_BYTES], const void *data,
                      size_t size, const gyre_log *log)
{
    static atomic_uint serial; // two devices of one process may store the same blob at once
    char path[1100], part[1180];
    if (!dir || !size) return;
    if (!cache_path(path, sizeof path, dir, kind, key) || !make_folders(dir)) {
        gyre_logf(log, GYRE_LOG_WARN, "cache: cannot make folder %s: %s", dir, strerror(errno));
        return;
    }
    snprintf(part, sizeof part, "%s.%ld.%u.part", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    struct header head;
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.key, key, sizeof head.key);
    hash_payload(head.payload, data, size);
    FILE *file = fopen(part, "wb");
    bool good = file && fwrite(&head, sizeof head, 1, file) == 1 && fwrite(data, size, 1, file) == 1;
    if (file && fclose(file)) good = false;
    if (good && rename(part, path)) good = false;
    if (!good) {
        gyre_logf(log, GYRE_LOG_WARN, "cache: cannot write %s: %s", path, strerror(errno));
        remove(part);
    }
}
