// Asks an older library for what only a later one has: each must be refused with one line.
#include <gyre/gyre.h>
#include <stdio.h>
#include <string.h>

struct later {
    gyre_generate_params known;
    void *unknown;
};

static int refused(gyre_status st, const gyre_error *err, const char *word)
{
    if (st == GYRE_E_UNSUPPORTED && strstr(err->message, word) && !strchr(err->message, '\n')) return 0;
    fprintf(stderr, "later: %s is not refused: %s\n", word, err->message);
    return 1;
}

int main(int argc, char **argv)
{
    gyre_error err = {0};
    gyre_engine *engine = NULL;
    gyre_session *session = NULL;
    struct later p = {.known = {.size = sizeof p, .text = "a", .max_tokens = 1}, .unknown = &p};
    const gyre_engine_params e = {.size = sizeof e, .device = "cpu", .cache_dir = ""};
    if (argc != 2) return 2;
    if (refused(gyre_api_check(GYRE_API_LEVEL + 1, &err), &err, "interface")) return 1;
    if (gyre_engine_open(argv[1], &e, &engine, &err) || gyre_session_create(engine, &session, &err)) return 1;
    if (refused(gyre_generate(session, &p.known, NULL, NULL, NULL, &err), &err, "gyre_generate_params")) return 1;
    p.unknown = NULL; // of a later struct, but asks for nothing new
    if (gyre_generate(session, &p.known, NULL, NULL, NULL, &err) != GYRE_OK) return 1;
    gyre_session_destroy(session);
    return gyre_engine_close(engine, &err) != GYRE_OK || strcmp(gyre_version(), GYRE_VERSION) != 0 ||
           gyre_api_level() != GYRE_API_LEVEL;
}
