// The list of tools of a request, as its grammar and its answers need it.
#pragma once
#include <gyre/gyre_tools.h>
#include <jansson.h>

struct gyre_tool {
    const char *name;
    json_t *parameters; // a schema of an object
};
struct gyre_tools {
    gyre_tool_syntax syntax;
    json_t *list; // owns the names
    struct gyre_tool *tool;
    uint32_t n;
};

const struct gyre_tool *gyre_tool_find(const gyre_tools *tools, const char *name);

// In the XML syntax: a parameter that is a string and nothing else is written as its text, all others as JSON. The
// parameter's schema, references followed; NULL where there is none.
const json_t *gyre_tool_parameter(const struct gyre_tool *tool, const char *key);
bool gyre_schema_is_text(const json_t *schema);

#define GYRE_MARK_CALL "<tool_call>"
#define GYRE_MARK_CALL_END "</tool_call>"
#define GYRE_MARK_PYTHON "<|python_tag|>"
#define GYRE_MARK_THINK "<think>"
#define GYRE_MARK_THINK_END "</think>"
