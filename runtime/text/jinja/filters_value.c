// Filters about numbers, JSON and values of any kind. See value.h.
#include "runtime/text/jinja/value.h"

#include "runtime/util/json_wide.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

static jinja_value absolute(ARGS)
{
    UNUSED;
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (!jinja_is_number(self)) gyre_jinja_raise(run, "bad operand type for abs(): '%s'", gyre_jinja_type(self));
    if (self.kind == JINJA_FLOAT) return jinja_real(fabs(self.real));
    const jinja_int i = self.kind == JINJA_BOOL ? self.flag : self.integer;
    return i < 0 ? gyre_jinja_negate(run, self, true) : jinja_number(i);
}

static jinja_value to_int(ARGS)
{
    UNUSED;
    const jinja_value otherwise = given[0].kind == JINJA_MISSING ? jinja_number(0) : given[0];
    const int64_t base = given[1].kind == JINJA_MISSING ? 10 : gyre_jinja_index(run, given[1], "base");
    jinja_int i;
    double f;
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (self.kind == JINJA_INT) return self;
    if (self.kind == JINJA_BOOL) return jinja_number(self.flag);
    if (self.kind == JINJA_FLOAT) return gyre_jinja_float_to_int(self.real, &i) ? jinja_number(i) : otherwise;
    if (self.kind != JINJA_STRING) return otherwise;
    const bool based = base == 0 || (base >= 2 && base <= 36);
    if (based && gyre_jinja_parse_int(self.string->data, self.string->bytes, (int)base, &i)) return jinja_number(i);
    if (gyre_jinja_parse_float(self.string, &f) && gyre_jinja_float_to_int(f, &i)) return jinja_number(i);
    return otherwise;
}

static jinja_value to_float(ARGS)
{
    UNUSED;
    double f;
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (jinja_is_number(self)) return jinja_real(gyre_jinja_double(self));
    if (self.kind == JINJA_STRING && gyre_jinja_parse_float(self.string, &f)) return jinja_real(f);
    return given[0].kind == JINJA_MISSING ? jinja_real(0) : given[0];
}

// Exactly rounded, halves to even, as the C library prints.
static double rounded(double value, int digits)
{
    char text[800];
    if (!isfinite(value)) return value;
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", GYRE_MIN(digits, 320), value);
        return strtod(text, NULL);
    }
    const double unit = pow(10, -digits);
    return isfinite(unit) ? nearbyint(value / unit) * unit : 0;
}

// To tens, hundreds and so on (digits below 0), halves to even.
static jinja_int rounded_whole(struct jinja_run *run, jinja_int value, int digits)
{
    enum { MOST = 38 }; // 10^38 is the largest power that there is
    jinja_int unit = 1, out;
    if (digits < -MOST) return 0; // no number is half of 10^39
    for (int i = 0; i < -digits; i++) unit *= 10;
    jinja_int rest = value % unit, times = value / unit;
    if (rest < 0) rest = -rest;
    if (rest > unit - rest || (rest == unit - rest && times % 2)) times += value < 0 ? -1 : 1;
    if (__builtin_mul_overflow(times, unit, &out)) gyre_jinja_limit(run, "128 bits of an integer");
    return out;
}

static jinja_value round_(ARGS)
{
    UNUSED;
    const int64_t digits = given[0].kind == JINJA_MISSING ? 0 : gyre_jinja_index(run, given[0], "precision");
    const int n = digits > 400 ? 400 : digits < -400 ? -400 : (int)digits;
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (!jinja_is_number(self)) gyre_jinja_raise(run, "type %s doesn't define __round__ method", gyre_jinja_type(self));
    const struct jinja_string *how = given[1].kind == JINJA_STRING ? given[1].string : NULL;
    if (given[1].kind != JINJA_MISSING &&
        (!how || (!gyre_jinja_is(how, "common") && !gyre_jinja_is(how, "ceil") && !gyre_jinja_is(how, "floor"))))
        gyre_jinja_raise(run, "method must be common, ceil or floor");
    const double value = gyre_jinja_double(self), unit = pow(10, n);
    if (!how || gyre_jinja_is(how, "common")) {
        if (self.kind == JINJA_FLOAT) return jinja_real(rounded(value, n));
        const jinja_int whole = self.kind == JINJA_BOOL ? self.flag : self.integer;
        return jinja_number(n >= 0 ? whole : rounded_whole(run, whole, n));
    }
    return jinja_real((gyre_jinja_is(how, "ceil") ? ceil(value * unit) : floor(value * unit)) / unit);
}

static jinja_value default_(ARGS)
{
    UNUSED;
    const bool absent = self.kind == JINJA_UNDEFINED || (gyre_jinja_true(given[1]) && !gyre_jinja_true(self));
    return !absent ? self : given[0].kind == JINJA_MISSING ? gyre_jinja_text(run, "") : given[0];
}

static jinja_value attr(ARGS)
{
    UNUSED;
    jinja_value out;
    const jinja_value name = gyre_jinja_str(run, given[0]);
    const char *text = gyre_jinja_c_text(run, name.string);
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (gyre_jinja_own_attribute(run, self, text, &out)) return out;
    return gyre_jinja_undefined(run, "'%s object' has no attribute '%s'", gyre_jinja_type(self), text);
}

static jinja_value tojson(ARGS) { return UNUSED, gyre_jinja_tojson(run, self, given); }

static jinja_value from_json(ARGS)
{
    UNUSED;
    if (self.kind == JINJA_UNDEFINED) gyre_jinja_use_undefined(run, self);
    if (self.kind != JINJA_STRING) gyre_jinja_raise(run, "from_json needs a str, not %s", gyre_jinja_type(self));
    json_error_t why;
    gyre_jinja_work(run, self.string->bytes); // which may not come back: before anything is ours
    json_t *json = gyre_json_load_wide(self.string->data, self.string->bytes, JSON_DECODE_ANY, &why);
    if (!json) gyre_jinja_raise(run, "from_json: %.200s", why.text);
    if (json_array_append_new(run->documents, json)) gyre_jinja_limit(run, "the memory that this machine has");
    return gyre_jinja_from_json(run, json, self.string->input || self.string->plain);
}

const struct jinja_builtin gyre_jinja_value_filters[] = {
    {"abs", absolute, "", 0},
    {"attr", attr, "name", 1},
    {"d", default_, "default_value,boolean", 0},
    {"default", default_, "default_value,boolean", 0},
    {"float", to_float, "default", 0},
    {"from_json", from_json, "", 0},
    {"int", to_int, "default,base", 0},
    {"round", round_, "precision,method", 0},
    {"tojson", tojson, "ensure_ascii,indent,separators,sort_keys", 0},
};
const uint64_t gyre_jinja_n_value_filters = GYRE_COUNT(gyre_jinja_value_filters);
