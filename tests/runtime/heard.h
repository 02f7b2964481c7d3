// Tasks of the scheduler on a tiny model, and what they told.
#pragma once
#include <gyre/gyre_schedule.h>

enum { DEVICES = 3, VOCAB = 304, MOST = 128, WIDTH = 64 };
extern const char *const device_names[DEVICES];
extern char heard_path[128], heard_f32_path[128]; // the model with int4 weights, tied, and with floats

int heard_setup(void **state); // writes both
int heard_teardown(void **state);

// NULL where the device is not there.
gyre_engine *heard_open(const char *model, const char *device, uint32_t sequences);
gyre_engine *heard_engine(const char *device, uint32_t sequences); // of heard_path

// What a task told.
struct heard {
    gyre_task_token token[MOST];
    uint32_t best[MOST][4];
    float best_logprob[MOST][4];
    uint32_t n, stop_after;
    uint32_t allow_from, allow_to; // tokens that are allowed; 0, 0: no constraint
};

int heard_token(void *user, const gyre_task_token *token);       // on_token of a task whose user is a struct heard
bool heard_allow(void *user, uint32_t *allowed, uint32_t words); // its allow

gyre_task_params heard_task(const uint32_t *prompt, size_t n, uint32_t max_tokens, struct heard *h);
gyre_scheduler *heard_scheduler(gyre_engine *e, uint32_t chunk, bool no_sharing);
gyre_task *heard_add(gyre_scheduler *s, const gyre_task_params *p);
int heard_run(gyre_scheduler *s, gyre_task *const *tasks, int n); // to the end of all; the steps that it took
void heard_solo(gyre_scheduler *s, const gyre_task_params *p);    // one task alone, to its end and away
void heard_greedy(gyre_engine *e, const uint32_t *prompt, size_t n, uint32_t *out, int count); // by a session
