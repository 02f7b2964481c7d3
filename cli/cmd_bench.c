// gyre bench: prefill and decode speed of a model, or of a shape without weights, held against what the device can do
// at best; without either, the device's ceilings alone.
#include "cli/bench_train.h"
#include "cli/bench_tests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 32, ROWS = 32, LIST = 16, REPEATS = 5 };
#define NO_WGROUP UINT32_MAX // none was given

// Numbers with commas between.
struct list {
    uint32_t n, at[LIST];
};

struct bench {
    const char *model, *shape, *depth_text, *rows_text, *format; // format: NULL, or of -o
    uint32_t prompt, gen, wgroup, head, repeat, ahead, train;
    struct list depth, rows; // depth: tokens that the cache holds before; at least one entry
    struct cli_engine engine;
    bool json, profile, plan;
};

// One depth: what the verbs took, and what a decode step asked of the device.
struct run {
    gyre_timings t;     // differences
    double warm_s;      // to get ready for the first prompt
    double submissions; // of a token, on average; below 1 where one submission holds several
    uint64_t dispatches;
    uint64_t prompt_ns[BENCH_SAMPLES], gen_ns[BENCH_SAMPLES]; // of each repetition; t is the last one's
};

struct result {
    gyre_ceilings ceilings;
    gyre_engine_info info;
    struct run run[LIST];
    double step_ms[LIST]; // of each of the bench's rows, the best
    uint64_t step_ns[LIST][REPEATS];
    gyre_profile_row decode[ROWS], prefill[ROWS];
    size_t n_decode, n_prefill;
};

static double per_second(uint64_t n, uint64_t ns) { return ns ? (double)n * 1e9 / (double)ns : 0; }

static gyre_timings less(gyre_timings a, gyre_timings b)
{
    return (gyre_timings){a.prefill_tokens - b.prefill_tokens, a.prefill_ns - b.prefill_ns,
                          a.decode_tokens - b.decode_tokens,   a.decode_ns - b.decode_ns,
                          a.decode_host_ns - b.decode_host_ns, a.warmup_ns - b.warmup_ns};
}

// Distinct, ordinary ids: what the tokens say does not change the work.
static uint32_t *ordinary(size_t n, uint32_t vocab, gyre_error *err)
{
    uint32_t *tokens = malloc(n * sizeof *tokens);
    if (!tokens) (void)gyre_fail(err, GYRE_E_NOMEM, "cannot benchmark: out of memory");
    for (size_t i = 0; tokens && i < n; i++) tokens[i] = (uint32_t)((i * 7919u + 13u) % vocab);
    return tokens;
}

// Fills the cache up to the depth, then times the prompt and what is generated behind it.
static gyre_status run_depth(const struct bench *b, gyre_engine *engine, uint32_t depth, struct result *r,
                             struct run *run, gyre_error *err)
{
    uint32_t next = 0;
    gyre_session *session = NULL;
    gyre_status st = GYRE_OK;
    uint32_t *tokens = ordinary((size_t)depth + b->prompt, r->info.vocab, err);
    if (!tokens) return GYRE_E_NOMEM;
    GYRE_GO(gyre_session_create(engine, &session, err));
    GYRE_GO(gyre_session_warm(session, b->prompt, NULL, err));
    run->warm_s = (double)gyre_session_timings(session).warmup_ns * 1e-9;
    cli_cancel_on_signal(session);
    if (depth) GYRE_GO(gyre_session_sync(session, tokens, depth, NULL, NULL, err));
    const gyre_timings before = gyre_session_timings(session);
    GYRE_GO(gyre_session_sync(session, tokens, (size_t)depth + b->prompt, NULL, &next, err));
    const gyre_engine_counters start = gyre_engine_count(engine);
    for (uint32_t i = 0; i < b->gen; i++) {
        if (cli_interrupted()) GYRE_GO(gyre_fail(err, GYRE_E_CANCELLED, "interrupted while benchmarking"));
        GYRE_GO(gyre_session_decode_ahead(session, next, b->gen - 1 - i, &next, err));
    }
    const gyre_engine_counters end = gyre_engine_count(engine);
    run->t = less(gyre_session_timings(session), before);
    run->submissions = (double)(end.submissions - start.submissions) / b->gen;
    run->dispatches = (end.dispatches - start.dispatches) / b->gen;
    if (b->profile && depth == b->depth.at[0]) {
        GYRE_GO(gyre_session_profile(session, b->prompt, r->prefill, ROWS, &r->n_prefill, err));
        GYRE_GO(gyre_session_profile(session, 1, r->decode, ROWS, &r->n_decode, err));
    }
done:
    cli_cancel_on_signal(NULL);
    gyre_session_destroy(session);
    free(tokens);
    return st;
}

