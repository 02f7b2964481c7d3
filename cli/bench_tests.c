// See bench_tests.h.
#include "cli/bench_tests.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

// Mean and standard deviation of n numbers.
static void moments(const double *x, uint32_t n, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++) sum += x[i];
    *mean = n ? sum / n : 0;
    for (uint32_t i = 0; i < n; i++) squares += (x[i] - *mean) * (x[i] - *mean);
    *deviation = n > 1 ? sqrt(squares / (n - 1)) : 0;
}

static const char *backend_of(const char *device)
{
    return !strncmp(device, "vulkan", 6) ? "Vulkan" : !strncmp(device, "opencl", 6) ? "OpenCL" : "CPU";
}

static const char *cache_type(uint32_t bits)
{
    return bits == 32 ? "f32" : bits == 16 ? "f16" : bits == 8 ? "int8" : "int4";
}

json_t *bench_test_json(const struct bench_test *test, const gyre_engine_info *info)
{
    double ns[BENCH_SAMPLES], ts[BENCH_SAMPLES], avg_ns, stddev_ns, avg_ts, stddev_ts;
    char when[32] = "", type[64];
    const time_t now = time(NULL);
    struct tm utc;
    json_t *const samples_ns = json_array(), *const samples_ts = json_array();
    if (gmtime_r(&now, &utc)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    for (uint32_t i = 0; i < test->n; i++) {
        ns[i] = (double)test->samples_ns[i];
        ts[i] = ns[i] > 0 ? 1e9 * (test->n_prompt + test->n_gen) / ns[i] : 0;
        json_array_append_new(samples_ns, json_integer((json_int_t)test->samples_ns[i]));
        json_array_append_new(samples_ts, json_real(ts[i]));
    }
    moments(ns, test->n, &avg_ns, &stddev_ns);
    moments(ts, test->n, &avg_ts, &stddev_ts);
    snprintf(type, sizeof type, "%s act %u", info->arch, info->act);
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:s, s:I, s:i, s:i, s:s, s:s, s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:f, s:o, s:o}",
        "build_commit", gyre_version(), "backends", backend_of(info->device), "gpu_info", info->device_name,
        "model_filename", cli_json_text(test->model), "model_type", type, "model_size", (json_int_t)info->weight_bytes,
        "n_batch", (int)test->n_batch, "n_ubatch", (int)test->n_batch, "type_k", cache_type(info->kv), "type_v",
        cache_type(info->kv_v), "n_prompt", (int)test->n_prompt, "n_gen", (int)test->n_gen, "n_depth",
        (int)test->n_depth, "test_time", when, "avg_ns", (json_int_t)avg_ns, "stddev_ns", (json_int_t)stddev_ns,
        "avg_ts", avg_ts, "stddev_ts", stddev_ts, "samples_ns", samples_ns, "samples_ts", samples_ts);
}

// Every value in quotes, quotes doubled; lists stay out.
static void print_csv(const json_t *tests)
{
    size_t i;
    const json_t *test;
    const char *key;
    json_t *value;
    for (int head = 1; head >= 0; head--) json_array_foreach(tests, i, test)
        {
            const char *comma = "";
            if (head && i) continue;
            json_object_foreach((json_t *)test, key, value)
            {
                if (json_is_array(value)) continue;
                printf("%s", comma);
                comma = ",";
                if (head) printf("%s", key);
                else if (json_is_integer(value)) printf("\"%lld\"", (long long)json_integer_value(value));
                else if (json_is_real(value)) printf("\"%f\"", json_real_value(value));
                else {
                    putchar('"');
                    for (const char *s = json_string_value(value); *s; s++) printf(*s == '"' ? "\"\"" : "%c", *s);
                    putchar('"');
                }
            }
            putchar('\n');
        }
}

#define TEXT(name) json_string_value(json_object_get(test, name))
#define NUMBER(name) json_number_value(json_object_get(test, name))

static void print_md(const json_t *tests)
{
    size_t i;
    const json_t *test;
    printf("| model | size | backend | type_k | test | t/s |\n| --- | ---: | --- | --- | ---: | ---: |\n");
    json_array_foreach(tests, i, test)
    {
        const int prompt = (int)NUMBER("n_prompt"), depth = (int)NUMBER("n_depth");
        const char *name = strrchr(TEXT("model_filename"), '/');
        char label[64];
        snprintf(label, sizeof label, "%s%d", prompt ? "pp" : "tg", prompt ? prompt : (int)NUMBER("n_gen"));
        if (depth) snprintf(label + strlen(label), sizeof label - strlen(label), " @ d%d", depth);
        printf("| %s %s | %.2f MiB | %s | %s | %s | %.2f ± %.2f |\n", name ? name + 1 : TEXT("model_filename"),
               TEXT("model_type"), NUMBER("model_size") / 1048576.0, TEXT("backends"), TEXT("type_k"), label,
               NUMBER("avg_ts"), NUMBER("stddev_ts"));
    }
}

int bench_tests_print(const char *format, json_t *tests)
{
    gyre_error err = {0};
    size_t i;
    const json_t *test;
    if (!strcmp(format, "json")) return cli_print_json(tests);
    if (!strcmp(format, "csv")) print_csv(tests);
    else if (!strcmp(format, "md")) print_md(tests);
    else json_array_foreach(tests, i, test)
        {
            json_dumpf(test, stdout, JSON_COMPACT);
            putchar('\n');
        }
    json_decref(tests);
    return cli_flush(&err) == GYRE_OK ? 0 : cli_fail(&err);
}
