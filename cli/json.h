// JSON at the program's edge: what commands print and files beside models hold. Inside the program values are typed.
#pragma once
#include <gyre/gyre_eval.h>
#include <jansson.h>
#include <stdbool.h>

// From now on JSON notes where it runs out of memory, on every thread: what is built of many values need not look at
// each of them. Before any other use of jansson.
void cli_json_watch(void);
// Has a value been lost on this thread for want of memory since this was last asked?
bool cli_json_lost(void);

// Text as a JSON string; bytes that are no UTF-8, as names of files may have them, become U+FFFD. NULL where memory ran
// out.
json_t *cli_json_text(const char *text);

// A number; null for NaN, which stands for what is not known. NULL where memory ran out.
json_t *cli_json_known(double value);

// Adds a result's figures to an object: the keys of `gyre eval --json`. Non-zero where memory ran out.
int cli_eval_figures(json_t *out, const gyre_eval_result *result);
// Reads them back; what is absent is 0.
void cli_eval_figures_read(const json_t *object, gyre_eval_result *out);

// Writes a value as one document to stdout and drops the reference; returns the exit status.
int cli_print_json(json_t *value);
