// See recipe.h.
#include "quantizer/recipe.h"
#include "quantizer/rotate.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

#define ROUNDED(...) .seeds = 1, .act_clip = 1, .kv_clip = 1, .n_stages = 1, .stage = {__VA_ARGS__}
static const struct gyre_recipe recipes[] = {
    {.name = "rtn", .about = "the weights as they are, rounded to nearest with a clip search; the baseline",
     ROUNDED({.kind = GYRE_STAGE_RTN, .clip = GYRE_CLIP_WEIGHTS})},
    {.name = "quarot-rtn",
     .about = "random Hadamard rotations (R1, R2; full profile: R3, R4) merged in fp64, then rounded to nearest",
     .rotate = true, ROUNDED({.kind = GYRE_STAGE_RTN, .clip = GYRE_CLIP_WEIGHTS})},
    {.name = "quarot-gptq", .about = "QuaRot's rotations, then GPTQ per channel as published", .rotate = true,
     .calibration = {32, 512},
     ROUNDED({.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_WEIGHTS, .damp = 0.01, .act_order = true, .scales = 1})},
};

const char *gyre_recipe_name(uint32_t index) { return index < GYRE_COUNT(recipes) ? recipes[index].name : NULL; }
const char *gyre_recipe_about(uint32_t index) { return index < GYRE_COUNT(recipes) ? recipes[index].about : NULL; }

gyre_status gyre_recipe_find(const char *name, struct gyre_recipe *out, gyre_error *err)
{
    for (size_t i = 0; i < GYRE_COUNT(recipes); i++)
        if (!strcmp(recipes[i].name, name)) {
            *out = recipes[i];
            return GYRE_OK;
        }
    return gyre_fail(err, GYRE_E_INVALID, "unknown recipe \"%s\": it is none of the built-in ones", name);
}

bool gyre_recipe_calibrates(const struct gyre_recipe *r) { return r->calibration.windows > 0; }

void gyre_settings_width(const struct gyre_settings *s, const char *tensor, uint32_t *wbits, uint32_t *wgroup)
{
    (void)tensor;
    *wbits = s->wbits;
    *wgroup = s->wgroup;
}

static bool one_of(uint32_t value, uint32_t a, uint32_t b, uint32_t c)
{
    return value == a || value == b || value == c;
}

// Writes the group sizes that divide every row of the model's linears: "0 (per channel), 32 or 64".
static void list_groups(const struct gyre_hparams *hp, char *out, size_t size)
{
    uint32_t fits[4], n = 0;
    uint64_t rows, cols;
    fits[n++] = 0;
    for (uint32_t g = 32; g <= 128; g *= 2) {
        bool good = true;
        for (int s = 0; s < GYRE_SITES; s++) {
            gyre_site_shape((gyre_site)s, hp, &rows, &cols);
            good &= cols % g == 0;
        }
        if (good) fits[n++] = g;
    }
    size_t at = 0;
    for (uint32_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%u%s",
                               i == 0       ? ""
                               : i + 1 == n ? " or "
                                            : ", ",
                               fits[i], fits[i] ? "" : " (per channel)");
}

static gyre_status check_groups(const struct gyre_settings *s, const struct gyre_hparams *hp, gyre_error *err)
{
    const uint32_t step = s->wgroup ? s->wgroup : s->full ? 2 : 32; // portable blocks hold 32 elements
    char name[64], fits[64];
    for (int site = 0; site < GYRE_SITES; site++) {
        uint64_t rows, cols;
        gyre_site_shape((gyre_site)site, hp, &rows, &cols);
        if (cols % step == 0) continue;
        gyre_site_name((gyre_site)site, 0, name);
        if (!s->full && cols % 32)
            return gyre_fail(
                err, GYRE_E_UNSUPPORTED,
                "cannot write profile portable (%s): its blocks of 32 do not divide rows of %llu; use profile full",
                name, (unsigned long long)cols);
        list_groups(hp, fits, sizeof fits);
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot quantize in groups of %u (%s): rows of %llu are not a multiple of that; use group %s",
                         s->wgroup, name, (unsigned long long)cols, fits);
    }
    return GYRE_OK;
}

gyre_status gyre_settings_resolve(const gyre_quantize_params *p, const struct gyre_hparams *hp,
                                  struct gyre_settings *out, gyre_error *err)
{
    const char *name = p->recipe ? p->recipe : "quarot-rtn", *profile = p->profile ? p->profile : "full";
    *out = (struct gyre_settings){.wbits = p->wbits ? p->wbits : 4,
                                  .wgroup = p->wgroup < 0 ? 32 : (uint32_t)p->wgroup,
                                  .act = p->act ? p->act : 8,
                                  .kv = p->kv ? p->kv : 8,
                                  .full = !strcmp(profile, "full"),
                                  .seed = p->seed};
    GYRE_TRY(gyre_recipe_find(name, &out->recipe, err));
    if (!out->full && strcmp(profile, "portable"))
        return gyre_fail(err, GYRE_E_INVALID, "unknown profile \"%s\": it is neither portable nor full", profile);
    if (out->wbits != 32 && !one_of(out->wbits, 4, 8, 16))
        return gyre_fail(err, GYRE_E_INVALID, "unknown weight width %u: it is none of 4, 8, 16 and 32", out->wbits);
    if (out->wgroup && !one_of(out->wgroup, 32, 64, 128))
        return gyre_fail(err, GYRE_E_INVALID, "unknown group size %u: it is none of 0 (per channel), 32, 64 and 128",
                         out->wgroup);
    if (!one_of(out->act, 16, 8, 4) || !one_of(out->kv, 16, 8, 4))
        return gyre_fail(err, GYRE_E_INVALID, "unknown activation or KV width (%u, %u): they are 16, 8 or 4", out->act,
                         out->kv);
    if (out->wbits >= 16) {
        out->wgroup = 0;
        return GYRE_OK;
    }
    return check_groups(out, hp, err);
}
