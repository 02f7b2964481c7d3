// A recipe, the command's values and the model's shapes become settings that fit together. See recipe.h.
#include "quantizer/recipe/fields.h"
#include "runtime/model/roles.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// What `auto` stands for, as measured (docs/quality.md): windows by which outputs are weighed, with 64 and 128 to
// calibrate on; steps of learning end to end and their rate; the share of own inputs' errors that is corrected where
// activations have 4 bits.
enum { AUTO_OUTPUTS = 32, AUTO_STEPS = 40, AUTO_STEPS_4 = 24 };
static const double auto_rate = 0.0003, auto_rate_4 = 0.0006, auto_alpha_4 = 0.25;

// '*' is any run of characters, '?' any one; the whole name must match. Backtracks to the last star only.
static bool matches(const char *pattern, const char *name)
{
    const char *star = NULL, *resume = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            resume = name;
        } else if (*pattern && (*pattern == '?' || *pattern == *name)) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star;
            name = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

struct width {
    uint32_t bits, group, act;
};

static struct width width_of(const struct gyre_settings *s, const char *tensor)
{
    struct width w = {s->wbits, s->wgroup, s->act};
    for (uint32_t i = 0; s->wbits < 16 && i < s->recipe.n_exceptions; i++) {
        const struct gyre_exception *e = &s->recipe.exception[i];
        if (!matches(e->tensors, tensor)) continue;
        if (e->wbits) w.bits = e->wbits;
        if (e->wgroup >= 0) w.group = (uint32_t)e->wgroup;
        if (e->act && s->act < 16) w.act = e->act;
    }
    return w;
}

void gyre_settings_width(const struct gyre_settings *s, const char *tensor, uint32_t *wbits, uint32_t *wgroup)
{
    const struct width w = width_of(s, tensor);
    *wbits = w.bits;
    *wgroup = w.group;
}

uint32_t gyre_settings_act(const struct gyre_settings *s, const char *tensor) { return width_of(s, tensor).act; }

static bool one_of(uint32_t value, uint32_t a, uint32_t b, uint32_t c)
{
    return value == a || value == b || value == c;
}

// ---- groups -----------------------------------------------------------------------------------------------

// Writes the group sizes that divide the rows of one linear, or of all (role GYRE_LINEARS): "0 (per channel), 32 or
// 64".
static void list_groups(const struct gyre_hparams *hp, gyre_role role, char *out, size_t size)
{
    uint32_t fits[4], n = 0;
    uint64_t rows, cols;
    fits[n++] = 0;
    for (uint32_t g = 32; g <= 128; g *= 2) {
        bool good = true;
        for (int s = 0; s < GYRE_LINEARS; s++) {
            if (role != GYRE_LINEARS && s != (int)role) continue;
            gyre_role_shape((gyre_role)s, hp, &rows, &cols);
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

static gyre_status check_group(const struct gyre_settings *s, const struct gyre_hparams *hp, gyre_role role,
                               const char *name, struct width w, gyre_error *err)
{
    const uint32_t step = w.group ? w.group : s->full || !s->blocks ? 2 : 32; // GGUF's blocks hold 32
    char fits[64];
    uint64_t rows, cols;
    gyre_role_shape(role, hp, &rows, &cols);
    if (cols % step == 0) return GYRE_OK;
    if (!s->full && s->blocks && cols % 32)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot write profile portable (%s): its blocks of 32 do not divide rows of %llu; use profile full", name,
            (unsigned long long)cols);
    list_groups(hp, w.group == s->wgroup ? GYRE_LINEARS : role, fits, sizeof fits);
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot quantize in groups of %u (%s): rows of %llu are not a multiple of that; use group %s%s",
                     w.group, name, (unsigned long long)cols, fits,
                     w.group == s->wgroup ? "" : " in the recipe's exception");
}

// ---- exceptions -------------------------------------------------------------------------------------------

static gyre_status check_product(const struct gyre_settings *s, gyre_role role, uint32_t layer, const char *name,
                                 struct width w, gyre_error *err)
{
    const gyre_product product = gyre_roles[role].product;
    char first[GYRE_ROLE_NAME], parts[192] = "";
    for (int r = 0; r < GYRE_LINEARS; r++)
        if (gyre_roles[r].product == product)
            snprintf(parts + strlen(parts), sizeof parts - strlen(parts), "%s%s", *parts ? ", " : "",
                     gyre_roles[r].gguf);
    gyre_role_name(gyre_product_first(product), layer, "weight", first);
    const struct width have = width_of(s, first);
    if (have.act != w.act)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot apply the recipe's exceptions (%s): it reads activations of %u bits, but %s, which "
                         "reads the same, %u; give all of %s the same act",
                         name, w.act, first, have.act, parts);
    if (have.bits == w.bits && have.group == w.group) return GYRE_OK;
    return gyre_fail(err, GYRE_E_INVALID,
                     "cannot apply the recipe's exceptions (%s): it gets %u bits with group %u, but %s, which is one "
                     "product with it, %u bits with group %u; give all of %s the same",
                     name, w.bits, w.group, first, have.bits, have.group, parts);
}

