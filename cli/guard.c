// See guard.h. A signal handler may call little: everything that it does here is read(2), write(2) and arithmetic.
#include "cli/guard.h"
#include "runtime/util/file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 512 };

// A line of /proc/self/maps ("begin-end rwxp offset device inode   path") as its bytes come.
struct line {
    uint64_t number[2]; // begin, end
    int field;          // 0, 1: the numbers; 2: up to the path; 3: the path
    uint32_t n;
    char path[PATH_BYTES];
};

static void take(struct line *l, char c)
{
    if (l->field < 2) {
        if (c == '-' || c == ' ') l->field++;
        else l->number[l->field] = l->number[l->field] * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    } else if (l->field == 2 && c == '/') {
        l->field = 3;
    }
    if (l->field == 3 && l->n < PATH_BYTES - 1) l->path[l->n++] = c;
}

// The file that is mapped at an address; false where that cannot be told.
static bool mapped_file(uint64_t address, struct line *out)
{
    char piece[1024];
    bool found = false;
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    memset(out, 0, sizeof *out);
    for (ssize_t n; !found && (n = read(fd, piece, sizeof piece)) > 0;) {
        for (ssize_t i = 0; i < n && !found; i++) {
            if (piece[i] != '\n') {
                take(out, piece[i]);
                continue;
            }
            found = address >= out->number[0] && address < out->number[1] && out->n > 0;
            if (!found) memset(out, 0, sizeof *out);
        }
    }
    close(fd);
    return found;
}

static void say(const char *text, size_t n)
{
    while (n) {
        const ssize_t done = write(2, text, n);
        if (done <= 0) return;
        text += done;
        n -= (size_t)done;
    }
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    static const char before[] = "gyre: cannot read file (", unknown[] = "one that is mapped",
                      after[] = "): it became shorter while it was in use, or its disk failed; make it whole and try "
                                "again\n";
    struct line line;
    (void)context;
    if (info->si_code != BUS_ADRERR) { // no page behind a mapping: a fault of the program
        signal(number, SIG_DFL);
        return; // and meets it again
    }
    if (isatty(2)) say("\n", 1); // a progress line may stand there
    say(before, sizeof before - 1);
    if (mapped_file((uint64_t)(uintptr_t)info->si_addr, &line)) say(line.path, line.n);
    else say(unknown, sizeof unknown - 1);
    say(after, sizeof after - 1);
    _exit(1);
}

void cli_guard_caches(uint64_t least)
{
    char path[4096];
    const char *own = getenv("MESA_SHADER_CACHE_DIR"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    uint64_t bytes;
    int n = -1;
    if (own && *own) n = snprintf(path, sizeof path, "%s", own);
    else if (cache && *cache) n = snprintf(path, sizeof path, "%s", cache);
    else if (home && *home) n = snprintf(path, sizeof path, "%s/.cache", home);
    if (n > 0 && (size_t)n < sizeof path && gyre_disk_free(path, &bytes, NULL) == GYRE_OK && bytes < least)
        (void)setenv("MESA_SHADER_CACHE_DISABLE", "true", 0);
}

void cli_guard_mappings(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
