// See base.h.
#include "quantizer/file/base.h"

#include "runtime/model/hparams.h"
#include "runtime/source/json_file.h"
#include "runtime/util/base.h"
#include "runtime/util/model_hash.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct gyre_base *base;
    const struct gyre_tensor **order; // [n] by where they lie
    uint64_t n;
    gyre_error *err;
};

static int by_place(const void *a, const void *b)
{
    const struct gyre_tensor *const *x = a, *const *y = b;
    const uintptr_t p = (uintptr_t)(*x)->data, q = (uintptr_t)(*y)->data;
    return (p > q) - (p < q);
}

static char *hash_of(const struct reader *r, const struct gyre_tensor *t)
{
    return r->base->sha256[t - gyre_source_tensor_at(r->base->source, 0)];
}

static gyre_status look(const struct reader *r, const struct gyre_tensor *t, gyre_error *err)
{
    gyre_sha256_of(t->data, t->bytes, hash_of(r, t));
    return gyre_model_check_finite(r->base->source, t, err);
}

// One of its tensors after the other: a thread takes it as a part of the file, with what lies before it, while another
// looks at it alone.
static gyre_status read_span(const struct reader *r, struct gyre_source_span span, char hex[GYRE_SHA256_HEX])
{
    struct gyre_sha256 sha;
    const unsigned char *at = span.data, *const end = span.data + span.bytes;
    gyre_sha256_init(&sha);
    for (uint64_t i = 0; i < r->n; i++) {
        const struct gyre_tensor *t = r->order[i];
        const unsigned char *first = t->data;
        if (first < span.data || first >= end) continue;
        const unsigned char *behind = GYRE_MAX(at, first + t->bytes);
        gyre_status st = GYRE_OK;
#pragma omp parallel sections
        {
#pragma omp section
            gyre_sha256_add(&sha, at, (size_t)(behind - at));
#pragma omp section
            st = look(r, t, r->err);
        }
        GYRE_TRY(st);
        gyre_tensor_forget(t);
        at = behind;
    }
    gyre_sha256_add(&sha, at, (size_t)(end - at));
    gyre_sha256_end(&sha, hex);
    return GYRE_OK;
}

static gyre_status read_file(const struct reader *r, struct gyre_model_file *file)
{
    for (uint64_t i = 0; i < gyre_source_span_count(r->base->source); i++) {
        const struct gyre_source_span span = gyre_source_span_at(r->base->source, i);
        if (!strcmp(gyre_base_name(span.path), file->name)) return read_span(r, span, file->sha256);
    }
    return gyre_model_hash_file(file->path, file->sha256, r->err);
}

static gyre_status add_file(json_t *files, const struct gyre_model_file *file, gyre_error *err)
{
    json_t *key = gyre_json_text(file->name);
    const char *text = json_string_value(key);
    gyre_status st = GYRE_OK;
    if (text && json_object_get(files, text))
        st = gyre_fail(err, GYRE_E_UNSUPPORTED,
                       "cannot list folder: two names (%s) differ only in bytes that are no UTF-8; rename one", text);
    else if (!text || json_object_set_new(files, text, json_string(file->sha256)))
        st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
    json_decref(key);
    return st;
}

static gyre_status identify(struct gyre_base *base, const struct gyre_model_hash *hash, gyre_error *err)
{
    char name[256];
    const char *last = gyre_base_name(gyre_source_path(base->source));
    gyre_status st = GYRE_OK;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(last, "/"), last);
    json_t *what = hash->several ? json_object() : json_string(hash->sha256);
    for (uint32_t i = 0; what && hash->several && i < hash->n && st == GYRE_OK; i++)
        st = add_file(what, &hash->file[i], err);
    base->identity = json_pack("{s:o, s:O}", "name", gyre_json_text(name), hash->several ? "files" : "sha256", what);
    json_decref(what);
    if (st == GYRE_OK && !base->identity) st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
    return st;
}

gyre_status gyre_base_read(const gyre_source *source, struct gyre_base *out, gyre_error *err)
{
    const uint64_t n = gyre_source_tensor_count(source);
    gyre_status st = GYRE_OK;
    struct gyre_model_hash hash = {0};
    struct reader r = {out, malloc((n + 1) * sizeof *r.order), n, err};
    *out = (struct gyre_base){.source = source, .sha256 = calloc(n + 1, sizeof *out->sha256)};
    if (!r.order || !out->sha256)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", gyre_source_path(source)));
    for (uint64_t i = 0; i < n; i++) r.order[i] = gyre_source_tensor_at(source, i);
    qsort(r.order, n, sizeof *r.order, by_place);
    GYRE_GO(gyre_model_files(gyre_source_path(source), &hash, err));
    for (uint32_t i = 0; i < hash.n; i++) GYRE_GO(read_file(&r, &hash.file[i]));
    for (uint64_t i = 0; i < n; i++) // what lies in none of those
        if (!*hash_of(&r, r.order[i])) GYRE_GO(look(&r, r.order[i], err));
    gyre_model_hash_end(&hash);
    st = identify(out, &hash, err);
done:
    gyre_model_hash_free(&hash);
    free(r.order);
    return st;
}

void gyre_base_release(struct gyre_base *base)
{
    json_decref(base->identity);
    free(base->sha256);
    *base = (struct gyre_base){0};
}

const char *gyre_base_sha256(const struct gyre_base *base, const struct gyre_tensor *tensor)
{
    return base->sha256[tensor - gyre_source_tensor_at(base->source, 0)];
}
