// Files for tests: one folder per test program, and whole files in and out.
#pragma once
#include <stdint.h>

// `name` in a folder of this program below the current one. The folder is made at the first call and vanishes with all
// that is in it when the program ends by itself (files_remove, or exit). One of 64 static buffers in rotation.
const char *files_path(const char *name);
void files_remove(void); // what files_path made; it may be called again afterwards

// malloc'd and NUL-terminated; NULL if there is no such file.
char *files_read(const char *path, uint64_t *bytes);
// The text becomes the whole file. A file that cannot be written ends the program.
void files_write(const char *path, const char *text);
