// The scaling of RoPE: what a file says of it, and the frequencies that follow. See hparams.h.
#include "runtime/model/hparams_impl.h"
#include "runtime/model/roles.h"

#include "runtime/util/base.h"

#include <math.h>
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

// YaRN (2309.00071): as llama3, but blended along the dimensions between those that turn beta_fast and beta_slow times
// in the original context; and q and k are multiplied by 0.1 ln(factor) + 1.
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
    double attention = 1;
    gyre_hparam_key(hp, "rope.scaling.attn_factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1e-3, 1e3, &attention, err));
    hp->rope_mscale = (float)(attention * (hp->rope_factor > 1 ? 0.1 * log(hp->rope_factor) + 1 : 1));
    return GYRE_OK;
}

// As llama.cpp reads them: the factor stands in rope.scaling.factor or, in old files, in rope.scale_linear; without a
// type it is linear, and the type "none" switches it off.
gyre_status gyre_rope_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    const char *type = "linear";
    hp->rope_factor = hp->rope_low_freq = hp->rope_high_freq = 1;
    hp->rope_mscale = 1;
    hp->has_rope_freqs = gyre_role_tensor(source, GYRE_ROLE_rope_freqs, 0, "weight", NULL) != NULL;
    gyre_hparam_key(hp, "rope.scale_linear", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 1e6, &hp->rope_factor, err));
    gyre_hparam_key(hp, "rope.scaling.factor", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 1e6, &hp->rope_factor, err));
    if (hp->rope_factor == 0) hp->rope_factor = 1; // what some writers put for "none"
    gyre_hparam_key(hp, "rope.scaling.type", key);
    GYRE_TRY(gyre_source_string(source, key, &type, err));
    if (!strcmp(type, "none")) {
        hp->rope_factor = 1;
        return GYRE_OK;
    }
    if (!strcmp(type, "linear")) hp->rope_scaling = hp->rope_factor == 1 ? GYRE_ROPE_NONE : GYRE_ROPE_LINEAR;
    else if (!strcmp(type, "llama3")) hp->rope_scaling = GYRE_ROPE_LLAMA3;
    else if (!strcmp(type, "yarn")) hp->rope_scaling = GYRE_ROPE_YARN;
    else
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): %s is \"%s\"; gyre does none, linear, llama3 and yarn",
                         gyre_source_path(source), key, gyre_show(type, strlen(type)).text);
    if (hp->rope_factor < 1e-3)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): its RoPE scaling factor is %g; gyre supports 0.001 to 1e+06",
                         gyre_source_path(source), hp->rope_factor);
    if (hp->rope_scaling == GYRE_ROPE_LLAMA3) return read_llama3(source, hp, err);
    if (hp->rope_scaling == GYRE_ROPE_YARN) return read_yarn(source, hp, err);
    gyre_hparam_key(hp, "rope.scaling.attn_factor", key);
    double attention = 1;
    return gyre_hparam_f64(source, key, true, 1, 1, &attention, err);
}

// The dimension (of head_dim / 2, fractional) whose wave turns `turns` times in the original context.
static double dimension_of(const struct gyre_hparams *hp, double turns)
{
    return hp->head_dim * log(hp->rope_original_context / (turns * TWO_PI)) / (2 * log(hp->rope_base));
}

// How much of the unscaled frequency f of dimension i is kept.
static double kept(const struct gyre_hparams *hp, uint32_t i, double f)
{
    double keep;
    if (hp->rope_scaling == GYRE_ROPE_LLAMA3) {
        const double turns = hp->rope_original_context * f / TWO_PI;
        keep = (turns - hp->rope_low_freq) / (hp->rope_high_freq - hp->rope_low_freq);
    } else {
        const double low = GYRE_MAX(floor(dimension_of(hp, hp->rope_high_freq)), 0.0),
                     high = GYRE_MIN(ceil(dimension_of(hp, hp->rope_low_freq)), hp->head_dim - 1.0);
        keep = 1 - (i - low) / (high > low ? high - low : 0.001);
    }
    return GYRE_MAX(0.0, GYRE_MIN(1.0, keep));
}

void gyre_rope_freqs(const struct gyre_hparams *hp, const float *divisors, float *out)
{
    for (uint32_t i = 0; i < hp->head_dim / 2; i++) {
        double f = pow(hp->rope_base, -2.0 * i / hp->head_dim);
        if (hp->rope_scaling == GYRE_ROPE_LINEAR) f /= hp->rope_factor;
        if (hp->rope_scaling == GYRE_ROPE_LLAMA3 || hp->rope_scaling == GYRE_ROPE_YARN) {
            const double keep = kept(hp, i, f);
            f = keep * f + (1 - keep) * f / hp->rope_factor;
        }
        out[i] = (float)(divisors ? f / divisors[i] : f);
    }
}