// An exception that changes nothing in this model is a slip of the pen.
static gyre_status check_used(const struct gyre_settings *s, const struct gyre_hparams *hp, gyre_error *err)
{
    char name[64];
    for (uint32_t i = 0; i < s->recipe.n_exceptions; i++) {
        bool used = false;
        for (uint32_t layer = 0; layer < hp->n_layers && !used; layer++)
            for (int role = 0; role < GYRE_LINEARS && !used; role++) {
                gyre_role_name((gyre_role)role, layer, "weight", name);
                used = matches(s->recipe.exception[i].tensors, name);
            }
        if (used) continue;
        char first[GYRE_ROLE_NAME];
        gyre_role_name((gyre_role)0, 0, "weight", first);
        gyre_role_name((gyre_role)(GYRE_LINEARS - 1), hp->n_layers - 1, "weight", name);
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot apply the recipe's exception (\"%s\"): no linear of this model has such a name; they go "
            "from %s to %s, * is any run of characters and ? any one",
            s->recipe.exception[i].tensors, first, name);
    }
    return GYRE_OK;
}

static gyre_status check_linears(const struct gyre_settings *s, const struct gyre_hparams *hp, gyre_error *err)
{
    char name[64];
    GYRE_TRY(check_used(s, hp, err));
    for (uint32_t layer = 0; layer < hp->n_layers; layer++)
        for (int role = 0; role < GYRE_LINEARS; role++) {
            gyre_role_name((gyre_role)role, layer, "weight", name);
            const struct width w = width_of(s, name);
            GYRE_TRY(check_product(s, (gyre_role)role, layer, name, w, err));
            GYRE_TRY(check_group(s, hp, (gyre_role)role, name, w, err));
        }
    return GYRE_OK;
}

// What exceptions make of the width of activations. A directory says it once.
static gyre_status survey_taps(struct gyre_settings *s, const struct gyre_hparams *hp, gyre_error *err)
{
    char name[GYRE_ROLE_NAME];
    s->act4 = false;
    for (uint32_t layer = 0; layer < hp->n_layers; layer++)
        for (int role = 0; role < GYRE_LINEARS; role++) {
            gyre_role_name((gyre_role)role, layer, "weight", name);
            const uint32_t act = width_of(s, name).act;
            s->act4 |= act == 4;
            if (act == s->act) continue;
            s->taps = true;
            if (!s->blocks)
                return gyre_fail(err, GYRE_E_UNSUPPORTED,
                                 "cannot give what %s reads %u bits: a Hugging Face directory has one width of "
                                 "activations; name an OUT.gguf",
                                 name, act);
        }
    return GYRE_OK;
}

// ---- the budget -------------------------------------------------------------------------------------------

// The sum over all weights of bits (or, inputs, of bits of what they are multiplied by) over their number.
static double mean(const struct gyre_settings *s, const struct gyre_hparams *hp, bool inputs)
{
    double sum = 0, weights = 0;
    char name[GYRE_ROLE_NAME];
    uint64_t rows, cols;
    for (uint32_t layer = 0; layer < hp->n_layers; layer++)
        for (int role = 0; role < GYRE_LINEARS; role++) {
            gyre_role_name((gyre_role)role, layer, "weight", name);
            gyre_role_shape((gyre_role)role, hp, &rows, &cols);
            const struct width w = width_of(s, name);
            const uint64_t group = s->blocks && !s->full ? 32 : w.group ? w.group : cols;
            const double n = (double)rows * (double)cols;
            sum += n * (inputs ? w.act : w.bits + (w.bits < 16 ? 16 / (double)group : 0));
            weights += n;
        }
    return sum / weights;
}

double gyre_settings_mean_bits(const struct gyre_settings *s, const struct gyre_hparams *hp)
{
    return mean(s, hp, false);
}
double gyre_settings_mean_act(const struct gyre_settings *s, const struct gyre_hparams *hp)
{
    return mean(s, hp, true);
}

