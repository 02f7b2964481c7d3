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

uint64_t gyre_kv_cell(uint32_t head_dim, uint32_t bits) { return (uint64_t)head_dim * bits / 8; }
uint64_t gyre_kv_scale(uint32_t bits) { return bits < 16 ? 4 : 0; }

// Codes and scales of the keys, or of the values, of one layer; `heads`: places for the vector of a head.
static gyre_status half(struct gyre_kv *kv, uint64_t heads, uint32_t head_dim, uint32_t bits,
                        const char *const label[2], struct gyre_binding *codes, struct gyre_binding *scales,
                        gyre_error *err)
{
    const uint64_t bytes = heads * gyre_kv_scale(bits);
    GYRE_TRY(plane(kv, heads * gyre_kv_cell(head_dim, bits), label[0], codes, err));
    return plane(kv, bytes ? bytes : 4, label[1], scales, err); // unused but bound
}

// Pages and, where a layer has a window that this context exceeds, places.
static void count(const struct gyre_hparams *hp, uint32_t sequences, uint32_t context, uint32_t rows, uint32_t *pages,
                  uint32_t *places)
{
    *pages = sequences * (uint32_t)gyre_div_up(context, GYRE_PAGE);
    *places = rows && hp->window && hp->window < context ? gyre_window_places(hp->window, *pages, sequences, rows) : 0;
}

uint64_t gyre_kv_largest(const struct gyre_hparams *hp, uint32_t bits, uint32_t sequences, uint32_t context,
                         uint32_t rows)
{
    uint32_t pages, places, most = 0;
    count(hp, sequences, context, rows, &pages, &places);
    for (uint32_t i = 0; i < hp->n_layers; i++) most = GYRE_MAX(most, places && hp->kind[i].windowed ? places : pages);
    return (uint64_t)most * hp->kv_heads * GYRE_PAGE * gyre_kv_cell(hp->head_dim, bits);
}

// Nobody writes to place 0, which is read as zeros.
static gyre_status clear_place_0(const struct gyre_kv *kv, const struct gyre_kv_pool *p, gyre_error *err)
{
    const struct gyre_binding *all[] = {&p->k, &p->v, &p->k_meta, &p->v_meta};
    void *zeros = calloc(1, GYRE_MAX(p->k.size, p->v.size) / kv->window.n_places);
    gyre_status st = zeros ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot make the KV cache: out of memory");
    for (size_t i = 0; i < GYRE_COUNT(all) && st == GYRE_OK; i++)
        if (i < 2 || gyre_kv_scale(i % 2 ? p->bits_v : p->bits))
            st = gyre_buffer_write(kv->device, all[i]->buffer, 0, zeros, all[i]->size / kv->window.n_places, err);
    free(zeros);
    return st;
}

// The host's tables, all pages free. False: out of memory.
static bool make_tables(struct gyre_kv *kv)
{
    const uint32_t pages = kv->n_pages, sequences = kv->sequences;
    kv->pool = calloc(kv->n_layers, sizeof *kv->pool);
    kv->table = calloc(pages, sizeof *kv->table); // page 0 is valid even where nothing was written: dead rows read it
    kv->free_pages = malloc(pages * sizeof *kv->free_pages);
    kv->n_held = calloc(sequences, sizeof *kv->n_held);
    kv->users = calloc(pages, sizeof *kv->users);
    kv->known = calloc(sequences, sizeof *kv->known);
    kv->n_known = calloc(sequences, sizeof *kv->n_known);
    kv->want = calloc(sequences, sizeof *kv->want);
    if (!kv->pool || !kv->table || !kv->free_pages || !kv->n_held || !kv->users || !kv->known || !kv->n_known ||
        !kv->want || !gyre_prefix_init(&kv->prefix, pages))
        return false;
    for (uint32_t i = 0; i < pages; i++) kv->free_pages[i] = (int32_t)(pages - 1 - i);
    kv->n_free = pages;
    return true;
}

