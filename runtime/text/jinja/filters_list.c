// Filters over what can be gone through. See value.h.
#include "runtime/text/jinja/value.h"

#include <string.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

static bool has(jinja_value v) { return v.kind != JINJA_MISSING && v.kind != JINJA_NONE; }
static bool asked(jinja_value v, bool otherwise) { return v.kind == JINJA_MISSING ? otherwise : gyre_jinja_true(v); }

// What `attribute` names in an item: an index, or names and indices divided by dots. MISSING: the item itself.
static jinja_value dig(struct jinja_run *run, jinja_value item, jinja_value attribute, jinja_value otherwise)
{
    if (!has(attribute)) return item;
    if (attribute.kind != JINJA_STRING) {
        item = gyre_jinja_subscript(run, item, attribute);
    } else {
        const struct jinja_string *s = attribute.string, dot = {.data = ".", .bytes = 1};
        for (uint64_t from = 0; from <= s->bytes;) {
            const uint64_t found = gyre_jinja_search(s, from, s->bytes, &dot),
                           to = found == UINT64_MAX ? s->bytes : found;
            const jinja_value key = gyre_jinja_part(run, s, from, to);
            jinja_int i;
            const bool number = to > from && s->data[from] >= '0' && s->data[from] <= '9' &&
                                gyre_jinja_parse_int(s->data + from, to - from, 10, &i);
            item = gyre_jinja_subscript(run, item, number ? jinja_number(i) : key);
            if (item.kind == JINJA_UNDEFINED && has(otherwise)) return otherwise;
            from = to + 1;
        }
    }
    return item.kind == JINJA_UNDEFINED && has(otherwise) ? otherwise : item;
}

static jinja_value folded(struct jinja_run *run, jinja_value v, bool case_sensitive)
{
    if (case_sensitive || v.kind != JINJA_STRING) return v;
    const struct jinja_args none = {0};
    return run->filter(run, "lower", v, &none);
}

// ---- sorting ----------------------------------------------------------------------------------------

struct sorted {
    jinja_value key, value;
};

// A stable merge sort.
static void merge_sort(struct jinja_run *run, struct sorted *a, struct sorted *work, uint64_t n, bool reverse)
{
    if (n < 2) return;
    const uint64_t half = n / 2;
    merge_sort(run, a, work, half, reverse);
    merge_sort(run, a + half, work, n - half, reverse);
    memcpy(work, a, half * sizeof *a);
    for (uint64_t i = 0, j = half, k = 0; i < half; k++) {
        bool right = j < n;
        if (right)
            right = (reverse ? gyre_jinja_order(run, work[i].key, a[j].key)
                             : gyre_jinja_order(run, a[j].key, work[i].key)) == -1;
        a[k] = right ? a[j++] : work[i++];
    }
}

// The keys of an item for "a,b.c", as a list also where there is one: what has no order may be in lists that are equal.
static jinja_value sort_key(struct jinja_run *run, jinja_value item, jinja_value attribute, bool sensitive)
{
    const struct jinja_string comma = {.data = ",", .bytes = 1};
    const jinja_value keys = gyre_jinja_list(run, JINJA_LIST, 0);
    uint64_t cap = 0, from = 0;
    if (attribute.kind != JINJA_STRING) {
        gyre_jinja_push(run, keys.list, &cap, folded(run, dig(run, item, attribute, (jinja_value){0}), sensitive));
        return keys;
    }
    while (from <= attribute.string->bytes) {
        const uint64_t found = gyre_jinja_search(attribute.string, from, attribute.string->bytes, &comma),
                       to = found == UINT64_MAX ? attribute.string->bytes : found;
        gyre_jinja_push(
            run, keys.list, &cap,
            folded(run, dig(run, item, gyre_jinja_part(run, attribute.string, from, to), (jinja_value){0}), sensitive));
        from = to + 1;
    }
    return keys;
}

// a[0..n-1], and as much room behind; what it holds is moved.
static jinja_value sorted(struct jinja_run *run, struct sorted *a, uint64_t n, bool reverse)
{
    merge_sort(run, a, a + n, n, reverse);
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, n);
    for (uint64_t i = 0; i < n; i++) out.list->item[i] = a[i].value;
    return out;
}

static jinja_value sort(ARGS)
{
    UNUSED;
    const struct jinja_list *list = gyre_jinja_items(run, self);
    struct sorted *a = gyre_jinja_alloc(run, list->n, 2 * sizeof *a);
    for (uint64_t i = 0; i < list->n; i++)
        a[i] = (struct sorted){sort_key(run, list->item[i], given[2], asked(given[1], false)), list->item[i]};
    return sorted(run, a, list->n, asked(given[0], false));
}

