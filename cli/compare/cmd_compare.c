// gyre compare: recipes and settings of one model side by side, quantized and evaluated, as one table and one picture.
#include "cli/cli.h"
#include "cli/compare/compare.h"
#include "cli/compare/cells.h"
#include "cli/threads.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *recipes, *settings, *work, *prefix;
    struct cli_list texts;
    uint32_t wgroup;
    bool keep, no_baseline, by_position;
};

// ---- lists --------------------------------------------------------------------------------------------------------

// The next part of a comma-separated list; false at its end.
static bool next_part(const char **list, const char **part, size_t *n)
{
    if (!*list) return false;
    const char *comma = strchr(*list, ',');
    *part = *list;
    *n = comma ? (size_t)(comma - *list) : strlen(*list);
    *list = comma ? comma + 1 : NULL;
    return true;
}

static int parse_settings(struct compare *c, const struct options *o)
{
    const char *list = o->settings, *part;
    char why[128];
    size_t n;
    while (next_part(&list, &part, &n)) {
        struct cli_setting s;
        if (!cli_setting_parse(part, n, o->wgroup, &s, why, sizeof why))
            return cli_usage("unusable setting (%.*s): %s; settings look like W4A8KV8 or W4g32A4KV4", (int)n, part,
                             why);
        bool known = false;
        for (uint32_t i = 0; i < c->n_settings; i++) known |= memcmp(&c->setting[i], &s, sizeof s) == 0;
        if (known) continue;
        if (c->n_settings == COMPARE_MAX)
            return cli_usage("too many settings (--settings): at most %d can be compared", COMPARE_MAX);
        c->setting[c->n_settings++] = s;
    }
    return -1;
}

// The digest of all that a recipe says, in its canonical form.
static gyre_status recipe_key(const char *recipe, char key[GYRE_SHA256_HEX], gyre_error *err)
{
    char *text = NULL;
    GYRE_TRY(gyre_recipe_describe(recipe, GYRE_RECIPE_FULL, &text, err));
    gyre_sha256_of(text, strlen(text), key);
    gyre_free(text);
    return GYRE_OK;
}

// Groups of activations are in files made for 4 bits only, bits of single taps in those whose others differ, and
// learn's method may be left to the width.
static gyre_status says_more_of_act(const char *recipe, bool *out, gyre_error *err)
{
    char *text = NULL;
    size_t i;
    json_t *one;
    GYRE_TRY(gyre_recipe_describe(recipe, GYRE_RECIPE_JSON, &text, err));
    json_t *doc = json_loads(text, 0, NULL);
    const char *method = json_string_value(json_object_get(json_object_get(doc, "learn"), "method"));
    *out = json_integer_value(json_object_get(json_object_get(doc, "activations"), "group")) != 0 ||
           (method && !strcmp(method, "auto"));
    json_array_foreach(json_object_get(doc, "exceptions"), i, one) *out |= json_is_integer(json_object_get(one, "act"));
    json_decref(doc);
    gyre_free(text);
    return GYRE_OK;
}

// 0..: an exit status. `arg` must live as long as c.
static int add_recipe(struct compare *c, const char *arg)
{
    gyre_error err = {0};
    gyre_recipe_info recipe;
    for (uint32_t i = 0; i < c->n_recipes; i++) {
        if (strcmp(c->recipe[i].arg, arg) == 0) return -1;
    }
    if (c->n_recipes == COMPARE_MAX)
        return cli_usage("too many recipes (--recipes): at most %d can be compared", COMPARE_MAX);
    const gyre_status st = gyre_recipe_inspect(arg, &recipe, &err);
    if (st == GYRE_E_INVALID && !gyre_recipe_is_file(arg))
        return cli_usage("unknown recipe (%s): there is no built-in one of that name; see gyre recipes", arg);
    if (st != GYRE_OK) return cli_fail(&err);
    struct compare_recipe *r = &c->recipe[c->n_recipes];
    *r = (struct compare_recipe){.arg = arg, .calibrates = recipe.calibrates};
    if (recipe_key(arg, r->key, &err) != GYRE_OK || says_more_of_act(arg, &r->by_act, &err) != GYRE_OK)
        return cli_fail(&err);
    snprintf(r->label, sizeof r->label, "%s", recipe.name[0] ? recipe.name : gyre_base_name(arg));
    c->n_recipes++;
    return -1;
}

static bool conflict(const struct compare *c, uint32_t i)
{
    for (uint32_t k = 0; k < c->n_recipes; k++) {
        if (k != i && strcmp(c->recipe[k].label, c->recipe[i].label) == 0) return true;
    }
    return false;
}

