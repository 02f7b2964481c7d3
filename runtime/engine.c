// Opening and closing an engine: device, model, tokenizer, KV cache and the buffers that steps update.
#include "runtime/engine.h"

#include "backends/faults.h"
#include "runtime/model/synthetic.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The reference device may also keep the cache in f32: what is left then between two forms of a model is not the cache.
static bool kv_ok(uint32_t keys, uint32_t values, const char *device)
{
    return (gyre_is_width(keys) && gyre_is_width(values)) || (keys == 32 && values == 32 && strcmp(device, "cpu") == 0);
}

struct gyre_precision gyre_engine_precision(const gyre_engine_params *p, const struct gyre_hparams *hp)
{
    struct gyre_precision out = gyre_made_for(hp);
    if (p->act) out.act = p->act;
    if (p->kv) out.kv = out.kv_v = p->kv;
    if (p->kv_v) out.kv_v = p->kv_v;
    return out;
}

// The folder asked for; by default $XDG_CACHE_HOME/gyre or ~/.cache/gyre. NULL when none is wanted.
static const char *cache_path(const char *asked, char *out, size_t cap)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (asked) n = *asked ? snprintf(out, cap, "%s", asked) : -1;
    else if (base && *base) n = snprintf(out, cap, "%s/gyre", base);
    else if (home && *home) n = snprintf(out, cap, "%s/.cache/gyre", home);
    return n > 0 && (size_t)n < cap ? out : NULL;
}

static const char *cache_dir(const char *asked, char *out, size_t cap)
{
    return cache_path(asked, out, cap) && gyre_make_dirs(out, NULL) == GYRE_OK ? out : NULL;
}

struct load_progress {
    const gyre_engine_params *params;
};

static int on_load(void *user, double fraction)
{
    const struct load_progress *p = user;
    return p->params->progress ? p->params->progress(p->params->user, fraction, "loading") : 0;
}

static gyre_status binding(gyre_engine *e, uint64_t bytes, const char *label, struct gyre_binding *out, gyre_error *err)
{
    *out = (struct gyre_binding){.size = gyre_round_up(bytes, 4)};
    return gyre_buffer_create(e->device, out->size, label, &out->buffer, err);
}

// At least one for each sequence, beyond that no more than one binding of the device holds and a step has rows.
static uint32_t logit_rows(const gyre_engine *e, uint32_t asked)
{
    const uint64_t row = (uint64_t)e->model.hp.vocab * sizeof(float),
                   hold = gyre_device_info(e->device)->max_binding / row;
    const uint32_t most = GYRE_MIN(asked, e->max_rows);
    return GYRE_MAX(e->sequences, (uint32_t)GYRE_MIN(most, hold));
}

static gyre_status step_buffers(gyre_engine *e, gyre_error *err)
{
    const uint64_t logits = (uint64_t)e->logit_rows * e->model.hp.vocab * sizeof(float);
    e->row_data = calloc(e->max_rows, 16);
    e->state_data = calloc(e->logit_rows, 16);
    e->sequence_used = calloc(e->sequences, sizeof *e->sequence_used);
    e->live = calloc(e->sequences, sizeof *e->live);
    e->logits_of = calloc(e->logit_rows, sizeof *e->logits_of);
    if (!e->row_data || !e->state_data || !e->sequence_used || !e->live || !e->logits_of)
        return gyre_fail(err, GYRE_E_NOMEM, "cannot open engine: out of memory");
    if (logits > gyre_device_info(e->device)->max_binding) {
        return gyre_fail(err, GYRE_E_DEVICE_MEM,
                         "cannot open engine (%s): the logits of %u rows exceed one binding; use fewer sequences",
                         gyre_device_info(e->device)->id, e->logit_rows);
    }
    GYRE_TRY(binding(e, (uint64_t)e->max_rows * 16, "rows", &e->rows, err));
    GYRE_TRY(binding(e, (uint64_t)e->logit_rows * 16, "sampling state", &e->state, err));
    GYRE_TRY(binding(e, (uint64_t)e->logit_rows * GYRE_HISTORY * 4, "history", &e->history, err));
    GYRE_TRY(binding(e, logits, "logits", &e->logits, err));
    GYRE_TRY(binding(e, (uint64_t)e->logit_rows * GYRE_MAX_TOP_K * 4, "best logits", &e->best_vals, err));
    GYRE_TRY(binding(e, (uint64_t)e->logit_rows * GYRE_MAX_TOP_K * 4, "best tokens", &e->best_ids, err));
    GYRE_TRY(binding(e, (uint64_t)e->logit_rows * 4, "sums", &e->mass, err));
    GYRE_TRY(gyre_buffer_write(e->device, e->rows.buffer, 0, e->row_data, e->rows.size, err)); // no live row anywhere
    return gyre_buffer_write(e->device, e->state.buffer, 0, e->state_data, (uint64_t)e->logit_rows * 16, err);
}

