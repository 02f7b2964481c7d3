// Which rows the next step runs: one of every task that generates, and as many of prompts as a step's time allows.
#include "runtime/schedule.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_STEP_MS = 500, UNMEASURED_ROWS = 32, LEAST_ROWS = 16, TRY_AGAIN = 16 };
enum { FIRST = offsetof(gyre_scheduler_params, progress) }; // what gyre_params_take is told: as of level 2000

// ---- tasks ---------------------------------------------------------------------------------------------------------

gyre_status gyre_scheduler_create(gyre_engine *engine, const gyre_scheduler_params *given, gyre_scheduler **out,
                                  gyre_error *err)
{
    gyre_scheduler_params params;
    *out = NULL;
    GYRE_TRY(gyre_params_take(given, &params, sizeof params, FIRST, "gyre_scheduler_params", err));
    gyre_scheduler *s = calloc(1, sizeof *s);
    if (!s) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a scheduler: out of memory");
    const uint32_t vocab = engine->model.hp.vocab;
    s->engine = engine;
    s->params = params;
    s->row = malloc((engine->max_rows + engine->sequences) * sizeof *s->row);
    s->part = malloc(engine->sequences * sizeof(gyre_task *));
    s->logits = malloc(((uint64_t)engine->logit_rows + 2) * vocab * sizeof *s->logits);
    s->listed = malloc((uint64_t)engine->sequences * GYRE_STEP_BEST * sizeof *s->listed);
    s->allowed = malloc((vocab / 32 + 1) * sizeof *s->allowed);
    s->best = malloc(vocab * sizeof *s->best);
    s->drawn = malloc(engine->logit_rows * sizeof *s->drawn);
    if (!s->row || !s->part || !s->logits || !s->listed || !s->allowed || !s->best || !s->drawn ||
        !gyre_chooser_init(&s->chooser, vocab)) {
        gyre_scheduler_destroy(s);
        return gyre_fail(err, GYRE_E_NOMEM, "cannot make a scheduler: out of memory");
    }
    *out = s;
    return GYRE_OK;
}

void gyre_scheduler_destroy(gyre_scheduler *s)
{
    if (!s) return;
    while (s->first) gyre_scheduler_remove(s, s->first);
    gyre_scheduler_embed_free(s);
    gyre_chooser_free(&s->chooser);
    free(s->row);
    free(s->part);
    free(s->logits);
    free(s->listed);
    free(s->allowed);
    free(s->best);
    free(s->drawn);
    free(s);
}

static gyre_status check(const gyre_scheduler *s, const gyre_task_params *p, gyre_error *err)
{
    const uint32_t vocab = s->chooser.vocab, context = s->engine->context;
    if (p->n_prompt == 0) return gyre_fail(err, GYRE_E_INVALID, "cannot add a task: its prompt is empty");
    if (p->n_prompt + (p->max_tokens ? 1 : 0) > context)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot add a task: a prompt of %zu tokens leaves no room in the context of %u", p->n_prompt,
                         context);
    for (size_t i = 0; i < p->n_prompt; i++)
        if (p->prompt[i] >= vocab)
            return gyre_fail(err, GYRE_E_INVALID, "cannot add a task: token %u is outside the vocabulary of %u",
                             p->prompt[i], vocab);
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].token >= vocab)
            return gyre_fail(err, GYRE_E_INVALID,
                             "cannot add a task: the bias of token %u is outside the vocabulary of %u",
                             p->bias[i].token, vocab);
    return GYRE_OK;
}

