// A model's text as it comes, cut into reasoning, content and calls. See gyre_tools.h.
#include "runtime/grammar/tools.h"

#include "runtime/util/base.h"
#include "runtime/util/json_wide.h"
#include "runtime/util/status.h"
#include "runtime/util/text.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

struct text {
    char *at;
    size_t n, cap;
};

enum mode {
    START,     // "<think>" may come
    REASONING, // up to "</think>"
    TEXT,      // content; a call may begin
    CALL,      // held: the call from its mark on
    BETWEEN    // behind a call: its end mark, space, another call
};

struct gyre_answer {
    const gyre_tools *tools;
    gyre_answer_params how;
    enum mode mode;
    struct text held; // what is not told yet
    size_t looked;    // held[0..looked) has been looked at, in this mode
    bool fresh;       // nothing but space has come
    bool line_ends;   // drop those that come next: behind a mark of reasoning
    uint32_t calls;   // whose beginning was told
    // The call that is held.
    size_t body;           // where it begins, behind its mark
    bool begun, broken;    // its name was told; it is none
    struct text arguments; // as JSON
    size_t told;           // bytes of them
    char name[65];
    // Scanning of JSON: depth and string; where a string began; the key whose value is read; where the arguments lie.
    int depth;
    bool in_string, escaped, key_next;
    size_t string, from, to;
    char key[16];
};

static gyre_status add(struct text *t, const char *bytes, size_t n, gyre_error *err)
{
    return gyre_append(&t->at, &t->n, &t->cap, bytes, n)
               ? GYRE_OK
               : gyre_fail(err, GYRE_E_NOMEM, "cannot read an answer: out of memory");
}

static void drop(gyre_answer *a, size_t n)
{
    a->held.n -= n;
    if (a->held.at) memmove(a->held.at, a->held.at + n, a->held.n + 1);
    a->looked = 0;
}

static void tell(gyre_answer *a, gyre_part_kind kind, const char *text, size_t n)
{
    const gyre_part part = {kind, a->calls ? a->calls - 1 : 0, text, n};
    if (n == 0 && kind != GYRE_PART_CALL) return;
    a->how.on_part(a->how.user, &part);
}

static void tell_held(gyre_answer *a, gyre_part_kind kind, size_t n)
{
    tell(a, kind, a->held.at, n);
    drop(a, n);
}

static size_t space(const char *text, size_t n)
{
    size_t k = 0;
    while (k < n && strchr(" \t\r\n", text[k]) && text[k]) k++;
    return k;
}

// Where `mark` begins in text[n]; n where it does not, and *part is how many bytes at the end may be its beginning.
static size_t find(const char *text, size_t n, const char *mark, size_t *part)
{
    const size_t length = strlen(mark);
    *part = 0;
    for (const char *p = text; (p = memchr(p, mark[0], (size_t)(text + n - p))); p++) {
        const size_t left = (size_t)(text + n - p);
        if (memcmp(p, mark, GYRE_MIN(left, length)) != 0) continue;
        if (left >= length) return (size_t)(p - text);
        *part = left;
        break;
    }
    return n;
}

// Does text[n] begin with the mark (1), may it do so once more has come (0), or not (-1)?
static int begins(const char *text, size_t n, const char *mark)
{
    const size_t length = strlen(mark);
    if (memcmp(text, mark, GYRE_MIN(n, length)) != 0) return -1;
    return n >= length;
}

// ---- calls ----------------------------------------------------------------------------------------------------------

static void enter_call(gyre_answer *a, size_t mark)
{
    a->mode = CALL;
    a->body = mark;
    a->looked = mark;
    a->begun = a->broken = false;
    a->arguments.n = a->told = 0;
    a->name[0] = 0;
    a->depth = 0;
    a->in_string = a->escaped = a->key_next = false;
    a->from = a->to = 0;
    a->key[0] = 0;
}

// The call is none, as its first n bytes show: they are content, and what follows is looked at again.
static void give_up(gyre_answer *a, size_t n)
{
    if (n == 0) n = 1; // a mark of its own, "<function=", is not looked at for ever
    a->mode = TEXT;
    a->fresh = false;
    if (!a->begun) tell_held(a, GYRE_PART_CONTENT, n);
    else drop(a, n);
}

