// See summary.h. The head is summary_head.c's.
#include "quantizer/pass/summary.h"
#include "backends/backend.h"
#include "quantizer/pass/host_block.h"
#include "quantizer/pass/divergence.h"
#include "quantizer/pass/summary_text.h"
#include "runtime/core/codec.h"
#include "runtime/model/block.h"
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
    gyre_device *device;        // NULL: the host
    gyre_block *block[STREAMS]; // on the device; RECIPE: NULL where the recipe is plain rounding
    gyre_host_block *host[STREAMS];
    struct gyre_block_options options[STREAMS];
    uint32_t *token, n;
    struct header *streams; // followed by float[STREAMS][n][width]
    uint64_t streams_bytes;
    float *after;  // [n][width]
    double *wide;  // [n][width]
    float *tap[2]; // [n][widest tap]; NULL until taps are asked for
};

static uint32_t n_streams(const gyre_summary *s) { return gyre_layer_has_plain(s->plan) ? STREAMS : RECIPE; }

static float *stream(const gyre_summary *s, uint32_t which)
{
    return (float *)(s->streams + 1) + (uint64_t)which * s->n * s->plan->hp.width;
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
    if (n == 0) st = gyre_fail(err, GYRE_E_FORMAT, "no summary: the text has no tokens");
    for (uint64_t i = 0; i < s->n && st == GYRE_OK; i++)
        if (s->token[i] >= s->plan->hp.vocab)
            st = gyre_fail(err, GYRE_E_FORMAT, "no summary: the tokenizer gives token %u of %u", s->token[i],
                           s->plan->hp.vocab);
done:
    gyre_tokenizer_destroy(tokenizer);
    return st;
}

static gyre_status make_blocks(gyre_summary *s, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    struct gyre_hparams plain = p->hp, recipe = gyre_plan_output_hparams(p);
    plain.rot = (struct gyre_rotations){0};
    const struct gyre_tensor *t = gyre_role_tensor(p->source, GYRE_ROLE_rope_freqs, 0, "weight", NULL);
    float divisor[GYRE_MAX_HEAD_DIM / 2];
    if (t) gyre_tensor_rows_f32(t, 0, 1, divisor);
    for (uint32_t w = 0; w < n_streams(s); w++) {
        const struct gyre_hparams *hp = w == RECIPE ? &recipe : &plain;
        const bool last = w + 1 == n_streams(s); // the recipe's
        struct gyre_block_options o = {.act_bits = w == FLOAT ? 16 : p->set.act,
                                       .kv_bits = w == FLOAT ? 16 : p->set.kv,
                                       .max_rows = s->n,
                                       .act_clip = last ? p->choice.act_clip : 1,
                                       .kv_clip = last ? p->choice.kv_clip : 1,
                                       .rope_divisors = t ? divisor : NULL};
        if (s->device) GYRE_TRY(gyre_block_create(s->device, hp, &o, &s->block[w], err));
        else GYRE_TRY(gyre_host_block_create(hp, &o, &s->host[w], err));
        o.rope_divisors = NULL; // read at creation only
        s->options[w] = o;
    }
    return GYRE_OK;
}

// The device that was named; else the best GPU; else none: a software GPU would take longer than the quantizing itself.
static gyre_status open_device(const gyre_quantize_params *params, gyre_device **out, gyre_error *err)
{
    struct gyre_device_info info;
    const struct gyre_device_options options = {.log = &params->log};
    *out = NULL;
    if (params->device) return gyre_device_open(params->device, &options, out, err);
    if (gyre_devices_list(&info, 1, NULL, 0, NULL) < 1 || info.software) return GYRE_OK;
    if (gyre_device_open(info.id, &options, out, NULL) != GYRE_OK) *out = NULL;
    return GYRE_OK;
}

