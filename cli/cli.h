// What the commands share: reporting, progress, interruption, reading texts, opening engines.
#pragma once
#include "cli/args.h"
#include "cli/json.h"
#include "runtime/util/status.h"

#include <gyre/gyre_eval.h>
#include <jansson.h>

#define COMMAND(name) extern const struct cli_command cli_##name;
#include "cli/commands.def"

// Prints "gyre: MESSAGE" as the last line of stderr (ending a progress line first) and returns the exit status:
// 3 for a missing device, 130 after an interruption, else 1.
int cli_fail(const gyre_error *err);

// What every command's output goes through. Begin: the three standard descriptors are open (a file that is written must
// never get the number of one), signals are caught. End: everything printed has arrived, else a line on stderr and 1;
// where the reader of a pipe went away (gyre run ... | head -1) no line and CLI_CLOSED_PIPE, as the shell reports a
// program that SIGPIPE ended. A status that tells of a failure already stays. Returns the program's status.
enum { CLI_CLOSED_PIPE = 141 };
void cli_begin(void);
int cli_end(int status);

// Everything printed so far has arrived? For commands that print while they work: they stop at the first failure.
gyre_status cli_flush(gyre_error *err) GYRE_MUST_USE;

// True once SIGINT or SIGTERM arrived; commands stop cleanly and return 130.
bool cli_interrupted(void);
// From now on the first of them ends the program at once, with that status: for work that asks nobody in between.
void cli_end_on_signal(void);
// While this is on, SIGINT ends what runs on the session below and nothing else; whether it came is asked once each
// time. SIGTERM is an interruption as ever.
void cli_spare_program(bool on);
bool cli_take_sigint(void);
// Whether either holds: an interruption, or a SIGINT that was not asked for yet. The descriptor becomes readable with
// the next signal, so that who waits for other input wakes up; asking for it forgets earlier ones. -1: there is none.
bool cli_signalled(void);
int cli_signal_fd(void);
// The session whose verb an interruption cancels, also in the middle of a prompt; NULL: none. Before it is destroyed.
void cli_cancel_on_signal(gyre_session *session);

// One line on stderr that is redrawn on a terminal and printed at each tenth elsewhere. eta < 0: unknown.
void cli_progress(double fraction, double eta_seconds, const char *what);
void cli_progress_end(void);

// Log callback that prints INFO and worse to stderr, without the "gyre: " that marks an error.
gyre_log cli_log(bool quiet);

// A whole file, or a pipe up to its end, NUL-terminated, malloc'd.
gyre_status cli_read(const char *path, char **text, size_t *bytes, gyre_error *err);
// A text that was given on standard input: a pipe or a file, not a terminal. The same for its bytes.
bool cli_stdin_waits(void);
gyre_status cli_read_stdin(char **text, size_t *bytes, gyre_error *err);

// How a model's tokenizer is used, where the model's own settings are to be overridden.
struct cli_tokens {
    const char *pre;
    bool bos, no_bos;
};
#define CLI_PRE_OPTION(t)                                                                                              \
    {                                                                                                                  \
        "--pre", "NAME", "pre-tokenizer, where a GGUF file names none or a wrong one", CLI_TEXT, &(t).pre, 0, 0, NULL  \
    }
#define CLI_TOKEN_OPTIONS(t)                                                                                           \
    CLI_PRE_OPTION(t),                                                                                                 \
        {"--bos", NULL, "begin with a BOS token whatever the model says", CLI_FLAG, &(t).bos, 0, 0, NULL},             \
    {                                                                                                                  \
        "--no-bos", NULL, "begin without a BOS token", CLI_FLAG, &(t).no_bos, 0, 0, NULL                               \
    }
// Flags of gyre_tokenize for a prompt: as the model says, unless told otherwise.
uint32_t cli_prompt_flags(const struct cli_tokens *tokens);

// Options every command with an engine has.
struct cli_engine {
    const char *device;
    uint32_t act, kv[2], weights, context; // kv: of keys, of values
    const char *table, *tune;
    uint32_t sequences, logit_rows; // 0: the engine's default
    struct cli_tokens tokens;
};
#define CLI_ENGINE_OPTIONS(e)                                                                                          \
    {"--device", "ID", "vulkan:0, opencl:0, cpu, ...; default: the best there is", CLI_TEXT, &(e).device, 0, 0, NULL}, \
        {"--act", "BITS", "activations: 16, 8 or 4 bits; default: the file's", CLI_U32, &(e).act, 0, 0, "16,8,4"},     \
        {"--kv",   "K[/V]", "cache: 16, 8 or 4 bits, 8/4: of keys and of values; default: the file's",                 \
         CLI_PAIR, &(e).kv, 0,                                                                                         \
         0,        "16,8,4"},                                                                                          \
        {"--weights", "BITS",       "weights that are no integers: 16-bit floats, or 8: rounded to int8; default: 16", \
         CLI_U32,     &(e).weights, 0,                                                                                 \
         0,           "16,8"},                                                                                         \
        {"--table", "WHERE",      "the embedding table: on the device, or in the host's memory; default: device",      \
         CLI_TEXT,  &(e).table,   0,                                                                                   \
         0,         "device,host"},                                                                                    \
    {                                                                                                                  \
        "--tune", "HOW", "kernels by measuring: off, on (2 s at most), force; default: off", CLI_TEXT, &(e).tune, 0,   \
            0, "off,on,force"                                                                                          \
    }
// Widths of keys and values as people write them: "8", or "8/4" where they differ.
struct cli_widths {
    char text[24];
} cli_widths(uint32_t kv, uint32_t kv_v);
// A standard error as people write it; "unknown" for NaN.
struct cli_error {
    char text[24];
} cli_error(double error, int digits);
// The engine's parameters that these options say.
gyre_engine_params cli_engine_params(const struct cli_engine *options);
// Memory that an engine takes, or would (gyre_plan): as JSON, NULL where memory runs out, and as text.
json_t *cli_memory_json(const gyre_memory *memory);
void cli_print_memory(const gyre_memory *memory, uint32_t context);

gyre_status cli_open(const char *model, const struct cli_engine *options, bool quiet, gyre_engine **out,
                     gyre_error *err);
