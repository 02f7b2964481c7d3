// See json_file.h.
#include "runtime/source/json_file.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

gyre_status gyre_json_parse(const char *path, const char *data, uint64_t bytes, json_t **out, gyre_error *err)
{
    json_error_t why;
    *out = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &why);
    if (*out) return GYRE_OK;
    if (json_error_code(&why) == json_error_out_of_memory)
        return gyre_fail(err, GYRE_E_NOMEM, "cannot read JSON (%s): out of memory", path);
    for (char *p = why.text; *p; p++) // it may quote the file
        if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    return gyre_fail(err, GYRE_E_FORMAT, "cannot read JSON (%s): line %d, column %d: %s", path, why.line, why.column,
                     why.text);
}

json_t *gyre_json_text(const char *text)
{
    char *mended = gyre_utf8_mended(text);
    json_t *out = mended ? json_string(mended) : NULL;
    free(mended);
    return out;
}