// The context asked for, or of a model of `own` the usual one.
static gyre_status choose_context(const char *path, const gyre_engine_params *p, uint32_t own, gyre_engine *e,
                                  gyre_error *err)
{
    e->context = p->context ? p->context : GYRE_MIN(own, (uint32_t)GYRE_DEFAULT_CONTEXT);
    if (p->context <= own) return GYRE_OK;
    return gyre_fail(
        err, GYRE_E_INVALID,
        "cannot open engine (%s): a context of %u tokens was asked for and the model's is %u; ask for less", path,
        p->context, own);
}

// A model from its file, with the tokenizer that stands there.
static gyre_status load(const char *path, const gyre_engine_params *p, gyre_engine *e, gyre_error *err)
{
    if (p->weights && p->weights != 16 && p->weights != 8)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot open engine (%s): weights that would run as floats have 16 or 8 bits, not %u", path,
                         p->weights);
    GYRE_TRY(gyre_model_open(path, &e->source, err));
    if (gyre_source_note(e->source))
        gyre_logf(&e->log, GYRE_LOG_WARN, "model: %s: %s", path, gyre_source_note(e->source));
    // Whose model it is comes first: what is amiss with the tokenizer of an unknown architecture is of no use.
    struct gyre_hparams known;
    GYRE_TRY(gyre_hparams_read(e->source, &known, err));
    const uint32_t own = known.context;
    gyre_hparams_free(&known);
    if (!e->planned) GYRE_TRY(gyre_tokenizer_create(e->source, p->pre, &e->log, &e->tokenizer, err));
    GYRE_TRY(choose_context(path, p, own, e, err));
    struct load_progress progress = {p};
    const struct gyre_loading how = {.weight_bits = p->weights == 8 ? 8 : 0,
                                     .layout = e->planned,
                                     .no_table = p->host_table,
                                     .context = e->context,
                                     .progress = on_load,
                                     .user = &progress};
    GYRE_TRY(gyre_model_load(e->device, e->source, &how, &e->model, err));
    return gyre_source_unchanged(e->source, err);
}

enum { TUNE_NS = 2000000000 };

// A device that computes nothing has nothing to measure.
static gyre_status start_tuning(gyre_engine *e, gyre_tuning how, gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(e->device);
    if (how > GYRE_TUNE_FORCE)
        return gyre_fail(err, GYRE_E_INVALID, "cannot open engine: there is no kind %u of tuning", (unsigned)how);
    e->tunes = how != GYRE_TUNE_OFF && how != GYRE_TUNE_DEFAULT && strncmp(info->id, "null", 4) != 0;
    e->tuner.log = &e->log;
    e->tuner.left_ns = TUNE_NS;
    e->tuner.force = how == GYRE_TUNE_FORCE;
    if (e->first) e->tuner.cache_dir = e->first->tuner.cache_dir;
    return GYRE_OK;
}

