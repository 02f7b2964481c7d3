// What the readers of config.json share (hf_config.c, hf_attention.c): its values as GGUF's metadata.
#pragma once
#include "runtime/source/hf.h"

struct config {
    gyre_source *source;
    const json_t *json; // of the text model, where the directory holds more
    const char *type;   // its model_type
    gyre_error *err;
};

// "TYPE.NAME"; the source copies keys.
struct key {
    char text[96];
};
struct key gyre_hf_key(const struct config *c, const char *name);

// A value of a whole number, a number, a bool, a text, or a list of either, under "TYPE.NAME".
gyre_status gyre_hf_put(struct config *c, const char *name, gyre_meta_type type, const void *value, uint64_t bytes);
gyre_status gyre_hf_put_list(struct config *c, const char *name, gyre_meta_type element, const void *values,
                             uint64_t n);
gyre_status gyre_hf_put_u32(struct config *c, const char *name, uint32_t value);
gyre_status gyre_hf_put_f32(struct config *c, const char *name, double value);
gyre_status gyre_hf_put_text(struct config *c, const char *key, const char *text); // `key` is the whole key

// A field of an object; absent or null: NULL.
const json_t *gyre_hf_get(const json_t *object, const char *field);
// A whole number or a number of an object under another name; absent or null: nothing is put (hparams_read.c says what
// is missing). *found (may be NULL) is set where it is there.
gyre_status gyre_hf_put_count(struct config *c, const json_t *object, const char *field, const char *name);
gyre_status gyre_hf_put_real(struct config *c, const json_t *object, const char *field, const char *name, bool *found);
// A number; absent or null: *out stays as it was.
gyre_status gyre_hf_real(struct config *c, const json_t *object, const char *field, double *out);
gyre_status gyre_hf_text(struct config *c, const char *field, const char **out);

// "FIELD is VALUE; gyre supports SUPPORTED"
gyre_status gyre_hf_refuse(struct config *c, const char *field, const char *value, const char *supported);
