// See file.h. The atomic replacement is the usual one: write beside the target, fsync, rename, fsync the
// directory (rename(2), POSIX.1-2017: the target always names the old or the new file).
#include "runtime/util/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static gyre_status fail_io(gyre_error *err, const char *what, const char *path)
{
    return gyre_fail(err, GYRE_E_IO, "cannot %s (%s): %s", what, path, strerror(errno));
}

static gyre_status open_regular(const char *path, int *fd, uint64_t *size, gyre_error *err)
{
    struct stat info;
    // O_NONBLOCK: opening a FIFO must not wait for its writer; regular files do not care.
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fail_io(err, "open file", path);
    if (fstat(*fd, &info)) {
        gyre_status st = fail_io(err, "inspect file", path);
        close(*fd);
        return st;
    }
    if (!S_ISREG(info.st_mode)) {
        close(*fd);
        return gyre_fail(err, GYRE_E_IO, "cannot open file (%s): it is %s, not a file", path,
                         S_ISDIR(info.st_mode) ? "a directory" : "a device or pipe");
    }
    *size = (uint64_t)info.st_size;
    return GYRE_OK;
}

gyre_status gyre_file_map(const char *path, struct gyre_file_map *out, gyre_error *err)
{
    int fd;
    uint64_t size = 0;
    struct stat info;
    const void *data = "";
    *out = (struct gyre_file_map){0};
    GYRE_TRY(open_regular(path, &fd, &size, err));
    gyre_status st = fstat(fd, &info) ? fail_io(err, "inspect file", path) : GYRE_OK;
    if (st == GYRE_OK && size) data = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) st = fail_io(err, "map file", path);
    if (st == GYRE_OK)
        *out = (struct gyre_file_map){.data = data,
                                      .size = size,
                                      .fd = fd,
                                      .seconds = (int64_t)info.st_mtim.tv_sec,
                                      .nanoseconds = (int64_t)info.st_mtim.tv_nsec};
    else close(fd);
    return st;
}

void gyre_file_unmap(struct gyre_file_map *map)
{
    if (map->size) munmap((void *)(uintptr_t)map->data, (size_t)map->size);
    if (map->data) close(map->fd);
    *map = (struct gyre_file_map){0};
}

gyre_status gyre_file_unchanged(const struct gyre_file_map *map, const char *path, gyre_error *err)
{
    struct stat info;
    if (fstat(map->fd, &info)) return fail_io(err, "inspect file", path);
    if ((uint64_t)info.st_size == map->size && info.st_mtim.tv_sec == map->seconds &&
        info.st_mtim.tv_nsec == map->nanoseconds)
        return GYRE_OK;
    return gyre_fail(err, GYRE_E_IO, "cannot read file (%s): it was changed while it was read; try again", path);
}

gyre_status gyre_file_read(const char *path, uint64_t max, char **out, uint64_t *size, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    int fd;
    uint64_t expected = 0, got = 0;
    char *data = NULL;
    *out = NULL;
    GYRE_TRY(open_regular(path, &fd, &expected, err));
    if (expected > max) {
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot read file (%s): it has %llu bytes, more than the %llu expected at most", path,
                       (unsigned long long)expected, (unsigned long long)max);
        goto done;
    }
    data = malloc((size_t)expected + 1);
    if (!data) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot read file (%s): out of memory for %llu bytes", path,
                       (unsigned long long)expected);
        goto done;
    }
    while (got < expected) {
        const ssize_t n = read(fd, data + got, (size_t)(expected - got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = fail_io(err, "read file", path);
            goto done;
        }
        if (n == 0) break; // somebody shortened it: what is left is the file
        got += (uint64_t)n;
    }
    data[got] = 0;
    if (size) *size = got;
    *out = data;
    data = NULL;
done:
    free(data);
    close(fd);
    return st;
}