gyre_status gyre_scheduler_add(gyre_scheduler *s, const gyre_task_params *given, gyre_task **out, gyre_error *err)
{
    gyre_task_params p;
    *out = NULL;
    GYRE_TRY(gyre_params_take(given, &p, sizeof p, sizeof p, "gyre_task_params", err));
    GYRE_TRY(check(s, &p, err));
    const uint32_t context = s->engine->context, n = (uint32_t)p.n_prompt;
    gyre_task *t = calloc(1, sizeof *t);
    if (!t) return gyre_fail(err, GYRE_E_NOMEM, "cannot add a task: out of memory");
    *t = (gyre_task){.scheduler = s, .params = p, .n = n, .n_prompt = n};
    t->params.keep = GYRE_MIN(p.keep, n);
    t->params.shift = p.shift && gyre_context_shift(context, t->params.keep, context);
    t->most = t->params.shift ? p.max_tokens : GYRE_MIN(p.max_tokens, context - n);
    t->params.n_best = GYRE_MIN(p.n_best, s->chooser.vocab);
    t->params.scores = p.scores || p.score_prompt;
    const uint32_t width = p.pooling ? s->engine->model.hp.width : 0;
    t->pooled = width ? calloc(width, sizeof *t->pooled) : NULL;
    t->embedding = width ? calloc(width, sizeof *t->embedding) : NULL;
    const bool room = !width || (t->pooled && t->embedding);
    t->tokens = malloc(context * sizeof *t->tokens);
    t->bias = malloc((p.n_bias + 1) * sizeof *t->bias);
    gyre_status st =
        t->tokens && t->bias && room ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot add a task: out of memory");
    if (st == GYRE_OK) st = gyre_sequence_take(s->engine, &t->length, &t->slot, err);
    if (st != GYRE_OK) {
        free(t->tokens);
        free(t->bias);
        free(t->pooled);
        free(t->embedding);
        free(t);
        return st;
    }
    memcpy(t->tokens, p.prompt, n * sizeof *t->tokens);
    if (p.n_bias) memcpy(t->bias, p.bias, p.n_bias * sizeof *t->bias);
    t->params.prompt = t->tokens;
    t->params.bias = t->bias;
    gyre_task **last = &s->first;
    while (*last) last = &(*last)->next;
    *last = t;
    *out = t;
    return GYRE_OK;
}

void gyre_scheduler_remove(gyre_scheduler *s, gyre_task *t)
{
    if (!t) return;
    gyre_task **at = &s->first;
    while (*at != t) at = &(*at)->next;
    *at = t->next;
    if (t->error.code) gyre_kv_forget(&s->engine->kv, t->slot); // good when they were remembered; perhaps not now
    gyre_sequence_release(s->engine, t->slot);
    free(t->tokens);
    free(t->bias);
    free(t->pooled);
    free(t->embedding);
    free(t);
}

uint32_t gyre_scheduler_room(const gyre_scheduler *s)
{
    uint32_t room = 0;
    for (uint32_t i = 0; i < s->engine->sequences; i++) room += !s->engine->sequence_used[i];
    return room;
}

// ---- planning ------------------------------------------------------------------------------------------------------

static bool reads_prompt(const gyre_task *t) { return !t->ended && !t->pooled && t->n - t->length > 1; }

// Will another task compute the page that this one needs next? It is ahead in the same text, or as far and in this step
// already; then that page is waited for and shared.
static bool page_is_coming(const gyre_task *t)
{
    const uint32_t to = t->length + GYRE_PAGE;
    if (t->params.score_prompt || t->scheduler->params.no_sharing || t->length % GYRE_PAGE || to >= t->n) return false;
    for (const gyre_task *o = t->scheduler->first; o; o = o->next) {
        const bool ahead = o->length > t->length || (o->length == t->length && o->rows);
        if (o == t || !reads_prompt(o) || !ahead || o->length >= to || o->n_prompt < to) continue;
        if (memcmp(o->tokens, t->tokens, to * sizeof *t->tokens) == 0) return true;
    }
    return false;
}

// Will another task come to the end of the same prompt first? Then this one chooses from the same logits, and computes
// what it does not share of the prompt beside its own first token.
static bool twin_is_ahead(const gyre_task *t)
{
    if (t->params.score_prompt || t->scheduler->params.no_sharing || t->n != t->n_prompt) return false;
    for (const gyre_task *o = t->scheduler->first; o; o = o->next)
        if (gyre_task_is_twin(t, o) && (o->length > t->length || (o->length == t->length && o->rows))) return true;
    return false;
}

static bool waits(const gyre_task *t) { return page_is_coming(t) || twin_is_ahead(t); }

