// What was found wrong with a device's kernels: those that did not compile, or gave other bits than the base kernel. A
// list for people, in the cache folder, by device, driver and all kernels' texts; nothing is decided by it.
#pragma once
#include "runtime/util/log.h"
#include "runtime/util/sha256.h"

enum { GYRE_FAULTS_MOST = 8192 }; // bytes of the list; what does not fit is not kept

// Is a failure the kernel's own? Not where memory ran out: there is nothing wrong with it then.
bool gyre_faults_own(gyre_status failure);

// Notes a line, unless the list has it. Does nothing where `dir` is NULL; a folder that cannot be written costs it.
void gyre_faults_note(const char *dir, const char *name, const char *driver, const char *line, const gyre_log *log);
// The lines of a device of that name and driver, each with its newline; malloc'd, NULL: none are known.
char *gyre_faults_load(const char *dir, const char *name, const char *driver);
