// A program followed byte by byte. A state is the set of all places where the program may be, each with its stack;
// states and stacks are made when they are first met and kept, so that most bytes cost one look into a table.
// Belongs to one thread at a time.
#pragma once
#include "runtime/grammar/program.h"

struct gyre_place {
    uint32_t pc, local, count; // local: how far in a text, the state of a word; count: characters of a string
    uint32_t frame;            // 0: the empty stack
};
struct gyre_frame {
    uint32_t below, value, depth; // value: where a call returns to, or a counter's
};

struct gyre_state {
    uint32_t at, n; // its places
    bool may_end, free_text;
    uint32_t *next; // [256], made when needed
    uint32_t *mask; // of the vocabulary, by whoever asks for it; freed here
};

enum { GYRE_STATE_DEAD = 0 };
struct gyre_automaton {
    const struct gyre_program *program;
    struct gyre_state *state;
    struct gyre_frame *frame;
    struct gyre_place *place;
    uint32_t n_state, n_frame, n_place;
    size_t cap_state, cap_frame, cap_place;
    uint32_t *state_slots, *frame_slots; // hash tables of numbers
    uint64_t bytes;                      // of masks and next tables
    struct gyre_place *made;             // the state being made
    uint32_t n_made;
    struct gyre_visit *visit, *work; // the closure being made
    uint32_t round;
    gyre_status st; // NOMEM, or UNSUPPORTED where too many ways are open; states made afterwards are dead
};

gyre_status gyre_automaton_create(const struct gyre_program *program, struct gyre_automaton **out,
                                  gyre_error *err) GYRE_MUST_USE;
void gyre_automaton_free(struct gyre_automaton *a); // accepts NULL

uint32_t gyre_automaton_start(struct gyre_automaton *a, uint32_t entry);
uint32_t gyre_automaton_step(struct gyre_automaton *a, uint32_t state, uint8_t byte); // GYRE_STATE_DEAD: not allowed
// The same state in another automaton of the program.
uint32_t gyre_automaton_carry(struct gyre_automaton *to, const struct gyre_automaton *from, uint32_t state);
bool gyre_automaton_full(const struct gyre_automaton *a); // time for a new one
