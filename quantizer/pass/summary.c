// See summary.h. The head is divergence.c's.
#include "quantizer/pass/summary.h"
#include "runtime/model/linear.h"
#include "quantizer/pass/divergence.h"
#include "quantizer/pass/summary_text.h"
#include "quantizer/pass/walk.h"
#include "runtime/core/codec.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/log.h"
#include "runtime/util/sha256.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 256, MAX_TEXT = 1 << 20 };
enum stream { FLOAT, PLAIN, RECIPE, STREAMS };

// What makes streams comparable.
struct identity {
    char sha256[GYRE_SHA256_HEX + 7];
    uint64_t tokens, width;
};
struct header {
    struct identity identity;
    struct gyre_summary_heat heat;
};

struct gyre_summary {
    const struct gyre_plan *plan;
    const gyre_log *log;
    gyre_walk *walk; // a path per stream; RECIPE is not there where the recipe is plain rounding
    uint32_t *token, n;
    double *wide; // [n][width]
};

static uint32_t n_streams(const gyre_summary *s) { return gyre_layer_has_plain(s->plan) ? STREAMS : RECIPE; }

static float *stream(const gyre_summary *s, uint32_t which) { return gyre_walk_stream(s->walk, which); }

static struct header *header(const gyre_summary *s)
{
    uint64_t bytes;
    return gyre_walk_state(s->walk, &bytes);
}

uint32_t gyre_summary_tokens(const gyre_summary *s) { return s->n; }

// ---- opening ----------------------------------------------------------------------------------------------

static gyre_status read_tokens(gyre_summary *s, gyre_error *err)
{
    gyre_tokenizer *tokenizer = NULL;
    uint64_t n = 0;
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_tokenizer_create(s->plan->source, NULL, NULL, &tokenizer, err));
    GYRE_GO(gyre_tokenizer_encode(tokenizer, gyre_summary_text, sizeof gyre_summary_text - 1, 0, &s->token, &n, err));
    s->n = (uint32_t)GYRE_MIN(n, (uint64_t)MAX_TOKENS);
    if (n == 0)
        st = gyre_fail(err, GYRE_E_FORMAT, "no summary (%s): its tokenizer makes no token of the closing text",
                       gyre_source_path(s->plan->source));
    for (uint64_t i = 0; i < s->n && st == GYRE_OK; i++)
        if (s->token[i] >= s->plan->hp.vocab)
            st = gyre_fail(err, GYRE_E_FORMAT, "no summary (%s): the tokenizer gives token %u of %u",
                           gyre_source_path(s->plan->source), s->token[i], s->plan->hp.vocab);
done:
    gyre_tokenizer_destroy(tokenizer);
    return st;
}

static gyre_status open_walk(gyre_summary *s, gyre_device *device, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    struct gyre_hparams plain = p->hp, recipe = gyre_plan_output_hparams(p);
    plain.rot = (struct gyre_rotations){0};
    plain.act_group = recipe.act_group; // a format, as the widths are, those of single taps too
    plain.act_bits = recipe.act_bits;
    struct gyre_walk_params params = {.device = device,
                                      .source = p->source,
                                      .token = s->token,
                                      .windows = 1,
                                      .tokens = s->n,
                                      .chunk_rows = s->n,
                                      .n_paths = n_streams(s),
                                      .head_bytes = gyre_round_up(sizeof(struct header), 8)};
    for (uint32_t w = 0; w < n_streams(s); w++) {
        const bool last = w + 1 == n_streams(s); // the recipe's
        params.path[w] = (struct gyre_walk_path){w == RECIPE ? &recipe : &plain,
                                                 {.act_bits = w == FLOAT ? 16 : p->set.act,
                                                  .kv_bits = w == FLOAT ? 16 : p->set.kv,
                                                  .kv_bits_v = w == FLOAT ? 16 : p->set.kv_v,
                                                  .act_clip = last ? p->choice.act_clip : 1,
                                                  .kv_clip = last ? p->choice.kv_clip : 1,
                                                  .kv_clip_v = last ? p->choice.kv_clip_v : 1,
                                                  .tap_clip = last ? p->choice.tap_clip : 1}};
    }
    GYRE_TRY(gyre_walk_open(&params, &s->walk, err));
    s->wide = malloc((uint64_t)s->n * p->hp.width * sizeof *s->wide);
    if (!s->wide) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    struct identity *id = &header(s)->identity;
    gyre_sha256_of(s->token, s->n * sizeof *s->token, id->sha256);
    id->tokens = s->n;
    id->width = p->hp.width;
    return GYRE_OK;
}