static gyre_status allocate(gyre_summary *s, gyre_error *err)
{
    const uint64_t floats = (uint64_t)s->n * s->plan->hp.width;
    s->streams_bytes = sizeof *s->streams + STREAMS * floats * sizeof(float);
    s->streams = calloc(1, s->streams_bytes);
    s->after = malloc(floats * sizeof *s->after);
    s->wide = malloc(floats * sizeof *s->wide);
    if (!s->streams || !s->after || !s->wide) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    struct identity *id = &s->streams->identity;
    gyre_sha256_of(s->token, s->n * sizeof *s->token, id->sha256);
    id->tokens = s->n;
    id->width = s->plan->hp.width;
    return GYRE_OK;
}

gyre_status gyre_summary_open(const gyre_quantize_params *params, const struct gyre_plan *plan, gyre_summary **out,
                              gyre_error *err)
{
    gyre_error why = {0};
    gyre_summary *s = *out = calloc(1, sizeof *s);
    if (!s) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    s->plan = plan;
    s->log = &params->log;
    gyre_status st = read_tokens(s, &why);
    const bool unreadable = st != GYRE_OK; // a model without a tokenizer can be quantized all the same
    if (st == GYRE_OK) st = open_device(params, &s->device, &why);
    if (st == GYRE_OK) st = allocate(s, &why);
    if (st == GYRE_OK) st = make_blocks(s, &why);
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
    for (int i = 0; i < STREAMS; i++) {
        gyre_block_destroy(s->block[i]);
        gyre_host_block_destroy(s->host[i]);
    }
    gyre_device_close(s->device);
    free(s->token);
    free(s->streams);
    free(s->after);
    free(s->wide);
    free(s->tap[0]);
    free(s->tap[1]);
    free(s);
}

const void *gyre_summary_streams(const gyre_summary *s, uint64_t *bytes)
{
    *bytes = s->streams_bytes;
    return s->streams;
}

// A map from a file is drawn by its own numbers: they must be those of this run.
static bool sized(const gyre_summary *s, const struct gyre_heat_map *m, uint32_t tap)
{
    const uint64_t width = gyre_product_width((gyre_product)tap, &s->plan->hp);
    return m->tokens == s->n && m->channels == width && m->rows == GYRE_MIN(m->tokens, (uint64_t)GYRE_HEAT_SIDE) &&
           m->cols == GYRE_MIN(width, (uint64_t)GYRE_HEAT_SIDE);
}

bool gyre_summary_restore(gyre_summary *s, const void *data, uint64_t bytes)
{
    if (bytes != s->streams_bytes || memcmp(data, &s->streams->identity, sizeof s->streams->identity)) return false;
    memcpy(s->streams, data, bytes);
    struct gyre_summary_heat *h = &s->streams->heat;
    if (h->worst != 0 &&
        !(h->worst > 0 && h->tap < GYRE_PRODUCTS && sized(s, &h->before, h->tap) && sized(s, &h->after, h->tap)))
        *h = (struct gyre_summary_heat){0}; // no picture rather than one of another model
    return true;
}

// ---- tables -----------------------------------------------------------------------------------------------

// Rows of a table as one stream sees them; `round` where the source's floats would be stored as another type.
struct table {
    struct gyre_tensor tensor;
    bool round;
    gyre_dtype type;
};

static void table_rows(const void *user, uint64_t first, uint64_t n, float *out)
{
    const struct table *t = user;
    const uint64_t cols = t->tensor.cols;
#pragma omp parallel for schedule(static) if (n * cols > 1 << 16)
    for (int64_t i = 0; i < (int64_t)n; i++) {
        float *row = out + (uint64_t)i * cols;
        gyre_tensor_rows_f32(&t->tensor, first + (uint64_t)i, 1, row);
        if (!t->round) continue;
        unsigned char *blocks = malloc(cols * sizeof(float));
        if (!blocks) continue; // unrounded: the figure moves by less than its last digit
        gyre_quantize_q8_0(row, cols, blocks);
        gyre_decode_row(GYRE_DTYPE_Q8_0, blocks, cols, row);
        free(blocks);
    }
}

