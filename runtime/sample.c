// See sample.h.
#include "runtime/sample.h"
#include "runtime/core/gumbel.h"

#include "runtime/util/base.h"

#include <math.h>

enum { MAX_CANDIDATES = 256, DEFAULT_WINDOW = 64 };

bool gyre_sample_needs_host(const gyre_generate_params *p)
{
    const bool repeats = p->repeat_penalty > 0 && p->repeat_penalty != 1.0f; // exactly 1 is none
    return p->matcher || repeats || p->presence_penalty != 0 || p->frequency_penalty != 0 || p->n_bias > 0 ||
           (p->min_p > 0 && p->sampling.temperature > 0);
}

// Keskar et al. 2019, section 4.1 (repeat: divide what is positive, multiply what is negative); presence and frequency
// are subtracted, once and per occurrence.
static void penalize(const gyre_generate_params *p, float *logits, uint32_t *seen, uint32_t vocab,
                     const uint32_t *tokens, size_t n)
{
    const size_t window = p->penalty_window ? p->penalty_window : DEFAULT_WINDOW, first = n > window ? n - window : 0;
    const float repeat = p->repeat_penalty > 0 ? p->repeat_penalty : 1.0f;
    for (size_t i = first; i < n; i++) {
        if (tokens[i] >= vocab) continue;
        uint32_t *const word = &seen[tokens[i] / 32], bit = 1u << tokens[i] % 32;
        float *x = &logits[tokens[i]];
        if (!(*word & bit)) *x = (*x > 0 ? *x / repeat : *x * repeat) - p->presence_penalty;
        *x -= p->frequency_penalty;
        *word |= bit;
    }
    for (size_t i = first; i < n; i++)
        if (tokens[i] < vocab) seen[tokens[i] / 32] = 0;
}

static bool before(const gyre_candidate *a, const gyre_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

// Restores a heap whose top is the worst candidate, from place `i` down.
static void sift(gyre_candidate *heap, uint32_t n, uint32_t i)
{
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&heap[child], &heap[child + 1])) child++;
        if (!before(&heap[i], &heap[child])) return;
        const gyre_candidate keep = heap[i];
        heap[i] = heap[child];
        heap[child] = keep;
    }
}

uint32_t gyre_sample_best(const float *logits, uint32_t vocab, uint32_t k, gyre_candidate *out)
{
    uint32_t n = 0;
    k = GYRE_MIN(k, vocab);
    for (uint32_t i = 0; i < vocab && k; i++) {
        const gyre_candidate c = {i, isnan(logits[i]) ? -INFINITY : logits[i], 0};
        if (n < k) {
            out[n++] = c;
            for (uint32_t p = n / 2; n == k && p-- > 0;) sift(out, n, p); // full: make it a heap
        } else if (before(&c, &out[0])) {
            out[0] = c;
            sift(out, n, 0);
        }
    }
    for (uint32_t left = n; left > 1;) { // the worst to the end, again and again
        const gyre_candidate worst = out[0];
        out[0] = out[--left];
        out[left] = worst;
        sift(out, left, 0);
    }
    return n;
}

// From all tokens, or all that are as likely as min-p asks: as the device draws, in one pass.
static uint32_t draw(const gyre_generate_params *p, const float *logits, uint32_t vocab, gyre_candidate best,
                     uint32_t stream)
{
    const float heat = p->sampling.temperature;
    uint32_t chosen = best.token;
    float most = best.logit + heat * gyre_gumbel(stream, best.token);
    for (uint32_t i = 0; i < vocab; i++) {
        const float raised = logits[i] + heat * gyre_gumbel(stream, i);
        if (!(raised > most || (raised == most && i < chosen))) continue;
        if (p->min_p > 0 && exp(((double)logits[i] - (double)best.logit) / (double)heat) < (double)p->min_p) continue;
        most = raised, chosen = i;
    }
    return chosen;
}

uint32_t gyre_sample(const gyre_generate_params *p, float *logits, uint32_t *seen, uint32_t vocab,
                     const uint32_t *tokens, size_t n)
{
    gyre_candidate best[MAX_CANDIDATES];
    double share[MAX_CANDIDATES], sum = 0, kept = 0, passed = 0;
    const gyre_sampling *s = &p->sampling;
    penalize(p, logits, seen, vocab, tokens, n);
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].token < vocab) logits[p->bias[i].token] += p->bias[i].bias;
    const bool cold = !(s->temperature > 0);
    const bool all = !cold && !s->top_k && !(s->top_p > 0 && s->top_p < 1);
    const uint32_t want = cold || all ? 1 : s->top_k ? GYRE_MIN(s->top_k, (uint32_t)MAX_CANDIDATES) : MAX_CANDIDATES;
    uint32_t count = gyre_sample_best(logits, vocab, want, best);
    if (cold || count == 0) return best[0].token;
    const uint32_t stream = gyre_gumbel_stream(s->seed, (uint32_t)(n - 1));
    if (all) return draw(p, logits, vocab, best[0], stream);

    uint32_t live = 0;
    for (; live < count; live++) { // min-p: as likely as so many of the best one's chance, at this temperature
        share[live] = exp(((double)best[live].logit - (double)best[0].logit) / (double)s->temperature);
        if (live && share[live] < (double)p->min_p) break;
        sum += share[live];
    }
    const double top_p = s->top_p > 0 ? (double)s->top_p : 1;
    for (count = 0; count < live && (count == 0 || top_p >= 1 || kept < top_p * sum); count++) kept += share[count];
    const double u = (stream >> 8) * 0x1p-24 * kept;
    uint32_t chosen = 0;
    for (; chosen + 1 < count; chosen++) {
        passed += share[chosen];
        if (passed > u) break;
    }
    return best[chosen].token;
}