static uint32_t step_ms(const gyre_scheduler *s) { return s->params.step_ms ? s->params.step_ms : DEFAULT_STEP_MS; }

// What was measured, from now on with `ns` in it.
static double blend(double was, double ns) { return was > 0 ? 0.7 * was + 0.3 * ns : ns; }

// How many rows of prompts the step may have beside `beside` rows of answers.
static uint32_t prompt_rows(const gyre_scheduler *s, uint32_t beside)
{
    const uint32_t most = s->engine->max_rows - GYRE_MIN(beside, s->engine->max_rows - 1);
    const double ns = 1e6 * step_ms(s) * (beside ? 1 : 2);
    uint32_t rows = UNMEASURED_ROWS;
    if (s->row_ns > 0) // a bucket's worth: a recording runs all its rows, whether they live or not
        for (rows = LEAST_ROWS; rows < s->engine->max_rows && 2 * rows * s->row_ns <= ns;) rows *= 2;
    if (s->params.chunk) rows = s->params.chunk;
    else if (rows > 2 * beside) rows -= beside;
    return GYRE_MIN(rows, most);
}

// Gives `t` up to `rows` rows of its prompt, as far as places for logits suffice.
static void take_rows(gyre_task *t, uint32_t *rows, uint32_t *places)
{
    uint32_t n = GYRE_MIN(*rows, t->n - t->length);
    const bool scored = t->params.score_prompt;
    if (scored) n = GYRE_MIN(n, *places);
    if (n == 0 || *places == 0) return;
    t->rows = n;
    *rows -= n;
    *places -= scored ? n : 1;
}

// Answers first, each with its row. Then prompts: half of the rows go to those that are done soonest, so that a short
// one never waits for a long one; what is left to those that came first, so that no long one waits for ever.
static void plan(gyre_scheduler *s)
{
    uint32_t answers = 0, places = s->engine->logit_rows;
    for (gyre_task *t = s->first; t; t = t->next) {
        t->rows = !t->ended && !t->pooled && !reads_prompt(t);
        answers += t->rows;
    }
    places -= answers;
    uint32_t rows = prompt_rows(s, answers), quick = rows - rows / 2;
    rows -= quick;
    while (quick) {
        gyre_task *soonest = NULL;
        for (gyre_task *t = s->first; t; t = t->next) {
            if (!reads_prompt(t) || t->rows || waits(t)) continue;
            if (!soonest || t->n - t->length < soonest->n - soonest->length) soonest = t;
        }
        if (!soonest) break;
        take_rows(soonest, &quick, &places);
        if (!soonest->rows) break;
    }
    rows += quick;
    for (gyre_task *t = s->first; t && rows; t = t->next) {
        if (!reads_prompt(t) || (!t->rows && waits(t))) continue;
        uint32_t again = rows + t->rows;
        places += t->rows ? (t->params.score_prompt ? t->rows : 1) : 0;
        t->rows = 0;
        take_rows(t, &again, &places);
        rows = again;
    }
}

// ---- the step ------------------------------------------------------------------------------------------------------

static gyre_status always(const void *user, gyre_error *err)
{
    (void)user, (void)err;
    return GYRE_OK;
}

static bool scores_prompt(const gyre_task *t) { return t->params.score_prompt && t->length < t->n_prompt; }

// Does something follow behind the task's last row of this step?
static bool ends_here(const gyre_task *t) { return t->length + t->rows == t->n && gyre_task_generates(t); }

// Will another task choose from this one's logits, as they come to the end of the same prompt (gyre_task_advance)?
static bool others_choose(const gyre_task *t)
{
    if (t->n > t->n_prompt || t->scheduler->params.no_sharing) return false;
    for (const gyre_task *o = t->scheduler->first; o; o = o->next)
        if (!o->rows && !o->params.score_prompt && gyre_task_is_twin(t, o)) return true;
    return false;
}

