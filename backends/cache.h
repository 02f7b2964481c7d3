// A folder of blobs that drivers made (pipelines, programs). Anyone may delete, damage or copy these files at any
// time: a blob counts only when its own header names the wanted key and its payload hashes to the stored value.
// Knows nothing about what a blob means; that the key covers device, driver and kernel is the caller's part.
#pragma once
#include "runtime/util/log.h"
#include "runtime/util/sha256.h"

#include <stdbool.h>
#include <stddef.h>

// SHA-256 over `n` texts with their ends, so that {"ab", "c"} and {"a", "bc"} differ.
void gyre_cache_key(char key[GYRE_SHA256_HEX], const char *const *texts, size_t n);

// Reads what was stored under (kind, key); `kind` begins the file name ("opencl"). The caller frees the result. NULL
// when there is nothing to trust: absent, foreign or damaged, or `dir` is NULL.
void *gyre_cache_load(const char *dir, const char *kind, const char key[GYRE_SHA256_HEX], size_t *size);

// Stores a blob atomically, creating `dir` when needed. A cache that cannot be written costs time, never a result:
// failures are only logged. Does nothing when `dir` is NULL.
void gyre_cache_store(const char *dir, const char *kind, const char key[GYRE_SHA256_HEX], const void *data, size_t size,
                      const gyre_log *log);

// Removes what is stored under (kind, key), if there is anything.
void gyre_cache_forget(const char *dir, const char *kind, const char key[GYRE_SHA256_HEX]);
