// What lies inside of a value: attributes, items, slices, membership. See value.h.
#include "runtime/text/jinja/value.h"

#include <string.h>

// ---- going through ----------------------------------------------------------------------------------

static struct jinja_list *characters(struct jinja_run *run, const struct jinja_string *s)
{
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, s->chars);
    uint64_t at = 0;
    for (uint64_t i = 0; i < s->chars; i++) {
        uint32_t n;
        gyre_jinja_char(s, at, &n);
        out.list->item[i] = gyre_jinja_markup(run, gyre_jinja_part(run, s, at, at + n), false);
        at += n;
    }
    return out.list;
}

static struct jinja_list *keys(struct jinja_run *run, const struct jinja_dict *d)
{
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, d->n);
    for (uint64_t i = 0; i < d->n; i++) out.list->item[i] = d->entry[i].key;
    return out.list;
}

struct jinja_list *gyre_jinja_items(struct jinja_run *run, jinja_value v)
{
    struct jinja_list *rest;
    switch (v.kind) {
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        return v.list;
    case JINJA_STRING:
        return characters(run, v.string);
    case JINJA_DICT:
        return keys(run, v.dict);
    case JINJA_UNDEFINED:
        return gyre_jinja_list(run, JINJA_LIST, 0).list;
    case JINJA_GENERATOR:
        rest = gyre_jinja_alloc(run, 1, sizeof *rest);
        rest->n = v.generator->list.n - v.generator->next;
        if (rest->n) rest->item = v.generator->list.item + v.generator->next;
        v.generator->next = v.generator->list.n;
        return rest;
    default:
        gyre_jinja_raise(run, "'%s' object is not iterable", gyre_jinja_type(v));
    }
}

bool gyre_jinja_length(jinja_value v, uint64_t *n)
{
    switch (v.kind) {
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        *n = v.list->n;
        return true;
    case JINJA_STRING:
        *n = v.string->chars;
        return true;
    case JINJA_DICT:
        *n = v.dict->n;
        return true;
    case JINJA_UNDEFINED:
        *n = 0;
        return true;
    case JINJA_LOOP:
        *n = v.loop->list->n;
        return true;
    default:
        return false;
    }
}

bool gyre_jinja_contains(struct jinja_run *run, jinja_value all, jinja_value what)
{
    if (all.kind == JINJA_DICT) return gyre_jinja_dict_get(run, all.dict, what) != NULL;
    if (all.kind == JINJA_STRING) {
        if (what.kind != JINJA_STRING)
            gyre_jinja_raise(run, "'in <string>' requires string as left operand, not %s", gyre_jinja_type(what));
        gyre_jinja_work(run, all.string->bytes / 64);
        return gyre_jinja_search(all.string, 0, all.string->bytes, what.string) != UINT64_MAX;
    }
    const struct jinja_list *list = gyre_jinja_items(run, all);
    for (uint64_t i = 0; i < list->n; i++)
        if (gyre_jinja_equal(run, list->item[i], what)) return true;
    return false;
}

// ---- attributes -------------------------------------------------------------------------------------

static jinja_value count(uint64_t n) { return jinja_number((jinja_int)n); }

static bool loop_attribute(struct jinja_run *run, const struct jinja_loop *l, const char *name, jinja_value *out)
{
    const uint64_t n = l->list->n;
    if (!strcmp(name, "index")) *out = count(l->at + 1);
    else if (!strcmp(name, "index0")) *out = count(l->at);
    else if (!strcmp(name, "revindex")) *out = count(n - l->at);
    else if (!strcmp(name, "revindex0")) *out = count(n - l->at - 1);
    else if (!strcmp(name, "first")) *out = jinja_bool(l->at == 0);
    else if (!strcmp(name, "last")) *out = jinja_bool(l->at + 1 == n);
    else if (!strcmp(name, "length")) *out = count(n);
    else if (!strcmp(name, "depth")) *out = count(l->depth + 1);
    else if (!strcmp(name, "depth0")) *out = count(l->depth);
    else if (!strcmp(name, "previtem"))
        *out = l->at ? l->list->item[l->at - 1] : gyre_jinja_undefined(run, "there is no previous item");
    else if (!strcmp(name, "nextitem"))
        *out = l->at + 1 < n ? l->list->item[l->at + 1] : gyre_jinja_undefined(run, "there is no next item");
    else return false;
    return true;
}

