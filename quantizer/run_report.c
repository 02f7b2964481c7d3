// See run_report.h.
#include "quantizer/run_report.h"
#include "quantizer/report/note.h"
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"
#include "runtime/util/locale.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, VALUE = 256 };

struct facts {
    struct gyre_report_row row[ROWS];
    char value[ROWS][VALUE];
    uint32_t n;
};

// A report and the memory behind it.
struct sheet {
    struct gyre_report report;
    struct facts setting, rotation, calibration;
    char *recipe_text;
    uint64_t seed[GYRE_MAX_SEEDS];
    double surrogate[GYRE_MAX_SEEDS];
    struct gyre_report_tap *tap;
    struct gyre_report_linear *linear;
    char (*name)[64]; // [n_linears]
};

__attribute__((format(printf, 3, 4))) static void fact(struct facts *to, const char *name, const char *format, ...)
{
    if (to->n == ROWS) return;
    va_list args;
    va_start(args, format);
    vsnprintf(to->value[to->n], VALUE, format, args);
    va_end(args);
    to->row[to->n] = (struct gyre_report_row){name, to->value[to->n]};
    to->n++;
}

// ---- settings -------------------------------------------------------------------------------------------------

static void settings(struct facts *to, const struct gyre_plan *p, const gyre_quantize_summary *s)
{
    const struct gyre_settings *set = &p->set;
    if (set->wbits >= 16) fact(to, "weights", "%u bits, unrounded", set->wbits);
    else if (set->wgroup) fact(to, "weights", "%u bits, groups of %u", set->wbits, set->wgroup);
    else fact(to, "weights", "%u bits, per channel", set->wbits);
    if (set->recipe.n_exceptions && set->wbits < 16)
        fact(to, "other widths", "%u rule%s of the recipe", set->recipe.n_exceptions,
             set->recipe.n_exceptions == 1 ? "" : "s");
    if (set->head4) fact(to, "head", "4 bits, groups of 32");
    fact(to, "activations", "%u bits", set->act);
    for (uint32_t bits = 16; set->taps && bits >= 4; bits /= 2) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < p->hp.n_layers * GYRE_TAPS; i++)
            n += p->hp.kind[i / GYRE_TAPS].act[i % GYRE_TAPS] == bits;
        if (n) fact(to, "activations of single taps", "%u bits at %u of %u", bits, n, p->hp.n_layers * GYRE_TAPS);
    }
    if (p->choice.tap_clip != p->choice.act_clip) fact(to, "clip of these", "%.3g", (double)p->choice.tap_clip);
    if (set->kv == set->kv_v) fact(to, "KV cache", "%u bits", set->kv);
    else fact(to, "KV cache", "keys %u bits, values %u bits", set->kv, set->kv_v);
    if (s->act_clip != 1) fact(to, "clip of activations", "%.3g", s->act_clip);
    if (s->kv_clip != s->kv_clip_v)
        fact(to, "clip of the KV cache", "keys %.3g, values %.3g", s->kv_clip, s->kv_clip_v);
    else if (s->kv_clip != 1) fact(to, "clip of the KV cache", "%.3g", s->kv_clip);
    fact(to, "profile", "%s", set->full ? "full" : "portable");
    fact(to, "seed", "%llu", (unsigned long long)set->seed);
    fact(to, "size", "%.1f MiB of %.1f MiB; %.3f bits a weight in the blocks", (double)s->output_bytes / 1048576,
         (double)s->source_bytes / 1048576, s->bits_per_weight);
}

// "Hadamard, 576 = 12·12·2^2"
static void transform(struct facts *to, const char *name, const struct gyre_hadamard *h)
{
    char factors[64] = "";
    if (!h->n) return;
    for (int i = 0; i < 3; i++)
        if (h->k[i] > 1)
            snprintf(factors + strlen(factors), sizeof factors - strlen(factors), "%s%u", *factors ? "·" : "", h->k[i]);
    if (h->p)
        snprintf(factors + strlen(factors), sizeof factors - strlen(factors), "%s2^%u", *factors ? "·" : "", h->p);
    fact(to, name, "Hadamard, %u = %s", h->n, factors);
}

static void rotations(struct facts *to, const struct gyre_report_run *run)
{
    const struct gyre_plan *p = run->out->plan;
    const gyre_quantize_summary *s = run->summary;
    transform(to, p->rotator.online ? "R1, input of q, k, v and of gate, up, online" : "R1, residual stream, merged",
              &p->rotator.r1);
    transform(to, "R2, values of each head, merged", &p->rotator.r2);
    if (p->online.r3) transform(to, "R3, queries and keys, online", &p->r3);
    transform(to, "R4, input of down, online", &p->online.r4);
    transform(to, "head, online", &p->online.head);
    if (to->n && s->n_seeds > 1)
        fact(to, "signs", "seed %llu, the best of %u", (unsigned long long)s->rotation_seed, s->n_seeds);
    if (run->learned->steps)
        fact(to, "R1 and R2, learned", "%s, step %u of %u: loss %.5g, before %.5g",
             gyre_learn_name(p->set.recipe.learn.method), run->learned->best, run->learned->steps, run->learned->after,
             run->learned->before);
    else if (p->set.learn_auto) fact(to, "learned", "no: auto is none for this model and these widths");
    if (!to->n) fact(to, "rotations", "none");
}

