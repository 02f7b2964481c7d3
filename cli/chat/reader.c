// See reader.h.
#include "cli/chat/reader.h"

#include "cli/cli.h"

#include "runtime/util/array.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat_reader {
    bool terminal;
    struct chat_editor *editor; // NULL: plain reads
    char *held;                 // what was read behind the last line end
    size_t n, cap;
    bool ended;
};

struct chat_reader *chat_reader_open(bool terminal)
{
    struct chat_reader *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->terminal = terminal;
    if (terminal) r->editor = chat_editor_open();
    return r;
}

void chat_reader_close(struct chat_reader *r)
{
    if (!r) return;
    chat_editor_close(r->editor);
    free(r->held);
    free(r);
}

// Reads on; false at the end, or where a signal came, also just before: a read alone would sleep through that.
static bool more(struct chat_reader *r)
{
    if (!GYRE_ROOM(r->held, r->n + 4096, r->cap)) {
        r->ended = true;
        r->n = 0;
        return false;
    }
    struct pollfd wait[2] = {{.fd = 0, .events = POLLIN}, {.fd = cli_signal_fd(), .events = POLLIN}};
    if (cli_signalled() || poll(wait, 2, -1) < 0 || !wait[0].revents) return false;
    const ssize_t got = read(0, r->held + r->n, r->cap - r->n - 1);
    if (got <= 0) {
        r->ended = got == 0 || errno != EINTR;
        return false;
    }
    r->n += (size_t)got;
    return true;
}

static enum chat_read read_plain(struct chat_reader *r, char **line, size_t *length)
{
    char *end = NULL;
    size_t searched = 0;
    while (!(end = r->n > searched ? memchr(r->held + searched, '\n', r->n - searched) : NULL)) {
        searched = r->n;
        if (more(r)) continue;
        if (cli_interrupted()) return CHAT_END;
        if (cli_take_sigint()) {
            r->n = 0;
            return CHAT_CLEARED;
        }
        if (r->ended && r->n) break; // the last line has no end
        if (r->ended) return CHAT_END;
    }
    const size_t n = end ? (size_t)(end - r->held) : r->n;
    *line = malloc(n + 1);
    if (!*line) return CHAT_END;
    memcpy(*line, r->held, n); // it may hold a NUL
    *length = n - (n && (*line)[n - 1] == '\r');
    (*line)[*length] = 0;
    r->n -= end ? n + 1 : n;
    if (end) memmove(r->held, end + 1, r->n);
    return CHAT_LINE;
}

static enum chat_read read_one(struct chat_reader *r, const char *prompt, char **line, size_t *length)
{
    if (r->editor) {
        const enum chat_read how = chat_editor_read(r->editor, prompt, line);
        *length = how == CHAT_LINE ? strlen(*line) : 0;
        return how;
    }
    if (r->terminal) { // what is piped on is the answers
        FILE *const to = isatty(1) ? stdout : stderr;
        fputs(prompt, to);
        fflush(to);
    }
    return read_plain(r, line, length);
}

enum chat_read chat_read(struct chat_reader *r, const char *status, char **line, size_t *length)
{
    char prompt[160];
    *line = NULL;
    *length = 0;
    snprintf(prompt, sizeof prompt, "%.140s> ", status);
    enum chat_read how = read_one(r, prompt, line, length);
    while (how == CHAT_LINE && r->terminal && *length && (*line)[*length - 1] == '\\') { // goes on
        char *next = NULL;
        size_t more_length = 0;
        how = read_one(r, "... ", &next, &more_length);
        (*line)[*length - 1] = '\n';
        char *both = how == CHAT_LINE ? realloc(*line, *length + more_length + 1) : NULL;
        if (both) {
            memcpy(both + *length, next, more_length + 1);
            *length += more_length;
            *line = both;
        } else if (how == CHAT_LINE) how = CHAT_END;
        free(next);
    }
    if (how != CHAT_LINE) {
        free(*line);
        *line = NULL;
    }
    return how;
}
