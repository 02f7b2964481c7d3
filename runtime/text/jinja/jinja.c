// A template from its text to its output. See jinja.h.
#include "runtime/text/jinja/jinja.h"

#include "runtime/text/jinja/exec.h"
#include "runtime/text/jinja/lookup.h"
#include "runtime/text/jinja/syntax.h"
#include "runtime/util/locale.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE = 4 << 20 };

struct gyre_jinja {
    struct gyre_arena arena; // the tree
    const char *name;
    struct jinja_nodes body, blocks;
};

// ---- reading ----------------------------------------------------------------------------------------

static gyre_status check_text(const char *name, const char *text, uint64_t bytes, gyre_error *err)
{
    uint32_t code;
    if (bytes > MAX_TEMPLATE)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot read template (%s): it has %llu bytes, and gyre takes %d",
                         name, (unsigned long long)bytes, MAX_TEMPLATE);
    for (uint64_t at = 0; at < bytes;) {
        const int n = gyre_utf8_look(text + at, bytes - at, &code);
        if (n <= 0)
            return gyre_fail(err, GYRE_E_FORMAT, "cannot read template (%s): byte %llu is no UTF-8", name,
                             (unsigned long long)at);
        at += (uint64_t)n;
    }
    return GYRE_OK;
}

// The text with its line ends as \n, and without the last one.
static void take_text(struct jinja_syntax *s, const char *text, uint64_t bytes)
{
    char *copy = gyre_jinja_keep(s, bytes + 1, 1);
    uint64_t n = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        if (text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n') continue;
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (n && copy[n - 1] == '\n') n--;
    s->text = copy;
    s->bytes = n;
}

// False where a fault left by longjmp.
static bool read_tree(struct jinja_syntax *s, gyre_jinja *jinja, const char *text, uint64_t bytes)
{
    if (setjmp(s->leave)) return false;
    jinja->name = strcpy(gyre_jinja_keep(s, strlen(s->name) + 1, 1), s->name);
    take_text(s, text, bytes);
    gyre_jinja_lex(s);
    jinja->body = gyre_jinja_statements(s);
    jinja->blocks = s->blocks;
    return true;
}

gyre_status gyre_jinja_parse(const char *name, const char *text, uint64_t bytes, gyre_jinja **out, gyre_error *err)
{
    gyre_error own = {0};
    *out = NULL;
    GYRE_TRY(check_text(name, text, bytes, err));
    gyre_jinja *jinja = calloc(1, sizeof *jinja);
    if (!jinja) return gyre_fail(err, GYRE_E_NOMEM, "cannot read template (%s): out of memory", name);
    struct jinja_syntax s = {.arena = &jinja->arena, .name = name, .err = err ? err : &own};
    const struct gyre_locale locale = gyre_locale_plain(); // it has numbers
    const bool read = read_tree(&s, jinja, text, bytes);
    gyre_locale_back(locale);
    if (!read) {
        gyre_jinja_free(jinja);
        return s.err->code;
    }
    *out = jinja;
    return GYRE_OK;
}

void gyre_jinja_free(gyre_jinja *jinja)
{
    if (!jinja) return;
    gyre_arena_free(&jinja->arena);
    free(jinja);
}

// ---- rendering --------------------------------------------------------------------------------------

void gyre_marked_free(struct gyre_marked *m)
{
    free(m->text);
    free(m->plain);
    *m = (struct gyre_marked){0};
}

static bool copy_out(const struct jinja_build *made, struct gyre_marked *out)
{
    out->bytes = made->n;
    out->text = malloc(made->n + 1);
    out->plain = malloc(made->n + 1);
    if (!out->text || !out->plain) return false;
    if (made->n) memcpy(out->text, made->data, made->n);
    if (made->n) memcpy(out->plain, made->plain, made->n);
    out->text[made->n] = 0;
    out->plain[made->n] = 0;
    return true;
}

// False where a failure left by longjmp.
static bool work(struct jinja_run *run, const gyre_jinja *jinja, const struct gyre_jinja_variable *variables,
                 uint64_t n)
{
    if (setjmp(run->leave)) return false;
    run->root = gyre_jinja_scope(run, NULL);
    run->output = gyre_jinja_alloc(run, 1, sizeof *run->output);
    run->output->run = run;
    for (uint64_t i = 0; i < n; i++)
        gyre_jinja_set(run, run->root, variables[i].name,
                       gyre_jinja_from_json(run, variables[i].value, variables[i].plain));
    gyre_jinja_set_blocks(run, &jinja->blocks);
    gyre_jinja_exec(run, run->root, &jinja->body);
    return true;
}

gyre_status gyre_jinja_render(const gyre_jinja *jinja, const struct gyre_jinja_variable *variables, uint64_t n,
                              int64_t now, struct gyre_marked *out, gyre_error *err)
{
    gyre_error own = {0};
    struct jinja_run run = {.name = jinja->name,
                            .err = err ? err : &own,
                            .now = now,
                            .call = gyre_jinja_call,
                            .filter = gyre_jinja_filter,
                            .test = gyre_jinja_test,
                            .method = gyre_jinja_method,
                            .documents = json_array()};
    gyre_status st = GYRE_OK;
    *out = (struct gyre_marked){0};
    const struct gyre_locale locale = gyre_locale_plain(); // it makes texts of numbers and times
    const bool worked = run.documents && work(&run, jinja, variables, n);
    gyre_locale_back(locale);
    if (run.documents && !worked) st = run.err->code;
    else if (!run.documents || !copy_out(run.output, out))
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot render template (%s): out of memory", jinja->name);
    if (st != GYRE_OK) gyre_marked_free(out);
    json_decref(run.documents);
    gyre_arena_free(&run.arena);
    return st;
}
