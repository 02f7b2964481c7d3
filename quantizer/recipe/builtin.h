// The built-in recipes: quantizer/recipes/*.yaml, embedded by quantizer/recipes/build.cmake.
#pragma once
#include <stddef.h>

struct gyre_recipe_builtin {
    const char *name, *about, *source; // as in the text
    const char *text;                  // NUL-terminated
    size_t bytes;
};

// In the order of `gyre recipes`; ends with a NULL name.
extern const struct gyre_recipe_builtin gyre_recipe_builtins[];
