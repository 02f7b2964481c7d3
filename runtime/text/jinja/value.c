// Memory, limits and failures of a rendering, and the making of values. See value.h.
#include "runtime/text/jinja/value.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <string.h>

enum { MAX_STEPS = 60000000 };
static const uint64_t max_memory = (uint64_t)512 << 20;

// ---- limits and failures ----------------------------------------------------------------------------

static const char *where(const struct jinja_run *run, char out[200])
{
    const struct gyre_shown name = gyre_show(run->name, strlen(run->name));
    if (run->line) snprintf(out, 200, "%s, line %u, column %u", name.text, run->line, run->column);
    else snprintf(out, 200, "%s, its variables", name.text); // they are made before anything runs
    return out;
}

_Noreturn void gyre_jinja_raise(struct jinja_run *run, const char *format, ...)
{
    char place[200], why[420];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    for (char *p = why; *p; p++) // one line, whatever a value of the template says
        if ((unsigned char)*p < 32 || *p == 127) *p = ' ';
    gyre_fail(run->err, GYRE_E_INVALID, "cannot render template (%s): %s", where(run, place), why);
    longjmp(run->leave, 1);
}

_Noreturn void gyre_jinja_limit(struct jinja_run *run, const char *what)
{
    char place[200];
    gyre_fail(run->err, GYRE_E_UNSUPPORTED, "cannot render template (%s): it exceeds the limit of %s",
              where(run, place), what);
    longjmp(run->leave, 1);
}

void gyre_jinja_work(struct jinja_run *run, uint64_t steps)
{
    run->steps += steps;
    if (run->steps > MAX_STEPS) gyre_jinja_limit(run, "60 million steps");
}

void *gyre_jinja_alloc(struct jinja_run *run, uint64_t n, uint64_t size)
{
    uint64_t bytes;
    if (!gyre_mul_u64(n, size, &bytes) || bytes > max_memory - GYRE_MIN(run->memory, max_memory))
        gyre_jinja_limit(run, "512 MiB of memory");
    run->memory += bytes + 16;
    gyre_jinja_work(run, bytes / 256);
    void *memory = gyre_arena_alloc(&run->arena, (size_t)bytes);
    if (!memory) gyre_jinja_limit(run, "the memory that this machine has");
    return memory;
}

void gyre_jinja_deeper(struct jinja_run *run)
{
    if (++run->depth > JINJA_MAX_DEPTH) gyre_jinja_limit(run, "400 nested calls and expressions");
}

// ---- undefined --------------------------------------------------------------------------------------

jinja_value gyre_jinja_undefined(struct jinja_run *run, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const uint64_t length = n < 0 ? 0 : GYRE_MIN((uint64_t)n, sizeof text - 1);
    char *why = gyre_jinja_alloc(run, length + 1, 1);
    memcpy(why, text, length);
    return (jinja_value){.kind = JINJA_UNDEFINED, .why = why};
}

_Noreturn void gyre_jinja_use_undefined(struct jinja_run *run, jinja_value v)
{
    gyre_jinja_raise(run, "%s", v.why ? v.why : "a value is undefined");
}

// ---- values -----------------------------------------------------------------------------------------

jinja_value gyre_jinja_list(struct jinja_run *run, enum jinja_kind kind, uint64_t n)
{
    struct jinja_list *list = gyre_jinja_alloc(run, 1, sizeof *list);
    list->item = gyre_jinja_alloc(run, n, sizeof *list->item);
    list->n = n;
    return (jinja_value){.kind = kind, .list = list};
}

void gyre_jinja_push(struct jinja_run *run, struct jinja_list *list, uint64_t *cap, jinja_value value)
{
    if (list->n == *cap) {
        *cap = 2 * *cap + 8;
        jinja_value *grown = gyre_jinja_alloc(run, *cap, sizeof *grown);
        if (list->n) memcpy(grown, list->item, list->n * sizeof *grown);
        list->item = grown;
    }
    list->item[list->n++] = value;
}

jinja_value gyre_jinja_pair(struct jinja_run *run, jinja_value a, jinja_value b)
{
    const jinja_value pair = gyre_jinja_list(run, JINJA_TUPLE, 2);
    pair.list->item[0] = a;
    pair.list->item[1] = b;
    return pair;
}

jinja_value gyre_jinja_generator(struct jinja_run *run, struct jinja_list list, const char *view)
{
    struct jinja_generator *generator = gyre_jinja_alloc(run, 1, sizeof *generator);
    generator->list = list;
    generator->list.view = view;
    return (jinja_value){.kind = JINJA_GENERATOR, .generator = generator};
}

