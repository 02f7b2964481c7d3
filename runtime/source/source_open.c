// Opens a source: the one place that knows every container.
#include "runtime/source/source_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Whether a file is missing for sure: not where its folder cannot be looked into.
static bool lacks(const char *folder, const char *file)
{
    char name[PATH_MAX];
    return snprintf(name, sizeof name, "%s/%s", folder, file) < PATH_MAX && access(name, F_OK) != 0 && errno == ENOENT;
}

// A folder as Meta publishes it. One that has config.json too was converted in place.
static bool is_meta(const char *path) { return lacks(path, "config.json") && !lacks(path, "params.json"); }

static bool is_model(const char *path) { return !lacks(path, "config.json") || !lacks(path, "params.json"); }

static gyre_status open_as(const char *path, bool looking, gyre_source **out, gyre_error *err)
{
    *out = NULL;
    gyre_status st = GYRE_OK;
    struct stat info;
    gyre_source *source = calloc(1, sizeof *source);
    if (!source || !(source->path = strdup(path))) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", path);
        goto done;
    }
    const bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    source->container = directory ? GYRE_CONTAINER_HF : GYRE_CONTAINER_GGUF;
    source->looking = looking;
    if (directory && !is_model(path))
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot read model (%s): the directory has no config.json and no params.json, so it is no "
                          "model; give a Hugging Face directory or the name of a .gguf file",
                          path));
    GYRE_GO(!directory      ? gyre_gguf_read(source, err)
            : is_meta(path) ? gyre_meta_read(source, err)
                            : gyre_hf_read(source, err));
    *out = source;
    source = NULL;
done:
    gyre_source_close(source);
    return st;
}

gyre_status gyre_source_open(const char *path, gyre_source **out, gyre_error *err)
{
    return open_as(path, false, out, err);
}

gyre_status gyre_source_look(const char *path, gyre_source **out, gyre_error *err)
{
    gyre_error line = {0}; // the lines of refusals are wanted whether the caller wants his
    const gyre_status st = open_as(path, true, out, &line);
    if (err && st != GYRE_OK) *err = line;
    return st;
}
