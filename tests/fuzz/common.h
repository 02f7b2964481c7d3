// What the fuzz targets share.
#pragma once
#include "tests/fuzz/target.h"

#include "runtime/text/tokenizer.h"

// Opens, checks, decodes and tokenizes as far as the model lets it. Ends the program where a failure has no line of
// text.
void load_everything(const char *path);

void append_file(const char *path, struct bytes *out);