// Best time of a step of `rows` rows of one sequence that was empty, in ms.
static gyre_status run_rows(gyre_engine *engine, uint32_t rows, uint32_t vocab, double *ms, uint64_t ns[REPEATS],
                            gyre_error *err)
{
    gyre_session *session = NULL;
    gyre_status st = GYRE_OK;
    uint32_t *tokens = ordinary(rows, vocab, err);
    if (!tokens) return GYRE_E_NOMEM;
    GYRE_GO(gyre_session_create(engine, &session, err));
    cli_cancel_on_signal(session);
    GYRE_GO(gyre_session_warm(session, rows, NULL, err));
    *ms = 1e9;
    for (uint32_t i = 0; i < REPEATS; i++) {
        if (cli_interrupted()) GYRE_GO(gyre_fail(err, GYRE_E_CANCELLED, "interrupted while benchmarking"));
        const uint64_t before = gyre_session_timings(session).prefill_ns;
        tokens[0] = (tokens[0] + 1) % vocab; // another text: nothing of it is cached
        GYRE_GO(gyre_session_sync(session, tokens, rows, NULL, NULL, err));
        ns[i] = gyre_session_timings(session).prefill_ns - before;
        if ((double)ns[i] * 1e-6 < *ms) *ms = (double)ns[i] * 1e-6;
    }
done:
    cli_cancel_on_signal(NULL);
    gyre_session_destroy(session);
    free(tokens);
    return st;
}

// Parameters of an engine that all of the bench's runs fit into.
static gyre_engine_params params_of(const struct bench *b, const char *device)
{
    gyre_engine_params p = cli_engine_params(&b->engine);
    p.device = device;
    p.log = cli_log(true);
    p.shape_head = b->head;
    p.ahead = b->ahead;
    p.context = 1;
    for (uint32_t i = 0; i < b->depth.n; i++)
        if (b->depth.at[i] + b->prompt + b->gen + 1 > p.context) p.context = b->depth.at[i] + b->prompt + b->gen + 1;
    for (uint32_t i = 0; i < b->rows.n; i++)
        if (b->rows.at[i] > p.context) p.context = b->rows.at[i];
    return p;
}

static gyre_status open_it(const struct bench *b, const char *device, gyre_engine **out, gyre_error *err)
{
    const gyre_engine_params params = params_of(b, device);
    return b->model ? gyre_engine_open(b->model, &params, out, err)
                    : gyre_engine_open_shape(b->shape, b->wgroup, &params, out, err);
}

// What it would take, without taking it.
static int print_plan(const struct bench *b)
{
    gyre_error err = {0};
    gyre_memory plan = {.size = sizeof plan};
    const gyre_engine_params params = params_of(b, NULL);
    const gyre_status st = b->model ? gyre_plan(b->model, &params, &plan, &err)
                                    : gyre_plan_shape(b->shape, b->wgroup, &params, &plan, &err);
    if (st != GYRE_OK) return cli_fail(&err);
    if (b->json) return cli_print_json(cli_memory_json(&plan));
    cli_print_memory(&plan, params.context);
    return 0;
}

