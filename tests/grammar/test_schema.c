// Which texts a schema's grammar accepts, and that whatever it lets through validates; which schemas are refused, and
// how.
#include "tests/grammar/lab.h"

#include "tests/common/comma.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"

#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct lab lab;

static gyre_grammar *grammar_of(const char *schema, bool compact)
{
    const gyre_grammar_params params = {.size = sizeof params, .compact = compact};
    gyre_grammar *g = NULL;
    OK(gyre_grammar_of_schema(lab.vocabulary, schema, schema ? strlen(schema) : 0, &params, &g, err));
    return g;
}

// yes: whole texts; no: what is no beginning of one; begun: beginnings that are not whole. Lists end with NULL.
static const struct {
    const char *schema, *yes[10], *no[12], *begun[6];
} cases[] = {
    {"{\"type\":\"null\"}", {"null"}, {"nul1", "nullx", "null ", " null", "true"}, {"nu", ""}},
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "tr1", "1"}, {"t"}},
    {"{\"type\":\"integer\"}",
     {"0", "-1", "123456789012345"},
     {"01", "1.", "+1", "1234567890123456", "1e3", "--1"},
     {"-"}},
    {"{\"type\":\"number\"}",
     {"0", "-0.5", "1e5", "12.25E-07"},
     {".5", "1.e", "1e123", "00", "1.2.3"},
     {"1.", "1e", "1e+"}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":345}",
     {"-12", "-9", "0", "9", "99", "345", "340", "100"},
     {"-13", "346", "350", "1000", "-20", "400", "-100"},
     {"-"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":12}",
     {"10", "11"},
     {"9", "12", "2", "100", "0"},
     {"1"}},
    {"{\"type\":\"integer\",\"minimum\":7}", {"7", "10", "69", "7000"}, {"0", "-"}, {"1", "2", "6"}},
    {"{\"type\":\"integer\",\"maximum\":-7}", {"-7", "-10", "-69"}, {"-6x", "0", "7", "-0"}, {"-", "-6"}},
    {"{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":2.5}", {"1", "2"}, {"0", "3"}, {""}},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":1,\"maximum\":50}",
     {"7", "14", "49"},
     {"56", "0", "51", "8x"},
     {"1", "4"}},
    {"{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":2.25}",
     {"-1.5", "-1.49", "-0.0", "0", "2.25", "2.250", "2.2499", "1.999"},
     {"-1.51", "-1.501", "2.251", "2.26", "2.3", "3", "-2", "1e0"},
     {"2.", "-"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}",
     {"0.1", "0.001", "0.999"},
     {"1", "-0", "-"},
     {"0", "0.0", "0.00"}},
    {"{\"type\":\"number\",\"exclusiveMaximum\":0}", {"-1", "-0.1"}, {"0", "1"}, {"-0", "-0.0"}},
    {"{\"type\":\"number\",\"minimum\":0.1,\"maximum\":1e-1}", {"0.1", "0.10"}, {"0.11", "0.2", "1", "-"}, {"0", "0."}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a\\n\\u00e9\\ud83d\\ude00\\/\"", "\"\xC3\xA9\xF0\x9F\x98\x80\"", "\"<\""},
     {"\"\n", "\"\x7F", "\"\\x", "\"\\ud83dx", "\"\\ude00", "\"\\ud83d\\u0041", "\"\xFF", "\"\xC0\x80",
      "\"\xED\xA0\x80", "x"},
     {"\"", "\"\\u00", "\"\\ud83d", "\"\xF0\x9F"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"\xF0\x9F\x98\x80\xC3\xA9z\"", "\"\\u0041\\ud83d\\ude00\"", "\"\\\"\\\\\""},
     {"\"a\"", "\"abcd", "\"\"", "\"ab\xC3\xA9z"},
     {"\"a", "\"abc"}},
    {"{\"type\":\"string\",\"maxLength\":0}", {"\"\""}, {"\"a", "\" "}, {"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-c]{2,3}$\"}", {"\"ab\"", "\"abc\""}, {"\"a\"", "\"abca", "\"d"}, {"\"a"}},
    {"{\"type\":\"string\",\"pattern\":\"^a\",\"maxLength\":250}", {"\"a\"", "\"ab\\n\""}, {"\"b"}, {"\""}},
    {"{\"type\":\"string\",\"pattern\":\"b\"}",
     {"\"b\"", "\"abc\"",
      "\"\xC3\xA9"
      "b\\n\""},
     {"\"a\"", "\"\""},
     {"\"aa"}},
    {"{\"type\":\"string\",\"pattern\":\"^a|b$\"}",
     {"\"a\"", "\"axx\"", "\"xb\"", "\"b\""},
     {"\"x\""},
     {"\"x", "\"xbx"}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\d+(\\\\.\\\\w*)?\\\\s?[^x\\\"]\\\\u0041$\"}",
     {"\"1.a_ yA\"", "\"12 ,A\"", "\"1\\\\A\""},
     {"\"a", "\"1\\\"", "\"1xA"},
     {"\"1."}},
    {"{\"type\":\"string\",\"pattern\":\"^(?:ab*?|(?<n>c+))+$\",\"maxLength\":4}",
     {"\"a\"", "\"abbb\"", "\"cacc\""},
     {"\"b", "\"abbba", "\"\""},
     {"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\\s\\\\S]$\"}",
     {"\"\\n\"", "\"\\\"\"", "\"x\"", "\"\xF0\x9F\x98\x80\""},
     {"\"xx", "\"\n"},
     {"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^.$\"}", {"\"x\"", "\"\\t\""}, {"\"\\n", "\"\\r"}, {"\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-28\""},
     {"\"2024-13", "\"2024-02-30", "\"24-"},
     {"\"2024-"}},
    {"{\"type\":\"string\",\"format\":\"uuid\"}",
     {"\"0123abcd-0000-4000-8000-0123456789ab\""},
     {"\"g", "\"0123abcd0"},
     {"\"0123abcd-"}},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}", {"\"255.0.10.199\""}, {"\"256", "\"1.1.1.1.", "\"01"}, {"\"1.1.1"}},
    {"{\"enum\":[\"a\\\"\\u00e9\",1,1.5,null,[1,{\"b\":true}]]}",
     {"\"a\\\"\xC3\xA9\"", "1", "1.5", "null", "[1,{\"b\":true}]"},
     {"2", "\"b", "[1, "},
     {"1.", "[1,{"}},
    {"{\"type\":\"string\",\"enum\":[\"a\",1]}", {"\"a\""}, {"1"}, {"\""}},
    {"{\"const\":{\"x\":0.1}}", {"{\"x\":0.1}"}, {"{\"x\":0.10", "{ "}, {"{\"x\":0."}},
    {"{\"type\":[\"string\",\"null\"],\"maxLength\":1}", {"null", "\"x\""}, {"1", "\"xx"}, {"n"}},
    {"{\"minimum\":3,\"maxLength\":1}", {"null", "\"x\"", "3", "[1]", "{\"a\":2}"}, {"2x", "\"xx", "-"}, {"1"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
     {"[1]", "[1, 2]", "[\n    1,\n    2,\n    3\n]"},
     {"[]", "[1,2,3,", "[,", "[1,]", "[1 ,", "[1,  2"},
     {"[1,", "["}},
    {"{\"type\":\"array\",\"items\":{\"const\":1},\"minItems\":3}",
     {"[1,1,1]", "[1,1,1,1,1]"},
     {"[1,1]", "[1]"},
     {"[1,1"}},
    {"{\"type\":\"array\",\"maxItems\":0}", {"[]", "[ ]"}, {"[1", "[["}, {"["}},
    {"{\"type\":\"array\",\"items\":false}", {"[]"}, {"[1"}, {"["}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":false}",
     {"[]", "[1]", "[1,2]"},
     {"[2", "[1,2,"},
     {"[1,"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3},\"minItems\":2,"
     "\"maxItems\":4}",
     {"[1,2]", "[1,2,3]", "[1,2,3,3]"},
     {"[]", "[1]", "[1,3", "[1,2,3,3,"},
     {"[1,2,3,"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}},\"required\":[\"b\"]}",
     {"{\"a\":1,\"b\":2}", "{\"b\": 2}", "{\n \"a\": 1,\n \"b\": 2\n}"},
     {"{}", "{\"a\":1}", "{\"b\":2,", "{\"c", "{\"b\":2,\"a\"", "{\"a\":1,\"a\"", "{\"a\" "},
     {"{\"a\":1,", "{"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},\"c\":{\"const\":3}}}",
     {"{}", "{\"a\":1}", "{\"c\":3}", "{\"a\":1,\"c\":3}", "{\"b\":2,\"c\":3}"},
     {"{\"c\":3,", "{,", "{\"a\":1,}"},
     {"{\"a\":1,\""}},
    {"{\"type\":\"object\",\"properties\":{\"ab\":{\"const\":1}},\"additionalProperties\":{\"const\":2}}",
     {"{}", "{\"ab\":1}", "{\"a\":2}", "{\"abc\":2}", "{\"ab\":1,\"x\":2,\"\":2}"},
     {"{\"ab\":2", "{\"x\":1", "{\"x\":2,\"ab\""},
     {"{\"ab", "{\"x\":2,\"ab"}},
    {"{\"type\":\"object\",\"required\":[\"k\"],\"additionalProperties\":{\"const\":2}}",
     {"{\"k\":2}", "{\"k\":2,\"l\":2}"},
     {"{}", "{\"l\":2", "{\"k\":1"},
     {"{"}},
    {"{\"type\":\"object\"}", {"{}", "{\"a\\n\": [1, null, {\"b\": \"\"}]}"}, {"[", "{1", "{\"a\"}"}, {"{\"a"}},
    {"{\"anyOf\":[{\"type\":\"string\",\"maxLength\":1},{\"const\":\"long\"},{\"type\":\"integer\"}]}",
     {"\"x\"", "\"long\"", "5"},
     {"\"lo\"", "\"longer", "\"xy"},
     {"\"l", "\"lon"}},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", {"\"x\"", "5"}, {"null"}, {"\""}},
    // A property that one of them requires is enough, whichever of the two.
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":1}},\"required\":[\"t\"]},{\"type\":\"object\","
     "\"properties\":{\"t\":{\"const\":2}}},{\"type\":\"object\",\"properties\":{\"u\":{\"const\":3},\"t\":{\"const\":"
     "3}},"
     "\"required\":[\"u\",\"t\"],\"additionalProperties\":false}]}",
     {"{\"t\":1}", "{\"t\":2}", "{}", "{\"u\":3,\"t\":3}"},
     {"{\"t\":3", "{\"u\":3}"},
     {"{\"u\":3"}},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"},\"x\":{\"const\":1}},\"required\":["
     "\"t\"]},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"b\"}},\"required\":[\"t\"]}]}",
     {"{\"t\":\"a\"}", "{\"t\":\"b\"}", "{\"t\":\"a\",\"x\":1}"},
     {"{\"t\":\"b\",", "{}"},
     {"{\"t\":\""}},
    {"{\"allOf\":[{\"$ref\":\"#/$defs/x~1y%20z\"}],\"$defs\":{\"x/y z\":{\"const\":1}}}", {"1"}, {"2"}, {""}},
    {"{\"$ref\":\"#/$defs/"
     "t\",\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/"
     "$defs/t\"}}},\"required\":[\"k\"]}}}",
     {"{\"k\":[]}", "{\"k\":[{\"k\":[]},{\"k\":[{\"k\":[]}]}]}"},
     {"{}", "{\"k\":[1"},
     {"{\"k\":[{\"k\":["}},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"const\":1}]}", {"1"}, {"2"}, {""}},
    {"true", {"1", "\"\"", "[{}]"}, {"x"}, {""}},
    {"{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$id\":\"x\",\"$schema\":\"y\",\"$"
     "comment\":\"z\",\"const\":1}",
     {"1"},
     {"2"},
     {""}},
};

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_grammar *g = grammar_of(cases[i].schema, false);
        for (size_t k = 0; k < GYRE_COUNT(cases[i].yes) && cases[i].yes[k]; k++)
            if (lab_accepts(&lab, g, cases[i].yes[k]) != 1)
                fail_msg("%s does not accept %s", cases[i].schema, cases[i].yes[k]);
        for (size_t k = 0; k < GYRE_COUNT(cases[i].no) && cases[i].no[k]; k++) {
            // A text is wrong where it has no end: closed by what cannot go on, "[]" under minItems 1 is none.
            const int got = lab_accepts(&lab, g, cases[i].no[k]);
            if (got != -1) fail_msg("%s takes %s (%d)", cases[i].schema, cases[i].no[k], got);
        }
        for (size_t k = 0; k < GYRE_COUNT(cases[i].begun) && cases[i].begun[k]; k++)
            if (lab_accepts(&lab, g, cases[i].begun[k]) != 0)
                fail_msg("%s: %s is no beginning, or whole", cases[i].schema, cases[i].begun[k]);
        gyre_grammar_destroy(g);
    }
}