// ---- calibration ----------------------------------------------------------------------------------------------

// The first texts by name, the others by number.
static gyre_status texts(struct facts *to, const gyre_calibration *c, gyre_error *err)
{
    enum { NAMED = 3 };
    json_t *identity = gyre_calib_text_identity(gyre_calibration_windows(c));
    const json_t *list = json_object_get(identity, "texts");
    const size_t n = json_array_size(list);
    char names[NAMED * 64] = "", more[40] = "";
    if (!identity) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
    for (size_t i = 0; i < GYRE_MIN(n, (size_t)NAMED); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "name"));
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%.56s", i ? ", " : "",
                 name && *name ? name : "the bundled text");
    }
    if (n > NAMED) snprintf(more, sizeof more, " and %zu more", n - NAMED);
    fact(to, n > 1 ? "calibration texts" : "calibration text", "%s%s", names, more);
    fact(to, "calibration windows", "%lld of %lld tokens",
         (long long)json_integer_value(json_object_get(identity, "windows")),
         (long long)json_integer_value(json_object_get(identity, "tokens")));
    const json_t *learns = json_object_get(identity, "more_windows");
    if (learns) fact(to, "more windows, to learn on alone", "%lld", (long long)json_integer_value(learns));
    json_decref(identity);
    return GYRE_OK;
}

// What CORRECT chose, on average; the residual's share only where o and down have one.
static void shares(struct facts *to, const struct gyre_output *out)
{
    double sum[2] = {0};
    uint32_t n[2] = {0};
    for (uint32_t l = 0; l < out->plan->hp.n_layers; l++)
        for (int s = 0; s < GYRE_LINEARS; s++) {
            struct gyre_ladder_note note;
            if (!gyre_note_linear(gyre_output_note(out, l + 1), (gyre_role)s, &note)) continue;
            if (isfinite(note.alpha)) sum[0] += note.alpha, n[0]++;
            if (gyre_roles[s].writes == GYRE_ROTATION_R1 && isfinite(note.residual)) sum[1] += note.residual, n[1]++;
        }
    if (n[0]) fact(to, "correct, mean alpha", "%.3g", sum[0] / n[0]);
    if (n[1]) fact(to, "correct, mean residual of o and down", "%.3g", sum[1] / n[1]);
}

static gyre_status calibration(struct facts *to, const struct gyre_report_run *run, gyre_error *err)
{
    const struct gyre_recipe *recipe = &run->out->plan->set.recipe;
    const gyre_quantize_summary *s = run->summary;
    if (!run->calibration) return GYRE_OK;
    GYRE_TRY(texts(to, run->calibration, err));
    if (s->raised_damping)
        fact(to, "damping", "%.3g; raised for %u of %u linears, to %.3g at most", gyre_recipe_damp(recipe),
             s->raised_damping, s->linears, s->worst_damping);
    else fact(to, "damping", "%.3g, enough for every linear", gyre_recipe_damp(recipe));
    fact(to, "inputs that were always zero", "%llu", (unsigned long long)s->dead_inputs);
    if (s->distill_steps)
        fact(to, "learned end to end", "KL %.4g nats, before %.4g, on %u held-out windows; step %u of %u",
             s->distill_after, s->distill_before, s->distill_windows, s->distill_best, s->distill_steps);
    for (uint32_t i = 0; i < recipe->n_stages; i++)
        if (recipe->stage[i].kind == GYRE_STAGE_CORRECT) return shares(to, run->out), GYRE_OK;
    return GYRE_OK;
}

// ---- tables ---------------------------------------------------------------------------------------------------

static void seeds(struct sheet *to, const struct gyre_plan *p)
{
    const struct gyre_choice *c = &p->choice;
    if (c->n_seeds < 2) return;
    for (uint32_t i = 0; i < c->n_seeds; i++) {
        to->seed[i] = p->set.seed + i;
        to->surrogate[i] = (double)c->surrogate[i];
    }
    to->report.seed = to->seed;
    to->report.surrogate = to->surrogate;
    to->report.n_seeds = c->n_seeds;
}

static void taps(struct sheet *to, const struct gyre_output *out)
{
    bool any = false;
    for (uint32_t l = 0; l < out->plan->hp.n_layers; l++)
        for (int t = 0; t < GYRE_PRODUCTS; t++)
            any |=
                gyre_note_tap(gyre_output_note(out, l + 1), (gyre_product)t, &to->tap[l * GYRE_PRODUCTS + (uint32_t)t]);
    if (any) to->report.tap = to->tap;
}

