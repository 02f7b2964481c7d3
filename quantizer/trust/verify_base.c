// A file against the model that it was made from: un-rotated in double precision with what the file itself carries,
// every linear must be the base's weight up to rounding, and exactly as far from it as the manifest says. See
// verify_impl.h.
//
// Everything merged is orthogonal except the norm gains, so errors are compared with the gains folded in: there they
// are what they were when the file was made.
#include "quantizer/file/rotations_file.h"
#include "quantizer/recipe/recipe.h"
#include "quantizer/round/rtn.h"
#include "quantizer/transform/diagonals.h"
#include "quantizer/trust/verify_impl.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"
#include "runtime/util/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the base ---------------------------------------------------------------------------------------------

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

// ---- one weight -------------------------------------------------------------------------------------------

// Rows of heads lie in the file's order.
static bool is_permuted(const struct gyre_verifier *v, gyre_role role)
{
    return v->hp.rope_interleaved != v->base_hp.rope_interleaved && gyre_role_is_turned(role);
}

struct distance {
    double error, norm;
    uint64_t n; // numbers
};

static double relative(const struct distance *d) { return gyre_relative(d->error, d->norm, d->n); }

static void add_rows(struct distance *d, const double *base, const double *have, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const double e = base[i] - have[i];
        d->error += e * e;
        d->norm += base[i] * base[i];
    }
    d->n += n;
}

// The base's linear as the run scaled it before it was rotated: gains folded where `rotated`, diagonals merged.
static gyre_status base_linear(const struct gyre_verifier *v, bool rotated, const struct gyre_diagonals *diagonals,
                               gyre_role role, uint32_t layer, double *out, gyre_error *err)
{
    const gyre_role norm = gyre_products[gyre_roles[role].product].norm;
    uint64_t rows, cols;
    gyre_role_shape(role, &v->hp, &rows, &cols);
    struct gyre_linear base;
    GYRE_TRY(gyre_linear_find(v->base, &v->base_hp, role, layer, &base, err));
    if (is_permuted(v, role)) base.paired = v->base_hp.head_dim;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++) gyre_linear_rows_f64(&base, (uint64_t)r, 1, out + (uint64_t)r * cols);
    GYRE_TRY(gyre_plain_rows(&v->base_hp, role, out, rows, err));
    if (rotated && v->rotator.fold && norm != GYRE_ROLE_none) {
        float *gain = malloc(cols * sizeof *gain);
        if (!gain) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", base.weight->name);
        gyre_role_vector_f32(&v->base_hp, norm, gyre_role_tensor(v->base, norm, layer, "weight", NULL), gain);
        for (uint64_t i = 0; i < rows * cols; i++) out[i] *= (double)gain[i % cols];
        free(gain);
    }
    if (diagonals) gyre_diagonals_before(diagonals, role, false, out);
    return GYRE_OK;
}

static bool has_diagonals(const struct gyre_verifier *v)
{
    return v->learned.norm || json_object_get(v->manifest.json, "diagonals");
}

// The diagonals of a block: the manifest's or the learned ones, and those that lie in the file's norms, which hold the
// base's gains too where these were not folded. GYRE_OK and out->up_down NULL: none.
static gyre_status block_diagonals(const struct gyre_verifier *v, bool rotated, uint32_t layer,
                                   struct gyre_diagonals *out, gyre_error *err)
{
    const json_t *list = json_object_get(v->manifest.json, "diagonals");
    *out = (struct gyre_diagonals){0};
    if (!has_diagonals(v)) return GYRE_OK;
    GYRE_TRY(gyre_diagonals_create(&v->hp, out, err));
    if (v->learned.norm) {
        gyre_diagonals_take(&v->learned, layer, out);
    } else if (!gyre_diagonals_read(json_array_get(list, layer), out)) {
        gyre_diagonals_release(out);
        return gyre_verify_differs(v, err, "the manifest's diagonals of block %u are not of this model", layer);
    }
    float *gain = malloc(v->hp.width * sizeof *gain);
    gyre_status st =
        gain ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    for (int p = 0; gain && p < GYRE_PRODUCTS; p++) {
        const gyre_role norm = gyre_products[p].norm;
        if (!out->norm[p] || v->hp.rot.r1.n) continue; // the signs of an online R1 leave no place for one
        gyre_role_vector_f32(&v->hp, norm, gyre_role_tensor(v->file, norm, layer, "weight", NULL), out->norm[p]);
        gyre_role_vector_f32(&v->base_hp, norm, gyre_role_tensor(v->base, norm, layer, "weight", NULL), gain);
        for (uint32_t i = 0; i < v->hp.width && !(rotated && v->rotator.fold); i++)
            out->norm[p][i] = gain[i] != 0 ? out->norm[p][i] / gain[i] : 1;
    }
    free(gain);
    if (st != GYRE_OK) gyre_diagonals_release(out);
    return st;
}

