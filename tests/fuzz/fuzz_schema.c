// A schema: whatever becomes a grammar can be followed on a random way, never gets stuck, and what ends is JSON.
#include "tests/fuzz/target.h"
#include "tests/grammar/lab.h"

#include "tests/common/tiny.h"

#include <stdlib.h>
#include <string.h>

static struct lab *lab(void)
{
    static struct lab made;
    const struct tiny_options o = tiny_defaults();
    if (made.vocabulary) return &made;
    if (tiny_write_hf("fuzz_schema", &o) || gyre_source_open("fuzz_schema", &made.source, NULL) != GYRE_OK ||
        gyre_tokenizer_create(made.source, NULL, NULL, &made.tokenizer, NULL) != GYRE_OK ||
        gyre_vocabulary_create(made.tokenizer, &made.vocabulary, NULL) != GYRE_OK)
        exit(2);
    return &made;
}

static void walk(gyre_grammar *grammar, uint64_t seed)
{
    char text[4096];
    uint32_t allowed[16], at = 0;
    struct gyre_rng rng = gyre_rng_seed(seed);
    gyre_matcher *m = NULL;
    gyre_error err = {0};
    bool whole = false;
    if (gyre_matcher_create(grammar, &m, &err) != GYRE_OK) return;
    for (uint32_t i = 0; i < 60 && at + 256 < sizeof text; i++) {
        if (gyre_matcher_allow(m, allowed, 16, &err) != GYRE_OK) {
            if (strstr(err.message, "no token")) abort();
            break;
        }
        whole = gyre_matcher_may_end(m);
        if (whole && gyre_rng_below(&rng, 2)) break;
        uint32_t n = 0, token = 0, bytes;
        for (uint32_t t = 3; t < 512; t++)
            if ((allowed[t / 32] >> t % 32 & 1) && gyre_rng_below(&rng, ++n) == 0) token = t;
        if (!token) break;
        if (gyre_matcher_accept(m, token, &err) != GYRE_OK) abort(); // the mask said so
        const char *piece = gyre_tokenizer_bytes(lab()->tokenizer, token, &bytes);
        memcpy(text + at, piece, bytes);
        at += bytes;
        whole = false;
    }
    if (whole) {
        json_t *value = json_loadb(text, at, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (!value) abort();
        json_decref(value);
    }
    gyre_matcher_destroy(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gyre_grammar *g = NULL;
    gyre_error err = {0};
    const gyre_status st = gyre_grammar_of_schema(lab()->vocabulary, (const char *)data, size, NULL, &g, &err);
    if (st == GYRE_OK) walk(g, size);
    else if (!err.message[0] || strchr(err.message, '\n')) abort(); // no line of text
    gyre_grammar_destroy(g);
    return 0;
}

bool fuzz_seed(unsigned i, struct bytes *out)
{
    static const char *const seeds[] = {
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":12,\"pattern\":\"^[a-z\\\\d]+(x|"
        "y){2,3}$\"},"
        "\"b\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
        "n\"},\"minItems\":1,\"maxItems\":9}},\"required\":[\"b\"],"
        "\"additionalProperties\":{\"type\":\"boolean\"},\"$defs\":{\"n\":{\"type\":\"number\",\"minimum\":-1.25,"
        "\"maximum\":1e3}}}",
        "{\"anyOf\":[{\"const\":{\"x\":[1,null]}},{\"enum\":[\"a\",2.5,\"\\u00e9\"]},{\"oneOf\":[{\"type\":\"integer\","
        "\"multipleOf\":7},{\"type\":\"null\"}]},"
        "{\"$ref\":\"#\"}],\"title\":\"t\"}",
        "{\"type\":[\"array\",\"string\"],\"prefixItems\":[{\"format\":\"date-time\",\"type\":\"string\"},{}],"
        "\"items\":false,\"minLength\":2,\"minItems\":1}",
    };
    if (i >= sizeof seeds / sizeof *seeds) return false;
    put(out, seeds[i], strlen(seeds[i]));
    return true;
}