// Without white space, and json_object.
static void test_forms(void **state)
{
    (void)state;
    gyre_grammar *g = grammar_of("{\"type\":\"array\",\"items\":{\"type\":\"object\"}}", true);
    assert_int_equal(lab_accepts(&lab, g, "[{\"a\":1},{}]"), 1);
    assert_int_equal(lab_accepts(&lab, g, "[{\"a\": "), -1);
    assert_int_equal(lab_accepts(&lab, g, "[ "), -1);
    gyre_grammar_destroy(g);
    g = grammar_of(NULL, false);
    assert_int_equal(lab_accepts(&lab, g, "{\"a\": [true, {\"b\": null}]}"), 1);
    assert_int_equal(lab_accepts(&lab, g, "["), -1);
    assert_int_equal(lab_accepts(&lab, g, "{}x"), -1);
    gyre_grammar_destroy(g);
}

// What comes out of random choices is JSON and validates; every text can end.
static void test_walks(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(5);
    unsigned ended = 0;
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_grammar *g = grammar_of(cases[i].schema, i % 2);
        json_t *schema = json_loads(cases[i].schema, JSON_DECODE_ANY, NULL);
        for (unsigned k = 0; k < 8; k++) {
            bool whole;
            char *text = lab_walk(&lab, g, &rng, 150, &whole);
            json_t *value = whole ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
            if (whole && !value) fail_msg("%s: %s is no JSON", cases[i].schema, text);
            // The validator knows references by their last name only, follows circles for ever, ends at a NUL.
            const char *why =
                whole && !strstr(cases[i].schema, "~1") && !strstr(cases[i].schema, "\"#\"") && !strstr(text, "\\u0000")
                    ? lab_violates(value, schema, schema)
                    : NULL;
            if (why) fail_msg("%s: %s: %s", cases[i].schema, text, why);
            ended += whole;
            json_decref(value);
            free(text);
        }
        json_decref(schema);
        gyre_grammar_destroy(g);
    }
    assert_true(ended > 6 * GYRE_COUNT(cases));
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *schema;
        gyre_status status;
        const char *says[3];
    } refused[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"uniqueItems\":true}}}",
         GYRE_E_UNSUPPORTED,
         {"uniqueItems", "#/properties/a"}},
        {"{\"type\":\"string\",\"maxLenght\":3}", GYRE_E_UNSUPPORTED, {"maxLenght"}},
        {"{\"patternProperties\":{}}", GYRE_E_UNSUPPORTED, {"patternProperties"}},
        {"{\"not\":{}}", GYRE_E_UNSUPPORTED, {"\"not\""}},
        {"{\"if\":{},\"then\":{}}", GYRE_E_UNSUPPORTED, {"\"if\""}},
        {"{\"anyOf\":[{\"type\":\"null\"}],\"type\":\"object\"}", GYRE_E_UNSUPPORTED, {"type", "beside \"anyOf\""}},
        {"{\"$ref\":\"#\",\"minimum\":1}", GYRE_E_UNSUPPORTED, {"minimum", "$ref"}},
        {"{\"enum\":[1],\"minimum\":1}", GYRE_E_UNSUPPORTED, {"minimum", "enum"}},
        {"{\"allOf\":[{},{}]}", GYRE_E_UNSUPPORTED, {"allOf"}},
        {"{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}", GYRE_E_UNSUPPORTED, {"oneOf", "0 and 1"}},
        {"{\"type\":\"string\",\"format\":\"iri\"}", GYRE_E_UNSUPPORTED, {"format", "iri"}},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)b\"}", GYRE_E_UNSUPPORTED, {"pattern", "ahead"}},
        {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", GYRE_E_UNSUPPORTED, {"pattern", "reference"}},
        {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}", GYRE_E_UNSUPPORTED, {"pattern", "boundary"}},
        {"{\"type\":\"string\",\"pattern\":\"(a\"}", GYRE_E_UNSUPPORTED, {"pattern", "no end"}},
        {"{\"type\":\"string\",\"pattern\":\"a{5000}\"}", GYRE_E_UNSUPPORTED, {"pattern", "1000"}},
        {"{\"type\":\"string\",\"pattern\":\"^((a{1000}){1000}){1000}$\"}", GYRE_E_UNSUPPORTED, {"states"}},
        {"{\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){20}$\"}}}",
         GYRE_E_UNSUPPORTED,
         {"#/properties/a", "\"pattern\"", "states"}},
        // Sets of so many places that they, and not their number, are what is too large.
        {"{\"items\":{\"type\":\"string\",\"pattern\":\"^(x{0,1000}){0,20}$\"}}",
         GYRE_E_UNSUPPORTED,
         {"#/items", "\"pattern\"", "states"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[a-z]*(ab|cd){1,30}[a-z]*$\",\"maxLength\":"
         "400}}",
         GYRE_E_UNSUPPORTED,
         {"#/items", "\"maxLength\"", "states"}},
        {"{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"string\",\"format\":\"email\",\"pattern\":"
         "\"^.{0,150}$\"}}}",
         GYRE_E_UNSUPPORTED,
         {"#/properties/b", "\"format\"", "states"}},
        // Told apart by a property that both must have, and not by one that neither must.
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":1}}},{\"type\":\"object\",\"properties\":{"
         "\"t\":{\"const\":2}}}]}",
         GYRE_E_UNSUPPORTED,
         {"oneOf", "0 and 1"}},
        {"{\"type\":\"number\",\"multipleOf\":0.1}", GYRE_E_UNSUPPORTED, {"multipleOf"}},
        {"{\"type\":\"number\",\"minimum\":1e-20}", GYRE_E_UNSUPPORTED, {"minimum"}},
        {"{\"$ref\":\"http://x/y\"}", GYRE_E_UNSUPPORTED, {"$ref", "http://x/y"}},
        {"{\"items\":[{}]}", GYRE_E_UNSUPPORTED, {"items", "prefixItems"}},
        {"{\"$ref\":\"#/$defs/none\"}", GYRE_E_FORMAT, {"$ref", "none"}},
        {"{\"type\":\"wobble\"}", GYRE_E_FORMAT, {"wobble"}},
        {"{\"type\":7}", GYRE_E_FORMAT, {"type"}},
        {"{\"type\":\"object\",\"properties\":[]}", GYRE_E_FORMAT, {"properties"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":5}}", GYRE_E_FORMAT, {"#/properties/a"}},
        {"{\"type\":\"object\",\"required\":\"a\"}", GYRE_E_FORMAT, {"required"}},
        {"{\"type\":\"string\",\"minLength\":-1}", GYRE_E_FORMAT, {"minLength"}},
        {"{\"type\":\"string\",\"minLength\":\"3\"}", GYRE_E_FORMAT, {"minLength"}},
        {"{\"enum\":5}", GYRE_E_FORMAT, {"enum"}},
        {"{\"anyOf\":[]}", GYRE_E_FORMAT, {"anyOf"}},
        {"{\"type\":\"integer\",\"minimum\":\"x\"}", GYRE_E_FORMAT, {"minimum"}},
        {"5", GYRE_E_FORMAT, {"#"}},
        {"[]", GYRE_E_FORMAT, {"#"}},
        {"{", GYRE_E_FORMAT, {"line 1"}},
        {"{\"type\":\"null\",\"type\":\"null\"}", GYRE_E_FORMAT, {"duplicate"}},
        // No value fits, or none that ends.
        {"false", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"enum\":[]}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"type\":\"string\",\"enum\":[1]}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"type\":\"string\",\"pattern\":\"^a$\",\"minLength\":2}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":1}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
         GYRE_E_UNSUPPORTED,
         {"no finite value"}},
        {"{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#\"}},\"required\":[\"n\"]}",
         GYRE_E_UNSUPPORTED,
         {"no finite value"}},
        {"{\"$ref\":\"#\"}", GYRE_E_UNSUPPORTED, {"no finite value"}},
        {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/b\"}]},\"b\":{\"$ref\":\"#/$defs/"
         "a\"}}}",
         GYRE_E_UNSUPPORTED,
         {"no finite value"}},
    };
    for (size_t i = 0; i < GYRE_COUNT(refused); i++) {
        gyre_grammar *g = NULL;
        gyre_error why = {0};
        const gyre_status st =
            gyre_grammar_of_schema(lab.vocabulary, refused[i].schema, strlen(refused[i].schema), NULL, &g, &why);
        if (st != refused[i].status || g) fail_msg("%s: status %d (%s)", refused[i].schema, st, why.message);
        for (size_t k = 0; k < 3 && refused[i].says[k]; k++)
            if (!strstr(why.message, refused[i].says[k]))
                fail_msg("%s: \"%s\" does not say %s", refused[i].schema, why.message, refused[i].says[k]);
        if (strchr(why.message, '\n')) fail_msg("%s: more than one line", refused[i].schema);
    }
}