jinja_value gyre_jinja_function(struct jinja_run *run, const struct jinja_builtin *builtin, jinja_value self)
{
    struct jinja_function *function = gyre_jinja_alloc(run, 1, sizeof *function);
    *function = (struct jinja_function){builtin, self};
    return (jinja_value){.kind = JINJA_FUNCTION, .function = function};
}

const char *gyre_jinja_type(jinja_value v)
{
    switch (v.kind) {
    case JINJA_NONE:
        return "NoneType";
    case JINJA_BOOL:
        return "bool";
    case JINJA_INT:
        return "int";
    case JINJA_FLOAT:
        return "float";
    case JINJA_STRING:
        return v.string->markup ? "Markup" : "str";
    case JINJA_LIST:
        return "list";
    case JINJA_TUPLE:
        return "tuple";
    case JINJA_DICT:
        return "dict";
    case JINJA_RANGE:
        return "range";
    case JINJA_VIEW:
        return v.list->view;
    case JINJA_GENERATOR:
        return "generator";
    case JINJA_NAMESPACE:
        return "Namespace";
    case JINJA_CYCLER:
        return "Cycler";
    case JINJA_JOINER:
        return "Joiner";
    case JINJA_LOOP:
        return "LoopContext";
    case JINJA_MACRO:
        return "Macro";
    case JINJA_FUNCTION:
        return "function";
    default:
        return "Undefined";
    }
}

bool gyre_jinja_true(jinja_value v)
{
    switch (v.kind) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.flag;
    case JINJA_INT:
        return v.integer != 0;
    case JINJA_FLOAT:
        return v.real < 0 || v.real > 0 || v.real != v.real;
    case JINJA_STRING:
        return v.string->bytes != 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        return v.list->n != 0;
    case JINJA_DICT:
        return v.dict->n != 0;
    default:
        return true;
    }
}

int64_t gyre_jinja_index(struct jinja_run *run, jinja_value v, const char *what)
{
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, v);
    if (v.kind == JINJA_BOOL) return v.flag;
    if (v.kind != JINJA_INT) gyre_jinja_raise(run, "%s must be an integer, not %s", what, gyre_jinja_type(v));
    return v.integer > INT64_MAX   ? INT64_MAX
           : v.integer < INT64_MIN ? INT64_MIN
                                   : (int64_t)v.integer; // ends of a slice saturate; others fail on their size
}

double gyre_jinja_double(jinja_value v)
{
    return v.kind == JINJA_FLOAT ? v.real : v.kind == JINJA_BOOL ? v.flag : (double)v.integer;
}

// ---- builtins ---------------------------------------------------------------------------------------

const struct jinja_builtin *gyre_jinja_find(const struct jinja_builtin *table, uint64_t n, const char *name)
{
    for (uint64_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

// The place of a parameter's name in "a,b,c"; -1: none. *n: how many there are; *open: they end in "*".
static int place_of(const char *parameters, const char *name, uint32_t *n, bool *open)
{
    int found = -1;
    *n = 0;
    *open = false;
    for (const char *p = parameters; *p;) {
        const size_t length = strcspn(p, ",");
        if (*p == '*') *open = true;
        else if (name && strlen(name) == length && !strncmp(p, name, length)) found = (int)*n;
        if (*p != '*') ++*n;
        p += length + (p[length] == ',');
    }
    return found;
}

void gyre_jinja_bind(struct jinja_run *run, const struct jinja_builtin *b, const struct jinja_args *args,
                     jinja_value *given)
{
    uint32_t n;
    bool open;
    place_of(b->parameters, NULL, &n, &open);
    for (int i = 0; i < JINJA_MAX_PARAMETERS; i++) given[i] = (jinja_value){0};
    if (args->n > n && !open)
        gyre_jinja_raise(run, "%s() takes at most %u arguments (%llu given)", b->name, n, (unsigned long long)args->n);
    for (uint64_t i = 0; i < args->n && i < n; i++) given[i] = args->item[i];
    for (uint64_t i = 0; i < args->n_keywords; i++) {
        const int place = place_of(b->parameters, args->keyword[i].name, &n, &open);
        if (place >= 0 && given[place].kind != JINJA_MISSING)
            gyre_jinja_raise(run, "%s() got multiple values for argument '%s'", b->name, args->keyword[i].name);
        if (place >= 0) given[place] = args->keyword[i].value;
        else if (!open)
            gyre_jinja_raise(run, "%s() got an unexpected keyword argument '%s'", b->name, args->keyword[i].name);
    }
    for (uint32_t i = 0; i < b->required; i++)
        if (given[i].kind == JINJA_MISSING)
            gyre_jinja_raise(run, "%s() misses an argument (%u of %u)", b->name, i + 1, b->required);
}
