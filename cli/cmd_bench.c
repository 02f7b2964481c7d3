// gyre bench: prefill and decode speed of a model, held against what the device can do at best; without a model, the
// device's ceilings alone.
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 32, ROWS = 32 };

struct bench {
    const char *model;
    uint32_t prompt, gen;
    struct cli_engine engine;
    bool json, profile;
};

struct result {
    gyre_roofs roofs;
    gyre_timings t;
    gyre_engine_info info;
    gyre_profile_row decode[ROWS], prefill[ROWS];
    size_t n_decode, n_prefill;
};

static double per_second(uint64_t n, uint64_t ns) { return ns ? (double)n * 1e9 / (double)ns : 0; }

// A prompt of distinct, ordinary ids: what the tokens say does not change the work.
static gyre_status run_once(const struct bench *b, gyre_engine *engine, struct result *r, gyre_error *err)
{
    uint32_t *tokens = malloc(b->prompt * sizeof *tokens), next = 0;
    gyre_session *session = NULL;
    gyre_status st = tokens ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot benchmark: out of memory");
    for (uint32_t i = 0; tokens && i < b->prompt; i++) tokens[i] = (i * 7919u + 13u) % r->info.vocab;
    if (st == GYRE_OK) GYRE_GO(gyre_session_create(engine, &session, err));
    if (st != GYRE_OK) goto done;
    GYRE_GO(gyre_session_sync(session, tokens, b->prompt, NULL, &next, err));
    for (uint32_t i = 0; i < b->gen; i++) {
        if (cli_interrupted()) {
            st = gyre_fail(err, GYRE_E_CANCELLED, "interrupted while benchmarking");
            goto done;
        }
        GYRE_GO(gyre_session_decode(session, next, &next, err));
    }
    r->t = gyre_session_timings(session);
    if (b->profile) {
        GYRE_GO(gyre_session_profile(session, b->prompt, r->prefill, ROWS, &r->n_prefill, err));
        GYRE_GO(gyre_session_profile(session, 1, r->decode, ROWS, &r->n_decode, err));
    }
done:
    gyre_session_destroy(session);
    free(tokens);
    return st;
}

static gyre_status bench_device(const struct bench *b, const char *device, struct result *r, gyre_error *err)
{
    const gyre_log log = cli_log(true);
    GYRE_TRY(gyre_measure_roofs(device, &log, &r->roofs, err));
    if (!b->model) return GYRE_OK;
    struct cli_engine options = b->engine;
    options.device = device;
    options.context = b->prompt + b->gen + 1;
    gyre_engine *engine = NULL;
    GYRE_TRY(cli_open(b->model, &options, true, &engine, err));
    gyre_engine_describe(engine, &r->info);
    gyre_status st = run_once(b, engine, r, err); // compiles and warms
    if (st == GYRE_OK) st = run_once(b, engine, r, err);
    gyre_engine_close(engine, NULL);
    return st;
}

static json_t *profile_json(const gyre_profile_row *rows, size_t n)
{
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(out, json_pack("{s:s, s:i, s:f}", "kernel", rows[i].op, "dispatches",
                                             (int)rows[i].dispatches, "ms", rows[i].ms));
    return out;
}

static void print_profile(const char *title, const gyre_profile_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%s    %-28s %4u dispatches %9.3f ms\n", i ? "" : title, rows[i].op, rows[i].dispatches, rows[i].ms);
}

static json_t *result_json(const struct bench *b, const struct result *r)
{
    json_t *out =
        json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "device", r->roofs.device, "name", r->roofs.name, "roof_GBps",
                  r->roofs.read_gbps, "int8_gops", r->roofs.int8_gops, "f32_gflops", r->roofs.f32_gflops, "dispatch_us",
                  r->roofs.dispatch_us, "round_trip_us", r->roofs.round_trip_us);
    if (!b->model || !out) return out;
    const double decode = per_second(r->t.decode_tokens, r->t.decode_ns),
                 gbps = decode * (double)r->info.weight_bytes_per_token * 1e-9;
    json_t *more = json_pack(
        "{s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:i, s:i}", "prompt_tokens", (json_int_t)r->t.prefill_tokens,
        "prefill_tps", per_second(r->t.prefill_tokens, r->t.prefill_ns), "gen_tokens", (json_int_t)r->t.decode_tokens,
        "decode_tps", decode, "decode_GBps", gbps, "roof_share", r->roofs.read_gbps > 0 ? gbps / r->roofs.read_gbps : 0,
        "host_us_per_token", r->t.decode_tokens ? (double)r->t.decode_host_ns * 1e-3 / (double)r->t.decode_tokens : 0,
        "act", (int)r->info.act, "kv", (int)r->info.kv);
    json_object_update(out, more);
    json_decref(more);
    if (b->profile) {
        json_object_set_new(out, "profile", profile_json(r->decode, r->n_decode));
        json_object_set_new(out, "prefill_profile", profile_json(r->prefill, r->n_prefill));
    }
    return out;
}

