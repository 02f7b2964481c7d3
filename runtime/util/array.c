// See array.h.
#include "runtime/util/array.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

bool gyre_room(void *array, size_t wanted, size_t *cap, size_t size)
{
    void *old, *grown;
    if (wanted <= *cap) return true;
    if (wanted > SIZE_MAX / 2 / size - 8) return false;
    memcpy(&old, array, sizeof old); // a pointer to any type is not a void * in place
    const size_t more = 2 * wanted + 8;
    grown = realloc(old, more * size);
    if (!grown) return false;
    memcpy(array, &grown, sizeof grown);
    *cap = more;
    return true;
}
