// See prefix.h.
#include "runtime/model/prefix.h"

#include <stdlib.h>
#include <string.h>

bool gyre_prefix_init(struct gyre_prefix *x, uint32_t n_pages)
{
    uint32_t buckets = 1;
    while (buckets < n_pages) buckets *= 2;
    *x = (struct gyre_prefix){.mask = buckets - 1, .n_pages = n_pages, .oldest = -1, .youngest = -1};
    x->page = calloc(n_pages, sizeof *x->page);
    x->bucket = malloc(buckets * sizeof *x->bucket);
    if (!x->page || !x->bucket) {
        gyre_prefix_free(x);
        return false;
    }
    memset(x->bucket, 0xFF, buckets * sizeof *x->bucket); // -1
    return true;
}

void gyre_prefix_free(struct gyre_prefix *x)
{
    free(x->page);
    free(x->bucket);
    *x = (struct gyre_prefix){0};
}

static uint64_t mix(uint64_t z) // the finaliser of splitmix64 (runtime/util/rng.h)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int32_t *bucket_of(const struct gyre_prefix *x, uint64_t parent, const uint32_t *tokens)
{
    uint64_t h = mix(parent + 0x9E3779B97F4A7C15u);
    for (int i = 0; i < GYRE_PAGE; i++) h = mix(h ^ tokens[i]);
    return &x->bucket[h & x->mask];
}

int32_t gyre_prefix_find(const struct gyre_prefix *x, uint64_t parent, const uint32_t *tokens)
{
    int32_t page = *bucket_of(x, parent, tokens);
    while (page >= 0 &&
           (x->page[page].parent != parent || memcmp(x->page[page].tokens, tokens, sizeof x->page[page].tokens) != 0))
        page = x->page[page].next;
    return page;
}

uint64_t gyre_prefix_put(struct gyre_prefix *x, int32_t page, uint64_t parent, const uint32_t *tokens)
{
    struct gyre_prefix_page *p = &x->page[page];
    int32_t *const bucket = bucket_of(x, parent, tokens);
    *p =
        (struct gyre_prefix_page){.serial = ++x->serial, .parent = parent, .next = *bucket, .older = -1, .younger = -1};
    memcpy(p->tokens, tokens, sizeof p->tokens);
    *bucket = page;
    return p->serial;
}

bool gyre_prefix_knows(const struct gyre_prefix *x, int32_t page) { return x->page[page].serial != 0; }

void gyre_prefix_idle(struct gyre_prefix *x, int32_t page)
{
    struct gyre_prefix_page *p = &x->page[page];
    p->idle = true;
    p->older = x->youngest;
    p->younger = -1;
    if (x->youngest >= 0) x->page[x->youngest].younger = page;
    else x->oldest = page;
    x->youngest = page;
    x->n_idle++;
}

void gyre_prefix_busy(struct gyre_prefix *x, int32_t page)
{
    struct gyre_prefix_page *p = &x->page[page];
    if (!p->idle) return;
    if (p->older >= 0) x->page[p->older].younger = p->younger;
    else x->oldest = p->younger;
    if (p->younger >= 0) x->page[p->younger].older = p->older;
    else x->youngest = p->older;
    p->idle = false;
    x->n_idle--;
}

void gyre_prefix_forget(struct gyre_prefix *x, int32_t page)
{
    struct gyre_prefix_page *p = &x->page[page];
    int32_t *at = bucket_of(x, p->parent, p->tokens);
    while (*at != page) at = &x->page[*at].next;
    *at = p->next;
    p->serial = 0;
}

int32_t gyre_prefix_evict(struct gyre_prefix *x)
{
    const int32_t page = x->oldest;
    if (page < 0) return -1;
    gyre_prefix_busy(x, page);
    gyre_prefix_forget(x, page);
    return page;
}
