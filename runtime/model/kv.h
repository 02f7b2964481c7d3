// The KV cache: per layer a K and a V pool of fixed-size pages, and a page table per sequence. Pages are handed to
// sequences as they grow; a page holds GYRE_PAGE positions of every layer. A full page whose tokens were remembered may
// be shared by sequences that begin with the same tokens, and stays findable when no sequence holds it, until its
// memory is needed (prefix.h).
//
// Layers with a window keep about that of every sequence, in pools and a page table of their own (window.h). So a
// sequence cannot step back for any length: what trims or shares says how far it got. Whoever computes positions says
// which beforehand, all of a step together (gyre_kv_want, gyre_kv_enter), and computes no others.
#pragma once
#include "runtime/graph/graph.h"
#include "runtime/model/hparams.h"
#include "runtime/model/window.h"

struct gyre_kv_span {
    uint32_t first, end; // positions
    bool any;            // of this sequence
};
struct gyre_kv {
    gyre_device *device;
    struct gyre_kv_pool *pool; // [n_layers]
    uint32_t n_layers, n_pages, sequences, page_stride;
    gyre_buffer *pages;  // int[sequences][page_stride] on the device
    int32_t *table;      // its host copy; -1: none
    uint32_t *n_held;    // [sequences] pages of each sequence
    int32_t *free_pages; // stack
    uint32_t n_free;
    uint32_t *users;           // [n_pages] sequences that hold each page
    struct gyre_prefix prefix; // what full pages hold
    uint64_t *known;           // [sequences] serial of the last page that is remembered, 0: none
    uint32_t *n_known;         // [sequences] how many of the sequence's pages are; they are its first
    struct gyre_window window; // span 0: no layer keeps less than all positions
    gyre_buffer *places;       // its table on the device
    struct gyre_kv_span *want; // [sequences]
    uint64_t bytes;
};

// Room for `sequences` sequences of `context` positions each. Keys and values have 16, 8 or 4 bits each; 32, both, on
// the cpu device. `rows`: the most positions that are entered at once; 0: layers with a window keep all positions too,
// and nothing needs to be entered.
gyre_status gyre_kv_create(gyre_device *device, const struct gyre_hparams *hp, const struct gyre_precision *precision,
                           uint32_t sequences, uint32_t context, uint32_t rows, struct gyre_kv *out,
                           gyre_error *err) GYRE_MUST_USE;
// Bytes of its largest buffer; bits: the larger of keys' and values'.
uint64_t gyre_kv_largest(const struct gyre_hparams *hp, uint32_t bits, uint32_t sequences, uint32_t context,
                         uint32_t rows);
// Bytes of a position of one head that is cached with so many bits: of its codes, and of its scale.
uint64_t gyre_kv_cell(uint32_t head_dim, uint32_t bits);
uint64_t gyre_kv_scale(uint32_t bits);
void gyre_kv_free(struct gyre_kv *kv);
// Writes zeros everywhere in a layer's cache: a host hands out memory at its first write, and from here on it is there
// or is known to be missing. Nothing where a page is held or remembered. Worth it where the device's memory is the
// host's.
gyre_status gyre_kv_take_memory(struct gyre_kv *kv, uint32_t layer, gyre_error *err) GYRE_MUST_USE;

// Makes positions 0..length-1 of a sequence addressable: takes pages as needed and updates the device's table. Writes
// nothing when no page is taken. Allocates nothing.
gyre_status gyre_kv_reserve(struct gyre_kv *kv, uint32_t sequence, uint32_t length, gyre_error *err) GYRE_MUST_USE;
// Gives back the pages beyond `length` positions; `length` lies in no page that is remembered, but at its end. Returns
// how many positions the sequence holds now: where its windows at `length` are gone, the most behind which it can go
// on.
uint32_t gyre_kv_trim(struct gyre_kv *kv, uint32_t sequence, uint32_t length);

// Positions first..first+n-1 of a sequence, which are reserved, are to be computed next; several calls for one sequence
// name positions that follow each other or were named. n 0: none is, but those before `first` will be there.
void gyre_kv_want(struct gyre_kv *kv, uint32_t sequence, uint32_t first, uint32_t n);
// Gives what is wanted, at most `rows` positions in all, places in the layers with a window, and forgets the wishes.
gyre_status gyre_kv_enter(struct gyre_kv *kv, gyre_error *err) GYRE_MUST_USE;
// Of the at most 16 positions that the sequence entered last it may take back all but the first, `position`: what that
// one sees stays, whatever others enter, until the sequence enters or trims.
void gyre_kv_stay(struct gyre_kv *kv, uint32_t sequence, uint32_t position);
// Can this position, which the sequence holds, be computed again?
bool gyre_kv_sees(const struct gyre_kv *kv, uint32_t sequence, uint32_t position);

// Lets a sequence that holds tokens[0..length-1] go on with pages in which others left the following tokens, for as
// many of tokens[0..n-1] as there are, with the windows of the last one; *length moves on. Nothing where *length is in
// the middle of a page, or not all of the sequence's pages are remembered.
gyre_status gyre_kv_adopt(struct gyre_kv *kv, uint32_t sequence, const uint32_t *tokens, uint32_t n, uint32_t *length,
                          gyre_error *err) GYRE_MUST_USE;
// None of the sequence's pages that no other one holds can be found any more. The sequence is given back next.
void gyre_kv_forget(struct gyre_kv *kv, uint32_t sequence);
// The sequence holds tokens[0..length-1]: its full pages can be found by them from now on. Where another page is known
// to hold the same, the sequence takes that one and gives its own back. Nothing may be under way on the device.
gyre_status gyre_kv_remember(struct gyre_kv *kv, uint32_t sequence, const uint32_t *tokens, uint32_t length,
                             gyre_error *err) GYRE_MUST_USE;

struct gyre_batch gyre_kv_batch(const struct gyre_kv *kv, struct gyre_binding rows);
