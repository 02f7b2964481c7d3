// An arena: many small allocations with one lifetime, freed together.
//
// Memory comes zeroed and aligned to 16 bytes. When the host is out of memory the calls return NULL
// and the arena stays usable. An arena belongs to one thread at a time. `struct gyre_arena a = {0}`
// is an empty arena.
#pragma once
#include <stddef.h>

struct gyre_arena {
    struct gyre_arena_block *last;
};

void *gyre_arena_alloc(struct gyre_arena *arena, size_t size);
// n objects of `size` bytes; NULL also where n * size overflows.
void *gyre_arena_array(struct gyre_arena *arena, size_t n, size_t size);
char *gyre_arena_strdup(struct gyre_arena *arena, const char *text);

// Frees everything; the arena is then empty and may be used again.
void gyre_arena_free(struct gyre_arena *arena);
