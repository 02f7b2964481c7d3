// See arena.h. A list of blocks, newest first; only the newest is allocated from. A block is at least
// twice as large as the one before it (up to a limit), so the list stays short.
#include "runtime/util/arena.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST_BLOCK = 4096, LARGEST_STEP = 1 << 20 };

struct gyre_arena_block {
    struct gyre_arena_block *previous;
    size_t used, size;
    _Alignas(ALIGN) unsigned char data[];
};

static struct gyre_arena_block *add_block(struct gyre_arena *arena, size_t needed)
{
    size_t size = arena->last ? GYRE_MIN(arena->last->size * 2, (size_t)LARGEST_STEP) : FIRST_BLOCK;
    size = GYRE_MAX(size, needed);
    if (size > SIZE_MAX - sizeof(struct gyre_arena_block)) return NULL;
    struct gyre_arena_block *block = malloc(sizeof *block + size);
    if (!block) return NULL;
    block->previous = arena->last;
    block->used = 0;
    block->size = size;
    return arena->last = block;
}

void *gyre_arena_alloc(struct gyre_arena *arena, size_t size)
{
    if (size > SIZE_MAX - ALIGN) return NULL;
    const size_t needed = (size + ALIGN - 1) / ALIGN * ALIGN;
    struct gyre_arena_block *block = arena->last;
    if (!block || block->size - block->used < needed) block = add_block(arena, needed);
    if (!block) return NULL;
    void *data = memset(block->data + block->used, 0, needed);
    block->used += needed;
    return data;
}

void *gyre_arena_array(struct gyre_arena *arena, size_t n, size_t size)
{
    uint64_t total;
    if (!gyre_mul_u64(n, size, &total) || total > SIZE_MAX) return NULL;
    return gyre_arena_alloc(arena, (size_t)total);
}

char *gyre_arena_strdup(struct gyre_arena *arena, const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = gyre_arena_alloc(arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

void gyre_arena_free(struct gyre_arena *arena)
{
    while (arena->last) {
        struct gyre_arena_block *block = arena->last;
        arena->last = block->previous;
        free(block);
    }
}
