// Arithmetic and joining, as Python's operators do it. See value.h.
#include "runtime/text/jinja/value.h"

#include <math.h>
#include <string.h>

static jinja_int whole(jinja_value v) { return v.kind == JINJA_BOOL ? v.flag : v.integer; }

static _Noreturn void unsupported(struct jinja_run *run, enum jinja_operator op, jinja_value a, jinja_value b)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()", "~"};
    if (a.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, a);
    if (b.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, b);
    if (op == JINJA_ADD && (a.kind == JINJA_STRING || jinja_is_list(a)))
        gyre_jinja_raise(run, "can only concatenate %s (not \"%s\") to %s", gyre_jinja_type(a), gyre_jinja_type(b),
                         gyre_jinja_type(a));
    gyre_jinja_raise(run, "unsupported operand type(s) for %s: '%s' and '%s'", names[op], gyre_jinja_type(a),
                     gyre_jinja_type(b));
}

static _Noreturn void too_large(struct jinja_run *run) { gyre_jinja_limit(run, "128 bits of an integer"); }
static _Noreturn void by_zero(struct jinja_run *run) { gyre_jinja_raise(run, "division by zero"); }

static jinja_value power(struct jinja_run *run, jinja_int base, jinja_int exponent)
{
    jinja_int out = 1;
    if (exponent < 0) {
        if (base == 0) gyre_jinja_raise(run, "0.0 cannot be raised to a negative power");
        return jinja_real(pow((double)base, (double)exponent));
    }
    if (base == 0 || base == 1 || base == -1)
        return jinja_number(exponent == 0 ? 1 : base < 0 && exponent % 2 == 0 ? 1 : base);
    for (; exponent; exponent--)
        if (__builtin_mul_overflow(out, base, &out)) too_large(run); // after 127 rounds at most
    return jinja_number(out);
}

static jinja_value with_integers(struct jinja_run *run, enum jinja_operator op, jinja_int a, jinja_int b)
{
    jinja_int out = 0;
    bool over = false;
    switch (op) {
    case JINJA_ADD:
        over = __builtin_add_overflow(a, b, &out);
        break;
    case JINJA_SUB:
        over = __builtin_sub_overflow(a, b, &out);
        break;
    case JINJA_MUL:
        over = __builtin_mul_overflow(a, b, &out);
        break;
    case JINJA_DIV:
        if (b == 0) by_zero(run);
        return jinja_real((double)a / (double)b);
    case JINJA_POW:
        return power(run, a, b);
    default:
        if (b == 0) by_zero(run);
        if (b == -1) { // the smallest number by -1 does not fit
            over = __builtin_sub_overflow((jinja_int)0, a, &out);
            if (op == JINJA_MOD) return jinja_number(0);
            break;
        }
        out = op == JINJA_FLOOR ? a / b : a % b;
        if (a % b != 0 && (a < 0) != (b < 0)) out += op == JINJA_FLOOR ? -1 : b; // towards minus infinity
    }
    if (over) too_large(run);
    return jinja_number(out);
}

static jinja_value with_reals(struct jinja_run *run, enum jinja_operator op, double a, double b)
{
    double rest;
    const bool zero = !(b < 0 || b > 0 || b != b);
    switch (op) {
    case JINJA_ADD:
        return jinja_real(a + b);
    case JINJA_SUB:
        return jinja_real(a - b);
    case JINJA_MUL:
        return jinja_real(a * b);
    case JINJA_DIV:
        if (zero) by_zero(run);
        return jinja_real(a / b);
    case JINJA_POW:
        if (!(a < 0 || a > 0 || a != a) && b < 0) gyre_jinja_raise(run, "0.0 cannot be raised to a negative power");
        return jinja_real(pow(a, b));
    default:
        if (zero) by_zero(run);
        rest = fmod(a, b);
        if ((rest < 0 || rest > 0) && (rest < 0) != (b < 0)) rest += b;
        return jinja_real(op == JINJA_MOD ? rest : round((a - rest) / b));
    }
}

// ---- texts and lists --------------------------------------------------------------------------------

