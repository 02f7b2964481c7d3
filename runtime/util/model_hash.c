// See model_hash.h.
#include "runtime/util/model_hash.h"

#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

gyre_status gyre_model_hash_file(const char *path, char hex[GYRE_SHA256_HEX], gyre_error *err)
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

// ---- which files ------------------------------------------------------------------------------------------

static int is_model_file(const struct dirent *entry)
{
    if (gyre_ends(entry->d_name, ".manifest.json")) return 0;
    return gyre_ends(entry->d_name, ".safetensors") || gyre_ends(entry->d_name, ".pth") ||
           gyre_ends(entry->d_name, ".json");
}

// As bytes: alphasort() asks the locale, and the hash is of the files in their order.
static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

// Takes the path.
static bool add(struct gyre_model_hash *out, char *path)
{
    struct gyre_model_file *file = path ? realloc(out->file, (out->n + 1) * sizeof *file) : NULL;
    if (!file) {
        free(path);
        return false;
    }
    out->file = file;
    out->file[out->n++] = (struct gyre_model_file){.path = path, .name = gyre_base_name(path)};
    return true;
}

static gyre_status no_memory(const char *path, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", path);
}

static gyre_status list_folder(const char *path, struct gyre_model_hash *out, gyre_error *err)
{
    struct dirent **entries = NULL;
    const int n = scandir(path, &entries, is_model_file, by_bytes);
    bool good = true;
    if (n < 0) return gyre_fail(err, GYRE_E_IO, "cannot list folder (%s): %s", path, strerror(errno));
    out->several = true;
    for (int i = 0; i < n; i++) {
        good = good && add(out, gyre_joined(path, "/", entries[i]->d_name));
        free(entries[i]);
    }
    free(entries);
    return good ? GYRE_OK : no_memory(path, err);
}

gyre_status gyre_model_files(const char *path, struct gyre_model_hash *out, gyre_error *err)
{
    struct stat info;
    char part[PATH_MAX];
    *out = (struct gyre_model_hash){0};
    if (!stat(path, &info) && S_ISDIR(info.st_mode)) return list_folder(path, out, err);
    bool good = add(out, strdup(path));
    // Parts that are missing are the reader's to refuse; a whole model may have such a name, too.
    for (uint32_t i = 2; good && i <= gyre_file_parts(path, i, part, sizeof part) && gyre_file_exists(part); i++)
        good = add(out, strdup(part));
    out->several = out->n > 1;
    return good ? GYRE_OK : no_memory(path, err);
}

// ---- their hash -------------------------------------------------------------------------------------------

void gyre_model_hash_end(struct gyre_model_hash *out)
{
    struct gyre_sha256 sha;
    if (!out->several) {
        memcpy(out->sha256, out->file[0].sha256, sizeof out->sha256);
        return;
    }
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
    GYRE_TRY(gyre_model_files(path, out, err));
    for (uint32_t i = 0; i < out->n; i++) GYRE_TRY(gyre_model_hash_file(out->file[i].path, out->file[i].sha256, err));
    gyre_model_hash_end(out);
    return GYRE_OK;
}

void gyre_model_hash_free(struct gyre_model_hash *hash)
{
    for (uint32_t i = 0; i < hash->n; i++) free(hash->file[i].path);
    free(hash->file);
    *hash = (struct gyre_model_hash){0};
}
