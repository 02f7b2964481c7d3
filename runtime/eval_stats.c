// See eval.h; the formulas stand in gyre_eval.h.
#include "runtime/eval.h"

#include <math.h>
#include <stdlib.h>

enum { FEW_WINDOWS = 8 }; // below, the spread of so few means says less than that of the tokens

static void add(struct gyre_mean *m, double value)
{
    m->sum += value;
    m->squares += value * value;
    m->window += value;
}

void gyre_eval_count(struct gyre_eval_sums *s, const gyre_eval_token *t)
{
    const double change = exp(-t->nll) - exp(-t->reference_nll);
    add(&s->nll, t->nll);
    add(&s->kl, t->kl);
    add(&s->top1, t->same_top);
    add(&s->dp, change * change);
    s->tokens++;
    s->window_tokens++;
}

static void end_window(struct gyre_mean *m, double tokens)
{
    const double mean = m->window / tokens;
    m->window_sum += mean;
    m->window_squares += mean * mean;
    m->window = 0;
}

void gyre_eval_window(struct gyre_eval_sums *s)
{
    if (!s->window_tokens) return;
    const double n = (double)s->window_tokens;
    end_window(&s->nll, n);
    end_window(&s->kl, n);
    end_window(&s->top1, n);
    end_window(&s->dp, n);
    s->window_tokens = 0;
    s->windows++;
}

static void merge(struct gyre_mean *into, const struct gyre_mean *from)
{
    into->sum += from->sum;
    into->squares += from->squares;
    into->window_sum += from->window_sum;
    into->window_squares += from->window_squares;
}

void gyre_eval_merge(struct gyre_eval_sums *into, const struct gyre_eval_sums *from)
{
    merge(&into->nll, &from->nll);
    merge(&into->kl, &from->kl);
    merge(&into->top1, &from->top1);
    merge(&into->dp, &from->dp);
    into->tokens += from->tokens;
    into->windows += from->windows;
}

// sqrt(sum (x - mean)^2 / (n (n - 1))); one value alone tells of none.
static double standard_error(double sum, double squares, double n)
{
    if (n < 2) return (double)NAN;
    const double spread = squares - sum * sum / n;
    return spread > 0 ? sqrt(spread / (n * (n - 1))) : 0;
}

static double spread_of(const struct gyre_eval_sums *s, const struct gyre_mean *m, bool windows)
{
    return windows ? standard_error(m->window_sum, m->window_squares, s->windows)
                   : standard_error(m->sum, m->squares, (double)s->tokens);
}

void gyre_eval_finish(const struct gyre_eval_sums *s, gyre_eval_result *r)
{
    const double n = (double)s->tokens;
    const bool by_windows = s->windows >= FEW_WINDOWS;
    r->tokens = s->tokens;
    r->windows = s->windows;
    r->stderr_from_windows = by_windows;
    r->nll = s->nll.sum / n;
    r->nll_stderr = spread_of(s, &s->nll, by_windows);
    r->ppl = exp(r->nll);
    r->ppl_stderr = r->ppl * r->nll_stderr;
    r->kl = s->kl.sum / n;
    r->kl_stderr = spread_of(s, &s->kl, by_windows);
    r->top1_agreement = s->top1.sum / n;
    r->top1_stderr = spread_of(s, &s->top1, by_windows);
    r->dp_rms = sqrt(s->dp.sum / n);
    const double dp = spread_of(s, &s->dp, by_windows);
    r->dp_rms_stderr = r->dp_rms > 0 || isnan(dp) ? dp / (2 * r->dp_rms) : 0;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(const float *sorted, uint64_t n, double share)
{
    const double at = share * (double)(n - 1);
    const uint64_t i = (uint64_t)at, next = i + 1 < n ? i + 1 : i;
    return (double)sorted[i] + (at - (double)i) * ((double)sorted[next] - (double)sorted[i]);
}

void gyre_eval_quantiles(float *kl, uint64_t n, gyre_eval_result *r)
{
    qsort(kl, n, sizeof *kl, by_size);
    r->kl_median = quantile(kl, n, 0.5);
    r->kl_p90 = quantile(kl, n, 0.9);
    r->kl_p99 = quantile(kl, n, 0.99);
    r->kl_max = (double)kl[n - 1];
}
