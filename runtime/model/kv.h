// The KV cache: per layer a K and a V pool of fixed-size pages, and a page table per sequence. Pages are handed to
// sequences as they grow; a page holds GYRE_PAGE positions of every layer.
#pragma once
#include "runtime/graph/graph.h"
#include "runtime/model/hparams.h"

enum { GYRE_PAGE = 32 };

struct gyre_kv {
    gyre_device *device;
    struct gyre_kv_pool *pool; // [n_layers]
    uint32_t n_layers, n_pages, sequences, page_stride;
    gyre_buffer *pages;  // int[sequences][page_stride] on the device
    int32_t *table;      // its host copy; -1: none
    uint32_t *n_held;    // [sequences] pages of each sequence
    int32_t *free_pages; // stack
    uint32_t n_free;
    uint64_t bytes;
};

// Room for `sequences` sequences of `context` positions each. bits 16, 8 or 4; 32 on the cpu device.
gyre_status gyre_kv_create(gyre_device *device, const struct gyre_hparams *hp, uint32_t bits, float clip,
                           uint32_t sequences, uint32_t context, struct gyre_kv *out, gyre_error *err) GYRE_MUST_USE;
void gyre_kv_free(struct gyre_kv *kv);

// Makes positions 0..length-1 of a sequence addressable: takes pages as needed and updates the device's table. Writes
// nothing when no page is taken. Allocates nothing.
gyre_status gyre_kv_reserve(struct gyre_kv *kv, uint32_t sequence, uint32_t length, gyre_error *err) GYRE_MUST_USE;
// Gives back the pages beyond `length` positions.
void gyre_kv_trim(struct gyre_kv *kv, uint32_t sequence, uint32_t length);

struct gyre_batch gyre_kv_batch(const struct gyre_kv *kv, struct gyre_binding rows);
