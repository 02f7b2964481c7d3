// See pth.h. A pickle is a program for a stack machine; this is that machine without what could run anything: REDUCE
// knows three functions, which it does not call but understands. Protocols 2 to 5, as torch.save writes them.
#include "runtime/source/pth.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { NONE, NUMBER, TEXT, TUPLE, DICT, MARK, FUNCTION, STORAGE_TYPE, STORAGE, TENSOR } kind;
typedef enum function { REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT } function;

// A value. Tuples and storages name what they hold by the index of its place in `parts`.
struct value {
    kind kind;
    int64_t number; // also of a FUNCTION and, as a gyre_dtype, of STORAGE_TYPE, STORAGE and TENSOR
    struct gyre_string text;
    uint32_t first, n; // TUPLE: parts
    uint64_t elements;
    uint64_t offset; // TENSOR
    uint32_t n_dims;
    uint64_t dims[4];
};

struct entry {
    uint32_t dict, key, value;
};

struct machine {
    const char *path;
    const unsigned char *begin, *p, *end;
    struct value *values; // [0] is None
    uint32_t *stack, *parts, *memo;
    struct entry *entries;
    size_t n_values, cap_values, n_stack, cap_stack, n_parts, cap_parts, n_memo, cap_memo, n_entries, cap_entries;
    gyre_error *err;
};

static gyre_status damaged(const struct machine *m, const char *why)
{
    return gyre_fail(m->err, GYRE_E_FORMAT, "cannot read model (%s): its pickle %s; the file is damaged", m->path, why);
}