static gyre_status bench_device(const struct bench *b, const char *device, struct result *r, gyre_error *err)
{
    const gyre_log log = cli_log(true);
    gyre_engine *engine = NULL; // first: what cannot be opened is said before anything is measured
    if (b->model || b->shape) GYRE_TRY(open_it(b, device, &engine, err));
    r->ceilings.size = sizeof r->ceilings;
    gyre_status st = gyre_measure_ceilings(device, &log, &r->ceilings, err);
    if (!engine) return st;
    gyre_engine_describe(engine, &r->info);
    for (uint32_t i = 0; i < b->depth.n && st == GYRE_OK; i++)
        for (uint32_t k = 0; k < b->repeat && st == GYRE_OK; k++) {
            st = run_depth(b, engine, b->depth.at[i], r, &r->run[i], err);
            r->run[i].prompt_ns[k] = r->run[i].t.prefill_ns;
            r->run[i].gen_ns[k] = r->run[i].t.decode_ns;
        }
    for (uint32_t i = 0; i < b->rows.n && st == GYRE_OK; i++)
        st = run_rows(engine, b->rows.at[i], r->info.vocab, &r->step_ms[i], r->step_ns[i], err);
    (void)gyre_engine_close(engine, NULL);
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

static json_t *ceilings_json(const gyre_ceilings *c)
{
    const gyre_roofs *r = &c->roofs;
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "device", r->device, "name", r->name, "roof_GBps",
                     r->read_gbps, "int8_gops", r->int8_gops, "f32_gflops", r->f32_gflops, "matrix_int8_gops",
                     c->matrix_s8_gops, "matrix_f16_gflops", c->matrix_f16_gflops, "dispatch_us", r->dispatch_us,
                     "round_trip_us", r->round_trip_us);
}

// Operations of a token in the blocks' products: what a prefill is made of, but for attention.
static double product_ops(const gyre_engine_info *m)
{
    const double heads = (double)m->heads * m->head_dim, kv = 2.0 * m->kv_heads * m->head_dim;
    return 2 * m->layers * (double)m->width * (2 * heads + kv + 3.0 * m->ffn);
}

// What products reach at most at the width of the activations: the better of dot products and matrix units. 0: not
// known, as of CPUs, whose kernels multiply otherwise than what was measured.
static double product_roof(const struct result *r)
{
    if (r->ceilings.software) return 0;
    const gyre_ceilings *c = &r->ceilings;
    if (r->info.act > 8) return c->roofs.f32_gflops;
    return c->matrix_s8_gops > c->roofs.int8_gops ? c->matrix_s8_gops : c->roofs.int8_gops;
}

static double prefill_gops(const struct result *r, const gyre_timings *t)
{
    return per_second(t->prefill_tokens, t->prefill_ns) * product_ops(&r->info) * 1e-9;
}

static double read_gbps(const struct result *r, const gyre_timings *t)
{
    return per_second(t->decode_tokens, t->decode_ns) * (double)r->info.weight_bytes_per_token * 1e-9;
}

static double host_us(const gyre_timings *t)
{
    return t->decode_tokens ? (double)t->decode_host_ns * 1e-3 / (double)t->decode_tokens : 0;
}

static json_t *result_json(const struct bench *b, const struct result *r, uint32_t i)
{
    json_t *out = ceilings_json(&r->ceilings);
    if ((!b->model && !b->shape) || !out) return out;
    const struct run *run = &r->run[i];
    const double gbps = read_gbps(r, &run->t), gops = prefill_gops(r, &run->t);
    json_t *more = json_pack(
        "{s:o, s:I, s:I, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:i, s:i, s:i}", "model",
        cli_json_text(b->model ? b->model : b->shape), "depth", (json_int_t)b->depth.at[i], "prompt_tokens",
        (json_int_t)run->t.prefill_tokens, "prefill_tps", per_second(run->t.prefill_tokens, run->t.prefill_ns),
        "prefill_gops", gops, "prefill_share", product_roof(r) > 0 ? gops / product_roof(r) : 0, "gen_tokens",
        (json_int_t)run->t.decode_tokens, "decode_tps", per_second(run->t.decode_tokens, run->t.decode_ns),
        "decode_GBps", gbps, "roof_share", r->ceilings.roofs.read_gbps > 0 ? gbps / r->ceilings.roofs.read_gbps : 0,
        "host_us_per_token", host_us(&run->t), "submissions_per_token", run->submissions, "dispatches_per_token",
        (json_int_t)run->dispatches, "dispatches_per_layer", (json_int_t)(run->dispatches / r->info.layers), "warmup_s",
        run->warm_s, "act", (int)r->info.act, "kv", (int)r->info.kv, "kv_v", (int)r->info.kv_v);
    json_object_update(out, more);
    json_decref(more);
    if (i) return out;
    if (b->profile) {
        json_object_set_new(out, "profile", profile_json(r->decode, r->n_decode));
        json_object_set_new(out, "prefill_profile", profile_json(r->prefill, r->n_prefill));
    }
    json_t *steps = b->rows.n ? json_array() : NULL;
    for (uint32_t k = 0; k < b->rows.n; k++)
        json_array_append_new(steps, json_pack("{s:I, s:f}", "rows", (json_int_t)b->rows.at[k], "ms", r->step_ms[k]));
    if (steps) json_object_set_new(out, "steps", steps);
    return out;
}