// Of the host's name and, as containers may have that of their host, of the space that processes are numbered in.
static uint32_t place(void)
{
    char text[512] = "";
    uint32_t hash = 2166136261u; // FNV-1a
    if (gethostname(text, 256)) text[0] = 0;
    text[255] = 0;
    const size_t n = strlen(text);
    (void)!readlink("/proc/self/ns/pid", text + n, sizeof text - n - 1);
    for (const char *at = text; *at; at++) hash = (hash ^ (unsigned char)*at) * 16777619u;
    return hash;
}

bool gyre_file_temp(const char *path, char *out, size_t cap)
{
    const int n = snprintf(out, cap, "%s.tmp-%08x-%ld", path, place(), (long)getpid());
    return n > 0 && (size_t)n < cap;
}

// Renames are durable once their directory is. Some file systems cannot sync a directory: not an error.
static void sync_parent(const char *path)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof parent) return;
    memcpy(parent, path, n);
    parent[n] = 0;
    const int fd = open(n ? parent : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

// A rename puts a file where a device or a pipe was: for root /dev/null, too, and it is gone.
static gyre_status replaceable(const char *path, gyre_error *err)
{
    struct stat info;
    if (stat(path, &info) || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) return GYRE_OK; // a folder stays by itself
    return gyre_fail(err, GYRE_E_IO,
                     "cannot write file (%s): it is a device or pipe, and a file would replace it; choose another name",
                     path);
}

gyre_status gyre_file_commit(const char *temp, const char *path, gyre_error *err)
{
    gyre_status st = replaceable(path, err);
    const int fd = open(temp, O_RDONLY | O_CLOEXEC);
    if (st == GYRE_OK && (fd < 0 || fsync(fd))) st = fail_io(err, fd < 0 ? "open file" : "write file", temp);
    if (fd >= 0) close(fd);
    if (st == GYRE_OK && rename(temp, path)) st = fail_io(err, "write file", path);
    if (st == GYRE_OK) sync_parent(path);
    else unlink(temp);
    return st;
}

static gyre_status write_all(int fd, const char *path, const unsigned char *data, uint64_t size, gyre_error *err)
{
    while (size) {
        const ssize_t n = write(fd, data, (size_t)(size < 1u << 30 ? size : 1u << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_io(err, "write file", path);
        data += n;
        size -= (uint64_t)n;
    }
    return GYRE_OK;
}

gyre_status gyre_file_write(const char *path, const void *data, uint64_t size, gyre_error *err)
{
    return gyre_file_write2(path, (const void *const[2]){data, NULL}, (const uint64_t[2]){size, 0}, err);
}

gyre_status gyre_file_stage(const char *path, const void *const data[2], const uint64_t size[2], char *temp, size_t cap,
                            gyre_error *err)
{
    if (!gyre_file_temp(path, temp, cap)) {
        errno = ENAMETOOLONG;
        return fail_io(err, "write file", path);
    }
    GYRE_TRY(replaceable(path, err));
    const int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail_io(err, "write file", path);
    gyre_status st = write_all(fd, path, data[0], size[0], err);
    if (st == GYRE_OK) st = write_all(fd, path, data[1], size[1], err);
    if (st == GYRE_OK && fsync(fd)) st = fail_io(err, "write file", path);
    if (close(fd) && st == GYRE_OK) st = fail_io(err, "write file", path);
    if (st != GYRE_OK) unlink(temp);
    return st;
}

gyre_status gyre_file_write2(const char *path, const void *const data[2], const uint64_t size[2], gyre_error *err)
{
    char temp[PATH_MAX];
    GYRE_TRY(gyre_file_stage(path, data, size, temp, sizeof temp, err));
    return gyre_file_commit(temp, path, err);
}

void gyre_file_clear_temps(const char *path)
{
    char name[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t folder = slash ? (size_t)(slash + 1 - path) : 0;
    if ((size_t)snprintf(name, sizeof name, "%.*s", folder ? (int)folder : 1, folder ? path : ".") >= sizeof name)
        return;
    DIR *dir = opendir(name);
    if ((size_t)snprintf(name, sizeof name, "%s.tmp-%08x-", path + folder, place()) < sizeof name)
        for (struct dirent *e; dir && (e = readdir(dir));) {
            char *end;
            if (strncmp(e->d_name, name, strlen(name))) continue;
            const long pid = strtol(e->d_name + strlen(name), &end, 10);
            if (pid > 0 && !*end && kill((pid_t)pid, 0) && errno == ESRCH) unlinkat(dirfd(dir), e->d_name, 0);
        }
    if (dir) closedir(dir);
}

void gyre_file_forget(const void *mapped, uint64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = ((uintptr_t)mapped + page - 1) / page * page,
                    end = ((uintptr_t)mapped + (uintptr_t)bytes) / page * page;
    if (end > first) (void)madvise((void *)first, end - first, MADV_DONTNEED); // advice: failing changes nothing
}

bool gyre_file_exists(const char *path) { return access(path, F_OK) == 0; }

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

// What a path leads to: itself, or its folder where it does not exist yet. -1 where that is missing, too; else 1 for
// itself.
static int look(const char *path, struct stat *info)
{
    char folder[PATH_MAX];
    if (!stat(path, info)) return 1;
    const char *slash = strrchr(path, '/');
    if (!slash) return stat(".", info);
    if ((size_t)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path + 1), path) >= sizeof folder) return -1;
    return stat(folder, info);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// Is it one of the folder's files, whatever it is called there?
static bool holds(const char *folder, const struct stat *file)
{
    struct stat info;
    bool found = false;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && !found && (e = readdir(dir));)
        found = !fstatat(dirfd(dir), e->d_name, &info, 0) && S_ISREG(info.st_mode) && same(&info, file);
    if (dir) closedir(dir);
    return found;
}

uint32_t gyre_file_parts(const char *path, uint32_t part, char *out, size_t cap)
{
    enum { DIGITS = 5, ENDING = 1 + DIGITS + 4 + DIGITS + 5 }; // -00001-of-00004.gguf
    const size_t length = strlen(path);
    uint32_t number[2] = {0};
    if (length < ENDING) return 0;
    const char *end = path + length - ENDING;
    for (int i = 0; i < 2; i++) {
        const char *digits = end + 1 + i * (DIGITS + 4);
        for (int k = 0; k < DIGITS; k++) {
            if (digits[k] < '0' || digits[k] > '9') return 0;
            number[i] = 10 * number[i] + (uint32_t)(digits[k] - '0');
        }
    }
    if (end[0] != '-' || strncmp(end + 1 + DIGITS, "-of-", 4) || strcmp(end + ENDING - 5, ".gguf")) return 0;
    const int n = snprintf(out, cap, "%.*s-%05u-of-%05u.gguf", (int)(length - ENDING), path, part, number[1]);
    return n > 0 && (size_t)n < cap && number[0] > 0 && number[0] <= number[1] ? number[1] : 0;
}

// Is it one of the parts of the model that a path names a part of?
static bool is_part(const char *model, const struct stat *file)
{
    char part[PATH_MAX];
    struct stat info;
    const uint32_t n = gyre_file_parts(model, 1, part, sizeof part);
    for (uint32_t i = 1; i <= n; i++)
        if (gyre_file_parts(model, i, part, sizeof part) && !stat(part, &info) && same(&info, file)) return true;
    return false;
}

gyre_status gyre_file_apart(const char *output, const char *input, const char *what, gyre_error *err)
{
    struct stat out, in;
    if (!output || !input) return GYRE_OK;
    const int there = look(output, &out), given = look(input, &in);
    if (there < 0 || there != given) return GYRE_OK;
    if (same(&out, &in) && (there || !strcmp(last_part(output), last_part(input))))
        return gyre_fail(err, GYRE_E_IO, "cannot write (%s): it is %s itself; choose another name", output, what);
    if (there && S_ISREG(out.st_mode) && (S_ISDIR(in.st_mode) ? holds(input, &out) : is_part(input, &out)))
        return gyre_fail(err, GYRE_E_IO, "cannot write (%s): it is a file of %s, %s; choose another name", output, what,
                         input);
    return GYRE_OK;
}

gyre_status gyre_files_apart(const char *output, const char *const *endings, size_t n, const char *input,
                             const char *what, gyre_error *err)
{
    char path[PATH_MAX];
    for (size_t i = 0; i < n; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s%s", output, endings[i]) >= sizeof path) {
            errno = ENAMETOOLONG;
            return fail_io(err, "write file", output);
        }
        GYRE_TRY(gyre_file_apart(path, input, what, err));
    }
    return GYRE_OK;
}

gyre_status gyre_disk_free(const char *path, uint64_t *bytes, gyre_error *err)
{
    char at[PATH_MAX];
    struct statvfs info;
    if ((size_t)snprintf(at, sizeof at, "%s", path) >= sizeof at) {
        errno = ENAMETOOLONG;
        return fail_io(err, "find free space", path);
    }
    // The nearest ancestor that exists lies on the same file system.
    while (statvfs(at, &info)) {
        if (errno != ENOENT && errno != ENOTDIR) return fail_io(err, "find free space", path);
        char *slash = strrchr(at, '/');
        if (!slash) strcpy(at, ".");
        else if (slash == at) strcpy(at, "/");
        else *slash = 0;
    }
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return GYRE_OK;
}

static gyre_status usable(const char *directory, const char *what, const char *path, gyre_error *err)
{
    struct stat info;
    if (stat(directory, &info)) return fail_io(err, what, path);
    errno = ENOTDIR;
    if (!S_ISDIR(info.st_mode) || access(directory, W_OK | X_OK)) return fail_io(err, what, path);
    return GYRE_OK;
}

gyre_status gyre_check_dirs(const char *path, gyre_error *err)
{
    char at[PATH_MAX];
    if ((size_t)snprintf(at, sizeof at, "%s", path) >= sizeof at) {
        errno = ENAMETOOLONG;
        return fail_io(err, "create directory", path);
    }
    for (char *slash; access(at, F_OK) && (errno == ENOENT || errno == ENOTDIR);) { // up to what is there
        slash = strrchr(at, '/');
        if (!slash) strcpy(at, ".");
        else slash[slash == at] = 0;
    }
    return usable(at, "create directory", path, err);
}

gyre_status gyre_check_place(const char *path, gyre_error *err)
{
    char at[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if ((size_t)snprintf(at, sizeof at, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".") >= sizeof at) {
        errno = ENAMETOOLONG;
        return fail_io(err, "write file", path);
    }
    return usable(at, "write file", path, err);
}

gyre_status gyre_check_file(const char *path, gyre_error *err)
{
    struct stat info;
    GYRE_TRY(gyre_check_place(path, err));
    if (!stat(path, &info) && S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        return fail_io(err, "write file", path);
    }
    return replaceable(path, err);
}

gyre_status gyre_make_dirs(const char *path, gyre_error *err)
{
    char at[PATH_MAX];
    struct stat info;
    if ((size_t)snprintf(at, sizeof at, "%s", path) >= sizeof at) {
        errno = ENAMETOOLONG;
        return fail_io(err, "create directory", path);
    }
    for (char *p = at; *p; p++) {
        if (*p != '/' || p == at) continue;
        *p = 0;
        if (mkdir(at, 0777) && errno != EEXIST) return fail_io(err, "create directory", at);
        *p = '/';
    }
    if (mkdir(at, 0777) && errno != EEXIST) return fail_io(err, "create directory", at);
    if (stat(at, &info)) return fail_io(err, "create directory", at);
    errno = ENOTDIR;
    return S_ISDIR(info.st_mode) ? GYRE_OK : fail_io(err, "create directory", at);
}
