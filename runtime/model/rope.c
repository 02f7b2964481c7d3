// The scaling of RoPE: what a file says of it, and the frequencies that follow. See hparams.h.
#include "runtime/model/hparams_impl.h"
#include "runtime/model/roles.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TWO_PI 6.28318530717958647692

// Long waves are stretched by the factor, short ones kept, those between blended.
static gyre_status read_llama3(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    gyre_hparam_key(hp, "rope.scaling.factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, false, 1e-3, 1e6, &hp->rope_factor, err));
    if (hp->has_rope_freqs)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): both llama3 scaling keys and a rope_freqs.weight tensor",
                         gyre_source_path(source));
    gyre_hparam_key(hp, "rope.scaling.low_freq_factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, false, 1e-3, 1e6, &hp->rope_low_freq, err));
    gyre_hparam_key(hp, "rope.scaling.high_freq_factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, false, 1e-3, 1e6, &hp->rope_high_freq, err));
    if (hp->rope_high_freq <= hp->rope_low_freq)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s is %g, not above the low factor %g",
                         gyre_source_path(source), key, hp->rope_high_freq, hp->rope_low_freq);
    gyre_hparam_key(hp, "rope.scaling.original_context_length", key);
    return gyre_hparam_f64(source, key, false, 1, 1e9, &hp->rope_original_context, err);
}

// 0.1 m ln(factor) + 1, by which YaRN multiplies q and k.
static double yarn_mscale(double factor, double m) { return factor > 1 ? 0.1 * m * log(factor) + 1 : 1; }

// YaRN (2309.00071): as llama3, but blended along the dimensions between those that turn beta_fast and beta_slow times
// in the original context; and q and k are multiplied by 0.1 ln(factor) + 1, or, where the file has a multiplier for
// that, by its share of it.
static gyre_status read_yarn(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    gyre_hparam_key(hp, "rope.scaling.original_context_length", key);
    GYRE_TRY(gyre_hparam_f64(source, key, false, 1, 1e9, &hp->rope_original_context, err));
    hp->rope_low_freq = 1;
    hp->rope_high_freq = 32;
    gyre_hparam_key(hp, "rope.scaling.yarn_beta_slow", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1e-3, 1e6, &hp->rope_low_freq, err));
    gyre_hparam_key(hp, "rope.scaling.yarn_beta_fast", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1e-3, 1e6, &hp->rope_high_freq, err));
    bool truncate = true, found;
    gyre_hparam_key(hp, "rope.scaling.yarn_truncate", key);
    GYRE_TRY(gyre_source_bool(source, key, &truncate, &found, err));
    hp->rope_untruncated = !truncate;
    double attention = 1, all = 0;
    gyre_hparam_key(hp, "rope.scaling.attn_factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1e-3, 1e3, &attention, err));
    gyre_hparam_key(hp, "rope.scaling.yarn_log_multiplier", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 100, &all, err));
    hp->rope_mscale = (float)(attention * yarn_mscale(hp->rope_factor, 1) / yarn_mscale(hp->rope_factor, all));
    return GYRE_OK;
}

// A tensor of divisors of the frequencies, one for each pair that is turned; *found: there is one.
static gyre_status read_divisor_tensor(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                       float *out, bool *found, gyre_error *err)
{
    const struct gyre_tensor *t = gyre_role_tensor(source, role, 0, "weight", NULL);
    *found = t != NULL;
    if (!t) return GYRE_OK;
    if (t->n_dims != 1 || t->cols != hp->rope_dims / 2)
        return gyre_role_misshapen(source, t, 1, hp->rope_dims / 2, err);
    GYRE_TRY(gyre_role_floats(source, t, err));
    gyre_tensor_rows_f32(t, 0, 1, out);
    for (uint64_t i = 0; i < t->cols; i++)
        if (!(fabsf(out[i]) >= 1e-6f && fabsf(out[i]) <= 1e9f))
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use model (%s): tensor %s holds %g, by which no frequency can be divided",
                             gyre_source_path(source), t->name, (double)out[i]);
    return GYRE_OK;
}

