// The functions that a template finds there. See value.h.
#include "runtime/text/jinja/value.h"

#include <string.h>
#include <time.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

static jinja_value range(ARGS)
{
    UNUSED;
    int64_t part[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++)
        if (given[i].kind != JINJA_MISSING) part[i] = gyre_jinja_index(run, given[i], "an argument of range");
    if (given[1].kind == JINJA_MISSING) part[1] = part[0], part[0] = 0;
    if (part[2] == 0) gyre_jinja_raise(run, "range() arg 3 must not be zero");
    const jinja_int span = part[2] > 0 ? (jinja_int)part[1] - part[0] : (jinja_int)part[0] - part[1];
    const jinja_int step = part[2] > 0 ? part[2] : -(jinja_int)part[2];
    const jinja_int n = span > 0 ? (span + step - 1) / step : 0;
    if (n > JINJA_MAX_RANGE)
        gyre_jinja_raise(run, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", JINJA_MAX_RANGE);
    const jinja_value out = gyre_jinja_list(run, JINJA_RANGE, (uint64_t)n + 3); // what it was made of is kept behind
    for (jinja_int i = 0; i < n; i++) out.list->item[i] = jinja_number(part[0] + i * part[2]);
    for (int i = 0; i < 3; i++) out.list->item[n + i] = jinja_number(part[i]);
    out.list->n = (uint64_t)n;
    return out;
}

// dict(mapping or pairs, name=value, ...).
static jinja_value dict(ARGS)
{
    UNUSED;
    const jinja_value out = gyre_jinja_dict(run);
    if (all->n > 1) gyre_jinja_raise(run, "dict expected at most 1 argument, got %llu", (unsigned long long)all->n);
    if (all->n && all->item[0].kind == JINJA_DICT) {
        const struct jinja_dict *d = all->item[0].dict;
        for (uint64_t i = 0; i < d->n; i++) gyre_jinja_dict_put(run, out.dict, d->entry[i].key, d->entry[i].value);
    } else if (all->n) {
        const struct jinja_list *pairs = gyre_jinja_items(run, all->item[0]);
        for (uint64_t i = 0; i < pairs->n; i++) {
            const struct jinja_list *pair = gyre_jinja_items(run, pairs->item[i]);
            if (pair->n != 2) gyre_jinja_raise(run, "dict needs pairs");
            gyre_jinja_dict_put(run, out.dict, pair->item[0], pair->item[1]);
        }
    }
    for (uint64_t i = 0; i < all->n_keywords; i++)
        gyre_jinja_dict_put(run, out.dict, gyre_jinja_text(run, all->keyword[i].name), all->keyword[i].value);
    return out;
}

static jinja_value namespace_(ARGS)
{
    UNUSED;
    struct jinja_namespace *names = gyre_jinja_alloc(run, 1, sizeof *names);
    names->dict = *dict(run, self, given, all).dict;
    for (uint64_t i = 0; i < names->dict.n; i++) {
        const jinja_value key = names->dict.entry[i].key;
        if (key.kind == JINJA_STRING && key.string->bytes && key.string->data[0] == '_')
            gyre_jinja_raise(run, "a namespace has no attributes that begin with an underscore, as '%.40s' does",
                             gyre_jinja_c_text(run, key.string));
    }
    return (jinja_value){.kind = JINJA_NAMESPACE, .names = names};
}

static jinja_value cycler(ARGS)
{
    UNUSED;
    if (!all->n) gyre_jinja_raise(run, "at least one item has to be provided");
    struct jinja_cycler *c = gyre_jinja_alloc(run, 1, sizeof *c);
    c->list = (struct jinja_list){.item = all->item, .n = all->n};
    return (jinja_value){.kind = JINJA_CYCLER, .cycler = c};
}

static jinja_value joiner(ARGS)
{
    UNUSED;
    struct jinja_joiner *j = gyre_jinja_alloc(run, 1, sizeof *j);
    j->separator = given[0].kind == JINJA_MISSING ? gyre_jinja_text(run, ", ") : given[0];
    return (jinja_value){.kind = JINJA_JOINER, .joiner = j};
}

static jinja_value raise_exception(ARGS)
{
    UNUSED;
    const jinja_value text = gyre_jinja_str(run, given[0]);
    gyre_jinja_raise(run, "%s", gyre_jinja_c_text(run, text.string));
}

static jinja_value strftime_now(ARGS)
{
    UNUSED;
    char out[1024];
    struct tm parts;
    const time_t when = run->now < 0 ? time(NULL) : (time_t)run->now;
    if (given[0].kind != JINJA_STRING)
        gyre_jinja_raise(run, "strftime_now needs a str, not %s", gyre_jinja_type(given[0]));
    const char *format = gyre_jinja_c_text(run, given[0].string);
    if (!(run->now < 0 ? localtime_r(&when, &parts) : gmtime_r(&when, &parts)))
        gyre_jinja_raise(run, "the time is out of range");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    const size_t n = strftime(out, sizeof out, format, &parts); // reads only `parts`, whatever the format says
#pragma GCC diagnostic pop
    if (n == 0 && *format && strlen(format) > sizeof out / 8) gyre_jinja_limit(run, "1024 bytes of a time");
    out[n] = 0;
    return gyre_jinja_text(run, out);
}

const struct jinja_builtin gyre_jinja_globals[] = {
    {"range", range, "start,stop,step", 1},
    {"dict", dict, "*", 0},
    {"namespace", namespace_, "*", 0},
    {"cycler", cycler, "*", 0},
    {"joiner", joiner, "sep", 0},
    {"raise_exception", raise_exception, "message", 1},
    {"strftime_now", strftime_now, "format", 1},
};
const uint64_t gyre_jinja_n_globals = GYRE_COUNT(gyre_jinja_globals);
