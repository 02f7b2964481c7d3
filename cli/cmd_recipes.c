// gyre recipes: the built-in recipes, and one recipe with all its settings.
#include "cli/cli.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int list_json(void)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; gyre_recipe_name(i); i++) {
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s}", "name", gyre_recipe_name(i), "about",
                                              gyre_recipe_about(i), "source", gyre_recipe_source(i)));
    }
    return cli_print_json(json_pack("{s:o}", "recipes", rows));
}

static int list_text(void)
{
    for (uint32_t i = 0; gyre_recipe_name(i); i++)
        printf("%s%s%s\n  %s\n  from: %s\n", i ? "\n" : "", gyre_recipe_name(i),
               strcmp(gyre_recipe_name(i), GYRE_DEFAULT_RECIPE) == 0 ? " (the default)" : "", gyre_recipe_about(i),
               gyre_recipe_source(i));
    return 0;
}

static int run(int argc, char **argv)
{
    const char *recipe = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--json", NULL, "machine-readable output, every default filled in", CLI_FLAG, &json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_recipes, options, sizeof options / sizeof *options, argc, argv, &recipe);
    if (stop >= 0) return stop;
    if (!recipe) return json ? list_json() : list_text();
    gyre_error err = {0};
    char *text = NULL;
    const gyre_status st = gyre_recipe_describe(recipe, json ? GYRE_RECIPE_JSON : GYRE_RECIPE_YAML, &text, &err);
    if (st == GYRE_E_INVALID) return cli_usage("%s; see gyre recipes", err.message);
    if (st != GYRE_OK) return cli_fail(&err);
    fputs(text, stdout);
    if (json) putchar('\n');
    free(text);
    return 0;
}

const struct cli_command cli_recipes = {
    "recipes", "[NAME|FILE]", "List the ways to quantize, or show and check one", run, 1, true};