static gyre_status read_divisors(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    GYRE_TRY(read_divisor_tensor(source, hp, GYRE_ROLE_rope_freqs, hp->rope_divisor[0], &hp->has_rope_freqs, err));
    memcpy(hp->rope_divisor[1], hp->rope_divisor[0], sizeof hp->rope_divisor[0]);
    return GYRE_OK;
}

// LongRoPE (2402.13753): a divisor per frequency for contexts up to the original one and others beyond it, from tensors
// (GGUF) or lists. The factor of q and k is the file's, or sqrt(1 + ln(s) / ln(original context)), s the ratio of the
// contexts.
static gyre_status read_longrope(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    static const struct {
        gyre_role role;
        const char *name;
    } kinds[] = {{GYRE_ROLE_rope_short, "rope.scaling.short_factor"},
                 {GYRE_ROLE_rope_long, "rope.scaling.long_factor"}};
    char key[96];
    hp->rope_original_context = hp->context;
    gyre_hparam_key(hp, "rope.scaling.original_context_length", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 2, 1e9, &hp->rope_original_context, err));
    for (size_t k = 0; k < GYRE_COUNT(kinds); k++) {
        double *list = NULL;
        uint64_t n = 0;
        bool found;
        GYRE_TRY(read_divisor_tensor(source, hp, kinds[k].role, hp->rope_divisor[k], &found, err));
        if (found) continue;
        gyre_hparam_key(hp, kinds[k].name, key);
        GYRE_TRY(gyre_source_array_f64(source, key, &list, &n, err));
        bool good = n == hp->rope_dims / 2;
        for (uint64_t i = 0; good && i < n; i++) {
            hp->rope_divisor[k][i] = (float)list[i];
            good = list[i] >= 1e-6 && list[i] <= 1e9;
        }
        free(list);
        if (!good)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use model (%s): %s is no list of %u divisors, one for each frequency",
                             gyre_source_path(source), key, hp->rope_dims / 2);
    }
    const double ratio = hp->context / hp->rope_original_context;
    double factor = ratio > 1 ? sqrt(1 + log(ratio) / log(hp->rope_original_context)) : 1;
    gyre_hparam_key(hp, "rope.scaling.attn_factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1e-3, 1e3, &factor, err));
    hp->rope_mscale = (float)factor;
    return GYRE_OK;
}

// As llama.cpp reads them: the factor stands in rope.scaling.factor or, in old files, in rope.scale_linear; without a
// type it is linear, or longrope where the file has its divisors (converters of Phi-3 write no type), and the type
// "none" switches it off.
gyre_status gyre_rope_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    const bool divided = gyre_role_tensor(source, GYRE_ROLE_rope_short, 0, "weight", NULL) ||
                         gyre_role_tensor(source, GYRE_ROLE_rope_long, 0, "weight", NULL);
    const char *type = divided ? "longrope" : "linear";
    hp->rope_factor = hp->rope_low_freq = hp->rope_high_freq = 1;
    hp->rope_mscale = 1;
    GYRE_TRY(read_divisors(source, hp, err));
    gyre_hparam_key(hp, "rope.scale_linear", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 1e6, &hp->rope_factor, err));
    gyre_hparam_key(hp, "rope.scaling.factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 1e6, &hp->rope_factor, err));
    if (hp->rope_factor == 0) hp->rope_factor = 1; // what some writers put for "none"
    gyre_hparam_key(hp, "rope.scaling.type", key);
    GYRE_TRY(gyre_source_string(source, key, &type, err));
    if (divided && strcmp(type, "longrope"))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): %s is \"%s\", and it has the divisors of longrope; gyre uses those "
                         "with longrope alone",
                         gyre_source_path(source), key, gyre_show(type, strlen(type)).text);
    if (!strcmp(type, "none")) {
        hp->rope_factor = 1;
        return GYRE_OK;
    }
    if (!strcmp(type, "linear")) hp->rope_scaling = hp->rope_factor == 1 ? GYRE_ROPE_NONE : GYRE_ROPE_LINEAR;
    else if (!strcmp(type, "llama3")) hp->rope_scaling = GYRE_ROPE_LLAMA3;
    else if (!strcmp(type, "yarn")) hp->rope_scaling = GYRE_ROPE_YARN;
    else if (!strcmp(type, "longrope")) hp->rope_scaling = GYRE_ROPE_LONG;
    else
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): %s is \"%s\"; gyre does none, linear, llama3, yarn and longrope",
                         gyre_source_path(source), key, gyre_show(type, strlen(type)).text);
    if (hp->rope_factor < 1e-3)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): its RoPE scaling factor is %g; gyre supports 0.001 to 1e+06",
                         gyre_source_path(source), hp->rope_factor);
    if (hp->rope_scaling == GYRE_ROPE_LLAMA3) return read_llama3(source, hp, err);
    if (hp->rope_scaling == GYRE_ROPE_YARN) return read_yarn(source, hp, err);
    if (hp->rope_scaling == GYRE_ROPE_LONG) return read_longrope(source, hp, err);
    gyre_hparam_key(hp, "rope.scaling.attn_factor", key);
    double attention = 1;
    return gyre_hparam_f64(source, key, true, 1, 1, &attention, err);
}