// Squared distance of a linear from the base's. NULL rotator: as it lies there.
static gyre_status linear_distance(const struct gyre_verifier *v, const struct gyre_rotator *rotator, gyre_role role,
                                   uint32_t layer, struct distance *out, struct gyre_linear *linear, uint32_t *bits,
                                   gyre_error *err)
{
    struct distance d = {0};
    struct gyre_diagonals diagonals = {0};
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_verify_linear(v, role, layer, linear, bits, err));
    const uint64_t rows = linear->rows, cols = linear->cols;
    double *wide = malloc(rows * cols * sizeof *wide), *base = malloc(rows * cols * sizeof *base);
    if (!wide || !base) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", linear->weight->name));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++) gyre_linear_rows_f64(linear, (uint64_t)r, 1, wide + (uint64_t)r * cols);
    GYRE_GO(block_diagonals(v, rotator != NULL, layer, &diagonals, err));
    if (diagonals.up_down) gyre_diagonals_after(&diagonals, role, true, wide);
    if (rotator) GYRE_GO(gyre_unrotate_linear(rotator, role, layer, NULL, wide, err));
    GYRE_GO(base_linear(v, rotator != NULL, diagonals.up_down ? &diagonals : NULL, role, layer, base, err));
    for (uint64_t r = 0; r < rows; r++) add_rows(&d, base + r * cols, wide + r * cols, cols);
    *out = d;
done:
    gyre_diagonals_release(&diagonals);
    free(wide);
    free(base);
    return st;
}

// ---- what was merged --------------------------------------------------------------------------------------

// Learned rotations lie in a file of their own, which the manifest vouches for.
static gyre_status read_learned(struct gyre_verifier *v, gyre_error *err)
{
    const json_t *told = json_object_get(v->manifest.json, "rotations");
    const char *hex = json_string_value(json_object_get(told, "sha256"));
    if (!told) return GYRE_OK;
    if (!hex) return gyre_verify_differs(v, err, "the manifest's rotations have no sha256");
    char *path = gyre_matrices_path(v->params->file);
    if (!path) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    gyre_status st = GYRE_OK;
    if (!gyre_file_exists(path))
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot verify (%s): its rotations were learned, and their file (%s) is missing; fetch it "
                          "too",
                          v->params->file, path));
    GYRE_GO(gyre_matrices_create(v->hp.width, v->hp.n_layers, v->hp.kv_heads, v->hp.head_dim,
                                 json_is_true(json_object_get(told, "diagonals")) ? v->hp.ffn : 0, v->signs.r1.n != 0,
                                 &v->learned, err));
    GYRE_GO(gyre_matrices_read(path, hex, &v->learned, err));
    v->signs.learned = &v->learned;
done:
    free(path);
    return st;
}