static jinja_value pairs(struct jinja_run *run, jinja_value self)
{
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (self.kind != JINJA_DICT) gyre_jinja_raise(run, "'%s object' has no attribute 'items'", gyre_jinja_type(self));
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, self.dict->n);
    for (uint64_t i = 0; i < self.dict->n; i++)
        out.list->item[i] = gyre_jinja_pair(run, self.dict->entry[i].key, self.dict->entry[i].value);
    return out;
}

static jinja_value dictsort(ARGS)
{
    UNUSED;
    const bool by_value = given[1].kind == JINJA_STRING && gyre_jinja_is(given[1].string, "value");
    if (given[1].kind != JINJA_MISSING && !by_value &&
        (given[1].kind != JINJA_STRING || !gyre_jinja_is(given[1].string, "key")))
        gyre_jinja_raise(run, "You can only sort by either \"key\" or \"value\"");
    const struct jinja_list *list = pairs(run, self).list;
    struct sorted *a = gyre_jinja_alloc(run, list->n, 2 * sizeof *a);
    for (uint64_t i = 0; i < list->n; i++)
        a[i] = (struct sorted){folded(run, list->item[i].list->item[by_value], asked(given[0], false)), list->item[i]};
    return sorted(run, a, list->n, asked(given[2], false));
}

static jinja_value groupby(ARGS)
{
    UNUSED;
    const bool sensitive = asked(given[2], false);
    const struct jinja_list *list = gyre_jinja_items(run, self);
    struct sorted *a = gyre_jinja_alloc(run, list->n, 2 * sizeof *a);
    for (uint64_t i = 0; i < list->n; i++) {
        const jinja_value key = dig(run, list->item[i], given[0], given[1]);
        a[i] = (struct sorted){folded(run, key, sensitive), list->item[i]};
    }
    merge_sort(run, a, a + list->n, list->n, false);
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, 0);
    uint64_t cap = 0;
    for (uint64_t i = 0, j; i < list->n; i = j) {
        for (j = i + 1; j < list->n && gyre_jinja_equal(run, a[j].key, a[i].key);) j++;
        const jinja_value members = gyre_jinja_list(run, JINJA_LIST, j - i);
        for (uint64_t k = i; k < j; k++) members.list->item[k - i] = a[k].value;
        const jinja_value group = gyre_jinja_pair(run, dig(run, a[i].value, given[0], given[1]), members);
        group.list->view = "group"; // has the attributes grouper and list
        gyre_jinja_push(run, out.list, &cap, group);
    }
    return out;
}

static jinja_value unique(ARGS)
{
    UNUSED;
    const struct jinja_list *list = gyre_jinja_items(run, self);
    struct jinja_list out = {0};
    const jinja_value seen = gyre_jinja_dict(run);
    uint64_t cap = 0;
    for (uint64_t i = 0; i < list->n; i++) {
        const jinja_value key =
            folded(run, dig(run, list->item[i], given[1], (jinja_value){0}), asked(given[0], false));
        if (gyre_jinja_dict_get(run, seen.dict, key)) continue;
        gyre_jinja_dict_put(run, seen.dict, key, jinja_none());
        gyre_jinja_push(run, &out, &cap, list->item[i]);
    }
    return gyre_jinja_generator(run, out, "do_unique");
}

static jinja_value extreme(struct jinja_run *run, jinja_value self, const jinja_value *given, int want)
{
    const struct jinja_list *list = gyre_jinja_items(run, self);
    if (list->n == 0) return gyre_jinja_undefined(run, "No aggregated item, sequence was empty.");
    uint64_t best = 0;
    jinja_value best_key = folded(run, dig(run, list->item[0], given[1], (jinja_value){0}), asked(given[0], false));
    for (uint64_t i = 1; i < list->n; i++) {
        const jinja_value key =
            folded(run, dig(run, list->item[i], given[1], (jinja_value){0}), asked(given[0], false));
        if (gyre_jinja_order(run, key, best_key) != want) continue;
        best = i;
        best_key = key;
    }
    return list->item[best];
}

static jinja_value min(ARGS) { return UNUSED, extreme(run, self, given, -1); }
static jinja_value max(ARGS) { return UNUSED, extreme(run, self, given, 1); }

// ---- choosing ---------------------------------------------------------------------------------------

// The arguments behind the first n, of which there may be none at all.
static struct jinja_args behind(const struct jinja_args *all, uint64_t n)
{
    n = GYRE_MIN(n, all->n);
    if (n == 0) return *all;
    return (struct jinja_args){all->item + n, all->n - n, all->keyword, all->n_keywords};
}

static const char *name_of(struct jinja_run *run, jinja_value v, const char *what)
{
    if (v.kind != JINJA_STRING)
        gyre_jinja_raise(run, "the name of a %s must be a str, not %s", what, gyre_jinja_type(v));
    return gyre_jinja_c_text(run, v.string);
}

