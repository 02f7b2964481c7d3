// gyre reproduce: make a file again from its manifest and compare every byte's hash.
#include "cli/cli.h"
#include "cli/threads.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    cli_progress(fraction, eta, what);
    return cli_interrupted();
}

static json_t *text_or_null(const char *text) { return *text ? cli_json_text(text) : json_null(); }

static int print_json(const gyre_reproduce_params *p, const gyre_reproduce_result *r, const gyre_error *err)
{
    return cli_print_json(json_pack("{s:b, s:o, s:I, s:I, s:o, s:b, s:o, s:o}", "ok", err->code == GYRE_OK, "manifest",
                                    cli_json_text(p->manifest), "tensors", (json_int_t)r->tensors, "differing",
                                    (json_int_t)r->differing, "first", text_or_null(r->first), "metadata_differs",
                                    (int)r->metadata_differs, "surroundings", text_or_null(r->surroundings), "error",
                                    text_or_null(err->code == GYRE_OK ? "" : err->message)));
}

static int run(int argc, char **argv)
{
    gyre_reproduce_params p = {.size = sizeof p, .progress = on_progress, .log = cli_log(false)};
    struct cli_list calib = {0};
    bool json = false;
    const struct cli_option options[] = {
        {"--base", "MODEL", "the model that the manifest names (required)", CLI_TEXT, &p.base, 0, 0, NULL},
        {"--calib", "FILE", "a calibration text that the manifest names; may be repeated", CLI_LIST, &calib, 0, 0,
         NULL},
        {"--from", "FILE", "the finished file that was learned on, where the manifest names one", CLI_TEXT, &p.from, 0,
         0, NULL},
        {"--work", "DIR", "make the file there and keep it; default: a folder that is removed", CLI_TEXT, &p.work, 0, 0,
         NULL},
        {"--json", NULL, "machine-readable output", CLI_FLAG, &json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_reproduce, options, sizeof options / sizeof *options, argc, argv, &p.manifest);
    if (stop >= 0) return stop;
    if (!p.base)
        return cli_usage("missing option (--base MODEL): gyre reproduce needs the model that the manifest names; see "
                         "gyre reproduce --help");
    p.calib = calib.item;
    p.n_calib = calib.n;
    gyre_error err = {0};
    gyre_reproduce_result result;
    cli_threads_for_products();
    const bool ok = gyre_reproduce(&p, &result, &err) == GYRE_OK;
    cli_progress_end();
    int failed = 0;
    if (json) failed = print_json(&p, &result, &err);
    else if (ok) printf("reproduced: %llu tensors, the same bytes\n", (unsigned long long)result.tensors);
    return ok ? failed : cli_fail(&err);
}

const struct cli_command cli_reproduce = {
    "reproduce", "MANIFEST", "Quantize again as a manifest says and compare the bytes", run, 1, false};