static bool macro_attribute(struct jinja_run *run, const struct jinja_macro *m, const char *name, jinja_value *out)
{
    if (!strcmp(name, "name")) *out = gyre_jinja_text(run, m->name);
    else if (!strcmp(name, "arguments")) *out = m->arguments;
    else if (!strcmp(name, "catch_kwargs")) *out = jinja_bool(m->catches_kwargs);
    else if (!strcmp(name, "catch_varargs")) *out = jinja_bool(m->catches_varargs);
    else if (!strcmp(name, "caller")) *out = jinja_bool(m->calls);
    else return false;
    return true;
}

// What Python's getattr would give.
bool gyre_jinja_own_attribute(struct jinja_run *run, jinja_value v, const char *name, jinja_value *out)
{
    const jinja_value *found;
    bool unsafe = false;
    switch (v.kind) {
    case JINJA_LOOP:
        if (loop_attribute(run, v.loop, name, out)) return true;
        break;
    case JINJA_MACRO:
        if (macro_attribute(run, v.macro, name, out)) return true;
        break;
    case JINJA_NAMESPACE:
        found = gyre_jinja_dict_name(&v.names->dict, name);
        if (found) *out = *found;
        return found != NULL;
    case JINJA_TUPLE: // of groupby
        if (v.list->view && (!strcmp(name, "grouper") || !strcmp(name, "list"))) {
            *out = v.list->item[*name == 'l'];
            return true;
        }
        break;
    case JINJA_CYCLER:
        if (!strcmp(name, "current")) {
            *out = v.cycler->list.item[v.cycler->at];
            return true;
        }
        break;
    default:
        break;
    }
    if (!run->method(run, v, name, out, &unsafe)) return false;
    if (unsafe)
        *out =
            gyre_jinja_undefined(run, "access to attribute '%s' of '%s' object is unsafe.", name, gyre_jinja_type(v));
    return true;
}

static const char *object(jinja_value v, char out[64])
{
    out[0] = 0;
    strcat(strcat(out, v.kind == JINJA_NONE ? "None" : gyre_jinja_type(v)), v.kind == JINJA_NONE ? "" : " object");
    return out;
}

static jinja_value no_attribute(struct jinja_run *run, jinja_value v, const char *name)
{
    char what[64];
    return gyre_jinja_undefined(run, "'%s' has no attribute '%s'", object(v, what), name);
}

jinja_value gyre_jinja_attribute(struct jinja_run *run, jinja_value v, const char *name)
{
    jinja_value out;
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, v);
    if (gyre_jinja_own_attribute(run, v, name, &out)) return out;
    const jinja_value *found = v.kind == JINJA_DICT ? gyre_jinja_dict_name(v.dict, name) : NULL;
    return found ? *found : no_attribute(run, v, name);
}

// ---- items ------------------------------------------------------------------------------------------

static bool item_at(struct jinja_run *run, jinja_value v, int64_t i, jinja_value *out)
{
    uint64_t n;
    const bool text = v.kind == JINJA_STRING;
    if ((!text && !jinja_is_list(v) && v.kind != JINJA_RANGE) || !gyre_jinja_length(v, &n)) return false;
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n) return false;
    if (!text) {
        *out = v.list->item[i];
        return true;
    }
    uint32_t bytes;
    const uint64_t at = gyre_jinja_byte_at(v.string, (uint64_t)i);
    gyre_jinja_work(run, at / 64);
    gyre_jinja_char(v.string, at, &bytes);
    *out = gyre_jinja_part(run, v.string, at, at + bytes);
    return true;
}

