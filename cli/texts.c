// See texts.h.
#include "cli/texts.h"
#include "cli/cli.h"
#include "runtime/util/text.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// Bytes before the first that is no UTF-8; n where all are. A character cut at the end is no fault: texts get cut.
static size_t valid_utf8(const char *text, size_t n)
{
    size_t at = 0;
    while (at < n) {
        utf8proc_int32_t code;
        const utf8proc_ssize_t k =
            utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &code);
        if (k <= 0) return n - at < 4 && ((unsigned char)text[at] & 0xC0) == 0xC0 ? n : at;
        at += (size_t)k;
    }
    return n;
}

const char *cli_text_path(const char *argument)
{
    const size_t name = strcspn(argument, "/=");
    return name && argument[name] == '=' && argument[name + 1] ? argument + name + 1 : argument;
}

static char *name_of(const char *argument)
{
    const char *path = cli_text_path(argument);
    if (path == argument) return strdup(gyre_base_name(path));
    return strndup(argument, (size_t)(path - argument) - 1);
}

gyre_status cli_texts_read(const struct cli_list *paths, struct cli_texts *out, gyre_error *err)
{
    *out = (struct cli_texts){0};
    for (uint32_t i = 0; i < paths->n; i++) {
        struct cli_text *t = &out->text[i];
        *t = (struct cli_text){.path = cli_text_path(paths->item[i]), .name = name_of(paths->item[i])};
        if (!t->name) return gyre_fail(err, GYRE_E_NOMEM, "cannot read (%s): out of memory", t->path);
        const gyre_status st = cli_read(t->path, &t->bytes, &t->n_bytes, err);
        if (st != GYRE_OK) return st;
        out->n++;
        gyre_sha256_of(t->bytes, t->n_bytes, t->sha256);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(out->text[k].sha256, t->sha256) == 0)
                return gyre_fail(err, GYRE_E_INVALID,
                                 "cannot evaluate (%s): %s holds the same text, and what counts twice makes every "
                                 "error look smaller; leave one out",
                                 paths->item[i], paths->item[k]);
        const size_t good = valid_utf8(t->bytes, t->n_bytes);
        if (good < t->n_bytes)
            cli_warn("%s is not UTF-8 from byte %zu on; its bytes are taken as they are", t->name, good);
    }
    return GYRE_OK;
}

// Windows lie end to end, so that a BOS before every window - 1 tokens of the text begins each of them.
static gyre_status put_bos(struct cli_text *t, const gyre_engine *engine, uint32_t window, gyre_error *err)
{
    uint32_t *bos = NULL;
    size_t n_bos = 0;
    const gyre_status st = gyre_tokenize(gyre_engine_tokenizer(engine), "", 0, GYRE_TEXT_BOS, &bos, &n_bos, err);
    if (st != GYRE_OK) return st;
    const uint32_t token = bos[0];
    gyre_free(bos);
    uint32_t *out = malloc((t->n_tokens + t->n_tokens / (window - 1) + 1) * sizeof *out);
    if (!out) return gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize (%s): out of memory", t->path);
    size_t n = 0;
    for (size_t i = 0; i < t->n_tokens; i++) {
        if (i % (window - 1) == 0) out[n++] = token;
        out[n++] = t->tokens[i];
    }
    gyre_free(t->tokens);
    t->tokens = out;
    t->n_tokens = n;
    return GYRE_OK;
}

gyre_status cli_texts_tokenize(struct cli_texts *texts, const gyre_engine *engine, uint32_t bos_window, gyre_error *err)
{
    for (uint32_t i = 0; i < texts->n; i++) {
        struct cli_text *t = &texts->text[i];
        free(t->tokens);
        t->tokens = NULL;
        gyre_status st = gyre_tokenize(gyre_engine_tokenizer(engine), t->bytes, t->n_bytes, GYRE_TEXT_SPECIAL,
                                       &t->tokens, &t->n_tokens, err);
        if (st == GYRE_OK && bos_window) st = put_bos(t, engine, bos_window, err);
        if (st != GYRE_OK) return st;
    }
    return GYRE_OK;
}

void cli_texts_free(struct cli_texts *texts)
{
    for (uint32_t i = 0; i < CLI_LIST_MAX; i++) {
        free(texts->text[i].name);
        free(texts->text[i].bytes);
        free(texts->text[i].tokens);
    }
    *texts = (struct cli_texts){0};
}

void cli_texts_for_eval(const struct cli_texts *texts, gyre_eval_text *out)
{
    for (uint32_t i = 0; i < texts->n; i++)
        out[i] = (gyre_eval_text){texts->text[i].tokens, texts->text[i].n_tokens, texts->text[i].name};
}

void cli_texts_calibrated(const struct cli_texts *texts, const char *model, bool *out)
{
    char *path = gyre_beside(model, ".manifest.json");
    size_t i;
    json_t *entry;
    for (uint32_t t = 0; t < texts->n; t++) out[t] = false;
    json_t *manifest = path ? json_load_file(path, 0, NULL) : NULL;
    // Of a file that was learned on what another one held, that one's texts too.
    for (const json_t *of = manifest; of; of = json_object_get(of, "from"))
        json_array_foreach(json_object_get(json_object_get(of, "calibration"), "texts"), i, entry)
        {
            const char *sha = json_string_value(json_object_get(entry, "sha256"));
            for (uint32_t t = 0; sha && t < texts->n; t++) out[t] |= strcmp(sha, texts->text[t].sha256) == 0;
        }
    json_decref(manifest);
    free(path);
}

int cli_calib_check(const struct cli_list *calib)
{
    static const char *const made[] = {GYRE_CALIB_SELF, GYRE_CALIB_BUNDLED};
    for (size_t m = 0; m < sizeof made / sizeof *made; m++)
        for (uint32_t i = 0, seen = 0; i < calib->n; i++)
            if (!strcmp(calib->item[i], made[m]) && seen++)
                return cli_usage(
                    "unusable option (--calib %s): it is named twice and would give the same windows twice; "
                    "name it once",
                    made[m]);
    return -1;
}