// Labels differ: where two recipes have one name, files are called by their file's; where that does not help, by
// number.
static void name_recipes(struct compare *c)
{
    bool file[COMPARE_MAX];
    for (uint32_t i = 0; i < c->n_recipes; i++) file[i] = conflict(c, i) && gyre_recipe_is_file(c->recipe[i].arg);
    for (uint32_t i = 0; i < c->n_recipes; i++) {
        if (file[i]) snprintf(c->recipe[i].label, sizeof c->recipe[i].label, "%.60s", gyre_base_name(c->recipe[i].arg));
    }
    for (uint32_t i = 0; i < c->n_recipes; i++) {
        struct compare_recipe *r = &c->recipe[i];
        if (conflict(c, i)) {
            char numbered[sizeof r->label];
            snprintf(numbered, sizeof numbered, "%.56s (%u)", r->label, i + 1);
            memcpy(r->label, numbered, sizeof numbered);
        }
        for (size_t k = 0; k < sizeof r->stem; k++) { // the label as a part of a file's name
            const char at = r->label[k];
            const bool plain = (at >= 'a' && at <= 'z') || (at >= 'A' && at <= 'Z') || (at >= '0' && at <= '9') ||
                               at == '-' || at == '.' || at == '_';
            r->stem[k] = !at || plain ? at : '_';
            if (!at) break;
        }
    }
}

// ---- the whole ----------------------------------------------------------------------------------------------------

// Marks an interruption with what the user can do.
static gyre_status with_advice(const struct compare *c, gyre_status st, gyre_error *err)
{
    if (st != GYRE_E_CANCELLED) return st;
    return gyre_fail(err, st, "interrupted (%s): %u of %u cells are kept; give the same command again to go on",
                     c->cells.path, c->at - 1, c->total);
}

// All cells; those that were made are the caller's also after an error.
static gyre_status make_cells(struct compare *c, struct cli_comparison *out, uint32_t *failed, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    for (c->at = 1; st == GYRE_OK && c->at <= c->total; c->at++) {
        const uint32_t i = c->at - 2; // the first is the float model's
        struct cli_cell *cell = &out->cell[out->n_cells++];
        if (cli_interrupted()) st = gyre_fail(err, GYRE_E_CANCELLED, "interrupted");
        else if (c->at == 1) st = compare_float(c, cell, err);
        else st = compare_cell(c, &c->recipe[i % c->n_recipes], &c->setting[i / c->n_recipes], cell, err);
        *failed += cell->failed[0] != 0;
        if (st != GYRE_OK) break;
    }
    return with_advice(c, st, err);
}

static const char *const endings[] = {".md", ".csv", ".json", ".png"}; // of the tables
enum { TABLE = sizeof endings / sizeof *endings };

// May the tables have their names? No folder may, and the work's folder is made before them.
static gyre_status check_tables(const struct compare *c, const char *prefix, gyre_error *err)
{
    char path[4096], *work = gyre_beside(c->work, "");
    gyre_status st = work ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot compare: out of memory");
    for (size_t i = 0; i < TABLE && st == GYRE_OK; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s%s", prefix, endings[i]) >= sizeof path) break;
        st = gyre_file_apart(work, path, "a file of the output", err);
        if (st == GYRE_OK && gyre_file_exists(path)) st = gyre_check_file(path, err);
    }
    free(work);
    return st;
}

// Nothing that is written may be something that is read, or the other thing that is written.
static gyre_status check_apart(const struct compare *c, const struct options *o, gyre_error *err)
{
    static const char *const work[] = {"/compare.json"};
    char journal[4096];
    for (int i = 0; i < 2; i++) {
        const char *to = i ? c->work : o->prefix, *const *ending = i ? work : endings;
        const size_t n = i ? 1 : TABLE;
        GYRE_TRY(gyre_files_apart(to, ending, n, c->model, "the model", err));
        for (uint32_t k = 0; k < o->texts.n; k++)
            GYRE_TRY(gyre_files_apart(to, ending, n, cli_text_path(o->texts.item[k]), "a text", err));
        for (uint32_t k = 0; k < c->task_paths.n; k++)
            GYRE_TRY(gyre_files_apart(to, ending, n, c->task_paths.item[k], "a task", err));
        for (uint32_t k = 0; k < c->calib.n; k++)
            GYRE_TRY(gyre_files_apart(to, ending, n, c->calib.item[k], "a calibration text", err));
        for (uint32_t k = 0; k < c->n_recipes; k++)
            if (gyre_recipe_is_file(c->recipe[k].arg))
                GYRE_TRY(gyre_files_apart(to, ending, n, c->recipe[k].arg, "a recipe", err));
    }
    GYRE_TRY(check_tables(c, o->prefix, err));
    if ((size_t)snprintf(journal, sizeof journal, "%s/compare.json", c->work) >= sizeof journal) return GYRE_OK;
    return gyre_files_apart(o->prefix, endings, TABLE, journal, "the journal of the comparison", err);
}

