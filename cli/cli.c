// See cli.h.
#include "cli/cli.h"
#include "cli/guard.h"

#include "runtime/util/file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted, spared, taken, hasty; // taken: a SIGINT that spared the program
static gyre_session *_Atomic running;                           // what an interruption cancels
static struct {
    bool open;
    int tenth;
} line; // the progress line on stderr

static int wake[2] = {-1, -1}; // a pipe: a byte for each signal

static void on_signal(int number)
{
    const int saved = errno;
    gyre_session *session = running;
    if (number == SIGINT && spared) {
        taken = 1;
    } else {
        if (interrupted || hasty) _exit(130); // the second time the user means it; hasty: the first
        interrupted = 1;
    }
    if (session) gyre_session_cancel(session);                    // a store to an atomic: allowed here
    if (wake[1] >= 0 && write(wake[1], "", 1) < 0) errno = saved; // full: then it is readable
    errno = saved;
}

int cli_signal_fd(void)
{
    char bytes[64];
    if (wake[0] < 0 && pipe(wake) == 0)
        for (int i = 0; i < 2; i++) {
            (void)fcntl(wake[i], F_SETFL, O_NONBLOCK);
            (void)fcntl(wake[i], F_SETFD, FD_CLOEXEC);
        }
    while (wake[0] >= 0 && read(wake[0], bytes, sizeof bytes) > 0) {
    }
    return wake[0]; // -1, without a pipe, is what poll passes over
}

bool cli_signalled(void) { return interrupted != 0 || taken != 0; }

void cli_cancel_on_signal(gyre_session *session) { running = session; }
void cli_spare_program(bool on) { spared = on; }

bool cli_take_sigint(void)
{
    const bool came = taken != 0;
    taken = 0;
    return came;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN; // a closed pipe and a full disk are errors of the write, not deaths
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

void cli_end_on_signal(void)
{
    hasty = 1;
    if (interrupted) _exit(130);
}

bool cli_interrupted(void) { return interrupted != 0; }

// ---- standard output --------------------------------------------------------------------------------------------

void cli_begin(void)
{
    for (int fd = 0; fd < 3; fd++) // the wrong way round: writing to a closed output fails as it should
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 1 ? O_RDONLY : fd == 0 ? O_WRONLY : O_RDWR) != fd) break;
    catch_signals();
    cli_guard_mappings();
    cli_guard_caches(CLI_CACHE_ROOM);
}

// The reader of a pipe has gone: what is printed is wanted by nobody, and no fault.
static bool reader_left(void)
{
    struct pollfd out = {.fd = 1, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

gyre_status cli_flush(gyre_error *err)
{
    if (!fflush(stdout) && !ferror(stdout)) return GYRE_OK;
    if (taken && !interrupted) clearerr(stdout); // the program goes on, and prints again
    if (interrupted || taken)                    // while the output waited for its reader
        return gyre_fail(err, GYRE_E_CANCELLED, "interrupted, and what was printed is incomplete");
    return gyre_fail(err, GYRE_E_IO,
                     "cannot write (standard output): it is %s, and what was printed is incomplete; print to another "
                     "place",
                     reader_left() ? "a pipe without a reader" : "full or closed");
}

int cli_end(int status)
{
    gyre_error err = {0};
    if (cli_flush(&err) == GYRE_OK || (status != 0 && status != CLI_CLOSED_PIPE)) return status;
    return reader_left() ? CLI_CLOSED_PIPE : cli_fail(&err);
}

// ---- progress and failures --------------------------------------------------------------------------------------

void cli_progress_end(void)
{
    if (line.open && isatty(2)) fputc('\n', stderr);
    line.open = false;
}

void cli_progress(double fraction, double eta, const char *what)
{
    char left[32] = "";
    if (eta >= 0) snprintf(left, sizeof left, ", %d:%02d left", (int)eta / 60, (int)eta % 60);
    if (isatty(2)) {
        fprintf(stderr, "\r\033[K%3.0f %% %s%s", 100 * fraction, what, left);
        fflush(stderr);
        line.open = true;
        return;
    }
    const int tenth = (int)(10 * fraction);
    if (line.open && tenth == line.tenth) return;
    fprintf(stderr, "%3.0f %% %s%s\n", 100 * fraction, what, left);
    line.open = true;
    line.tenth = tenth;
}

int cli_fail(const gyre_error *err)
{
    cli_progress_end();
    fflush(stdout);
    if (ferror(stdout) && reader_left()) return CLI_CLOSED_PIPE; // whatever failed then, it was for nobody
    cli_say("gyre: ", err->message[0] ? err->message : gyre_status_text(err->code));
    return err->code == GYRE_E_NO_DEVICE ? 3 : err->code == GYRE_E_CANCELLED ? 130 : 1;
}

static void write_log(void *user, gyre_log_level level, const char *text)
{
    (void)user;
    cli_progress_end();
    cli_say(level == GYRE_LOG_WARN ? "warning: " : "", text);
}

gyre_log cli_log(bool quiet) { return (gyre_log){write_log, NULL, quiet ? GYRE_LOG_WARN : GYRE_LOG_INFO}; }

// A pipe's bytes up to its end.
static gyre_status read_stream(int fd, const char *name, char **text, size_t *bytes, gyre_error *err)
{
    enum { MOST = 1 << 30 };
    size_t n = 0, cap = 0;
    char *data = NULL, *grown = NULL;
    for (ssize_t got = 1; got > 0;) {
        if (n + 1 >= cap) {
            cap = 2 * cap + 65536;
            grown = n < MOST ? realloc(data, cap) : NULL;
            if (!grown) break;
            data = grown;
        }
        got = read(fd, data + n, cap - n - 1);
        if (got > 0) n += (size_t)got;
        const bool again = got < 0 && errno == EINTR && !cli_interrupted();
        if (again) got = 1;
        else if (got < 0) break;
        if (got == 0) {
            data[n] = 0;
            *text = data;
            *bytes = n;
            return GYRE_OK;
        }
    }
    const int why = errno;
    free(data);
    if (cli_interrupted()) return gyre_fail(err, GYRE_E_CANCELLED, "interrupted while reading (%s)", name);
    if (n >= MOST) return gyre_fail(err, GYRE_E_FORMAT, "cannot read (%s): it has more than %d bytes", name, MOST);
    if (!grown) return gyre_fail(err, GYRE_E_NOMEM, "cannot read (%s): out of memory", name);
    return gyre_fail(err, GYRE_E_IO, "cannot read (%s): %s", name, strerror(why));
}

gyre_status cli_read(const char *path, char **text, size_t *bytes, gyre_error *err)
{
    struct stat info;
    uint64_t size = 0;
    *text = NULL;
    if (!stat(path, &info) && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode))) {
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return gyre_fail(err, GYRE_E_IO, "cannot open file (%s): %s", path, strerror(errno));
        const gyre_status st = read_stream(fd, path, text, bytes, err);
        close(fd);
        return st;
    }
    const gyre_status st = gyre_file_read(path, (uint64_t)1 << 32, text, &size, err);
    *bytes = size;
    return st;
}

