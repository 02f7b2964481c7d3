// Runs a fuzz target without libFuzzer: every seed, then N mutations (argument; 2000 unless given) of random seeds, the
// same ones every time. A crash, a hang past the test's limit or a sanitizer's report is the failure.
// "seeds FOLDER" writes the seeds there instead, for a libFuzzer program to start from.
#include "tests/fuzz/common.h"
#include "tests/fuzz/target.h"

#include "runtime/util/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void mutate(struct bytes *b, struct gyre_rng *rng)
{
    static const uint64_t odd[] = {0,          1,         0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF,
                                   UINT64_MAX, 1ull << 40};
    const uint64_t changes = 1 + gyre_rng_below(rng, 8);
    for (uint64_t c = 0; c < changes && b->size > 16; c++) {
        // Headers are where the structure is: half of all changes go to the first 2 KiB.
        const uint64_t reach = gyre_rng_below(rng, 2) && b->size > 2048 ? 2048 : b->size;
        unsigned char *at = b->data + gyre_rng_below(rng, reach - 8);
        switch (gyre_rng_below(rng, 6)) {
        case 0:
            at[0] ^= (unsigned char)(1u << gyre_rng_below(rng, 8));
            break;
        case 1:
            at[0] = (unsigned char)gyre_rng_below(rng, 256);
            break;
        case 2:
            memcpy(at, &odd[gyre_rng_below(rng, sizeof odd / sizeof *odd)], 1u << gyre_rng_below(rng, 4));
            break;
        case 3:
            memmove(at, b->data + gyre_rng_below(rng, b->size - 8), 8);
            break;
        case 4:
            b->size -= gyre_rng_below(rng, b->size / 4);
            break;
        default: {
            const size_t n = (size_t)gyre_rng_below(rng, 40), left = (size_t)(b->data + b->size - at);
            if (n < left) memmove(at, at + n, left - n), b->size -= n; // a piece vanishes
            break;
        }
        }
    }
}

static int write_seeds(const char *folder)
{
    struct bytes seed = {0};
    for (unsigned i = 0; fuzz_seed(i, &seed); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/seed-%u", folder, i);
        if (save_bytes(&seed, path)) {
            fprintf(stderr, "cannot write (%s): is there such a folder?\n", path);
            return 1;
        }
        seed.size = 0;
    }
    free(seed.data);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "seeds")) return write_seeds(argv[2]);
    enum { MAX_SEEDS = 64 };
    struct bytes seeds[MAX_SEEDS] = {{0}};
    unsigned n = 0;
    const unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
    struct gyre_rng rng = gyre_rng_seed(argc > 2 ? strtoul(argv[2], NULL, 10) : 1);
    while (n < MAX_SEEDS && fuzz_seed(n, &seeds[n])) {
        LLVMFuzzerTestOneInput(seeds[n].data, seeds[n].size);
        n++;
    }
    if (n == 0) return 1;
    for (unsigned long i = 0; i < runs; i++) {
        const struct bytes *seed = &seeds[gyre_rng_below(&rng, n)];
        struct bytes copy = {0};
        put(&copy, seed->data, seed->size);
        mutate(&copy, &rng);
        LLVMFuzzerTestOneInput(copy.data, copy.size);
        free(copy.data);
    }
    for (unsigned i = 0; i < n; i++) free(seeds[i].data);
    printf("%u seeds and %lu mutations: no crash\n", n, runs);
    return 0;
}
