// gyre verify: is a file what its manifest claims, and was it made from this base model?
#include "cli/cli.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>
#include <unistd.h>

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    if (isatty(2)) cli_progress(fraction, eta, what);
    return cli_interrupted();
}

static int print_json(const gyre_verify_params *p, const gyre_verify_result *r, bool ok)
{
    json_t *checks = json_array();
    for (uint32_t i = 0; i < r->n_checks; i++)
        json_array_append_new(checks, json_pack("{s:s, s:b, s:o}", "name", r->check[i].name, "ok", (int)r->check[i].ok,
                                                "detail", cli_json_text(r->check[i].detail)));
    json_t *worst = r->worst_error < 0
                        ? json_null()
                        : json_pack("{s:o, s:f}", "tensor", cli_json_text(r->worst), "error", r->worst_error);
    return cli_print_json(json_pack("{s:b, s:o, s:I, s:I, s:o, s:o}", "ok", (int)ok, "file", cli_json_text(p->file),
                                    "tensors", (json_int_t)r->tensors, "linears", (json_int_t)r->linears, "checks",
                                    checks, "worst", worst));
}

static void print_text(const gyre_verify_params *p, const gyre_verify_result *r, bool ok)
{
    for (uint32_t i = 0; i < r->n_checks; i++)
        if (r->check[i].ok) printf("%-10s %s\n", r->check[i].name, r->check[i].detail);
    if (!ok) return;
    printf("%s is what its manifest claims: %llu tensors, hashes, container rules", p->file,
           (unsigned long long)r->tensors);
    if (p->base)
        printf(", %llu linears %swithin %.4g of %s", (unsigned long long)r->linears, r->rotated ? "un-rotated " : "",
               r->worst_error, p->base);
    printf("\n");
}

static int run(int argc, char **argv)
{
    gyre_verify_params p = {.size = sizeof p, .progress = on_progress};
    bool json = false;
    const struct cli_option options[] = {
        {"--base", "MODEL", "the model it was made from: undo the rotations and compare", CLI_TEXT, &p.base, 0, 0,
         NULL},
        {"--manifest", "FILE", "its manifest; default: FILE.manifest.json", CLI_TEXT, &p.manifest, 0, 0, NULL},
        {"--json", NULL, "machine-readable output", CLI_FLAG, &json, 0, 0, NULL},
    };
    const int stop = cli_parse(&cli_verify, options, sizeof options / sizeof *options, argc, argv, &p.file);
    if (stop >= 0) return stop;
    gyre_error err = {0};
    gyre_verify_result result;
    const bool ok = gyre_verify(&p, &result, &err) == GYRE_OK;
    cli_progress_end();
    int failed = 0;
    if (json) failed = print_json(&p, &result, ok);
    else print_text(&p, &result, ok);
    return ok ? failed : cli_fail(&err);
}

const struct cli_command cli_verify = {
    "verify", "FILE", "Check a quantized file against its manifest and its base model", run, 1, false};
