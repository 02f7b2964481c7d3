// See kv.h. Pool layouts: shaders/params.h.
#include "runtime/model/kv.h"

#include "runtime/util/base.h"

#include <stdlib.h>

static gyre_status plane(struct gyre_kv *kv, uint64_t bytes, const char *label, struct gyre_binding *out,
                         gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(kv->device);
    if (bytes > info->max_binding || bytes > info->max_buffer) {
        return gyre_fail(err, GYRE_E_DEVICE_MEM,
                         "cannot make the KV cache (%s): one layer needs %llu MiB and a binding of the device holds "
                         "%llu MiB; use a shorter context or fewer KV bits",
                         info->id, (unsigned long long)(bytes >> 20), (unsigned long long)(info->max_binding >> 20));
    }
    *out = (struct gyre_binding){.size = bytes};
    kv->bytes += bytes;
    return gyre_buffer_create(kv->device, bytes, label, &out->buffer, err);
}

gyre_status gyre_kv_create(gyre_device *device, const struct gyre_hparams *hp, uint32_t bits, float clip,
                           uint32_t sequences, uint32_t context, struct gyre_kv *out, gyre_error *err)
{
    const uint32_t stride = (uint32_t)gyre_div_up(context, GYRE_PAGE), cells = sequences * stride;
    *out = (struct gyre_kv){
        .device = device, .n_layers = hp->n_layers, .n_pages = cells, .sequences = sequences, .page_stride = stride};
    struct gyre_kv *kv = out;
    gyre_status st = GYRE_OK;
    kv->pool = calloc(kv->n_layers, sizeof *kv->pool);
    kv->table = malloc(cells * sizeof *kv->table);
    kv->free_pages = malloc(cells * sizeof *kv->free_pages);
    kv->n_held = calloc(sequences, sizeof *kv->n_held);
    kv->users = calloc(cells, sizeof *kv->users);
    kv->known = calloc(sequences, sizeof *kv->known);
    kv->n_known = calloc(sequences, sizeof *kv->n_known);
    if (!kv->pool || !kv->table || !kv->free_pages || !kv->n_held || !kv->users || !kv->known || !kv->n_known ||
        !gyre_prefix_init(&kv->prefix, cells)) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot make the KV cache: out of memory");
        goto done;
    }
    for (uint32_t i = 0; i < cells; i++) {
        kv->table[i] = 0; // a valid page even where nothing was written: dead rows may read it
        kv->free_pages[i] = (int32_t)(cells - 1 - i);
    }
    kv->n_free = cells;
    const uint64_t heads = (uint64_t)kv->n_pages * hp->kv_heads * GYRE_PAGE;
    for (uint32_t i = 0; i < kv->n_layers; i++) {
        struct gyre_kv_pool *p = &kv->pool[i];
        p->bits = bits;
        p->clip = clip;
        GYRE_GO(plane(kv, heads * hp->head_dim * bits / 8, "kv keys", &p->k, err));
        GYRE_GO(plane(kv, heads * hp->head_dim * bits / 8, "kv values", &p->v, err));
        const uint64_t meta = bits >= 16 ? 4 : heads * 4; // unused but bound
        GYRE_GO(plane(kv, meta, "kv key scales", &p->k_meta, err));
        GYRE_GO(plane(kv, meta, "kv value scales", &p->v_meta, err));
    }
    GYRE_GO(gyre_buffer_create(device, cells * sizeof *kv->table, "kv page tables", &kv->pages, err));
    GYRE_GO(gyre_buffer_write(device, kv->pages, 0, kv->table, cells * sizeof *kv->table, err));
done:
    if (st != GYRE_OK) gyre_kv_free(out);
    return st;
}

void gyre_kv_free(struct gyre_kv *kv)
{
    for (uint32_t i = 0; kv->pool && i < kv->n_layers; i++) {
        gyre_buffer_destroy(kv->device, kv->pool[i].k.buffer);
        gyre_buffer_destroy(kv->device, kv->pool[i].v.buffer);
        gyre_buffer_destroy(kv->device, kv->pool[i].k_meta.buffer);
        gyre_buffer_destroy(kv->device, kv->pool[i].v_meta.buffer);
    }
    gyre_buffer_destroy(kv->device, kv->pages);
    free(kv->pool);
    free(kv->table);
    free(kv->n_held);
    free(kv->free_pages);
    free(kv->users);
    free(kv->known);
    free(kv->n_known);
    gyre_prefix_free(&kv->prefix);
    *kv = (struct gyre_kv){0};
}

// One sequence less holds the page.
static void let_go(struct gyre_kv *kv, int32_t page)
{
    if (--kv->users[page]) return;
    if (gyre_prefix_knows(&kv->prefix, page)) gyre_prefix_idle(&kv->prefix, page);
    else kv->free_pages[kv->n_free++] = page;
}

