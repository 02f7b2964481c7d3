// Finds methods, filters and tests by name and calls them. For exec.c and eval.c.
#pragma once
#include "runtime/text/jinja/value.h"

// As jinja_run.method, .filter and .test.
bool gyre_jinja_method(struct jinja_run *run, jinja_value value, const char *name, jinja_value *out, bool *unsafe);
jinja_value gyre_jinja_filter(struct jinja_run *run, const char *name, jinja_value value,
                              const struct jinja_args *args);
bool gyre_jinja_test(struct jinja_run *run, const char *name, jinja_value value, const struct jinja_args *args);

bool gyre_jinja_has_filter(const char *name);
bool gyre_jinja_has_test(const char *name);
