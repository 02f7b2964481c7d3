// See cache.h. File: magic, key, SHA-256 of the payload (both as hex), then the payload up to the end.
#include "backends/cache.h"
#include "runtime/util/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct header {
    char magic[8];
    char key[GYRE_SHA256_HEX], payload[GYRE_SHA256_HEX];
};

static const char magic[8] = "gyreblob";
enum { MAX_BLOB = 256 << 20, MAX_PATH_BYTES = 1024 };

void gyre_cache_key(char key[GYRE_SHA256_HEX], const char *const *texts, size_t n)
{
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    for (size_t i = 0; i < n; i++) gyre_sha256_add(&sha, texts[i], strlen(texts[i]) + 1);
    gyre_sha256_end(&sha, key);
}

// Half of the key is name enough: the header holds all of it. False if the path does not fit.
static bool make_path(char out[MAX_PATH_BYTES], const char *dir, const char *kind, const char *key)
{
    return snprintf(out, MAX_PATH_BYTES, "%s/%s-%.32s", dir, kind, key) < MAX_PATH_BYTES;
}

void *gyre_cache_load(const char *dir, const char *kind, const char key[GYRE_SHA256_HEX], size_t *size)
{
    char path[MAX_PATH_BYTES], *file;
    uint64_t bytes;
    struct header head, want = {0};
    if (!dir || !make_path(path, dir, kind, key) || !gyre_file_exists(path)) return NULL;
    if (gyre_file_read(path, MAX_BLOB, &file, &bytes, NULL) != GYRE_OK) return NULL;
    if (bytes > sizeof head) {
        memcpy(&head, file, sizeof head);
        memcpy(want.magic, magic, sizeof magic);
        memcpy(want.key, key, sizeof want.key);
        *size = (size_t)bytes - sizeof head;
        gyre_sha256_of(file + sizeof head, *size, want.payload);
        if (!memcmp(&head, &want, sizeof head)) {
            memmove(file, file + sizeof head, *size);
            return file;
        }
    }
    free(file);
    return NULL;
}

void gyre_cache_store(const char *dir, const char *kind, const char key[GYRE_SHA256_HEX], const void *data, size_t size,
                      const gyre_log *log)
{
    char path[MAX_PATH_BYTES];
    gyre_error why = {.message = "its path is too long"};
    struct header *file = NULL;
    gyre_status st = GYRE_E_INVALID;
    if (!dir || !size) return;
    if (!make_path(path, dir, kind, key)) goto done;
    GYRE_GO(gyre_make_dirs(dir, &why));
    file = calloc(1, sizeof *file + size);
    if (!file) {
        st = gyre_fail(&why, GYRE_E_NOMEM, "out of host memory");
        goto done;
    }
    memcpy(file->magic, magic, sizeof magic);
    memcpy(file->key, key, sizeof file->key);
    gyre_sha256_of(data, size, file->payload);
    memcpy(file + 1, data, size);
    st = gyre_file_write(path, file, sizeof *file + size, &why);
done:
    if (st != GYRE_OK) gyre_logf(log, GYRE_LOG_WARN, "cache: cannot store a blob in %s: %s", dir, why.message);
    free(file);
}

void gyre_cache_forget(const char *dir, const char *kind, const char key[GYRE_SHA256_HEX])
{
    char path[MAX_PATH_BYTES];
    if (dir && make_path(path, dir, kind, key)) (void)remove(path);
}
