// Places of pages, without a device or a model: what a text sees lies where the table says, whatever others took, and
// the places that there are always suffice.
#include "runtime/model/window.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { SEQUENCES = 3, STRIDE = 12, PAGES = SEQUENCES * STRIDE, ROWS = 48, STEPS = 2000 };

// Texts of which each has a third of the pages; a page is written from its beginning on, or where it lay before.
struct texts {
    struct gyre_window w;
    int32_t row[SEQUENCES][STRIDE];
    uint32_t length[SEQUENCES], holds[PAGES + 1], text[PAGES], n_texts; // by place; by page: as its text is now
};

static void check(const struct texts *t)
{
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        assert_int_equal(gyre_window_reach(&t->w, t->row[s], t->length[s]), t->length[s]);
        for (uint32_t i = gyre_window_first(&t->w, t->length[s]); i < gyre_div_up(t->length[s], GYRE_PAGE); i++) {
            const int32_t page = t->row[s][i], place = t->w.place[page];
            assert_true(place > 0 && place < (int32_t)t->w.n_places && t->w.page[place] == page);
            assert_int_equal(t->holds[place], t->text[page]);
        }
    }
}

// The table, which is told in part, says the places of what the text is near, and 0 for the others.
static void tell(struct texts *t, uint32_t s)
{
    uint64_t at;
    uint32_t n;
    const struct gyre_window_view *v = &t->w.view[s];
    gyre_window_tell(&t->w, s, t->row[s], &at, &n);
    for (uint32_t i = 0; i < STRIDE; i++)
        assert_int_equal(t->w.table[s * STRIDE + i], i >= v->first && i < v->end ? t->w.place[t->row[s][i]] : 0);
    gyre_window_tell(&t->w, s, t->row[s], &at, &n);
    assert_int_equal(n, 0);
}

// Several go on, by ROWS positions in all.
static void go_on(struct texts *t, struct gyre_rng *rng)
{
    uint32_t left = ROWS, n[SEQUENCES];
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        const uint32_t most = GYRE_MIN(left, STRIDE * GYRE_PAGE - t->length[s]);
        left -= n[s] = s + 1 < SEQUENCES ? (uint32_t)gyre_rng_below(rng, most + 1) : most;
    }
    for (uint32_t s = 0; s < SEQUENCES; s++) { // all look away first
        const struct gyre_window_view *v = &t->w.view[s];
        const uint32_t first = gyre_window_first(&t->w, t->length[s]);
        assert_true(gyre_window_look(&t->w, s, t->row[s], GYRE_MIN(GYRE_MAX(v->first, first), v->end), v->end));
    }
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        const uint32_t end = t->length[s] + n[s];
        if (n[s] == 0) continue;
        assert_true(gyre_window_look(&t->w, s, t->row[s], gyre_window_first(&t->w, t->length[s]),
                                     (uint32_t)gyre_div_up(end, GYRE_PAGE)));
        for (; t->length[s] < end; t->length[s]++) {
            const int32_t page = t->row[s][t->length[s] / GYRE_PAGE], place = t->w.place[page];
            if (t->length[s] % GYRE_PAGE == 0) t->holds[place] = t->text[page] = ++t->n_texts;
            assert_int_equal(t->holds[place], t->text[page]);
        }
        tell(t, s);
    }
}

static void step_back(struct texts *t, uint32_t s, uint32_t to)
{
    const uint32_t had = t->length[s], n = gyre_window_reach(&t->w, t->row[s], to),
                   end = (uint32_t)gyre_div_up(n, GYRE_PAGE);
    assert_true(n <= to && (n == to || n % GYRE_PAGE == 0));
    assert_true(gyre_window_look(&t->w, s, t->row[s], gyre_window_first(&t->w, n), end));
    for (uint32_t i = end; i < gyre_div_up(had, GYRE_PAGE); i++) gyre_window_drop(&t->w, t->row[s][i]);
    t->length[s] = n;
}

