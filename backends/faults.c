// See faults.h.
#include "backends/faults.h"
#include "backends/cache.h"
#include "backends/device_key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool gyre_faults_own(gyre_status failure) { return failure != GYRE_E_NOMEM && failure != GYRE_E_DEVICE_MEM; }

static const char kind[] = "faults";

char *gyre_faults_load(const char *dir, const char *name, const char *driver)
{
    char key[GYRE_SHA256_HEX];
    size_t size = 0;
    gyre_device_key(name, driver, kind, key);
    char *const stored = gyre_cache_load(dir, kind, key, &size);
    char *const text = stored ? realloc(stored, size + 1) : NULL;
    if (text) text[size] = 0;
    else free(stored);
    return text;
}

static bool has_line(const char *text, const char *line)
{
    const size_t n = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at += n)
        if ((at == text || at[-1] == '\n') && at[n] == '\n') return true;
    return false;
}

void gyre_faults_note(const char *dir, const char *name, const char *driver, const char *line, const gyre_log *log)
{
    char key[GYRE_SHA256_HEX], all[GYRE_FAULTS_MOST];
    if (!dir || !*line) return;
    char *const known = gyre_faults_load(dir, name, driver);
    const bool new = !known || !has_line(known, line);
    const int n = snprintf(all, sizeof all, "%s%s\n", known ? known : "", line);
    free(known);
    if (!new || n >= (int)sizeof all) return;
    gyre_device_key(name, driver, kind, key);
    gyre_cache_store(dir, kind, key, all, (size_t)n, log);
}