static gyre_status check_budget(struct gyre_settings *s, const struct gyre_hparams *hp, gyre_error *err)
{
    const double least[2] = {gyre_settings_mean_bits(s, hp), gyre_settings_mean_act(s, hp)};
    if (s->act == 16) s->recipe.budget.act = 0; // nothing there is rounded, as with exceptions
    const double asked[2] = {s->recipe.budget.bits, s->recipe.budget.act};
    for (int i = 0; i < 2; i++) {
        if (asked[i] == 0 || asked[i] >= least[i]) continue;
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot meet the recipe's budget (%s: %.6g): with these settings %s %.3f bits before it is "
                         "spent; give that or more%s",
                         i ? "act" : "bits", asked[i], i ? "activations have" : "weights take, with their scales,",
                         ceil(least[i] * 1000) / 1000, // what is printed can be given
                         i               ? ", or --act 4"
                         : s->wbits == 8 ? ", or --wbits 4"
                                         : ", or larger groups");
    }
    if (asked[1] == 0 || s->blocks) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot spend a budget of activations (act: %.6g): a Hugging Face directory has one width of "
                     "activations; name an OUT.gguf",
                     asked[1]);
}

static gyre_status apply_exceptions(struct gyre_settings *s, const struct gyre_hparams *hp, gyre_error *err)
{
    GYRE_TRY(survey_taps(s, hp, err));
    if (!s->act4) s->recipe.act_group = 0;
    return GYRE_OK;
}

gyre_status gyre_settings_except(struct gyre_settings *s, const struct gyre_hparams *hp,
                                 const struct gyre_exception *list, uint32_t n, gyre_error *err)
{
    memset(&s->recipe.budget, 0, sizeof s->recipe.budget);
    memcpy(s->recipe.exception + s->recipe.n_exceptions, list, n * sizeof *list);
    s->recipe.n_exceptions += n;
    GYRE_TRY(apply_exceptions(s, hp, err));
    return check_linears(s, hp, err);
}

// ---- entry ------------------------------------------------------------------------------------------------

// What the command says, with its defaults.
static struct gyre_settings settings_of(const gyre_quantize_params *p, bool blocks)
{
    return (struct gyre_settings){.wbits = p->wbits ? p->wbits : 4,
                                  .wgroup = p->wgroup == GYRE_WGROUP_ROW ? 0
                                            : p->wgroup                  ? (uint32_t)p->wgroup
                                                                         : 32,
                                  .act = p->act ? p->act : 8,
                                  .kv = p->kv ? p->kv : 8,
                                  .kv_v = p->kv_v ? p->kv_v
                                          : p->kv ? p->kv
                                                  : 8,
                                  .full = !p->profile || !strcmp(p->profile, "full"),
                                  .head4 = p->head == 4,
                                  .blocks = blocks,
                                  .seed = p->seed};
}

static gyre_status check_values(const gyre_quantize_params *p, const struct gyre_hparams *hp,
                                const struct gyre_settings *s, gyre_error *err)
{
    if (!s->recipe.n_stages)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot quantize with recipe %s: it rounds nothing, but learns on a file that was rounded "
                         "before; name that file with --from",
                         s->recipe.name);
    if (p->profile && strcmp(p->profile, "full") && strcmp(p->profile, "portable"))
        return gyre_fail(err, GYRE_E_INVALID, "unknown profile \"%s\": it is neither portable nor full", p->profile);
    if (p->head && p->head != 8 && p->head != 4)
        return gyre_fail(err, GYRE_E_INVALID, "unknown width of the head %u: it is 8 or 4", p->head);
    if (p->head && (s->wbits >= 16 || !s->blocks || hp->width % 32))
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot give the head %u bits: %s; leave the option out", p->head,
                         s->wbits >= 16 ? "nothing of this output is rounded"
                         : !s->blocks   ? "that of a Hugging Face directory is F16"
                                        : "its rows are not whole groups of 32");
    if (s->wbits != 32 && !one_of(s->wbits, 4, 8, 16))
        return gyre_fail(err, GYRE_E_INVALID, "unknown weight width %u: it is none of 4, 8, 16 and 32", s->wbits);
    if (s->wgroup && !one_of(s->wgroup, 32, 64, 128))
        return gyre_fail(err, GYRE_E_INVALID, "unknown group size %u: it is none of 0 (per channel), 32, 64 and 128",
                         s->wgroup);
    if (!gyre_is_width(s->act) || !gyre_is_width(s->kv) || !gyre_is_width(s->kv_v))
        return gyre_fail(err, GYRE_E_INVALID,
                         "unknown width of activations, keys or values (%u, %u, %u): they are 16, 8 or 4 each", s->act,
                         s->kv, s->kv_v);
    if (!s->blocks && s->kv != s->kv_v)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot give keys %u and values %u bits: a Hugging Face directory has one width for both; "
                         "name an OUT.gguf",
                         s->kv, s->kv_v);
    return GYRE_OK;
}