static void test_texts_that_go_on_and_back(void **state)
{
    (void)state;
    static const uint32_t spans[] = {1, 2, 3, 5, 32, 33, 34, 35, 64, 100, STRIDE * GYRE_PAGE};
    struct gyre_rng rng = gyre_rng_seed(1);
    for (size_t k = 0; k < GYRE_COUNT(spans); k++) {
        const uint32_t places = gyre_window_places(spans[k], PAGES, SEQUENCES, ROWS);
        static struct texts t;
        uint32_t kept = 0, lost = 0;
        memset(&t, 0, sizeof t);
        assert_true(places <= PAGES + 1);
        assert_true(gyre_window_init(&t.w, spans[k], PAGES, places, SEQUENCES, STRIDE));
        for (int32_t i = 0; i < PAGES; i++) t.row[i / STRIDE][i % STRIDE] = i;
        for (uint32_t i = 0; i < STEPS; i++) {
            const uint32_t s = (uint32_t)gyre_rng_below(&rng, SEQUENCES);
            if (gyre_rng_below(&rng, 8)) {
                go_on(&t, &rng);
            } else {
                const uint32_t to = (uint32_t)gyre_rng_below(&rng, t.length[s] + 1);
                step_back(&t, s, to);
                *(t.length[s] == to ? &kept : &lost) += 1;
            }
            check(&t);
        }
        assert_true(kept > 0 && (lost > 0) == (places <= PAGES)); // with a place for each nothing is ever lost
        gyre_window_free(&t.w);
    }
}

// What a text left behind goes before what no text holds any more, the oldest first; what one is near stays.
static void test_what_goes_first(void **state)
{
    (void)state;
    const int32_t row[] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct gyre_window w;
    assert_true(gyre_window_init(&w, 5, 8, 5, 1, 8)); // four to give
    assert_true(gyre_window_look(&w, 0, row, 0, 4));
    assert_false(gyre_window_look(&w, 0, row, 0, 5)); // which leaves it near nothing
    assert_true(w.view[0].first == w.view[0].end);
    for (int i = 0; i < 8; i++) assert_int_equal(w.near[i], 0);
    assert_true(gyre_window_look(&w, 0, row, 1, 4));
    assert_true(gyre_window_look(&w, 0, row, 3, 4)); // 0, then 1 and 2 are left behind
    gyre_window_idle(&w, 0);
    assert_true(gyre_window_look(&w, 0, row, 3, 5));
    assert_true(w.place[1] < 0 && w.place[2] > 0 && w.place[0] > 0);
    assert_true(gyre_window_look(&w, 0, row, 3, 6));
    assert_true(w.place[2] < 0 && w.place[0] > 0);
    assert_true(gyre_window_look(&w, 0, row, 3, 7));
    assert_true(w.place[0] < 0);
    gyre_window_free(&w);
}

static void test_a_page_in_the_place_of_another(void **state)
{
    (void)state;
    int32_t row[] = {0, 1, 2, 3};
    struct gyre_window w;
    uint64_t at;
    uint32_t n;
    assert_true(gyre_window_init(&w, 40, 8, 8, 1, 4));
    assert_true(gyre_window_look(&w, 0, row, 0, 3));
    gyre_window_tell(&w, 0, row, &at, &n);
    assert_true(at == 0 && n == 3);
    const int32_t place = w.place[1];
    row[1] = 5; // which has no place: it gets that one
    gyre_window_swap(&w, 1, 5, true);
    assert_true(w.place[1] < 0 && w.place[5] == place && w.page[place] == 5 && w.near[5] == 1 && w.near[1] == 0);
    gyre_window_tell(&w, 0, row, &at, &n);
    assert_int_equal(n, 0);
    gyre_window_untold(&w, 0, 1, 2); // as if the device had refused it
    gyre_window_tell(&w, 0, row, &at, &n);
    assert_true(at == 1 && n == 2 && w.table[1] == place);
    gyre_window_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_that_go_on_and_back),
        cmocka_unit_test(test_what_goes_first),
        cmocka_unit_test(test_a_page_in_the_place_of_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