static void print_result(const struct bench *b, const struct result *r)
{
    printf("%s  %s\n  reads %.1f GB/s, int8 %.1f Gop/s, f32 %.1f Gflop/s, dispatch %.1f us, round trip %.1f us\n",
           r->roofs.device, r->roofs.name, r->roofs.read_gbps, r->roofs.int8_gops, r->roofs.f32_gflops,
           r->roofs.dispatch_us, r->roofs.round_trip_us);
    if (!b->model) return;
    const double decode = per_second(r->t.decode_tokens, r->t.decode_ns),
                 gbps = decode * (double)r->info.weight_bytes_per_token * 1e-9;
    printf("  prefill %8.1f tok/s (%llu tokens)\n  decode  %8.1f tok/s (%llu tokens), %.2f GB/s of weights = %.0f %% "
           "of the measured bandwidth, host %.0f us a token, act %u, kv %u\n",
           per_second(r->t.prefill_tokens, r->t.prefill_ns), (unsigned long long)r->t.prefill_tokens, decode,
           (unsigned long long)r->t.decode_tokens, gbps, r->roofs.read_gbps > 0 ? 100 * gbps / r->roofs.read_gbps : 0,
           r->t.decode_tokens ? (double)r->t.decode_host_ns * 1e-3 / (double)r->t.decode_tokens : 0, r->info.act,
           r->info.kv);
    print_profile("  a prefill step\n", r->prefill, r->n_prefill);
    print_profile("  a decode step\n", r->decode, r->n_decode);
}

static int bench_all(const struct bench *b)
{
    gyre_device_facts d[MOST];
    int missing = 0, n = 1;
    const bool all = b->engine.device && strcmp(b->engine.device, "all") == 0;
    if (all) n = gyre_list_devices(d, MOST, NULL, 0, &missing);
    json_t *results = json_array();
    gyre_error err = {0};
    gyre_status st = GYRE_OK;
    for (int i = 0; i < n && i < MOST && st == GYRE_OK; i++) {
        struct result r = {0};
        st = bench_device(b, all ? d[i].id : b->engine.device, &r, &err);
        if (st != GYRE_OK) break;
        if (b->json) json_array_append_new(results, result_json(b, &r));
        else {
            print_result(b, &r);
            st = cli_flush(&err);
        }
    }
    if (st == GYRE_OK && b->json) return cli_print_json(json_pack("{s:o}", "results", results));
    json_decref(results);
    return st == GYRE_OK ? 0 : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct bench b = {.prompt = 128, .gen = 32};
    const struct cli_option options[] = {
        {"--prompt", "N", "tokens of the prompt (128)", CLI_U32, &b.prompt, 1, 1 << 20, NULL},
        {"--gen", "N", "tokens to generate (32)", CLI_U32, &b.gen, 1, 1 << 20, NULL},
        CLI_ENGINE_OPTIONS(b.engine),
        {"--profile", NULL, "device time by kernel of one prefill and one decode step", CLI_FLAG, &b.profile, 0, 0,
         NULL},
        {"--json", NULL, "machine-readable output", CLI_FLAG, &b.json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_bench, options, sizeof options / sizeof *options, argc, argv, &b.model);
    if (stop >= 0) return stop;
    return bench_all(&b);
}

const struct cli_command cli_bench = {
    "bench", "[MODEL]", "Measure speed against the device's ceilings (--device all: every device)", run, 1, true};