// Weight errors stand with the journal's tensors, which are in the order of the linears; the rest in its notes.
static void linears(struct sheet *to, const struct gyre_output *out)
{
    const struct gyre_plan *p = out->plan;
    const json_t *tensors = json_object_get(out->journal.state, "tensors");
    const uint32_t n_stages = p->set.recipe.n_stages;
    size_t at = out->writer->globals;
    bool any = false;
    for (uint32_t i = 0; i < p->hp.n_layers * GYRE_LINEARS; i++) {
        const uint32_t l = i / GYRE_LINEARS;
        const gyre_role site = (gyre_role)(i % GYRE_LINEARS);
        struct gyre_report_linear *row = &to->linear[i];
        struct gyre_ladder_note note;
        gyre_role_name(site, l, "weight", to->name[i]);
        *row = (struct gyre_report_linear){.name = to->name[i], .weight_error = (double)NAN, .before = (double)NAN};
        gyre_settings_width(&p->set, row->name, &row->wbits, &row->wgroup);
        const struct gyre_plan_part part = {GYRE_PART_LINEAR, site, l};
        while (at < out->writer->n_tensors && !gyre_part_is(&out->writer->tensor[at].part, &part)) at++;
        row->weight_error = gyre_note_figure(json_array_get(tensors, at), "error");
        any |= gyre_note_linear(gyre_output_note(out, l + 1), site, &note);
        memcpy(row->after, note.error, sizeof row->after);
    }
    to->report.linear = to->linear;
    to->report.n_linears = p->hp.n_layers * GYRE_LINEARS;
    to->report.n_stages = any ? n_stages : 0;
    for (uint32_t i = 0; i < n_stages; i++) to->report.stage[i] = gyre_stage_name(p->set.recipe.stage[i].kind);
}

// ---- the report -----------------------------------------------------------------------------------------------

static gyre_status fill(struct sheet *to, const struct gyre_report_run *run, gyre_error *err)
{
    const struct gyre_plan *p = run->out->plan;
    const gyre_quantize_summary *s = run->summary;
    const uint32_t n_linears = p->hp.n_layers * GYRE_LINEARS;
    to->recipe_text = gyre_recipe_text(&p->set.recipe);
    to->tap = malloc((size_t)p->hp.n_layers * GYRE_PRODUCTS * sizeof *to->tap);
    to->linear = malloc(n_linears * sizeof *to->linear);
    to->name = malloc(n_linears * sizeof *to->name);
    if (!to->recipe_text || !to->tap || !to->linear || !to->name)
        return gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
    settings(&to->setting, p, s);
    rotations(&to->rotation, run);
    GYRE_TRY(calibration(&to->calibration, run, err));
    const char *name = NULL;
    GYRE_TRY(gyre_source_string(p->source, "general.name", &name, err));
    to->report = (struct gyre_report){.model = name,
                                      .recipe = p->set.recipe.name,
                                      .recipe_text = to->recipe_text,
                                      .setting = to->setting.row,
                                      .rotation = to->rotation.row,
                                      .calibration = to->calibration.row,
                                      .n_settings = to->setting.n,
                                      .n_rotations = to->rotation.n,
                                      .n_calibrations = to->calibration.n,
                                      .source_bytes = s->source_bytes,
                                      .output_bytes = s->output_bytes,
                                      .bits_per_weight = s->bits_per_weight,
                                      .rtn_kl = s->rtn_kl,
                                      .recipe_kl = s->recipe_kl,
                                      .rtn_weight_error = s->rtn_weight_error,
                                      .recipe_weight_error = s->recipe_weight_error,
                                      .summary_tokens = s->summary_tokens,
                                      .learned = s->distill_steps > 0,
                                      .weighs_outputs = p->set.recipe.calibration.outputs > 0,
                                      .chosen_seed = s->rotation_seed,
                                      .layer = s->layer,
                                      .layers = s->layers};
    if (run->heat) {
        to->report.heat_before = &run->heat->before;
        to->report.heat_after = &run->heat->after;
        to->report.heat_layer = run->heat->layer;
        to->report.heat_tap = (gyre_product)run->heat->tap;
    }
    seeds(to, p);
    taps(to, run->out);
    linears(to, run->out);
    return GYRE_OK;
}

gyre_status gyre_report_write(const char *folder, const struct gyre_report_run *run, gyre_error *err)
{
    struct sheet *sheet = calloc(1, sizeof *sheet);
    if (!sheet) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
    const struct gyre_locale locale = gyre_locale_plain(); // drawings have numbers, too
    gyre_status st = fill(sheet, run, err);
    if (st == GYRE_OK) st = gyre_report_save(folder, &sheet->report, err);
    gyre_locale_back(locale);
    free(sheet->recipe_text);
    free(sheet->tap);
    free(sheet->linear);
    free(sheet->name);
    free(sheet);
    return st;
}