gyre_status gyre_summary_open(const gyre_quantize_params *params, const struct gyre_plan *plan, gyre_device *device,
                              gyre_summary **out, gyre_error *err)
{
    gyre_error why = {0};
    gyre_summary *s = *out = calloc(1, sizeof *s);
    if (!s) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    s->plan = plan;
    s->log = &params->log;
    gyre_status st = read_tokens(s, &why);
    const bool unreadable = st != GYRE_OK; // a model without a tokenizer can be quantized all the same
    if (st == GYRE_OK) st = open_walk(s, device, &why);
    if (st == GYRE_OK) return GYRE_OK;
    gyre_summary_close(s);
    *out = NULL;
    if (!unreadable) return gyre_fail(err, st, "%s", why.message);
    gyre_logf(&params->log, GYRE_LOG_WARN, "quantize: no closing summary: %s", why.message);
    return GYRE_OK;
}

void gyre_summary_close(gyre_summary *s)
{
    if (!s) return;
    gyre_walk_close(s->walk);
    free(s->token);
    free(s->wide);
    free(s);
}

const void *gyre_summary_streams(const gyre_summary *s, uint64_t *bytes) { return gyre_walk_state(s->walk, bytes); }

// A map from a file is drawn by its own numbers: they must be those of this run.
static bool sized(const gyre_summary *s, const struct gyre_heat_map *m, uint32_t tap)
{
    const uint64_t width = gyre_product_width((gyre_product)tap, &s->plan->hp);
    return m->tokens == s->n && m->channels == width && m->rows == GYRE_MIN(m->tokens, (uint64_t)GYRE_HEAT_SIDE) &&
           m->cols == GYRE_MIN(width, (uint64_t)GYRE_HEAT_SIDE);
}

bool gyre_summary_restore(gyre_summary *s, const void *data, uint64_t bytes)
{
    uint64_t mine;
    struct header *head = gyre_walk_state(s->walk, &mine);
    if (bytes != mine || memcmp(data, &head->identity, sizeof head->identity)) return false;
    memcpy(head, data, bytes);
    struct gyre_summary_heat *h = &head->heat;
    if (h->worst != 0 &&
        !(h->worst > 0 && h->tap < GYRE_PRODUCTS && sized(s, &h->before, h->tap) && sized(s, &h->after, h->tap)))
        *h = (struct gyre_summary_heat){0}; // no picture rather than one of another model
    return true;
}

// ---- tables -----------------------------------------------------------------------------------------------

// Rows of a table as one stream sees them; `round` where the source's floats would be stored as another type.
struct table {
    struct gyre_linear source; // weight NULL: `made`
    struct gyre_tensor made;
    uint64_t cols;
    bool round;
    gyre_dtype type;
};

static void table_rows(const void *user, uint64_t first, uint64_t n, float *out)
{
    const struct table *t = user;
    const uint64_t cols = t->cols;
#pragma omp parallel for schedule(static) if (n * cols > 1 << 16)
    for (int64_t i = 0; i < (int64_t)n; i++) {
        float *row = out + (uint64_t)i * cols;
        if (t->source.weight) gyre_linear_rows_f32(&t->source, first + (uint64_t)i, 1, row);
        else gyre_tensor_rows_f32(&t->made, first + (uint64_t)i, 1, row);
        if (!t->round) continue;
        unsigned char *blocks = malloc(cols * sizeof(float)); // NULL: the row stays as it is
        if (blocks && gyre_encode_rows(t->type, row, 1, cols, blocks, NULL) == GYRE_OK)
            gyre_decode_row(t->type, blocks, cols, row);
        free(blocks);
    }
}

// The table of a stream: the source's, or what OUT.part (mapped) holds.
static gyre_status table_of(const gyre_summary *s, uint32_t which, const struct gyre_output *out,
                            const struct gyre_file_map *maps, bool head, struct table *table, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    const gyre_role role =
        head && (which == RECIPE ? p->write_head : !p->hp.tied) ? GYRE_ROLE_head : GYRE_ROLE_embedding;
    *table = (struct table){.type = head ? p->head_type : p->table_type, .cols = p->hp.width};
    if (which != RECIPE) {
        GYRE_TRY(gyre_linear_find(p->source, &p->hp, role, 0, &table->source, err));
        const gyre_dtype type = table->source.weight->type;
        table->round =
            which == PLAIN && type != table->type && (table->type == GYRE_DTYPE_Q8_0 || table->type == GYRE_DTYPE_Q4_0);
        return GYRE_OK;
    }
    const struct gyre_written *t = gyre_writer_find(out->writer, (struct gyre_plan_part){GYRE_PART_TABLE, role, 0});
    if (t)
        table->made = (struct gyre_tensor){.name = t->name,
                                           .type = t->type,
                                           .n_dims = 2,
                                           .dims = {t->dims[0], t->dims[1]},
                                           .rows = t->dims[0],
                                           .cols = t->dims[1],
                                           .data = maps[t->file].data + t->offset,
                                           .bytes = t->bytes};
    return GYRE_OK;
}

