// The grammar of recipes as tables: reading, allowed values, defaults and both written forms follow from the same rows.
#pragma once
#include "quantizer/recipe/recipe.h"

typedef enum gyre_field_kind {
    GYRE_FIELD_NAME,       // char[size]: letters, digits, '.', '_', '-'; the first a letter or digit
    GYRE_FIELD_TEXT,       // char[size]: one line
    GYRE_FIELD_SWITCH,     // bool; words[0] is false, words[1] true
    GYRE_FIELD_CHOICE,     // gyre_clip, an index into words
    GYRE_FIELD_COUNT,      // uint32_t in min..max
    GYRE_FIELD_COUNT_AUTO, // the same, or GYRE_AUTO_COUNT
    GYRE_FIELD_LISTED,     // int32_t or uint32_t, one of `listed`
    GYRE_FIELD_REAL,       // double in min..max
    GYRE_FIELD_AUTO,       // the same, or GYRE_AUTO
    GYRE_FIELD_MAP,        // a mapping of `map`, its fields relative to the same struct
    GYRE_FIELD_STAGES,     // the list of stages
    GYRE_FIELD_EXCEPTIONS, // the list of exceptions
} gyre_field_kind;

struct gyre_fields;
struct gyre_field {
    const char *key;
    gyre_field_kind kind;
    size_t at, size; // offset in the struct; bytes of a text with its NUL
    double preset;   // where the key is absent; texts: empty
    double min, max;
    const char *const *words; // NULL-terminated
    const int32_t *listed;    // ends with -1, which is also the preset "as the rest" of a signed field
    const struct gyre_fields *map;
    bool quiet; // a mapping of numbers that is not written where all are 0
};

struct gyre_fields {
    const char *what; // "a recipe", "the stage gptq"
    uint32_t n;       // 32 at most
    const struct gyre_field *field;
};

extern const struct gyre_fields gyre_recipe_fields;      // of struct gyre_recipe
extern const struct gyre_fields gyre_recipe_calibration; // its mapping `calibration`
extern const struct gyre_fields gyre_exception_fields;   // of struct gyre_exception
// Of struct gyre_stage, by kind.
const struct gyre_fields *gyre_stage_fields(gyre_stage_kind kind);
const char *gyre_stage_name(gyre_stage_kind kind);
const char *gyre_learn_name(gyre_learn_method method);

// Sets every field of a zeroed struct to its default, nested mappings included.
void gyre_fields_preset(const struct gyre_fields *fields, void *base);

// The first field, in the order of the rows, in which two structs differ, and the mapping it is in (NULL: none). Lists
// are not looked at.
bool gyre_fields_differ(const struct gyre_fields *fields, const void *a, const void *b, const char **map,
                        const char **key);

// What may stand in a field: "a whole number from 1 to 64".
void gyre_field_allowed(const struct gyre_field *field, char *out, size_t size);
// "a, b and c": the keys of a mapping; the names of the stages.
void gyre_fields_keys(const struct gyre_fields *fields, char *out, size_t size);
void gyre_stage_names(char *out, size_t size);

// The shortest decimal that reads as the same double, and back; both whatever the locale says. False when memory ran
// out or, reading, for anything but a decimal number.
bool gyre_real_text(double value, char out[32]);
bool gyre_real_read(const char *text, size_t bytes, double *value);

// Where and why a recipe makes no sense as a whole.
struct gyre_recipe_fault {
    const char *map, *key; // key of the recipe, in a mapping of it or (map NULL) at its top; NULL: see stage
    uint32_t stage;
    char why[320];
};
// Rules that no single value breaks: order of stages, what needs rotations, what needs statistics. False: see fault.
bool gyre_recipe_sound(const struct gyre_recipe *recipe, struct gyre_recipe_fault *fault);
// What needs statistics of the inputs, as a fault (its `why` names it); false where nothing does.
bool gyre_recipe_wants_statistics(const struct gyre_recipe *recipe, struct gyre_recipe_fault *fault);
