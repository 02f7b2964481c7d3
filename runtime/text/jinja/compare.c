// Equality, order and hashing as Python has them, and dicts on top. See value.h.
#include "runtime/text/jinja/value.h"

#include <math.h>
#include <string.h>

// ---- numbers ----------------------------------------------------------------------------------------

static jinja_int whole(jinja_value v) { return v.kind == JINJA_BOOL ? v.flag : v.integer; }

// -1, 0, 1; 2: not comparable (NaN). An integer and a float are compared exactly.
static int compare_numbers(jinja_value a, jinja_value b)
{
    if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT) return (whole(a) > whole(b)) - (whole(a) < whole(b));
    if (a.kind == JINJA_FLOAT && b.kind == JINJA_FLOAT)
        return isnan(a.real) || isnan(b.real) ? 2 : (a.real > b.real) - (a.real < b.real);
    if (a.kind == JINJA_FLOAT) {
        const int c = compare_numbers(b, a);
        return c == 2 ? 2 : -c;
    }
    const double f = b.real;
    if (isnan(f)) return 2;
    if (f > 1.7e38) return -1;
    if (f < -1.7e38) return 1;
    const jinja_int cut = (jinja_int)f;
    if (whole(a) != cut) return whole(a) < cut ? -1 : 1;
    const double rest = f - (double)cut;
    return rest > 0 ? -1 : rest < 0;
}

// ---- texts and lists --------------------------------------------------------------------------------

static int compare_texts(const struct jinja_string *a, const struct jinja_string *b)
{
    const uint64_t n = GYRE_MIN(a->bytes, b->bytes);
    const int c = n ? memcmp(a->data, b->data, n) : 0; // UTF-8 has the order of its code points
    return c ? (c > 0) - (c < 0) : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static bool equal_dicts(struct jinja_run *run, const struct jinja_dict *a, const struct jinja_dict *b)
{
    if (a->n != b->n) return false;
    for (uint64_t i = 0; i < a->n; i++) {
        const jinja_value *other = gyre_jinja_dict_get(run, b, a->entry[i].key);
        if (!other || !gyre_jinja_equal(run, a->entry[i].value, *other)) return false;
    }
    return true;
}

static bool equal_lists(struct jinja_run *run, const struct jinja_list *a, const struct jinja_list *b)
{
    bool same = a->n == b->n;
    for (uint64_t i = 0; same && i < a->n; i++) same = gyre_jinja_equal(run, a->item[i], b->item[i]);
    return same;
}

bool gyre_jinja_equal(struct jinja_run *run, jinja_value a, jinja_value b)
{
    gyre_jinja_work(run, 1);
    if (jinja_is_number(a) && jinja_is_number(b)) return compare_numbers(a, b) == 0;
    if (a.kind != b.kind) return false;
    bool same;
    switch (a.kind) {
    case JINJA_STRING:
        return compare_texts(a.string, b.string) == 0;
    case JINJA_NONE:
    case JINJA_UNDEFINED:
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
        gyre_jinja_deeper(run);
        same = equal_lists(run, a.list, b.list);
        run->depth--;
        return same;
    case JINJA_DICT:
        gyre_jinja_deeper(run);
        same = equal_dicts(run, a.dict, b.dict);
        run->depth--;
        return same;
    case JINJA_FUNCTION:
        return a.function->builtin == b.function->builtin && gyre_jinja_equal(run, a.function->self, b.function->self);
    default:
        return a.list == b.list; // the same object
    }
}

int gyre_jinja_order(struct jinja_run *run, jinja_value a, jinja_value b)
{
    gyre_jinja_work(run, 1);
    if (a.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, a);
    if (b.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, b);
    if (jinja_is_number(a) && jinja_is_number(b)) return compare_numbers(a, b);
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) return compare_texts(a.string, b.string);
    if (jinja_is_list(a) && a.kind == b.kind) {
        gyre_jinja_deeper(run);
        int c = 0;
        for (uint64_t i = 0; i < a.list->n && i < b.list->n && !c; i++)
            if (!gyre_jinja_equal(run, a.list->item[i], b.list->item[i]))
                c = gyre_jinja_order(run, a.list->item[i], b.list->item[i]);
        run->depth--;
        return c ? c : (a.list->n > b.list->n) - (a.list->n < b.list->n);
    }
    gyre_jinja_raise(run, "'<' not supported between instances of '%s' and '%s'", gyre_jinja_type(a),
                     gyre_jinja_type(b));
}

// ---- dicts ------------------------------------------------------------------------------------------

bool gyre_jinja_hashable(jinja_value v)
{
    if (v.kind == JINJA_TUPLE) {
        bool all = true;
        for (uint64_t i = 0; i < v.list->n && all; i++) all = gyre_jinja_hashable(v.list->item[i]);
        return all;
    }
    return v.kind != JINJA_LIST && v.kind != JINJA_DICT && v.kind != JINJA_VIEW;
}

