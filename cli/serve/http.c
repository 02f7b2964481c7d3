// See http.h.
#include "cli/serve/http.h"
#include "cli/serve/answer.h"
#include "cli/serve/stream.h"

#include "runtime/util/base.h"
#include "runtime/util/text.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IDLE_S = 30,
    UNREAD_S = 15, // without a byte of its answer taken, at least; more than a stream is silent (PING_S of stream.c)
    REQUEST_S = 120,
    MOST_CONNECTIONS = 1000,
    HEADER_BYTES = 64 << 10,
    LARGE_BODY = 1 << 20,
    STACK_BYTES = 2 << 20,
    FLUSH_MS = 1500
};

struct serve_http {
    struct serve *serve;
    serve_answerer answer;
    serve_taker takes;
    struct serve_links *links;
    struct MHD_Daemon *daemon;
    unsigned idle_s; // of silence on a connection
    int listening;   // -1: none
    bool quiet;
};

// ---- requests ---------------------------------------------------------------------------------------------

static struct serve_link *link_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? *(struct serve_link **)(void *)&info->socket_context : NULL;
}

static int socket_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

static bool too_large(struct serve_error *e)
{
    return serve_refuse(e, 413, NULL, NULL, "the request is larger than %d bytes", SERVE_BODY_LIMIT);
}

// libmicrohttpd takes no answer while a body arrives: this one goes straight to the socket, and the connection ends.
static void refuse_on_socket(struct MHD_Connection *connection)
{
    struct serve_error e = {0};
    char head[256];
    too_large(&e);
    json_t *json = serve_error_json(&e);
    char *body = json_dumps(json, JSON_COMPACT);
    const int fd = socket_of(connection);
    if (body && fd >= 0) {
        const int n = snprintf(head, sizeof head,
                               "HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nContent-Length: "
                               "%zu\r\nConnection: close\r\n\r\n",
                               strlen(body));
        if (send(fd, head, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE) == n)
            (void)!send(fd, body, strlen(body), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    free(body);
    json_decref(json);
}

static pthread_mutex_t large = PTHREAD_MUTEX_INITIALIZER;

void serve_body_begin(struct serve_request *r)
{
    r->large = r->n_body > LARGE_BODY;
    if (r->large) pthread_mutex_lock(&large);
}

void serve_body_end(struct serve_request *r)
{
    json_decref(r->json);
    free(r->body);
    r->json = NULL;
    r->body = NULL;
    r->n_body = r->cap_body = 0;
    if (!r->large) return;
#ifdef __GLIBC__
    malloc_trim(0); // what follows would lie above all of it, and keep it
#endif
    r->large = false;
    pthread_mutex_unlock(&large);
}

static bool take_body(struct serve_request *r, const char *data, size_t n)
{
    r->came += n;
    if (r->came > SERVE_BODY_LIMIT) {
        refuse_on_socket(r->connection);
        return false;
    }
    return !r->wanted || gyre_append(&r->body, &r->n_body, &r->cap_body, data, n);
}

static enum MHD_Result begin(struct serve_http *h, struct MHD_Connection *connection, const char *url,
                             const char *method, void **context)
{
    struct serve_request *r = calloc(1, sizeof *r);
    if (!r) return MHD_NO;
    *context = r;
    *r = (struct serve_request){.serve = h->serve, .http = h, .link = link_of(connection), .connection = connection};
    r->method = method;
    r->path = url;
    r->authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    r->wanted = h->takes(r);
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (!length || strtoull(length, NULL, 10) <= SERVE_BODY_LIMIT) return MHD_YES;
    struct serve_error e = {0};
    too_large(&e);
    return serve_reply_error(r, &e, "Connection", "close") ? MHD_YES : MHD_NO;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n, void **context)
{
    struct serve_http *h = user;
    struct serve_request *r = *context;
    (void)version;
    if (!r) return begin(h, connection, url, method, context);
    if (*n) {
        if (!take_body(r, data, *n)) return MHD_NO;
        *n = 0;
        return MHD_YES;
    }
    serve_link_busy(h->links, r->link, NULL);
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u); // it may wait long for the engine
    return h->answer(r) ? MHD_YES : MHD_NO;
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode why)
{
    struct serve_http *h = user;
    struct serve_request *r = *context;
    if (!r) return;
    *context = NULL;
    if (r->job) { // of a stream: its reader has gone, be it in the middle
        if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK) {
            serve_job_cancel(r->job);
            serve_queue_wake(h->serve->queue);
        }
    }
    serve_link_idle(h->links, r->link);
    serve_job_release(r->job);
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, r->http->idle_s);
    free(r->body);
    free(r);
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct serve_http *h = user;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) *context = serve_link_open(h->links, socket_of(connection));
    else if (*context) serve_link_close(h->links, *context);
}

// ---- replies ----------------------------------------------------------------------------------------------

static bool queue_response(struct serve_request *r, int status, struct MHD_Response *response)
{
    const unsigned unread_s = GYRE_MAX(r->http->idle_s, (unsigned)UNREAD_S);
    MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT, unread_s); // it waited without one
    const bool queued = response && MHD_queue_response(r->connection, (unsigned)status, response) == MHD_YES;
    if (response) MHD_destroy_response(response);
    return queued;
}

bool serve_reply(struct serve_request *r, int status, const char *type, char *text, const char *header,
                 const char *value)
{
    if (!text) return false;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return false;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (header) MHD_add_response_header(response, header, value);
    return queue_response(r, status, response);
}

bool serve_reply_json(struct serve_request *r, int status, json_t *json)
{
    struct serve_error error = {0};
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!cli_json_lost()) return serve_reply(r, status, "application/json", text, NULL, NULL);
    free(text);
    serve_no_memory(&error);
    return serve_reply_error(r, &error, MHD_HTTP_HEADER_RETRY_AFTER, "1");
}