// What an engine has beside its model, which is loaded: cache and step buffers. `path`: the model's, for messages.
static gyre_status furnish(const char *path, const gyre_engine_params *p, gyre_engine *e, gyre_error *err)
{
    const struct gyre_hparams *hp = &e->model.hp;
    const struct gyre_device_info *info = gyre_device_info(e->device);
    e->precision = gyre_engine_precision(p, hp);
    const struct gyre_precision *precision = &e->precision;
    if (!gyre_is_width(precision->act) || !kv_ok(precision->kv, precision->kv_v, info->id))
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot open engine (%s): activations, keys and values have 16, 8 or 4 bits each, not %u, %u "
                         "and %u",
                         path, precision->act, precision->kv, precision->kv_v);
    e->sequences = p->sequences ? p->sequences : 1;
    e->max_rows = gyre_engine_max_rows(p);
    e->logit_rows = logit_rows(e, p->logit_rows);
    GYRE_TRY(gyre_kv_create(e->device, hp, precision, e->sequences, e->context, e->max_rows, &e->kv, err));
    GYRE_TRY(step_buffers(e, err));
    e->most_ahead = p->ahead;
    GYRE_TRY(start_tuning(e, p->tune, err));
    if (p->host_table) GYRE_TRY(gyre_engine_keep_table(e, err));
    gyre_logf(&e->log, GYRE_LOG_INFO,
              "engine: %s on %s (%s), act %u, kv %u/%u, context %u, weights %.1f MiB, kv %.1f MiB", hp->arch, info->id,
              info->name, precision->act, precision->kv, precision->kv_v, e->context,
              (double)e->model.weight_bytes / 1048576.0, (double)e->kv.bytes / 1048576.0);
    if (e->model.rounding.rounded)
        gyre_logf(&e->log, GYRE_LOG_INFO,
                  "engine: %u matrices run as int8 in groups of 32, with a relative error of %.2g",
                  e->model.rounding.rounded, gyre_load_rounding_error(&e->model.rounding));
    return GYRE_OK;
}

static gyre_status open_on(gyre_device *device, const char *path, const gyre_engine_params *p, gyre_engine *e,
                           gyre_error *err)
{
    e->device = device;
    e->log = p->log;
    GYRE_TRY(load(path, p, e, err));
    return furnish(path, p, e, err);
}

static gyre_status open_shape_on(gyre_device *device, const char *shape, uint32_t wgroup, const gyre_engine_params *p,
                                 gyre_engine *e, gyre_error *err)
{
    struct gyre_hparams hp;
    struct load_progress progress = {p};
    e->device = device;
    e->log = p->log;
    if (p->shape_head != 0 && p->shape_head != 4 && p->shape_head != 8)
        return gyre_fail(err, GYRE_E_INVALID, "cannot open shape (%s): its head has 4 or 8 bits, not %u", shape,
                         p->shape_head);
    GYRE_TRY(gyre_shape_hparams(shape, wgroup, &hp, err));
    const uint32_t own = hp.context;
    const struct gyre_synthetic how = {
        .head4 = p->shape_head == 4, .no_table = p->host_table, .progress = on_load, .user = &progress};
    GYRE_TRY(gyre_model_synthetic(device, &hp, &how, &e->model, err));
    GYRE_TRY(choose_context(shape, p, own, e, err));
    return furnish(shape, p, e, err);
}

// `shape`: path names a shape, not a file. `planned`: on the device that only records, with memory for a file's weights
// and nothing in it.
static gyre_status open_engine(const char *path, bool shape, bool planned, uint32_t wgroup,
                               const gyre_engine_params *given, gyre_engine **out, gyre_error *err)
{
    gyre_engine_params taken;
    GYRE_TRY(gyre_params_take(given, &taken, sizeof taken, GYRE_ENGINE_PARAMS_FIRST, "gyre_engine_params", err));
    if (planned) taken.device = "null:0", taken.log = (gyre_log){0};
    const gyre_engine_params *const params = &taken;
    *out = NULL;
    if (!path) return gyre_fail(err, GYRE_E_INVALID, "cannot open engine: no model is named");
    gyre_engine *e = calloc(1, sizeof *e);
    if (!e) return gyre_fail(err, GYRE_E_NOMEM, "cannot open engine: out of memory");
    e->log = params->log;
    e->planned = planned;
    const struct gyre_device_options options = {
        .log = &e->log,
        .cache_dir = cache_dir(params->cache_dir, e->cache_dir, sizeof e->cache_dir),
        .validate = params->validate,
        .limit_binding = params->limit_binding,
        .limit_buffer = params->limit_buffer,
        .as_hardware = params->as_hardware,
    };
    gyre_device *device = NULL;
    e->tuner.cache_dir = options.cache_dir;
    gyre_status st = gyre_device_open(params->device, &options, &device, err);
    if (st == GYRE_OK)
        st = shape ? open_shape_on(device, path, wgroup, params, e, err) : open_on(device, path, params, e, err);
    if (st != GYRE_OK) {
        (void)gyre_engine_close(e, NULL);
        return st;
    }
    *out = e;
    return GYRE_OK;
}

gyre_status gyre_engine_open(const char *model_path, const gyre_engine_params *params, gyre_engine **out,
                             gyre_error *err)
{
    return open_engine(model_path, false, false, 0, params, out, err);
}

