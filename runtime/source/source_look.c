// What a reader refuses by name, kept while a file is only looked at.
#include "runtime/source/source_impl.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <string.h>

gyre_status gyre_source_let(gyre_source *source, gyre_status st, gyre_error *err)
{
    if (st != GYRE_E_UNSUPPORTED || !source->looking) return st;
    if (source->n_refusals == GYRE_COUNT(source->refusal)) return GYRE_OK;
    const char *line = gyre_arena_strdup(&source->arena, err->message);
    if (!line) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->refused_type[source->n_refusals] = NULL;
    source->refusal[source->n_refusals++] = line;
    return GYRE_OK;
}

// Keeps the line of a type that is refused for the first time. A file may have as many types as tensors: each is only
// compared with those that have a line.
static gyre_status let_type(gyre_source *source, gyre_status st, const char *type, gyre_error *err)
{
    const uint32_t had = source->n_refusals;
    for (uint32_t i = 0; i < had; i++)
        if (source->refused_type[i] && !strcmp(source->refused_type[i], type)) return GYRE_OK;
    GYRE_TRY(gyre_source_let(source, st, err));
    if (source->n_refusals > had) source->refused_type[had] = type;
    return GYRE_OK;
}

gyre_status gyre_source_let_tensor(gyre_source *source, gyre_status st, const struct gyre_unread *tensor,
                                   gyre_error *err)
{
    if (st != GYRE_E_UNSUPPORTED || !source->looking) return st;
    struct gyre_unread unread = *tensor;
    unread.name = gyre_arena_strdup(&source->arena, tensor->name);
    unread.type = gyre_arena_strdup(&source->arena, tensor->type);
    if (!unread.name || !unread.type || !GYRE_ROOM(source->unread, source->n_unread + 1, source->cap_unread))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->unread[source->n_unread++] = unread;
    return let_type(source, st, unread.type, err);
}

const char *gyre_source_refusal(const gyre_source *source, uint32_t index)
{
    return index < source->n_refusals ? source->refusal[index] : NULL;
}

const struct gyre_unread *gyre_source_unread(const gyre_source *source, uint64_t index)
{
    return index < source->n_unread ? &source->unread[index] : NULL;
}