// A table of all sequences' pages on the device.
static gyre_status upload_table(const struct gyre_kv *kv, const int32_t *table, const char *label, gyre_buffer **out,
                                gyre_error *err)
{
    const uint64_t bytes = kv->n_pages * sizeof *table;
    GYRE_TRY(gyre_buffer_create(kv->device, bytes, label, out, err));
    return gyre_buffer_write(kv->device, *out, 0, table, bytes, err);
}

// The pools of one layer; of a windowed one they hold places, not pages.
static gyre_status make_pool(struct gyre_kv *kv, const struct gyre_hparams *hp, const struct gyre_precision *precision,
                             bool windowed, struct gyre_kv_pool *out, gyre_error *err)
{
    static const char *const keys[] = {"kv keys", "kv key scales"}, *const values[] = {"kv values", "kv value scales"};
    const uint64_t heads = (uint64_t)(windowed ? kv->window.n_places : kv->n_pages) * hp->kv_heads * GYRE_PAGE;
    out->bits = precision->kv;
    out->bits_v = precision->kv_v;
    out->clip = precision->kv_clip;
    out->clip_v = precision->kv_clip_v;
    GYRE_TRY(half(kv, heads, hp->head_dim, out->bits, keys, &out->k, &out->k_meta, err));
    GYRE_TRY(half(kv, heads, hp->head_dim, out->bits_v, values, &out->v, &out->v_meta, err));
    if (!windowed) return GYRE_OK;
    out->pages = (struct gyre_binding){kv->places, 0, kv->n_pages * sizeof *kv->table};
    return clear_place_0(kv, out, err);
}

gyre_status gyre_kv_create(gyre_device *device, const struct gyre_hparams *hp, const struct gyre_precision *precision,
                           uint32_t sequences, uint32_t context, uint32_t rows, struct gyre_kv *out, gyre_error *err)
{
    uint32_t pages, places;
    count(hp, sequences, context, rows, &pages, &places);
    *out = (struct gyre_kv){.device = device,
                            .n_layers = hp->n_layers,
                            .n_pages = pages,
                            .sequences = sequences,
                            .page_stride = (uint32_t)gyre_div_up(context, GYRE_PAGE)};
    gyre_status st = GYRE_OK;
    const bool enough = make_tables(out) && (!places || gyre_window_init(&out->window, hp->window, pages, places,
                                                                         sequences, out->page_stride));
    if (!enough) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot make the KV cache: out of memory"));
    if (places) GYRE_GO(upload_table(out, out->window.table, "kv places", &out->places, err));
    for (uint32_t i = 0; i < out->n_layers; i++)
        GYRE_GO(make_pool(out, hp, precision, places && hp->kind[i].windowed, &out->pool[i], err));
    GYRE_GO(upload_table(out, out->table, "kv page tables", &out->pages, err));
done:
    if (st != GYRE_OK) gyre_kv_free(out);
    return st;
}

gyre_status gyre_kv_take_memory(struct gyre_kv *kv, uint32_t layer, gyre_error *err)
{
    enum { PIECE = 1 << 20 };
    gyre_status st = GYRE_OK;
    if (kv->n_free < kv->n_pages) return GYRE_OK;
    void *const zeros = calloc(1, PIECE);
    if (!zeros) return gyre_fail(err, GYRE_E_NOMEM, "cannot take the KV cache's memory: out of memory");
    const struct gyre_kv_pool *const p = &kv->pool[layer];
    const struct gyre_binding *const all[] = {&p->k, &p->v, &p->k_meta, &p->v_meta};
    for (size_t b = 0; b < GYRE_COUNT(all); b++)
        for (uint64_t at = 0; at < all[b]->size && st == GYRE_OK; at += PIECE)
            st = gyre_buffer_write(kv->device, all[b]->buffer, at, zeros, GYRE_MIN((uint64_t)PIECE, all[b]->size - at),
                                   err);
    free(zeros);
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
    gyre_buffer_destroy(kv->device, kv->places);
    free(kv->pool);
    free(kv->table);
    free(kv->n_held);
    free(kv->free_pages);
    free(kv->users);
    free(kv->known);
    free(kv->n_known);
    free(kv->want);
    gyre_prefix_free(&kv->prefix);
    gyre_window_free(&kv->window);
    *kv = (struct gyre_kv){0};
}

