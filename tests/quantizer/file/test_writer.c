// What a plan becomes in a container: every part once and in its order, places that do not overlap, steps that end with
// blocks, and bytes that the runtime reads back as the codes that were given.
#include "quantizer/file/writer.h"
#include "runtime/model/linear.h"
#include "runtime/util/base.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct written {
    gyre_source *source;
    struct gyre_plan plan;
    struct gyre_writer writer;
};

static void open_writer(struct written *t, const char *recipe, const char *profile, uint32_t wbits, int32_t wgroup)
{
    const struct tiny_options shape = tiny_defaults();
    const char *path = files_path("in.gguf");
    gyre_error err = {0};
    assert_int_equal(tiny_write_gguf(path, &shape), 0);
    const gyre_quantize_params p = {
        .source = path, .output = "out", .recipe = recipe, .profile = profile, .wbits = wbits, .wgroup = wgroup};
    const struct gyre_choice choice = {.n_seeds = 1, .act_clip = 1, .kv_clip = 1, .kv_clip_v = 1};
    *t = (struct written){0};
    gyre_status st = gyre_source_open(path, &t->source, &err);
    if (st == GYRE_OK) st = gyre_plan_begin(&p, NULL, t->source, &t->plan, &err);
    if (st == GYRE_OK) st = gyre_plan_finish(&p, &choice, &t->plan, &err);
    if (st == GYRE_OK) st = gyre_writer_open(&gyre_format_gguf, &t->plan, &t->writer, &err);
    if (st != GYRE_OK) fail_msg("%s", err.message);
}

static void close_writer(struct written *t)
{
    gyre_writer_close(&t->writer);
    gyre_plan_release(&t->plan);
    gyre_source_close(t->source);
}

static void parts_come_once_and_in_order(void **state)
{
    (void)state;
    static const char *const profile[] = {"full", "portable"};
    for (int i = 0; i < 4; i++) {
        struct written t;
        open_writer(&t, i < 2 ? "quarot-rtn" : "rtn", profile[i % 2], 4, 32);
        const struct gyre_writer *w = &t.writer;
        uint64_t at = w->file[0].front_bytes, planned = 0;
        for (uint64_t k = 0; k < w->n_tensors; k++) {
            const struct gyre_written *x = &w->tensor[k];
            assert_int_equal(x->offset, at);
            at += gyre_round_up(x->bytes, 32);
            if (k && x->piece) assert_true(gyre_part_is(&x->part, &x[-1].part) && x->piece == x[-1].piece + 1);
            else assert_true(gyre_part_is(&x->part, &t.plan.tensor[planned++].part));
            assert_ptr_equal(gyre_writer_find(w, x->part), x - x->piece);
        }
        assert_int_equal(planned, t.plan.n_tensors);
        assert_int_equal(at, w->file[0].bytes);
        assert_null(gyre_writer_find(w, (struct gyre_plan_part){GYRE_PART_LINEAR, GYRE_ROLE_q, 2}));
        assert_int_equal(gyre_writer_tensors(w, 0), 0);
        assert_int_equal(gyre_writer_tensors(w, 1), w->globals);
        assert_string_equal(w->tensor[w->globals].name, "blk.0.attn_norm.weight");
        assert_string_equal(w->tensor[gyre_writer_tensors(w, 2)].name, "blk.1.attn_norm.weight");
        assert_int_equal(gyre_writer_tensors(w, 3), w->n_tensors);
        close_writer(&t);
    }
}

// Every width and group, in both profiles, as the runtime would find it.
static void codes_are_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        const bool full = i & 1;
        const uint32_t bits = i & 2 ? 4 : 8;
        struct written t;
        open_writer(&t, "rtn", full ? "full" : "portable", bits, i & 4 ? 32 : GYRE_WGROUP_ROW);
        const struct gyre_plan_part part = {GYRE_PART_LINEAR, GYRE_ROLE_up, 1};
        const struct gyre_written *x = gyre_writer_find(&t.writer, part);
        uint64_t rows, cols;
        gyre_role_shape(part.role, &t.plan.hp, &rows, &cols);
        const uint32_t group = i & 4 ? 32 : (uint32_t)cols;
        int8_t *code = malloc(2 * rows * cols);
        uint16_t *scale = malloc(2 * rows * cols);
        struct gyre_tensor made[2] = {0};
        for (uint64_t k = 0; k < rows * cols; k++)
            code[k] = (int8_t)((int)(k * 7 % (bits == 4 ? 16 : 255)) - (bits == 4 ? 8 : 127));
        for (uint64_t k = 0; k < rows * (cols / group); k++) scale[k] = (uint16_t)(0x2000 + k);
        const struct gyre_values values = {rows, cols, bits, group, code, scale, NULL};
        for (int piece = 0; piece < (full ? 2 : 1); piece++) {
            void *data = malloc(x[piece].bytes);
            assert_int_equal(x[piece].piece, piece);
            t.writer.format->encode(&x[piece], &values, data);
            made[piece] = (struct gyre_tensor){.name = x[piece].name,
                                               .type = x[piece].type,
                                               .n_dims = 2,
                                               .dims = {x[piece].dims[0], x[piece].dims[1]},
                                               .rows = x[piece].dims[0],
                                               .cols = x[piece].dims[1],
                                               .data = data,
                                               .bytes = x[piece].bytes};
        }
        struct gyre_linear l; // any of its kind, given these tensors
        gyre_linear_of(&made[0], &l);
        l.scale = full ? &made[1] : NULL;
        l.rows = rows, l.cols = cols, l.bits = bits, l.group = group;
        if (full) l.stored = group;
        int8_t *got = malloc(rows * cols);
        uint16_t *scales = malloc(2 * rows * cols);
        assert_int_equal(gyre_linear_codes(&l, 0, rows, got, scales, NULL, NULL), GYRE_OK);
        assert_memory_equal(got, code, rows * cols);
        assert_memory_equal(scales, scale, rows * (cols / group) * sizeof *scale);
        free((void *)(uintptr_t)made[0].data);
        free((void *)(uintptr_t)made[1].data);
        free(got);
        free(scales);
        free(code);
        free(scale);
        close_writer(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_come_once_and_in_order),
        cmocka_unit_test(codes_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
