// Arrays that grow.
#pragma once
#include <stdbool.h>
#include <stddef.h>

// Room for `wanted` elements in all in an array of *cap of them (malloc'd; NULL while *cap is 0), which moves and grows
// to twice that where it has to. False where memory ran out: then array and *cap are as they were.
//     if (!GYRE_ROOM(s->item, s->n + 1, s->cap)) return false;
//     s->item[s->n++] = item;
#define GYRE_ROOM(array, wanted, cap) gyre_room(&(array), wanted, &(cap), sizeof *(array))

// `array`: the address of the pointer, of any type. `size`: of an element.
bool gyre_room(void *array, size_t wanted, size_t *cap, size_t size);
