// A step's rows and page tables for tests of ops that touch the KV cache: several sequences, dead rows, pages in
// no order. Unused table entries point far outside the pool.
#pragma once
#include "tests/ops/check.h"

// `count` rows of one sequence from `position` on; sequence -1: rows that are not live.
struct batch_run {
    int sequence, position, count;
};

struct batch {
    int rows, page_stride, pages_used;
    size_t rows_bytes, table_bytes;
    int32_t (*row)[4];
    int32_t *table;
};

struct batch batch_make(struct check *check, const struct batch_run *runs, int n_runs);

// A pool with what the batch's sequences have cached, NaN elsewhere. `drift` grows values with the position, so that
// the running maximum of the softmax keeps moving.
void batch_cache(struct check *check, const struct batch *b, int kv_heads, int hd, uint32_t bits, double drift,
                 struct check_bind *pool, struct check_bind *meta);

// Comparisons for check_bind.compare: codes of the cache at most 1 apart (and few of them), halves at most one unit
// apart, meta words with the scale at most one unit and the zero point at most 1 apart. Untouched words stay untouched.
bool batch_same_cache8(const void *want, const void *got, size_t size, char why[200]);
bool batch_same_cache4(const void *want, const void *got, size_t size, char why[200]);
bool batch_same_halves(const void *want, const void *got, size_t size, char why[200]);
bool batch_same_meta(const void *want, const void *got, size_t size, char why[200]);
