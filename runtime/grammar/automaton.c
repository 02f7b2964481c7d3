// See automaton.h.
#include "runtime/grammar/automaton.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_PLACES = 4096,
    VISITS = 1 << 14,
    SLOTS = 1 << 17,
    MOST_STATES = 40000,
    MOST_FRAMES = 60000,
    MOST_BYTES = 48 << 20
};
#define UNKNOWN UINT32_MAX

struct gyre_visit { // a place of a closure that is resolved already
    uint32_t pc, frame, round;
};

gyre_status gyre_automaton_create(const struct gyre_program *program, struct gyre_automaton **out, gyre_error *err)
{
    struct gyre_automaton *a = *out = calloc(1, sizeof *a);
    if (a) {
        a->program = program;
        a->state_slots = calloc(SLOTS, sizeof *a->state_slots);
        a->frame_slots = calloc(SLOTS, sizeof *a->frame_slots);
        a->made = malloc(MOST_PLACES * sizeof *a->made);
        a->visit = calloc(VISITS, sizeof *a->visit);
        a->work = malloc(VISITS * sizeof *a->work);
        a->state = calloc(a->cap_state = 64, sizeof *a->state);
        a->frame = calloc(a->cap_frame = 64, sizeof *a->frame);
        a->n_state = a->n_frame = 1; // dead, and empty
        if (a->state_slots && a->frame_slots && a->made && a->visit && a->work && a->state && a->frame) return GYRE_OK;
    }
    gyre_automaton_free(a);
    *out = NULL;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory");
}

void gyre_automaton_free(struct gyre_automaton *a)
{
    if (!a) return;
    for (uint32_t i = 0; i < a->n_state && a->state; i++) free(a->state[i].next), free(a->state[i].mask);
    free(a->state);
    free(a->frame);
    free(a->place);
    free(a->state_slots);
    free(a->frame_slots);
    free(a->made);
    free(a->visit);
    free(a->work);
    free(a);
}

bool gyre_automaton_full(const struct gyre_automaton *a)
{
    return a->n_state > MOST_STATES || a->n_frame > MOST_FRAMES ||
           a->bytes + a->cap_place * sizeof *a->place > MOST_BYTES;
}

static uint32_t mixed(uint32_t hash, uint32_t value)
{
    hash = (hash ^ value) * 0x9E3779B1u;
    return hash ^ hash >> 15;
}

// ---- stacks ---------------------------------------------------------------------------------------------------------

static uint32_t push(struct gyre_automaton *a, uint32_t below, uint32_t value)
{
    uint32_t slot = mixed(mixed(1, below), value) & (SLOTS - 1);
    for (; a->frame_slots[slot]; slot = (slot + 1) & (SLOTS - 1)) {
        const struct gyre_frame *f = &a->frame[a->frame_slots[slot]];
        if (f->below == below && f->value == value) return a->frame_slots[slot];
    }
    if (a->n_frame >= SLOTS / 2) a->st = a->st ? a->st : GYRE_E_UNSUPPORTED;
    if (a->st == GYRE_OK && !GYRE_ROOM(a->frame, a->n_frame + 1u, a->cap_frame)) a->st = GYRE_E_NOMEM;
    if (a->st != GYRE_OK) return 0;
    a->frame[a->n_frame] = (struct gyre_frame){below, value, a->frame[below].depth + 1};
    return a->frame_slots[slot] = a->n_frame++;
}

// ---- sets of places -------------------------------------------------------------------------------------------------

static void put(struct gyre_automaton *a, uint32_t pc, uint32_t local, uint32_t count, uint32_t frame)
{
    if (a->n_made == MOST_PLACES) a->st = a->st ? a->st : GYRE_E_UNSUPPORTED;
    else a->made[a->n_made++] = (struct gyre_place){pc, local, count, frame};
}

// Whether the closure of this state comes to (pc, frame) for the first time; it is marked then. Sets a->st where the
// table of marks is full.
static bool comes_first(struct gyre_automaton *a, uint32_t pc, uint32_t frame)
{
    uint32_t slot = mixed(mixed(7, pc), frame) & (VISITS - 1);
    for (uint32_t tries = 0; tries < VISITS; tries++, slot = (slot + 1) & (VISITS - 1)) {
        struct gyre_visit *const v = &a->visit[slot];
        if (v->round == a->round && v->pc == pc && v->frame == frame) return false;
        if (v->round == a->round) continue;
        *v = (struct gyre_visit){pc, frame, a->round};
        return true;
    }
    a->st = GYRE_E_UNSUPPORTED;
    return false;
}