// Do the most likely tokens do in place of all logits? Not where they left too many choices open: a flat top-p is soon
// known by that. Now and then it is tried again, as a text may become surer of itself.
static bool takes_list(const gyre_task *t)
{
    const bool pays = t->misses < GYRE_MOST_MISSES || t->said % TRY_AGAIN == 0;
    return !others_choose(t) && !t->params.scores && pays && t->scheduler->chooser.vocab > GYRE_STEP_BEST &&
           gyre_choose_may_list(&t->params, GYRE_STEP_BEST);
}

// What the last row of a task is for, and all of them where its prompt is scored. Behind a part of a prompt a sample is
// wanted, too, which only find_odd looks at: others may find what finite numbers follow, and nothing else, also where
// the task is removed before it comes to its own choice.
static void stage(gyre_scheduler *s, gyre_task *t, struct gyre_step_row *out, struct gyre_step_row *last,
                  uint32_t *place)
{
    const uint64_t vocab = s->chooser.vocab;
    const bool scored = scores_prompt(t), ends = ends_here(t);
    const bool plain = gyre_choose_is_greedy(&t->params) || (gyre_choose_is_plain(&t->params) && !others_choose(t));
    const bool chosen_here = scored || (ends && (t->params.scores || !plain));
    const bool host = chosen_here && !takes_list(t);
    t->best = chosen_here && !host ? s->listed + (uint64_t)t->slot * GYRE_STEP_BEST : NULL;
    t->spare = s->logits + *place * vocab; // of its last row, which is the only one that wants a sample then
    t->mass = 0;
    t->odd = UINT32_MAX;
    // What the device chooses itself, where the host does, is not looked at; for a mass it has to know the temperature.
    const bool weighs = t->best && gyre_choose_weighs(&t->params);
    t->sampling = weighs ? (gyre_sampling){.temperature = t->params.temperature, .top_k = GYRE_STEP_BEST}
                  : chosen_here || !ends ? (gyre_sampling){0}
                                         : gyre_choose_sampling(&t->params);
    t->logits = host ? s->logits + *place * vocab : NULL;
    for (uint32_t i = 0; i < t->rows; i++) {
        const uint32_t at = t->length + i;
        struct gyre_step_row *row = i + 1 == t->rows ? last : out + i;
        *row = (struct gyre_step_row){
            .token = t->tokens[at], .sequence = t->slot, .position = at, .sampling = &t->sampling};
        if (!scored && i + 1 < t->rows) continue;
        row->next = i + 1 == t->rows ? &t->chosen : &s->drawn[*place];
        row->logits = host ? s->logits + *place * vocab : NULL;
        row->best = t->best;
        row->mass = weighs ? &t->mass : NULL;
        (*place)++;
    }
}

// How many steps one after the other a staged task may run in one submission: alone in the scheduler, where the device
// chooses, and no more than it has said, as gyre_generate does. Within its page, so that no page is wanted that it may
// not need, not to the end of the context, which may shift, and no more than a step's time allows: whoever comes
// meanwhile waits for all of them.
static gyre_status at_once(const gyre_task *t, uint32_t *times, gyre_error *err)
{
    gyre_engine *const e = t->scheduler->engine;
    *times = 1;
    const double ns = 1e6 * step_ms(t->scheduler), each = t->scheduler->one_ns;
    if (t->rows != 1 || !t->said || !ends_here(t) || t->logits || t->best || each <= 0) return GYRE_OK;
    for (const gyre_task *o = t->scheduler->first; o; o = o->next)
        if (o != t && !o->ended) return GYRE_OK;
    const uint32_t room = GYRE_MIN(GYRE_PAGE - t->length % GYRE_PAGE, e->context - 1 - t->n),
                   wanted = GYRE_MIN(GYRE_MIN(t->said, t->most - t->said), room),
                   fit = ns < GYRE_MAX_AT_ONCE * each ? (uint32_t)(ns / each) : GYRE_MAX_AT_ONCE;
    if (GYRE_MIN(wanted, fit) <= 1) return GYRE_OK;
    return gyre_engine_at_once(e, &t->sampling, GYRE_MIN(wanted, fit), times, err);
}

