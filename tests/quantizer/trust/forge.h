// Changes files and manifests as somebody would who wants to pass, or fails to copy: for the tests of verify and
// reproduce.
#pragma once

#include <gyre/gyre_quantize.h>
#include <jansson.h>

void forge_make(const gyre_quantize_params *params); // quantizes; fails the test if that fails

// XORs one byte of a tensor: byte `at` of its data (from its end where negative). `hash` also corrects its row of the
// manifest.
void forge_tensor(const char *file, const char *tensor, long at, unsigned char flip, bool hash);
// XORs one byte of the file; writes front_sha256 of what then lies before the first tensor where `hash`.
void forge_byte(const char *file, long at, unsigned char flip, bool hash);
long forge_find(const char *file, const char *text); // offset just behind the first occurrence

json_t *forge_manifest(const char *path);                                // new reference
void forge_save(const char *path, json_t *manifest);                     // steals it
json_t *forge_row(json_t *manifest, const char *list, const char *name); // borrowed