// The first recipe that was named; plain rounding, which is there unasked, where it is that.
static const char *base_of(const struct compare *c, const char *named)
{
    const bool unasked = strcmp(c->recipe[0].arg, "rtn") == 0 && strncmp(named, "rtn,", 4) != 0;
    return c->recipe[unasked && c->n_recipes > 1].label;
}

static int compare(struct compare *c, const struct options *o)
{
    gyre_error err = {0};
    struct cli_cell *cells = NULL;
    const char *calib[CLI_LIST_MAX] = {GYRE_CALIB_BUNDLED};
    char *table = NULL, work[4096];
    uint32_t failed = 0;
    gyre_status st = GYRE_OK;
    snprintf(work, sizeof work, "%.4080s.work", o->prefix);
    c->work = o->work ? o->work : work;
    GYRE_GO(check_apart(c, o, &err));
    GYRE_GO(gyre_check_dirs(c->work, &err));
    if (o->work) GYRE_GO(gyre_check_place(o->prefix, &err)); // else the work folder's parents are made
    GYRE_GO(compare_possible(c, &err));
    GYRE_GO(cli_texts_read(&o->texts, &c->texts, &err));
    GYRE_GO(compare_begin(c, &err));
    for (uint32_t i = 0; i < c->texts.n; i++)
        if (c->flattered[i])
            cli_warn("%s is calibrated on; figures on that text flatter what is", c->texts.text[i].name);
    if (c->calib.n && !compare_calibrates(c))
        cli_warn("no recipe reads a text; what is given to calibrate on changes nothing");
    for (uint32_t i = 0; i < c->calib.n; i++) calib[i] = gyre_base_name(c->calib.item[i]);
    c->total = 1 + c->n_recipes * c->n_settings;
    struct cli_comparison result = {.model = gyre_base_name(c->model),
                                    .model_sha256 = c->model_sha,
                                    .profile = c->profile,
                                    .ctx = c->ctx,
                                    .windows = c->windows,
                                    .reference_k = c->reference_k,
                                    .seed = c->seed,
                                    .base = base_of(c, o->recipes),
                                    .by_position = o->by_position,
                                    .calib = calib,
                                    .n_calib = !compare_calibrates(c) ? 0
                                               : c->calib.n           ? c->calib.n
                                                                      : 1,
                                    .flattered = c->flattered,
                                    .cell = cells = calloc(c->total, sizeof *cells)};
    if (!cells) GYRE_GO(gyre_fail(&err, GYRE_E_NOMEM, "cannot compare: out of memory"));
    GYRE_GO(make_cells(c, &result, &failed, &err));
    cli_progress_end();
    char counted[64];
    snprintf(counted, sizeof counted, "%u cells, %u of them from ", c->total, c->total - c->made);
    cli_say(counted, c->cells.path);
    table = cli_compare_markdown(&result);
    GYRE_GO(cli_compare_write(&result, table, o->prefix, &err));
    if (!o->work && !o->keep && !failed) compare_clean(c);
    fputs(table, stdout);
    GYRE_GO(cli_flush(&err));
    if (failed)
        st = gyre_fail(&err, GYRE_E_UNSUPPORTED,
                       "incomplete comparison (%s.md): %u of %u cells failed, the table says why; correct their cause "
                       "and give the same command again",
                       o->prefix, failed, c->total);
done:
    free(table);
    for (uint32_t i = 0; cells && i < c->total; i++) cli_cell_free(&cells[i]);
    free(cells);
    compare_end(c);
    return st == GYRE_OK ? 0 : cli_fail(&err);
}

static int take_recipes(struct compare *c, const struct options *o, char names[COMPARE_MAX][512])
{
    const char *list = o->recipes, *part;
    uint32_t count = 0;
    size_t n;
    int stop = o->no_baseline ? -1 : add_recipe(c, "rtn");
    while (stop < 0 && next_part(&list, &part, &n)) {
        if (count == COMPARE_MAX)
            return cli_usage("too many recipes (--recipes): at most %d can be compared", COMPARE_MAX);
        if (n == 0 || n >= sizeof names[0])
            return cli_usage("unusable recipe (--recipes %s): a name is empty or too long", o->recipes);
        memcpy(names[count], part, n);
        names[count][n] = 0;
        stop = add_recipe(c, names[count++]);
    }
    if (stop < 0) name_recipes(c);
    return stop;
}

