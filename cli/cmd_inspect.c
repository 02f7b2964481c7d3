// gyre inspect: what a model file holds, and what it will cost on a device.
#include "cli/cli.h"
#include "runtime/util/file.h"

#include <gyre/gyre_quantize.h>
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

// What `gyre quantize` would make of the file in one profile and format, with default settings or one scale a row:
// {profile, format, wgroup, ok, why_not}.
static json_t *quantized(const char *path, const char *profile, const char *format)
{
    gyre_error err = {0}, other;
    gyre_quantize_params params = {.size = sizeof params, .source = path, .profile = profile, .format = format};
    bool ok = gyre_quantize_check(&params, &err) == GYRE_OK;
    const bool by_rows = !ok && (params.wgroup = GYRE_WGROUP_ROW, gyre_quantize_check(&params, &other) == GYRE_OK);
    ok |= by_rows;
    return json_pack("{s:s, s:s, s:i, s:b, s:o}", "profile", profile, "format", format, "wgroup", by_rows ? 0 : 32,
                     "ok", ok, "why_not", ok ? json_null() : cli_json_text(err.message));
}

static json_t *quantizes(const char *path, const json_t *doc)
{
    static const char *const profiles[] = {"full", "portable"}, *const formats[] = {"gguf", "hf"};
    const bool folder = !strcmp(json_string_value(json_object_get(doc, "container")), "hf");
    json_t *out = json_array();
    for (int f = 0; f < (folder ? 2 : 1); f++)
        for (int p = 0; p < 2; p++) json_array_append_new(out, quantized(path, profiles[p], formats[f]));
    return out;
}

// "Q4_K 12, F32 9"
static void print_types(const char *label, const json_t *types)
{
    const char *type;
    json_t *n;
    if (json_object_size(types)) printf("  %-17s", label);
    const char *between = "";
    json_object_foreach((json_t *)(uintptr_t)types, type, n)
    {
        printf("%s%s %lld", between, type, (long long)json_integer_value(n));
        between = ", ";
    }
    if (json_object_size(types)) printf("\n");
}

// A reason that several outputs share is said once; what does not run has said its own.
static void print_quantizes(const json_t *made, bool runs)
{
    size_t i, n = 0;
    const json_t *m;
    const char *last = "";
    printf("  %-17s", "can be quantized");
    json_array_foreach(made, i, m)
    {
        if (!json_is_true(json_object_get(m, "ok"))) continue;
        printf("%s%s %s%s", n++ ? ", " : "to ", json_string_value(json_object_get(m, "profile")),
               strcmp(json_string_value(json_object_get(m, "format")), "hf") ? "GGUF" : "Hugging Face directories",
               json_integer_value(json_object_get(m, "wgroup")) ? "" : " with --wgroup 0");
    }
    printf("%s\n", n ? "" : "no");
    json_array_foreach(made, i, m)
    {
        const char *why = json_string_value(json_object_get(m, "why_not"));
        if (!why || !runs || !strcmp(why, last)) continue;
        printf("    %s\n", why);
        last = why;
    }
}

static void print_verdict(const json_t *v)
{
    static const char *const said[][2] = {{"architecture", "architecture"},
                                          {"rope", "RoPE scaling"},
                                          {"tokenizer", "tokenizer"},
                                          {"pre_tokenizer", "pre-tokenizer"}};
    const json_t *q = json_object_get(v, "quantization"), *scheme, *line;
    size_t i;
    const bool runs = json_is_true(json_object_get(v, "runs"));
    printf("\nverdict\n  %-17s%s\n", "runs", runs ? "yes" : "no");
    json_array_foreach(json_object_get(v, "why_not"), i, line) printf("    %s\n", json_string_value(line));
    print_quantizes(json_object_get(v, "quantizes"), runs);
    for (size_t k = 0; k < sizeof said / sizeof *said; k++) {
        const char *text = json_string_value(json_object_get(v, said[k][0]));
        if (text) printf("  %-17s%s\n", said[k][1], text);
    }
    print_types("tensors", json_object_get(v, "tensor_types"));
    print_types("not readable", json_object_get(v, "unread_types"));
    if (!json_is_object(q)) return;
    printf("  %-17s%s", "quantization", json_string_value(json_object_get(q, "method")));
    json_array_foreach(json_object_get(q, "schemes"), i, scheme)
    {
        const long long group = json_integer_value(json_object_get(scheme, "group"));
        printf(", %lld bits ", (long long)json_integer_value(json_object_get(scheme, "bits")));
        if (group) printf("in groups of %lld", group);
        else printf("per row");
    }
    printf("\n");
}

// "down 8 (30 of 30 blocks)": taps that have other bits than the file's activations.
static void print_taps(const json_t *taps, json_int_t act)
{
    const char *product, *between = "";
    json_t *bits, *one;
    printf("  %-14s ", "tap_bits");
    json_object_foreach((json_t *)(uintptr_t)taps, product, bits)
    {
        for (json_int_t other = 16; other >= 4; other /= 2) {
            size_t i, n = 0;
            json_array_foreach(bits, i, one) n += other != act && json_integer_value(one) == other;
            if (!n) continue;
            printf("%s%s %d (%zu of %zu blocks)", between, product, (int)other, n, json_array_size(bits));
            between = ", ";
        }
    }
    printf("\n");
}

