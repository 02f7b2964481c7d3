// The public face of chat templates (gyre_chat.h), over runtime/text/template.h.
#include "runtime/source/json_file.h"
#include "runtime/text/template.h"
#include "runtime/util/json_wide.h"

#include <gyre/gyre_chat.h>
#include <stdlib.h>
#include <string.h>

gyre_status gyre_template_open(const char *model_path, const char *choice, gyre_template **out, gyre_error *err)
{
    gyre_source *source = NULL;
    *out = NULL;
    if (model_path) GYRE_TRY(gyre_source_look(model_path, &source, err));
    const gyre_status st = gyre_template_find(source, choice, out, err);
    gyre_source_close(source);
    return st;
}

void gyre_template_close(gyre_template *t) { gyre_template_free(t); }
const char *gyre_template_text(const gyre_template *t) { return gyre_template_words(t); }
const char *gyre_template_origin(const gyre_template *t) { return gyre_template_where(t); }
const char *gyre_template_builtin(unsigned i) { return gyre_template_nth(i); }
const char *gyre_template_token(const gyre_template *t, const char *name) { return gyre_template_names(t, name); }

void gyre_rendering_free(gyre_rendering *r)
{
    free(r->text);
    free(r->plain);
    *r = (gyre_rendering){0};
}

gyre_status gyre_template_render(const gyre_template *t, const char *json, size_t bytes,
                                 const gyre_render_params *params, gyre_rendering *out, gyre_error *err)
{
    gyre_render_params p;
    struct gyre_marked made = {0};
    json_error_t why;
    *out = (gyre_rendering){0};
    GYRE_TRY(gyre_params_take(params, &p, sizeof p, sizeof p, "gyre_render_params", err));
    json_t *variables = gyre_json_load_wide(json, bytes, 0, &why);
    if (!variables) {
        for (char *c = why.text; *c; c++) // it may quote the text
            if ((unsigned char)*c < 32 || *c == 127) *c = '?';
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read conversation (line %d, column %d): %s", why.line, why.column,
                         why.text);
    }
    gyre_status st = GYRE_OK;
    if (!json_is_object(variables))
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot read conversation: it is no JSON object with messages and other variables");
    if (st == GYRE_OK) st = gyre_template_fill(t, variables, p.as_is, p.now > 0 ? p.now : -1, &made, err);
    *out = (gyre_rendering){made.text, made.plain, made.bytes};
    json_decref(variables);
    return st;
}

gyre_status gyre_tokenize_rendering(const gyre_tokenizer *tokenizer, const gyre_rendering *r, uint32_t **tokens,
                                    size_t *n, gyre_error *err)
{
    uint64_t count = 0;
    const struct gyre_marked made = {r->text, r->plain, r->bytes};
    const gyre_status st =
        gyre_tokenizer_encode_marked(tokenizer, made.text, made.plain, made.bytes, tokens, &count, err);
    *n = count;
    return st;
}

gyre_status gyre_template_end(const gyre_template *t, const gyre_tokenizer *tokenizer, uint32_t *token, char **text,
                              gyre_error *err)
{
    return gyre_template_find_end(t, tokenizer, token, text, err);
}
