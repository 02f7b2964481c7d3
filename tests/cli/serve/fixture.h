// What the server's tests begin with: a tiny model in a file of the test's own, and its tokenizer.
#pragma once
#include "tests/common/tiny.h"

#include <gyre/gyre.h>
#include <unistd.h>

static gyre_tokenizer *tokenizer;

// Non-zero where it cannot be made.
static inline int fixture_make(const char *path)
{
    struct tiny_options o = tiny_defaults();
    o.type = GYRE_DTYPE_Q4_0;
    o.tied = true;
    return tiny_write_gguf(path, &o) || gyre_tokenizer_open(path, NULL, NULL, &tokenizer, NULL) != GYRE_OK;
}

// Arrays of arrays, each of them of two kinds that nothing tells apart: every "[" doubles the ways that are open, and
// the 13th leaves more than a grammar follows at once.
static const char fixture_wide_schema[] =
    "{\"$ref\":\"#/$defs/a\",\"$defs\":{"
    "\"a\":{\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}]}},"
    "\"b\":{\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}]}}}}";

static inline int fixture_remove(const char *path)
{
    gyre_tokenizer_close(tokenizer);
    return unlink(path);
}