// A chain that can be written down ends, however deep it goes; one that must be deeper than the stack is refused.
static void test_deep(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(2);
    bool whole;
    gyre_grammar *g =
        grammar_of("{\"$ref\":\"#/$defs/"
                   "l\",\"$defs\":{\"l\":{\"anyOf\":[{\"const\":0},{\"type\":\"array\",\"prefixItems\":[{\"$ref\":\"#/"
                   "$defs/l\"},{\"$ref\":\"#/$defs/l\"}],\"minItems\":2,\"items\":false}]}}}",
                   true);
    for (unsigned k = 0; k < 10; k++) free(lab_walk(&lab, g, &rng, 3000, &whole)); // never gets stuck
    char *text = malloc(2000);
    assert_non_null(text);
    memset(text, '[', 1000);
    text[1000] = 0;
    assert_int_equal(lab_accepts(&lab, g, text), -1); // deeper than the stack
    text[200] = 0;
    assert_int_equal(lab_accepts(&lab, g, text), 0);
    gyre_grammar_destroy(g);

    enum { DEEP = 600 }; // nested required arrays
    char *schema = malloc(DEEP * 60 + 100), *at = schema;
    assert_non_null(schema);
    for (unsigned i = 0; i < DEEP; i++) at += sprintf(at, "{\"type\":\"array\",\"minItems\":1,\"items\":");
    at += sprintf(at, "{\"type\":\"null\"}");
    for (unsigned i = 0; i < DEEP; i++) at += sprintf(at, "}");
    gyre_error why = {0};
    g = NULL;
    assert_int_equal(gyre_grammar_of_schema(lab.vocabulary, schema, strlen(schema), NULL, &g, &why),
                     GYRE_E_UNSUPPORTED);
    if (!strstr(why.message, "deep")) fail_msg("%s", why.message);
    free(schema);
    free(text);
}

