// See links.h.
#define _GNU_SOURCE // POLLRDHUP
#include "cli/serve/links.h"
#include "runtime/util/clock.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { LOOK_MS = 200 };

struct serve_link {
    struct serve_link *next;
    int fd;
    bool busy;
    uint64_t since_ns; // of waiting for a request
    struct serve_job *job;
};

struct serve_links {
    serve_queue *queue;
    uint64_t request_ns;
    pthread_t thread;
    pthread_mutex_t lock;
    struct serve_link *first;
    bool stop;
};

static bool gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

static void look(struct serve_links *l)
{
    const uint64_t now = gyre_clock_ns();
    bool cancelled = false;
    pthread_mutex_lock(&l->lock);
    for (struct serve_link *k = l->first; k; k = k->next) {
        if (k->busy && k->job && !atomic_load(&k->job->cancelled) && gone(k->fd)) {
            serve_job_cancel(k->job);
            cancelled = true;
        }
        if (!k->busy && now - k->since_ns > l->request_ns) shutdown(k->fd, SHUT_RDWR); // its thread sees the end
    }
    pthread_mutex_unlock(&l->lock);
    if (cancelled) serve_queue_wake(l->queue);
}

static void *watch(void *user)
{
    struct serve_links *l = user;
    for (bool stop = false; !stop;) {
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
        look(l);
        pthread_mutex_lock(&l->lock);
        stop = l->stop;
        pthread_mutex_unlock(&l->lock);
    }
    return NULL;
}

struct serve_links *serve_links_start(serve_queue *queue, unsigned request_s)
{
    struct serve_links *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->queue = queue;
    l->request_ns = request_s * 1000000000ull;
    pthread_mutex_init(&l->lock, NULL);
    if (pthread_create(&l->thread, NULL, watch, l) == 0) return l;
    pthread_mutex_destroy(&l->lock);
    free(l);
    return NULL;
}

void serve_links_stop(struct serve_links *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

struct serve_link *serve_link_open(struct serve_links *l, int fd)
{
    struct serve_link *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->fd = fd;
    k->since_ns = gyre_clock_ns();
    pthread_mutex_lock(&l->lock);
    k->next = l->first;
    l->first = k;
    pthread_mutex_unlock(&l->lock);
    return k;
}

void serve_link_close(struct serve_links *l, struct serve_link *link)
{
    pthread_mutex_lock(&l->lock);
    struct serve_link **at = &l->first;
    while (*at && *at != link) at = &(*at)->next;
    if (*at) *at = link->next;
    pthread_mutex_unlock(&l->lock);
    free(link);
}

void serve_link_busy(struct serve_links *l, struct serve_link *k, struct serve_job *job)
{
    if (!k) return;
    pthread_mutex_lock(&l->lock);
    k->busy = true;
    k->job = job;
    pthread_mutex_unlock(&l->lock);
}

void serve_link_idle(struct serve_links *l, struct serve_link *k)
{
    if (!k) return;
    pthread_mutex_lock(&l->lock);
    k->busy = false;
    k->job = NULL;
    k->since_ns = gyre_clock_ns();
    pthread_mutex_unlock(&l->lock);
}

uint32_t serve_links_busy(struct serve_links *l)
{
    uint32_t n = 0;
    pthread_mutex_lock(&l->lock);
    for (const struct serve_link *k = l->first; k; k = k->next) n += k->busy;
    pthread_mutex_unlock(&l->lock);
    return n;
}