static void print_result(const struct bench *b, const struct result *r)
{
    const gyre_ceilings *c = &r->ceilings;
    printf("%s  %s\n  reads %.1f GB/s, int8 %.1f Gop/s, f32 %.1f Gflop/s, dispatch %.1f us, round trip %.1f us\n",
           c->roofs.device, c->roofs.name, c->roofs.read_gbps, c->roofs.int8_gops, c->roofs.f32_gflops,
           c->roofs.dispatch_us, c->roofs.round_trip_us);
    if (c->matrix_s8_gops > 0)
        printf("  matrix units: int8 %.1f Gop/s, f16 %.1f Gflop/s\n", c->matrix_s8_gops, c->matrix_f16_gflops);
    if (!b->model && !b->shape) return;
    for (uint32_t i = 0; i < b->depth.n; i++) {
        const gyre_timings *t = &r->run[i].t;
        const double gbps = read_gbps(r, t);
        if (b->depth.n > 1 || b->depth.at[0]) printf("  behind %u tokens\n", b->depth.at[i]);
        const double gops = prefill_gops(r, t), most = product_roof(r);
        printf("  prefill %8.1f tok/s (%llu tokens), %.1f Gop/s of products",
               per_second(t->prefill_tokens, t->prefill_ns), (unsigned long long)t->prefill_tokens, gops);
        if (most > 0) printf(" = %.0f %% of the measured rate", 100 * gops / most);
        printf("\n");
        printf("  decode  %8.1f tok/s (%llu tokens), %.2f GB/s of weights = %.0f %% of the measured bandwidth, "
               "host %.0f us a token, act %u, kv %s\n",
               per_second(t->decode_tokens, t->decode_ns), (unsigned long long)t->decode_tokens, gbps,
               r->ceilings.roofs.read_gbps > 0 ? 100 * gbps / r->ceilings.roofs.read_gbps : 0, host_us(t), r->info.act,
               cli_widths(r->info.kv, r->info.kv_v).text);
    }
    printf("  a token: %.3g submissions, %llu dispatches in %u layers\n", r->run[0].submissions,
           (unsigned long long)r->run[0].dispatches, r->info.layers);
    for (uint32_t i = 0; i < b->rows.n; i++) printf("  a step of %4u rows: %9.3f ms\n", b->rows.at[i], r->step_ms[i]);
    print_profile("  a prefill step\n", r->prefill, r->n_prefill);
    print_profile("  a decode step\n", r->decode, r->n_decode);
}

static void append_test(json_t *tests, const struct bench *b, const struct result *r, uint32_t prompt, uint32_t gen,
                        uint32_t depth, const uint64_t *ns, uint32_t n)
{
    struct bench_test test = {.model = b->model ? b->model : b->shape,
                              .n_prompt = prompt,
                              .n_gen = gen,
                              .n_depth = depth,
                              .n_batch = 512, // an engine's default
                              .n = n};
    memcpy(test.samples_ns, ns, n * sizeof *ns);
    json_array_append_new(tests, bench_test_json(&test, &r->info));
}

// Prompts, what was generated, and steps of rows as prompts that short.
static void append_tests(json_t *tests, const struct bench *b, const struct result *r)
{
    for (uint32_t i = 0; i < b->depth.n; i++) {
        append_test(tests, b, r, b->prompt, 0, b->depth.at[i], r->run[i].prompt_ns, b->repeat);
        append_test(tests, b, r, 0, b->gen, b->depth.at[i], r->run[i].gen_ns, b->repeat);
    }
    for (uint32_t i = 0; i < b->rows.n; i++) append_test(tests, b, r, b->rows.at[i], 0, 0, r->step_ns[i], REPEATS);
}

