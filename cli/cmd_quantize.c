// gyre quantize: an ordinary model in, rotated int4 weights out, with plain rounding measured beside it.
#include "cli/cli.h"
#include "cli/sensitivity.h"
#include "cli/texts.h"
#include "cli/threads.h"

#include <gyre/gyre_quantize.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    cli_progress(fraction, eta, what);
    return cli_interrupted();
}

// What was chosen for the user, and what a better text would do away with.
static void print_choices(const gyre_quantize_summary *s)
{
    if (s->n_seeds > 1)
        fprintf(stderr, "  rotation: seed %llu of %llu..%llu\n", (unsigned long long)s->rotation_seed,
                (unsigned long long)s->first_seed, (unsigned long long)(s->first_seed + s->n_seeds - 1));
    if (s->kv_clip != s->kv_clip_v)
        fprintf(stderr, "  clips: activations %.3g, keys %.3g, values %.3g\n", s->act_clip, s->kv_clip, s->kv_clip_v);
    else if (s->act_clip != 1 || s->kv_clip != 1)
        fprintf(stderr, "  clips: activations %.3g, KV cache %.3g\n", s->act_clip, s->kv_clip);
    if (s->distill_steps)
        fprintf(stderr, "  distilled: %.4f -> %.4f nats on %u held-out windows, step %u of %u%s\n", s->distill_before,
                s->distill_after, s->distill_windows, s->distill_best, s->distill_steps,
                s->layers ? "; the table is from before that" : "");
    if (s->raised_damping)
        fprintf(stderr,
                "\nwarning: %u of %u linears needed more damping than the recipe's, up to %.3g: their inputs hardly "
                "vary on this text; a longer one (--calib) may help\n",
                s->raised_damping, s->linears, s->worst_damping);
    if (s->dead_inputs)
        fprintf(stderr,
                "%swarning: %llu inputs of linears were zero on the whole text; their weights are rounded without "
                "statistics\n",
                s->raised_damping ? "" : "\n", (unsigned long long)s->dead_inputs);
}

// Of what was rounded.
static void print_errors(const gyre_quantize_summary *s)
{
    const char *recipe = s->recipe;
    fprintf(stderr,
            "\nerror of each block's output against the float model (squared, relative), %u tokens\n\n  layer  %12s  "
            "%12s\n",
            s->summary_tokens, "rtn", recipe);
    for (uint32_t i = 0; i < s->layers; i++) {
        if (s->layers > 12 && i >= 4 && i + 4 < s->layers) {
            if (i == 4) fprintf(stderr, "    ...\n");
            continue;
        }
        fprintf(stderr, "  %5u  %12.6f  %12.6f\n", i, s->layer[i].rtn_error, s->layer[i].recipe_error);
    }
    fprintf(stderr, "\n  weight error   %10.6f  %12.6f\n", s->rtn_weight_error, s->recipe_weight_error);
    if (isfinite(s->recipe_kl)) {
        fprintf(stderr, "  KL to float    %10.4f  %12.4f   nats per token\n", s->rtn_kl, s->recipe_kl);
        if (s->recipe_kl > s->rtn_kl * 1.02)
            fprintf(stderr,
                    "\nnote: on this model and setting %s is worse than plain rounding (rtn); see docs/quality.md\n",
                    recipe);
    }
}

static void print_summary(const gyre_quantize_params *p, const gyre_quantize_summary *s)
{
    cli_progress_end();
    if (s->layers) print_errors(s);
    print_choices(s);
    fprintf(stderr, "\n%s: %.1f MiB from %.1f MiB, %.2f bits a weight in the blocks, %.1f s%s\n", p->output,
            (double)s->output_bytes / 1048576.0, (double)s->source_bytes / 1048576.0, s->bits_per_weight, s->seconds,
            s->resumed_layers ? " (resumed)" : "");
}

// A recipe that there is not is wrong usage; a file that is no recipe is a failure. Returns -1 to go on, else the exit
// status.
static int check_recipe(const char *name)
{
    gyre_error err = {0};
    char *text = NULL;
    const gyre_status st = gyre_recipe_describe(name, GYRE_RECIPE_YAML, &text, &err);
    free(text);
    if (st == GYRE_E_INVALID) return cli_usage("%s; see gyre recipes", err.message);
    return st == GYRE_OK ? -1 : cli_fail(&err);
}

// What a run that writes nothing, and has no use for much else, was told beside it; -1: nothing.
static int check_sensitivity(const gyre_quantize_params *p, uint32_t shard)
{
    if (p->output || p->report_dir || p->resume || p->force || shard)
        return cli_usage("unusable option (%s): --sensitivity writes nothing; leave it out", p->output ? "-o"
                                                                                             : p->report_dir
                                                                                                 ? "--report"
                                                                                             : p->resume ? "--resume"
                                                                                             : p->force  ? "--force"
                                                                                                         : "--shard");
    if (p->head) return cli_usage("unusable option (--head): --sensitivity is of the blocks alone; leave it out");
    if (p->device || p->distill_device)
        return cli_usage("unusable option (%s): --sensitivity runs on the host; leave it out",
                         p->device ? "--device" : "--distill-device");
    if (p->from) return cli_usage("unusable option (--from): --sensitivity looks at SRC; leave it out");
    return -1;
}