// The pair (of rope_dims / 2, fractional) whose wave turns `turns` times in the original context.
static double dimension_of(const struct gyre_hparams *hp, double turns)
{
    return hp->rope_dims * log(hp->rope_original_context / (turns * TWO_PI)) / (2 * log(hp->rope_base));
}

// How much of the unscaled frequency f of dimension i is kept.
static double kept(const struct gyre_hparams *hp, uint32_t i, double f)
{
    double keep;
    if (hp->rope_scaling == GYRE_ROPE_LLAMA3) {
        const double turns = hp->rope_original_context * f / TWO_PI;
        keep = (turns - hp->rope_low_freq) / (hp->rope_high_freq - hp->rope_low_freq);
    } else {
        double low = dimension_of(hp, hp->rope_high_freq), high = dimension_of(hp, hp->rope_low_freq);
        if (!hp->rope_untruncated) low = floor(low), high = ceil(high);
        low = GYRE_MAX(low, 0.0);
        high = GYRE_MIN(high, hp->rope_dims - 1.0);
        keep = 1 - (i - low) / (high > low ? high - low : 0.001);
    }
    return GYRE_MAX(0.0, GYRE_MIN(1.0, keep));
}

void gyre_rope_freqs(const struct gyre_hparams *hp, gyre_turn turn, float *out)
{
    const double base = turn == GYRE_TURN_LOCAL ? hp->rope_local_base : hp->rope_base;
    for (uint32_t i = 0; i < hp->head_dim / 2; i++) {
        double f = pow(base, -2.0 * i / hp->rope_dims);
        if (turn == GYRE_TURN_ROPE) {
            if (hp->rope_scaling == GYRE_ROPE_LINEAR) f /= hp->rope_factor;
            if (hp->rope_scaling == GYRE_ROPE_LLAMA3 || hp->rope_scaling == GYRE_ROPE_YARN) {
                const double keep = kept(hp, i, f);
                f = keep * f + (1 - keep) * f / hp->rope_factor;
            }
            const double divisor = (double)hp->rope_divisor[hp->long_text][i];
            if (divisor != 0) f /= divisor;
        }
        out[i] = turn != GYRE_TURN_NONE && 2 * i < hp->rope_dims ? (float)f : 0;
    }
}

void gyre_rope_divisors(const struct gyre_hparams *hp, float *out)
{
    float f[GYRE_MAX_HEAD_DIM / 2];
    gyre_rope_freqs(hp, GYRE_TURN_ROPE, f);
    for (uint32_t i = 0; i < hp->rope_dims / 2; i++)
        out[i] = (float)(pow(hp->rope_base, -2.0 * i / hp->rope_dims) / (double)f[i]);
}

uint32_t gyre_rope_split(const struct gyre_hparams *hp) { return hp->rope_interleaved ? 0 : hp->rope_dims / 2; }

void gyre_hparams_set_context(struct gyre_hparams *hp, uint32_t context)
{
    hp->long_text = hp->rope_scaling == GYRE_ROPE_LONG && context > hp->rope_original_context;
}
