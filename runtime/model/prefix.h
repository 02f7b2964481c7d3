// Which pages of a KV cache hold which tokens, so that sequences with a common beginning share them.
//
// Only whole pages are known here: nobody writes to a page that another may read, and a shared page is never copied. A
// page is known by all tokens before it and its own: by the serial of the page before it and its GYRE_PAGE tokens,
// which are compared and not only hashed, so that a collision can never show one user another one's text. Serials are
// never used twice: a page whose predecessor was overwritten is no longer found and ages until it is overwritten
// itself.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { GYRE_PAGE = 32 };

struct gyre_prefix_page {
    uint64_t serial, parent; // serial 0: not known; parent 0: the first of a text
    uint32_t tokens[GYRE_PAGE];
    int32_t next;           // in its bucket; -1: the last
    int32_t older, younger; // among the idle ones; -1: none
    bool idle;
};
struct gyre_prefix {
    struct gyre_prefix_page *page; // [n_pages]
    int32_t *bucket;               // [mask + 1]
    uint32_t mask, n_pages, n_idle;
    int32_t oldest, youngest; // idle pages: known, and held by no sequence
    uint64_t serial;          // the last one given
};

bool gyre_prefix_init(struct gyre_prefix *prefix, uint32_t n_pages); // false: out of memory
void gyre_prefix_free(struct gyre_prefix *prefix);                   // accepts a zeroed one

// The page that holds tokens[GYRE_PAGE] behind the page `parent` (a serial; 0: at the beginning); -1: none.
int32_t gyre_prefix_find(const struct gyre_prefix *prefix, uint64_t parent, const uint32_t *tokens);
// From now on `page`, which is not known, is known to hold them; its serial.
uint64_t gyre_prefix_put(struct gyre_prefix *prefix, int32_t page, uint64_t parent, const uint32_t *tokens);
bool gyre_prefix_knows(const struct gyre_prefix *prefix, int32_t page);

// No sequence holds the known page any more; one holds it again.
void gyre_prefix_idle(struct gyre_prefix *prefix, int32_t page);
void gyre_prefix_busy(struct gyre_prefix *prefix, int32_t page);
// A page that is known, and not idle, is not known any more.
void gyre_prefix_forget(struct gyre_prefix *prefix, int32_t page);
// Forgets the page that has been idle longest and returns it; -1: none is idle.
int32_t gyre_prefix_evict(struct gyre_prefix *prefix);
