// Runs of the quantizer in tests: a small base, a text to calibrate on, and runs that can be cancelled anywhere.
#pragma once
#include <gyre/gyre_quantize.h>

// 4 KB of words of a few letters; `first` makes two texts different.
void run_text(const char *path, unsigned first);

// A tiny model of two blocks, F32, and run_text's text 3.
void run_base(const char *model, const char *text, const char *family, bool tied);

// Per channel, A4 KV4, on one text, in the place of an older OUT. What is handed in is borrowed.
gyre_quantize_params run_params(const char *model, const char *out, const char *recipe, const char *const *text);

// gyre_quantize, whose progress is watched and cancelled at the stop_at-th call; 0: never. `summary` may be NULL.
gyre_status run_until(gyre_quantize_params p, int stop_at, gyre_quantize_summary *summary, gyre_error *err);
// One that must fail, with a line that says this.
void run_refused(gyre_quantize_params p, const char *says);
int run_calls(void); // of progress, in the last of them
// Fractions of progress in it: what was done behind the weighing of tokens and outputs (0: nothing), and in the end.
double run_weighed(void);
double run_fraction(void);

// Of OUT to its base on the text, in nats, by the engine on the reference device. act, kv: 0 as the file says.
double run_divergence(const char *model, const char *out, const char *text, uint32_t act, uint32_t kv);
