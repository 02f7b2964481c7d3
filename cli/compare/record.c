// See cells.h.
#include "cli/compare/record.h"

#include "runtime/util/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gyre_status cli_cells_open(const char *dir, struct cli_cells *out, gyre_error *err)
{
    json_error_t why;
    *out = (struct cli_cells){0};
    if ((size_t)snprintf(out->path, sizeof out->path, "%s/compare.json", dir) >= sizeof out->path)
        return gyre_fail(err, GYRE_E_IO, "cannot use folder (%s): its name is too long", dir);
    if (!gyre_file_exists(out->path)) {
        out->root = json_pack("{s:i, s:{}, s:{}}", "version", 1, "weights", "cells");
        return out->root ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot compare: out of memory");
    }
    out->root = json_load_file(out->path, 0, &why);
    if (json_integer_value(json_object_get(out->root, "version")) != 1 ||
        !json_is_object(json_object_get(out->root, "cells")) || !json_is_object(json_object_get(out->root, "weights")))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot go on (%s): it is damaged or of another version; remove it or choose another --work",
                         out->path);
    return GYRE_OK;
}

void cli_cells_close(struct cli_cells *cells)
{
    json_decref(cells->root);
    cells->root = NULL;
}

int cli_cells_key(const json_t *identity, char key[GYRE_SHA256_HEX])
{
    char *text = json_dumps(identity, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text) return 0;
    gyre_sha256_of(text, strlen(text), key);
    free(text);
    return 1;
}

static json_t *entry(const struct cli_cells *cells, const char *kind, const char *key)
{
    return json_object_get(json_object_get(cells->root, kind), key);
}

bool cli_cells_find(const struct cli_cells *cells, const char *key, struct cli_cell *out)
{
    return cli_cell_read(entry(cells, "cells", key), out);
}

bool cli_cells_find_weights(const struct cli_cells *cells, const char *key, struct cli_weights *out)
{
    return cli_weights_read(entry(cells, "weights", key), out);
}

bool cli_cells_weights_at(const struct cli_cells *cells, uint32_t index, struct cli_weights *out)
{
    const char *key;
    json_t *record;
    json_object_foreach(json_object_get(cells->root, "weights"), key, record)
    {
        if (cli_weights_read(record, out) && index-- == 0) return true;
    }
    return false;
}

// Takes the reference of `value`.
static gyre_status put(struct cli_cells *cells, const char *kind, const char *key, json_t *value, gyre_error *err)
{
    char *text = NULL;
    if (value && !json_object_set_new(json_object_get(cells->root, kind), key, value))
        text = json_dumps(cells->root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)); // all digits: tables are made from it
    if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", cells->path);
    const gyre_status st = gyre_file_write(cells->path, text, strlen(text), err);
    free(text);
    return st;
}

gyre_status cli_cells_put(struct cli_cells *cells, const char *key, const struct cli_cell *cell, gyre_error *err)
{
    return put(cells, "cells", key, cli_cell_json(cell), err);
}

gyre_status cli_cells_put_weights(struct cli_cells *cells, const char *key, const struct cli_weights *weights,
                                  gyre_error *err)
{
    return put(cells, "weights", key, cli_weights_json(weights), err);
}
