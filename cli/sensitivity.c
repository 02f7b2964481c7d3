// See sensitivity.h.
#include "cli/sensitivity.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const products[] = {"qkv", "o", "gate_up", "down"};
enum { PRODUCTS = sizeof products / sizeof *products };

// Of one window no error is known.
static void print_cost(const json_t *cost, bool alone)
{
    printf("  %8.5f", json_number_value(json_array_get(cost, 0)));
    if (alone) printf("%10s", "");
    else printf(" ± %-7.5f", json_number_value(json_array_get(cost, 1)));
}

static double thousandths(const json_t *part, const char *cost)
{
    return 1000 * json_number_value(json_array_get(json_object_get(part, cost), 0));
}

static void print_text(const json_t *doc)
{
    static const char *const cached[][3] = {{"keys", "k8", "k4"}, {"values", "v8", "v4"}};
    const json_t *total = json_object_get(doc, "total"), *block;
    const bool alone = json_integer_value(json_object_get(doc, "windows")) == 1;
    size_t l;
    printf("KL to the float model that each part costs when it alone is plainly rounded, in nats per token\n(estimate "
           "by gradients; %lld window%s of %lld tokens%s; recipe %s)\n\n  %-9s%20s%20s%20s\n",
           (long long)json_integer_value(json_object_get(doc, "windows")), alone ? "" : "s",
           (long long)json_integer_value(json_object_get(doc, "tokens")),
           alone ? "" : ", ± standard error over windows", json_string_value(json_object_get(doc, "recipe")),
           "all blocks", "weights int4 ", "inputs int8  ", "inputs int4  ");
    for (int i = 0; i < PRODUCTS; i++) {
        const json_t *p = json_object_get(total, products[i]);
        printf("  %-9s", products[i]);
        print_cost(json_object_get(p, "w4"), alone);
        print_cost(json_object_get(p, "a8"), alone);
        print_cost(json_object_get(p, "a4"), alone);
        printf("\n");
    }
    for (int i = 0; i < 2; i++) {
        printf("  %-9s%20s", cached[i][0], "");
        print_cost(json_object_get(total, cached[i][1]), alone);
        print_cost(json_object_get(total, cached[i][2]), alone);
        printf("\n");
    }
    printf("\nat 4 bits, by block, in thousandths of a nat per token\n\n  block  %33s  %33s  %16s\n         ",
           "weights of", "inputs of", "cached");
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < PRODUCTS; i++) printf("%8s%s", products[i], i == PRODUCTS - 1 ? "   " : "");
    printf("%8s%8s\n", "keys", "values");
    json_array_foreach(json_object_get(doc, "blocks"), l, block)
    {
        printf("  %5zu  ", l);
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < PRODUCTS; i++)
                printf("%8.3f%s", thousandths(json_object_get(block, products[i]), k ? "a4" : "w4"),
                       i == PRODUCTS - 1 ? "   " : "");
        printf("%8.3f%8.3f\n", thousandths(block, "k4"), thousandths(block, "v4"));
    }
}

int cli_sensitivity(const gyre_quantize_params *params, uint32_t windows, bool json)
{
    gyre_error err = {0};
    char *text = NULL;
    const gyre_status st = gyre_sensitivity(params, windows, &text, &err);
    if (st != GYRE_OK) return cli_fail(&err);
    cli_progress_end();
    json_t *doc = json_loads(text, 0, NULL);
    free(text);
    if (json) return cli_print_json(doc);
    print_text(doc);
    json_decref(doc);
    return 0;
}