static int32_t *row_of(const struct gyre_kv *kv, uint32_t sequence)
{
    return kv->table + (uint64_t)sequence * kv->page_stride;
}

// One sequence less holds the page.
static void let_go(struct gyre_kv *kv, int32_t page)
{
    if (--kv->users[page]) return;
    if (gyre_prefix_knows(&kv->prefix, page)) {
        gyre_prefix_idle(&kv->prefix, page);
        gyre_window_idle(&kv->window, page);
    } else {
        kv->free_pages[kv->n_free++] = page;
        gyre_window_drop(&kv->window, page);
    }
}

// Pages that the sequence is not near.
static void give_back(struct gyre_kv *kv, uint32_t sequence, uint32_t keep)
{
    const int32_t *row = row_of(kv, sequence);
    while (kv->n_held[sequence] > keep)
        let_go(kv, row[--kv->n_held[sequence]]); // the last first: they age before those
    if (kv->n_known[sequence] <= keep) return;   // that they need
    kv->n_known[sequence] = keep;
    kv->known[sequence] = keep ? kv->prefix.page[row[keep - 1]].serial : 0;
}

static int32_t new_page(struct gyre_kv *kv)
{
    if (kv->n_free) return kv->free_pages[--kv->n_free];
    const int32_t page = gyre_prefix_evict(&kv->prefix);
    gyre_window_drop(&kv->window, page);
    return page;
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
    int32_t *row = row_of(kv, sequence);
    for (uint32_t i = held; i < want; i++) {
        row[i] = new_page(kv);
        kv->users[row[i]] = 1;
    }
    kv->n_held[sequence] = want;
    const uint64_t offset = ((uint64_t)sequence * kv->page_stride + held) * sizeof *row;
    const gyre_status st =
        gyre_buffer_write(kv->device, kv->pages, offset, row + held, (want - held) * sizeof *row, err);
    if (st != GYRE_OK) give_back(kv, sequence, held); // the device does not know these pages
    return st;
}

// The sequence holds `length` positions and goes on behind them.
static bool look_from(struct gyre_kv *kv, uint32_t sequence, uint32_t length, uint32_t end)
{
    struct gyre_window *w = &kv->window;
    w->view[sequence].next = end;
    return gyre_window_look(w, sequence, row_of(kv, sequence), gyre_window_first(w, length),
                            (uint32_t)gyre_div_up(end, GYRE_PAGE));
}

uint32_t gyre_kv_trim(struct gyre_kv *kv, uint32_t sequence, uint32_t length)
{
    if (kv->window.span) {
        length = gyre_window_reach(&kv->window, row_of(kv, sequence), length);
        (void)look_from(kv, sequence, length, length); // all these have their places
    }
    give_back(kv, sequence, (uint32_t)gyre_div_up(length, GYRE_PAGE));
    return length;
}

void gyre_kv_want(struct gyre_kv *kv, uint32_t sequence, uint32_t first, uint32_t n)
{
    struct gyre_kv_span *s = &kv->want[sequence];
    if (!s->any) *s = (struct gyre_kv_span){first, first + n, true};
    s->end = GYRE_MAX(s->end, first + n);
}

// First all look away from what they no longer need, then those that go on take what they need; tables last.
static gyre_status enter(struct gyre_kv *kv, gyre_error *err)
{
    struct gyre_window *w = &kv->window;
    for (uint32_t s = 0; s < kv->sequences; s++) {
        const struct gyre_window_view *v = &w->view[s];
        const uint32_t next = kv->want[s].any ? kv->want[s].first : v->next;
        (void)gyre_window_look(w, s, row_of(kv, s), GYRE_MIN(GYRE_MAX(v->first, gyre_window_first(w, next)), v->end),
                               v->end); // takes no place
    }
    for (uint32_t s = 0; s < kv->sequences; s++) {
        const struct gyre_kv_span *x = &kv->want[s];
        if (x->any && !look_from(kv, s, x->first, x->end))
            return gyre_fail(err, GYRE_E_INVALID,
                             "cannot grow the sequence (%u tokens): more positions at once than the KV cache has room "
                             "for in layers with a window",
                             x->end);
    }
    for (uint32_t s = 0; s < kv->sequences; s++) {
        uint64_t at;
        uint32_t n;
        if (!kv->want[s].any) continue;
        gyre_window_tell(w, s, row_of(kv, s), &at, &n);
        if (n == 0) continue;
        const gyre_status st =
            gyre_buffer_write(kv->device, kv->places, at * sizeof *w->table, w->table + at, n * sizeof *w->table, err);
        if (st == GYRE_OK) continue;
        gyre_window_untold(w, s, at, n);
        return st;
    }
    return GYRE_OK;
}