static void print_model(const json_t *m)
{
    const char *key;
    json_t *value;
    printf("\nmodel\n");
    json_object_foreach((json_t *)(uintptr_t)m, key, value)
    {
        if (json_is_object(value)) {
            print_taps(value, json_integer_value(json_object_get(m, "act")));
            continue;
        }
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(7));
        printf("  %-14s %s\n", key, text ? text : "?");
        free(text);
    }
}

static void print_rotations(const json_t *r)
{
    printf("\nrotations\n");
    if (json_is_true(json_object_get(r, "r3")))
        printf("  r3     on q and k heads after RoPE, with a quantized KV cache\n");
    print_transform("r1", json_object_get(r, "r1"));
    print_transform("r4", json_object_get(r, "r4"));
    print_transform("head", json_object_get(r, "head"));
    const bool mix = json_is_true(json_object_get(r, "head_mix"));
    if (mix) printf("  head   through a matrix of the file\n");
    if (!mix && !json_is_true(json_object_get(r, "r3")) && json_is_null(json_object_get(r, "r4")) &&
        json_is_null(json_object_get(r, "head")) && json_is_null(json_object_get(r, "r1")))
        printf("  none online\n");
}

static void print_weights(const json_t *memory, const json_t *m)
{
    const json_t *kv = json_object_get(memory, "kv_bytes_per_token");
    const long long windowed = json_integer_value(json_object_get(m, "windowed_layers"));
    printf("\nmemory on the device\n  weights        %.1f MiB (the token table %.1f MiB of it)\n  kv cache       %lld, "
           "%lld, %lld bytes a token at 16, 8, 4 bits\n",
           mib(json_object_get(memory, "weights_bytes")), mib(json_object_get(memory, "table_bytes")),
           (long long)json_integer_value(json_object_get(kv, "16")),
           (long long)json_integer_value(json_object_get(kv, "8")),
           (long long)json_integer_value(json_object_get(kv, "4")));
    if (windowed)
        printf("                 as long as all layers keep it; %lld of %lld keep about the last %lld tokens\n",
               windowed, (long long)json_integer_value(json_object_get(m, "layers")),
               (long long)json_integer_value(json_object_get(m, "window")));
}

// `plan`: of an engine of so many tokens; total 0: none could be made, which `unplanned` says why.
static void print_text(const json_t *doc, const gyre_memory *plan, uint32_t context, const char *unplanned)
{
    const json_t *m = json_object_get(doc, "model"), *t;
    const char *key;
    json_t *value;
    size_t i;
    printf("%s (%s, %.1f MiB of tensors)\n", json_string_value(json_object_get(doc, "path")),
           json_string_value(json_object_get(doc, "container")), mib(json_object_get(doc, "bytes")));
    print_verdict(json_object_get(doc, "verdict"));
    if (json_is_object(m)) {
        print_model(m);
        print_rotations(json_object_get(doc, "rotations"));
        print_weights(json_object_get(doc, "memory"), m);
    }
    if (plan->total) {
        printf("\nwith an engine of its settings\n");
        cli_print_memory(plan, context);
    } else if (json_is_true(json_object_get(json_object_get(doc, "verdict"), "runs"))) {
        printf("\nno engine of its settings\n  %s\n", unplanned);
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
        const json_t *bytes = json_object_get(t, "bytes");
        printf("  %-40s %-6s %-16s", json_string_value(json_object_get(t, "name")),
               json_string_value(json_object_get(t, "type")), shape ? shape : "?");
        if (json_is_null(bytes)) printf(" %12s\n", "not read");
        else printf(" %12lld bytes\n", (long long)json_integer_value(bytes));
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
    st = gyre_file_write(path, dot, strlen(dot), err);
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
    if (!graph && (engine.device || engine.tune))
        return cli_usage("unusable option (%s): it is of --graph, and the memory plan is any device's; leave it out",
                         engine.device ? "--device" : "--tune");
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
        gyre_error unplanned = {0};
        if (gyre_plan(path, &params, &plan, &unplanned) != GYRE_OK) plan.total = 0;
        json_t *doc = json_loads(text, 0, NULL);
        json_object_set_new(json_object_get(doc, "verdict"), "quantizes", quantizes(path, doc));
        if (json && plan.total) json_object_set_new(doc, "plan", cli_memory_json(&plan));
        if (json) status = cli_print_json(doc);
        else print_text(doc, &plan, engine.context, unplanned.message);
        if (!json) json_decref(doc);
    }
    free(text);
    return st == GYRE_OK ? status : cli_fail(&err);
}

const struct cli_command cli_inspect = {"inspect", "FILE", "Show what a model file holds", run, 1, false};
