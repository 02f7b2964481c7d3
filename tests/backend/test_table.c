// The generated kernel table against shaders/kernels.def and runtime/core/ops.def: complete and within limits.
#include "backends/backend.h"
#include "backends/kernel_source.h"
#include "runtime/core/op.h"
#include "runtime/util/base.h"
#include "shaders/params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const struct row {
    const char *name, *op;
    uint32_t n_writes, n_bindings;
    size_t params_size;
} rows[] = {
#define KERNEL(name, source, defines, params, n_writes, n_bindings, op, ...)                                           \
    {#name, #op, n_writes, n_bindings, sizeof(struct gyre_##params##_params)},
#include "shaders/kernels.def"
#undef KERNEL
};

static void every_row_is_built(void **state)
{
    (void)state;
    assert_int_equal(gyre_kernel_source_count, GYRE_COUNT(rows));
    for (size_t i = 0; i < GYRE_COUNT(rows); i++) {
        const struct gyre_kernel_source *s = gyre_kernel_source_find(rows[i].name);
        if (!s) fail_msg("%s is not in the table", rows[i].name);
        assert_string_equal(s->name, rows[i].name);
        assert_string_equal(s->op, rows[i].op);
        assert_int_equal(s->n_writes, rows[i].n_writes);
        assert_int_equal(s->n_bindings, rows[i].n_bindings);
        assert_int_equal(s->params_size, rows[i].params_size);
    }
    assert_null(gyre_kernel_source_find("no_such_kernel"));
    assert_null(gyre_kernel_source_find(""));
}

static void every_kernel_is_within_limits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++) {
        const struct gyre_kernel_source *s = gyre_kernel_sources[i];
        if (gyre_op_find(s->op) == GYRE_OP_COUNT) fail_msg("%s computes %s, which is no op", s->name, s->op);
        assert_true(s->n_writes >= 1 && s->n_writes < s->n_bindings && s->n_bindings <= GYRE_MAX_BINDINGS);
        assert_true(s->params_size > 0 && s->params_size <= GYRE_MAX_PARAMS);
        assert_true(s->n_spec >= 3 && s->n_spec <= GYRE_MAX_SPEC);
        assert_string_equal(s->spec_names[0], "WGX");
        for (uint32_t c = 0; c < s->n_spec; c++) assert_true(s->spec_names[c] && s->spec_names[c][0]);
        for (int c = 0; c < 3; c++) assert_true(s->spec_defaults[c] >= 1);
        assert_true(s->spec_defaults[0] * s->spec_defaults[1] * s->spec_defaults[2] <= 256);
        assert_true(s->opencl || s->spirv);
        assert_true(!s->opencl || strstr(s->opencl, s->name));
        assert_int_equal(s->spirv_bytes % 4, 0);
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(gyre_kernel_sources[j]->name, s->name)) fail_msg("%s is there twice", s->name);
        if (gyre_kernel_source_of(s->op, s->form) != s)
            fail_msg("%s has the form of another kernel of its op", s->name);
    }
}

// The first n_writes bindings of a kernel hold at least its op's outputs (more where it takes scratch memory).
static void kernels_fit_their_ops(void **state)
{
    (void)state;
    for (size_t i = 0; i < GYRE_COUNT(rows); i++) {
        const gyre_op op = gyre_op_find(rows[i].op);
        assert_true(op < GYRE_OP_COUNT);
        uint32_t written = 0, read = 0; // as many planes as the operands have at most
        for (const char *c = gyre_ops[op].outputs; *c; c++) written += *c == 'P' ? 4 : *c == 'Q' ? 2 : 1;
        for (const char *c = gyre_ops[op].inputs; *c; c++)
            read += *c == 'P' ? 4 : *c == 'W' ? 3 : *c == 'A' || *c == 'Q' ? 2 : 1;
        assert_true(rows[i].n_bindings - rows[i].n_writes <= read);
        assert_true(rows[i].n_writes <= written + 1); // scratch
    }
    for (int op = 0; op < GYRE_OP_COUNT; op++) {
        bool found = false;
        for (size_t i = 0; i < GYRE_COUNT(rows); i++) found |= !strcmp(rows[i].op, gyre_ops[op].name);
        if (!found) fail_msg("no kernel computes %s", gyre_ops[op].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_built),
        cmocka_unit_test(every_kernel_is_within_limits),
        cmocka_unit_test(kernels_fit_their_ops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
