// See program.h.
#include "runtime/grammar/program.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_INSTRUCTIONS = 100000, MOST_TEXT = 4 << 20, MOST_DFA_BYTES = 64 << 20, MOST_LOOKS = 20000000 };

void gyre_program_fail(struct gyre_program *p, gyre_status st, const gyre_error *err)
{
    if (p->st != GYRE_OK) return;
    p->st = st;
    p->err = *err;
}

static void too_large(struct gyre_program *p)
{
    gyre_error err;
    gyre_fail(&err, GYRE_E_UNSUPPORTED, "cannot constrain the output: the schema is too large; ask for less");
    gyre_program_fail(p, GYRE_E_UNSUPPORTED, &err);
}

// Makes room for `more` elements behind n; false where the program has failed.
static bool room(struct gyre_program *p, void *array, uint32_t n, uint32_t more, size_t *cap, size_t size,
                 uint32_t most)
{
    if (p->st != GYRE_OK) return false;
    if (more > most || n > most - more) return too_large(p), false;
    if (gyre_room(array, (size_t)n + more, cap, size)) return true;
    gyre_error err;
    gyre_program_fail(p, gyre_fail(&err, GYRE_E_NOMEM, "cannot constrain the output: out of memory"), &err);
    return false;
}
#define ROOM(p, name, more, most) room(p, &(p)->name, (p)->n_##name, more, &(p)->cap_##name, sizeof *(p)->name, most)

uint32_t gyre_emit(struct gyre_program *p, enum gyre_grammar_op op, uint32_t a, uint32_t b, uint32_t c)
{
    if (!room(p, &p->instr, p->n, 1, &p->cap, sizeof *p->instr, MOST_INSTRUCTIONS)) return 0;
    p->instr[p->n] = (struct gyre_instr){op, a, b, c};
    return p->n++;
}

void gyre_emit_text(struct gyre_program *p, const char *text, size_t bytes)
{
    if (bytes == 0) return;
    if (bytes > MOST_TEXT) {
        too_large(p);
        return;
    }
    if (!ROOM(p, text, (uint32_t)bytes, MOST_TEXT)) return;
    memcpy(p->text + p->n_text, text, bytes);
    gyre_emit(p, GYRE_OP_TEXT, p->n_text, (uint32_t)bytes, 0);
    p->n_text += (uint32_t)bytes;
}

void gyre_emit_lit(struct gyre_program *p, const char *text) { gyre_emit_text(p, text, strlen(text)); }

uint32_t gyre_add_dfa(struct gyre_program *p, struct gyre_dfa *dfa)
{
    if (dfa) p->dfa_bytes += (uint64_t)dfa->states * dfa->classes * sizeof *dfa->next;
    if (p->dfa_bytes > MOST_DFA_BYTES) too_large(p);
    if (!dfa || !ROOM(p, dfa, 1, MOST_INSTRUCTIONS)) {
        gyre_dfa_free(dfa);
        return 0;
    }
    p->dfa[p->n_dfa] = dfa;
    return p->n_dfa++;
}

void gyre_emit_word(struct gyre_program *p, struct gyre_dfa *dfa, enum gyre_word kind)
{
    gyre_emit(p, GYRE_OP_WORD, gyre_add_dfa(p, dfa), kind, 0);
}

uint32_t gyre_emit_alt(struct gyre_program *p, uint32_t n)
{
    if (!ROOM(p, target, n, MOST_INSTRUCTIONS)) return 0;
    for (uint32_t i = 0; i < n; i++) p->target[p->n_target + i] = 0;
    p->n_target += n;
    return gyre_emit(p, GYRE_OP_ALT, p->n_target - n, n, 0);
}

void gyre_set_target(struct gyre_program *p, uint32_t alt, uint32_t i, uint32_t pc)
{
    if (p->st == GYRE_OK) p->target[p->instr[alt].a + i] = pc;
}

uint32_t gyre_new_rule(struct gyre_program *p)
{
    if (!ROOM(p, rule, 1, MOST_INSTRUCTIONS)) return 0;
    p->rule[p->n_rule] = GYRE_NEVER;
    return p->n_rule++;
}

static uint32_t plus(uint32_t a, uint32_t b)
{
    return a == GYRE_NEVER || b == GYRE_NEVER ? GYRE_NEVER
                                              : (uint32_t)GYRE_MIN((uint64_t)a + b, (uint64_t)GYRE_NEVER - 1);
}

// Bytes and frames from an instruction to the end of its rule, from what is known of others.
static void look(const struct gyre_program *p, uint32_t pc, uint32_t *least, uint32_t *need)
{
    const struct gyre_instr *i = &p->instr[pc];
    const uint32_t after = pc + 1 < p->n ? p->least[pc + 1] : GYRE_NEVER, then = pc + 1 < p->n ? p->need[pc + 1] : 0;
    uint32_t at;
    *least = GYRE_NEVER;
    *need = then;
    switch (i->op) {
    case GYRE_OP_TEXT:
        *least = plus(after, i->b);
        break;
    case GYRE_OP_WORD:
        if (p->dfa[i->a]->states) *least = plus(after, p->dfa[i->a]->distance[p->dfa[i->a]->start]);
        break;
    case GYRE_OP_STRING:
        *least = i->b > i->c ? GYRE_NEVER : plus(after, plus(i->b, 1));
        break;
    case GYRE_OP_ALT: // the way that needs the fewest frames: it is always kept open
        for (uint32_t k = 0; k < i->b; k++) {
            at = p->target[i->a + k];
            if (p->least[at] == GYRE_NEVER) continue;
            *need = *least == GYRE_NEVER ? p->need[at] : GYRE_MIN(*need, p->need[at]);
            *least = GYRE_MIN(*least, p->least[at]);
        }
        break;
    case GYRE_OP_JUMP:
    case GYRE_OP_GOTO:
        at = i->op == GYRE_OP_JUMP ? i->a : p->rule[i->a];
        *least = p->least[at];
        *need = p->need[at];
        break;
    case GYRE_OP_CALL:
        at = p->rule[i->a];
        *least = plus(p->least[at], after);
        *need = GYRE_MAX(p->need[at] + 1, then);
        break;
    case GYRE_OP_PUSH:
        *least = after;
        *need = then + 1;
        break;
    case GYRE_OP_COUNT:
    case GYRE_OP_ENOUGH:
        *least = after;
        break;
    case GYRE_OP_RETURN:
    case GYRE_OP_END:
        *least = *need = 0;
        break;
    }
}

