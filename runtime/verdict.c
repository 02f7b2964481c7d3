// See verdict.h. Every judge is the one that an engine asks when it opens: the reader of the container, of the
// hyper-parameters, the check of the tensors, the tokenizer.
#include "runtime/verdict.h"

#include "runtime/source/json_file.h"
#include "runtime/source/quantization.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

// A path in a line may be no UTF-8.
static void add_reason(json_t *reasons, const char *line) { json_array_append_new(reasons, gyre_json_text(line)); }

// All that is known to stand in the way. After a refusal some metadata may be missing, which is no reason of its own.
static json_t *reasons(const gyre_source *source, const struct gyre_hparams *hp, gyre_status read,
                       const gyre_error *failed)
{
    json_t *out = json_array();
    gyre_error err = {0};
    gyre_tokenizer *tokenizer = NULL;
    const bool refused = gyre_source_refusal(source, 0) != NULL;
    for (uint32_t i = 0; gyre_source_refusal(source, i); i++) add_reason(out, gyre_source_refusal(source, i));
    if (read != GYRE_OK && (!refused || read == GYRE_E_UNSUPPORTED)) add_reason(out, failed->message);
    if (read == GYRE_OK && !refused && gyre_model_check_tensors(source, hp, &err) != GYRE_OK)
        add_reason(out, err.message);
    if (gyre_tokenizer_create(source, NULL, NULL, &tokenizer, &err) != GYRE_OK) add_reason(out, err.message);
    gyre_tokenizer_destroy(tokenizer);
    return out;
}

static void count(json_t *types, const char *type)
{
    json_object_set_new_nocheck(types, type, json_integer(json_integer_value(json_object_get(types, type)) + 1));
}

static json_t *text_of(const gyre_source *source, const char *key)
{
    const char *text = NULL;
    return gyre_source_string(source, key, &text, NULL) == GYRE_OK && text ? json_string_nocheck(text) : json_null();
}

// Of GGUF its keys; of a directory, and of a file that carries it whole, tokenizer.json.
static json_t *tokenizer(const gyre_source *source)
{
    uint64_t bytes;
    json_t *out = text_of(source, "tokenizer.ggml.model");
    if (!json_is_null(out) ||
        (!gyre_source_file(source, "tokenizer.json", &bytes) && !gyre_source_has(source, "tokenizer.huggingface.json")))
        return out;
    json_decref(out);
    return json_string("tokenizer.json");
}

static json_t *quantization(const gyre_source *source)
{
    static const char *const methods[] = {"compressed-tensors", "awq", "gptq"};
    const struct gyre_quantization *q = gyre_source_quantization(source);
    if (!q) return json_null();
    json_t *schemes = json_array();
    for (uint32_t i = 0; i < q->n_schemes; i++)
        json_array_append_new(
            schemes, json_pack("{s:i, s:i}", "bits", (int)q->scheme[i].bits, "group", (int)q->scheme[i].group));
    return json_pack("{s:s, s:o}", "method", methods[q->method], "schemes", schemes);
}

json_t *gyre_verdict(const gyre_source *source, const struct gyre_hparams *hp, gyre_status read,
                     const gyre_error *failed)
{
    json_t *why = reasons(source, hp, read, failed), *types = json_object(), *unread = json_object();
    const char *arch = NULL;
    char rope[128] = "";
    for (uint64_t i = 0; i < gyre_source_tensor_count(source); i++)
        count(types, gyre_dtype_info(gyre_source_tensor_at(source, i)->type)->name);
    for (uint64_t i = 0; gyre_source_unread(source, i); i++) count(unread, gyre_source_unread(source, i)->type);
    if (gyre_source_string(source, "general.architecture", &arch, NULL) == GYRE_OK && arch)
        snprintf(rope, sizeof rope, "%s.rope.scaling.type", arch + (strncmp(arch, "gyre-", 5) ? 0 : 5));
    return json_pack("{s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "runs", json_array_size(why) == 0, "why_not", why,
                     "architecture", text_of(source, "general.architecture"), "tensor_types", types, "unread_types",
                     unread, "rope", text_of(source, rope), "tokenizer", tokenizer(source), "pre_tokenizer",
                     text_of(source, "tokenizer.ggml.pre"), "quantization", quantization(source));
}