static uint64_t mix(uint64_t h, const void *data, uint64_t bytes)
{
    const unsigned char *p = data; // FNV-1a
    for (uint64_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}

// Equal values have equal hashes: a whole float is hashed as the integer.
static uint64_t hash(jinja_value v)
{
    uint64_t h = 0xCBF29CE484222325u;
    if (v.kind == JINJA_STRING) return mix(h, v.string->data, v.string->bytes);
    if (jinja_is_number(v)) {
        const double f = gyre_jinja_double(v);
        return mix(h, &(double){f + 0.0}, sizeof f);
    }
    if (v.kind == JINJA_TUPLE)
        for (uint64_t i = 0; i < v.list->n; i++) h = h * 31 + hash(v.list->item[i]);
    return mix(h, &v.kind, sizeof v.kind);
}

jinja_value gyre_jinja_dict(struct jinja_run *run)
{
    return (jinja_value){.kind = JINJA_DICT, .dict = gyre_jinja_alloc(run, 1, sizeof(struct jinja_dict))};
}

enum { WITHOUT_SLOTS = 8 };

static bool same_key(struct jinja_run *run, const struct jinja_entry *entry, jinja_value key, uint64_t h)
{
    return entry->hash == h && gyre_jinja_equal(run, entry->key, key);
}

// The entry of a key, or n.
static uint64_t find(struct jinja_run *run, const struct jinja_dict *d, jinja_value key, uint64_t h)
{
    if (!d->slots) {
        for (uint64_t i = 0; i < d->n; i++)
            if (same_key(run, &d->entry[i], key, h)) return i;
        return d->n;
    }
    uint64_t probes = 0;
    for (uint64_t at = h & d->mask; d->slots[at]; at = (at + 1) & d->mask) {
        const uint64_t i = d->slots[at] - 1;
        if (++probes % 16 == 0) gyre_jinja_work(run, 1); // keys may have been made to collide
        if (same_key(run, &d->entry[i], key, h)) return i;
    }
    return d->n;
}

static void enter(struct jinja_run *run, struct jinja_dict *d, uint64_t i)
{
    uint64_t at = d->entry[i].hash & d->mask, probes = 0;
    for (; d->slots[at]; at = (at + 1) & d->mask)
        if (++probes % 16 == 0) gyre_jinja_work(run, 1);
    d->slots[at] = (uint32_t)i + 1;
}

static void grow(struct jinja_run *run, struct jinja_dict *d)
{
    d->cap = d->cap ? 2 * d->cap : 4;
    struct jinja_entry *grown = gyre_jinja_alloc(run, d->cap, sizeof *grown);
    if (d->n) memcpy(grown, d->entry, d->n * sizeof *grown);
    d->entry = grown;
    if (d->cap <= WITHOUT_SLOTS) return;
    if (d->cap > UINT32_MAX / 4) gyre_jinja_limit(run, "a dict's size");
    d->mask = 4 * d->cap - 1; // cap is a power of two
    d->slots = gyre_jinja_alloc(run, d->mask + 1, sizeof *d->slots);
    for (uint64_t i = 0; i < d->n; i++) enter(run, d, i);
}

void gyre_jinja_dict_put(struct jinja_run *run, struct jinja_dict *d, jinja_value key, jinja_value value)
{
    if (!gyre_jinja_hashable(key)) gyre_jinja_raise(run, "unhashable type: '%s'", gyre_jinja_type(key));
    const uint64_t h = hash(key), i = find(run, d, key, h);
    if (i < d->n) {
        d->entry[i].value = value;
        return;
    }
    if (d->n == d->cap) grow(run, d);
    d->entry[d->n] = (struct jinja_entry){key, value, h};
    if (d->slots) enter(run, d, d->n);
    d->n++;
}

jinja_value *gyre_jinja_dict_get(struct jinja_run *run, const struct jinja_dict *d, jinja_value key)
{
    if (!gyre_jinja_hashable(key)) gyre_jinja_raise(run, "unhashable type: '%s'", gyre_jinja_type(key));
    const uint64_t i = find(run, d, key, hash(key));
    return i < d->n ? &d->entry[i].value : NULL;
}

jinja_value *gyre_jinja_dict_name(const struct jinja_dict *d, const char *name)
{
    const uint64_t bytes = strlen(name), h = mix(0xCBF29CE484222325u, name, bytes);
    for (uint64_t i = 0; i < d->n && !d->slots; i++) {
        const struct jinja_entry *e = &d->entry[i];
        if (e->hash == h && e->key.kind == JINJA_STRING && gyre_jinja_is(e->key.string, name))
            return &d->entry[i].value;
    }
    for (uint64_t at = h & d->mask; d->slots && d->slots[at]; at = (at + 1) & d->mask) {
        struct jinja_entry *e = &d->entry[d->slots[at] - 1];
        if (e->hash == h && e->key.kind == JINJA_STRING && gyre_jinja_is(e->key.string, name)) return &e->value;
    }
    return NULL;
}