// A full file declares R4 where it was rotated. A portable one declares nothing: its first linear that is not all
// zeros is either the base's up to rounding, or (rotated) about 2 away from it.
static gyre_status find_rotation(struct gyre_verifier *v, gyre_error *err)
{
    uint64_t seed = v->manifest.seed;
    struct gyre_linear linear;
    struct distance plain;
    uint32_t bits;
    // Recipes that try several keep the one they chose there.
    GYRE_TRY(gyre_source_u64(v->file, "gyre.rotation_seed", &seed, NULL, err));
    const json_t *chosen = json_object_get(json_object_get(v->manifest.json, "choice"), "rotation_seed");
    if (gyre_verify_is_folder(v) && json_is_integer(chosen)) seed = (uint64_t)json_integer_value(chosen);
    GYRE_TRY(gyre_rotator_create(&v->hp, seed, true,
                                 GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | (v->hp.rot.r1.n ? GYRE_ROTATE_ONLINE_R1 : 0),
                                 &v->signs, err));
    GYRE_TRY(read_learned(v, err));
    v->rotator = v->signs;
    v->rotator.r4 = v->hp.rot.r4;
    if (v->hp.rot.head.n) v->rotator.r1 = v->hp.rot.head;
    if (v->hp.rot.r1.n) v->rotator.r1 = v->hp.rot.r1;
    v->rotated = v->hp.rot.r4.n != 0;
    if (!strcmp(v->manifest.profile, "full")) return GYRE_OK;
    for (uint32_t i = 0; i < v->hp.n_layers * GYRE_LINEARS; i++) { // zeros are zeros in any basis
        const gyre_role role = v->signs.r1.n ? (gyre_role)(i % GYRE_LINEARS) : gyre_heads_role(GYRE_HEADS_VALUE);
        GYRE_TRY(linear_distance(v, NULL, role, i / GYRE_LINEARS, &plain, &linear, &bits, err));
        v->rotated = !(relative(&plain) <= 0.8);
        if (!gyre_is_faint(plain.norm, plain.n)) break;
    }
    return GYRE_OK;
}

// Gains, scales and clips of the file were learned after rounding (pass/distill.h).
static bool is_learned(const struct gyre_verifier *v) { return json_object_get(v->manifest.json, "distilled") != NULL; }

// How far a gain may be from where rounding left it: learning moves them by a few per cent.
static float gain_tolerance(const struct gyre_verifier *v) { return is_learned(v) ? 0.5f : 0; }

// `expected` NULL: ones. Where diagonals come to lie in a norm's place, their product with the ones is due here.
static gyre_status check_vector(const struct gyre_verifier *v, gyre_role role, const struct gyre_tensor *t,
                                const float *expected, float tolerance, gyre_error *err)
{
    const char *name = t->name;
    gyre_status st = GYRE_OK;
    float *have = malloc(t->cols * sizeof *have);
    if (!have) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", name);
    gyre_role_vector_f32(&v->hp, role, t, have);
    for (uint64_t i = 0; i < t->cols && st == GYRE_OK; i++) {
        const float want = expected ? expected[i] : 1;
        if (!(fabsf(have[i] - want) <= tolerance * fabsf(want)))
            st = gyre_verify_differs(v, err, "tensor %s: value %llu is %.9g where the base model makes it %.9g", name,
                                     (unsigned long long)i, (double)have[i], (double)want);
    }
    free(have);
    return st;
}

// The head between two learned rotations is what they and the base's final gain make it, up to f16's rounding.
static gyre_status check_mix(const struct gyre_verifier *v, const float *gain, gyre_error *err)
{
    const uint64_t D = v->hp.width;
    const struct gyre_tensor *t = gyre_source_tensor(v->file, "gyre.head_mix");
    gyre_status st = GYRE_OK;
    double *want = calloc(D * D, sizeof *want), largest = 0;
    float *row = malloc(D * sizeof *row);
    if (!want || !row) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the head"));
    for (uint64_t i = 0; i < D; i++) {
        want[i * D + i] = (double)gain[i];
        largest = fmax(largest, fabs((double)gain[i]));
    }
    GYRE_GO(gyre_rotate_mix(&v->rotator, want, err));
    for (uint64_t r = 0; r < D; r++) {
        gyre_tensor_rows_f32(t, r, 1, row);
        for (uint64_t i = 0; i < D; i++)
            if (!(fabs((double)row[i] - want[r * D + i]) <= 5e-4 * fabs(want[r * D + i]) + 1e-6 * largest + 0x1p-25))
                GYRE_GO(gyre_verify_differs(v, err,
                                            "tensor %s: row %llu, column %llu is %.9g where the base model and "
                                            "the rotations make it %.9g",
                                            t->name, (unsigned long long)r, (unsigned long long)i, (double)row[i],
                                            want[r * D + i]));
    }
done:
    free(want);
    free(row);
    return st;
}

