// See stops.h.
#include "runtime/util/stops.h"
#include "runtime/util/base.h"
#include "runtime/util/text.h"

#include <stdlib.h>
#include <string.h>

bool gyre_stops_push(struct gyre_stops *s, const char *text, size_t n)
{
    return gyre_append(&s->held, &s->n, &s->cap, text, n);
}

size_t gyre_stops_ready(const struct gyre_stops *s, bool last, uint32_t *which)
{
    size_t first = s->n, keep = 0;
    *which = s->n_stop;
    for (uint32_t k = 0; k < s->n_stop; k++) {
        const size_t n = strlen(s->stop[k]);
        for (size_t at = 0; at < first; at++) {
            const size_t left = GYRE_MIN(n, s->n - at);
            if (memcmp(s->held + at, s->stop[k], left) != 0) continue;
            if (left < n) keep = GYRE_MAX(keep, left);
            else first = at, *which = k;
            break;
        }
    }
    return *which < s->n_stop || last ? first : s->n - keep;
}

void gyre_stops_drop(struct gyre_stops *s, size_t n)
{
    if (n == 0) return;
    memmove(s->held, s->held + n, s->n - n + 1);
    s->n -= n;
}