// Large schemas: many properties and values work, too many are refused; nothing takes long.
static void test_large(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(3);
    char *schema = malloc(4 << 20), *at = schema;
    bool whole;
    assert_non_null(schema);
    at += sprintf(at, "{\"type\":\"object\",\"properties\":{");
    for (unsigned i = 0; i < 500; i++)
        at += sprintf(at, "%s\"p%u\":{\"enum\":[\"v%u\",\"w%u\"]}", i ? "," : "", i, i, i);
    sprintf(at, "}}");
    gyre_grammar *g = grammar_of(schema, true);
    free(lab_walk(&lab, g, &rng, 60, &whole));
    assert_int_equal(lab_accepts(&lab, g, "{\"p7\":\"v7\",\"p499\":\"w499\"}"), 1);
    gyre_grammar_destroy(g);
    at = schema + sprintf(schema, "{\"enum\":[");
    for (unsigned i = 0; i < 60000; i++) at += sprintf(at, "%s%u", i ? "," : "", 100000 + i);
    sprintf(at, "]}");
    gyre_error why = {0};
    g = NULL;
    assert_int_equal(gyre_grammar_of_schema(lab.vocabulary, schema, strlen(schema), NULL, &g, &why),
                     GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(why.message, "enum"));
    free(schema);
}

