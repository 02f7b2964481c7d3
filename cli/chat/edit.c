// The line editor: libedit, with history, pasted lines that stay together, and Alt-Enter for a line end. See reader.h.
#include "cli/chat/reader.h"

#ifdef GYRE_HAVE_LIBEDIT
#include "cli/cli.h"

#include "runtime/util/array.h"

#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY = 1000, MOST_PASTED = 1 << 18 };

struct chat_editor {
    EditLine *line;
    History *history;
    const char *prompt;
};

static const char *prompt_of(EditLine *line)
{
    struct chat_editor *editor = NULL;
    el_get(line, EL_CLIENTDATA, &editor);
    return editor->prompt;
}

// One character of UTF-8; -1 where a signal came, also just before: a read alone would sleep through that.
static int next_character(EditLine *line, wchar_t *out)
{
    mbstate_t state = {0};
    (void)line;
    for (;;) {
        struct pollfd wait[2] = {{.fd = 0, .events = POLLIN}, {.fd = cli_signal_fd(), .events = POLLIN}};
        char byte;
        if (cli_signalled()) return -1;
        if (poll(wait, 2, -1) < 0 || !wait[0].revents) continue;
        const ssize_t got = read(0, &byte, 1);
        if (got <= 0) return (int)got;
        const size_t n = mbrtowc(out, &byte, 1, &state);
        if (n <= 1) return 1;
        if (n == (size_t)-1) state = (mbstate_t){0}; // no UTF-8: left out
    }
}

// What a terminal pastes stands between two marks; it is inserted as it is, its line ends too.
static unsigned char paste(EditLine *line, int key)
{
    static const wchar_t end[] = L"\x1b[201~";
    enum { MARK = 6 };
    size_t n = 0, cap = 0;
    wchar_t *text = NULL, c;
    (void)key;
    while (GYRE_ROOM(text, n + 2, cap) && n < MOST_PASTED && el_wgetc(line, &c) == 1) {
        text[n++] = c == L'\r' ? L'\n' : c;
        if (n >= MARK && wmemcmp(text + n - MARK, end, MARK) == 0) {
            n -= MARK;
            break;
        }
    }
    unsigned char how = CC_ERROR;
    if (text) {
        text[n] = 0;
        how = n == 0 || el_winsertstr(line, text) == 0 ? CC_REFRESH : CC_ERROR;
    }
    free(text);
    return how;
}

static unsigned char line_end(EditLine *line, int key)
{
    (void)key;
    return el_winsertstr(line, L"\n") == 0 ? CC_REFRESH : CC_ERROR;
}

struct chat_editor *chat_editor_open(void)
{
    HistEvent event;
    const char *terminal = getenv("TERM");
    if (!isatty(1) || !terminal || strcmp(terminal, "dumb") == 0) return NULL;
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8"); // a model's text is UTF-8
    struct chat_editor *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->prompt = "> ";
    e->line = el_init("gyre", stdin, stdout, stderr);
    e->history = history_init();
    if (!e->line || !e->history) {
        chat_editor_close(e);
        return NULL;
    }
    history(e->history, &event, H_SETSIZE, HISTORY);
    history(e->history, &event, H_SETUNIQUE, 1);
    el_set(e->line, EL_CLIENTDATA, e);
    el_set(e->line, EL_PROMPT, prompt_of);
    el_set(e->line, EL_EDITOR, "emacs");
    el_set(e->line, EL_SIGNAL, 0);
    el_wset(e->line, EL_GETCFN, next_character);
    // Ctrl-C must not throw away what is on its way to the screen: that may be the prompt that answers it.
    el_set(e->line, EL_SETTY, "-d", "+noflsh", NULL);
    el_set(e->line, EL_SETTY, "-x", "+noflsh", NULL);
    el_set(e->line, EL_HIST, history, e->history);
    el_set(e->line, EL_ADDFN, "gyre-paste", "insert pasted text", paste);
    el_set(e->line, EL_ADDFN, "gyre-line-end", "insert a line end", line_end);
    el_set(e->line, EL_BIND, "\\e[200~", "gyre-paste", NULL);
    el_set(e->line, EL_BIND, "\\e^M", "gyre-line-end", NULL);
    el_set(e->line, EL_BIND, "\\e^J", "gyre-line-end", NULL);
    el_set(e->line, EL_BIND, "\\e[A", "ed-prev-history", NULL);
    el_set(e->line, EL_BIND, "\\e[B", "ed-next-history", NULL);
    el_set(e->line, EL_BIND, "\\e[C", "ed-next-char", NULL);
    el_set(e->line, EL_BIND, "\\e[D", "ed-prev-char", NULL);
    el_set(e->line, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
    el_set(e->line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return e;
}

void chat_editor_close(struct chat_editor *e)
{
    if (!e) return;
    if (e->line) el_end(e->line);
    if (e->history) history_end(e->history);
    free(e);
}

static void switch_marks(bool on) // of pasted text
{
    fputs(on ? "\x1b[?2004h" : "\x1b[?2004l", stdout);
    fflush(stdout);
}

enum chat_read chat_editor_read(struct chat_editor *e, const char *prompt, char **line)
{
    HistEvent event;
    int n = 0;
    e->prompt = prompt;
    el_resize(e->line);
    switch_marks(true);
    el_set(e->line, EL_PREP_TERM, 1); // before the prompt is seen: a Ctrl-D that answers it at once is a key already
    const char *text = el_gets(e->line, &n);
    switch_marks(false);
    if (cli_interrupted()) return CHAT_END;
    if (cli_take_sigint()) {
        el_reset(e->line);
        fputs("^C\n", stdout);
        return CHAT_CLEARED;
    }
    if (!text || n <= 0) {
        fputc('\n', stdout);
        return CHAT_END;
    }
    *line = strdup(text);
    if (!*line) return CHAT_END;
    (*line)[strlen(*line) - ((*line)[strlen(*line) - 1] == '\n')] = 0;
    if (**line) history(e->history, &event, H_ENTER, *line);
    return CHAT_LINE;
}

#else

struct chat_editor *chat_editor_open(void) { return NULL; }
void chat_editor_close(struct chat_editor *editor) { (void)editor; }

enum chat_read chat_editor_read(struct chat_editor *editor, const char *prompt, char **line)
{
    (void)editor;
    (void)prompt;
    *line = NULL;
    return CHAT_END;
}

#endif
