// See note.h.
#include "quantizer/report/note.h"

#include <math.h>

enum { STATS = 4 }; // numbers of struct gyre_tap_stats

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }
static double value_of(const json_t *json) { return json_is_number(json) ? json_number_value(json) : (double)NAN; }

bool gyre_note_add(json_t *note, const char *key, double value)
{
    return !isfinite(value) || !json_object_set_new(note, key, json_real(value));
}

double gyre_note_figure(const json_t *note, const char *key) { return value_of(json_object_get(note, key)); }

// ---- linears ------------------------------------------------------------------------------------------------

bool gyre_note_add_linears(json_t *note, const struct gyre_ladder_note linear[GYRE_LINEARS], uint32_t n_stages)
{
    json_t *list = json_array();
    bool good = list != NULL;
    for (int s = 0; good && s < GYRE_LINEARS; s++) {
        const struct gyre_ladder_note *l = &linear[s];
        json_t *stages = json_array();
        for (uint32_t i = 0; good && i < n_stages; i++) good = !json_array_append_new(stages, number(l->error[i]));
        json_t *row = json_pack("{s:o, s:o, s:I, s:o, s:o}", "stages", stages, "damp", number(l->damp), "dead",
                                (json_int_t)l->dead, "alpha", number(l->alpha), "residual", number(l->residual));
        good = !json_array_append_new(list, row) && good;
    }
    if (good) return !json_object_set_new(note, "linears", list);
    json_decref(list);
    return false;
}

bool gyre_note_linear(const json_t *note, gyre_role site, struct gyre_ladder_note *out)
{
    const json_t *row = json_array_get(json_object_get(note, "linears"), (size_t)site);
    const json_t *stages = json_object_get(row, "stages"), *dead = json_object_get(row, "dead");
    *out = (struct gyre_ladder_note){.damp = gyre_note_figure(row, "damp"),
                                     .dead = (uint32_t)json_integer_value(dead),
                                     .alpha = gyre_note_figure(row, "alpha"),
                                     .residual = gyre_note_figure(row, "residual")};
    for (size_t i = 0; i < GYRE_MAX_STAGES; i++) out->error[i] = value_of(json_array_get(stages, i));
    return json_is_object(row);
}

// ---- taps ---------------------------------------------------------------------------------------------------

static bool append_stats(json_t *row, const struct gyre_tap_stats *s)
{
    return !json_array_append_new(row, number(s->max_rms_median)) &&
           !json_array_append_new(row, number(s->max_rms_max)) && !json_array_append_new(row, number(s->kurtosis)) &&
           !json_array_append_new(row, number(s->int4_error));
}

bool gyre_note_add_taps(json_t *note, const struct gyre_report_tap tap[GYRE_PRODUCTS])
{
    json_t *list = json_array();
    bool good = list != NULL;
    for (int t = 0; good && t < GYRE_PRODUCTS; t++) {
        json_t *row = json_array();
        good = append_stats(row, &tap[t].before) && append_stats(row, &tap[t].after);
        good = !json_array_append_new(list, row) && good;
    }
    if (good) return !json_object_set_new(note, "taps", list);
    json_decref(list);
    return false;
}

static struct gyre_tap_stats stats_at(const json_t *row, size_t first)
{
    return (struct gyre_tap_stats){value_of(json_array_get(row, first)), value_of(json_array_get(row, first + 1)),
                                   value_of(json_array_get(row, first + 2)), value_of(json_array_get(row, first + 3))};
}

bool gyre_note_tap(const json_t *note, gyre_product tap, struct gyre_report_tap *out)
{
    const json_t *row = json_array_get(json_object_get(note, "taps"), (size_t)tap);
    *out = (struct gyre_report_tap){stats_at(row, 0), stats_at(row, STATS)};
    return json_is_array(row);
}
