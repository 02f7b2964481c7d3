// What a file says of itself against the model that it was made from: sizes, metadata, the texts of a tokenizer, and
// the hashes of what was read. See verify_impl.h; its numbers are verify_norms.c's and verify_weights.c's.
#include "quantizer/trust/verify_impl.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Keys that must be the same in both: all about the tokenizer, and what the model says of itself.
static bool is_compared(const char *key)
{
    static const char *const own[] = {"general.architecture", "general.file_type", "general.quantization_version",
                                      "general.alignment"};
    for (size_t i = 0; i < GYRE_COUNT(own); i++)
        if (!strcmp(key, own[i])) return false;
    return gyre_begins(key, "tokenizer.") || gyre_begins(key, "general.");
}

struct compared {
    const gyre_source *file;
    bool *seen;     // of the file's entries
    char wrong[96]; // the first key of the base that the file has not, or otherwise
};

static void compare_entry(void *user, const struct gyre_meta *m)
{
    struct compared *c = user;
    if (!is_compared(m->key)) return;
    for (uint64_t i = 0; i < gyre_source_meta_count(c->file); i++) {
        const struct gyre_meta other = gyre_source_meta_at(c->file, i);
        if (strcmp(other.key, m->key)) continue;
        c->seen[i] =
            other.type == m->type && other.raw_bytes == m->raw_bytes && !memcmp(other.raw, m->raw, m->raw_bytes);
        if (c->seen[i]) return;
    }
    if (!c->wrong[0]) snprintf(c->wrong, sizeof c->wrong, "%s", m->key);
}

// A tokenizer or a chat template that is not the base's would make another model of the same weights.
static gyre_status compare_metadata(const struct gyre_verifier *v, gyre_error *err)
{
    const uint64_t n = gyre_source_meta_count(v->file);
    struct compared c = {.file = v->file, .seen = calloc(n + 1, sizeof *c.seen)};
    if (!c.seen) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    for (uint64_t i = 0; i < gyre_source_meta_count(v->base); i++) {
        const struct gyre_meta m = gyre_source_meta_at(v->base, i);
        compare_entry(&c, &m);
    }
    gyre_status st = gyre_tokenizer_write(v->base, v->base_hp.vocab, strcmp(v->manifest.profile, "full") != 0,
                                          compare_entry, &c, err);
    for (uint64_t i = 0; i < n && !c.wrong[0]; i++) {
        const char *key = gyre_source_meta_at(v->file, i).key;
        if (is_compared(key) && !c.seen[i]) snprintf(c.wrong, sizeof c.wrong, "%s", key);
    }
    free(c.seen);
    if (st == GYRE_OK && c.wrong[0])
        st = gyre_verify_differs(v, err, "metadata key %s is not the base model's", c.wrong);
    return st;
}

static gyre_status compare_hparams(const struct gyre_verifier *v, gyre_error *err)
{
    const struct gyre_hparams *a = &v->hp, *b = &v->base_hp;
    const struct {
        const char *what;
        double file, base;
    } row[] = {
        {"number of blocks", a->n_layers, b->n_layers},
        {"width", a->width, b->width},
        {"number of heads", a->heads, b->heads},
        {"number of kv heads", a->kv_heads, b->kv_heads},
        {"head size", a->head_dim, b->head_dim},
        {"ffn width", a->ffn, b->ffn},
        {"vocabulary", a->vocab, b->vocab},
        {"context", a->context, b->context},
        {"norm epsilon", (double)a->norm_eps, (double)b->norm_eps},
        {"rope base", (double)(float)a->rope_base, (double)(float)b->rope_base},
        {"rope base of windowed blocks", (double)(float)a->rope_local_base, (double)(float)b->rope_local_base},
        {"number of turned dimensions", a->rope_dims, b->rope_dims},
        {"factor of turned heads", (double)a->rope_mscale, (double)b->rope_mscale},
        {"window", a->window, b->window},
        {"embedding multiplier", (double)a->embed_scale, (double)b->embed_scale},
        {"stream epsilon", (double)a->stream_eps, (double)b->stream_eps},
        {"logit divisor", (double)a->logit_divisor, (double)b->logit_divisor},
        {"scale of scores", (double)a->attn_scale, (double)b->attn_scale},
        {"growth of queries", (double)a->q_beta, (double)b->q_beta},
        {"span of that growth", a->q_span, b->q_span},
    };
    for (size_t i = 0; i < GYRE_COUNT(row); i++)
        if (row[i].file != row[i].base)
            return gyre_verify_differs(v, err, "its %s is %g, the base model's is %g", row[i].what, row[i].file,
                                       row[i].base);
    for (uint32_t i = 0; i < a->n_layers; i++)
        if (a->kind[i].turn != b->kind[i].turn || a->kind[i].windowed != b->kind[i].windowed)
            return gyre_verify_differs(v, err, "its block %u has another window or RoPE than the base model's", i);
    if (a->rope_scaling == GYRE_ROPE_LONG && memcmp(a->rope_divisor, b->rope_divisor, sizeof a->rope_divisor))
        return gyre_verify_differs(v, err, "its divisors of longrope are not the base model's");
    return GYRE_OK;
}

gyre_status gyre_verify_base(struct gyre_verifier *v, gyre_error *err)
{
    v->what = "base model";
    GYRE_TRY(gyre_verify_tick(v, 0, err));
    GYRE_TRY(gyre_source_open(v->params->base, &v->base, err));
    GYRE_TRY(gyre_base_read(v->base, &v->base_read, err));
    GYRE_TRY(gyre_manifest_check_base(&v->manifest, v->params->base, v->base_read.identity, err));
    GYRE_TRY(gyre_hparams_read(v->base, &v->base_hp, err));
    GYRE_TRY(gyre_model_check_tensors(v->base, &v->base_hp, err));
    GYRE_TRY(compare_hparams(v, err));
    GYRE_TRY(gyre_verify_is_folder(v) ? gyre_verify_folder_texts(v, err) : compare_metadata(v, err));
    snprintf(v->detail, sizeof v->result->check[0].detail,
             "SHA-256 of %s; sizes, tokenizer and general keys are its own",
             gyre_json_show(json_object_get(v->manifest.base, "name")).text);
    return GYRE_OK;
}

gyre_status gyre_verify_sources(struct gyre_verifier *v, gyre_error *err)
{
    size_t i;
    json_t *row;
    json_array_foreach(v->manifest.sources, i, row)
    {
        const json_t *name = json_object_get(row, "name");
        const struct gyre_tensor *t = gyre_source_tensor(v->base, json_string_value(name));
        if (!t)
            return gyre_verify_differs(v, err, "source tensor %s of the manifest is not in the base model",
                                       gyre_json_show(name).text);
        if (strcmp(gyre_base_sha256(&v->base_read, t), json_string_value(json_object_get(row, "sha256"))))
            return gyre_verify_differs(v, err, "source tensor %s: SHA-256 differs from the base model's", t->name);
        GYRE_TRY(gyre_verify_tick(v, 0, err));
    }
    snprintf(v->detail, sizeof v->result->check[0].detail, "SHA-256 of %zu tensors that were read",
             json_array_size(v->manifest.sources));
    return GYRE_OK;
}
