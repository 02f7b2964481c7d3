// See choose.h.
#include "runtime/choose.h"
#include "runtime/sample.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <stdlib.h>

enum { FIRST_CANDIDATES = 256 };

bool gyre_chooser_init(struct gyre_chooser *c, uint32_t vocab)
{
    *c = (struct gyre_chooser){vocab, malloc(vocab * sizeof *c->candidate), calloc(vocab / 32 + 1, sizeof *c->seen)};
    if (c->candidate && c->seen) return true;
    gyre_chooser_free(c);
    return false;
}

void gyre_chooser_free(struct gyre_chooser *c)
{
    free(c->candidate);
    free(c->seen);
    *c = (struct gyre_chooser){0};
}

static bool repeats(const gyre_task_params *p) { return p->repetition > 0 && p->repetition != 1.0f; } // 1 is none

bool gyre_choose_is_plain(const gyre_task_params *p)
{
    return !(p->temperature > 0) && !repeats(p) && p->presence == 0 && p->frequency == 0 && p->n_bias == 0 && !p->allow;
}

// Marks a token; was it new?
static bool mark(uint32_t *seen, uint32_t token)
{
    const uint32_t bit = 1u << token % 32;
    const bool new = !(seen[token / 32] & bit);
    seen[token / 32] |= bit;
    return new;
}

// Repetition: Keskar et al. 2019, section 4.1, of prompt and answer. Presence and frequency: OpenAI's, of the answer.
// Numbers of the same name in all of choosing: one list or another, the arithmetic of a logit is this.
static float repeated(const gyre_task_params *p, float x) { return x > 0 ? x / p->repetition : x * p->repetition; }

static void penalize(struct gyre_chooser *c, const gyre_task_params *p, float *logits, const uint32_t *tokens, size_t n,
                     size_t n_prompt)
{
    if (repeats(p)) {
        for (size_t i = 0; i < n; i++) {
            float *const x = &logits[tokens[i]];
            if (mark(c->seen, tokens[i])) *x = repeated(p, *x);
        }
        for (size_t i = 0; i < n; i++) c->seen[tokens[i] / 32] = 0;
    }
    if (p->presence == 0 && p->frequency == 0) return;
    for (size_t i = n_prompt; i < n; i++)
        logits[tokens[i]] -= p->frequency + (mark(c->seen, tokens[i]) ? p->presence : 0);
    for (size_t i = n_prompt; i < n; i++) c->seen[tokens[i] / 32] = 0;
}

double gyre_log_sum(const float *logits, uint32_t n)
{
    float top = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) top = logits[i] > top ? logits[i] : top;
    if (!isfinite(top)) return (double)top;
    for (uint32_t i = 0; i < n; i++) sum += (double)expf(logits[i] - top);
    return (double)top + log(sum);
}

// How likely a logit is against the best one; 0 for what min-p drops.
static double share(const gyre_task_params *p, float logit, float top)
{
    const double x = exp(((double)logit - (double)top) / (double)p->temperature);
    return x < (double)p->min_p ? 0 : x;
}

// Is a token drawn from all of them?
static bool all_count(const gyre_task_params *p) { return p->top_k == 0 && !(p->top_p > 0 && p->top_p < 1); }

// Draws from candidates in the order of their tokens: as draw_all, where the others have no share.
static uint32_t draw_among(const gyre_task_params *p, const gyre_candidate *list, uint32_t n, float top, double u)
{
    double sum = 0, passed = 0;
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) sum += share(p, list[i].logit, top);
    for (uint32_t i = 0; i < n && (last == UINT32_MAX || !(passed > u * sum)); i++) {
        const double x = share(p, list[i].logit, top);
        if (!(x > 0)) continue;
        passed += x;
        last = list[i].token;
    }
    return last;
}

// How many of the n best have `part` of the sum together, and that in *kept; those without a share never count.
static uint32_t nucleus(const gyre_task_params *p, const gyre_candidate *best, uint32_t n, double part, double *kept)
{
    const bool all = !(p->top_p > 0 && p->top_p < 1);
    uint32_t count = 0;
    for (*kept = 0; count < n && (count == 0 || all || *kept < part); count++) {
        const double x = share(p, best[count].logit, best[0].logit);
        if (!(x > 0)) break;
        *kept += x;
    }
    return count;
}

// The one of them where the sum of the shares passes `at`.
static uint32_t draw(const gyre_task_params *p, const gyre_candidate *best, uint32_t count, double at)
{
    double passed = 0;
    uint32_t chosen = 0;
    for (; chosen + 1 < count; chosen++) {
        passed += share(p, best[chosen].logit, best[0].logit);
        if (passed > at) break;
    }
    return best[chosen].token;
}

// Draws from all tokens, in the order of the vocabulary.
static uint32_t draw_all(const gyre_task_params *p, const float *logits, uint32_t vocab, float top, double u)
{
    double sum = 0, passed = 0;
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < vocab; i++) sum += share(p, logits[i], top);
    for (uint32_t i = 0; i < vocab; i++) {
        const double x = share(p, logits[i], top);
        if (!(x > 0)) continue;
        passed += x;
        last = i;
        if (passed > u * sum) break;
    }
    return last;
}

