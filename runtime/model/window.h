// Which pages of a KV cache have a place in the layers that see a window only (kv.h).
//
// A page of the cache is a number. In layers that see all positions it also says where the page lies; layers with a
// window have fewer places than there are pages, and a table of their own that says which place a page has. A page
// takes a place before its positions are computed and keeps it as long as a sequence may look at it: it is *near* then.
// Afterwards what lies there stays until another page needs the place, so that texts step back and share beginnings as
// far as it is still there: first go places of pages that a text has left behind, then those of pages that no text
// holds any more, the oldest first. As a place belongs to a page and not to a sequence, who shares a page shares its
// place.
//
// Place 0 is never given: it holds zeros, and tables say 0 wherever a sequence is not near, since kernels may read
// positions before a window, to multiply them by 0.
//
// `row` is what a sequence holds: its pages by index (position / GYRE_PAGE). Nothing here allocates but init.
#pragma once
#include "runtime/model/prefix.h"

struct gyre_window_view {
    uint32_t first, end;           // indices of the pages that the sequence is near
    uint32_t next;                 // the position that it computes next
    uint32_t told_first, told_end; // outside of them the device's table says 0
};
struct gyre_window {
    uint32_t span; // positions that a query sees, its own among them; 0: no layer has a window, and nothing is here
    uint32_t n_places, sequences, stride;
    int32_t *place;                // [n_pages] of a page; -1: none
    uint32_t *near;                // [n_pages] sequences that are near it; then it has a place
    int32_t *page;                 // [n_places] whose place it is; -1: nobody's
    uint64_t *age;                 // [n_places] of places that no sequence is near: the smallest is taken first
    struct gyre_window_view *view; // [sequences]
    int32_t *table;                // [sequences][stride] places, as the device has them; -1: nobody knows
    uint64_t clock;
};

// Places that suffice for `sequences` sequences which compute at most `rows` positions at a time, all of them together.
uint32_t gyre_window_places(uint32_t span, uint32_t n_pages, uint32_t sequences, uint32_t rows);

bool gyre_window_init(struct gyre_window *window, uint32_t span, uint32_t n_pages, uint32_t n_places,
                      uint32_t sequences, uint32_t stride); // false: out of memory
void gyre_window_free(struct gyre_window *window);          // accepts a zeroed one

// The first page that the query at `position` sees.
uint32_t gyre_window_first(const struct gyre_window *window, uint32_t position);
// The longest beginning, of at most `length` positions, behind which a sequence with these pages can go on.
uint32_t gyre_window_reach(const struct gyre_window *window, const int32_t *row, uint32_t length);

// The sequence is near its pages first..end-1 from now on, and near no other; those without a place get one. False:
// there are not enough, and it is near nothing.
bool gyre_window_look(struct gyre_window *window, uint32_t sequence, const int32_t *row, uint32_t first, uint32_t end);
// In a row, `same` stands in the place of `mine`, which holds the same positions; `near`: the sequence is near it.
void gyre_window_swap(struct gyre_window *window, int32_t mine, int32_t same, bool near);
// No sequence holds the page any more: it ages behind all that texts have left behind; it will hold something else.
void gyre_window_idle(struct gyre_window *window, int32_t page);
void gyre_window_drop(struct gyre_window *window, int32_t page);

// Brings a sequence's part of the table up to date; *at and *n say which entries of it the device must be told, at an
// index of the whole table; n 0: none. Where that fails: gyre_window_untold, and all is told at the next time.
void gyre_window_tell(struct gyre_window *window, uint32_t sequence, const int32_t *row, uint64_t *at, uint32_t *n);
void gyre_window_untold(struct gyre_window *window, uint32_t sequence, uint64_t at, uint32_t n);
