// A locale whose numbers have a comma and whose names have another order ("_" goes before "."), as a desktop program of
// many countries sets one.
#pragma once
#include <stdbool.h>

// Makes one with localedef(1) in a folder of files_path (files.h) and sets it, all categories; false where the machine
// has no localedef or no charmaps.
bool comma_set(void);
void comma_reset(void); // the "C" locale again