// Matchers outlive the grammar's handle; a token that is not allowed changes nothing; after the end only the end.
static void test_matchers(void **state)
{
    (void)state;
    gyre_grammar *g = grammar_of("{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}}", true);
    gyre_matcher *a = NULL, *b = NULL;
    const uint32_t words = (gyre_tokenizer_vocab(lab.tokenizer) + 31) / 32, end = 2;
    uint32_t allowed[64], *tokens = NULL;
    uint64_t n = 0;
    assert_true(words <= 64);
    OK(gyre_matcher_create(g, &a, err));
    OK(gyre_matcher_create(g, &b, err));
    gyre_grammar_destroy(g);
    OK(gyre_tokenizer_encode(lab.tokenizer, "[]", 2, 0, &tokens, &n, err));
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(gyre_matcher_accept(a, end, NULL), GYRE_E_INVALID);
        OK(gyre_matcher_accept(a, tokens[i], err));
    }
    assert_true(gyre_matcher_must_end(a));
    assert_false(gyre_matcher_may_end(b));
    for (unsigned twice = 0; twice < 2; twice++) {
        OK(gyre_matcher_allow(a, allowed, words, err));
        assert_int_equal(allowed[0], 5); // both end tokens, 0 and 2, and nothing else
        for (uint32_t i = 1; i < words; i++) assert_int_equal(allowed[i], 0);
        OK(gyre_matcher_accept(a, end, err));
    }
    assert_int_equal(gyre_matcher_accept(a, tokens[0], NULL), GYRE_E_INVALID);
    assert_int_equal(gyre_matcher_accept(b, 1, NULL), GYRE_E_INVALID);    // a control token
    assert_int_equal(gyre_matcher_accept(b, 9999, NULL), GYRE_E_INVALID); // none
    free(tokens);
    gyre_matcher_destroy(a);
    gyre_matcher_destroy(b);
}

// Memory does not grow with what is generated: states are forgotten and made again.
static void test_long(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(4);
    gyre_grammar *g = grammar_of("{\"type\":\"string\",\"minLength\":60000}", true);
    bool whole;
    char *text = lab_walk(&lab, g, &rng, 50000, &whole);
    assert_true(strlen(text) > 45000);
    free(text);
    gyre_grammar_destroy(g);
}

static int open_lab(void **state)
{
    (void)state;
    lab_open(&lab, files_path("grammar_schema"));
    return 0;
}

static int close_lab(void **state)
{
    (void)state;
    lab_close(&lab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),    cmocka_unit_test(test_forms), cmocka_unit_test(test_walks),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_deep),  cmocka_unit_test(test_large),
        cmocka_unit_test(test_matchers), cmocka_unit_test(test_long),
    };
    const struct CMUnitTest numbers[] = {cmocka_unit_test(test_texts)};
    int failed = cmocka_run_group_tests(tests, open_lab, close_lab);
    if (comma_set()) failed += cmocka_run_group_tests_name("with a comma", numbers, open_lab, close_lab);
    comma_reset();
    return failed;
}
