// cancel MODEL: a long prompt in chunks of 8, cancelled from another thread; then saved, loaded and gone on with.
// Prints how long a chunk takes, and how long the cancel took to be seen.
#include <gyre/gyre.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 480, CHUNK = 8, MORE = 12 };

static gyre_session *session;
static double asked;

// Processor time of this program: what others run at the same time does not count.
static double used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *later(void *user)
{
    const double seconds = *(const double *)user;
    const struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
    gyre_session_cancel(session);
    asked = used(); // behind it: this thread may lose its processor in between
    return NULL;
}

static gyre_error err;
static void must(gyre_status st)
{
    if (st == GYRE_OK) return;
    fprintf(stderr, "cancel: %s\n", err.message);
    exit(1);
}
#define SAY(...)                                                                                                       \
    do {                                                                                                               \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        return 1;                                                                                                      \
    } while (0)

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    const gyre_engine_params p = {
        .size = sizeof p, .device = "cpu", .cache_dir = "", .context = 512, .max_rows = CHUNK};
    gyre_engine *engine = NULL, *other = NULL;
    uint32_t tokens[N], want[MORE], got[MORE];
    for (int i = 0; i < N; i++) tokens[i] = (uint32_t)(3 + i * 7 % 250);
    must(gyre_engine_open(argv[1], &p, &engine, &err));
    must(gyre_session_create(engine, &session, &err));
    must(gyre_session_sync(session, tokens, N, NULL, NULL, &err)); // records what it replays
    tokens[19]++;                                                  // 19 in common
    const double start = used();
    must(gyre_session_sync(session, tokens, N, NULL, NULL, &err));
    const double whole = used() - start, chunk = whole / (N / CHUNK);

    gyre_status st = GYRE_OK;
    double seen = 0, after = whole / 2;
    for (int i = 0; i < 6 && st == GYRE_OK; i++, after /= 2) { // a machine that was busy above is quicker now
        pthread_t thread;
        tokens[19] ^= 1;
        if (pthread_create(&thread, NULL, later, &after)) return 1;
        st = gyre_session_sync(session, tokens, N, NULL, NULL, &err);
        seen = used();
        pthread_join(thread, NULL);
    }
    if (st != GYRE_E_CANCELLED) SAY("cancel: the prompt was not cancelled: %s\n", gyre_status_text(st));
    if (gyre_session_length(session) != 19) SAY("cancel: %zu tokens are left, not 19\n", gyre_session_length(session));
    printf("a chunk takes %.2f ms, the cancel was seen after %.2f ms\n", chunk * 1e3, (seen - asked) * 1e3);
    // Later chunks attend to more and take longer than the mean; waking the other thread adds to it.
    if (seen - asked > 8 * chunk) SAY("cancel: seen only after %.1f chunks\n", (seen - asked) / chunk);

    gyre_generate_params g = {
        .size = sizeof g, .prompt = tokens, .n_prompt = 40, .max_tokens = MORE, .ignore_end = true};
    must(gyre_generate(session, &g, NULL, NULL, NULL, &err));
    must(gyre_session_save(session, argv[2], &err));
    g.prompt = NULL;
    g.n_prompt = 0;
    g.tokens = want;
    must(gyre_generate(session, &g, NULL, NULL, NULL, &err));
    if (gyre_engine_close(engine, &err) != GYRE_E_INVALID) SAY("cancel: an engine with a session was closed\n");
    gyre_session_destroy(session);
    must(gyre_engine_close(engine, &err));
    must(gyre_engine_open(argv[1], &p, &other, &err));
    must(gyre_session_create(other, &session, &err));
    must(gyre_session_load(session, argv[2], &err));
    g.tokens = got;
    must(gyre_generate(session, &g, NULL, NULL, NULL, &err));
    if (memcmp(want, got, sizeof want)) SAY("cancel: the loaded session continues otherwise\n");
    gyre_session_destroy(session);
    must(gyre_engine_close(other, &err));
    return 0;
}