// Takes `results`.
static int print_results(const struct bench *b, json_t *results)
{
    if (b->format) return bench_tests_print(b->format, results);
    if (b->json) return cli_print_json(json_pack("{s:o}", "results", results));
    json_decref(results);
    return 0;
}

// Where a device fails those before it are printed all the same.
static int bench_all(const struct bench *b)
{
    gyre_device_facts d[MOST];
    int missing = 0, n = 1;
    const bool all = b->engine.device && strcmp(b->engine.device, "all") == 0;
    if (all) n = gyre_list_devices(d, MOST, NULL, 0, &missing);
    json_t *results = json_array();
    gyre_error err = {0}, why;
    gyre_status st = GYRE_OK;
    for (int i = 0; i < n && i < MOST && st == GYRE_OK; i++) {
        struct result r = {0};
        st = bench_device(b, all ? d[i].id : b->engine.device, &r, &err);
        if (st != GYRE_OK && all) {
            why = err;
            (void)gyre_fail(&err, st, "cannot bench (%s): %s", d[i].id, why.message);
        }
        if (st != GYRE_OK) break;
        if (b->format) append_tests(results, b, &r);
        for (uint32_t k = 0; b->json && k < b->depth.n; k++) json_array_append_new(results, result_json(b, &r, k));
        if (!b->json && !b->format) {
            print_result(b, &r);
            st = cli_flush(&err);
        }
    }
    if (st != GYRE_OK && json_array_size(results) == 0) {
        json_decref(results);
        return cli_fail(&err);
    }
    const int printed = print_results(b, results);
    return st == GYRE_OK || printed ? printed : cli_fail(&err);
}

// Numbers from min to max with commas between; false for anything else.
static bool parse_list(const char *text, uint32_t min, uint32_t max, struct list *out)
{
    char *end = NULL;
    for (const char *p = text; p; p = *end ? end + 1 : NULL) {
        errno = 0;
        const unsigned long long v = strtoull(p, &end, 10);
        if (*p < '0' || *p > '9' || errno || v < min || v > max || (*end && *end != ',') || out->n == LIST)
            return false;
        out->at[out->n++] = (uint32_t)v;
    }
    return out->n > 0;
}

// No option is there that a step of training would not look at.
static bool takes_train(const struct bench *b)
{
    const struct cli_engine *e = &b->engine;
    return !b->prompt && !b->gen && !b->depth_text && !b->rows_text && !b->head && !b->ahead && !b->format &&
           !b->profile && !e->act && !e->kv[0] && !e->weights && !e->table && !e->tune;
}

// What was asked of nothing that would look at it. Returns -1 to go on, else the exit status.
static int check_places(const struct bench *b)
{
    const struct cli_engine *e = &b->engine;
    const char *of_speed = b->prompt                ? "--prompt"
                           : b->gen                 ? "--gen"
                           : b->depth_text          ? "-d"
                           : b->rows_text           ? "--rows"
                           : b->ahead               ? "--ahead"
                           : b->profile             ? "--profile"
                           : e->act                 ? "--act"
                           : e->kv[0]               ? "--kv"
                           : e->weights             ? "--weights"
                           : e->table               ? "--table"
                           : e->tune                ? "--tune"
                           : b->wgroup != NO_WGROUP ? "--wgroup"
                                                    : NULL,
               *of_runs = e->device    ? "--device"
                          : b->profile ? "--profile"
                          : e->tune    ? "--tune"
                                       : NULL;
    if (b->head && !b->shape)
        return cli_usage("unusable option (--head %u): it is of a --shape; a MODEL's head is as it is", b->head);
    if (b->model && b->wgroup != NO_WGROUP)
        return cli_usage("unusable option (--wgroup %u): it is of a --shape; a MODEL's weights are as they are",
                         b->wgroup);
    if (b->plan && !b->model && !b->shape)
        return cli_usage("missing argument (--plan): name a MODEL or a --shape to plan for");
    if (!b->model && !b->shape && of_speed)
        return cli_usage("missing argument (%s): it is of a MODEL or a --shape, and only the ceilings of a device are "
                         "measured without; name one, or leave the option out",
                         of_speed);
    if (b->plan && !b->train && of_runs)
        return cli_usage("unusable option (%s): a --plan is any device's and runs nothing; leave one of them out",
                         of_runs);
    return -1;
}

