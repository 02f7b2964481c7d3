// Options as tables: parsing, checking and help come from the same rows.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_LIST, CLI_U32, CLI_U64, CLI_F32, CLI_PAIR };

// What an option that may be repeated collects, in order.
enum { CLI_LIST_MAX = 16 };
struct cli_list {
    const char *item[CLI_LIST_MAX];
    uint32_t n;
};

// One option. `out` points to bool, const char *, struct cli_list, uint32_t, uint64_t, float or uint32_t[2] by kind.
// Numbers lie in min..max, or, where `only` is given, are one of its comma-separated values; texts too. A pair is two
// numbers of `only`, "8/4", or one that counts for both.
struct cli_option {
    const char *name;  // "--act"; "-p" and the like for short ones
    const char *value; // "BITS" in help; NULL for flags
    const char *help;
    enum cli_kind kind;
    void *out;
    double min, max;
    const char *only;
};

struct cli_command {
    const char *name, *arguments, *about; // "run", "MODEL", one line
    int (*run)(int argc, char **argv);    // arguments after the command's name; returns the exit status
    int needs;                            // positional arguments: exactly this many, or
    bool optional;                        // ... none, too
};

// Fills the options' targets and positional[needs]. Returns -1 to go on; else the exit status: 0 after --help, 2 after
// a line on stderr that says what is wrong.
int cli_parse(const struct cli_command *command, const struct cli_option *options, int n_options, int argc, char **argv,
              const char **positional);

// A plain decimal, "0.5" or "1e-3": no blanks, no 0x10, no nan and no inf. False for anything else.
bool cli_decimal(const char *text, double *value);

// Says something in one line on stderr, `before` and a text. What would end the line or steer a terminal (names of
// files and what stands in them may hold it) is shown as C writes it: \n, \x1b.
void cli_say(const char *before, const char *text);
// The same as "warning: ...".
void cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Says what is wrong with the usage, in one line "gyre: ..."; returns 2.
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