// Divisors of the inverse frequencies: the base's tensor, or what its llama3 scaling amounts to.
static gyre_status check_rope(const struct gyre_verifier *v, gyre_error *err)
{
    const struct gyre_tensor *t = gyre_role_tensor(v->base, GYRE_ROLE_rope_freqs, 0, "weight", NULL),
                             *have = gyre_role_tensor(v->file, GYRE_ROLE_rope_freqs, 0, "weight", NULL);
    const struct gyre_hparams *hp = &v->base_hp;
    float divisor[GYRE_MAX_HEAD_DIM / 2];
    if (hp->rope_scaling == GYRE_ROPE_LONG && v->hp.rope_scaling == GYRE_ROPE_LONG) return GYRE_OK; // compared already
    if (!v->hp.has_rope_freqs) {
        if (!t && hp->rope_scaling == v->hp.rope_scaling && hp->rope_factor == v->hp.rope_factor) return GYRE_OK;
        return gyre_verify_differs(v, err, "its rope scaling is not the base model's");
    }
    if (t) {
        gyre_tensor_rows_f32(t, 0, 1, divisor);
        return check_vector(v, GYRE_ROLE_rope_freqs, have, divisor, 0, err);
    }
    gyre_rope_divisors(hp, divisor);
    return check_vector(v, GYRE_ROLE_rope_freqs, have, divisor, 1e-6f, err);
}

// The biases of a block are the base's, rotated as what their linears write.
static gyre_status check_bias(const struct gyre_verifier *v, gyre_role role, uint32_t layer, double *wide, float *want,
                              gyre_error *err)
{
    struct gyre_bias base;
    uint64_t rows, cols;
    struct gyre_diagonals diagonals = {0};
    gyre_status st = GYRE_OK;
    gyre_role_shape(role, &v->hp, &rows, &cols);
    GYRE_TRY(gyre_role_bias(v->base, &v->base_hp, role, layer, &base, err));
    gyre_bias_f32(&base, want);
    for (uint64_t r = 0; r < rows; r++)
        wide[r] = (double)want[is_permuted(v, role) ? gyre_paired_row(v->hp.head_dim, r) : r];
    GYRE_GO(block_diagonals(v, v->rotated, layer, &diagonals, err));
    if (diagonals.up_down) gyre_diagonals_bias(&diagonals, role, wide);
    if (v->rotated) GYRE_GO(gyre_rotate_bias(&v->rotator, role, layer, wide, err));
    float largest = 0;
    for (uint64_t r = 0; r < rows; r++) {
        want[r] = (float)wide[r];
        largest = fmaxf(largest, fabsf(want[r]));
    }
    GYRE_GO(gyre_role_bias(v->file, &v->hp, role, layer, &base, err));
    const struct gyre_tensor *const t = base.tensor;
    for (uint64_t r = 0; r < rows; r++) {
        float have = NAN;
        if (t->type == GYRE_DTYPE_F32)
            memcpy(&have, (const char *)t->data + (base.first + r) * sizeof have, sizeof have);
        if (!(fabsf(have - want[r]) <= 1e-6f * largest))
            GYRE_GO(gyre_verify_differs(v, err, "tensor %s: value %llu is not what the base model makes it, %.9g",
                                        t->name, (unsigned long long)r, (double)want[r]));
    }
done:
    gyre_diagonals_release(&diagonals);
    return st;
}

// The vectors of one block: gains that are folded are ones (others have the signs of an online R1), except where
// diagonals lie there: learned ones are known, for others its linears answer.
static gyre_status check_vectors(const struct gyre_verifier *v, uint32_t layer, double *wide, float *want, uint32_t *n,
                                 gyre_error *err)
{
    const bool measured = has_diagonals(v) && !v->learned.norm;
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) {
        const gyre_role role = (gyre_role)r;
        const bool folds = gyre_norm_product(role) != GYRE_PRODUCTS;
        if (gyre_role_has_bias(&v->hp, role, layer)) GYRE_TRY(check_bias(v, role, layer, wide, want, err));
        if (r < GYRE_LINEARS || !gyre_role_present(&v->hp, role, layer) || (folds && measured && !v->hp.rot.r1.n))
            continue;
        const struct gyre_tensor *base = gyre_role_tensor(v->base, role, layer, "weight", NULL);
        gyre_role_vector_f32(&v->base_hp, role, base, want);
        for (uint32_t i = 0; v->rotated && folds && i < v->hp.width; i++)
            want[i] = (v->rotator.fold ? 1 : want[i]) * gyre_rotate_gain(&v->rotator, gyre_norm_product(role), i);
        for (uint32_t i = 0; v->learned.norm && folds && i < v->hp.width; i++)
            want[i] *= (float)gyre_matrices_norm(&v->learned, layer, gyre_norm_product(role))[i];
        GYRE_TRY(check_vector(v, role, gyre_role_tensor(v->file, role, layer, "weight", NULL), want, gain_tolerance(v),
                              err));
        ++*n;
    }
    return GYRE_OK;
}

