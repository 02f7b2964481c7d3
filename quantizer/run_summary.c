// See run_summary.h.
#include "quantizer/run_summary.h"
#include "quantizer/report/note.h"
#include "runtime/util/base.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t source_size(const gyre_source *source)
{
    struct stat info;
    uint64_t bytes = 0;
    if (gyre_source_container(source) == GYRE_CONTAINER_GGUF && !stat(gyre_source_path(source), &info))
        return (uint64_t)info.st_size;
    for (uint64_t i = 0; i < gyre_source_tensor_count(source); i++) bytes += gyre_source_tensor_at(source, i)->bytes;
    return bytes;
}

// What the linears' notes add up to.
static void fill_damping(const struct gyre_output *out, gyre_quantize_summary *s)
{
    const struct gyre_recipe *recipe = &out->plan->set.recipe;
    const double asked = gyre_recipe_damp(recipe);
    s->linears = s->layers * GYRE_LINEARS;
    for (uint32_t l = 0; l < s->layers; l++)
        for (int i = 0; i < GYRE_LINEARS; i++) {
            struct gyre_ladder_note n;
            if (!gyre_note_linear(gyre_output_note(out, l + 1), (gyre_role)i, &n)) continue;
            if (n.damp > 1.5 * asked) { // it goes up tenfold
                s->raised_damping++;
                s->worst_damping = fmax(s->worst_damping, n.damp);
            }
            // Linears that read at one tap have its inputs in common.
            if (gyre_product_first(gyre_roles[i].product) == (gyre_role)i) s->dead_inputs += n.dead;
        }
}

gyre_status gyre_summary_fill(const struct gyre_summary_run *run, gyre_quantize_summary *s, gyre_error *err)
{
    const struct gyre_output *out = run->out;
    const struct gyre_plan *p = out->plan;
    const uint32_t layers = run->rounded ? p->hp.n_layers : 0;
    uint64_t bytes = 0;
    *s = (gyre_quantize_summary){.layers = layers,
                                 .rtn_kl = NAN,
                                 .recipe_kl = NAN,
                                 .resumed_layers = out->journal.resumed_steps ? out->journal.resumed_steps - 1 : 0,
                                 .rotation_seed = p->choice.seed,
                                 .first_seed = p->set.seed,
                                 .n_seeds = p->choice.n_seeds,
                                 .act_clip = (double)p->choice.act_clip,
                                 .kv_clip = (double)p->choice.kv_clip,
                                 .kv_clip_v = (double)p->choice.kv_clip_v};
    static_assert(sizeof s->recipe == GYRE_RECIPE_NAME, "the summary has room for a recipe's name");
    memcpy(s->recipe, p->set.recipe.name, sizeof s->recipe);
    s->distill_steps = run->distilled->steps;
    s->distill_best = run->distilled->best;
    s->distill_windows = run->distilled->held;
    s->distill_before = run->distilled->before;
    s->distill_after = run->distilled->after;
    s->layer = calloc(layers + 1ull, sizeof *s->layer);
    if (!s->layer) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary");
    for (uint32_t l = 0; l < layers; l++) {
        const json_t *note = gyre_output_note(out, l + 1);
        s->rtn_weight_error += gyre_note_figure(note, "rtn_weights") / layers;
        s->recipe_weight_error += gyre_note_figure(note, "recipe_weights") / layers;
        s->layer[l] =
            (gyre_quantize_layer){gyre_note_figure(note, "rtn_error"), gyre_note_figure(note, "recipe_error")};
    }
    for (uint64_t i = 0; i < out->writer->n_tensors; i++)
        if (out->writer->tensor[i].part.kind == GYRE_PART_LINEAR) bytes += out->writer->tensor[i].bytes;
    s->bits_per_weight = 8.0 * (double)bytes / (double)run->weights;
    fill_damping(out, s);
    s->summary_tokens = run->closing ? gyre_summary_tokens(run->closing) : 0;
    s->source_bytes = source_size(p->source);
    s->output_bytes = gyre_writer_bytes(out->writer);
    return run->closing ? gyre_summary_end(run->closing, out, &s->rtn_kl, &s->recipe_kl, err) : GYRE_OK;
}

void gyre_quantize_summary_free(gyre_quantize_summary *summary)
{
    free(summary->layer);
    summary->layer = NULL;
}