// The table `name` of a stream: the source's, or what OUT.part (mapped) holds.
static struct table table_of(const gyre_summary *s, uint32_t which, const struct gyre_file_map *part, bool head)
{
    const struct gyre_plan *p = s->plan;
    const gyre_role role =
        head && (which == RECIPE ? p->write_head : !p->hp.tied) ? GYRE_ROLE_head : GYRE_ROLE_embedding;
    char name[GYRE_ROLE_NAME];
    gyre_role_name(role, 0, "weight", name);
    if (which != RECIPE) {
        const struct gyre_tensor *t = gyre_role_tensor(p->source, role, 0, "weight", NULL);
        return (struct table){*t, which == PLAIN && p->table_type == GYRE_DTYPE_Q8_0 && t->type != GYRE_DTYPE_Q8_0,
                              p->table_type};
    }
    struct table out = {0};
    for (uint64_t i = 0; i < p->globals; i++) {
        const struct gyre_gguf_tensor *t = &p->gguf.tensors[i];
        if (!strcmp(t->name, name))
            out.tensor = (struct gyre_tensor){.name = t->name,
                                              .type = t->type,
                                              .n_dims = 2,
                                              .dims = {t->dims[0], t->dims[1]},
                                              .rows = t->dims[0],
                                              .cols = t->dims[1],
                                              .data = part->data + t->offset,
                                              .bytes = t->bytes};
    }
    return out;
}

