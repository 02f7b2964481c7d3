// See batch.h.
#include "tests/ops/batch.h"
#include "runtime/util/half.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct batch batch_make(struct check *check, const struct batch_run *runs, int n_runs)
{
    struct batch b = {0};
    int sequences = 0, last = 0;
    for (int i = 0; i < n_runs; i++) {
        b.rows += runs[i].count;
        if (runs[i].sequence < 0) continue;
        if (runs[i].sequence >= sequences) sequences = runs[i].sequence + 1;
        if (runs[i].position + runs[i].count - 1 > last) last = runs[i].position + runs[i].count - 1;
    }
    b.page_stride = last / 32 + 2;
    b.rows_bytes = (size_t)b.rows * sizeof *b.row;
    b.row = check_alloc(check, b.rows_bytes);
    for (int i = 0, r = 0; i < n_runs; i++)
        for (int j = 0; j < runs[i].count; j++, r++) {
            const bool live = runs[i].sequence >= 0;
            b.row[r][1] = live ? runs[i].sequence : 0;
            b.row[r][2] = runs[i].position + j;
            b.row[r][3] = live ? 3 : 2;
        }
    const int entries = sequences * b.page_stride;
    b.table_bytes = (size_t)entries * sizeof *b.table;
    b.table = check_alloc(check, b.table_bytes);
    for (int i = 0; i < entries; i++) b.table[i] = 1 << 20;
    for (int r = 0; r < b.rows; r++) // pages are handed out in the order of need, all those up to a row's position
        for (int page = 0; b.row[r][3] & 1 && page <= b.row[r][2] / 32; page++) {
            int32_t *entry = &b.table[b.row[r][1] * b.page_stride + page];
            if (*entry == 1 << 20) *entry = b.pages_used++;
        }
    for (int i = 0; i < entries; i++) // and then turned around
        if (b.table[i] < 1 << 20) b.table[i] = b.pages_used - 1 - b.table[i];
    return b;
}

static uint32_t halves(float a, float b)
{
    return (uint32_t)gyre_f16_from_f32(a) | (uint32_t)gyre_f16_from_f32(b) << 16;
}

void batch_cache(struct check *check, const struct batch *b, int kv_heads, int hd, uint32_t bits, double drift,
                 struct check_bind *pool, struct check_bind *meta)
{
    const size_t slots = (size_t)(b->pages_used * kv_heads * 32), words = (size_t)hd * bits / 32;
    uint32_t *data = check_alloc(check, 4 * slots * words), *scales = check_alloc(check, 4 * slots);
    memset(data, 0xFF, 4 * slots * words);
    memset(scales, 0xFF, 4 * slots);
    for (int r = 0; r < b->rows; r++)
        for (int t = 0; b->row[r][3] & 1 && t <= b->row[r][2]; t++)
            for (int g = 0; g < kv_heads; g++) {
                const size_t slot =
                    (size_t)((b->table[b->row[r][1] * b->page_stride + t / 32] * kv_heads + g) * 32 + t % 32);
                const float *x = check_normal(check, 2 * words, 1 + drift * t);
                for (size_t w = 0; w < words; w++)
                    data[slot * words + w] = bits == 16 ? halves(x[2 * w], x[2 * w + 1]) : check_random(check);
                const float zero = (float)(check_random(check) % (1u << bits) >> (bits > 8 ? 8 : 0));
                scales[slot] = halves((float)(1 + drift * t) * 3.0f / (float)(1 << bits), zero);
            }
    *pool = (struct check_bind){.data = data, .size = 4 * slots * words};
    *meta = (struct check_bind){.data = scales, .size = 4 * slots};
}

static bool differ(char why[200], size_t at, uint32_t want, uint32_t got)
{
    snprintf(why, 200, "word %zu is 0x%08x, want 0x%08x", at, got, want);
    return false;
}

static bool same_codes(const uint32_t *want, const uint32_t *got, size_t n, int bits, char why[200])
{
    const uint32_t mask = (1u << bits) - 1;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (want[i] == got[i]) continue;
        if (want[i] == CHECK_UNTOUCHED) return differ(why, i, want[i], got[i]);
        for (int s = 0; s < 32; s += bits) {
            const int d = (int)(want[i] >> s & mask) - (int)(got[i] >> s & mask);
            count += d != 0;
            if (d < -1 || d > 1) return differ(why, i, want[i], got[i]);
        }
    }
    if (count <= 1 + n * (size_t)(32 / bits) / 100) return true;
    snprintf(why, 200, "%zu codes in %zu words differ", count, n);
    return false;
}

bool batch_same_cache8(const void *want, const void *got, size_t size, char why[200])
{
    return same_codes(want, got, size / 4, 8, why);
}
bool batch_same_cache4(const void *want, const void *got, size_t size, char why[200])
{
    return same_codes(want, got, size / 4, 4, why);
}

// A half as an integer that counts representable values.
static int steps(uint32_t h) { return h & 0x8000u ? -(int)(h & 0x7FFFu) : (int)h; }

bool batch_same_halves(const void *want, const void *got, size_t size, char why[200])
{
    const uint32_t *a = want, *b = got;
    for (size_t i = 0; i < size / 4; i++) {
        const int low = steps(a[i] & 0xFFFFu) - steps(b[i] & 0xFFFFu), high = steps(a[i] >> 16) - steps(b[i] >> 16);
        const bool kept = a[i] != CHECK_UNTOUCHED || a[i] == b[i];
        // near zero a half is finer than the f32 error of its input: 2^-14 is 1024 steps
        const bool tiny = abs(steps(a[i] & 0xFFFFu)) < 1024 || abs(steps(a[i] >> 16)) < 1024;
        if (!kept || abs(low) > (tiny ? 8 : 1) || abs(high) > (tiny ? 8 : 1)) return differ(why, i, a[i], b[i]);
    }
    return true;
}

bool batch_same_meta(const void *want, const void *got, size_t size, char why[200])
{
    const uint32_t *a = want, *b = got;
    for (size_t i = 0; i < size / 4; i++) {
        if (a[i] == b[i]) continue;
        const float zero = gyre_f32_from_f16((uint16_t)(a[i] >> 16)) - gyre_f32_from_f16((uint16_t)(b[i] >> 16));
        if (a[i] == CHECK_UNTOUCHED || abs(steps(a[i] & 0xFFFFu) - steps(b[i] & 0xFFFFu)) > 1 || zero > 1 || zero < -1)
            return differ(why, i, a[i], b[i]);
    }
    return true;
}
