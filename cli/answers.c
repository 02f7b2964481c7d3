// See answers.h.
#include "cli/answers.h"
#include "cli/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void cli_answers_free(struct cli_answers *a)
{
    free(a->item);
    *a = (struct cli_answers){0};
}

static double share_right(const struct cli_answers *a)
{
    double right = 0;
    for (uint32_t i = 0; i < a->n; i++) right += a->item[i].right;
    return a->n ? right / a->n : 0;
}

struct cli_task_figures cli_answers_figures(const struct cli_answers *a, const struct cli_answers *reference)
{
    const double n = a->n;
    struct cli_task_figures f = {
        .accuracy = share_right(a), .per_byte = a->per_byte, .bits_per_byte = a->bits_per_byte};
    f.stderror = n > 1 ? sqrt(f.accuracy * (1 - f.accuracy) / (n - 1)) : (double)NAN;
    if (!reference || reference->n != a->n) return f;
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        const double d = (double)a->item[i].right - (double)reference->item[i].right;
        f.flips += a->item[i].choice != reference->item[i].choice;
        sum += d;
        squares += d * d;
    }
    const double spread = squares - sum * sum / n;
    f.has_reference = true;
    f.reference = share_right(reference);
    f.difference_stderr = n < 2 ? (double)NAN : spread > 0 ? sqrt(spread / (n * (n - 1))) : 0;
    return f;
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

json_t *cli_task_json(const struct cli_answers *a, const struct cli_task_figures *f)
{
    json_t *out =
        json_pack("{s:o, s:I, s:I, s:f, s:o, s:f, s:f}", "name", cli_json_text(a->name), "items", (json_int_t)a->n,
                  "requests", (json_int_t)a->requests, "accuracy", f->accuracy, "stderr", cli_json_known(f->stderror),
                  "accuracy_per_byte", f->per_byte, "bits_per_byte", f->bits_per_byte);
    json_t *more = !f->has_reference
                       ? json_object()
                       : json_pack("{s:I, s:f, s:o}", "flips", (json_int_t)f->flips, "reference_accuracy", f->reference,
                                   "difference_stderr", cli_json_known(f->difference_stderr));
    const bool good = out && more && !json_object_update(out, more);
    json_decref(more);
    if (good) return out;
    json_decref(out);
    return NULL;
}

json_t *cli_answers_json(const struct cli_answers *a)
{
    const struct cli_task_figures figures = cli_answers_figures(a, NULL);
    json_t *out = cli_task_json(a, &figures), *choices = json_array(), *right = json_array();
    bool good = out && choices && right;
    for (uint32_t i = 0; i < a->n && good; i++)
        good = !json_array_append_new(choices, json_integer(a->item[i].choice)) &&
               !json_array_append_new(right, json_integer(a->item[i].right));
    good = good && !json_object_set(out, "choices", choices) && !json_object_set(out, "right", right);
    json_decref(choices);
    json_decref(right);
    if (good) return out;
    json_decref(out);
    return NULL;
}

bool cli_answers_read(const json_t *json, struct cli_answers *out)
{
    const json_t *choices = json_object_get(json, "choices"), *right = json_object_get(json, "right");
    const char *name = json_string_value(json_object_get(json, "name"));
    *out = (struct cli_answers){
        .n = (uint32_t)json_array_size(choices),
        .requests = (uint32_t)json_integer_value(json_object_get(json, "requests")),
        .per_byte = json_number_value(json_object_get(json, "accuracy_per_byte")),
        .bits_per_byte = json_number_value(json_object_get(json, "bits_per_byte")),
    };
    snprintf(out->name, sizeof out->name, "%s", name ? name : "");
    out->item = out->n ? calloc(out->n, sizeof *out->item) : NULL;
    if (!out->item || json_array_size(right) != out->n) {
        cli_answers_free(out);
        return false;
    }
    for (uint32_t i = 0; i < out->n; i++)
        out->item[i] = (struct cli_answer){(uint32_t)json_integer_value(json_array_get(choices, i)),
                                           json_integer_value(json_array_get(right, i)) != 0};
    return true;
}