gyre_status gyre_summary_begin(gyre_summary *s, const struct gyre_output *out, gyre_error *err)
{
    struct gyre_file_map part;
    GYRE_TRY(gyre_file_map(out->part, &part, err));
    for (uint32_t w = 0; w < n_streams(s); w++) {
        const struct table t = table_of(s, w, &part, false);
        for (uint32_t i = 0; i < s->n; i++)
            table_rows(&t, s->token[i], 1, stream(s, w) + (uint64_t)i * s->plan->hp.width);
    }
    gyre_file_unmap(&part);
    return GYRE_OK;
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

static gyre_status allocate_taps(gyre_summary *s, gyre_error *err)
{
    uint64_t widest = 0;
    for (int t = 0; t < GYRE_PRODUCTS; t++)
        widest = GYRE_MAX(widest, (uint64_t)gyre_product_width((gyre_product)t, &s->plan->hp));
    for (int i = 0; i < 2 && !s->tap[i]; i++)
        if (!(s->tap[i] = malloc(s->n * widest * sizeof(float))))
            return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the statistics of activations");
    return GYRE_OK;
}

// x is what stream `which` reads at `tap`. The float stream comes first and says where outliers are worst.
static gyre_status look(gyre_summary *s, uint32_t layer, uint32_t which, uint32_t tap, const float *x,
                        struct gyre_report_tap taps[GYRE_PRODUCTS], gyre_error *err)
{
    const uint32_t width = gyre_product_width((gyre_product)tap, &s->plan->hp);
    struct gyre_summary_heat *heat = &s->streams->heat;
    struct gyre_tap_stats *stats = which == FLOAT ? &taps[tap].before : &taps[tap].after;
    GYRE_TRY(gyre_tap_measure(x, s->n, width, stats, err));
    if (which == FLOAT && stats->max_rms_median > heat->worst) {
        heat->worst = stats->max_rms_median;
        heat->layer = layer;
        heat->tap = tap;
        gyre_heat_begin(&heat->before, s->n, width);
        gyre_heat_begin(&heat->after, s->n, width);
        gyre_heat_add(&heat->before, 0, s->n, x);
    }
    if (which != FLOAT && heat->worst > 0 && heat->layer == layer && heat->tap == tap)
        gyre_heat_add(&heat->after, 0, s->n, x);
    return GYRE_OK;
}

const struct gyre_summary_heat *gyre_summary_heat(const gyre_summary *s)
{
    const struct gyre_summary_heat *heat = &s->streams->heat;
    return heat->worst > 0 && heat->blocks == s->plan->hp.n_layers ? heat : NULL;
}

// gyre_host_block_run with a look at every tap.
static gyre_status run_looking(gyre_summary *s, uint32_t layer, uint32_t which,
                               const struct gyre_block_weights *weights, struct gyre_report_tap taps[GYRE_PRODUCTS],
                               gyre_error *err)
{
    const struct gyre_block_options *o = &s->options[which];
    const float *in = NULL;
    for (uint32_t part = 0; part <= GYRE_PRODUCTS; part++) {
        float *out = s->tap[part % 2];
        GYRE_TRY(gyre_host_block_part(s->host[which], weights, part, stream(s, which), in, s->n, s->n, out, err));
        if (part == GYRE_PRODUCTS) break;
        GYRE_TRY(look(s, layer, which, part, out, taps, err));
        gyre_quantize_rows(out, s->n, gyre_product_width((gyre_product)part, &s->plan->hp), o->act_bits, o->act_clip);
        in = out;
    }
    return GYRE_OK;
}

static gyre_status run_on_device(gyre_summary *s, uint32_t layer, uint32_t which,
                                 const struct gyre_block_weights *weights, struct gyre_report_tap *taps,
                                 gyre_error *err)
{
    GYRE_TRY(gyre_block_load(s->block[which], weights, err));
    for (uint32_t tap = 0; taps && tap < GYRE_PRODUCTS; tap++) {
        GYRE_TRY(gyre_block_tap(s->block[which], stream(s, which), s->n, (gyre_product)tap, s->tap[0], err));
        GYRE_TRY(look(s, layer, which, tap, s->tap[0], taps, err));
    }
    GYRE_TRY(gyre_block_run(s->block[which], stream(s, which), s->n, s->after, err));
    memcpy(stream(s, which), s->after, (uint64_t)s->n * s->plan->hp.width * sizeof *s->after);
    return GYRE_OK;
}

gyre_status gyre_summary_block(gyre_summary *s, const struct gyre_layer *layer, gyre_quantize_layer *errors,
                               struct gyre_report_tap taps[GYRE_PRODUCTS], gyre_error *err)
{
    if (taps) GYRE_TRY(allocate_taps(s, err));
    for (uint32_t w = 0; w < n_streams(s); w++) {
        const struct gyre_block_weights weights = weights_of(s, layer, w);
        struct gyre_report_tap *seen = w == FLOAT || w + 1 == n_streams(s) ? taps : NULL;
        if (s->device) GYRE_TRY(run_on_device(s, layer->index, w, &weights, seen, err));
        else if (seen) GYRE_TRY(run_looking(s, layer->index, w, &weights, seen, err));
        else GYRE_TRY(gyre_host_block_run(s->host[w], &weights, stream(s, w), s->n, err));
    }
    if (taps && s->streams->heat.blocks == layer->index) s->streams->heat.blocks++;
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
    const bool rotated = which == RECIPE && p->online.head.n, ones = which == RECIPE && p->fold_head;
    for (uint32_t r = 0; r < s->n; r++) {
        double square = 0;
        for (uint32_t i = 0; i < width; i++) square += (double)x[r * width + i] * x[r * width + i];
        const double scale = 1 / sqrt(square / width + (double)p->hp.norm_eps);
        for (uint32_t i = 0; i < width; i++)
            s->wide[r * width + i] = x[r * width + i] * scale * (ones || rotated ? 1 : (double)p->final_gain[i]);
    }
    if (rotated) {
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
    struct gyre_file_map part = {0};
    struct gyre_summary_head head[STREAMS];
    struct table table[STREAMS];
    double kl[STREAMS] = {0};
    gyre_status st = GYRE_OK;
    float *z = malloc(STREAMS * floats * sizeof *z);
    if (!z) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    GYRE_GO(gyre_file_map(out->part, &part, err));
    for (uint32_t w = 0; w < n_streams(s); w++) {
        GYRE_GO(head_input(s, w, z + w * floats, err));
        table[w] = table_of(s, w, &part, true);
        head[w] = (struct gyre_summary_head){z + w * floats, table_rows, &table[w]};
    }
    GYRE_GO(gyre_summary_divergence(head, n_streams(s), s->n, hp->width, hp->vocab, kl, err));
    *rtn_kl = kl[0];
    *recipe_kl = n_streams(s) == STREAMS ? kl[1] : kl[0];
done:
    free(z);
    gyre_file_unmap(&part);
    return st;
}