// The k-th instruction whose way matters to that of `pc`; GYRE_NEVER behind the last.
static uint32_t depends(const struct gyre_program *p, uint32_t pc, uint32_t k)
{
    const struct gyre_instr *i = &p->instr[pc];
    if (i->op == GYRE_OP_ALT) return k < i->b ? p->target[i->a + k] : GYRE_NEVER;
    if (i->op == GYRE_OP_RETURN || i->op == GYRE_OP_END) return GYRE_NEVER;
    if (i->op == GYRE_OP_CALL && k == 1) return p->rule[i->a];
    if (k > 0) return GYRE_NEVER;
    return i->op == GYRE_OP_JUMP ? i->a : i->op == GYRE_OP_GOTO ? p->rule[i->a] : pc + 1;
}

// Fills least and need: from what is known on to whom it matters, until nothing changes.
static gyre_status measure(struct gyre_program *p, gyre_error *err)
{
    const uint32_t n = p->n;
    uint64_t edges = 0, looks = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; depends(p, i, k) != GYRE_NEVER; k++) edges++;
    uint32_t *first = calloc(n + 2, sizeof *first), *user = malloc((edges + 1) * sizeof *user),
             *queue = malloc((n + 1) * sizeof *queue), begin = 0, waiting = n;
    bool *waits = malloc(n + 1);
    gyre_status st = GYRE_OK;
    if (!first || !user || !queue || !waits)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot constrain the output: out of memory"));
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0, on; (on = depends(p, i, k)) != GYRE_NEVER; k++) first[on + 2 <= n ? on + 2 : n + 1]++;
    for (uint32_t i = 2; i < n + 2; i++) first[i] += first[i - 1];
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0, on; (on = depends(p, i, k)) != GYRE_NEVER; k++) user[first[on + 1]++] = i;
    for (uint32_t i = 0; i < n; i++) queue[i] = n - 1 - i, waits[i] = true, p->least[i] = GYRE_NEVER;
    while (waiting && looks++ < MOST_LOOKS) {
        const uint32_t pc = queue[begin];
        uint32_t least, need;
        begin = begin + 1 == n ? 0 : begin + 1;
        waiting--;
        waits[pc] = false;
        look(p, pc, &least, &need);
        need = GYRE_MIN(need, (uint32_t)GYRE_PROGRAM_DEPTH + 1);
        if (least == p->least[pc] && (least == GYRE_NEVER || need == p->need[pc])) continue;
        p->least[pc] = least;
        p->need[pc] = need;
        for (uint32_t k = first[pc]; k < first[pc + 1]; k++) {
            if (waits[user[k]]) continue;
            waits[user[k]] = true;
            queue[(begin + waiting++) % n] = user[k];
        }
    }
    if (waiting)
        st = gyre_fail(err, GYRE_E_UNSUPPORTED,
                       "cannot constrain the output: the schema refers to itself in too many ways; ask for less");
done:
    free(first);
    free(user);
    free(queue);
    free(waits);
    return st;
}

gyre_status gyre_program_finish(struct gyre_program *p, uint32_t start, uint32_t *entry, gyre_error *err)
{
    *entry = gyre_emit(p, GYRE_OP_CALL, start, 0, 0);
    gyre_emit(p, GYRE_OP_END, 0, 0, 0);
    if (p->st == GYRE_OK) {
        p->least = malloc(p->n * sizeof *p->least);
        p->need = calloc(p->n, sizeof *p->need);
        if (!p->least || !p->need)
            gyre_program_fail(p, gyre_fail(&p->err, GYRE_E_NOMEM, "cannot constrain the output: out of memory"),
                              &p->err);
    }
    if (p->st != GYRE_OK) {
        if (err) *err = p->err;
        return p->st;
    }
    GYRE_TRY(measure(p, err));
    if (p->least[*entry] == GYRE_NEVER)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot constrain the output (schema at #): no finite value fits; loosen what is required");
    if (p->need[*entry] > GYRE_PROGRAM_DEPTH)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot constrain the output: what is required nests more than %d deep; ask for less",
                         GYRE_PROGRAM_DEPTH);
    return GYRE_OK;
}

void gyre_program_free(struct gyre_program *p)
{
    for (uint32_t i = 0; i < p->n_dfa; i++) gyre_dfa_free(p->dfa[i]);
    free(p->instr);
    free(p->target);
    free(p->text);
    free(p->dfa);
    free(p->rule);
    free(p->least);
    free(p->need);
    *p = (struct gyre_program){0};
}
