// The page at "/": cli/serve/page/ as one HTML document that loads nothing.
#pragma once
#include <stdint.h>

extern const char serve_page[]; // a NUL follows
extern const uint64_t serve_page_bytes;

// Its Content-Security-Policy: its own style and script, known by their hashes, and requests to this server; nothing
// else. malloc'd; NULL where memory ran out.
char *serve_page_policy(void);
