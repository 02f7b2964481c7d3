// See choose.h.
#include "runtime/choose.h"
#include "runtime/core/gumbel.h"
#include "runtime/sample.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <stdlib.h>

enum { FIRST_CANDIDATES = 256 };

bool gyre_chooser_init(struct gyre_chooser *c, uint32_t vocab)
{
    *c = (struct gyre_chooser){vocab, malloc(vocab * sizeof *c->candidate), calloc(vocab / 32 + 1, sizeof *c->seen),
                               calloc(vocab, sizeof *c->said)};
    if (c->candidate && c->seen && c->said) return true;
    gyre_chooser_free(c);
    return false;
}

void gyre_chooser_free(struct gyre_chooser *c)
{
    free(c->candidate);
    free(c->seen);
    free(c->said);
    *c = (struct gyre_chooser){0};
}

static bool repeats(const gyre_task_params *p) { return p->repetition > 0 && p->repetition != 1.0f; } // 1 is none

static bool cold(const gyre_task_params *p) { return !(p->temperature > 0); }

// Is a token drawn from all of them? Else from the best of an order.
static bool all_count(const gyre_task_params *p) { return p->top_k == 0 && !(p->top_p > 0 && p->top_p < 1); }

bool gyre_choose_is_plain(const gyre_task_params *p)
{
    const bool as_they_are = !repeats(p) && p->presence == 0 && p->frequency == 0 && p->n_bias == 0 && !p->allow;
    return as_they_are && (cold(p) || (all_count(p) && !(p->min_p > 0)));
}

bool gyre_choose_is_greedy(const gyre_task_params *p) { return cold(p) && gyre_choose_is_plain(p); }

// One number of both that tell draws apart.
static struct gyre_rng draws_of(const gyre_task_params *p)
{
    return gyre_rng_seed(p->seed + (uint64_t)p->stream * 0xD1B54A32D192ED03u);
}

gyre_sampling gyre_choose_sampling(const gyre_task_params *p)
{
    struct gyre_rng rng = draws_of(p);
    if (cold(p)) return (gyre_sampling){0};
    return (gyre_sampling){.temperature = p->temperature, .seed = (uint32_t)(gyre_rng_next(&rng) >> 32)};
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

// The draw from all tokens, as the device makes it (gumbel.h): the largest of those that are offered, raised at random.
struct raised {
    uint32_t stream, token;
    float top, most; // the best logit of all; the largest so far
};

static struct raised raise_none(const gyre_task_params *p, size_t n_tokens, float top)
{
    return (struct raised){gyre_gumbel_stream(gyre_choose_sampling(p).seed, (uint32_t)(n_tokens - 1)), UINT32_MAX, top,
                           -INFINITY};
}

static void offer(const gyre_task_params *p, struct raised *r, uint32_t token, float logit)
{
    if (!(logit > -INFINITY)) return;
    const float x = logit + p->temperature * gyre_gumbel(r->stream, token);
    if (!(x > r->most || (x == r->most && token < r->token))) return;
    if (p->min_p > 0 && !(share(p, logit, r->top) > 0)) return;
    r->most = x;
    r->token = token;
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
    struct gyre_rng rng = draws_of(p);
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
    if (cold(p) || best == UINT32_MAX) return best;
    if (!all_count(p)) return draw_best(c, p, logits, draws(p, n));
    struct raised raised = raise_none(p, n, logits[best]);
    for (uint32_t i = 0; i < c->vocab; i++) offer(p, &raised, i, logits[i]);
    return raised.token;
}

// ---- from a list ----------------------------------------------------------------------------------------------------

bool gyre_choose_may_list(const gyre_task_params *p, uint32_t listed)
{
    if ((repeats(p) && p->repetition < 1) || p->presence < 0 || p->frequency < 0) return false;
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].bias > 0) return false;
    if (cold(p) || p->min_p > 0) return true;
    return p->top_k ? p->top_k <= listed : !all_count(p);
}

