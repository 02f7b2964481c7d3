// A model in several GGUF files, as gguf-split writes them: NAME-00001-of-00004.gguf holds the metadata, and every part
// says which of how many it is (split.no from 0, split.count) and how many tensors all have (split.tensors.count).
#include "runtime/source/source_impl.h"

#include "runtime/util/base.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct split {
    uint64_t no, count, tensors;
};

static gyre_status read_split(const gyre_source *source, struct split *out, gyre_error *err)
{
    bool numbered = false, counted = false;
    *out = (struct split){.count = 1};
    GYRE_TRY(gyre_source_u64(source, "split.no", &out->no, &numbered, err));
    GYRE_TRY(gyre_source_u64(source, "split.count", &out->count, &counted, err));
    GYRE_TRY(gyre_source_u64(source, "split.tensors.count", &out->tensors, NULL, err));
    if (out->count <= 1 && out->no == 0) return GYRE_OK;
    if (numbered && counted && out->no < out->count) return GYRE_OK;
    return gyre_fail(err, GYRE_E_FORMAT,
                     "cannot read model (%s): it says that it is part %llu of %llu; the file is damaged", source->path,
                     (unsigned long long)out->no + 1, (unsigned long long)out->count);
}

// Adds the tensors of one part, and keeps its mapping.
static gyre_status add_part(gyre_source *source, const char *path, uint64_t no, uint64_t count, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct split split;
    gyre_source *part = calloc(1, sizeof *part);
    if (!part || !(part->path = strdup(path)))
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path));
    part->looking = source->looking;
    GYRE_GO(gyre_gguf_read_file(part, err));
    GYRE_GO(read_split(part, &split, err));
    if (split.no != no || split.count != count)
        GYRE_GO(
            gyre_fail(err, GYRE_E_FORMAT,
                      "cannot read model (%s): it says that it is part %llu of %llu, where part %llu of %llu is due; "
                      "the parts were renamed or mixed",
                      path, (unsigned long long)split.no + 1, (unsigned long long)split.count,
                      (unsigned long long)no + 1, (unsigned long long)count));
    for (uint64_t i = 0; i < part->n_tensors; i++) {
        const struct gyre_tensor *t = &part->tensors[i];
        GYRE_GO(gyre_source_add_tensor(source, t, (struct gyre_string){t->name, strlen(t->name)}, err));
    }
    for (uint64_t i = 0; i < part->n_unread; i++) // of one kind of refusal: types
        GYRE_GO(gyre_source_let_tensor(source, gyre_fail(err, GYRE_E_UNSUPPORTED, "%s", part->refusal[0]),
                                       &part->unread[i], err));
    st = gyre_source_take_maps(source, part, err);
done:
    gyre_source_close(part);
    return st;
}

gyre_status gyre_gguf_read(gyre_source *source, gyre_error *err)
{
    char path[PATH_MAX];
    struct split split;
    GYRE_TRY(gyre_gguf_read_file(source, err));
    GYRE_TRY(read_split(source, &split, err));
    if (split.count <= 1) return GYRE_OK;
    const uint32_t named = gyre_file_parts(source->path, 1, path, sizeof path);
    if (split.no != 0)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot read model (%s): it is part %llu of %llu; give the first%s%s, whose name leads to the "
                         "others",
                         source->path, (unsigned long long)split.no + 1, (unsigned long long)split.count,
                         named ? ", " : "", named ? path : "");
    if (named != split.count || strcmp(path, source->path))
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot read model (%s): it is the first of %llu parts, which are found by its name; that must "
            "end with -00001-of-%05llu.gguf",
            source->path, (unsigned long long)split.count, (unsigned long long)split.count);
    for (uint32_t no = 1; no < split.count; no++) {
        if (!gyre_file_parts(source->path, no + 1, path, sizeof path) || !gyre_file_exists(path))
            return gyre_fail(err, GYRE_E_IO, "cannot read model (%s): part %u of %llu is missing (%s)", source->path,
                             no + 1, (unsigned long long)split.count, path);
        GYRE_TRY(add_part(source, path, no, split.count, err));
    }
    if (split.tensors && split.tensors != source->n_tensors)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read model (%s): its %llu parts hold %llu tensors and should hold %llu; they were "
                         "mixed or are damaged",
                         source->path, (unsigned long long)split.count, (unsigned long long)source->n_tensors,
                         (unsigned long long)split.tensors);
    return GYRE_OK;
}
