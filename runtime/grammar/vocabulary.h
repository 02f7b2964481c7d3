// The tokens of a vocabulary as bytes, in tries, so that one walk tries them all.
//
// Most tokens are plain (gyre_dfa_plain): within a string all of them are allowed that are not too long for it,
// without a walk. They have a trie of their own, beside the one of all others. Immutable.
#pragma once
#include <gyre/gyre_grammar.h>

enum { GYRE_PLAIN_MOST = 24 }; // characters

// Nodes in the order of a walk: children behind their parent, `skip` nodes on comes what is no descendant.
struct gyre_trie_node {
    uint32_t skip, first; // `first`: of token[]
    uint16_t depth, tokens;
    uint8_t byte;
};
struct gyre_trie {
    struct gyre_trie_node *node;
    uint32_t n, *token;
    uint16_t deepest;
};
struct gyre_long_token {
    uint32_t token, characters;
};

struct gyre_vocabulary {
    const gyre_tokenizer *tokenizer;
    uint32_t size, words; // tokens; words of a mask
    struct gyre_trie plain, other;
    uint32_t *plain_mask[GYRE_PLAIN_MOST + 1]; // [k]: plain tokens of at most k characters; the last one: of any number
    struct gyre_long_token *longer;            // those of GYRE_PLAIN_MOST and more
    uint32_t n_longer;
    uint32_t *control, n_control; // special tokens that end nothing
    uint32_t *end, n_end;
};
