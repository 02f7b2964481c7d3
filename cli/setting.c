// See setting.h.
#include "cli/setting.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

struct cursor {
    const char *at, *end;
};

static bool take(struct cursor *c, const char *word)
{
    const size_t n = strlen(word);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0) return false;
    c->at += n;
    return true;
}

// A number of at most three digits without a leading zero, but for 0 itself.
static bool number(struct cursor *c, uint32_t *out)
{
    const char *start = c->at;
    *out = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9' && c->at - start < 3)
        *out = *out * 10 + (uint32_t)(*c->at++ - '0');
    return c->at > start && (*start != '0' || c->at == start + 1);
}

static bool fail(char *why, size_t size, const char *what)
{
    snprintf(why, size, "%s", what);
    return false;
}

bool cli_setting_parse(const char *text, size_t n, uint32_t wgroup, struct cli_setting *out, char *why, size_t size)
{
    struct cursor c = {text, text + n};
    *out = (struct cli_setting){.wgroup = wgroup, .kv = 16, .kv_v = 16};
    if (!take(&c, "W") || !number(&c, &out->wbits) || !gyre_is_width(out->wbits))
        return fail(why, size, "it begins with W4, W8 or W16");
    if (take(&c, "g")) {
        if (out->wbits == 16) return fail(why, size, "W16 has no groups");
        if (!number(&c, &out->wgroup) ||
            !(out->wgroup == 0 || out->wgroup == 32 || out->wgroup == 64 || out->wgroup == 128))
            return fail(why, size, "groups are g0 (per channel), g32, g64 or g128");
    }
    if (out->wbits == 16) out->wgroup = 0;
    if (!take(&c, "A") || !number(&c, &out->act) || !gyre_is_width(out->act))
        return fail(why, size, "after the weights comes A16, A8 or A4");
    static const char cache[] = "the cache is KV16, KV8 or KV4, or of two such widths: K8V4";
    if (take(&c, "KV")) {
        if (!number(&c, &out->kv) || !gyre_is_width(out->kv)) return fail(why, size, cache);
        out->kv_v = out->kv;
    } else if (take(&c, "K")) {
        if (!number(&c, &out->kv) || !gyre_is_width(out->kv) || !take(&c, "V") || !number(&c, &out->kv_v) ||
            !gyre_is_width(out->kv_v))
            return fail(why, size, cache);
    }
    return c.at == c.end || fail(why, size, "something is left behind its end");
}

void cli_setting_weights(const struct cli_setting *s, char out[CLI_SETTING_NAME])
{
    if (s->wbits == 16) snprintf(out, CLI_SETTING_NAME, "W16");
    else snprintf(out, CLI_SETTING_NAME, "W%ug%u", s->wbits, s->wgroup);
}

void cli_setting_name(const struct cli_setting *s, char out[CLI_SETTING_NAME])
{
    char weights[CLI_SETTING_NAME];
    cli_setting_weights(s, weights);
    if (s->kv == s->kv_v) snprintf(out, CLI_SETTING_NAME, "%.10sA%uKV%u", weights, s->act, s->kv);
    else snprintf(out, CLI_SETTING_NAME, "%.10sA%uK%uV%u", weights, s->act, s->kv, s->kv_v);
}
