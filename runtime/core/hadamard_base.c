// Base Hadamard matrices: which orders exist here, and their entries.
// Sources: Paley 1933 (both constructions, over GF(p^k)), Williamson 1944 with the known first rows of orders 92, 116,
// 156 and 172. Nothing here knows about transforms or models; every order is checked exactly by tests/quantizer.
#include "runtime/core/hadamard.h"

#include <string.h>

enum { MAX_Q = GYRE_MAX_HAD_ORDER };

// GF(p^k), k <= 3: element e stands for the polynomial whose coefficients are the base-p digits of e.
struct field {
    uint32_t q, p, k;
    uint32_t reduce[3]; // x^k = reduce[0] + reduce[1] x + reduce[2] x^2
    bool square[MAX_Q]; // non-zero squares
};

static void digits(const struct field *f, uint32_t e, uint32_t out[3])
{
    for (int i = 0; i < 3; i++, e /= f->p) out[i] = e % f->p;
}

static uint32_t difference(const struct field *f, uint32_t a, uint32_t b)
{
    uint32_t x[3], y[3];
    digits(f, a, x);
    digits(f, b, y);
    uint32_t e = 0;
    for (int i = 2; i >= 0; i--) e = e * f->p + (x[i] + f->p - y[i]) % f->p;
    return e;
}

static uint32_t squared(const struct field *f, uint32_t a)
{
    uint32_t x[3], product[5] = {0};
    digits(f, a, x);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) product[i + j] += x[i] * x[j];
    for (uint32_t i = 4; i >= f->k; i--) { // x^i = x^(i-k) * reduce
        const uint32_t c = product[i] % f->p;
        for (uint32_t j = 0; j < f->k; j++) product[i - f->k + j] += c * f->reduce[j];
        product[i] = 0;
    }
    uint32_t e = 0;
    for (int i = 2; i >= 0; i--) e = e * f->p + product[i] % f->p;
    return e;
}

// Finds x^k = r with no root in GF(p): for k = 2 and 3 that makes x^k - r irreducible.
static bool find_irreducible(struct field *f)
{
    for (uint32_t code = 1; code < f->q; code++) {
        digits(f, code, f->reduce);
        bool root = false;
        for (uint32_t x = 0; x < f->p && !root; x++) {
            const uint32_t power = f->k == 2 ? x * x : x * x * x;
            root = power % f->p == (f->reduce[0] + f->reduce[1] * x + f->reduce[2] * x * x) % f->p;
        }
        if (!root) return true;
    }
    return false;
}

static bool make_field(uint32_t q, struct field *f)
{
    if (q < 3 || q >= MAX_Q) return false;
    uint32_t p = 2, k = 0, rest = q;
    while (q % p) p++;
    for (; rest % p == 0; rest /= p) k++;
    if (rest != 1 || k > 3 || p == 2) return false;
    *f = (struct field){.q = q, .p = p, .k = k};
    if (k > 1 && !find_irreducible(f)) return false; // k = 1: x^1 = 0, so products keep their constant term
    for (uint32_t e = 1; e < q; e++) f->square[squared(f, e)] = true;
    return true;
}

// Quadratic character of a - b: 0, +1 for squares, -1 otherwise.
static int8_t character(const struct field *f, uint32_t a, uint32_t b)
{
    return a == b ? 0 : f->square[difference(f, a, b)] ? 1 : -1;
}

// H = I + S, S = [[0, 1], [-1, Q]], q = 3 mod 4.
static void paley_one(const struct field *f, int8_t *out)
{
    const uint32_t n = f->q + 1;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            out[i * n + j] = i == j ? 1 : i == 0 ? 1 : j == 0 ? -1 : character(f, i - 1, j - 1);
}

// The symmetric conference matrix C = [[0, 1], [1, Q]], q = 1 mod 4: 0 -> [[1,-1],[-1,-1]], +-1 -> +-[[1,1],[1,-1]].
static void paley_two(const struct field *f, int8_t *out)
{
    const uint32_t m = f->q + 1, n = 2 * m;
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < m; j++) {
            const int8_t c = i == j ? 0 : i == 0 || j == 0 ? 1 : character(f, i - 1, j - 1);
            int8_t *a = out + (size_t)2 * i * n + 2 * j, *b = a + n;
            a[0] = c ? c : 1;
            a[1] = b[0] = c ? c : -1;
            b[1] = c ? (int8_t)-c : -1;
        }
}

// First halves (positions 0..(m-1)/2) of four symmetric circulants with A^2 + B^2 + C^2 + D^2 = 4m I.
static const struct {
    uint32_t m;
    const char *row[4];
} williamson_table[] = {
    {23, {"+---++-+-+++", "+--++-++++--", "+-----+++--+", "+++-+-+-++-+"}},
    {29, {"+--++----+-++++", "+--+---+-+--+++", "++--++-+-++++--", "+-+++-+++--+-++"}},
    {39, {"+-++------++--+-+-++", "+---+--++++----+-+-+", "++--+++-+--++-+-----", "+---+---+-++-++----+"}},
    {43, {"+---++--++++-+-+++-++-", "++-++++++----+-+--++-+", "+++-+-++--+-+-++++-+--", "++---++++-+--+--++----"}},
};

// [[A,B,C,D], [-B,A,-D,C], [-C,D,A,-B], [-D,-C,B,A]]
static void williamson(uint32_t m, const char *const row[4], int8_t *out)
{
    static const int8_t which[4][4] = {{0, 1, 2, 3}, {1, 0, 3, 2}, {2, 3, 0, 1}, {3, 2, 1, 0}};
    static const int8_t sign[4][4] = {{1, 1, 1, 1}, {-1, 1, -1, 1}, {-1, 1, 1, -1}, {-1, -1, 1, 1}};
    const uint32_t n = 4 * m;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t shift = (j % m + m - i % m) % m, at = shift <= m / 2 ? shift : m - shift;
            const int8_t value = row[which[i / m][j / m]][at] == '+' ? 1 : -1;
            out[i * n + j] = (int8_t)(value * sign[i / m][j / m]);
        }
}

bool gyre_hadamard_base(uint32_t k, int8_t *out)
{
    if (k == 1 || k == 2) {
        if (out) memcpy(out, (const int8_t[]){1, 1, 1, -1}, (size_t)k * k);
        return true;
    }
    if (k % 4 || k == 0 || k > GYRE_MAX_HAD_ORDER) return false;
    struct field f;
    if (make_field(k - 1, &f)) { // k - 1 = 3 mod 4
        if (out) paley_one(&f, out);
        return true;
    }
    if ((k / 2 - 1) % 4 == 1 && make_field(k / 2 - 1, &f)) {
        if (out) paley_two(&f, out);
        return true;
    }
    for (size_t i = 0; i < sizeof williamson_table / sizeof williamson_table[0]; i++)
        if (4 * williamson_table[i].m == k) {
            if (out) williamson(williamson_table[i].m, williamson_table[i].row, out);
            return true;
        }
    return false;
}
