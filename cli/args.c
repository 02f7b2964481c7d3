// See args.h.
#include "cli/args.h"
#include "runtime/util/text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAID = 4096 };

void cli_say(const char *before, const char *text)
{
    char line[SAID + 8];
    size_t n = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c && n < SAID; c++) {
        const bool high = c[0] == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0; // U+0080 to U+009F steer terminals, too
        if (*c == '\n') n += (size_t)sprintf(line + n, "\\n");
        else if (*c == '\t') n += (size_t)sprintf(line + n, "\\t");
        else if (*c < 0x20 || *c == 0x7F) n += (size_t)sprintf(line + n, "\\x%02x", *c);
        else if (high) n += (size_t)sprintf(line + n, "\\u%04x", *++c);
        else line[n++] = (char)*c;
    }
    line[n] = 0;
    fprintf(stderr, "%s%s\n", before, line);
}

static void say(const char *before, const char *format, va_list args)
{
    char text[SAID];
    gyre_print_short(text, sizeof text, format, args);
    cli_say(before, text);
}

void cli_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("warning: ", format, args);
    va_end(args);
}

int cli_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("gyre: ", format, args);
    va_end(args);
    return 2;
}

bool cli_decimal(const char *text, double *value)
{
    char *end = NULL;
    if (!*text || text[strspn(text, "0123456789.eE+-")]) return false;
    *value = strtod(text, &end);
    return !*end && isfinite(*value);
}

static void print_help(const struct cli_command *c, const struct cli_option *options, int n)
{
    printf("usage: gyre %s%s%s [OPTION]...\n\n%s.\n\n", c->name, *c->arguments ? " " : "", c->arguments, c->about);
    for (int i = 0; i < n; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s", options[i].name, options[i].value ? " " : "",
                 options[i].value ? options[i].value : "");
        printf("  %-22s%s%s\n", left, strlen(left) > 22 ? "\n                         " : " ", options[i].help);
    }
    printf("  %-22s %s\n", "--help", "this text");
}

static bool listed(const char *list, const char *value)
{
    const size_t n = strlen(value);
    for (const char *p = list; n && p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        if (strncmp(p, value, n) == 0 && (p[n] == ',' || p[n] == 0)) return true;
    }
    return false;
}

static bool store_number(const struct cli_option *o, const char *value)
{
    char *end = NULL;
    errno = 0;
    if (o->kind == CLI_F32) {
        double v;
        if (!cli_decimal(value, &v) || v < o->min || v > o->max) return false;
        *(float *)o->out = (float)v;
        return true;
    }
    const unsigned long long v = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno) return false;
    if (!o->only && ((double)v < o->min || (double)v > o->max)) return false;
    if (o->kind == CLI_U64) {
        *(uint64_t *)o->out = v;
        return true;
    }
    *(uint32_t *)o->out = (uint32_t)v;
    return v <= UINT32_MAX;
}

static bool append(struct cli_list *list, const char *value)
{
    if (list->n == CLI_LIST_MAX) return false;
    list->item[list->n++] = value;
    return true;
}

static bool store_pair(const struct cli_option *o, const char *value)
{
    const char *const slash = strchr(value, '/'), *const second = slash ? slash + 1 : value;
    const size_t n = slash ? (size_t)(slash - value) : strlen(value);
    char first[16];
    if (n >= sizeof first) return false;
    memcpy(first, value, n);
    first[n] = 0;
    if (!listed(o->only, first) || !listed(o->only, second)) return false;
    ((uint32_t *)o->out)[0] = (uint32_t)strtoul(first, NULL, 10);
    ((uint32_t *)o->out)[1] = (uint32_t)strtoul(second, NULL, 10);
    return true;
}

// Stores a value; false if it is none that the option takes.
static bool store(const struct cli_option *o, const char *value)
{
    if (o->kind == CLI_PAIR) return store_pair(o, value);
    if (o->only && !listed(o->only, value)) return false;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->out = true;
        return true;
    case CLI_TEXT:
        *(const char **)o->out = value;
        return true;
    case CLI_LIST:
        return append(o->out, value);
    default:
        return store_number(o, value);
    }
}

static void allowed(const struct cli_option *o, char *out, size_t cap)
{
    if (o->kind == CLI_PAIR) snprintf(out, cap, "one of %s, or two as in 8/4", o->only);
    else if (o->only) snprintf(out, cap, "one of %s", o->only);
    else if (o->kind == CLI_LIST) snprintf(out, cap, "at most %d values", CLI_LIST_MAX);
    else if (o->kind == CLI_F32) snprintf(out, cap, "a number from %g to %g", o->min, o->max);
    else snprintf(out, cap, "a whole number from %.0f to %.0f", o->min, o->max);
}

// The option at argv[*i], with its value behind '=' or in the next argument.
static int take_option(const struct cli_command *c, const struct cli_option *options, int n_options, int argc,
                       char **argv, int *i)
{
    const char *arg = argv[*i], *equals = arg[1] == '-' ? strchr(arg, '=') : NULL;
    const size_t length = equals ? (size_t)(equals - arg) : strlen(arg);
    const struct cli_option *o = NULL;
    for (int k = 0; k < n_options; k++) {
        if (strncmp(options[k].name, arg, length) == 0 && options[k].name[length] == 0) o = &options[k];
    }
    if (!o)
        return cli_usage("unknown option (%.*s): gyre %s does not have it; see gyre %s --help", (int)length, arg,
                         c->name, c->name);
    const char *value = equals ? equals + 1 : NULL;
    if (o->kind == CLI_FLAG && value)
        return cli_usage("unusable option (%s): it takes no value; leave the value out", o->name);
    if (o->kind != CLI_FLAG && !value) {
        if (*i + 1 >= argc)
            return cli_usage("incomplete option (%s): its value %s is missing; see gyre %s --help", o->name, o->value,
                             c->name);
        value = argv[++*i];
    }
    if (store(o, value ? value : "")) return -1;
    char what[160];
    allowed(o, what, sizeof what);
    return cli_usage("unusable option (%s %s): it takes %s; see gyre %s --help", o->name, value, what, c->name);
}

int cli_parse(const struct cli_command *c, const struct cli_option *options, int n_options, int argc, char **argv,
              const char **positional)
{
    int n = 0;
    bool only_positional = false;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (!only_positional && strcmp(arg, "--") == 0) {
            only_positional = true;
        } else if (only_positional || arg[0] != '-' || arg[1] == 0) {
            if (n >= c->needs)
                return cli_usage("too many arguments (%s): gyre %s takes %s; see gyre %s --help", arg, c->name,
                                 c->needs ? c->arguments : "none", c->name);
            positional[n++] = arg;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            print_help(c, options, n_options);
            return 0;
        } else {
            const int status = take_option(c, options, n_options, argc, argv, &i);
            if (status >= 0) return status;
        }
    }
    if (n < c->needs && !(n == 0 && c->optional))
        return cli_usage("missing argument (%s): gyre %s needs it; see gyre %s --help", c->arguments, c->name, c->name);
    return -1;
}
