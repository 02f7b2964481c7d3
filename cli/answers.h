// What a model answered to the items of a task, and the figures that follow.
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct cli_answer {
    uint32_t choice; // its most likely answer; of an item of one request: whether the model would say it
    bool right;
};
struct cli_answers {
    char name[64]; // of the task
    struct cli_answer *item;
    uint32_t n, requests;
    double per_byte, bits_per_byte; // see the figures
};

// Shares of the items, but for bits_per_byte; errors are NaN of one item. per_byte: right where log-likelihoods are
// divided by the answers' bytes.
struct cli_task_figures {
    double accuracy, per_byte, bits_per_byte, stderror;
    bool has_reference;
    double reference, difference_stderr; // the reference's accuracy; of the paired difference
    uint32_t flips;                      // items that the reference answers otherwise
};

void cli_answers_free(struct cli_answers *answers); // accepts a zeroed one; zeroes it
// `reference`: another model's answers to the same items; NULL, or one that has another number of items: none.
struct cli_task_figures cli_answers_figures(const struct cli_answers *answers, const struct cli_answers *reference);

// {name, items, requests, accuracy, ...}: the keys of `gyre eval --tasks --json`. A new reference; NULL where memory
// ran out.
json_t *cli_task_json(const struct cli_answers *answers, const struct cli_task_figures *figures);
// The same with the answers, `choices` and `right`, from which it is read back; false where memory ran out or `json` is
// no such thing.
json_t *cli_answers_json(const struct cli_answers *answers);
bool cli_answers_read(const json_t *json, struct cli_answers *out);
