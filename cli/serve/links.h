// The connections there are, and a thread that looks after them: a client that goes away while its answer is made
// frees the engine at once, and one that never completes a request is dropped. libmicrohttpd sees neither, as its
// threads wait for the engine meanwhile.
#pragma once
#include "cli/serve/queue.h"

struct serve_links;
struct serve_link; // one connection

// NULL: out of memory, or no thread. `request_s`: seconds from a connection's last request to the end of the next.
struct serve_links *serve_links_start(serve_queue *queue, unsigned request_s);
void serve_links_stop(struct serve_links *links); // accepts NULL; when no connection is left

struct serve_link *serve_link_open(struct serve_links *links, int fd); // NULL: out of memory
void serve_link_close(struct serve_links *links, struct serve_link *link);
// A request has come whole. `job` (may be NULL) is cancelled when its client goes away.
void serve_link_busy(struct serve_links *links, struct serve_link *link, struct serve_job *job);
void serve_link_idle(struct serve_links *links, struct serve_link *link); // it was answered
// Connections with a request under way.
uint32_t serve_links_busy(struct serve_links *links);
