// Model files are read through mappings. One that another program shortens meanwhile, or whose disk fails, has pages
// that cannot be read, and touching them is the signal SIGBUS, which would end the program without a word.
#pragma once
#include <stdint.h>

// From now on such a fault ends the program with status 1 and a line that names the file. For programs only: a library
// does not take signals from its host. Other causes of SIGBUS stay what they are.
void cli_guard_mappings(void);

// Where fewer bytes than `least` are free in the folder of caches, Mesa's drivers are told to keep none (unless the
// user has told them something): they write through a mapping, from a thread that blocks signals, and on a full disk
// the program would end by SIGBUS without that line. Call it before a driver is loaded.
enum { CLI_CACHE_ROOM = 16 << 20 };
void cli_guard_caches(uint64_t least);
