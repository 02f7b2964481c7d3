// See check.h. Buffers, comparison and random inputs of the op tests; knows no op.
#include "tests/ops/check.h"
#include "backends/kernel_source.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_block {
    struct check_block *next;
    max_align_t data[];
};

void *check_alloc(struct check *check, size_t bytes)
{
    struct check_block *block = calloc(1, sizeof *block + bytes);
    if (!block) {
        fprintf(stderr, "out of memory (%zu bytes)\n", bytes);
        exit(1);
    }
    block->next = check->blocks;
    check->blocks = block;
    return block->data;
}

void check_release(struct check *check)
{
    for (struct check_block *block = check->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    check->blocks = NULL;
}

uint32_t check_random(struct check *check)
{
    check->random = check->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(check->random >> 32);
}

float *check_uniform(struct check *check, size_t n, double lo, double hi)
{
    float *x = check_alloc(check, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(lo + (hi - lo) * check_random(check) / 4294967296.0);
    return x;
}

float *check_normal(struct check *check, size_t n, double sigma)
{
    float *x = check_alloc(check, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        const double u = (check_random(check) + 1.0) / 4294967297.0, v = check_random(check) / 4294967296.0;
        x[i] = (float)(sigma * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
    return x;
}

uint32_t *check_words(struct check *check, size_t n, uint32_t mask)
{
    uint32_t *x = check_alloc(check, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = check_random(check) & mask;
    return x;
}

// Paley's first construction: I + [[0, 1], [-1, Q]], Q(i, j) = whether i - j is a square mod q.
static bool paley_negative(int k, int i, int j)
{
    const int q = k - 1;
    if (i == j) return false;
    if (i == 0) return false;
    if (j == 0) return true;
    const int d = ((i - j) % q + q) % q;
    for (int s = 1; s < q; s++)
        if (s * s % q == d) return false;
    return true;
}

uint32_t *check_had_base(struct check *check, const int k[3], size_t *words)
{
    size_t n = 0;
    for (int a = 0; a < 3; a++) n += k[a] > 1 ? (size_t)k[a] * (size_t)((k[a] + 31) / 32) : 0;
    *words = n ? n : 1;
    uint32_t *base = check_alloc(check, *words * sizeof *base), *row = base;
    for (int a = 0; a < 3; a++) {
        if (k[a] == 1) continue;
        for (int i = 0; i < k[a]; i++, row += (k[a] + 31) / 32)
            for (int j = 0; j < k[a]; j++)
                if (paley_negative(k[a], i, j)) row[j / 32] |= 1u << (j % 32);
    }
    return base;
}

// ---- comparison ---------------------------------------------------------------------------------------

static bool same_bits(const uint32_t *want, const uint32_t *got, size_t n, char why[200])
{
    size_t count = 0, first = 0;
    for (size_t i = 0; i < n; i++)
        if (want[i] != got[i] && !count++) first = i;
    if (!count) return true;
    snprintf(why, 200, "%zu of %zu words differ; first at %zu: 0x%08x (%g), want 0x%08x (%g)", count, n, first,
             got[first], (double)gyre_f32_from_bits(got[first]), want[first], (double)gyre_f32_from_bits(want[first]));
    return false;
}

static bool close_enough(const uint32_t *want, const uint32_t *got, size_t n, double bound, char why[200])
{
    double error = 0, power = 0, worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if ((want[i] == CHECK_UNTOUCHED) != (got[i] == CHECK_UNTOUCHED)) {
            snprintf(why, 200, "word %zu is %s", i,
                     got[i] == CHECK_UNTOUCHED ? "not written" : "written, should be left alone");
            return false;
        }
        const double w = (double)gyre_f32_from_bits(want[i]), g = (double)gyre_f32_from_bits(got[i]),
                     d = (w - g) * (w - g);
        error += d;
        power += w * w;
        if (!(d <= worst)) {
            worst = d;
            at = i;
        }
    }
    if (error <= bound * power) return true; // NaN fails
    snprintf(why, 200, "NMSE %.3g > %.3g; worst of %zu at %zu: %.9g, want %.9g", error / power, bound, n, at,
             (double)gyre_f32_from_bits(got[at]), (double)gyre_f32_from_bits(want[at]));
    return false;
}

static bool close_codes(const int8_t *want, const int8_t *got, size_t n, char why[200])
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const int d = want[i] - got[i];
        count += d != 0;
        if (d < -1 || d > 1 || count > 1 + n / 100) {
            snprintf(why, 200, "code %zu of %zu is %d, want %d (%zu differ so far)", i, n, got[i], want[i], count);
            return false;
        }
    }
    return true;
}

bool check_anything(const void *want, const void *got, size_t size, char why[200])
{
    (void)want, (void)got, (void)size, (void)why;
    return true;
}

static bool compare(const struct check_bind *bind, const void *want, const void *got, char why[200])
{
    if (bind->compare) return bind->compare(want, got, bind->size, why);
    if (bind->rule == CHECK_BITS) return same_bits(want, got, bind->size / 4, why);
    if (bind->rule == CHECK_CODES) return close_codes(want, got, bind->size, why);
    return close_enough(want, got, bind->size / 4, bind->bound, why);
}

// ---- running ------------------------------------------------------------------------------------------

// One dispatch on one device; the outputs come back in out[n_writes], each bind[i].size bytes.
static gyre_status run(gyre_device *device, const struct check_case *c, const struct gyre_kernel_source *source,
                       void *const *out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct gyre_kernel_params params = {.name = c->kernel, .n_spec = c->n_spec};
    memcpy(params.spec, c->spec, sizeof params.spec);
    struct gyre_dispatch d = {0};
    GYRE_GO(gyre_kernel_create(device, &params, &d.kernel, err));
    memcpy(d.params, c->params, source->params_size);
    for (int i = 0; i < 3; i++) d.groups[i] = c->groups[i] ? c->groups[i] : 1;
    for (uint32_t i = 0; i < source->n_bindings; i++) {
        const void *data = c->bind[i].data ? c->bind[i].data : out[i];
        d.bind[i].size = c->bind[i].size;
        GYRE_GO(gyre_buffer_create(device, c->bind[i].size, "op test", &d.bind[i].buffer, err));
        GYRE_GO(gyre_buffer_write(device, d.bind[i].buffer, 0, data, c->bind[i].size, err));
    }
    GYRE_GO(gyre_run_once(device, &d, 1, err));
    for (uint32_t i = 0; i < source->n_writes; i++)
        GYRE_GO(gyre_buffer_read(device, d.bind[i].buffer, 0, out[i], c->bind[i].size, err));
done:
    for (uint32_t i = 0; i < source->n_bindings; i++) gyre_buffer_destroy(device, d.bind[i].buffer);
    gyre_kernel_destroy(device, d.kernel);
    return st;
}

// Cases seen so far of each kernel, by its place in the table.
enum { MAX_KERNELS = 256 };
static uint32_t n_cases[MAX_KERNELS];

int check_missing(const char *op)
{
    int n = 0;
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++) {
        if (strcmp(gyre_kernel_sources[i]->op, op) || (i < MAX_KERNELS && n_cases[i])) continue;
        fprintf(stderr, "no case runs kernel %s\n", gyre_kernel_sources[i]->name);
        n++;
    }
    return n;
}

// The environment's GYRE_TEST_SHARE=N asks for the first case of each kernel and every Nth after it: simulators are
// slow.
static bool in_share(const struct gyre_kernel_source *source)
{
    const char *text = getenv("GYRE_TEST_SHARE");
    const uint32_t share = text && atoi(text) > 0 ? (uint32_t)atoi(text) : 1;
    for (uint32_t i = 0; i < gyre_kernel_source_count && i < MAX_KERNELS; i++)
        if (gyre_kernel_sources[i] == source) return n_cases[i]++ % share == 0;
    return true;
}

// Whether the device can have the kernel: some are for one API, some for units that few have.
static bool runs_on(const struct gyre_device_info *info, const struct gyre_kernel_source *source)
{
    if (!strncmp(info->id, "vulkan", 6))
        return source->spirv && (!(source->needs & GYRE_NEED_CM_S8) || info->matrix_s8.m) &&
               (!(source->needs & GYRE_NEED_CM_F16) || info->matrix_f16.m);
    return source->opencl || strncmp(info->id, "opencl", 6) != 0;
}

void check_run(struct check *check, const struct check_case *c, const char *label, ...)
{
    char name[160], why[200] = "";
    va_list args;
    va_start(args, label);
    vsnprintf(name, sizeof name, label, args);
    va_end(args);
    check->cases++;

    const struct gyre_kernel_source *source = gyre_kernel_source_find(c->kernel);
    void *out[2][GYRE_MAX_BINDINGS] = {{0}};
    gyre_error err = {0};
    bool passed = source != NULL;
    if (!in_share(source)) return;
    if (source && !runs_on(gyre_device_info(check->device), source)) return;
    if (!source) snprintf(why, sizeof why, "there is no such kernel");
    for (int d = 0; d < 2 && passed; d++) {
        for (uint32_t i = 0; i < source->n_writes; i++) {
            out[d][i] = check_alloc(check, c->bind[i].size);
            memset(out[d][i], CHECK_UNTOUCHED & 0xFF, c->bind[i].size);
        }
        if (run(d ? check->device : check->reference, c, source, out[d], &err) != GYRE_OK) {
            snprintf(why, sizeof why, "%.190s", err.message);
            passed = false;
        }
    }
    for (uint32_t i = 0; passed && i < source->n_writes; i++) {
        passed = compare(&c->bind[i], out[0][i], out[1][i], why);
        if (!passed) fprintf(stderr, "binding %u: ", i);
    }
    if (passed) return;
    check->failed++;
    fprintf(stderr, "%s, %s %s: %s\n", check->op, c->kernel, name, why);
}