static gyre_status embed(const void *table, const uint32_t *token, uint32_t n, float *out, gyre_error *err)
{
    const struct table *t = table;
    (void)err;
    for (uint32_t i = 0; i < n; i++) table_rows(t, token[i], 1, out + i * t->cols);
    return GYRE_OK;
}

gyre_status gyre_summary_begin(gyre_summary *s, const struct gyre_output *out, gyre_error *err)
{
    struct gyre_file_map *maps;
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_output_map(out, &maps, err));
    for (uint32_t w = 0; w < n_streams(s); w++) {
        struct table t;
        GYRE_GO(table_of(s, w, out, maps, false, &t, err));
        GYRE_GO(gyre_walk_embed(s->walk, w, embed, &t, err));
    }
done:
    gyre_output_unmap(out, maps);
    return st;
}

// ---- one block --------------------------------------------------------------------------------------------

static struct gyre_block_linear linear_of(const struct gyre_rounded *r)
{
    return r->f32
               ? (struct gyre_block_linear){.f32 = r->f32}
               : (struct gyre_block_linear){
                     .codes = r->codes.code, .scales = r->codes.scale, .bits = r->codes.bits, .group = r->codes.group};
}

static struct gyre_block_weights weights_of(const gyre_summary *s, const struct gyre_layer *layer, uint32_t which)
{
    struct gyre_block_weights out;
    for (int i = 0; i < GYRE_LINEARS; i++)
        out.linear[i] = which == FLOAT ? (struct gyre_block_linear){.f32 = layer->original[i]}
                                       : linear_of(which == PLAIN ? gyre_layer_plain(layer, s->plan, (gyre_role)i)
                                                                  : &layer->recipe[i]);
    gyre_layer_vectors(layer, which == RECIPE, &out);
    return out;
}

// Relative squared distance of a stream to the float one, in that stream's basis.
static gyre_status distance(const gyre_summary *s, uint32_t which, double *error, gyre_error *err)
{
    const uint32_t width = s->plan->hp.width;
    const uint64_t n = (uint64_t)s->n * width;
    const float *x = stream(s, which), *f = stream(s, FLOAT);
    for (uint64_t i = 0; i < n; i++) s->wide[i] = f[i];
    if (which == RECIPE) GYRE_TRY(gyre_rotate_rows(&s->plan->rotator, NULL, s->wide, s->n, err));
    double e = 0, norm = 0;
    for (uint64_t i = 0; i < n; i++) {
        e += (s->wide[i] - x[i]) * (s->wide[i] - x[i]);
        norm += s->wide[i] * s->wide[i];
    }
    *error = norm > 0 ? e / norm : e > 0 ? (double)NAN : 0; // NaN: not measured
    return GYRE_OK;
}

// ---- taps ---------------------------------------------------------------------------------------------------

struct looking {
    gyre_summary *summary;
    uint32_t layer, which, tap;
    struct gyre_report_tap *taps; // [GYRE_PRODUCTS]
};

// x is what the stream reads at the tap. The float stream comes first and says where outliers are worst.
static gyre_status look(void *user, const struct gyre_walk_chunk *at, const float *x, gyre_error *err)
{
    const struct looking *l = user;
    const gyre_summary *s = l->summary;
    const uint32_t width = gyre_product_width((gyre_product)l->tap, &s->plan->hp);
    struct gyre_summary_heat *heat = &header(s)->heat;
    struct gyre_tap_stats *stats = l->which == FLOAT ? &l->taps[l->tap].before : &l->taps[l->tap].after;
    GYRE_TRY(gyre_tap_measure(x, (uint32_t)at->rows, width, stats, err));
    if (l->which == FLOAT && stats->max_rms_median > heat->worst) {
        heat->worst = stats->max_rms_median;
        heat->layer = l->layer;
        heat->tap = l->tap;
        gyre_heat_begin(&heat->before, s->n, width);
        gyre_heat_begin(&heat->after, s->n, width);
        gyre_heat_add(&heat->before, 0, s->n, x);
    }
    if (l->which != FLOAT && heat->worst > 0 && heat->layer == l->layer && heat->tap == l->tap)
        gyre_heat_add(&heat->after, 0, s->n, x);
    return GYRE_OK;
}