gyre_status gyre_verify_norms(struct gyre_verifier *v, gyre_error *err)
{
    const bool head_folded = v->hp.rot.head.n != 0 || v->hp.rot.head_mix || !v->hp.tied;
    uint64_t most = v->hp.width, rows, cols;
    uint32_t n = 1;
    gyre_status st = GYRE_OK;
    GYRE_TRY(find_rotation(v, err));
    for (int r = 0; r < GYRE_LINEARS; r++) {
        gyre_role_shape((gyre_role)r, &v->hp, &rows, &cols);
        most = GYRE_MAX(most, rows);
    }
    float *gain = malloc(most * sizeof *gain);
    double *wide = malloc(most * sizeof *wide);
    if (!gain || !wide) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the norms"));
    for (uint32_t l = 0; l < v->hp.n_layers; l++) GYRE_GO(check_vectors(v, l, wide, gain, &n, err));
    gyre_role_vector_f32(&v->base_hp, GYRE_ROLE_output_norm,
                         gyre_role_tensor(v->base, GYRE_ROLE_output_norm, 0, "weight", NULL), gain);
    GYRE_GO(check_vector(v, GYRE_ROLE_output_norm, gyre_role_tensor(v->file, GYRE_ROLE_output_norm, 0, "weight", NULL),
                         v->rotated && v->rotator.fold && head_folded ? NULL : gain, gain_tolerance(v), err));
    if (v->hp.rot.head.n)
        GYRE_GO(check_vector(v, GYRE_ROLE_none, gyre_source_tensor(v->file, "gyre.head_gain"), gain, gain_tolerance(v),
                             err));
    if (v->hp.rot.head_mix) GYRE_GO(check_mix(v, gain, err));
    GYRE_GO(check_rope(v, err));
    snprintf(v->detail, sizeof v->result->check[0].detail, "gains of %u norms are %s%s", n,
             is_learned(v) ? "learned, within half of what they were: " : "",
             v->learned.norm   ? "the learned diagonals, times the base model's where these are not folded"
             : !v->rotated     ? "the base model's"
             : v->rotator.fold ? "ones, the base model's folded into what reads them"
             : v->rotator.r1.n ? "the base model's, those that are read behind an online R1 with its signs"
                               : "the base model's");
done:
    free(wide);
    free(gain);
    return st;
}

// ---- weights ----------------------------------------------------------------------------------------------

// The largest relative squared error that rounding excuses. Gaussian rows lose 0.0074 (groups of 32) to 0.012 (a row)
// at 4 bits with a searched scale; error-compensated rounding moves weights three to four times as far to keep outputs.
// Where the input side is not rotated, rows may be as heavy-tailed as they like: a loose bound. A wrong rotation, seed
// or tensor is about 2 away.
// Target correction moves weights on purpose, in directions that inputs hardly have.
static double allowed(uint32_t bits, uint32_t group, bool mixed, bool corrected)
{
    const bool small = group && group <= 128;
    if (bits == 32) return 1e-12;
    if (bits == 16) return 1e-6;
    if (corrected) return 0.8;
    if (bits == 8) return mixed ? (small ? 5e-4 : 1e-3) : small ? 5e-3 : 0.05;
    if (!mixed) return small ? 0.15 : 0.6;
    return !small ? 0.08 : group > 64 ? 0.06 : group > 32 ? 0.05 : 0.04;
}