gyre_status gyre_engine_open_shape(const char *shape, uint32_t wgroup, const gyre_engine_params *params,
                                   gyre_engine **out, gyre_error *err)
{
    return open_engine(shape, true, false, wgroup, params, out, err);
}

gyre_status gyre_engine_open_planned(const char *name, bool shape, uint32_t wgroup, const gyre_engine_params *params,
                                     gyre_engine **out, gyre_error *err)
{
    return open_engine(name, shape, true, wgroup, params, out, err);
}

gyre_status gyre_engine_open_beside(gyre_engine *first, const char *model_path, const gyre_engine_params *given,
                                    gyre_engine **out, gyre_error *err)
{
    gyre_engine_params taken;
    GYRE_TRY(gyre_params_take(given, &taken, sizeof taken, GYRE_ENGINE_PARAMS_FIRST, "gyre_engine_params", err));
    const gyre_engine_params *const params = &taken;
    *out = NULL;
    if (!first || !model_path)
        return gyre_fail(err, GYRE_E_INVALID, "cannot open engine: no %s is named", first ? "model" : "first engine");
    gyre_engine *e = calloc(1, sizeof *e);
    if (!e) return gyre_fail(err, GYRE_E_NOMEM, "cannot open engine: out of memory");
    e->first = first;
    first->n_beside++;
    const gyre_status st = open_on(first->device, model_path, params, e, err);
    if (st != GYRE_OK) {
        (void)gyre_engine_close(e, NULL);
        return st;
    }
    *out = e;
    return GYRE_OK;
}

// Names what is still open on an engine. GYRE_OK where nothing is.
static gyre_status childless(const gyre_engine *e, gyre_error *err)
{
    char names[320] = "";
    size_t at = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; e->live && i < e->sequences; i++) {
        if (!e->live[i]) continue;
        if (n++ < 4) // "session 0 (12 tokens), session 2 (7 tokens)"
            at += (size_t)snprintf(names + at, sizeof names - at, "%ssession %u (%zu tokens)", n > 1 ? ", " : "", i,
                                   (size_t)*e->live[i]);
    }
    if (n > 4) at += (size_t)snprintf(names + at, sizeof names - at, " and %u more", n - 4);
    if (e->n_beside)
        snprintf(names + at, sizeof names - at, "%s%u engine%s beside it", n ? ", " : "", e->n_beside,
                 e->n_beside > 1 ? "s" : "");
    if (!n && !e->n_beside) return GYRE_OK;
    return gyre_fail(err, GYRE_E_INVALID, "cannot close engine (%s): still open: %s; close these first",
                     gyre_device_info(e->device)->id, names);
}

gyre_status gyre_engine_close(gyre_engine *e, gyre_error *err)
{
    if (!e) return GYRE_OK;
    GYRE_TRY(childless(e, err));
    if (e->device) {
        for (uint32_t i = 0; i < e->n_steps; i++) gyre_graph_destroy(e->steps[i].graph);
        gyre_scratch_free(&e->scratch, e->device);
        gyre_buffer_destroy(e->device, e->rows.buffer);
        gyre_buffer_destroy(e->device, e->state.buffer);
        gyre_buffer_destroy(e->device, e->history.buffer);
        gyre_buffer_destroy(e->device, e->logits.buffer);
        gyre_buffer_destroy(e->device, e->best_vals.buffer);
        gyre_buffer_destroy(e->device, e->best_ids.buffer);
        gyre_buffer_destroy(e->device, e->mass.buffer);
        gyre_buffer_destroy(e->device, e->embedded.buffer);
        if (e->kv.device) gyre_kv_free(&e->kv);
        if (e->model.device) gyre_model_free(&e->model);
        if (!e->first) gyre_device_close(e->device);
    }
    if (e->first) e->first->n_beside--;
    gyre_tokenizer_destroy(e->tokenizer);
    gyre_source_close(e->source);
    free(e->steps);
    free(e->row_data);
    free(e->embedded_data);
    free(e->state_data);
    free(e->sequence_used);
    free(e->live);
    free(e->logits_of);
    gyre_tuner_free(&e->tuner);
    free(e);
    return GYRE_OK;
}

