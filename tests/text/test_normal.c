// Normal forms of characters that are younger than the tables of the library that tokenizers are made with: as it gives
// them (tests/data/make_normal.py).
#include "runtime/text/normalize.h"
#include "runtime/util/base.h"
#include "tests/common/ok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/data/normal.inc"

// As UTF-8, malloc'd.
static char *text_of(const uint32_t *codes, size_t n, size_t *bytes)
{
    char *out = malloc(4 * n + 1);
    assert_non_null(out);
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t c = codes[i];
        const int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
        out[(*bytes)++] = (char)(lead[more] | (c >> 6 * more));
        for (int k = more - 1; k >= 0; k--) out[(*bytes)++] = (char)(0x80 | (c >> 6 * k & 0x3F));
    }
    return out;
}

static void test_young(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool compose, compatible;
        const uint32_t *codes;
        size_t n;
    } forms[] = {{"NFC", true, false, young_nfc, GYRE_COUNT(young_nfc)},
                 {"NFD", false, false, young_nfd, GYRE_COUNT(young_nfd)},
                 {"NFKC", true, true, young_nfkc, GYRE_COUNT(young_nfkc)},
                 {"NFKD", false, true, young_nfkd, GYRE_COUNT(young_nfkd)}};
    size_t bytes, due;
    char *text = text_of(young_text, GYRE_COUNT(young_text), &bytes);
    for (size_t i = 0; i < GYRE_COUNT(forms); i++) {
        struct gyre_normalizer n = {0};
        char *want = text_of(forms[i].codes, forms[i].n, &due), *out;
        uint64_t made;
        OK(gyre_normal_unicode(&n, forms[i].compose, forms[i].compatible, err));
        OK(gyre_normalize(&n, text, bytes, true, &out, &made, err));
        assert_non_null(out);
        size_t same = 0;
        while (same < made && same < due && out[same] == want[same]) same++;
        if (made != due || same < due)
            fail_msg("%s: at byte %zu of %zu: %.30s, not %.30s", forms[i].name, same, due, out + same, want + same);
        free(out);
        free(want);
        gyre_normal_free(&n);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_young)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