// `size`: the mean square that faint weights (gyre_is_faint) are held against.
// The matrix is the rows of `t` from `first` on; of a linear of a block, or a table.
static gyre_status judge(const struct gyre_verifier *v, const struct gyre_tensor *t, uint64_t first, bool in_block,
                         const struct distance *d, double limit, double size, gyre_error *err)
{
    const char *name = t->name;
    const bool faint = gyre_is_faint(d->norm, d->n);
    const double measured = relative(d);
    const json_t *recorded = json_object_get(gyre_manifest_row(v->rows, name, first), "error");
    const double claimed = json_number_value(recorded);
    if (faint) limit *= size;
    if (!(measured <= limit))
        return gyre_verify_differs(v, err,
                                   "tensor %s: un-rotated, it is %.4g (squared, %s) away from the base model's, and "
                                   "its bits allow %.2g",
                                   name, measured, faint ? "on average; the base's is as good as zero" : "relative",
                                   limit);
    if (!recorded) return gyre_verify_differs(v, err, "tensor %s: the manifest tells no error", name);
    // What the manifest tells of a block's linears is from before their scales were learned.
    if (!(fabs(measured - claimed) <= 1e-4 * claimed + 1e-9) && !(is_learned(v) && in_block))
        return gyre_verify_differs(v, err,
                                   "tensor %s: its error against the base model is %.6g, the manifest says %.6g", name,
                                   measured, claimed);
    return GYRE_OK;
}

static gyre_status check_table(struct gyre_verifier *v, gyre_role role, gyre_role from, bool fold, gyre_error *err)
{
    const struct gyre_tensor *t = gyre_role_tensor(v->file, role, 0, "weight", NULL);
    struct gyre_linear base;
    GYRE_TRY(gyre_linear_find(v->base, &v->base_hp, from, 0, &base, err));
    const char *name = t->name;
    const uint64_t cols = t->cols, chunk = GYRE_MAX((uint64_t)1, ((uint64_t)4 << 20) / cols);
    const uint32_t bits = t->type == GYRE_DTYPE_F32    ? 32
                          : t->type == GYRE_DTYPE_F16  ? 16
                          : t->type == GYRE_DTYPE_Q4_0 ? 4
                                                       : 8;
    struct distance d = {0};
    gyre_status st = GYRE_OK;
    double *wide = malloc(chunk * cols * sizeof *wide), *row = malloc(cols * sizeof *row);
    float *gain = malloc(cols * sizeof *gain);
    if (!wide || !row || !gain) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", name));
    gyre_role_vector_f32(&v->base_hp, GYRE_ROLE_output_norm,
                         gyre_role_tensor(v->base, GYRE_ROLE_output_norm, 0, "weight", NULL), gain);
    for (uint64_t first = 0; first < t->rows; first += chunk) {
        const uint64_t n = GYRE_MIN(chunk, t->rows - first);
        gyre_tensor_rows_f64(t, first, n, wide);
        if (v->rotated) GYRE_GO(gyre_unrotate_rows(&v->rotator, NULL, wide, n, err));
        for (uint64_t r = 0; r < n; r++) {
            gyre_linear_rows_f64(&base, first + r, 1, row);
            for (uint64_t c = 0; fold && c < cols; c++) row[c] *= (double)gain[c];
            add_rows(&d, row, wide + r * cols, cols);
        }
        GYRE_GO(gyre_verify_tick(v, n * cols, err));
    }
    GYRE_GO(judge(v, t, 0, false, &d, allowed(bits, 32, v->rotated, false), 1e-9, err)); // tables are never corrected
done:
    free(wide);
    free(row);
    free(gain);
    return st;
}

static gyre_status check_tables(struct gyre_verifier *v, gyre_error *err)
{
    GYRE_TRY(check_table(v, GYRE_ROLE_embedding, GYRE_ROLE_embedding, false, err));
    if (!v->hp.tied)
        return check_table(v, GYRE_ROLE_head, v->base_hp.tied ? GYRE_ROLE_embedding : GYRE_ROLE_head,
                           v->rotated && v->rotator.fold, err);
    return v->base_hp.tied ? GYRE_OK : gyre_verify_differs(v, err, "the base model's own head is not in it");
}

static gyre_status add_squares(const struct gyre_verifier *v, gyre_role role, uint32_t layer, double *sum, double *n,
                               gyre_error *err)
{
    struct gyre_linear l;
    GYRE_TRY(gyre_linear_find(v->base, &v->base_hp, role, layer, &l, err));
    double *row = malloc(l.cols * sizeof *row);
    if (!row) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", l.weight->name);
    for (uint64_t r = 0; r < l.rows; r++) {
        gyre_linear_rows_f64(&l, r, 1, row);
        for (uint64_t c = 0; c < l.cols; c++) *sum += row[c] * row[c];
    }
    free(row);
    *n += (double)l.rows * (double)l.cols;
    return GYRE_OK;
}