jinja_value gyre_jinja_subscript(struct jinja_run *run, jinja_value v, jinja_value key)
{
    jinja_value out;
    char what[64];
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, v);
    if (v.kind == JINJA_DICT && gyre_jinja_hashable(key)) {
        const jinja_value *found = gyre_jinja_dict_get(run, v.dict, key);
        if (found) return *found;
    }
    if ((key.kind == JINJA_INT || key.kind == JINJA_BOOL) &&
        item_at(run, v, gyre_jinja_index(run, key, "an index"), &out))
        return out;
    if (key.kind == JINJA_STRING) {
        const char *name = gyre_jinja_c_text(run, key.string);
        return gyre_jinja_own_attribute(run, v, name, &out) ? out : no_attribute(run, v, name);
    }
    struct jinja_build shown = {.run = run};
    gyre_jinja_put_repr(&shown, key);
    const jinja_value text = gyre_jinja_built(&shown);
    return gyre_jinja_undefined(run, "%s has no element %.*s", object(v, what), (int)GYRE_MIN(text.string->bytes, 60u),
                                text.string->data);
}

// ---- slices -----------------------------------------------------------------------------------------

static bool given(jinja_value v) { return v.kind != JINJA_MISSING && v.kind != JINJA_NONE; }

// An end of a slice: counted from the end where negative, within low..high.
static int64_t end_of(struct jinja_run *run, jinja_value v, int64_t n, int64_t low, int64_t high, int64_t otherwise)
{
    if (!given(v)) return otherwise;
    int64_t at = gyre_jinja_index(run, v, "a slice's end");
    if (at < 0) at += n;
    return at < low ? low : at > high ? high : at;
}

void gyre_jinja_bounds(struct jinja_run *run, jinja_value from, jinja_value to, uint64_t n, uint64_t *begin,
                       uint64_t *end)
{
    const int64_t all = (int64_t)n;
    *begin = (uint64_t)end_of(run, from, all, 0, all, 0);
    *end = (uint64_t)end_of(run, to, all, 0, all, all);
}

static jinja_value stepped_text(struct jinja_run *run, const struct jinja_string *s, int64_t at, uint64_t count_,
                                int64_t step)
{
    struct jinja_build b = {.run = run};
    const struct jinja_list *all = characters(run, s);
    for (uint64_t i = 0; i < count_; i++, at += step) gyre_jinja_put_string(&b, all->item[at].string);
    return gyre_jinja_markup(run, gyre_jinja_built(&b), s->markup);
}

jinja_value gyre_jinja_slice(struct jinja_run *run, jinja_value v, jinja_value from, jinja_value to, jinja_value by)
{
    uint64_t length;
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, v);
    if (v.kind != JINJA_STRING && !jinja_is_list(v) && v.kind != JINJA_RANGE)
        gyre_jinja_raise(run, v.kind == JINJA_DICT ? "unhashable type: 'slice'" : "'%s' object is not subscriptable",
                         gyre_jinja_type(v));
    gyre_jinja_length(v, &length);
    int64_t step = given(by) ? gyre_jinja_index(run, by, "a slice's step") : 1;
    if (step == 0) gyre_jinja_raise(run, "slice step cannot be zero");
    const int64_t n = (int64_t)length;
    if (step > n + 1) step = n + 1; // beyond the end either way, and no overflow
    if (step < -n - 1) step = -n - 1;
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    const int64_t begin = end_of(run, from, n, low, high, step > 0 ? 0 : n - 1),
                  end = end_of(run, to, n, low, high, step > 0 ? n : -1);
    const int64_t span = step > 0 ? end - begin : begin - end, pace = step > 0 ? step : -step;
    const uint64_t items = span > 0 ? (uint64_t)((span + pace - 1) / pace) : 0;
    if (v.kind == JINJA_STRING && step == 1)
        return gyre_jinja_part(run, v.string, gyre_jinja_byte_at(v.string, (uint64_t)begin),
                               items ? gyre_jinja_byte_at(v.string, (uint64_t)end) : 0);
    if (v.kind == JINJA_STRING) return stepped_text(run, v.string, begin, items, step);
    const jinja_value out = gyre_jinja_list(run, v.kind == JINJA_RANGE ? JINJA_LIST : v.kind, items);
    for (uint64_t i = 0; i < items; i++) out.list->item[i] = v.list->item[begin + (int64_t)i * step];
    return out;
}