gyre_status gyre_kv_reserve(struct gyre_kv *kv, uint32_t sequence, uint32_t length, gyre_error *err)
{
    const uint32_t want = (uint32_t)gyre_div_up(length, GYRE_PAGE), held = kv->n_held[sequence];
    if (want <= held) return GYRE_OK;
    if (want > kv->page_stride)
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot grow the sequence (%u tokens): the context holds %u; open the model with a longer context", length,
            kv->page_stride * GYRE_PAGE);
    if (want - held > kv->n_free + kv->prefix.n_idle)
        return gyre_fail(
            err, GYRE_E_DEVICE_MEM,
            "cannot grow the sequence (%u tokens): all pages of the KV cache are in use; finish another session first",
            length);
    int32_t *row = kv->table + (uint64_t)sequence * kv->page_stride;
    for (uint32_t i = held; i < want; i++) {
        row[i] = kv->n_free ? kv->free_pages[--kv->n_free] : gyre_prefix_evict(&kv->prefix);
        kv->users[row[i]] = 1;
    }
    kv->n_held[sequence] = want;
    const uint64_t offset = ((uint64_t)sequence * kv->page_stride + held) * sizeof *row;
    const gyre_status st =
        gyre_buffer_write(kv->device, kv->pages, offset, row + held, (want - held) * sizeof *row, err);
    if (st != GYRE_OK) gyre_kv_trim(kv, sequence, held * GYRE_PAGE); // the device does not know these pages
    return st;
}

void gyre_kv_trim(struct gyre_kv *kv, uint32_t sequence, uint32_t length)
{
    const uint32_t keep = (uint32_t)gyre_div_up(length, GYRE_PAGE);
    int32_t *row = kv->table + (uint64_t)sequence * kv->page_stride;
    while (kv->n_held[sequence] > keep)
        let_go(kv, row[--kv->n_held[sequence]]); // the last first: they age before those
    if (kv->n_known[sequence] <= keep) return;   // that they need
    kv->n_known[sequence] = keep;
    kv->known[sequence] = keep ? kv->prefix.page[row[keep - 1]].serial : 0;
}

// Tells the device about pages first..first+n-1 of a sequence.
static gyre_status tell(struct gyre_kv *kv, uint32_t sequence, uint32_t first, uint32_t n, gyre_error *err)
{
    const uint64_t at = (uint64_t)sequence * kv->page_stride + first;
    if (n == 0) return GYRE_OK;
    return gyre_buffer_write(kv->device, kv->pages, at * sizeof *kv->table, kv->table + at, n * sizeof *kv->table, err);
}

gyre_status gyre_kv_adopt(struct gyre_kv *kv, uint32_t sequence, const uint32_t *tokens, uint32_t n, uint32_t *length,
                          gyre_error *err)
{
    int32_t *row = kv->table + (uint64_t)sequence * kv->page_stride;
    const uint32_t first = kv->n_held[sequence];
    if (*length != first * GYRE_PAGE || kv->n_known[sequence] != first) return GYRE_OK;
    for (uint32_t at = *length; at + GYRE_PAGE <= n; at += GYRE_PAGE) {
        const int32_t page = gyre_prefix_find(&kv->prefix, kv->known[sequence], tokens + at);
        if (page < 0) break;
        gyre_prefix_busy(&kv->prefix, page);
        kv->users[page]++;
        row[kv->n_held[sequence]++] = page;
        kv->n_known[sequence]++;
        kv->known[sequence] = kv->prefix.page[page].serial;
    }
    const gyre_status st = tell(kv, sequence, first, kv->n_held[sequence] - first, err);
    if (st != GYRE_OK) gyre_kv_trim(kv, sequence, first * GYRE_PAGE);
    *length = kv->n_held[sequence] * GYRE_PAGE;
    return st;
}

gyre_status gyre_kv_remember(struct gyre_kv *kv, uint32_t sequence, const uint32_t *tokens, uint32_t length,
                             gyre_error *err)
{
    int32_t *row = kv->table + (uint64_t)sequence * kv->page_stride;
    for (uint32_t i = kv->n_known[sequence]; (i + 1) * GYRE_PAGE <= length; i++) {
        const uint32_t *const own = tokens + (uint64_t)i * GYRE_PAGE;
        const int32_t same = gyre_prefix_find(&kv->prefix, kv->known[sequence], own), mine = row[i];
        if (same >= 0) {
            row[i] = same;
            const gyre_status st = tell(kv, sequence, i, 1, err);
            if (st != GYRE_OK) {
                row[i] = mine;
                return st;
            }
            gyre_prefix_busy(&kv->prefix, same);
            kv->users[same]++;
            let_go(kv, mine);
            kv->known[sequence] = kv->prefix.page[same].serial;
        } else {
            kv->known[sequence] = gyre_prefix_put(&kv->prefix, mine, kv->known[sequence], own);
        }
        kv->n_known[sequence] = i + 1;
    }
    return GYRE_OK;
}

struct gyre_batch gyre_kv_batch(const struct gyre_kv *kv, struct gyre_binding rows)
{
    return (struct gyre_batch){
        rows, {kv->pages, 0, (uint64_t)kv->sequences * kv->page_stride * sizeof *kv->table}, kv->page_stride};
}
