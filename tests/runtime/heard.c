// See heard.h.
#include "tests/runtime/heard.h"
#include "tests/common/device.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

const char *const device_names[DEVICES] = {"cpu", "vulkan:0", "opencl:0"};
char heard_path[128], heard_f32_path[128];

int heard_setup(void **state)
{
    (void)state;
    snprintf(heard_path, sizeof heard_path, "%s", files_path("q4.gguf"));
    snprintf(heard_f32_path, sizeof heard_f32_path, "%s", files_path("f32.gguf"));
    struct tiny_options o = tiny_defaults();
    if (tiny_write_gguf(heard_f32_path, &o)) return 1;
    o.type = GYRE_DTYPE_Q4_0;
    o.tied = true;
    return tiny_write_gguf(heard_path, &o);
}

int heard_teardown(void **state)
{
    (void)state;
    files_remove();
    return 0;
}

gyre_engine *heard_open(const char *model, const char *device, uint32_t sequences)
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    const gyre_engine_params p = {.size = sizeof p,
                                  .device = device,
                                  .act = 16,
                                  .kv = 16,
                                  .context = 256,
                                  .sequences = sequences,
                                  .logit_rows = 16,
                                  .cache_dir = ""};
    const gyre_status st = gyre_engine_open(model, &p, &engine, &err);
    return device_opened(device, st, &err) ? engine : NULL;
}

gyre_engine *heard_engine(const char *device, uint32_t sequences) { return heard_open(heard_path, device, sequences); }

int heard_token(void *user, const gyre_task_token *token)
{
    struct heard *h = user;
    assert_true(h->n < MOST);
    for (uint32_t i = 0; i < token->n_best && i < 4; i++) {
        h->best[h->n][i] = token->best[i].token;
        h->best_logprob[h->n][i] = token->best[i].logprob;
    }
    h->token[h->n++] = *token;
    return h->stop_after && h->n == h->stop_after;
}

bool heard_allow(void *user, uint32_t *allowed, uint32_t words)
{
    const struct heard *h = user;
    assert_int_equal(words, (VOCAB + 31) / 32);
    for (uint32_t i = h->allow_from; i < h->allow_to; i++) allowed[i / 32] |= 1u << i % 32;
    return true;
}

gyre_task_params heard_task(const uint32_t *prompt, size_t n, uint32_t max_tokens, struct heard *h)
{
    return (gyre_task_params){.size = sizeof(gyre_task_params),
                              .prompt = prompt,
                              .n_prompt = n,
                              .max_tokens = max_tokens,
                              .ignore_end = true,
                              .on_token = heard_token,
                              .user = h};
}

gyre_scheduler *heard_scheduler(gyre_engine *e, uint32_t chunk, bool no_sharing)
{
    gyre_scheduler *s = NULL;
    const gyre_scheduler_params p = {.size = sizeof p, .chunk = chunk, .no_sharing = no_sharing};
    OK(gyre_scheduler_create(e, &p, &s, err));
    return s;
}

gyre_task *heard_add(gyre_scheduler *s, const gyre_task_params *p)
{
    gyre_task *t = NULL;
    OK(gyre_scheduler_add(s, p, &t, err));
    return t;
}

int heard_run(gyre_scheduler *s, gyre_task *const *tasks, int n)
{
    int steps = 0;
    for (int open = 1; open && steps < 1000; steps += open) {
        open = 0;
        for (int i = 0; i < n; i++) open |= !gyre_task_ended(tasks[i], NULL);
        if (open) OK(gyre_scheduler_step(s, err));
    }
    assert_true(steps < 1000);
    return steps;
}

void heard_solo(gyre_scheduler *s, const gyre_task_params *p)
{
    gyre_task *t = heard_add(s, p);
    heard_run(s, &t, 1);
    gyre_scheduler_remove(s, t);
}

void heard_greedy(gyre_engine *e, const uint32_t *prompt, size_t n, uint32_t *out, int count)
{
    gyre_session *s = NULL;
    OK(gyre_session_create(e, &s, err));
    OK(gyre_session_sync(s, prompt, n, NULL, &out[0], err));
    for (int i = 1; i < count; i++) OK(gyre_session_decode(s, out[i - 1], &out[i], err));
    gyre_session_destroy(s);
}
