// A grammar as a program of a pushdown machine over bytes: what the compilers of schemas and of tool calls write and
// the automaton follows. Rules call each other as functions do; where several ways are open, all are followed.
#pragma once
#include "runtime/grammar/dfa.h"

enum gyre_grammar_op {
    GYRE_OP_TEXT,   // the bytes text[a .. a + b)
    GYRE_OP_WORD,   // a word of dfa[a]; b: of enum gyre_word
    GYRE_OP_STRING, // b..c characters (c: GYRE_RE_MANY) of dfa[a], which accepts one, then a closing quote
    GYRE_OP_ALT,    // any of target[a .. a + b)
    GYRE_OP_JUMP,   // to instruction a
    GYRE_OP_GOTO,   // to rule a, for good
    GYRE_OP_CALL,   // rule a, then what follows
    GYRE_OP_RETURN,
    GYRE_OP_PUSH,   // a counter with value a
    GYRE_OP_COUNT,  // adds one to it, where it is below a; not beyond b
    GYRE_OP_ENOUGH, // takes it away, where it is at least a
    GYRE_OP_END     // the text may end
};
// A word of free text: control tokens that stand for no text may come in it.
enum gyre_word { GYRE_WORD_STRICT, GYRE_WORD_FREE };

struct gyre_instr {
    enum gyre_grammar_op op;
    uint32_t a, b, c;
};

enum { GYRE_PROGRAM_DEPTH = 500 }; // frames on a stack
#define GYRE_NEVER UINT32_MAX

struct gyre_program {
    struct gyre_instr *instr;
    uint32_t n;
    size_t cap;
    uint32_t *target, n_target;
    char *text;
    uint32_t n_text;
    struct gyre_dfa **dfa; // owned
    uint32_t n_dfa;
    uint64_t dfa_bytes;
    uint32_t *rule, n_rule; // where each begins; GYRE_NEVER: not written yet
    size_t cap_target, cap_text, cap_dfa, cap_rule;
    // By gyre_program_finish. least: bytes to the nearest end of the rule, GYRE_NEVER where there is none; need:
    // frames that the way there takes.
    uint32_t *least, *need;
    // Texts that may also come as control tokens ("<tool_call>"); the program does not own them.
    const char *mark[8];
    uint32_t n_mark;
    gyre_status st; // the first failure; writing goes on without effect
    gyre_error err;
};

// Writing. Nothing needs to be checked before gyre_program_finish: what fails first is kept.
uint32_t gyre_emit(struct gyre_program *p, enum gyre_grammar_op op, uint32_t a, uint32_t b, uint32_t c);
void gyre_emit_text(struct gyre_program *p, const char *text, size_t bytes); // nothing for no bytes
void gyre_emit_lit(struct gyre_program *p, const char *text);
// Takes the automaton over, also after a failure.
void gyre_emit_word(struct gyre_program *p, struct gyre_dfa *dfa, enum gyre_word kind);
uint32_t gyre_emit_alt(struct gyre_program *p, uint32_t n); // n targets to be set
void gyre_set_target(struct gyre_program *p, uint32_t alt, uint32_t i, uint32_t pc);
uint32_t gyre_new_rule(struct gyre_program *p);
uint32_t gyre_add_dfa(struct gyre_program *p, struct gyre_dfa *dfa); // takes it over
void gyre_program_fail(struct gyre_program *p, gyre_status st, const gyre_error *err);

// Completes a program that begins at rule `start`: that rule, then GYRE_OP_END; *entry is where it begins.
// GYRE_E_UNSUPPORTED where no text is finite, or where it nests too deeply.
gyre_status gyre_program_finish(struct gyre_program *p, uint32_t start, uint32_t *entry, gyre_error *err) GYRE_MUST_USE;
void gyre_program_free(struct gyre_program *p); // accepts a zeroed one