// What a repair that went into a linear of zeros is measured against: the mean square of the base's linears in its
// block, or of the token table where they are all zeros.
static gyre_status block_size(const struct gyre_verifier *v, uint32_t layer, double *out, gyre_error *err)
{
    double sum = 0, n = 0;
    for (int r = 0; r < GYRE_LINEARS; r++) GYRE_TRY(add_squares(v, (gyre_role)r, layer, &sum, &n, err));
    if (sum == 0) GYRE_TRY(add_squares(v, GYRE_ROLE_embedding, 0, &sum, &n, err));
    *out = sum / n;
    return GYRE_OK;
}

// A recipe that is known by its name alone, and is not built in, does not correct as far as anybody knows.
static gyre_status find_correction(const struct gyre_verifier *v, bool *out, gyre_error *err)
{
    const struct gyre_manifest *m = &v->manifest;
    gyre_error why = {0};
    struct gyre_recipe *recipe = malloc(sizeof *recipe);
    *out = false;
    if (!recipe) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a recipe");
    gyre_status st = m->recipe_text
                         ? gyre_recipe_parse(m->recipe_text, strlen(m->recipe_text), "recipe_text", recipe, &why)
                         : gyre_recipe_find(m->recipe, recipe, &why);
    if (st == GYRE_OK) *out = gyre_recipe_corrects(recipe);
    free(recipe);
    if (st == GYRE_OK || !m->recipe_text) return GYRE_OK;
    return gyre_verify_differs(v, err, "the manifest's recipe is none: %s", why.message);
}

gyre_status gyre_verify_weights(struct gyre_verifier *v, gyre_error *err)
{
    gyre_verify_result *result = v->result;
    const struct gyre_rotator *rotator = v->rotated ? &v->rotator : NULL;
    result->rotated = v->rotated;
    uint64_t rows, cols;
    v->what = "weights";
    v->done = 0;
    v->total = (uint64_t)v->hp.vocab * v->hp.width * (v->hp.tied ? 1 : 2);
    for (int s = 0; s < GYRE_LINEARS; s++) {
        gyre_role_shape((gyre_role)s, &v->hp, &rows, &cols);
        v->total += rows * cols * v->hp.n_layers;
    }
    bool corrected = false;
    GYRE_TRY(find_correction(v, &corrected, err));
    GYRE_TRY(check_tables(v, err));
    for (uint32_t l = 0; l < v->hp.n_layers; l++)
        for (int s = 0; s < GYRE_LINEARS; s++) {
            const gyre_role role = (gyre_role)s;
            const gyre_rotation reads = gyre_products[gyre_roles[role].product].reads;
            const bool mixed = v->rotated && (reads != GYRE_ROTATION_R4 || v->rotator.r4.n) &&
                               (reads != GYRE_ROTATION_R1 || v->rotator.r1.n);
            struct gyre_linear linear;
            struct distance d;
            uint32_t bits;
            double size = 0;
            GYRE_TRY(linear_distance(v, rotator, role, l, &d, &linear, &bits, err));
            if (gyre_is_faint(d.norm, d.n)) GYRE_TRY(block_size(v, l, &size, err));
            GYRE_TRY(judge(v, linear.weight, linear.first, true, &d, allowed(bits, linear.group, mixed, corrected),
                           size, err));
            const double error = relative(&d);
            result->linears++;
            if (error > result->worst_error) {
                result->worst_error = error;
                snprintf(result->worst, sizeof result->worst, "%s", linear.weight->name);
            }
            GYRE_TRY(gyre_verify_tick(v, linear.rows * linear.cols, err));
        }
    snprintf(
        v->detail, sizeof result->check[0].detail,
        "%llu linears %sand the tables are the base model's within %.4g (squared, relative; worst %s), as the manifest "
        "says",
        (unsigned long long)result->linears, v->rotated ? "un-rotated " : "", result->worst_error, result->worst);
    return GYRE_OK;
}
