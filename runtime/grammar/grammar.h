// A grammar: a program, a vocabulary, and the automaton that its matchers share until it is full.
#pragma once
#include "runtime/grammar/automaton.h"
#include "runtime/grammar/vocabulary.h"

struct gyre_shared_automaton {
    struct gyre_automaton *automaton;
    uint32_t users;
};

struct gyre_grammar {
    const gyre_vocabulary *vocabulary;
    struct gyre_program program;
    uint32_t entry;
    struct gyre_shared_automaton *current;
    uint32_t users; // itself, until it is destroyed, and its matchers
};

// Takes the program over, also after a failure. `start`: its first rule.
gyre_status gyre_grammar_make(const gyre_vocabulary *vocabulary, struct gyre_program *program, uint32_t start,
                              gyre_grammar **out, gyre_error *err) GYRE_MUST_USE;

// Emits what may or must come before an answer.
void gyre_emit_reasoning(struct gyre_program *program, gyre_reasoning reasoning);