static void tell_call(gyre_answer *a)
{
    if (!a->begun) {
        a->begun = true;
        a->calls++;
        tell(a, GYRE_PART_CALL, a->name, strlen(a->name));
    }
    tell(a, GYRE_PART_ARGUMENTS, a->arguments.at + a->told, a->arguments.n - a->told);
    a->told = a->arguments.n;
}

static void end_call(gyre_answer *a, size_t n)
{
    tell_call(a);
    drop(a, n);
    a->mode = BETWEEN;
}

static void take_name(gyre_answer *a, const char *quoted, size_t n)
{
    json_t *value = json_loadb(quoted, n, JSON_DECODE_ANY, NULL);
    const char *name = json_string_value(value);
    a->broken = !name || !gyre_tools_has(a->tools, name); // so it is at most 64 bytes long
    if (!a->broken) memcpy(a->name, name, strlen(name) + 1);
    json_decref(value);
}

static void string_ends(gyre_answer *a, size_t at)
{
    const char *text = a->held.at + a->string;
    const size_t n = at + 1 - a->string;
    if (a->depth != 1) return;
    if (a->key_next) {
        const size_t k = GYRE_MIN(n - 2, sizeof a->key - 1);
        memcpy(a->key, text + 1, k);
        a->key[k] = 0;
    } else if (strcmp(a->key, "name") == 0) take_name(a, text, n);
}

// One byte of a call in JSON. True: it is whole.
static bool scan(gyre_answer *a, size_t at)
{
    const char ch = a->held.at[at];
    const bool of_arguments = strcmp(a->key, "arguments") == 0 || strcmp(a->key, "parameters") == 0;
    if (a->in_string) {
        if (a->escaped) a->escaped = false;
        else if (ch == '\\') a->escaped = true;
        else if (ch == '"') a->in_string = false, string_ends(a, at);
        return false;
    }
    if (ch == '"') a->in_string = true, a->string = at;
    else if (ch == ':' && a->depth == 1) a->key_next = false;
    else if (ch == ',' && a->depth == 1) a->key_next = true, a->key[0] = 0;
    else if (ch == '{' || ch == '[') {
        if (a->depth == 0) a->key_next = true, a->broken |= ch == '[';
        if (a->depth == 1 && !a->key_next && of_arguments && !a->from) a->from = at;
        a->depth++;
    } else if (ch == '}' || ch == ']') {
        a->depth--;
        if (a->depth == 1 && a->from && !a->to) a->to = at + 1;
        return a->depth <= 0;
    } else if (a->depth == 0 && !strchr(" \t\r\n", ch)) a->broken = true;
    return false;
}

// A JSON text as a value; NULL where it is none. Only its form is the text's: of strings U+0000, which the reader takes
// in no key, is another character, and integers beyond int64 are strings.
static json_t *form_of(const char *text, size_t n, size_t flags)
{
    char *made;
    size_t length;
    if (!gyre_json_widen(text, n, &made, &length)) return NULL;
    if (!made && (made = malloc(n + 1))) memcpy(made, text, length = n);
    for (size_t i = 0; made && i + 1 < length; i++) {
        if (made[i] != '\\') continue;
        if (length - i >= 6 && memcmp(made + i, "\\u0000", 6) == 0) made[i + 5] = '1';
        i++;
    }
    json_t *out = made ? json_loadb(made, length, flags, NULL) : NULL;
    free(made);
    return out;
}

static bool is_call(const gyre_answer *a, size_t end)
{
    // A grammar lets free keys come twice, and U+0000; what is bound to one is not taken back.
    json_t *call = form_of(a->held.at + a->body, end - a->body, a->how.live ? 0 : JSON_REJECT_DUPLICATES);
    const json_t *arguments = json_object_get(call, "arguments");
    const bool fine =
        a->name[0] && a->from && json_is_object(arguments ? arguments : json_object_get(call, "parameters"));
    json_decref(call);
    return fine;
}