void gyre_engine_describe(const gyre_engine *e, gyre_engine_info *out)
{
    const struct gyre_hparams *hp = &e->model.hp;
    const struct gyre_device_info *info = gyre_device_info(e->device);
    *out = (gyre_engine_info){
        .act = e->precision.act,
        .kv = e->precision.kv,
        .kv_v = e->precision.kv_v,
        .context = e->context,
        .vocab = hp->vocab,
        .layers = hp->n_layers,
        .width = hp->width,
        .heads = hp->heads,
        .kv_heads = hp->kv_heads,
        .head_dim = hp->head_dim,
        .ffn = hp->ffn,
        .wgroup = hp->wgroup,
        .weight_bytes = e->model.weight_bytes,
        .kv_bytes = e->kv.bytes,
        .r3 = hp->rot.r3,
        .r4 = hp->rot.r4.n != 0,
        .head_rotation = hp->rot.head.n != 0 || hp->rot.head_mix,
    };
    snprintf(out->device, sizeof out->device, "%s", info->id);
    snprintf(out->device_name, sizeof out->device_name, "%s", info->name);
    snprintf(out->arch, sizeof out->arch, "%s", hp->arch);
    // An untied model reads one row of its table per token; a tied one reads it all, as the head.
    out->weight_bytes_per_token = e->model.weight_bytes - (hp->tied ? 0 : gyre_weight_bytes(&e->model.table));
}

gyre_status gyre_sequence_take(gyre_engine *e, const uint32_t *length, uint32_t *slot, gyre_error *err)
{
    for (uint32_t i = 0; i < e->sequences; i++) {
        if (e->sequence_used[i]) continue;
        e->sequence_used[i] = true;
        e->live[i] = length;
        *slot = i;
        return GYRE_OK;
    }
    return gyre_fail(err, GYRE_E_INVALID,
                     "cannot start a session: all %u sequences of the engine are in use; open it with more",
                     e->sequences);
}

void gyre_sequence_release(gyre_engine *e, uint32_t slot)
{
    gyre_kv_trim(&e->kv, slot, 0);
    gyre_engine_forget_logits(e, slot);
    e->sequence_used[slot] = false;
    e->live[slot] = NULL;
}

gyre_engine_counters gyre_engine_count(const gyre_engine *e)
{
    const struct gyre_device_counters c = gyre_device_counters(e->device);
    return (gyre_engine_counters){c.recordings, c.submissions + c.copies, c.dispatches, c.buffers, e->host_allocations};
}

int gyre_list_devices(gyre_device_facts *out, int cap, gyre_device_missing *missing, int cap_missing, int *n_missing)
{
    enum { MOST = 32 };
    struct gyre_device_info info[MOST];
    struct gyre_absent absent[MOST];
    int n_absent = 0;
    const int n = gyre_devices_list(info, MOST, absent, MOST, &n_absent);
    static const char *const dot[] = {"none", "emulated", "accelerated"};
    for (int i = 0; out && i < GYRE_MIN(GYRE_MIN(n, MOST), cap); i++) {
        gyre_device_facts *f = &out[i];
        *f = (gyre_device_facts){.software = info[i].software,
                                 .f16 = info[i].f16,
                                 .memory_bytes = info[i].memory_bytes,
                                 .int8_dot = dot[info[i].int_dot]};
        memcpy(f->id, info[i].id, sizeof f->id);
        memcpy(f->name, info[i].name, sizeof f->name);
        memcpy(f->driver, info[i].driver, sizeof f->driver);
        memcpy(f->cooperative_matrix, info[i].cooperative_matrix, sizeof f->cooperative_matrix);
        uint32_t n_sizes = 0;
        for (uint32_t s = info[i].subgroup_min; s && s <= info[i].subgroup_max && n_sizes < 4; s *= 2)
            f->subgroup_sizes[n_sizes++] = s;
    }
    if (n_missing) *n_missing = n_absent;
    for (int i = 0; missing && i < GYRE_MIN(n_absent, cap_missing); i++) {
        snprintf(missing[i].backend, sizeof missing[i].backend, "%.15s", absent[i].backend);
        memcpy(missing[i].why, absent[i].why, sizeof missing[i].why);
    }
    return n;
}

char *gyre_device_faults(const gyre_device_facts *device, const char *dir)
{
    char path[sizeof((gyre_engine *)NULL)->cache_dir];
    return gyre_faults_load(cache_path(dir, path, sizeof path), device->name, device->driver);
}
