// What is done to a text before it is cut into words: Unicode normal forms, replacements, a prefix, stripping. The
// steps are those of the `tokenizers` library's normalizers.
#pragma once
#include "runtime/text/pattern.h"

enum gyre_normal_kind {
    GYRE_NORMAL_UNICODE, // one of the four normal forms
    GYRE_NORMAL_PREFIX,  // puts `to` before a text
    GYRE_NORMAL_REPLACE, // every match of the pattern becomes `to`
    GYRE_NORMAL_STRIP    // no blanks at the ends
};

struct gyre_normal_step {
    enum gyre_normal_kind kind;
    bool compose, compatible; // UNICODE: NFC = compose, NFKD = compatible, ...
    bool left, right;         // STRIP
    struct gyre_pattern pattern;
    bool literal; // the pattern is plain text
    char *to;
};

enum { GYRE_MAX_NORMAL_STEPS = 16 };
// `struct gyre_normalizer n = {0}` changes nothing.
struct gyre_normalizer {
    struct gyre_normal_step steps[GYRE_MAX_NORMAL_STEPS];
    uint32_t n;
};

// Each appends one step; texts are copied.
gyre_status gyre_normal_unicode(struct gyre_normalizer *normalizer, bool compose, bool compatible,
                                gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_normal_prefix(struct gyre_normalizer *normalizer, const char *to, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_normal_replace(struct gyre_normalizer *normalizer, const char *pattern, bool literal, const char *to,
                                gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_normal_strip(struct gyre_normalizer *normalizer, bool left, bool right, gyre_error *err) GYRE_MUST_USE;
void gyre_normal_free(struct gyre_normalizer *normalizer);

bool gyre_normal_is_nfc(const struct gyre_normalizer *normalizer); // NFC and nothing else

// Normalizes valid UTF-8. `begins`: nothing of the same piece of text stands before it, so that prefixes belong there.
// *out is malloc'd, or NULL where the text stays as it is.
gyre_status gyre_normalize(const struct gyre_normalizer *normalizer, const char *text, uint64_t bytes, bool begins,
                           char **out, uint64_t *n, gyre_error *err) GYRE_MUST_USE;

bool gyre_normal_is_young(uint32_t code); // a normal form leaves it alone, as what it does not know (normal_young.c)
bool gyre_is_blank(uint32_t code);        // Unicode's White_Space
