// See cell.h.
#include "cli/compare/cell.h"
#include "cli/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cli_cell_create(uint32_t n_texts, uint32_t n_tasks, struct cli_cell *out)
{
    *out = (struct cli_cell){.bits_per_weight = NAN, .bytes = NAN, .quantize_seconds = NAN, .eval_seconds = NAN};
    out->text = n_texts ? calloc(n_texts, sizeof *out->text) : NULL;
    out->n_texts = out->text ? n_texts : 0;
    out->task = n_tasks ? calloc(n_tasks, sizeof *out->task) : NULL;
    out->n_tasks = out->task ? n_tasks : 0;
    return out->n_texts == n_texts && out->n_tasks == n_tasks;
}

void cli_cell_free(struct cli_cell *cell)
{
    for (uint32_t i = 0; i < cell->n_texts; i++) {
        free(cell->text[i].name);
        cli_blocks_free(&cell->text[i].blocks);
    }
    for (uint32_t i = 0; i < cell->n_tasks; i++) cli_answers_free(&cell->task[i]);
    free(cell->text);
    free(cell->task);
    *cell = (struct cli_cell){0};
}

// ---- writing ------------------------------------------------------------------------------------------------------

// False where memory ran out; what is not known is left out.
static bool put_number(json_t *out, const char *key, double value)
{
    return isnan(value) || !json_object_set_new(out, key, json_real(value));
}

static bool put_integer(json_t *out, const char *key, uint32_t value)
{
    return !json_object_set_new(out, key, json_integer(value));
}

static bool put_results(json_t *out, const struct cli_cell *cell)
{
    json_t *texts = json_array(), *tasks = json_array(), *all = json_object();
    bool good = texts && tasks && all && !cli_eval_figures(all, &cell->all);
    for (uint32_t i = 0; i < cell->n_texts && good; i++) {
        json_t *text = json_pack("{s:o}", "text", cli_json_text(cell->text[i].name));
        good = text && !cli_eval_figures(text, &cell->text[i].result) &&
               !cli_blocks_json(text, &cell->text[i].blocks) && !json_array_append(texts, text);
        json_decref(text);
    }
    for (uint32_t i = 0; i < cell->n_tasks && good; i++)
        good = !json_array_append_new(tasks, cli_answers_json(&cell->task[i]));
    good = good && !json_object_set(out, "texts", texts) && !json_object_set(out, "all", all) &&
           !json_object_set_new(out, "device", json_string(cell->device));
    if (good && cell->n_tasks) good = !json_object_set(out, "tasks", tasks);
    if (good && cell->beside) good = !json_object_set_new(out, "beside", json_true());
    json_decref(texts);
    json_decref(tasks);
    json_decref(all);
    return good;
}

json_t *cli_cell_json(const struct cli_cell *cell)
{
    json_t *out = json_pack("{s:o, s:s}", "recipe", cli_json_text(cell->recipe), "setting", cell->setting);
    const struct cli_setting *w = &cell->widths;
    bool good = out && (!w->wbits || (put_integer(out, "wbits", w->wbits) && put_integer(out, "wgroup", w->wgroup))) &&
                put_integer(out, "act", w->act) && put_integer(out, "kv", w->kv) && put_integer(out, "kv_v", w->kv_v);
    good = good && put_number(out, "bits_per_weight", cell->bits_per_weight) && put_number(out, "bytes", cell->bytes) &&
           put_number(out, "quantize_seconds", cell->quantize_seconds) &&
           put_number(out, "eval_seconds", cell->eval_seconds);
    if (good && cell->failed[0]) good = !json_object_set_new(out, "failed", cli_json_text(cell->failed));
    else good = good && put_results(out, cell);
    if (good) return out;
    json_decref(out);
    return NULL;
}

json_t *cli_weights_json(const struct cli_weights *w)
{
    return json_pack("{s:o, s:f, s:f, s:f}", "file", cli_json_text(w->file), "bits_per_weight", w->bits_per_weight,
                     "bytes", w->bytes, "quantize_seconds", w->quantize_seconds);
}

// ---- reading ------------------------------------------------------------------------------------------------------

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static uint32_t integer(const json_t *object, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(object, key));
}

static void take_text(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    snprintf(out, size, "%s", text ? text : "");
}

bool cli_cell_read(const json_t *json, struct cli_cell *out)
{
    const json_t *texts = json_object_get(json, "texts"), *tasks = json_object_get(json, "tasks");
    if (!json_is_object(json) ||
        !cli_cell_create((uint32_t)json_array_size(texts), (uint32_t)json_array_size(tasks), out))
        return false;
    take_text(json, "recipe", out->recipe, sizeof out->recipe);
    take_text(json, "setting", out->setting, sizeof out->setting);
    take_text(json, "device", out->device, sizeof out->device);
    take_text(json, "failed", out->failed, sizeof out->failed);
    out->widths = (struct cli_setting){integer(json, "wbits"), integer(json, "wgroup"), integer(json, "act"),
                                       integer(json, "kv"), integer(json, "kv_v")};
    if (!out->widths.kv_v) out->widths.kv_v = out->widths.kv; // journals of one width did not say it
    out->bits_per_weight = number(json, "bits_per_weight");
    out->bytes = number(json, "bytes");
    out->quantize_seconds = number(json, "quantize_seconds");
    out->eval_seconds = number(json, "eval_seconds");
    out->beside = json_is_true(json_object_get(json, "beside"));
    cli_eval_figures_read(json_object_get(json, "all"), &out->all);
    bool good = true;
    for (uint32_t i = 0; i < out->n_texts; i++) {
        const json_t *text = json_array_get(texts, i);
        const char *name = json_string_value(json_object_get(text, "text"));
        out->text[i].name = strdup(name ? name : "");
        cli_eval_figures_read(text, &out->text[i].result);
        good = good && out->text[i].name && cli_blocks_read(text, &out->text[i].blocks);
    }
    for (uint32_t i = 0; i < out->n_tasks && good; i++)
        good = cli_answers_read(json_array_get(tasks, i), &out->task[i]);
    if (!good) cli_cell_free(out);
    return good;
}

bool cli_weights_read(const json_t *json, struct cli_weights *out)
{
    take_text(json, "file", out->file, sizeof out->file);
    out->bits_per_weight = number(json, "bits_per_weight");
    out->bytes = number(json, "bytes");
    out->quantize_seconds = number(json, "quantize_seconds");
    return out->file[0] && !strchr(out->file, '/');
}