static bool before(const gyre_candidate *a, const gyre_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

// Makes the logits of a list what penalize and bias make of them, in one walk through the text.
static void change(struct gyre_chooser *c, const gyre_task_params *p, gyre_candidate *list, uint32_t n,
                   const uint32_t *tokens, size_t n_tokens, size_t n_prompt)
{
    const uint32_t prompt_bit = 1u << 31; // of `said`: it is in the prompt; the rest: how often it was said
    const bool answers = p->presence != 0 || p->frequency != 0;
    for (uint32_t i = 0; i < n; i++) mark(c->seen, list[i].token);
    for (size_t i = repeats(p) ? 0 : n_prompt; i < n_tokens && (repeats(p) || answers); i++) {
        const uint32_t token = tokens[i];
        if (!(c->seen[token / 32] >> token % 32 & 1)) continue;
        if (i < n_prompt) c->said[token] |= prompt_bit;
        else c->said[token]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        gyre_candidate *const x = &list[i];
        if (repeats(p) && c->said[x->token]) x->logit = repeated(p, x->logit);
        const uint32_t times = answers ? c->said[x->token] & ~prompt_bit : 0;
        for (uint32_t k = 0; k < times; k++) x->logit -= p->frequency + (k ? 0 : p->presence);
        for (uint32_t k = 0; k < p->n_bias; k++)
            if (p->bias[k].token == x->token) x->logit += p->bias[k].bias;
        c->said[x->token] = 0;
    }
    for (uint32_t i = 0; i < n; i++) c->seen[list[i].token / 32] = 0;
}

bool gyre_choose_weighs(const gyre_task_params *p) { return !cold(p) && !p->top_k && !all_count(p); }

// Of what a list tells of the tokens it does not decide on, in shares of the best one that is left: at least, at most.
struct rest {
    double least, most;
};

// Draws from the fewest best that have top_p of all, where `rest` comes to what these have: false where it matters how
// much. The more it is, the further behind lies what is drawn: where the least and the most of it draw the same, so
// does what it is. The sum over all tokens has another order than this one: so much beside what is computed.
static bool draw_sure(const gyre_task_params *p, const gyre_candidate *sure, uint32_t count, struct rest rest, double u,
                      uint32_t *token)
{
    const double part = p->top_p > 0 ? (double)p->top_p : 1, close = 1e-9;
    double sum = 0, least, most;
    for (uint32_t i = 0; i < count; i++) sum += share(p, sure[i].logit, sure[0].logit);
    if (p->top_k) { // of all that are left, in the same order there as here
        const uint32_t in = nucleus(p, sure, count, part * sum, &least);
        *token = draw(p, sure, in, least * u);
        return true;
    }
    const uint32_t fewest = nucleus(p, sure, count, part * (sum + rest.least) * (1 - close), &least);
    const uint32_t in = nucleus(p, sure, count, part * (sum + rest.most) * (1 + close), &most);
    if (rest.most > 0 && most < part * (sum + rest.most)) return false; // some of the others may be in it
    *token = draw(p, sure, in, most * u);
    return draw(p, sure, fewest, least * u) == *token;
}

// The shares of all that is not sure: of the list what is allowed and not sure (`unsure`, its sum), and what is not in
// it. Those have at most what the list's last one has as it was; and together what all have less the list's, if none
// changed (some were less likely made, or are not allowed: then up to that).
static struct rest rest_of(const gyre_task_params *p, const struct gyre_listed *list, float top, uint32_t n_others,
                           double unsure, bool changed)
{
    const double off = 1e-5, each = share(p, list->best[list->n - 1].logit, top);
    struct rest rest = {unsure, unsure + each * n_others};
    if (!(list->mass >= 1) || !(each > 0)) return rest; // no number; or min-p leaves none
    double seen = 0;
    for (uint32_t i = 0; i < list->n; i++)
        seen += exp(((double)list->best[i].logit - (double)list->best[0].logit) / (double)p->temperature);
    const double scale = exp(((double)list->best[0].logit - (double)top) / (double)p->temperature);
    const double others = (list->mass - seen) * scale, by = off * list->mass * scale;
    if (!changed && p->min_p <= 0) rest.least += fmax(others - by, 0);
    rest.most = fmin(rest.most, unsure + fmax(others, 0) + by);
    return rest;
}

// Nothing makes a logit larger here, so a token that is not in the list has at most the last one's as it was: of what
// is allowed, those above it are the best there are, in this order.
bool gyre_choose_listed(struct gyre_chooser *c, const gyre_task_params *p, const struct gyre_listed *list,
                        const uint32_t *tokens, size_t n_tokens, size_t n_prompt, const uint32_t *allowed,
                        uint32_t *token)
{
    const float others = list->best[list->n - 1].logit;
    gyre_candidate *const sure = c->candidate;
    uint32_t given = 0, count = 0;
    for (uint32_t i = 0; i < list->n; i++) {
        const gyre_candidate x = list->best[i];
        if (!allowed || allowed[x.token / 32] >> x.token % 32 & 1) sure[given++] = x;
    }
    change(c, p, sure, given, tokens, n_tokens, n_prompt);
    float top = -INFINITY;
    for (uint32_t i = 0; i < given; i++) top = sure[i].logit > top ? sure[i].logit : top;
    if (!(top > others)) return false;
    double unsure = 0;
    for (uint32_t i = 0; i < given; i++) {
        const gyre_candidate x = sure[i];
        if (!(x.logit > others)) {
            unsure += cold(p) ? 0 : share(p, x.logit, top);
            continue;
        }
        uint32_t at = count++;
        for (; at > 0 && before(&x, &sure[at - 1]); at--) sure[at] = sure[at - 1];
        sure[at] = x;
    }
    *token = sure[0].token;
    if (cold(p)) return true;
    const bool changed = allowed || repeats(p) || p->presence != 0 || p->frequency != 0 || p->n_bias > 0;
    struct rest rest = rest_of(p, list, top, c->vocab - list->n, unsure, changed);
    if (p->top_k && count >= p->top_k) {
        count = p->top_k;
        rest = (struct rest){0};
    }
    if (rest.most > 0 && (p->top_k || all_count(p))) return false;
    if (all_count(p)) {
        struct raised raised = raise_none(p, n_tokens, top);
        for (uint32_t i = 0; i < count; i++) offer(p, &raised, sure[i].token, sure[i].logit);
        *token = raised.token;
        return true;
    }
    return draw_sure(p, sure, count, rest, draws(p, n_tokens), token);
}
