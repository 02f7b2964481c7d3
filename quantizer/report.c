// See report.h.
#include "quantizer/report.h"
#include "runtime/util/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void settings_table(FILE *f, const struct gyre_plan *p, const gyre_quantize_summary *s)
{
    const struct gyre_settings *set = &p->set;
    fprintf(f, "# %s, %u bits, ", set->recipe.name, set->wbits);
    if (set->wbits >= 16) fprintf(f, "unrounded\n\n");
    else if (set->wgroup) fprintf(f, "groups of %u\n\n", set->wgroup);
    else fprintf(f, "per channel\n\n");
    fprintf(
        f,
        "| setting | value |\n|---|---|\n| profile | %s |\n| seed | %llu |\n| activations, KV cache | %u, %u bits |\n",
        set->full ? "full" : "portable", (unsigned long long)set->seed, set->act, set->kv);
    fprintf(f, "| online transforms | %s%s%s%s |\n", p->online.r3 ? "R3 " : "", p->online.r4.n ? "R4 " : "",
            p->online.head.n ? "head" : "", p->online.r3 || p->online.r4.n || p->online.head.n ? "" : "none");
    fprintf(f, "| size | %.1f MiB of %.1f MiB; %.3f bits a weight in the blocks |\n\n",
            (double)s->output_bytes / 1048576, (double)s->source_bytes / 1048576, s->bits_per_weight);
}

static void cell(FILE *f, double value)
{
    if (isnan(value)) fprintf(f, " - |");
    else fprintf(f, " %.5f |", value);
}

gyre_status gyre_report_write(const char *folder, const struct gyre_plan *p, const gyre_quantize_summary *s,
                              gyre_error *err)
{
    char path[4096], *text = NULL;
    size_t bytes = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/report.md", folder) >= sizeof path)
        return gyre_fail(err, GYRE_E_IO, "cannot write report (%s): the name is too long", folder);
    GYRE_TRY(gyre_make_dirs(folder, err));
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return gyre_fail(err, GYRE_E_NOMEM, "cannot write report (%s): out of memory", folder);
    settings_table(f, p, s);
    fprintf(f,
            "Plain rounding (rtn) beside the recipe, on %u tokens: a first impression, not a measurement; `gyre eval` "
            "measures.\n\n",
            s->summary_tokens);
    fprintf(f, "| | rtn | %s |\n|---|---|---|\n| relative squared weight error |", p->set.recipe.name);
    cell(f, s->rtn_weight_error);
    cell(f, s->recipe_weight_error);
    fprintf(f, "\n| KL to the float model, nats |");
    cell(f, s->rtn_kl);
    cell(f, s->recipe_kl);
    for (uint32_t l = 0; l < s->layers; l++) {
        fprintf(f, "\n| residual after block %u, relative squared error |", l);
        cell(f, s->layer[l].rtn_error);
        cell(f, s->layer[l].recipe_error);
    }
    fprintf(f, "\n");
    const bool good = fclose(f) == 0;
    const gyre_status st = good ? gyre_file_write(path, text, bytes, err)
                                : gyre_fail(err, GYRE_E_NOMEM, "cannot write report (%s): out of memory", folder);
    free(text);
    return st;
}