// What counts as false has no items for these filters, whatever it is.
static const struct jinja_list *gone_through(struct jinja_run *run, jinja_value v)
{
    static const struct jinja_list empty;
    return gyre_jinja_true(v) ? gyre_jinja_items(run, v) : &empty;
}

// select, reject, selectattr, rejectattr. `first`: where the test's name stands.
static jinja_value chosen(struct jinja_run *run, jinja_value self, const struct jinja_args *all, bool want,
                          bool attribute, const char *name)
{
    const uint64_t first = attribute;
    const struct jinja_args args = behind(all, first + 1);
    const struct jinja_list *list = gone_through(run, self);
    struct jinja_list out = {0};
    uint64_t cap = 0;
    if (all->n < first) gyre_jinja_raise(run, "Missing parameter for attribute name");
    const char *test = all->n > first ? name_of(run, all->item[first], "test") : NULL;
    for (uint64_t i = 0; i < list->n; i++) {
        const jinja_value v = attribute ? dig(run, list->item[i], all->item[0], (jinja_value){0}) : list->item[i];
        if ((test ? run->test(run, test, v, &args) : gyre_jinja_true(v)) == want)
            gyre_jinja_push(run, &out, &cap, list->item[i]);
    }
    return gyre_jinja_generator(run, out, name);
}

static jinja_value select_(ARGS) { return UNUSED, chosen(run, self, all, true, false, "select_or_reject"); }
static jinja_value reject(ARGS) { return UNUSED, chosen(run, self, all, false, false, "select_or_reject"); }
static jinja_value selectattr(ARGS) { return UNUSED, chosen(run, self, all, true, true, "select_or_reject"); }
static jinja_value rejectattr(ARGS) { return UNUSED, chosen(run, self, all, false, true, "select_or_reject"); }

static jinja_value map(ARGS)
{
    UNUSED;
    jinja_value attribute = {0}, otherwise = {0};
    for (uint64_t i = 0; i < all->n_keywords && all->n == 0; i++) {
        const struct jinja_keyword *k = &all->keyword[i];
        if (!strcmp(k->name, "attribute")) attribute = k->value;
        else if (!strcmp(k->name, "default")) otherwise = k->value;
        else gyre_jinja_raise(run, "Unexpected keyword argument '%s'", k->name);
    }
    if (all->n == 0 && attribute.kind == JINJA_MISSING) gyre_jinja_raise(run, "map requires a filter argument");
    const char *filter = all->n ? name_of(run, all->item[0], "filter") : NULL;
    const struct jinja_args args = behind(all, 1);
    const struct jinja_list *list = gone_through(run, self);
    struct jinja_list out = {.item = gyre_jinja_alloc(run, list->n, sizeof *out.item), .n = list->n};
    for (uint64_t i = 0; i < list->n; i++)
        out.item[i] =
            filter ? run->filter(run, filter, list->item[i], &args) : dig(run, list->item[i], attribute, otherwise);
    return gyre_jinja_generator(run, out, "sync_do_map");
}

// ---- the whole --------------------------------------------------------------------------------------

static jinja_value first(ARGS)
{
    UNUSED;
    if (self.kind == JINJA_GENERATOR && self.generator->next < self.generator->list.n)
        return self.generator->list.item[self.generator->next++];
    const struct jinja_list *list = gyre_jinja_items(run, self);
    return list->n ? list->item[0] : gyre_jinja_undefined(run, "No first item, sequence was empty.");
}

static jinja_value last(ARGS)
{
    UNUSED;
    if (self.kind == JINJA_GENERATOR) gyre_jinja_raise(run, "'generator' object is not reversible");
    const struct jinja_list *list = gyre_jinja_items(run, self);
    return list->n ? list->item[list->n - 1] : gyre_jinja_undefined(run, "No last item, sequence was empty.");
}

static jinja_value list(ARGS)
{
    UNUSED;
    const struct jinja_list *items = gyre_jinja_items(run, self);
    const jinja_value out = gyre_jinja_list(run, JINJA_LIST, items->n);
    if (items->n) memcpy(out.list->item, items->item, items->n * sizeof *items->item);
    return out;
}

static jinja_value length(ARGS)
{
    UNUSED;
    uint64_t n;
    if (!gyre_jinja_length(self, &n)) gyre_jinja_raise(run, "object of type '%s' has no len()", gyre_jinja_type(self));
    return jinja_number((jinja_int)n);
}

static jinja_value join(ARGS)
{
    UNUSED;
    const struct jinja_list *items = gyre_jinja_items(run, self);
    struct jinja_build b = {.run = run};
    for (uint64_t i = 0; i < items->n; i++) {
        if (i && given[0].kind != JINJA_MISSING) gyre_jinja_put_str(&b, given[0]);
        gyre_jinja_put_str(&b, dig(run, items->item[i], given[1], (jinja_value){0}));
    }
    return gyre_jinja_built(&b);
}

