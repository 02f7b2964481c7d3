// See writer.h.
#include "quantizer/file/writer.h"
#include "runtime/util/sha256.h"
#include "runtime/util/text.h"

#include <stdlib.h>

static bool in_block(gyre_plan_part_kind kind)
{
    return kind == GYRE_PART_LINEAR || kind == GYRE_PART_BIAS || kind == GYRE_PART_CENTRE;
}

// Vectors are of blocks or of the model, as their roles say.
static bool is_global(const struct gyre_plan_part *p) { return !in_block(p->kind) && p->role >= GYRE_BLOCK_ROLES; }

gyre_status gyre_writer_open(const struct gyre_format *format, const struct gyre_plan *plan, struct gyre_writer *out,
                             gyre_error *err)
{
    *out = (struct gyre_writer){.format = format};
    GYRE_TRY(format->open(plan, out, err));
    while (out->globals < out->n_tensors && is_global(&out->tensor[out->globals].part)) out->globals++;
    return GYRE_OK;
}

void gyre_writer_close(struct gyre_writer *w)
{
    free(w->tensor);
    for (uint32_t i = 0; w->file && i < w->n_files; i++) free(w->file[i].front);
    for (uint32_t i = 0; i < w->n_texts; i++) free(w->text[i].text);
    free(w->file);
    *w = (struct gyre_writer){0};
}

uint64_t gyre_writer_bytes(const struct gyre_writer *w)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < w->n_files; i++) bytes += w->file[i].bytes;
    for (uint32_t i = 0; i < w->n_texts; i++) bytes += w->text[i].bytes;
    return bytes;
}

void gyre_writer_front_sha256(const struct gyre_writer *w, char *hex)
{
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    for (uint32_t i = 0; i < w->n_files; i++) gyre_sha256_add(&sha, w->file[i].front, w->file[i].front_bytes);
    for (uint32_t i = 0; i < w->n_texts; i++) gyre_sha256_add(&sha, w->text[i].text, w->text[i].bytes);
    gyre_sha256_end(&sha, hex);
}

char *gyre_writer_path(const struct gyre_writer *w, const char *path, uint32_t file)
{
    return gyre_joined(path, w->format->folder ? "/" : "", w->file[file].name);
}

void gyre_written_share(struct gyre_written *t, const struct gyre_hparams *hp, gyre_container container)
{
    const struct gyre_fused fused = gyre_role_fusion(hp, t->part.role, container);
    for (gyre_role r = fused.first; fused.stem && r <= fused.last; r++) {
        uint64_t rows, cols;
        gyre_role_shape(r, hp, &rows, &cols);
        if (r < t->part.role) t->first += rows;
        t->whole += rows;
    }
}

bool gyre_part_is(const struct gyre_plan_part *a, const struct gyre_plan_part *b)
{
    return a->kind == b->kind && a->role == b->role && a->layer == b->layer;
}

const struct gyre_written *gyre_writer_find(const struct gyre_writer *w, struct gyre_plan_part part)
{
    for (uint64_t i = 0; i < w->n_tensors; i++)
        if (gyre_part_is(&w->tensor[i].part, &part)) return &w->tensor[i];
    return NULL;
}

uint64_t gyre_writer_tensors(const struct gyre_writer *w, uint64_t steps)
{
    uint64_t n = steps ? w->globals : 0;
    while (steps && n < w->n_tensors && w->tensor[n].part.layer + 1 < steps) n++;
    return n;
}
