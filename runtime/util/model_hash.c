// See model_hash.h.
#include "runtime/util/model_hash.h"

#include "runtime/util/text.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// Read, not mapped: a base of many gigabytes would count as memory of this process.
static gyre_status hash_file(const char *path, char hex[GYRE_SHA256_HEX], gyre_error *err)
{
    enum { PIECE = 1 << 20 };
    struct gyre_sha256 sha;
    FILE *f = fopen(path, "rb");
    if (!f) return gyre_fail(err, GYRE_E_IO, "cannot open file (%s): %s", path, strerror(errno));
    char *piece = malloc(PIECE);
    size_t n = 0;
    gyre_sha256_init(&sha);
    while (piece && (n = fread(piece, 1, PIECE, f)) > 0) gyre_sha256_add(&sha, piece, n);
    const bool failed = ferror(f) != 0;
    gyre_sha256_end(&sha, hex);
    fclose(f);
    const bool good = piece != NULL;
    free(piece);
    if (failed) return gyre_fail(err, GYRE_E_IO, "cannot read file (%s)", path);
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot read file (%s): out of memory", path);
}

static int is_model_file(const struct dirent *entry)
{
    if (gyre_ends(entry->d_name, ".manifest.json")) return 0;
    return gyre_ends(entry->d_name, ".safetensors") || gyre_ends(entry->d_name, ".json");
}

static gyre_status hash_one(const char *folder, const char *name, struct gyre_model_hash *out, gyre_error *err)
{
    char *path = gyre_joined(folder, "/", name);
    struct gyre_model_file *file = &out->file[out->n];
    file->name = strdup(name);
    gyre_status st = path && file->name
                         ? hash_file(path, file->sha256, err)
                         : gyre_fail(err, GYRE_E_NOMEM, "cannot read folder (%s): out of memory", folder);
    if (file->name) out->n++;
    free(path);
    return st;
}

static void hash_lines(struct gyre_model_hash *out)
{
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    for (uint32_t i = 0; i < out->n; i++) {
        gyre_sha256_add(&sha, out->file[i].sha256, strlen(out->file[i].sha256));
        gyre_sha256_add(&sha, "  ", 2);
        gyre_sha256_add(&sha, out->file[i].name, strlen(out->file[i].name));
        gyre_sha256_add(&sha, "\n", 1);
    }
    gyre_sha256_end(&sha, out->sha256);
}

gyre_status gyre_model_hash(const char *path, struct gyre_model_hash *out, gyre_error *err)
{
    struct stat info;
    struct dirent **entries = NULL;
    *out = (struct gyre_model_hash){0};
    if (stat(path, &info) || !S_ISDIR(info.st_mode)) return hash_file(path, out->sha256, err);
    out->folder = true;
    const int n = scandir(path, &entries, is_model_file, alphasort);
    if (n < 0) return gyre_fail(err, GYRE_E_IO, "cannot list folder (%s): %s", path, strerror(errno));
    gyre_status st = GYRE_OK;
    out->file = calloc((size_t)n + 1, sizeof *out->file);
    if (!out->file) st = gyre_fail(err, GYRE_E_NOMEM, "cannot read folder (%s): out of memory", path);
    for (int i = 0; i < n; i++) {
        if (st == GYRE_OK) st = hash_one(path, entries[i]->d_name, out, err);
        free(entries[i]);
    }
    free(entries);
    hash_lines(out);
    return st;
}

void gyre_model_hash_free(struct gyre_model_hash *hash)
{
    for (uint32_t i = 0; i < hash->n; i++) free(hash->file[i].name);
    free(hash->file);
    *hash = (struct gyre_model_hash){0};
}