static gyre_status no_memory(const struct machine *m)
{
    return gyre_fail(m->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", m->path);
}

static gyre_status push_index(struct machine *m, uint32_t index)
{
    if (!GYRE_ROOM(m->stack, m->n_stack + 1, m->cap_stack)) return no_memory(m);
    m->stack[m->n_stack++] = index;
    return GYRE_OK;
}

static gyre_status push(struct machine *m, struct value v)
{
    if (!GYRE_ROOM(m->values, m->n_values + 1, m->cap_values)) return no_memory(m);
    m->values[m->n_values] = v;
    return push_index(m, (uint32_t)m->n_values++);
}

static gyre_status pop(struct machine *m, uint32_t *index)
{
    *index = 0;
    if (m->n_stack == 0) return damaged(m, "takes more than it gave");
    *index = m->stack[--m->n_stack];
    return m->values[*index].kind == MARK ? damaged(m, "takes a mark for a value") : GYRE_OK;
}

// Little-endian number of n bytes, unsigned.
static gyre_status take(struct machine *m, uint32_t n, uint64_t *out)
{
    *out = 0;
    if ((uint64_t)(m->end - m->p) < n) return damaged(m, "ends in the middle of an instruction");
    memcpy(out, m->p, n);
    m->p += n;
    return GYRE_OK;
}

static gyre_status take_text(struct machine *m, uint64_t n, struct gyre_string *out)
{
    if ((uint64_t)(m->end - m->p) < n) return damaged(m, "ends in the middle of a text");
    *out = (struct gyre_string){(const char *)m->p, n};
    m->p += n;
    return GYRE_OK;
}

static gyre_status push_text(struct machine *m, uint32_t length_bytes)
{
    uint64_t n;
    struct value v = {.kind = TEXT};
    GYRE_TRY(take(m, length_bytes, &n));
    GYRE_TRY(take_text(m, n, &v.text));
    return push(m, v);
}

static gyre_status push_number(struct machine *m, uint32_t n, bool is_signed)
{
    uint64_t u;
    GYRE_TRY(take(m, n, &u));
    if (is_signed && n < 8 && n && u >> (8 * n - 1)) u |= UINT64_MAX << 8 * n;
    return push(m, (struct value){.kind = NUMBER, .number = (int64_t)u});
}

// ---- names ----------------------------------------------------------------------------------------------------

static bool is(struct gyre_string text, const char *name)
{
    return text.length == strlen(name) && !memcmp(text.data, name, text.length);
}

static gyre_status push_global(struct machine *m, struct gyre_string module, struct gyre_string name)
{
    static const struct {
        const char *module, *name;
        kind kind;
        int64_t number;
    } known[] = {
        {"torch._utils", "_rebuild_tensor_v2", FUNCTION, REBUILD_TENSOR},
        {"torch._utils", "_rebuild_parameter", FUNCTION, REBUILD_PARAMETER},
        {"collections", "OrderedDict", FUNCTION, ORDERED_DICT},
        {"torch", "FloatStorage", STORAGE_TYPE, GYRE_DTYPE_F32},
        {"torch", "DoubleStorage", STORAGE_TYPE, GYRE_DTYPE_F64},
        {"torch", "HalfStorage", STORAGE_TYPE, GYRE_DTYPE_F16},
        {"torch", "BFloat16Storage", STORAGE_TYPE, GYRE_DTYPE_BF16},
        {"torch", "CharStorage", STORAGE_TYPE, GYRE_DTYPE_I8},
        {"torch", "IntStorage", STORAGE_TYPE, GYRE_DTYPE_I32},
        {"torch", "LongStorage", STORAGE_TYPE, GYRE_DTYPE_I64},
    };
    for (size_t i = 0; i < GYRE_COUNT(known); i++)
        if (is(module, known[i].module) && is(name, known[i].name))
            return push(m, (struct value){.kind = known[i].kind, .number = known[i].number});
    return gyre_fail(
        m->err, GYRE_E_UNSUPPORTED,
        "cannot read model (%s): its pickle asks for %s.%s, which is no part of a tensor; nothing of it is run",
        m->path, gyre_show(module.data, module.length).text, gyre_show(name.data, name.length).text);
}

static gyre_status take_line(struct machine *m, struct gyre_string *out)
{
    const unsigned char *nl = memchr(m->p, '\n', (size_t)(m->end - m->p));
    if (!nl) return damaged(m, "ends in the middle of a name");
    *out = (struct gyre_string){(const char *)m->p, (uint64_t)(nl - m->p)};
    m->p = nl + 1;
    return GYRE_OK;
}

static gyre_status global(struct machine *m)
{
    struct gyre_string module, name;
    GYRE_TRY(take_line(m, &module));
    GYRE_TRY(take_line(m, &name));
    return push_global(m, module, name);
}

static gyre_status stack_global(struct machine *m)
{
    uint32_t name, module;
    GYRE_TRY(pop(m, &name));
    GYRE_TRY(pop(m, &module));
    if (m->values[name].kind != TEXT || m->values[module].kind != TEXT) return damaged(m, "names something by no text");
    return push_global(m, m->values[module].text, m->values[name].text);
}

// ---- values ---------------------------------------------------------------------------------------------------

// The n topmost values become a tuple.
static gyre_status tuple(struct machine *m, uint64_t n)
{
    if (n > m->n_stack || m->n_parts + n > UINT32_MAX) return damaged(m, "takes more than it gave");
    const struct value v = {.kind = TUPLE, .first = (uint32_t)m->n_parts, .n = (uint32_t)n};
    for (uint64_t i = m->n_stack - n; i < m->n_stack; i++) {
        if (m->values[m->stack[i]].kind == MARK) return damaged(m, "takes a mark for a value");
        if (!GYRE_ROOM(m->parts, m->n_parts + 1, m->cap_parts)) return no_memory(m);
        m->parts[m->n_parts++] = m->stack[i];
    }
    m->n_stack -= n;
    return push(m, v);
}

// How many values lie above the last mark, which is then *under the place of the first.
static gyre_status above_mark(const struct machine *m, uint64_t *n)
{
    for (*n = 0; *n < m->n_stack; ++*n)
        if (m->values[m->stack[m->n_stack - 1 - *n]].kind == MARK) return GYRE_OK;
    return damaged(m, "ends what it did not begin");
}

static void drop_mark(struct machine *m, uint64_t n)
{
    memmove(m->stack + m->n_stack - n - 1, m->stack + m->n_stack - n, n * sizeof *m->stack);
    m->n_stack--;
}

static const struct value *part(const struct machine *m, const struct value *tuple_value, uint32_t i)
{
    return i < tuple_value->n ? &m->values[m->parts[tuple_value->first + i]] : &m->values[0];
}

// ("storage", type, key, place, elements)
static gyre_status persistent(struct machine *m)
{
    uint32_t at;
    GYRE_TRY(pop(m, &at));
    const struct value *t = &m->values[at], *type = part(m, t, 1), *key = part(m, t, 2), *count = part(m, t, 4);
    if (t->kind != TUPLE || t->n != 5 || part(m, t, 0)->kind != TEXT || !is(part(m, t, 0)->text, "storage") ||
        type->kind != STORAGE_TYPE || key->kind != TEXT || count->kind != NUMBER || count->number < 0)
        return damaged(m, "refers to something that is no storage");
    return push(m,
                (struct value){
                    .kind = STORAGE, .number = type->number, .text = key->text, .elements = (uint64_t)count->number});
}

// (storage, first element, sizes, strides, ...)
static gyre_status rebuild(struct machine *m, const struct value *args)
{
    const struct value *storage = part(m, args, 0), *first = part(m, args, 1), *size = part(m, args, 2),
                       *stride = part(m, args, 3);
    if (args->n < 4 || storage->kind != STORAGE || first->kind != NUMBER || first->number < 0 || size->kind != TUPLE ||
        stride->kind != TUPLE || size->n != stride->n || size->n > 4)
        return damaged(m, "makes a tensor of something else");
    struct value v = *storage;
    uint64_t due = 1;
    v.kind = TENSOR;
    v.offset = (uint64_t)first->number;
    v.n_dims = size->n;
    for (uint32_t d = size->n; d-- > 0;) {
        const struct value *n = part(m, size, d), *step = part(m, stride, d);
        if (n->kind != NUMBER || step->kind != NUMBER || n->number < 1)
            return damaged(m, "gives a tensor an impossible shape");
        v.dims[d] = (uint64_t)n->number;
        if (v.dims[d] > 1 && (uint64_t)step->number != due)
            return gyre_fail(m->err, GYRE_E_UNSUPPORTED,
                             "cannot read model (%s): a tensor lies in its storage with strides; save it contiguous",
                             m->path);
        if (!gyre_mul_u64(due, v.dims[d], &due)) return damaged(m, "gives a tensor an impossible shape");
    }
    if (due > v.elements || v.offset > v.elements - due)
        return damaged(m, "has a tensor that reaches past its storage");
    return push(m, v);
}

static gyre_status reduce(struct machine *m)
{
    uint32_t args, what;
    GYRE_TRY(pop(m, &args));
    GYRE_TRY(pop(m, &what));
    const struct value a = m->values[args];
    if (m->values[what].kind != FUNCTION || a.kind != TUPLE) return damaged(m, "calls what is no function");
    switch ((function)m->values[what].number) {
    case REBUILD_TENSOR:
        return rebuild(m, &a);
    case REBUILD_PARAMETER:
        if (a.n < 1 || part(m, &a, 0)->kind != TENSOR) break;
        return push_index(m, m->parts[a.first]);
    case ORDERED_DICT:
        if (a.n == 0) return push(m, (struct value){.kind = DICT});
        break;
    }
    return damaged(m, "calls a function with something else than it takes");
}

// n values above the dictionary, keys and values in turn.
static gyre_status set_items(struct machine *m, uint64_t n)
{
    if (n % 2 || n >= m->n_stack) return damaged(m, "takes more than it gave");
    const uint64_t at = m->n_stack - n;
    const uint32_t dict = m->stack[at - 1];
    if (m->values[dict].kind != DICT) return damaged(m, "puts items into something that is no dictionary");
    for (uint64_t i = at; i < m->n_stack; i += 2) {
        if (!GYRE_ROOM(m->entries, m->n_entries + 1, m->cap_entries)) return no_memory(m);
        m->entries[m->n_entries++] = (struct entry){dict, m->stack[i], m->stack[i + 1]};
    }
    m->n_stack = at;
    return GYRE_OK;
}

// Attributes of a dictionary (_metadata of a state_dict) are of no use here.
static gyre_status build(struct machine *m)
{
    uint32_t state;
    GYRE_TRY(pop(m, &state));
    if (m->n_stack == 0 || m->values[m->stack[m->n_stack - 1]].kind != DICT || m->values[state].kind != DICT)
        return damaged(m, "gives a state to something that is no dictionary");
    return GYRE_OK;
}

static gyre_status remember(struct machine *m, uint64_t slot)
{
    if (m->n_stack == 0) return damaged(m, "remembers nothing");
    if (slot > (uint64_t)(m->end - m->p) + m->n_memo) // writers number them one by one, an instruction each
        return damaged(m, "remembers at an impossible place");
    while (m->n_memo <= slot) {
        if (!GYRE_ROOM(m->memo, m->n_memo + 1, m->cap_memo)) return no_memory(m);
        m->memo[m->n_memo++] = 0;
    }
    m->memo[slot] = m->stack[m->n_stack - 1];
    return GYRE_OK;
}

static gyre_status recall(struct machine *m, uint64_t slot)
{
    return slot < m->n_memo ? push_index(m, m->memo[slot]) : damaged(m, "recalls what it did not remember");
}

// ---- the machine ----------------------------------------------------------------------------------------------

static gyre_status with_slot(struct machine *m, uint32_t bytes, gyre_status (*what)(struct machine *, uint64_t))
{
    uint64_t slot;
    GYRE_TRY(take(m, bytes, &slot));
    return what(m, slot);
}

static gyre_status step(struct machine *m, unsigned char code, bool *stop)
{
    uint64_t n;
    switch (code) {
    case 0x80: // PROTO
        GYRE_TRY(take(m, 1, &n));
        return n >= 2 && n <= 5 ? GYRE_OK : damaged(m, "has a protocol that is not 2 to 5");
    case 0x95: // FRAME
        return take(m, 8, &n);
    case '.':
        *stop = true;
        return GYRE_OK;
    case '(':
        return push(m, (struct value){.kind = MARK});
    case '}':
        return push(m, (struct value){.kind = DICT});
    case ')':
        return tuple(m, 0);
    case 't':
        GYRE_TRY(above_mark(m, &n));
        drop_mark(m, n);
        return tuple(m, n);
    case 0x85: // TUPLE1
    case 0x86:
    case 0x87:
        return tuple(m, code - 0x84u);
    case 'N':
        return push(m, (struct value){.kind = NONE});
    case 0x88: // NEWTRUE
    case 0x89:
        return push(m, (struct value){.kind = NUMBER, .number = code == 0x88});
    case 'K':
        return push_number(m, 1, false);
    case 'M':
        return push_number(m, 2, false);
    case 'J':
        return push_number(m, 4, true);
    case 0x8a: // LONG1
        GYRE_TRY(take(m, 1, &n));
        return n <= 8 ? push_number(m, (uint32_t)n, true) : damaged(m, "holds a number of more than 64 bits");
    case 'X':
        return push_text(m, 4);
    case 0x8c: // SHORT_BINUNICODE
        return push_text(m, 1);
    case 'c':
        return global(m);
    case 0x93: // STACK_GLOBAL
        return stack_global(m);
    case 'Q':
        return persistent(m);
    case 'R':
        return reduce(m);
    case 'b':
        return build(m);
    case 's':
        return set_items(m, 2);
    case 'u':
        GYRE_TRY(above_mark(m, &n));
        drop_mark(m, n);
        return set_items(m, n);
    case 'q':
        return with_slot(m, 1, remember);
    case 'r':
        return with_slot(m, 4, remember);
    case 0x94: // MEMOIZE
        return remember(m, m->n_memo);
    case 'h':
        return with_slot(m, 1, recall);
    case 'j':
        return with_slot(m, 4, recall);
    default:
        break;
    }
    return gyre_fail(
        m->err, GYRE_E_UNSUPPORTED,
        "cannot read model (%s): its pickle has the instruction 0x%02x at byte %llu, which tensors do not need; "
        "nothing of it is run",
        m->path, code, (unsigned long long)(m->p - 1 - m->begin));
}

// The tensors among the entries of the last dictionary.
static gyre_status collect(struct machine *m, struct gyre_pickled **out, uint64_t *n)
{
    uint32_t root;
    GYRE_TRY(pop(m, &root));
    if (m->values[root].kind != DICT) return damaged(m, "makes no dictionary of tensors");
    *out = calloc(m->n_entries + 1, sizeof **out);
    if (!*out) return no_memory(m);
    for (uint64_t i = 0; i < m->n_entries; i++) {
        const struct entry *e = &m->entries[i];
        const struct value *key = &m->values[e->key], *t = &m->values[e->value];
        if (e->dict != root) continue;
        if (key->kind != TEXT || t->kind != TENSOR)
            return gyre_fail(m->err, GYRE_E_UNSUPPORTED, "cannot read model (%s): its entry %s is no tensor", m->path,
                             key->kind == TEXT ? gyre_show(key->text.data, key->text.length).text : "without a name");
        struct gyre_pickled *p = &(*out)[(*n)++];
        *p = (struct gyre_pickled){.name = key->text,
                                   .storage = t->text,
                                   .type = (gyre_dtype)t->number,
                                   .elements = t->elements,
                                   .first = t->offset,
                                   .n_dims = t->n_dims};
        memcpy(p->dims, t->dims, sizeof p->dims);
    }
    return GYRE_OK;
}

gyre_status gyre_pickle_read(const char *path, const unsigned char *data, uint64_t bytes, struct gyre_pickled **out,
                             uint64_t *n, gyre_error *err)
{
    struct machine m = {.path = path, .begin = data, .p = data, .end = data + bytes, .err = err};
    gyre_status st = GYRE_OK;
    bool stop = false;
    *out = NULL;
    *n = 0;
    GYRE_GO(push(&m, (struct value){.kind = NONE}));
    m.n_stack = 0;
    while (!stop) {
        if (m.p == m.end) GYRE_GO(damaged(&m, "has no end"));
        GYRE_GO(step(&m, *m.p++, &stop));
    }
    GYRE_GO(collect(&m, out, n));
done:
    free(m.values);
    free(m.stack);
    free(m.parts);
    free(m.memo);
    free(m.entries);
    if (st != GYRE_OK) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return st;
}