static int run(int argc, char **argv)
{
    struct bench b = {.repeat = 1, .wgroup = NO_WGROUP};
    const struct cli_option options[] = {
        {"--prompt", "N", "tokens of the prompt (128)", CLI_U32, &b.prompt, 1, 1 << 20, NULL},
        {"--gen", "N", "tokens to generate (32)", CLI_U32, &b.gen, 1, 1 << 20, NULL},
        {"-d", "LIST", "tokens that the cache holds before, 0,2048,... (0)", CLI_TEXT, &b.depth_text, 0, 0, NULL},
        {"--rows", "LIST", "also steps of so many rows, 1,8,64,...", CLI_TEXT, &b.rows_text, 0, 0, NULL},
        {"--shape", "NAME", "in place of a model: one's sizes (llama-8b, ...), weights made on the device", CLI_TEXT,
         &b.shape, 0, 0, NULL},
        {"--wgroup", "N", "of the shape's weights: 0 (per channel), 32, 64, 128", CLI_U32, &b.wgroup, 0, 0,
         "0,32,64,128"},
        {"--head", "BITS", "of the shape's head: 8, or 4 with a matrix of its own; default: 8", CLI_U32, &b.head, 0, 0,
         "8,4"},
        {"--ahead", "N", "tokens of a submission, at most 16; default: 8, on a CPU 1", CLI_U32, &b.ahead, 1, 16, NULL},
        CLI_ENGINE_OPTIONS(b.engine),
        {"--plan", NULL, "the memory that it takes, without running", CLI_FLAG, &b.plan, 0, 0, NULL},
        {"--train", "N", "of a --shape: a step of distill over N tokens instead; with --plan its memory", CLI_U32,
         &b.train, 1, 65536, NULL},
        {"--profile", NULL, "device time by kernel of one prefill and one decode step", CLI_FLAG, &b.profile, 0, 0,
         NULL},
        {"-r", "N", "repetitions of each test, with -o (1); steps of --rows have 5", CLI_U32, &b.repeat, 1,
         BENCH_SAMPLES, NULL},
        {"-o", "FORMAT", "records with llama-bench's field names: json, jsonl, csv, md", CLI_TEXT, &b.format, 0, 0,
         "json,jsonl,csv,md"},
        {"--json", NULL, "machine-readable output", CLI_FLAG, &b.json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_bench, options, sizeof options / sizeof *options, argc, argv, &b.model);
    if (stop >= 0) return stop;
    if (b.model && b.shape)
        return cli_usage("unusable option (--shape %s): a model is named, too; leave one of them out", b.shape);
    if (!parse_list(b.depth_text ? b.depth_text : "0", 0, 1 << 20, &b.depth))
        return cli_usage("unusable option (-d %s): it takes at most %d numbers from 0 to %d with commas between",
                         b.depth_text, LIST, 1 << 20);
    if (b.rows_text && !parse_list(b.rows_text, 1, 4096, &b.rows))
        return cli_usage("unusable option (--rows %s): it takes at most %d numbers from 1 to %d with commas between",
                         b.rows_text, LIST, 4096);
    if (b.format && (b.json || b.plan || b.profile || (!b.model && !b.shape)))
        return cli_usage(
            "unusable option (-o %s): it takes a MODEL or a --shape, and none of --json, --plan and --profile",
            b.format);
    if (b.repeat > 1 && !b.format)
        return cli_usage("unusable option (-r %u): repetitions are the samples of records; add -o FORMAT", b.repeat);
    const int misplaced = check_places(&b);
    if (misplaced >= 0) return misplaced;
    if (b.train && (!b.shape || !takes_train(&b)))
        return cli_usage("unusable option (--train %u): it takes a --shape, of which only --wgroup, --device, --plan "
                         "and --json may say more",
                         b.train);
    if (!b.prompt) b.prompt = 128;
    if (!b.gen) b.gen = 32;
    if (b.wgroup == NO_WGROUP) b.wgroup = 0;
    if (b.train) return bench_train(b.shape, b.wgroup, b.train, b.engine.device, b.plan, b.json);
    return b.plan ? print_plan(&b) : bench_all(&b);
}

const struct cli_command cli_bench = {
    "bench", "[MODEL]", "Measure speed against the device's ceilings (--device all: every device)", run, 1, true};
