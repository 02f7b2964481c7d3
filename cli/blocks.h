// How well a text was predicted where: means over blocks of up to 64 tokens that follow each other in a window. Enough
// for figures by position, and for the difference of two models on the same windows.
#pragma once
#include <gyre/gyre_eval.h>
#include <jansson.h>

enum { CLI_BLOCK = 64, CLI_POSITIONS = 20 };

struct cli_block {
    double nll, kl; // means of its tokens, nats
};
// Of one text. Windows of ctx tokens predict ctx - 1; the last block of a window may be shorter.
struct cli_blocks {
    uint32_t ctx;
    struct cli_block *block; // [n], a window's blocks in order; malloc'd
    size_t n, room;
};

uint32_t cli_blocks_per_window(const struct cli_blocks *blocks);
uint32_t cli_blocks_windows(const struct cli_blocks *blocks);
uint32_t cli_block_tokens(const struct cli_blocks *blocks, size_t i);
// The next token of the text, in the order of gyre_eval_params.token. False where memory ran out.
bool cli_blocks_add(struct cli_blocks *blocks, const gyre_eval_token *token);
void cli_blocks_free(struct cli_blocks *blocks); // accepts a zeroed one; zeroes it
// Adds {ctx, blocks: {nll: [..], kl: [..]}} to an object (non-zero where memory ran out), and reads that back: false
// where memory ran out or it is not there as a whole.
int cli_blocks_json(json_t *out, const struct cli_blocks *blocks);
bool cli_blocks_read(const json_t *object, struct cli_blocks *out);

// Figures of the tokens that have seen from..to tokens of their window before them: 1..64, ..128, ..256 and so on.
struct cli_position {
    uint32_t from, to;
    uint64_t tokens;
    double nll, kl, kl_stderr; // its error from the windows' means; NaN for one window
};
// Of some texts together, all of one ctx; returns how many there are.
uint32_t cli_positions(const struct cli_blocks *texts, uint32_t n_texts, struct cli_position out[CLI_POSITIONS]);
// Adds `positions` to an object: from, to, tokens, nll, ppl and, where `result` has a reference, kl and (of several
// windows) kl_stderr. Non-zero where memory ran out.
int cli_positions_json(json_t *out, const struct cli_blocks *texts, uint32_t n_texts, const gyre_eval_result *result);