// What a task chose in steps that ran at once, until it ends; steps behind that are taken back.
static void advance_all(gyre_task *t, const uint32_t *told, uint32_t times)
{
    uint32_t i = 0;
    for (; i < times && !t->ended && told[i] != UINT32_MAX; i++) { // that one's step fails by itself
        t->length++;
        t->chosen = told[i];
        gyre_task_advance(t);
    }
    if (i < times) t->length = gyre_kv_trim(&t->scheduler->engine->kv, t->slot, t->length);
}

// The first position of each task, of `n` rows that have run, behind which the device could not choose.
static void find_odd(const gyre_scheduler *s, uint32_t n, uint32_t parts)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct gyre_step_row *const row = &s->row[i];
        if (!row->next || *row->next != UINT32_MAX) continue;
        for (uint32_t k = 0; k < parts; k++)
            if (s->part[k]->slot == row->sequence) s->part[k]->odd = GYRE_MIN(s->part[k]->odd, row->position);
    }
}

static gyre_status run(gyre_scheduler *s, gyre_error *err)
{
    static const struct gyre_step_watch watch = {.asked = always, .row_alone = true};
    uint32_t told[GYRE_MAX_AT_ONCE], times = 1;
    gyre_engine *e = s->engine;
    uint32_t n = 0, parts = 0, at = 0, place = 0;
    gyre_status st = GYRE_OK;
    for (gyre_task *t = s->first; t; t = t->next) {
        if (!t->rows) continue;
        n += t->rows;
        s->part[parts++] = t;
    }
    if (n == 0) return GYRE_OK;
    for (uint32_t i = 0; i < parts && st == GYRE_OK; i++)
        st = gyre_kv_reserve(&e->kv, s->part[i]->slot, s->part[i]->length + s->part[i]->rows, err);
    // The last rows, which want a sample, come last: so one chunk of the step has all of them.
    for (uint32_t i = 0; i < parts; at += s->part[i++]->rows - 1)
        stage(s, s->part[i], s->row + at, s->row + (n - parts) + i, &place);
    if (st == GYRE_OK && parts == 1) st = at_once(s->part[0], &times, err);
    if (times > 1) s->row->times = times, s->row->next = told;
    const uint32_t recorded = e->n_steps;
    const uint64_t start = gyre_clock_ns();
    if (st == GYRE_OK) st = gyre_engine_step(e, s->row, n, &watch, NULL, err);
    if (st == GYRE_OK) find_odd(s, n, parts);
    for (uint32_t i = 0; i < parts && st == GYRE_OK; i++)
        if (s->part[i]->best && s->part[i]->odd == UINT32_MAX) st = gyre_task_choose_listed(s->part[i], err);
    const uint64_t took = gyre_clock_ns() - start;
    for (uint32_t i = 0; i < parts; i++) {
        gyre_task *const t = s->part[i];
        if (st == GYRE_OK && t->odd == UINT32_MAX) t->length += times > 1 ? 0 : t->rows;
        else t->length = gyre_kv_trim(&e->kv, t->slot, t->length);
        if (!t->shifted) t->cached = GYRE_MIN(t->cached, t->length); // what is given back may be found again
    }
    GYRE_TRY(st);
    s->count.steps += times;
    s->count.rows += n + times - 1;
    s->count.step_ns += took;
    if (n >= LEAST_ROWS && recorded == e->n_steps)
        s->row_ns = blend(s->row_ns, (double)took / gyre_engine_bucket(e, n));
    if (n == 1 && recorded == e->n_steps) s->one_ns = blend(s->one_ns, (double)took / times);
    for (uint32_t i = 0; i < parts; i++) {
        gyre_task *const t = s->part[i];
        if (t->odd != UINT32_MAX && gyre_engine_not_finite(e, t->odd, &t->error) != GYRE_OK) gyre_task_fail(t);
    }
    if (times > 1) advance_all(s->part[0], told, times);
    for (uint32_t i = 0; i < parts && !s->params.no_sharing; i++) // where that fails, its own page does as well
        if (gyre_kv_remember(&e->kv, s->part[i]->slot, s->part[i]->tokens, s->part[i]->length, NULL) != GYRE_OK) break;
    for (uint32_t i = 0; i < parts && times == 1; i++)
        if (!s->part[i]->ended) gyre_task_advance(s->part[i]);
    return GYRE_OK;
}