static int run(int argc, char **argv)
{
    struct options o = {.settings = "W4A8KV8", .prefix = "compare", .wgroup = 32};
    struct compare *c = calloc(1, sizeof *c);
    char names[COMPARE_MAX][512];
    if (!c) return cli_fail(&(gyre_error){GYRE_E_NOMEM, "cannot compare: out of memory"});
    c->ctx = 512;
    c->reference_mib = 4096;
    c->profile = "full";
    const struct cli_option options[] = {
        {"--recipes", "A,B,...", "built-in names or YAML files (required)", CLI_TEXT, &o.recipes, 0, 0, NULL},
        {"--text", "FILE", "a text to evaluate on, or NAME=FILE; may be repeated (required)", CLI_LIST, &o.texts, 0, 0,
         NULL},
        {"--tasks", "FILE", "requests with given answers, as gyre eval takes them; may be repeated", CLI_LIST,
         &c->task_paths, 0, 0, NULL},
        {"--settings", "S,...", "widths, such as W4A8KV8, W4g64A4KV4, W4A16 (W4A8KV8)", CLI_TEXT, &o.settings, 0, 0,
         NULL},
        {"--wgroup", "N", "group of settings that name none: 0 (a whole row), 32, 64, 128 (32)", CLI_U32, &o.wgroup, 0,
         0, "0,32,64,128"},
        {"--calib", "FILE",
         "text to calibrate on, may be repeated; bundled (default): a mixture; self: the model writes it", CLI_LIST,
         &c->calib, 0, 0, NULL},
        {"--profile", "NAME", "full or portable (full)", CLI_TEXT, &c->profile, 0, 0, "full,portable"},
        {"--seed", "N", "seed of the random rotations (0)", CLI_U64, &c->seed, 0, 9007199254740992.0, NULL},
        {"--ctx", "N", "tokens in a window (512)", CLI_U32, &c->ctx, 2, 1 << 24, NULL},
        {"--windows", "N", "windows of each text to evaluate; default: all", CLI_U32, &c->windows, 1, 1 << 24, NULL},
        {"--by-position", NULL, "a table of KL by how many tokens of the window come before", CLI_FLAG, &o.by_position,
         0, 0, NULL},
        {"--reference-k", "K", "float logits a token that KL tells apart, a lower bound; default: all", CLI_U32,
         &c->reference_k, 1, 1 << 24, NULL},
        {"--reference-mib", "N", "room for them; where all need more the float model runs beside each cell (4096)",
         CLI_U32, &c->reference_mib, 0, 1 << 30, NULL},
        {"--device", "ID", "vulkan:0, opencl:0, cpu, ...; default: the best there is", CLI_TEXT, &c->device, 0, 0,
         NULL},
        {"--no-baseline", NULL, "leave out plain rounding (rtn)", CLI_FLAG, &o.no_baseline, 0, 0, NULL},
        {"--work", "DIR", "keep quantized files and finished cells there (OUT.work)", CLI_TEXT, &o.work, 0, 0, NULL},
        {"--keep", NULL, "keep quantized files in OUT.work, too", CLI_FLAG, &o.keep, 0, 0, NULL},
        {"-o", "OUT", "write OUT.md, OUT.csv, OUT.json and OUT.png (compare)", CLI_TEXT, &o.prefix, 0, 0, NULL},
    };
    int status = cli_parse(&cli_compare, options, sizeof options / sizeof *options, argc, argv, &c->model);
    if (status < 0 && !o.recipes)
        status = cli_usage("missing option (--recipes A,B): gyre compare needs recipes; see gyre compare --help");
    if (status < 0 && !o.texts.n)
        status = cli_usage("missing option (--text FILE): gyre compare needs a text; see gyre compare --help");
    if (status < 0) status = cli_calib_check(&c->calib);
    if (status < 0) status = parse_settings(c, &o);
    if (status < 0) status = take_recipes(c, &o, names);
    cli_threads_for_products();
    if (status < 0) status = compare(c, &o);
    free(c);
    return status;
}

const struct cli_command cli_compare = {"compare", "MODEL", "Compare recipes: quantize, evaluate, one table and plot",
                                        run,       1,       false};
