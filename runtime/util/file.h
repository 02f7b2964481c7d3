// Files as wholes: map, read, replace atomically; directories and free space. POSIX.
//
// Every failure is GYRE_E_IO (GYRE_E_NOMEM where memory ran out) with a message that names the path
// and the system's reason.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A regular file's bytes, read-only, valid until gyre_file_unmap. An empty file has size 0 and a
// non-NULL data. A file that another program shortens meanwhile faults on access (SIGBUS), as with any mmap; where the
// cut lies in a page that is still there, zeros are read: see gyre_file_unchanged.
struct gyre_file_map {
    const unsigned char *data;
    uint64_t size;
    int fd;                       // of the file, while mapped
    int64_t seconds, nanoseconds; // when it was last changed
};
gyre_status gyre_file_map(const char *path, struct gyre_file_map *out, gyre_error *err) GYRE_MUST_USE;
void gyre_file_unmap(struct gyre_file_map *map); // accepts a zeroed map; zeroes it

// Whether the mapped file has the size and the time of change that it had when it was mapped: what was read so far was
// one file. GYRE_E_IO where it has not; `path` names it.
gyre_status gyre_file_unchanged(const struct gyre_file_map *map, const char *path, gyre_error *err) GYRE_MUST_USE;

// Gives the memory of mapped bytes back (whole pages inside the range); they are read again from the file when needed.
void gyre_file_forget(const void *mapped, uint64_t bytes);

// The whole file with a NUL after it, in memory that the caller frees; `size` (may be NULL) is without
// that NUL. A file above `max` bytes is refused with GYRE_E_FORMAT before memory is taken.
gyre_status gyre_file_read(const char *path, uint64_t max, char **out, uint64_t *size, gyre_error *err) GYRE_MUST_USE;

// Replaces `path` by `size` bytes: a reader sees the old file or the new one, never a part. The bytes go to
// gyre_file_temp's name first; it is removed on failure. A device or a pipe is refused, here and below: it would be
// gone.
gyre_status gyre_file_write(const char *path, const void *data, uint64_t size, gyre_error *err) GYRE_MUST_USE;

// The name of a file that becomes `path`: "PATH.tmp-PLACE-PID", where PLACE (8 hex digits) stands for what numbers of
// processes mean anything in, a host and a container on it: a folder may be shared by several. False: it does not fit.
bool gyre_file_temp(const char *path, char *out, size_t cap);
// Removes what writing `path` left behind where it was killed: every such file whose process is no more. What another
// place made stays: whether its process lives cannot be asked here.
void gyre_file_clear_temps(const char *path);

// The same as gyre_file_write with two pieces, one behind the other; either may be NULL (and of size 0).
gyre_status gyre_file_write2(const char *path, const void *const data[2], const uint64_t size[2],
                             gyre_error *err) GYRE_MUST_USE;

// The first half of gyre_file_write: the bytes lie in gyre_file_temp's name, which temp[cap] receives, and are durable.
// gyre_file_commit does the rest, for which no space is needed. Nothing is there on failure.
gyre_status gyre_file_stage(const char *path, const void *const data[2], const uint64_t size[2], char *temp, size_t cap,
                            gyre_error *err) GYRE_MUST_USE;

// The last step of a file that was written in pieces: makes `temp` durable and renames it to `path` (same
// directory). Removes `temp` on failure.
gyre_status gyre_file_commit(const char *temp, const char *path, gyre_error *err) GYRE_MUST_USE;

bool gyre_file_exists(const char *path);

// A model in parts is named by its first: NAME-00001-of-00004.gguf. The number of parts that a path's name tells, with
// the path of part `part` (from 1 on) in out[cap]; 0 where it is no such name or does not fit.
uint32_t gyre_file_parts(const char *path, uint32_t part, char *out, size_t cap);

// May `output` be written while `input`, a file or a folder, is read? Not where they are one file or one folder, nor
// where the output is a file of the folder: by device and inode, so through links and under any spelling; where both
// are still to be made, by their folder's and their name. `what` says what the input is ("the base model"); NULL paths:
// nothing to compare.
gyre_status gyre_file_apart(const char *output, const char *input, const char *what, gyre_error *err) GYRE_MUST_USE;
// The same for everything that is written as PATH, PATH.part, PATH.journal and the like: `endings` are `n` texts.
gyre_status gyre_files_apart(const char *output, const char *const *endings, size_t n, const char *input,
                             const char *what, gyre_error *err) GYRE_MUST_USE;

// Bytes that an unprivileged process may still write where `path` lies; `path` itself need not exist yet.
gyre_status gyre_disk_free(const char *path, uint64_t *bytes, gyre_error *err) GYRE_MUST_USE;

// Could gyre_make_dirs make the directory, and files be written in it? Asked before long work; changes nothing.
gyre_status gyre_check_dirs(const char *path, gyre_error *err) GYRE_MUST_USE;
// The same of the directory where a file `path` would lie, which must exist.
gyre_status gyre_check_place(const char *path, gyre_error *err) GYRE_MUST_USE;
// That, and that a file may take this name: nothing is there, or a file that it replaces.
gyre_status gyre_check_file(const char *path, gyre_error *err) GYRE_MUST_USE;

// Creates a directory and its missing parents; one that exists is fine.
gyre_status gyre_make_dirs(const char *path, gyre_error *err) GYRE_MUST_USE;
