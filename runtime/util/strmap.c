// See strmap.h. Open addressing with linear probing, at most half full; hash: FNV-1a over 8-byte words with a
// final mix, since most keys are short.
#include "runtime/util/strmap.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_bytes(const char *key, uint32_t length)
{
    uint64_t h = 0xCBF29CE484222325u ^ length;
    for (; length >= 8; key += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    for (uint32_t i = 0; i < length; i++) h = (h ^ (unsigned char)key[i]) * 0x100000001B3u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

// The slot that holds the key, or the free slot where it belongs.
static struct gyre_strmap_slot *find(const struct gyre_strmap *map, const char *key, uint32_t length)
{
    uint64_t i = hash_bytes(key, length) & map->mask;
    while (map->slots[i].key && (map->slots[i].length != length || memcmp(map->slots[i].key, key, length)))
        i = (i + 1) & map->mask;
    return &map->slots[i];
}

static bool grow(struct gyre_strmap *map)
{
    const uint64_t size = map->slots ? 2 * (map->mask + 1) : 64;
    struct gyre_strmap larger = {calloc(size, sizeof *larger.slots), size - 1, map->count};
    if (!larger.slots) return false;
    for (uint64_t i = 0; map->slots && i <= map->mask; i++)
        if (map->slots[i].key) *find(&larger, map->slots[i].key, map->slots[i].length) = map->slots[i];
    free(map->slots);
    *map = larger;
    return true;
}

uint32_t *gyre_strmap_add(struct gyre_strmap *map, const char *key, uint32_t length, uint32_t value, bool *added)
{
    if ((!map->slots || 2 * map->count > map->mask) && !grow(map)) return NULL;
    struct gyre_strmap_slot *slot = find(map, key, length);
    if (added) *added = !slot->key;
    if (!slot->key) {
        *slot = (struct gyre_strmap_slot){key, length, value};
        map->count++;
    }
    return &slot->value;
}

bool gyre_strmap_get(const struct gyre_strmap *map, const char *key, uint32_t length, uint32_t *value)
{
    if (!map->slots) return false;
    const struct gyre_strmap_slot *slot = find(map, key, length);
    if (!slot->key) return false;
    *value = slot->value;
    return true;
}

void gyre_strmap_free(struct gyre_strmap *map)
{
    free(map->slots);
    *map = (struct gyre_strmap){0};
}
