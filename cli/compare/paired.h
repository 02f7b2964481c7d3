// Differences of cells that were evaluated on the same windows: known better than either figure, because windows that
// are hard for one are hard for the other.
#pragma once
#include "cli/compare/cell.h"

// KL of one less KL of the other, nats a token, and the ends of its 95 % interval by Student's t: m -+ t s, with
//     s^2 = U / (U - 1) sum_u n_u^2 (d_u - m)^2 / (sum_u n_u)^2
// over U units of n_u tokens and mean difference d_u. Units are windows where there are 8 of them, else blocks of 64
// tokens, which are less independent.
struct cli_difference {
    double mean, low, high; // NaN: not known; the ends alone, where there is one unit
    uint32_t units;
    bool by_windows;
};
// a less b, of one text or (text < 0) of all.
struct cli_difference cli_cell_difference(const struct cli_cell *a, const struct cli_cell *b, int text);
// Whether 0 lies outside the interval.
bool cli_difference_is_sure(const struct cli_difference *difference);

// What a cell is held against: the base recipe's at the same setting; NULL where it is that itself, where one of them
// failed, or where it is the float model's.
const struct cli_cell *cli_cell_base(const struct cli_comparison *comparison, const struct cli_cell *cell);
// The answers to a task; NULL where the cell failed.
const struct cli_answers *cli_cell_task(const struct cli_cell *cell, uint32_t task);