const struct gyre_summary_heat *gyre_summary_heat(const gyre_summary *s)
{
    const struct gyre_summary_heat *heat = &header(s)->heat;
    return heat->worst > 0 && heat->blocks == s->plan->hp.n_layers ? heat : NULL;
}

gyre_status gyre_summary_block(gyre_summary *s, const struct gyre_layer *layer, gyre_quantize_layer *errors,
                               struct gyre_report_tap taps[GYRE_PRODUCTS], gyre_error *err)
{
    for (uint32_t w = 0; w < n_streams(s); w++) {
        const struct gyre_block_weights weights = weights_of(s, layer, w);
        struct looking l = {s, layer->index, w, 0, taps};
        const bool seen = taps && (w == FLOAT || w + 1 == n_streams(s));
        GYRE_TRY(gyre_block_load(gyre_walk_block(s->walk, w), &weights, err));
        for (; l.tap <= GYRE_PRODUCTS; l.tap++)
            GYRE_TRY(gyre_walk_part(s->walk, w, l.tap, seen ? look : NULL, &l, err));
    }
    struct gyre_summary_heat *heat = &header(s)->heat;
    if (taps && heat->blocks == layer->index) heat->blocks++;
    GYRE_TRY(distance(s, PLAIN, &errors->rtn_error, err));
    errors->recipe_error = errors->rtn_error;
    return n_streams(s) == STREAMS ? distance(s, RECIPE, &errors->recipe_error, err) : GYRE_OK;
}

// ---- the end ----------------------------------------------------------------------------------------------

// What meets the table: the normalised stream times the final gain, or between the head's two transforms.
static gyre_status head_input(const gyre_summary *s, uint32_t which, float *z, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    const uint32_t width = p->hp.width;
    const float *x = stream(s, which);
    const bool mixed = which == RECIPE && p->online.head_mix, rotated = which == RECIPE && (p->online.head.n || mixed),
               ones = which == RECIPE && p->fold_head;
    for (uint32_t r = 0; r < s->n; r++) {
        double square = 0;
        for (uint32_t i = 0; i < width; i++) square += (double)x[r * width + i] * x[r * width + i];
        const double scale = 1 / sqrt(square / width + (double)p->hp.stream_eps) / (double)p->hp.logit_divisor;
        for (uint32_t i = 0; i < width; i++)
            s->wide[r * width + i] = x[r * width + i] * scale * (ones || rotated ? 1 : (double)p->final_gain[i]);
    }
    if (mixed) {
        GYRE_TRY(gyre_unrotate_rows(&p->rotator, NULL, s->wide, s->n, err));
        for (uint64_t i = 0; i < (uint64_t)s->n * width; i++) s->wide[i] *= p->final_gain[i % width];
        GYRE_TRY(gyre_rotate_rows(&p->rotator, NULL, s->wide, s->n, err));
    } else if (rotated) {
        GYRE_TRY(gyre_hadamard_apply(&p->online.head, s->wide, width, 1, s->n, width, NULL, true, err));
        for (uint64_t i = 0; i < (uint64_t)s->n * width; i++) s->wide[i] *= p->final_gain[i % width];
        GYRE_TRY(gyre_hadamard_apply(&p->online.head, s->wide, width, 1, s->n, width, NULL, false, err));
    }
    for (uint64_t i = 0; i < (uint64_t)s->n * width; i++) z[i] = (float)s->wide[i];
    return GYRE_OK;
}

gyre_status gyre_summary_end(gyre_summary *s, const struct gyre_output *out, double *rtn_kl, double *recipe_kl,
                             gyre_error *err)
{
    const struct gyre_hparams *hp = &s->plan->hp;
    const uint64_t floats = (uint64_t)s->n * hp->width;
    struct gyre_file_map *maps = NULL;
    struct gyre_summary_head head[STREAMS];
    struct table table[STREAMS];
    double kl[STREAMS] = {0};
    gyre_status st = GYRE_OK;
    float *z = malloc(STREAMS * floats * sizeof *z);
    if (!z) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    GYRE_GO(gyre_output_map(out, &maps, err));
    for (uint32_t w = 0; w < n_streams(s); w++) {
        GYRE_GO(head_input(s, w, z + w * floats, err));
        GYRE_GO(table_of(s, w, out, maps, true, &table[w], err));
        head[w] = (struct gyre_summary_head){z + w * floats, table_rows, &table[w]};
    }
    GYRE_GO(gyre_summary_divergence(head, n_streams(s), s->n, hp->width, hp->vocab, kl, err));
    *rtn_kl = kl[0];
    *recipe_kl = n_streams(s) == STREAMS ? kl[1] : kl[0];
done:
    free(z);
    gyre_output_unmap(out, maps);
    return st;
}
