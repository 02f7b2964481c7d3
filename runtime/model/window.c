// See window.h.
#include "runtime/model/window.h"

#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

#define IDLE (1ull << 63) // of ages: pages that no sequence holds are all younger than those that one has left behind

uint32_t gyre_window_places(uint32_t span, uint32_t n_pages, uint32_t sequences, uint32_t rows)
{
    // n positions from any one on touch at most (n + 30) / 32 + 1 pages. A sequence sees span - 1 positions before the
    // n that it computes; rounding its share of `rows` up costs a page more.
    const uint64_t each = ((uint64_t)span + GYRE_PAGE - 3) / GYRE_PAGE + 2;
    const uint64_t all = sequences * each + rows / GYRE_PAGE;
    return 1 + (uint32_t)GYRE_MIN(all, (uint64_t)n_pages);
}

bool gyre_window_init(struct gyre_window *w, uint32_t span, uint32_t n_pages, uint32_t n_places, uint32_t sequences,
                      uint32_t stride)
{
    *w = (struct gyre_window){.span = span, .n_places = n_places, .sequences = sequences, .stride = stride};
    w->place = malloc(n_pages * sizeof *w->place);
    w->near = calloc(n_pages, sizeof *w->near);
    w->page = malloc(n_places * sizeof *w->page);
    w->age = calloc(n_places, sizeof *w->age);
    w->view = calloc(sequences, sizeof *w->view);
    w->table = calloc((size_t)sequences * stride, sizeof *w->table);
    if (!w->place || !w->near || !w->page || !w->age || !w->view || !w->table) {
        gyre_window_free(w);
        return false;
    }
    for (uint32_t i = 0; i < n_pages; i++) w->place[i] = -1;
    for (uint32_t i = 0; i < n_places; i++) w->page[i] = -1;
    return true;
}

void gyre_window_free(struct gyre_window *w)
{
    free(w->place);
    free(w->near);
    free(w->page);
    free(w->age);
    free(w->view);
    free(w->table);
    *w = (struct gyre_window){0};
}

uint32_t gyre_window_first(const struct gyre_window *w, uint32_t position)
{
    return position < w->span ? 0 : (position - w->span + 1) / GYRE_PAGE;
}

uint32_t gyre_window_reach(const struct gyre_window *w, const int32_t *row, uint32_t length)
{
    for (uint32_t i = (uint32_t)gyre_div_up(length, GYRE_PAGE); i > gyre_window_first(w, length); i--)
        if (w->place[row[i - 1]] < 0) length = (i - 1) * GYRE_PAGE; // from here on no window may show that page
    return length;
}

// A place for a page that has none: a free one, else the one that is missed least.
static bool give(struct gyre_window *w, int32_t page)
{
    int32_t best = -1;
    for (int32_t i = 1; i < (int32_t)w->n_places; i++) {
        if (w->page[i] >= 0 && w->near[w->page[i]]) continue;
        if (best < 0 || w->age[i] < w->age[best]) best = i;
    }
    if (best < 0) return false;
    if (w->page[best] >= 0) w->place[w->page[best]] = -1;
    w->page[best] = page;
    w->place[page] = best;
    return true;
}

// The sequence is near the page at this index no longer.
static void leave(struct gyre_window *w, const int32_t *row, uint32_t index)
{
    const int32_t page = row[index];
    if (--w->near[page] == 0) w->age[w->place[page]] = ++w->clock;
}

bool gyre_window_look(struct gyre_window *w, uint32_t sequence, const int32_t *row, uint32_t first, uint32_t end)
{
    struct gyre_window_view *v = &w->view[sequence];
    for (uint32_t i = v->first; i < v->end; i++)
        if (i < first || i >= end) leave(w, row, i);
    for (uint32_t i = first; i < end; i++) {
        if (i >= v->first && i < v->end) continue;
        if (w->place[row[i]] < 0 && !give(w, row[i])) {
            for (uint32_t k = first; k < end; k++)
                if (k < i || (k >= v->first && k < v->end)) leave(w, row, k);
            v->first = v->end = 0;
            return false;
        }
        w->near[row[i]]++;
    }
    v->first = first;
    v->end = end;
    return true;
}

void gyre_window_swap(struct gyre_window *w, int32_t mine, int32_t same, bool near)
{
    if (w->place[same] < 0 && w->place[mine] >= 0) { // it lost its place, and here is what lay there
        w->place[same] = w->place[mine];
        w->page[w->place[same]] = same;
        w->place[mine] = -1;
    }
    if (!near) return;
    w->near[same]++;
    if (--w->near[mine] == 0 && w->place[mine] >= 0) w->age[w->place[mine]] = ++w->clock;
}

void gyre_window_idle(struct gyre_window *w, int32_t page)
{
    if (w->span && w->place[page] >= 0) w->age[w->place[page]] = IDLE | ++w->clock;
}

void gyre_window_drop(struct gyre_window *w, int32_t page)
{
    if (!w->span || w->place[page] < 0) return;
    w->page[w->place[page]] = -1;
    w->age[w->place[page]] = 0;
    w->place[page] = -1;
}

void gyre_window_tell(struct gyre_window *w, uint32_t sequence, const int32_t *row, uint64_t *at, uint32_t *n)
{
    struct gyre_window_view *v = &w->view[sequence];
    const bool nothing = v->told_first >= v->told_end; // was told
    const uint32_t from = nothing ? v->first : GYRE_MIN(v->first, v->told_first), to = GYRE_MAX(v->end, v->told_end);
    uint32_t low = to, high = to;
    int32_t *const table = w->table + (uint64_t)sequence * w->stride;
    for (uint32_t i = from; i < to; i++) {
        const int32_t now = i >= v->first && i < v->end ? w->place[row[i]] : 0;
        if (table[i] == now) continue;
        table[i] = now;
        if (low == to) low = i;
        high = i + 1;
    }
    *at = (uint64_t)sequence * w->stride + low;
    *n = low == to ? 0 : high - low;
    v->told_first = v->first;
    v->told_end = v->end;
}

void gyre_window_untold(struct gyre_window *w, uint32_t sequence, uint64_t at, uint32_t n)
{
    struct gyre_window_view *v = &w->view[sequence];
    const uint32_t low = (uint32_t)(at - (uint64_t)sequence * w->stride);
    for (uint32_t i = 0; i < n; i++) w->table[at + i] = -1;
    v->told_first = GYRE_MIN(v->told_first, low);
    v->told_end = GYRE_MAX(v->told_end, low + n);
}