gyre_status gyre_kv_enter(struct gyre_kv *kv, gyre_error *err)
{
    const gyre_status st = kv->window.span ? enter(kv, err) : GYRE_OK;
    for (uint32_t s = 0; s < kv->sequences; s++) kv->want[s].any = false;
    return st;
}

void gyre_kv_stay(struct gyre_kv *kv, uint32_t sequence, uint32_t position)
{
    if (kv->window.span) kv->window.view[sequence].next = position;
}

bool gyre_kv_sees(const struct gyre_kv *kv, uint32_t sequence, uint32_t position)
{
    const struct gyre_window *w = &kv->window;
    return !w->span || gyre_window_first(w, position) >= w->view[sequence].first;
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
    int32_t *row = row_of(kv, sequence);
    const uint32_t first = kv->n_held[sequence];
    if (*length != first * GYRE_PAGE || kv->n_known[sequence] != first) return GYRE_OK;
    uint64_t parent = kv->known[sequence];
    uint32_t found = first;
    while ((found + 1) * GYRE_PAGE <= n) {
        const int32_t page = gyre_prefix_find(&kv->prefix, parent, tokens + found * GYRE_PAGE);
        if (page < 0) break;
        parent = kv->prefix.page[page].serial;
        row[found++] = page;
    }
    if (kv->window.span) found = gyre_window_reach(&kv->window, row, found * GYRE_PAGE) / GYRE_PAGE;
    if (found == first) return GYRE_OK;
    for (uint32_t i = first; i < found; i++) {
        gyre_prefix_busy(&kv->prefix, row[i]);
        kv->users[row[i]]++;
    }
    kv->n_held[sequence] = kv->n_known[sequence] = found;
    kv->known[sequence] = kv->prefix.page[row[found - 1]].serial;
    *length = found * GYRE_PAGE;
    if (kv->window.span) (void)look_from(kv, sequence, *length, *length); // reach says that all have their places
    const gyre_status st = tell(kv, sequence, first, found - first, err);
    if (st != GYRE_OK) *length = gyre_kv_trim(kv, sequence, first * GYRE_PAGE);
    return st;
}

gyre_status gyre_kv_remember(struct gyre_kv *kv, uint32_t sequence, const uint32_t *tokens, uint32_t length,
                             gyre_error *err)
{
    int32_t *row = row_of(kv, sequence);
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
            if (kv->window.span) {
                const struct gyre_window_view *v = &kv->window.view[sequence];
                gyre_window_swap(&kv->window, mine, same, i >= v->first && i < v->end);
            }
            let_go(kv, mine);
            kv->known[sequence] = kv->prefix.page[same].serial;
        } else {
            kv->known[sequence] = gyre_prefix_put(&kv->prefix, mine, kv->known[sequence], own);
        }
        kv->n_known[sequence] = i + 1;
    }
    return GYRE_OK;
}

void gyre_kv_forget(struct gyre_kv *kv, uint32_t sequence)
{
    const int32_t *row = row_of(kv, sequence);
    for (uint32_t i = kv->n_known[sequence]; i-- > 0 && kv->users[row[i]] == 1;)
        gyre_prefix_forget(&kv->prefix, row[i]);
    kv->known[sequence] = kv->n_known[sequence] = 0;
}

struct gyre_batch gyre_kv_batch(const struct gyre_kv *kv, struct gyre_binding rows)
{
    return (struct gyre_batch){
        rows, {kv->pages, 0, (uint64_t)kv->sequences * kv->page_stride * sizeof *kv->table}, kv->page_stride};
}
