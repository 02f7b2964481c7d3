// See files.h.
#include "tests/common/files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static pid_t owner; // children that exit leave the folder alone

static void at_exit(void)
{
    if (owner == getpid()) files_remove();
}

const char *files_path(const char *name)
{
    static char paths[64][256];
    static int next;
    if (!folder[0]) {
        if (!owner) atexit(at_exit);
        owner = getpid();
        snprintf(folder, sizeof folder, "test-files-%ld", (long)owner);
        if (mkdir(folder, 0777)) abort();
    }
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void remove_tree(const char *path)
{
    char at[512];
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(at, sizeof at, "%s/%s", path, e->d_name);
        if (unlink(at)) remove_tree(at);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

void files_remove(void)
{
    if (folder[0]) remove_tree(folder);
    folder[0] = 0;
}

char *files_read(const char *path, uint64_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *bytes = (uint64_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    if (!data || fread(data, 1, *bytes, f) != *bytes) abort();
    data[*bytes] = 0;
    fclose(f);
    return data;
}

void files_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    if (!f || fputs(text, f) < 0 || fclose(f)) abort();
}
