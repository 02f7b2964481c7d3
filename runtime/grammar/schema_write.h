// Writes the rules of a schema: JSON Schema to a program.
#pragma once
#include "runtime/grammar/schema.h"

// Writes every rule that is still to be written, and those that this adds.
void gyre_schema_write(struct gyre_schema *c);
