// A hash map from byte strings to 32-bit numbers. The keys are borrowed: they must outlive the map.
// `struct gyre_strmap m = {0}` is an empty map.
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct gyre_strmap_slot {
    const char *key;
    uint32_t length, value;
};
struct gyre_strmap {
    struct gyre_strmap_slot *slots;
    uint64_t mask, count;
};

// Finds the value of a key, or adds the key with the given value; *added (may be NULL) tells which.
// NULL when memory ran out. The pointer is valid until the next call.
uint32_t *gyre_strmap_add(struct gyre_strmap *map, const char *key, uint32_t length, uint32_t value, bool *added);
// False if the key is absent.
bool gyre_strmap_get(const struct gyre_strmap *map, const char *key, uint32_t length, uint32_t *value);
void gyre_strmap_free(struct gyre_strmap *map);
