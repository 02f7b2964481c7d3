// A conversation that is too long, where the server runs with --context-shift.
#include "cli/serve/ask.h"
#include "cli/turns.h"

#include <stdlib.h>

// The rendering without the messages from `first` up to `start`. After a failure *out holds nothing.
static bool render_from(const struct serve *s, const json_t *variables, size_t first, size_t start,
                        struct serve_rendered *out, struct serve_error *e)
{
    const json_t *messages = json_object_get(variables, "messages");
    *out = (struct serve_rendered){0};
    json_t *some = json_copy((json_t *)variables), *list = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (i < first || i >= start) json_array_append(list, json_array_get(messages, i));
    const bool made = json_object_set_new(some, "messages", list) == 0;
    const bool done = made ? serve_ask_rendered(s, some, out, e) : serve_no_memory(e);
    json_decref(some);
    return done;
}

// The places where turns begin, the first behind the system's; NULL: out of memory.
static size_t *turns_of(const json_t *messages, size_t *count)
{
    const size_t n = json_array_size(messages);
    size_t *begin = malloc((n + 1) * sizeof *begin);
    *count = 0;
    for (size_t at = cli_turns_first(messages); begin && at < n; at = cli_turns_next(messages, at))
        begin[(*count)++] = at;
    return begin;
}

// The fewest turns go that leave no more than `most` tokens, found by halving, as tokens grow with turns; else all but
// the last one.
static bool shorten(const struct serve *s, const json_t *variables, size_t most, struct serve_rendered *out,
                    struct serve_error *e)
{
    size_t count, low = 0;
    size_t *begin = turns_of(json_object_get(variables, "messages"), &count);
    if (!begin) return serve_no_memory(e);
    bool done = true;
    for (size_t high = count ? count - 1 : 0; done && low < high;) {
        const size_t middle = low + (high - low) / 2;
        done = render_from(s, variables, begin[0], begin[middle], out, e);
        gyre_free(out->tokens);
        if (out->n <= most) high = middle;
        else low = middle + 1;
    }
    done = done && render_from(s, variables, count ? begin[0] : 0, count ? begin[low] : 0, out, e);
    free(begin);
    return done;
}

bool serve_ask_shorter(const struct serve *s, const json_t *variables, struct serve_rendered *prompt,
                       struct serve_job *job, struct serve_error *e)
{
    const size_t keep = cli_turns_keep(s->template, s->tokenizer, variables, prompt->tokens, prompt->n);
    const size_t leave = gyre_context_shift(prompt->n, keep, s->context);
    struct serve_rendered less;
    job->prompt[0].keep = (uint32_t)keep;
    if (!leave) return true;
    if (!shorten(s, variables, prompt->n - leave, &less, e)) return false;
    if (less.n >= s->context) { // not even the last turn fits: the refusal tells of the whole talk
        gyre_free(less.tokens);
        return true;
    }
    gyre_free(prompt->tokens);
    *prompt = less;
    return true;
}