// What `auto` stands for where widths decide it, not data.
static void decide(struct gyre_settings *s, const struct gyre_hparams *hp)
{
    struct gyre_recipe *r = &s->recipe;
    const bool act4 = s->act <= 4;
    // optrot gained at 8-bit activations, its authors report a loss at 4; where R1 cannot be merged, it runs online.
    s->learn_auto = r->learn.method == GYRE_LEARN_AUTO;
    if (s->learn_auto)
        r->learn.method = !act4 && s->wbits < 16 && gyre_roles_merge_r1(hp) ? GYRE_LEARN_OPTROT : GYRE_LEARN_NONE;
    // At 8-bit activations weighed outputs gained on every text, at 4 on none (docs/quality.md).
    if (r->calibration.outputs == GYRE_AUTO_COUNT)
        r->calibration.outputs = act4 ? 0 : GYRE_MIN(AUTO_OUTPUTS, r->calibration.windows);
    // Learning end to end gained on every text at 8 and at 4 bits; a folder is no model before the run ends.
    s->distill_auto = r->distill.steps == GYRE_AUTO_COUNT;
    if (s->distill_auto) r->distill.steps = !s->blocks ? 0 : act4 ? AUTO_STEPS_4 : AUTO_STEPS;
    if (r->distill.rate == GYRE_AUTO) r->distill.rate = act4 ? auto_rate_4 : auto_rate;
    // At 4-bit activations a quarter of the correction gains; what held-out errors ask for loses, since least squares
    // answers noise in the inputs with smaller weights, block after block (docs/quality.md).
    for (uint32_t i = 0; i < r->n_stages && act4; i++)
        if (r->stage[i].kind == GYRE_STAGE_CORRECT && r->stage[i].alpha == GYRE_AUTO) r->stage[i].alpha = auto_alpha_4;
}

// The rotated float model: nothing is rounded, so nothing is measured for it.
static void round_nothing(struct gyre_settings *s)
{
    struct gyre_recipe *r = &s->recipe;
    s->wgroup = 0;
    memset(&r->diagonals, 0, sizeof r->diagonals);
    memset(&r->calibration, 0, sizeof r->calibration);
    // What is told of the run must be a recipe: one that reads no text has no stage that wants one.
    memset(r->stage, 0, sizeof r->stage);
    r->n_stages = 1;
    r->stage[0].kind = GYRE_STAGE_RTN;
    gyre_fields_preset(gyre_stage_fields(GYRE_STAGE_RTN), &r->stage[0]);
    memset(&r->budget, 0, sizeof r->budget);
    r->distill.steps = 0;
    if (gyre_learn_reads(r)) r->learn.method = GYRE_LEARN_NONE;
    r->kv_centre = false;
    r->seeds = 1;
    if (r->act_clip == GYRE_AUTO) r->act_clip = 1;
    if (r->kv_clip == GYRE_AUTO) r->kv_clip = 1;
}

gyre_status gyre_settings_resolve(const gyre_quantize_params *p, const struct gyre_recipe *recipe,
                                  const struct gyre_hparams *hp, bool blocks, struct gyre_settings *out,
                                  gyre_error *err)
{
    *out = settings_of(p, blocks);
    if (recipe) out->recipe = *recipe;
    else GYRE_TRY(gyre_recipe_find(p->recipe ? p->recipe : GYRE_DEFAULT_RECIPE, &out->recipe, err));
    GYRE_TRY(check_values(p, hp, out, err));
    struct gyre_recipe *const r = &out->recipe;
    if (!blocks && out->wbits >= 16) out->full = false; // a directory of floats cannot say that R3 and R4 run
    if (!out->full || (out->kv == 16 && out->kv_v == 16))
        r->kv_centre = false; // other tools know no centres; 16 bits need none
    GYRE_TRY(apply_exceptions(out, hp, err));
    decide(out, hp);
    // A norm between linear and RoPE undoes what a diagonal would merge there.
    if (gyre_role_present(hp, GYRE_ROLE_q_norm, 0)) r->diagonals.qk = 0;
    if (out->wbits >= 16) {
        round_nothing(out);
        return GYRE_OK;
    }
    // What differentiates a whole window cannot go beyond the context; who only looks at blocks does not ask for it.
    if (r->calibration.outputs || r->calibration.fisher || r->distill.steps || gyre_learn_reads(r))
        r->calibration.tokens = GYRE_MIN(r->calibration.tokens, hp->context);
    GYRE_TRY(check_linears(out, hp, err));
    return check_budget(out, hp, err);
}

bool gyre_settings_undecided(const struct gyre_settings *s)
{
    return s->wbits < 16 && (s->recipe.seeds > 1 || (s->recipe.act_clip == GYRE_AUTO && s->act4) ||
                             (s->recipe.kv_clip == GYRE_AUTO && (s->kv == 4 || s->kv_v == 4)));
}