static jinja_value escaped(struct jinja_run *run, jinja_value v)
{
    return v.string->markup ? v : gyre_jinja_escape(run, v);
}

static jinja_value join(struct jinja_run *run, jinja_value a, jinja_value b)
{
    const bool markup = a.string->markup || b.string->markup;
    struct jinja_build out = {.run = run};
    gyre_jinja_put_string(&out, (markup ? escaped(run, a) : a).string);
    gyre_jinja_put_string(&out, (markup ? escaped(run, b) : b).string);
    return gyre_jinja_markup(run, gyre_jinja_built(&out), markup);
}

static jinja_value joined_lists(struct jinja_run *run, jinja_value a, jinja_value b)
{
    const jinja_value out = gyre_jinja_list(run, a.kind, a.list->n + b.list->n);
    if (a.list->n) memcpy(out.list->item, a.list->item, a.list->n * sizeof a);
    if (b.list->n) memcpy(out.list->item + a.list->n, b.list->item, b.list->n * sizeof a);
    return out;
}

static jinja_value repeated(struct jinja_run *run, jinja_value v, jinja_int times)
{
    const uint64_t one = v.kind == JINJA_STRING ? v.string->bytes : v.list->n;
    uint64_t total;
    if (times < 0) times = 0;
    if (times > INT64_MAX || !gyre_mul_u64(one, (uint64_t)times, &total)) gyre_jinja_limit(run, "512 MiB of memory");
    if (one == 0) times = 0; // however often
    gyre_jinja_work(run, (uint64_t)times);
    if (v.kind == JINJA_STRING) {
        struct jinja_build out = {.run = run};
        while (times--) gyre_jinja_put_string(&out, v.string);
        return gyre_jinja_markup(run, gyre_jinja_built(&out), v.string->markup);
    }
    const jinja_value out = gyre_jinja_list(run, v.kind, total);
    for (uint64_t i = 0; i < total; i++) out.list->item[i] = v.list->item[i % one];
    return out;
}

static bool repeats(jinja_value v) { return v.kind == JINJA_STRING || jinja_is_list(v); }
static bool integral(jinja_value v) { return v.kind == JINJA_INT || v.kind == JINJA_BOOL; }

jinja_value gyre_jinja_operate(struct jinja_run *run, enum jinja_operator op, jinja_value a, jinja_value b)
{
    if (integral(a) && integral(b)) return with_integers(run, op, whole(a), whole(b));
    if (jinja_is_number(a) && jinja_is_number(b))
        return with_reals(run, op, gyre_jinja_double(a), gyre_jinja_double(b));
    if (op == JINJA_ADD && a.kind == JINJA_STRING && b.kind == JINJA_STRING) return join(run, a, b);
    if (op == JINJA_ADD && jinja_is_list(a) && a.kind == b.kind) return joined_lists(run, a, b);
    if (op == JINJA_MUL && repeats(a) && integral(b)) return repeated(run, a, whole(b));
    if (op == JINJA_MUL && repeats(b) && integral(a)) return repeated(run, b, whole(a));
    if (op == JINJA_MOD && a.kind == JINJA_STRING) return gyre_jinja_percent(run, a.string, b);
    unsupported(run, op, a, b);
}

jinja_value gyre_jinja_negate(struct jinja_run *run, jinja_value v, bool minus)
{
    if (v.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, v);
    if (v.kind == JINJA_FLOAT) return jinja_real(minus ? -v.real : v.real);
    if (!integral(v))
        gyre_jinja_raise(run, "bad operand type for unary %c: '%s'", minus ? '-' : '+', gyre_jinja_type(v));
    return with_integers(run, minus ? JINJA_SUB : JINJA_ADD, 0, whole(v));
}

jinja_value gyre_jinja_concat(struct jinja_run *run, const jinja_value *item, uint64_t n)
{
    struct jinja_build out = {.run = run};
    for (uint64_t i = 0; i < n; i++) gyre_jinja_put_str(&out, item[i]);
    return gyre_jinja_built(&out);
}
