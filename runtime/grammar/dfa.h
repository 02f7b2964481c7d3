// Deterministic automata over bytes: the words of a grammar. Immutable. From every state that is kept a word's end can
// be reached, so whoever follows one never gets stuck.
#pragma once
#include "runtime/grammar/regex.h"

#define GYRE_DFA_DEAD UINT32_MAX

struct gyre_dfa {
    uint32_t states, classes, start;
    uint8_t class_of[256];
    uint32_t *next;     // [states][classes], GYRE_DFA_DEAD where nothing follows
    uint8_t *accepts;   // [states]
    uint8_t *leads;     // [states]: is there any byte that goes on?
    uint8_t *plain;     // [states]: whole characters that are plain (gyre_dfa_plain) lead back to the same state
    uint32_t *distance; // [states]: bytes to the nearest end
};

static inline uint32_t gyre_dfa_next(const struct gyre_dfa *dfa, uint32_t state, uint8_t byte)
{
    return dfa->next[state * dfa->classes + dfa->class_of[byte]];
}

// How characters are written: as UTF-8, or as the inside of a JSON string, each in its one shortest spelling.
enum gyre_dfa_text { GYRE_DFA_UTF8, GYRE_DFA_JSON };

// GYRE_E_UNSUPPORTED where it would need more than GYRE_DFA_MOST states, or too long; an automaton without states
// accepts nothing.
enum { GYRE_DFA_MOST = 12000, GYRE_DFA_MOST_TEXT = 8 * GYRE_DFA_MOST };
gyre_status gyre_dfa_make(const struct gyre_re *re, enum gyre_dfa_text text, struct gyre_dfa **out,
                          gyre_error *err) GYRE_MUST_USE;
// Exactly these texts, of GYRE_DFA_MOST_TEXT bytes in all (GYRE_E_UNSUPPORTED).
gyre_status gyre_dfa_texts(const char *const *texts, uint32_t n, struct gyre_dfa **out, gyre_error *err) GYRE_MUST_USE;
// Any bytes in which `mark` (not empty) stands nowhere; `through`: any bytes that end with its first occurrence.
gyre_status gyre_dfa_until(const char *mark, bool through, struct gyre_dfa **out, gyre_error *err) GYRE_MUST_USE;
// Integers in decimal digits, with or without a minus, that are multiples of m > 0.
gyre_status gyre_dfa_multiple(uint32_t m, struct gyre_dfa **out, gyre_error *err) GYRE_MUST_USE;
// What both accept; `minus`: what a accepts and b does not.
gyre_status gyre_dfa_both(const struct gyre_dfa *a, const struct gyre_dfa *b, bool minus, struct gyre_dfa **out,
                          gyre_error *err) GYRE_MUST_USE;
void gyre_dfa_free(struct gyre_dfa *dfa); // accepts NULL

// Plain characters: those that a JSON string holds as they are, less '<', with which the marks of tool calls begin. If
// the n bytes are whole plain characters, their number; else 0.
uint32_t gyre_dfa_plain(const char *bytes, uint32_t n);