bool cli_stdin_waits(void)
{
    struct stat info;
    return !fstat(0, &info) && (S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode) || S_ISSOCK(info.st_mode));
}

gyre_status cli_read_stdin(char **text, size_t *bytes, gyre_error *err)
{
    *text = NULL;
    return read_stream(0, "standard input", text, bytes, err);
}

uint32_t cli_prompt_flags(const struct cli_tokens *tokens)
{
    return GYRE_TEXT_SPECIAL | GYRE_TEXT_AROUND | (tokens->bos ? GYRE_TEXT_BOS : 0) |
           (tokens->no_bos ? GYRE_TEXT_NO_BOS : 0);
}

static int on_load(void *user, double fraction, const char *what)
{
    (void)user;
    if (isatty(2)) cli_progress(fraction, -1, what);
    return cli_interrupted();
}

struct cli_error cli_error(double error, int digits)
{
    struct cli_error out = {"unknown"};
    if (!isnan(error)) snprintf(out.text, sizeof out.text, "%.*f", digits, error);
    return out;
}

struct cli_widths cli_widths(uint32_t kv, uint32_t kv_v)
{
    struct cli_widths out;
    if (kv == kv_v) snprintf(out.text, sizeof out.text, "%u", kv);
    else snprintf(out.text, sizeof out.text, "%u/%u", kv, kv_v);
    return out;
}

gyre_engine_params cli_engine_params(const struct cli_engine *options)
{
    return (gyre_engine_params){.size = sizeof(gyre_engine_params),
                                .device = options->device,
                                .act = options->act,
                                .kv = options->kv[0],
                                .kv_v = options->kv[1],
                                .context = options->context,
                                .pre = options->tokens.pre,
                                .weights = options->weights,
                                .tune = !options->tune                    ? GYRE_TUNE_DEFAULT
                                        : !strcmp(options->tune, "off")   ? GYRE_TUNE_OFF
                                        : !strcmp(options->tune, "force") ? GYRE_TUNE_FORCE
                                                                          : GYRE_TUNE_ON,
                                .sequences = options->sequences,
                                .logit_rows = options->logit_rows,
                                .host_table = options->table && !strcmp(options->table, "host")};
}

json_t *cli_memory_json(const gyre_memory *m)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "weights_bytes", (json_int_t)m->weights, "kv_bytes",
                     (json_int_t)m->kv, "rest_bytes", (json_int_t)m->rest, "total_bytes", (json_int_t)m->total,
                     "host_bytes", (json_int_t)m->host);
}

void cli_print_memory(const gyre_memory *m, uint32_t context)
{
    static const double mib = 1048576.0;
    printf("  weights        %.1f MiB\n  kv cache       %.1f MiB", (double)m->weights / mib, (double)m->kv / mib);
    if (context) printf(" (%u tokens)", context);
    printf("\n  the rest       %.1f MiB\n  all            %.1f MiB\n", (double)m->rest / mib, (double)m->total / mib);
    if (m->host) printf("  and %.1f MiB of the host's memory for the embedding table\n", (double)m->host / mib);
}

gyre_status cli_open(const char *model, const struct cli_engine *options, bool quiet, gyre_engine **out,
                     gyre_error *err)
{
    gyre_engine_params params = cli_engine_params(options);
    params.log = cli_log(quiet);
    params.progress = quiet ? NULL : on_load;
    if (params.device && strcmp(params.device, "null") == 0) // for tests, and for plans
        return gyre_fail(err, GYRE_E_NO_DEVICE,
                         "cannot open device (null): it computes nothing; name one of gyre devices");
    const gyre_status st = gyre_engine_open(model, &params, out, err);
    cli_progress_end();
    return st;
}
