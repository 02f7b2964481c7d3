// What `bench -o` prints: one record a test (a prompt, or tokens generated, behind a depth), with the field names of
// llama.cpp's llama-bench, so that scripts for its tables read ours. Fields that say nothing here are absent.
#pragma once
#include "cli/cli.h"

enum { BENCH_SAMPLES = 16 };

struct bench_test {
    const char *model;                  // its path, or its shape
    uint32_t n_prompt, n_gen, n_depth;  // one of the first two is 0
    uint32_t n_batch;                   // rows of the largest step
    uint64_t samples_ns[BENCH_SAMPLES]; // of the whole test
    uint32_t n;
};

// NULL where memory runs out. avg_ts and stddev_ts (of n - 1; 0 of one sample) are tokens a second.
json_t *bench_test_json(const struct bench_test *test, const gyre_engine_info *info);

// Prints an array of them as "json", "jsonl", "csv" or "md", and takes it. The exit status.
int bench_tests_print(const char *format, json_t *tests);