bool serve_reply_error(struct serve_request *r, const struct serve_error *error, const char *header, const char *value)
{
    json_t *json = serve_error_json(error);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return serve_reply(r, error->status, "application/json", text, header, value);
}

static bool reply_stream(struct serve_request *r)
{
    struct serve_stream *stream = serve_stream_new(r->serve, r->job);
    struct MHD_Response *response =
        stream
            ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, serve_stream_read, stream, serve_stream_free)
            : NULL;
    if (!response) {
        serve_stream_free(stream);
        return false;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(response, "X-Accel-Buffering", "no"); // a proxy passes events on as they come
    return queue_response(r, MHD_HTTP_OK, response);
}

bool serve_reply_job(struct serve_request *r, struct serve_job *job)
{
    struct serve_error error = {0};
    unsigned retry = 1;
    char seconds[16];
    r->job = job;
    serve_body_end(r);
    const bool whole = !cli_json_lost() || serve_no_memory(&error); // nothing of what was asked
    const bool taken = whole && serve_queue_add(r->serve->queue, job, &error, &retry);
    snprintf(seconds, sizeof seconds, "%u", retry);
    if (!taken) return serve_reply_error(r, &error, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    serve_link_busy(r->http->links, r->link, job);
    if (job->stream) return reply_stream(r);
    json_t *answer = NULL;
    pthread_mutex_lock(&job->lock);
    while (!serve_job_done(job) && !job->error.status && !atomic_load(&job->cancelled))
        pthread_cond_wait(&job->changed, &job->lock);
    error = job->error;
    if (!error.status && serve_job_done(job) && !(answer = serve_answer(r->serve, job))) serve_no_memory(&error);
    pthread_mutex_unlock(&job->lock);
    if (answer) return serve_reply_json(r, MHD_HTTP_OK, answer);
    if (!error.status) return false; // the client went away
    return serve_reply_error(r, &error, error.status == 503 ? MHD_HTTP_HEADER_RETRY_AFTER : NULL, seconds);
}

// ---- the server -------------------------------------------------------------------------------------------

static gyre_status listen_on(const struct serve *s, uint32_t *port, int *out, gyre_error *err)
{
    const struct addrinfo how = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char service[16];
    snprintf(service, sizeof service, "%u", *port);
    const int failed = getaddrinfo(s->host, service, &how, &found);
    if (failed)
        return gyre_fail(err, GYRE_E_IO, "cannot listen (%s:%u): %s; give another --host", s->host, *port,
                         gai_strerror(failed));
    int fd = -1, why = 0;
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) { // a host may have two, and only one work
        const int reuse = 1; // a server that ended a moment ago does not keep the port
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
        if (fd >= 0 && !bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, 128)) break;
        why = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0)
        return gyre_fail(err, GYRE_E_IO, "cannot listen (%s:%u): %s; give another %s", s->host, *port, strerror(why),
                         why == EADDRNOTAVAIL || why == EAFNOSUPPORT ? "--host" : "--port, or 0 for a free one");
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at = {0};
    socklen_t n = sizeof at;
    if (getsockname(fd, &at.any, &n) == 0)
        *port = ntohs(at.any.sa_family == AF_INET6 ? at.v6.sin6_port : at.v4.sin_port);
    *out = fd;
    return GYRE_OK;
}

gyre_status serve_http_start(struct serve *s, serve_answerer answer, serve_taker takes, uint32_t *port,
                             struct serve_http **out, gyre_error *err)
{
    struct serve_http *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h) return gyre_fail(err, GYRE_E_NOMEM, "cannot serve: out of memory");
    h->serve = s;
    h->answer = answer;
    h->takes = takes;
    h->listening = -1;
    const unsigned request_s = s->timeout ? GYRE_MIN(s->timeout, (unsigned)REQUEST_S) : REQUEST_S;
    h->idle_s = GYRE_MIN(request_s, (unsigned)IDLE_S);
    gyre_status st = listen_on(s, port, &h->listening, err);
    if (st == GYRE_OK && !(h->links = serve_links_start(s->queue, request_s)))
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot serve: out of memory");
    if (st == GYRE_OK) {
        h->daemon = MHD_start_daemon(
            MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL,
            on_request, h, MHD_OPTION_LISTEN_SOCKET, h->listening, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_CONNECTION_TIMEOUT, h->idle_s,
            MHD_OPTION_CONNECTION_LIMIT, (unsigned)MOST_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
            (size_t)HEADER_BYTES, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_END);
        if (!h->daemon)
            st = gyre_fail(err, GYRE_E_IO, "cannot serve (%s:%u): libmicrohttpd does not start", s->host, *port);
    }
    if (st != GYRE_OK) {
        serve_http_stop(h);
        return st;
    }
    *out = h;
    return GYRE_OK;
}

void serve_http_quiet(struct serve_http *h)
{
    h->quiet = MHD_quiesce_daemon(h->daemon) != MHD_INVALID_SOCKET;
    if (h->quiet) shutdown(h->listening, SHUT_RDWR); // clients are refused; a thread may still look at the descriptor
}

void serve_http_stop(struct serve_http *h)
{
    if (!h) return;
    for (int i = 0; h->daemon && i < FLUSH_MS / 50 && serve_links_busy(h->links); i++)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    if (h->daemon) MHD_stop_daemon(h->daemon); // closes the socket, unless it was told to be quiet
    if (h->listening >= 0 && (h->quiet || !h->daemon)) close(h->listening);
    serve_links_stop(h->links);
    free(h);
}
