// HTTP by libmicrohttpd: connections, bodies, replies. A connection has a thread of its own, which may wait.
#pragma once
#include "cli/serve/links.h"
#include "cli/serve/serve.h"

enum { SERVE_BODY_LIMIT = 16 << 20 };

struct serve_http; // the server's sockets

// A request, whole. Strings live as long as it does.
struct serve_request {
    struct serve *serve;
    struct serve_http *http;
    struct serve_link *link;
    void *connection;                          // struct MHD_Connection
    const char *method, *path, *authorization; // authorization: NULL where there is none
    char *body;
    size_t n_body, cap_body, came; // came: bytes of it, kept or not
    bool wanted;                   // it is kept
    json_t *json;                  // what the body says, until serve_body_end
    bool large;                    // its turn among large bodies
    struct serve_job *job;
};

// Makes an answer of a request that has come whole, by one of the functions below; false: the connection is to be
// closed.
typedef bool (*serve_answerer)(struct serve_request *request);
// Before a body comes: is it of use? Else it is read and dropped, and the answer is made without it.
typedef bool (*serve_taker)(const struct serve_request *request);

// Listens on HOST:PORT (*port gets the one that was taken). The line that it listens is the caller's to print.
gyre_status serve_http_start(struct serve *serve, serve_answerer answer, serve_taker takes, uint32_t *port,
                             struct serve_http **out, gyre_error *err) GYRE_MUST_USE;
void serve_http_quiet(struct serve_http *http); // takes no more connections
void serve_http_stop(struct serve_http *http);  // waits a moment for answers to be sent; accepts NULL

// A body becomes many times its size where it is read: large ones are in memory one at a time, from the first of these
// to the second, which forgets what the body says. Whoever waits for the engine calls that before; twice is fine.
void serve_body_begin(struct serve_request *request);
void serve_body_end(struct serve_request *request);

// Each queues the answer; false where that failed and the connection is to be closed.
// `text` is malloc'd and taken. `header` and `value` (may be NULL): one more header.
bool serve_reply(struct serve_request *request, int status, const char *type, char *text, const char *header,
                 const char *value);
bool serve_reply_json(struct serve_request *request, int status, json_t *json); // takes the reference
bool serve_reply_error(struct serve_request *request, const struct serve_error *error, const char *header,
                       const char *value);
// Puts the job into the queue and answers when it is done, or, where it asks for it, as a stream. Takes the
// reference.
bool serve_reply_job(struct serve_request *request, struct serve_job *job);
