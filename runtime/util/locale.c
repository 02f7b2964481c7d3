// See locale.h.
#include "runtime/util/locale.h"

struct gyre_locale gyre_locale_plain(void)
{
    struct gyre_locale out = {.plain = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
    if (out.plain) out.before = uselocale(out.plain);
    return out;
}

void gyre_locale_back(struct gyre_locale was)
{
    if (!was.plain) return;
    uselocale(was.before);
    freelocale(was.plain);
}
