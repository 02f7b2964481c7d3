// Numbers in texts have a point and no groups, and months English names, whatever locale the program around the library
// has set: a desktop program of many countries sets one where they have a comma.
#pragma once
#include <locale.h>

struct gyre_locale {
    locale_t plain, before;
};

// Between these two the calling thread is in the "C" locale; no other thread is. Pairs nest, and what happens between
// them calls nobody back and leaves by the second. Where memory runs out the locale stays as it was.
struct gyre_locale gyre_locale_plain(void);
void gyre_locale_back(struct gyre_locale was);