static jinja_value reverse(ARGS)
{
    UNUSED;
    const jinja_value back = jinja_number(-1), none = {0};
    if (self.kind == JINJA_STRING) return gyre_jinja_slice(run, self, none, none, back);
    const struct jinja_list *items = gyre_jinja_items(run, self);
    struct jinja_list out = {.item = gyre_jinja_alloc(run, items->n, sizeof *out.item), .n = items->n};
    for (uint64_t i = 0; i < items->n; i++) out.item[i] = items->item[items->n - 1 - i];
    return gyre_jinja_generator(run, out, "reversed");
}

static jinja_value sum(ARGS)
{
    UNUSED;
    const struct jinja_list *items = gyre_jinja_items(run, self);
    jinja_value total = given[1].kind == JINJA_MISSING ? jinja_number(0) : given[1];
    if (total.kind == JINJA_STRING) gyre_jinja_raise(run, "sum() can't sum strings [use ''.join(seq) instead]");
    for (uint64_t i = 0; i < items->n; i++)
        total = gyre_jinja_operate(run, JINJA_ADD, total, dig(run, items->item[i], given[0], (jinja_value){0}));
    return total;
}

static jinja_value items(ARGS)
{
    UNUSED;
    if (self.kind == JINJA_UNDEFINED) return gyre_jinja_generator(run, (struct jinja_list){0}, "do_items");
    if (self.kind != JINJA_DICT) gyre_jinja_raise(run, "Can only get item pairs from a mapping.");
    return gyre_jinja_generator(run, *pairs(run, self).list, "do_items");
}

static int64_t part_size(struct jinja_run *run, jinja_value v)
{
    const int64_t n = gyre_jinja_index(run, v, "a number of items");
    if (n <= 0) gyre_jinja_raise(run, "a number of items must be positive");
    return n;
}

static jinja_value batch(ARGS)
{
    UNUSED;
    const struct jinja_list *items_ = gyre_jinja_items(run, self);
    const uint64_t size = (uint64_t)part_size(run, given[0]);
    struct jinja_list out = {0};
    uint64_t cap = 0;
    for (uint64_t i = 0; i < items_->n; i += size) {
        const uint64_t n = GYRE_MIN(size, items_->n - i);
        const jinja_value row = gyre_jinja_list(run, JINJA_LIST, has(given[1]) ? size : n);
        for (uint64_t k = 0; k < row.list->n; k++) row.list->item[k] = k < n ? items_->item[i + k] : given[1];
        gyre_jinja_push(run, &out, &cap, row);
    }
    return gyre_jinja_generator(run, out, "do_batch");
}

static jinja_value slice(ARGS)
{
    UNUSED;
    const struct jinja_list *items_ = gyre_jinja_items(run, self);
    const uint64_t slices = (uint64_t)part_size(run, given[0]);
    struct jinja_list out = {0};
    uint64_t cap = 0, at = 0;
    for (uint64_t i = 0; i < slices; i++) {
        const uint64_t n = items_->n / slices + (i < items_->n % slices);
        const bool filled = has(given[1]) && i >= items_->n % slices;
        const jinja_value row = gyre_jinja_list(run, JINJA_LIST, n + filled);
        for (uint64_t k = 0; k < row.list->n; k++) row.list->item[k] = k < n ? items_->item[at + k] : given[1];
        gyre_jinja_push(run, &out, &cap, row);
        at += n;
    }
    return gyre_jinja_generator(run, out, "sync_do_slice");
}

const struct jinja_builtin gyre_jinja_list_filters[] = {
    {"batch", batch, "linecount,fill_with", 1},
    {"count", length, "", 0},
    {"dictsort", dictsort, "case_sensitive,by,reverse", 0},
    {"first", first, "", 0},
    {"groupby", groupby, "attribute,default,case_sensitive", 1},
    {"items", items, "", 0},
    {"join", join, "d,attribute", 0},
    {"last", last, "", 0},
    {"length", length, "", 0},
    {"list", list, "", 0},
    {"map", map, "*", 0},
    {"max", max, "case_sensitive,attribute", 0},
    {"min", min, "case_sensitive,attribute", 0},
    {"reject", reject, "*", 0},
    {"rejectattr", rejectattr, "*", 0},
    {"reverse", reverse, "", 0},
    {"select", select_, "*", 0},
    {"selectattr", selectattr, "*", 0},
    {"slice", slice, "slices,fill_with", 1},
    {"sort", sort, "reverse,case_sensitive,attribute", 0},
    {"sum", sum, "attribute,start", 0},
    {"unique", unique, "case_sensitive,attribute", 0},
};
const uint64_t gyre_jinja_n_list_filters = GYRE_COUNT(gyre_jinja_list_filters);