gyre_status gyre_scheduler_step(gyre_scheduler *s, gyre_error *err)
{
    for (gyre_task *t = s->first; t && !s->params.no_sharing; t = t->next) {
        if (!reads_prompt(t) || t->params.score_prompt) continue;
        const uint32_t before = t->length, n = t->shifted ? t->n : t->n_prompt;
        GYRE_TRY(gyre_kv_adopt(&s->engine->kv, t->slot, t->tokens, n - 1, &t->length, err)); // what follows the last
        if (!t->shifted) t->cached += t->length - before;                                    // token is wanted
    }
    plan(s);
    gyre_task *embeds = s->first; // one of them, by graphs of their own
    while (embeds && (!embeds->pooled || embeds->ended)) embeds = embeds->next;
    uint32_t rows = 0;
    gyre_status st = embeds ? gyre_task_embed(embeds, prompt_rows(s, 0), &rows, err) : GYRE_OK;
    if (st == GYRE_OK) st = run(s, err);
    if (st == GYRE_OK && embeds) {
        gyre_task_embed_take(embeds, rows);
        s->count.rows += rows;
    } else if (embeds) embeds->length = gyre_kv_trim(&s->engine->kv, embeds->slot, embeds->length);
    return st;
}

// ---- around it -----------------------------------------------------------------------------------------------------

gyre_scheduler_counters gyre_scheduler_count(const gyre_scheduler *s)
{
    const struct gyre_kv *kv = &s->engine->kv;
    gyre_scheduler_counters c = s->count;
    c.pages = kv->n_pages;
    c.page_tokens = GYRE_PAGE;
    c.pages_cached = kv->prefix.n_idle;
    for (uint32_t i = 0; i < kv->n_pages; i++) {
        c.pages_held += kv->users[i] > 0;
        c.pages_shared += kv->users[i] > 1;
    }
    return c;
}

// Parts of warming up: those of the cache, and replays; asked between any two of them.
struct warming {
    const gyre_scheduler *scheduler;
    uint32_t done, all;
};

static gyre_status warming_asked(struct warming *w, gyre_error *err)
{
    const gyre_scheduler_params *const p = &w->scheduler->params;
    if (!p->progress || !p->progress(p->user, (double)w->done++ / w->all)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_CANCELLED, "cancelled while warming up (%s)", gyre_engine_model(w->scheduler->engine));
}

static gyre_status warm_rows(struct warming *w, uint32_t n, const gyre_sampling *sampling, gyre_error *err)
{
    GYRE_TRY(warming_asked(w, err));
    return gyre_engine_warm(w->scheduler->engine, n, sampling, err);
}

gyre_status gyre_scheduler_warm(gyre_scheduler *s, gyre_error *err)
{
    gyre_engine *const e = s->engine;
    const bool takes = gyre_device_info(e->device)->unified;
    struct warming w = {.scheduler = s, .all = 3 + (takes ? e->model.hp.n_layers : 0)};
    for (uint32_t n = 1; n < 2 * e->sequences && n <= e->max_rows; n *= 2) w.all++;
    // A cache that the host would hand out page by page could be missing in the middle of somebody's answer.
    for (uint32_t layer = 0; takes && layer < e->model.hp.n_layers; layer++) {
        GYRE_TRY(warming_asked(&w, err));
        GYRE_TRY(gyre_kv_take_memory(&e->kv, layer, err));
    }
    GYRE_TRY(warming_asked(&w, err));
    GYRE_TRY(gyre_engine_reserve(e, err));
    for (uint32_t n = 1; n < 2 * e->sequences && n <= e->max_rows; n *= 2) GYRE_TRY(warm_rows(&w, n, NULL, err));
    static const gyre_sampling listed = {.temperature = 1, .top_k = GYRE_STEP_BEST};
    GYRE_TRY(warm_rows(&w, 1, &listed, err));
    return warm_rows(&w, UNMEASURED_ROWS, NULL, err);
}