// The same of a run that writes OUT; `stray`: the option of --sensitivity that was given.
static int check_writing(const gyre_quantize_params *p, const char *stray)
{
    if (stray) return cli_usage("unusable option (%s): it is of --sensitivity; see gyre quantize --help", stray);
    if (p->from && !p->recipe)
        return cli_usage("missing option (--recipe FILE): --from goes on with a recipe that has distill alone; see "
                         "docs/recipes.md");
    if (!p->output)
        return cli_usage("missing option (-o OUT): gyre quantize needs a file to write; see gyre quantize --help");
    return -1;
}

static int run(int argc, char **argv)
{
    gyre_quantize_params p = {.size = sizeof p, .progress = on_progress, .log = cli_log(false)};
    uint32_t wgroup = UINT32_MAX, shard = 0, kv[2] = {0}, windows = 0;
    bool sensitivity = false, json = false;
    struct cli_list calib = {0};
    const struct cli_option options[] = {
        {"-o", "OUT", "the file or directory to write (required but for --sensitivity)", CLI_TEXT, &p.output, 0, 0,
         NULL},
        {"--recipe", "NAME|FILE", "what is done; gyre recipes lists them (" GYRE_DEFAULT_RECIPE ")", CLI_TEXT,
         &p.recipe, 0, 0, NULL},
        {"--wgroup", "N", "weights that share a scale: 0 (a whole row), 32, 64, 128 (32)", CLI_U32, &wgroup, 0, 0,
         "0,32,64,128"},
        {"--wbits", "BITS", "4 or 8; 16 and 32 write the rotated float model (4)", CLI_U32, &p.wbits, 0, 0,
         "4,8,16,32"},
        {"--act", "BITS", "activations the file is made for: 16, 8, 4 (8)", CLI_U32, &p.act, 0, 0, "16,8,4"},
        {"--kv", "K[/V]", "cache the file is made for: 16, 8, 4; 8/4: of keys and of values (8)", CLI_PAIR, kv, 0, 0,
         "16,8,4"},
        {"--head", "BITS", "8, or 4: int4 in groups of 32, a matrix of its own (8)", CLI_U32, &p.head, 0, 0, "8,4"},
        {"--profile", "NAME", "full, or portable for files that other tools load (full)", CLI_TEXT, &p.profile, 0, 0,
         "full,portable"},
        {"--format", "NAME", "gguf, or hf for a Hugging Face directory; default: by OUT's name, else as SRC", CLI_TEXT,
         &p.format, 0, 0, "gguf,hf"},
        {"--shard", "MB", "the most that one file of a Hugging Face directory holds (5000)", CLI_U32, &shard, 1, 4e6,
         NULL},
        {"--calib", "FILE",
         "text to calibrate on, may be repeated; bundled (default): a mixture; self: the model writes it", CLI_LIST,
         &calib, 0, 0, NULL},
        {"--seed", "N", "seed of the random rotations (0)", CLI_U64, &p.seed, 0, 9007199254740992.0, NULL},
        {"--device", "ID", "device for calibration and the closing summary, or host; default: a GPU, else the host",
         CLI_TEXT, &p.device, 0, 0, NULL},
        {"--distill-device", "ID", "device for a recipe's distill; default: the host", CLI_TEXT, &p.distill_device, 0,
         0, NULL},
        {"--from", "FILE", "go on from a file that gyre made of SRC; the recipe has distill alone", CLI_TEXT, &p.from,
         0, 0, NULL},
        {"--report", "DIR", "also write report.html and report.md there", CLI_TEXT, &p.report_dir, 0, 0, NULL},
        {"--resume", NULL, "go on where an interrupted run stopped", CLI_FLAG, &p.resume, 0, 0, NULL},
        {"--sensitivity", NULL,
         "write nothing; estimate the KL that each part costs with these settings (docs/recipes.md)", CLI_FLAG,
         &sensitivity, 0, 0, NULL},
        {"--windows", "N", "of 256 tokens, for that (8)", CLI_U32, &windows, 1, 4096, NULL},
        {"--json", NULL, "the same for programs", CLI_FLAG, &json, 0, 0, NULL},
        {"--force", NULL, "replace an existing OUT", CLI_FLAG, &p.force, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_quantize, options, sizeof options / sizeof *options, argc, argv, &p.source);
    if (stop >= 0) return stop;
    int bad = sensitivity ? check_sensitivity(&p, shard)
                          : check_writing(&p, windows ? "--windows"
                                              : json  ? "--json"
                                                      : NULL);
    if (bad < 0) bad = cli_calib_check(&calib);
    if (bad < 0 && p.recipe) bad = check_recipe(p.recipe);
    if (bad >= 0) return bad;
    p.wgroup = wgroup == UINT32_MAX ? 0 : wgroup ? (int32_t)wgroup : GYRE_WGROUP_ROW;
    p.kv = kv[0];
    p.kv_v = kv[1];
    p.shard_bytes = (uint64_t)shard * 1000000;
    p.calib = calib.item;
    p.n_calib = calib.n;
    gyre_error err = {0};
    gyre_quantize_summary summary = {0};
    cli_threads_for_products();
    if (sensitivity) return cli_sensitivity(&p, windows, json);
    if (gyre_quantize(&p, &summary, &err) != GYRE_OK) return cli_fail(&err);
    print_summary(&p, &summary);
    gyre_quantize_summary_free(&summary);
    return 0;
}

const struct cli_command cli_quantize = {"quantize", "SRC", "Make rotated int4 weights from a model", run, 1, false};
