// gyre inspect: what a model file holds, and what it will cost on a device.
#include "cli/cli.h"
#include "runtime/util/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double mib(const json_t *bytes) { return json_number_value(bytes) / 1048576.0; }

static void print_transform(const char *name, const json_t *t)
{
    if (!json_is_object(t)) return;
    printf("  %-6s Hadamard of %lld =", name, (long long)json_integer_value(json_object_get(t, "n")));
    size_t i;
    const json_t *k;
    json_array_foreach(json_object_get(t, "orders"), i, k)
    {
        if (json_integer_value(k) > 1) printf(" %lld x", (long long)json_integer_value(k));
    }
    printf(" 2^%lld, online\n", (long long)json_integer_value(json_object_get(t, "log2")));
}

// `plan`: of an engine of so many tokens; total 0: none could be made.
static void print_text(const json_t *doc, const gyre_memory *plan, uint32_t context)
{
    const json_t *m = json_object_get(doc, "model"), *r = json_object_get(doc, "rotations"),
                 *memory = json_object_get(doc, "memory"), *t;
    const char *key;
    json_t *value;
    size_t i;
    printf("%s (%s, %.1f MiB of tensors)\n\nmodel\n", json_string_value(json_object_get(doc, "path")),
           json_string_value(json_object_get(doc, "container")), mib(json_object_get(doc, "bytes")));
    json_object_foreach((json_t *)(uintptr_t)m, key, value)
    {
        char *s = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(7));
        printf("  %-14s %s\n", key, s ? s : "?");
        free(s);
    }
    printf("\nrotations\n");
    if (json_is_true(json_object_get(r, "r3")))
        printf("  r3     on q and k heads after RoPE, with a quantized KV cache\n");
    print_transform("r4", json_object_get(r, "r4"));
    print_transform("head", json_object_get(r, "head"));
    if (!json_is_true(json_object_get(r, "r3")) && json_is_null(json_object_get(r, "r4")) &&
        json_is_null(json_object_get(r, "head")))
        printf("  none online\n");
    const json_t *kv = json_object_get(memory, "kv_bytes_per_token");
    printf("\nmemory on the device\n  weights        %.1f MiB (the token table %.1f MiB of it)\n  kv cache       %lld, "
           "%lld, %lld bytes a token at 16, 8, 4 bits\n",
           mib(json_object_get(memory, "weights_bytes")), mib(json_object_get(memory, "table_bytes")),
           (long long)json_integer_value(json_object_get(kv, "16")),
           (long long)json_integer_value(json_object_get(kv, "8")),
           (long long)json_integer_value(json_object_get(kv, "4")));
    if (plan->total) {
        printf("\nwith an engine of its settings\n");
        cli_print_memory(plan, context);
    }
    printf("\nmetadata\n");
    json_object_foreach(json_object_get(doc, "metadata"), key, value)
    {
        char *s = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(7));
        printf("  %-44s %.100s\n", key, s ? s : "?");
        free(s);
    }
    printf("\ntensors\n");
    json_array_foreach(json_object_get(doc, "tensors"), i, t)
    {
        char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
        printf("  %-40s %-6s %-16s %12lld bytes\n", json_string_value(json_object_get(t, "name")),
               json_string_value(json_object_get(t, "type")), shape ? shape : "?",
               (long long)json_integer_value(json_object_get(t, "bytes")));
        free(shape);
    }
}

// The decode graph needs a device: it is recorded for one.
static gyre_status write_graph(const char *model, const struct cli_engine *options, const char *path, gyre_error *err)
{
    gyre_engine *engine = NULL;
    char *dot = NULL;
    gyre_status st = GYRE_OK;
    GYRE_GO(cli_open(model, options, true, &engine, err));
    GYRE_GO(gyre_engine_dot(engine, &dot, err));
    FILE *f = fopen(path, "w");
    const bool ok = f && fputs(dot, f) >= 0;
    if ((f && fclose(f) != 0) || !ok)
        st = gyre_fail(err, GYRE_E_IO,
                       "cannot write graph (%s): the file could not be written; check the folder and the disk", path);
done:
    free(dot);
    gyre_engine_close(engine, NULL);
    return st;
}

static int run(int argc, char **argv)
{
    const char *path = NULL, *graph = NULL;
    bool json = false;
    struct cli_engine engine = {0};
    const struct cli_option options[] = {
        {"--graph", "OUT.dot", "write the decode graph after fusion, for Graphviz", CLI_TEXT, &graph, 0, 0, NULL},
        {"--ctx", "N", "of the memory plan: tokens of the cache; default: the model's, at most 4096", CLI_U32,
         &engine.context, 1, 1 << 24, NULL},
        CLI_ENGINE_OPTIONS(engine),
        {"--json", NULL, "machine-readable output", CLI_FLAG, &json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_inspect, options, sizeof options / sizeof *options, argc, argv, &path);
    if (stop >= 0) return stop;
    gyre_error err = {0};
    char *text = NULL;
    int status = 0;
    gyre_status st = gyre_file_apart(graph, path, "the model", &err);
    if (st == GYRE_OK) st = gyre_inspect(path, &text, &err);
    if (st == GYRE_OK && graph) st = write_graph(path, &engine, graph, &err);
    if (st == GYRE_OK) {
        // A model that cannot run has no plan; inspecting it goes on.
        const gyre_engine_params params = cli_engine_params(&engine);
        gyre_memory plan = {.size = sizeof plan};
        if (gyre_plan(path, &params, &plan, NULL) != GYRE_OK) plan.total = 0;
        json_t *doc = json_loads(text, 0, NULL);
        if (json && plan.total) json_object_set_new(doc, "plan", cli_memory_json(&plan));
        if (json) status = cli_print_json(doc);
        else print_text(doc, &plan, engine.context);
        if (!json) json_decref(doc);
    }
    free(text);
    return st == GYRE_OK ? status : cli_fail(&err);
}

const struct cli_command cli_inspect = {"inspect", "FILE", "Show what a model file holds", run, 1, false};