// Follows what reads no byte from (pc, frame) on, and puts what is reached. `round` marks what was followed for this
// state already.
static void arrive(struct gyre_automaton *a, uint32_t pc, uint32_t frame)
{
    const struct gyre_program *p = a->program;
    uint32_t depth = 0;
    a->work[depth++] = (struct gyre_visit){pc, frame, 0};
    while (depth && a->st == GYRE_OK) {
        const struct gyre_visit at = a->work[--depth];
        if (p->least[at.pc] == GYRE_NEVER || a->frame[at.frame].depth + p->need[at.pc] > GYRE_PROGRAM_DEPTH) continue;
        if (!comes_first(a, at.pc, at.frame)) continue;
        const struct gyre_instr *i = &p->instr[at.pc];
        const uint32_t more = i->op == GYRE_OP_ALT ? i->b : 2;
        if (depth + more > VISITS) {
            a->st = GYRE_E_UNSUPPORTED;
            return;
        }
        const struct gyre_frame top = a->frame[at.frame];
        uint32_t to = at.pc + 1, on = at.frame;
        switch (i->op) {
        case GYRE_OP_WORD: {
            const struct gyre_dfa *d = p->dfa[i->a];
            if (d->leads[d->start]) put(a, at.pc, d->start, 0, at.frame);
            if (!d->accepts[d->start]) continue;
            break;
        }
        case GYRE_OP_TEXT:
        case GYRE_OP_STRING:
        case GYRE_OP_END:
            put(a, at.pc, i->op == GYRE_OP_STRING ? p->dfa[i->a]->start : 0, 0, at.frame);
            continue;
        case GYRE_OP_ALT:
            for (uint32_t k = i->b; k-- > 0;) a->work[depth++] = (struct gyre_visit){p->target[i->a + k], at.frame, 0};
            continue;
        case GYRE_OP_JUMP:
            to = i->a;
            break;
        case GYRE_OP_GOTO:
            to = p->rule[i->a];
            break;
        case GYRE_OP_CALL:
            on = push(a, at.frame, to);
            to = p->rule[i->a];
            break;
        case GYRE_OP_RETURN:
            to = top.value;
            on = top.below;
            break;
        case GYRE_OP_PUSH:
            on = push(a, at.frame, i->a);
            break;
        case GYRE_OP_COUNT:
            if (top.value >= i->a) continue;
            on = push(a, top.below, GYRE_MIN(top.value + 1, i->b));
            break;
        case GYRE_OP_ENOUGH:
            if (top.value < i->a) continue;
            on = top.below;
            break;
        }
        a->work[depth++] = (struct gyre_visit){to, on, 0};
    }
}

static void advance(struct gyre_automaton *a, const struct gyre_place *at, uint8_t byte)
{
    const struct gyre_program *p = a->program;
    const struct gyre_instr *i = &p->instr[at->pc];
    if (i->op == GYRE_OP_TEXT) {
        if ((uint8_t)p->text[i->a + at->local] != byte) return;
        if (at->local + 1 == i->b) arrive(a, at->pc + 1, at->frame);
        else put(a, at->pc, at->local + 1, 0, at->frame);
    } else if (i->op == GYRE_OP_WORD) {
        const struct gyre_dfa *d = p->dfa[i->a];
        const uint32_t next = gyre_dfa_next(d, at->local, byte);
        if (next == GYRE_DFA_DEAD) return;
        if (d->leads[next]) put(a, at->pc, next, 0, at->frame);
        if (d->accepts[next]) arrive(a, at->pc + 1, at->frame);
    } else if (i->op == GYRE_OP_STRING) {
        const struct gyre_dfa *d = p->dfa[i->a];
        const bool between = at->local == d->start;
        if (between && byte == '"') {
            if (at->count >= i->b) arrive(a, at->pc + 1, at->frame);
            return;
        }
        const uint32_t next = gyre_dfa_next(d, at->local, byte);
        if (next == GYRE_DFA_DEAD || (between && at->count >= i->c)) return;
        if (!d->accepts[next]) put(a, at->pc, next, at->count, at->frame);
        else put(a, at->pc, d->start, i->c == GYRE_RE_MANY ? GYRE_MIN(at->count + 1, i->b) : at->count + 1, at->frame);
    }
}