static gyre_status read_json(gyre_answer *a, bool *waits, gyre_error *err)
{
    bool whole = false;
    while (a->looked < a->held.n && !whole && !a->broken) whole = scan(a, a->looked++);
    const size_t end = a->looked, to = a->to ? a->to : end;
    if (whole && !a->broken) a->broken = !is_call(a, end);
    if (a->broken) {
        give_up(a, end);
        return GYRE_OK;
    }
    if (a->from && a->name[0] && (a->how.live || whole)) {
        const size_t have = a->from + a->arguments.n;
        if (to > have) GYRE_TRY(add(&a->arguments, a->held.at + have, to - have, err));
        if (!whole) tell_call(a);
    }
    if (whole) end_call(a, end);
    *waits = !whole;
    return GYRE_OK;
}

// The value of a parameter as JSON, behind its key.
static gyre_status add_parameter(gyre_answer *a, const char *key, const char *value, size_t n, gyre_error *err)
{
    const struct gyre_tool *tool = gyre_tool_find(a->tools, a->name);
    json_t *name = json_string(key), *parsed = NULL;
    const json_t *schema = gyre_tool_parameter(tool, key);
    const bool any = !gyre_schema_is_text(schema);
    json_t *form = NULL;
    if (any) parsed = json_loadb(value, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (any && !parsed) form = form_of(value, n, JSON_DECODE_ANY);
    if (!parsed) parsed = json_stringn(value, n); // its own text where it is no JSON
    char *k = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL, *v = parsed ? json_dumps(parsed, JSON_ENCODE_ANY) : NULL;
    if (form && v) { // what the reader does not know is passed on as it is
        free(v);
        v = strndup(value, n);
    }
    json_decref(form);
    gyre_status st = k ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot read an answer: out of memory");
    if (st == GYRE_OK) st = add(&a->arguments, a->arguments.n ? ", " : "{", a->arguments.n ? 2 : 1, err);
    if (st == GYRE_OK) st = add(&a->arguments, k, strlen(k), err);
    if (st == GYRE_OK) st = add(&a->arguments, ": ", 2, err);
    if (st == GYRE_OK) st = add(&a->arguments, v ? v : "null", v ? strlen(v) : 4, err);
    free(k);
    free(v);
    json_decref(name);
    json_decref(parsed);
    return st;
}

// The text up to `end`, which follows `begin`, where it is a short name. 0: more must come; < 0: it is none.
static int name_between(const char *text, size_t n, const char *begin, char out[129])
{
    const int here = begins(text, n, begin);
    if (here <= 0) return here;
    const size_t skip = strlen(begin);
    const char *close = memchr(text + skip, '>', n - skip);
    const size_t length = close ? (size_t)(close - text) - skip : n - skip;
    if (length > 128 || memchr(text + skip, '\n', length)) return -1;
    if (!close) return 0;
    uint32_t code;
    for (size_t i = 0; i < length;) { // JSON has no name that is no text
        const int k = gyre_utf8_look(text + skip + i, length - i, &code);
        if (k <= 0 || !code) return -1;
        i += (size_t)k;
    }
    memcpy(out, text + skip, length);
    out[length] = 0;
    return (int)(skip + length + 1);
}

// <function=NAME>, <parameter=KEY> value </parameter> ..., </function>: as many of them as are there.
static gyre_status read_xml(gyre_answer *a, bool *waits, gyre_error *err)
{
    static const char close[] = "</parameter>", last[] = "</function>";
    char name[129];
    for (;;) {
        const size_t at = a->looked + space(a->held.at + a->looked, a->held.n - a->looked), left = a->held.n - at;
        const char *text = a->held.at + at;
        if (!a->name[0]) {
            const int n = name_between(text, left, "<function=", name);
            if (n == 0) break;
            if (n < 0 || strlen(name) > 64 || !gyre_tools_has(a->tools, name)) return give_up(a, at), GYRE_OK;
            memcpy(a->name, name, strlen(name) + 1);
            a->looked = at + (size_t)n;
            continue;
        }
        if (begins(text, left, last) == 1) {
            GYRE_TRY(add(&a->arguments, a->arguments.n ? "}" : "{}", a->arguments.n ? 1 : 2, err));
            end_call(a, at + sizeof last - 1);
            *waits = false;
            return GYRE_OK;
        }
        const int n = name_between(text, left, "<parameter=", name);
        if (n < 0 && begins(text, left, last) < 0) return give_up(a, at), GYRE_OK;
        if (n <= 0) break;
        size_t part;
        const char *value = text + n;
        const size_t rest = left - (size_t)n, length = find(value, rest, close, &part);
        if (length == rest) break;
        size_t begin = length && value[0] == '\n', end = length; // one line end belongs to the syntax on either side
        if (end > begin && value[end - 1] == '\n') end--;
        GYRE_TRY(add_parameter(a, name, value + begin, end - begin, err));
        a->looked = at + (size_t)n + length + sizeof close - 1;
        if (a->how.live) tell_call(a);
    }
    *waits = true;
    return GYRE_OK;
}

static gyre_status read_call(gyre_answer *a, bool *waits, gyre_error *err)
{
    const size_t first = a->body + space(a->held.at + a->body, a->held.n - a->body);
    *waits = true;
    if (first == a->held.n) return GYRE_OK;
    *waits = false;
    return a->held.at[first] == '<' ? read_xml(a, waits, err) : read_json(a, waits, err);
}

// ---- text -----------------------------------------------------------------------------------------------------------

static bool read_start(gyre_answer *a)
{
    const size_t skip = space(a->held.at, a->held.n);
    const int here = begins(a->held.at + skip, a->held.n - skip, GYRE_MARK_THINK);
    if (here == 0) return true;
    a->mode = TEXT;
    if (here > 0) {
        drop(a, skip + strlen(GYRE_MARK_THINK));
        a->mode = REASONING;
        a->line_ends = true;
    }
    return false;
}

// True: more must come.
static bool read_reasoning(gyre_answer *a)
{
    size_t part;
    if (a->line_ends) {
        const size_t skip = space(a->held.at, a->held.n);
        drop(a, skip);
        if (a->held.n == 0) return true;
        a->line_ends = false;
    }
    const size_t n = find(a->held.at, a->held.n, GYRE_MARK_THINK_END, &part);
    const bool ends = n < a->held.n;
    size_t tell_now = ends ? n : a->held.n - part;
    const size_t all = tell_now;
    while (tell_now && strchr(" \t\r\n", a->held.at[tell_now - 1])) tell_now--; // space before the mark is none of it
    tell_held(a, GYRE_PART_REASONING, tell_now);
    if (!ends) return true;
    drop(a, all - tell_now + strlen(GYRE_MARK_THINK_END));
    a->mode = TEXT;
    a->line_ends = true;
    return false;
}

// The first mark of a call in what is held: where it begins, its length; held.n where there is none, and *part as
// find.
static size_t find_call(const gyre_answer *a, size_t *length, size_t *part)
{
    static const char *const marks[] = {GYRE_MARK_CALL, "<function=", GYRE_MARK_PYTHON};
    const size_t n = a->held.n;
    size_t first = n, k;
    *part = *length = 0;
    if (a->tools->syntax == GYRE_TOOLS_LLAMA3 && a->fresh) {
        const size_t skip = space(a->held.at, n);
        if (skip == n) *part = n;
        else if (a->held.at[skip] == '{') return skip;
    }
    for (size_t i = 0; i < GYRE_COUNT(marks); i++) {
        if (i == (a->tools->syntax == GYRE_TOOLS_LLAMA3 ? 1u : 2u)) continue;
        const size_t at = find(a->held.at, n, marks[i], &k);
        if (at == n) *part = GYRE_MAX(*part, k);
        else if (at < first) first = at, *length = i == 1 ? 0 : strlen(marks[i]);
    }
    return first;
}

static bool read_text(gyre_answer *a)
{
    size_t length = 0, part = 0;
    if (a->line_ends) {
        drop(a, space(a->held.at, a->held.n));
        if (a->held.n == 0) return true;
        a->line_ends = false;
    }
    if (!a->tools) {
        tell_held(a, GYRE_PART_CONTENT, a->held.n);
        return true;
    }
    const size_t at = find_call(a, &length, &part);
    const bool call = at < a->held.n;
    size_t now = call ? at : a->held.n - part;
    const size_t blank = space(a->held.at, now);
    if (blank < now) a->fresh = false;
    else if (a->fresh && call) drop(a, now), now = 0; // only space before a call: nothing was said
    else if (a->fresh) return true;                   // it may turn out to be that
    tell_held(a, GYRE_PART_CONTENT, now);
    if (call) enter_call(a, length);
    return !call;
}

// Behind a call; true: more must come.
static bool read_between(gyre_answer *a)
{
    size_t at = space(a->held.at, a->held.n);
    const int ends = begins(a->held.at + at, a->held.n - at, GYRE_MARK_CALL_END);
    if (ends == 1) {
        drop(a, at + strlen(GYRE_MARK_CALL_END));
        return false;
    }
    if (at == a->held.n || ends == 0) return true;
    if (a->tools->syntax == GYRE_TOOLS_LLAMA3 && a->held.at[at] == ';') {
        at += 1 + space(a->held.at + at + 1, a->held.n - at - 1);
        if (at == a->held.n) return true;
    }
    a->fresh = true;
    a->mode = TEXT;
    drop(a, at);
    return false;
}

// ---- from outside ---------------------------------------------------------------------------------------------------

gyre_status gyre_answer_create(const gyre_tools *tools, const gyre_answer_params *given, gyre_answer **out,
                               gyre_error *err)
{
    gyre_answer_params how;
    *out = NULL;
    GYRE_TRY(gyre_params_take(given, &how, sizeof how, sizeof how, "gyre_answer_params", err));
    if (!how.on_part) return gyre_fail(err, GYRE_E_INVALID, "cannot read an answer: nobody wants its parts (on_part)");
    gyre_answer *a = *out = calloc(1, sizeof *a);
    if (!a) return gyre_fail(err, GYRE_E_NOMEM, "cannot read an answer: out of memory");
    a->tools = tools;
    a->how = how;
    a->mode = how.reasoning == GYRE_REASONING_OPEN ? REASONING : how.reasoning == GYRE_REASONING_MAY ? START : TEXT;
    a->line_ends = a->mode == REASONING;
    a->fresh = true;
    return GYRE_OK;
}

void gyre_answer_destroy(gyre_answer *a)
{
    if (!a) return;
    free(a->held.at);
    free(a->arguments.at);
    free(a);
}

uint32_t gyre_answer_calls(const gyre_answer *a) { return a->calls; }

gyre_status gyre_answer_push(gyre_answer *a, const char *text, size_t bytes, gyre_error *err)
{
    GYRE_TRY(add(&a->held, text, bytes, err));
    for (bool waits = false; !waits && a->held.n;) {
        if (a->mode == START) waits = read_start(a);
        else if (a->mode == REASONING) waits = read_reasoning(a);
        else if (a->mode == TEXT) waits = read_text(a);
        else if (a->mode == BETWEEN) waits = read_between(a);
        else GYRE_TRY(read_call(a, &waits, err));
    }
    return GYRE_OK;
}

gyre_status gyre_answer_finish(gyre_answer *a, gyre_error *err)
{
    GYRE_TRY(add(&a->held, "", 0, err));
    const size_t skip = space(a->held.at, a->held.n);
    const bool blank = skip == a->held.n, after = a->mode == BETWEEN || (a->mode == TEXT && a->calls && a->fresh);
    if (a->mode == CALL) give_up(a, a->held.n);
    else if (after && (blank || begins(a->held.at + skip, a->held.n - skip, GYRE_MARK_CALL_END) == 0))
        drop(a, a->held.n);
    else tell_held(a, a->mode == REASONING ? GYRE_PART_REASONING : GYRE_PART_CONTENT, a->held.n);
    return GYRE_OK;
}
