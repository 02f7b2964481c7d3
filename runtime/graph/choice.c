// See choice.h.
#include "runtime/graph/choice.h"
#include "backends/cache.h"
#include "backends/device_key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gyre_tuner_free(struct gyre_tuner *tuner)
{
    free(tuner->choices);
    tuner->choices = NULL;
    tuner->n = tuner->cap = 0;
}

bool gyre_choice_key(const gyre_graph *g, const struct gyre_node *node, char key[GYRE_CHOICE_KEY])
{
    if (node->op != GYRE_OP_matmul && node->op != GYRE_OP_quant_matmul) return false;
    const struct gyre_weight *w = g->values[node->in[1]].weight;
    const struct gyre_value_info *x = &g->values[node->in[0]];
    const bool quantizes = node->op == GYRE_OP_quant_matmul, normed = quantizes && node->params.quant_matmul.normed;
    const int n = snprintf(
        key, GYRE_CHOICE_KEY, "%s kind %d, group %u, %u x %u in %u, rows %d, x %d of %u, to %d, add %d, norm %d",
        gyre_ops[node->op].name, (int)w->kind, w->group, w->n, w->k, w->n_ranges, node->params.matmul.rows,
        (int)x->kind, x->bits, quantizes ? node->params.quant_matmul.bits : 0, node->params.matmul.add, normed);
    return n > 0 && n < GYRE_CHOICE_KEY;
}

const struct gyre_launch *gyre_choice_find(const struct gyre_tuner *tuner, const char *key)
{
    for (uint32_t i = 0; i < tuner->n; i++)
        if (!strcmp(tuner->choices[i].key, key)) return &tuner->choices[i].launch;
    return NULL;
}

const struct gyre_launch *gyre_choice_of(const gyre_graph *g, const struct gyre_node *node)
{
    char key[GYRE_CHOICE_KEY];
    return g->tuner && gyre_choice_key(g, node, key) ? gyre_choice_find(g->tuner, key) : NULL;
}

gyre_status gyre_choice_keep(struct gyre_tuner *tuner, const char *key, const struct gyre_launch *launch,
                             gyre_error *err)
{
    if (tuner->n == tuner->cap) {
        const uint32_t cap = tuner->cap ? 2 * tuner->cap : 16;
        struct gyre_kernel_choice *more = realloc(tuner->choices, cap * sizeof *more);
        if (!more) return gyre_fail(err, GYRE_E_NOMEM, "cannot keep a choice of kernels: out of host memory");
        tuner->choices = more;
        tuner->cap = cap;
    }
    struct gyre_kernel_choice *const choice = &tuner->choices[tuner->n++];
    snprintf(choice->key, sizeof choice->key, "%s", key);
    choice->launch = *launch;
    return GYRE_OK;
}

bool gyre_launch_text(const struct gyre_launch *launch, char out[256])
{
    int at = snprintf(out, 256, "%s ", launch->kernel.name);
    for (uint32_t i = 0; i < launch->kernel.n_spec && at < 256; i++)
        at += snprintf(out + at, (size_t)(256 - at), "%s%u", i ? "," : "", launch->kernel.spec[i]);
    if (at < 256) at += snprintf(out + at, (size_t)(256 - at), " / %u,%u", launch->tile[0], launch->tile[1]);
    return at < 256;
}

int gyre_choice_load(const struct gyre_tuner *tuner, const struct gyre_device_info *info, const char *key,
                     const struct gyre_launch *variants, uint32_t n)
{
    char hex[GYRE_SHA256_HEX], text[256];
    size_t size = 0;
    int found = -1;
    gyre_device_key(info->name, info->driver, key, hex);
    char *const stored = gyre_cache_load(tuner->cache_dir, "tune", hex, &size);
    for (uint32_t i = 0; stored && i < n && found < 0; i++)
        if (gyre_launch_text(&variants[i], text) && strlen(text) == size && !memcmp(text, stored, size)) found = (int)i;
    free(stored);
    return found;
}

void gyre_choice_store(const struct gyre_tuner *tuner, const struct gyre_device_info *info, const char *key,
                       const struct gyre_launch *launch)
{
    char hex[GYRE_SHA256_HEX], text[256];
    if (!gyre_launch_text(launch, text)) return;
    gyre_device_key(info->name, info->driver, key, hex);
    gyre_cache_store(tuner->cache_dir, "tune", hex, text, strlen(text), tuner->log);
}

void gyre_choice_forget(const struct gyre_tuner *tuner, const struct gyre_device_info *info, const char *key)
{
    char hex[GYRE_SHA256_HEX];
    gyre_device_key(info->name, info->driver, key, hex);
    gyre_cache_forget(tuner->cache_dir, "tune", hex);
}