static int by_place(const void *x, const void *y) { return memcmp(x, y, sizeof(struct gyre_place)); }

// The state that a->made is.
static uint32_t intern(struct gyre_automaton *a)
{
    uint32_t n = 0, hash = 3;
    if (a->st != GYRE_OK || a->n_made == 0) return GYRE_STATE_DEAD;
    if (a->n_made > 1) qsort(a->made, a->n_made, sizeof *a->made, by_place);
    for (uint32_t i = 0; i < a->n_made; i++)
        if (i == 0 || by_place(&a->made[i], &a->made[n - 1]) != 0) a->made[n++] = a->made[i];
    for (uint32_t i = 0; i < n; i++)
        hash = mixed(mixed(mixed(mixed(hash, a->made[i].pc), a->made[i].local), a->made[i].count), a->made[i].frame);
    uint32_t slot = hash & (SLOTS - 1);
    for (; a->state_slots[slot]; slot = (slot + 1) & (SLOTS - 1)) {
        const struct gyre_state *s = &a->state[a->state_slots[slot]];
        if (s->n == n && memcmp(a->place + s->at, a->made, n * sizeof *a->made) == 0) return a->state_slots[slot];
    }
    if (a->n_state >= SLOTS / 2) a->st = GYRE_E_UNSUPPORTED;
    if (a->st == GYRE_OK && !(GYRE_ROOM(a->state, a->n_state + 1u, a->cap_state) &&
                              GYRE_ROOM(a->place, (size_t)a->n_place + n, a->cap_place)))
        a->st = GYRE_E_NOMEM;
    if (a->st != GYRE_OK) return GYRE_STATE_DEAD;
    struct gyre_state *s = &a->state[a->n_state];
    *s = (struct gyre_state){.at = a->n_place, .n = n};
    memcpy(a->place + a->n_place, a->made, n * sizeof *a->made);
    a->n_place += n;
    for (uint32_t i = 0; i < n; i++) {
        const struct gyre_instr *at = &a->program->instr[a->made[i].pc];
        s->may_end |= at->op == GYRE_OP_END;
        s->free_text |= at->op == GYRE_OP_WORD && at->b == GYRE_WORD_FREE;
    }
    return a->state_slots[slot] = a->n_state++;
}

static void begin(struct gyre_automaton *a)
{
    a->n_made = 0;
    a->round++;
}

uint32_t gyre_automaton_start(struct gyre_automaton *a, uint32_t entry)
{
    begin(a);
    arrive(a, entry, 0);
    return intern(a);
}

uint32_t gyre_automaton_step(struct gyre_automaton *a, uint32_t state, uint8_t byte)
{
    if (state == GYRE_STATE_DEAD) return state;
    if (!a->state[state].next) {
        uint32_t *next = malloc(256 * sizeof *next);
        if (!next) return a->st = GYRE_E_NOMEM, GYRE_STATE_DEAD;
        memset(next, 0xFF, 256 * sizeof *next);
        a->state[state].next = next;
        a->bytes += 256 * sizeof *next;
    }
    if (a->state[state].next[byte] != UNKNOWN) return a->state[state].next[byte];
    begin(a);
    for (uint32_t i = 0; i < a->state[state].n; i++) {
        const struct gyre_place at = a->place[a->state[state].at + i];
        advance(a, &at, byte);
    }
    const uint32_t next = intern(a);
    return a->st == GYRE_OK ? a->state[state].next[byte] = next : GYRE_STATE_DEAD;
}

uint32_t gyre_automaton_carry(struct gyre_automaton *to, const struct gyre_automaton *from, uint32_t state)
{
    uint32_t stack[GYRE_PROGRAM_DEPTH + 1];
    begin(to);
    for (uint32_t i = 0; i < from->state[state].n; i++) {
        const struct gyre_place *at = &from->place[from->state[state].at + i];
        uint32_t n = 0, frame = 0;
        for (uint32_t f = at->frame; f && n <= GYRE_PROGRAM_DEPTH; f = from->frame[f].below)
            stack[n++] = from->frame[f].value;
        while (n) frame = push(to, frame, stack[--n]);
        put(to, at->pc, at->local, at->count, frame);
    }
    return intern(to);
}
