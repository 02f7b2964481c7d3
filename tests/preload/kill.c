// For LD_PRELOAD: numbers the calls that change files below KILL_UNDER and ends the program, as a kill would, just
// before the KILL_AT-th; with KILL_TORN behind half of it where it writes; with KILL_FULL it goes on, and whatever
// writes from there on finds the disk full. KILL_LOG, a file: a line for each call, its name.
#undef _FILE_OFFSET_BITS // both names of a call are defined here
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int calls;
static bool full;

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) abort();
    return f;
}

static bool inside(int folder, const char *path)
{
    const char *under = getenv("KILL_UNDER");
    char link[32], base[PATH_MAX];
    if (!under) return false;
    if (path && *path == '/') return !strncmp(path, under, strlen(under));
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    const ssize_t n = readlink(link, base, sizeof base - 1);
    if (n < 0) return false;
    base[n] = 0;
    return !strncmp(base, under, strlen(under));
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

// True: the call is to be cut in half.
static bool counts(const char *name, int folder, const char *path, bool writes)
{
    if (!inside(folder, path)) return false;
    const char *at = getenv("KILL_AT"), *log = getenv("KILL_LOG");
    const int me = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    const int fd = log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (fd >= 0) {
        char line[32];
        const int n = snprintf(line, sizeof line, "%s\n", name);
        if (syscall(SYS_write, fd, line, (size_t)n) != n) abort();
        syscall(SYS_close, fd);
    }
    if (at && me >= atoi(at) && getenv("KILL_FULL")) {
        full = true;
        return false;
    }
    if (!at || me != atoi(at)) return false;
    if (writes && getenv("KILL_TORN")) return true;
    die();
    return false;
}

// ---- what writes ----------------------------------------------------------------------------------------------------

ssize_t write(int fd, const void *data, size_t n)
{
    ssize_t (*const f)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))next("write");
    const bool torn = counts("write", fd, NULL, true);
    if (full && inside(fd, NULL)) return errno = ENOSPC, -1;
    const ssize_t done = f(fd, data, torn ? n / 2 : n);
    if (torn) die();
    return done;
}

static ssize_t write_at(int fd, const void *data, size_t n, off64_t at)
{
    ssize_t (*const f)(int, const void *, size_t, off64_t) =
        (ssize_t(*)(int, const void *, size_t, off64_t))next("pwrite64");
    const bool torn = counts("pwrite", fd, NULL, true);
    if (full && inside(fd, NULL)) return errno = ENOSPC, -1;
    const ssize_t done = f(fd, data, torn ? n / 2 : n, at);
    if (torn) die();
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return write_at(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return write_at(fd, data, n, at); }

// ---- what makes, names and removes ----------------------------------------------------------------------------------

static int resize(int fd, off64_t bytes)
{
    counts("ftruncate", fd, NULL, false);
    return ((int (*)(int, off64_t))next("ftruncate64"))(fd, bytes);
}

int ftruncate(int fd, off_t bytes) { return resize(fd, bytes); }
int ftruncate64(int fd, off64_t bytes) { return resize(fd, bytes); }

static int open_one(const char *path, int flags, mode_t mode)
{
    if (flags & (O_CREAT | O_TRUNC)) counts("open", AT_FDCWD, path, false);
    return ((int (*)(const char *, int, ...))next("open64"))(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_one(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_one(path, flags, mode);
}

int rename(const char *from, const char *to)
{
    counts("rename", AT_FDCWD, to, false);
    return ((int (*)(const char *, const char *))next("rename"))(from, to);
}

int unlink(const char *path)
{
    counts("unlink", AT_FDCWD, path, false);
    return ((int (*)(const char *))next("unlink"))(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    counts("unlinkat", folder, path, false);
    return ((int (*)(int, const char *, int))next("unlinkat"))(folder, path, flags);
}

int rmdir(const char *path)
{
    counts("rmdir", AT_FDCWD, path, false);
    return ((int (*)(const char *))next("rmdir"))(path);
}

int mkdir(const char *path, mode_t mode)
{
    counts("mkdir", AT_FDCWD, path, false);
    return ((int (*)(const char *, mode_t))next("mkdir"))(path, mode);
}