// Draws from the top_k best, or from the fewest best that have top_p of all.
static uint32_t draw_best(struct gyre_chooser *c, const gyre_task_params *p, const float *logits, double u)
{
    const uint32_t limit = p->top_k ? GYRE_MIN(p->top_k, c->vocab) : c->vocab;
    const double part = p->top_p > 0 ? (double)p->top_p : 1;
    const gyre_candidate *best = c->candidate;
    for (uint32_t k = p->top_k ? limit : GYRE_MIN((uint32_t)FIRST_CANDIDATES, limit);; k = GYRE_MIN(8 * k, limit)) {
        const uint32_t n = gyre_sample_best(logits, c->vocab, k, c->candidate);
        double sum = 0, kept = 0;
        if (p->top_k) {
            for (uint32_t i = 0; i < n; i++) sum += share(p, best[i].logit, best[0].logit);
        } else {
            for (uint32_t i = 0; i < c->vocab; i++) sum += share(p, logits[i], best[0].logit);
        }
        const uint32_t count = nucleus(p, best, n, part * sum, &kept);
        if (count == n && n < limit && kept < part * sum) continue; // the rest lies beyond these candidates
        return draw(p, best, count, kept * u);
    }
}

static double draws(const gyre_task_params *p, size_t n)
{
    struct gyre_rng rng = gyre_rng_seed(p->seed + (uint64_t)p->stream * 0xD1B54A32D192ED03u);
    rng.state = gyre_rng_next(&rng) + n;
    return gyre_rng_unit(&rng);
}

uint32_t gyre_choose(struct gyre_chooser *c, const gyre_task_params *p, float *logits, const uint32_t *tokens, size_t n,
                     size_t n_prompt, const uint32_t *allowed)
{
    uint32_t best = UINT32_MAX;
    penalize(c, p, logits, tokens, n, n_prompt);
    for (uint32_t i = 0; i < p->n_bias; i++) logits[p->bias[i].token] += p->bias[i].bias;
    for (uint32_t i = 0; i < c->vocab; i++) {
        if ((allowed && !(allowed[i / 32] >> i % 32 & 1)) || isnan(logits[i])) logits[i] = -INFINITY;
        if (logits[i] > -INFINITY && (best == UINT32_MAX || logits[i] > logits[best])) best = i;
    }
    if (!(p->temperature > 0) || best == UINT32_MAX) return best;
    if (all_count(p)) return draw_all(p, logits, c->vocab, logits[best], draws(p, n));
    return draw_best(c, p, logits, draws(p, n));
}

// ---- from a list ----------------------------------------------------------------------------------------------------

bool gyre_choose_may_list(const gyre_task_params *p, uint32_t listed)
{
    if ((repeats(p) && p->repetition < 1) || p->presence < 0 || p->frequency < 0) return false;
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].bias > 0) return false;
    return !(p->temperature > 0) || p->min_p > 0 || (p->top_k > 0 && p->top_k <= listed);
}

static bool before(const gyre_candidate *a, const gyre_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static int by_token(const void *a, const void *b)
{
    const uint32_t x = ((const gyre_candidate *)a)->token, y = ((const gyre_candidate *)b)->token;
    return (x > y) - (x < y);
}

// A token's logit as gyre_choose would have it.
static float changed(const gyre_task_params *p, gyre_candidate x, const uint32_t *tokens, size_t n, size_t n_prompt)
{
    bool seen = false, said = false;
    for (size_t i = 0; repeats(p) && i < n && !seen; i++) seen = tokens[i] == x.token;
    if (seen) x.logit = repeated(p, x.logit);
    for (size_t i = n_prompt; (p->presence != 0 || p->frequency != 0) && i < n; i++) {
        if (tokens[i] != x.token) continue;
        x.logit -= p->frequency + (said ? 0 : p->presence);
        said = true;
    }
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].token == x.token) x.logit += p->bias[i].bias;
    return x.logit;
}

// Nothing makes a logit larger here, so a token that is not in the list has at most the last one's as it was: of what
// is allowed, those above it are the best there are, in this order.
bool gyre_choose_listed(struct gyre_chooser *c, const gyre_task_params *p, const gyre_candidate *best, uint32_t n,
                        const uint32_t *tokens, size_t n_tokens, size_t n_prompt, const uint32_t *allowed,
                        uint32_t *token)
{
    const float others = best[n - 1].logit;
    gyre_candidate *const sure = c->candidate;
    double sum = 0, kept = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (allowed && !(allowed[best[i].token / 32] >> best[i].token % 32 & 1)) continue;
        gyre_candidate x = {best[i].token, changed(p, best[i], tokens, n_tokens, n_prompt), 0};
        if (!(x.logit > others)) continue;
        uint32_t at = count++;
        for (; at > 0 && before(&x, &sure[at - 1]); at--) sure[at] = sure[at - 1];
        sure[at] = x;
    }
    if (count == 0) return false;
    *token = sure[0].token;
    if (!(p->temperature > 0)) return true;
    const bool rest_drops = !(share(p, others, sure[0].logit) > 0);
    if (p->top_k && count >= p->top_k) count = p->top_k;
    else if (!rest_drops) return false;
    if (all_count(p)) { // in the vocabulary's order, as draw_all
        const float top = sure[0].logit;
        qsort(sure, count, sizeof *sure, by_token);
        *token = draw_among(p, sure, count, top, draws(p, n_tokens));
        return true;
    }
    for (uint32_t i = 0; i < count; i++) sum += share(p, sure[i].logit, sure[0].logit);
    const double part = p->top_p > 0 ? (double)p->top_p : 1;
    const uint32_t in = nucleus(p, sure, count, part * sum, &kept);
    *token = draw(p, sure, in, kept * draws(p, n_tokens));
    return true;
}
