// What stands behind `is`. See value.h.
#include "runtime/text/jinja/value.h"

#include <string.h>

#define ARGS struct jinja_run *run, jinja_value self, const jinja_value *given, const struct jinja_args *all
#define UNUSED (void)given, (void)all, (void)run, (void)self

static jinja_value defined(ARGS) { return UNUSED, jinja_bool(self.kind != JINJA_UNDEFINED); }
static jinja_value undefined(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_UNDEFINED); }
static jinja_value none(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_NONE); }
static jinja_value boolean(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_BOOL); }
static jinja_value true_(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_BOOL && self.flag); }
static jinja_value false_(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_BOOL && !self.flag); }
static jinja_value integer(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_INT); }
static jinja_value float_(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_FLOAT); }
static jinja_value number(ARGS) { return UNUSED, jinja_bool(jinja_is_number(self)); }
static jinja_value string(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_STRING); }
static jinja_value mapping(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_DICT); }
static jinja_value escaped(ARGS) { return UNUSED, jinja_bool(self.kind == JINJA_STRING && self.string->markup); }

static jinja_value callable(ARGS)
{
    UNUSED;
    return jinja_bool(self.kind == JINJA_FUNCTION || self.kind == JINJA_MACRO || self.kind == JINJA_JOINER ||
                      self.kind == JINJA_LOOP || self.kind == JINJA_UNDEFINED);
}

static jinja_value sequence(ARGS)
{
    UNUSED;
    return jinja_bool(self.kind == JINJA_STRING || jinja_is_list(self) || self.kind == JINJA_DICT ||
                      self.kind == JINJA_RANGE || self.kind == JINJA_UNDEFINED);
}

static jinja_value iterable(ARGS)
{
    UNUSED;
    const bool also = self.kind == JINJA_VIEW || self.kind == JINJA_GENERATOR || self.kind == JINJA_LOOP;
    return jinja_bool(also || sequence(run, self, given, all).flag);
}

static jinja_value divisible(ARGS)
{
    UNUSED;
    const jinja_value rest = gyre_jinja_operate(run, JINJA_MOD, self, given[0]);
    return jinja_bool(gyre_jinja_equal(run, rest, jinja_number(0)));
}

static jinja_value rest_is(struct jinja_run *run, jinja_value self, int want)
{
    return jinja_bool(
        gyre_jinja_equal(run, gyre_jinja_operate(run, JINJA_MOD, self, jinja_number(2)), jinja_number(want)));
}
static jinja_value even(ARGS) { return UNUSED, rest_is(run, self, 0); }
static jinja_value odd(ARGS) { return UNUSED, rest_is(run, self, 1); }

static jinja_value eq(ARGS) { return UNUSED, jinja_bool(gyre_jinja_equal(run, self, given[0])); }
static jinja_value ne(ARGS) { return UNUSED, jinja_bool(!gyre_jinja_equal(run, self, given[0])); }
static jinja_value lt(ARGS) { return UNUSED, jinja_bool(gyre_jinja_order(run, self, given[0]) == -1); }
static jinja_value gt(ARGS) { return UNUSED, jinja_bool(gyre_jinja_order(run, self, given[0]) == 1); }
static jinja_value in(ARGS) { return UNUSED, jinja_bool(gyre_jinja_contains(run, given[0], self)); }

static jinja_value le(ARGS)
{
    UNUSED;
    const int c = gyre_jinja_order(run, self, given[0]);
    return jinja_bool(c == -1 || c == 0);
}

static jinja_value ge(ARGS)
{
    UNUSED;
    const int c = gyre_jinja_order(run, self, given[0]);
    return jinja_bool(c == 1 || c == 0);
}

// The same object. Python keeps one of each small number, truth and name.
static jinja_value sameas(ARGS)
{
    UNUSED;
    if (self.kind != given[0].kind) return jinja_bool(false);
    if (jinja_is_list(self) || self.kind == JINJA_DICT || self.kind > JINJA_DICT)
        return jinja_bool(self.list == given[0].list);
    return jinja_bool(gyre_jinja_equal(run, self, given[0]));
}

static jinja_value in_case(struct jinja_run *run, jinja_value self, const char *question, const struct jinja_args *all)
{
    const jinja_value text = gyre_jinja_str(run, self);
    return gyre_jinja_find(gyre_jinja_text_questions, gyre_jinja_n_text_questions, question)
        ->call(run, text, NULL, all);
}
static jinja_value lower(ARGS) { return UNUSED, in_case(run, self, "islower", all); }
static jinja_value upper(ARGS) { return UNUSED, in_case(run, self, "isupper", all); }

const struct jinja_builtin gyre_jinja_tests[] = {
    {"boolean", boolean, "", 0},
    {"callable", callable, "", 0},
    {"defined", defined, "", 0},
    {"divisibleby", divisible, "num", 1},
    {"escaped", escaped, "", 0},
    {"even", even, "", 0},
    {"false", false_, "", 0},
    {"float", float_, "", 0},
    {"in", in, "seq", 1},
    {"integer", integer, "", 0},
    {"iterable", iterable, "", 0},
    {"lower", lower, "", 0},
    {"mapping", mapping, "", 0},
    {"none", none, "", 0},
    {"number", number, "", 0},
    {"odd", odd, "", 0},
    {"sameas", sameas, "other", 1},
    {"sequence", sequence, "", 0},
    {"string", string, "", 0},
    {"true", true_, "", 0},
    {"undefined", undefined, "", 0},
    {"upper", upper, "", 0},
    {"eq", eq, "other", 1},
    {"equalto", eq, "other", 1},
    {"==", eq, "other", 1},
    {"ne", ne, "other", 1},
    {"!=", ne, "other", 1},
    {"lt", lt, "other", 1},
    {"lessthan", lt, "other", 1},
    {"<", lt, "other", 1},
    {"le", le, "other", 1},
    {"<=", le, "other", 1},
    {"gt", gt, "other", 1},
    {"greaterthan", gt, "other", 1},
    {">", gt, "other", 1},
    {"ge", ge, "other", 1},
    {">=", ge, "other", 1},
};
const uint64_t gyre_jinja_n_tests = GYRE_COUNT(gyre_jinja_tests);
