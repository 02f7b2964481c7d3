// The survey that chooses rotation and clips: when there is one, that the least surrogate wins, that it repeats, and
// that its outcome comes back from the journal.
#include "quantizer/pass/search.h"
#include "backends/cpu/fast.h"
#include "tests/common/tiny.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static gyre_source *model;

struct request {
    uint64_t seed;
    uint32_t seeds, act, kv, wbits;
    const char *act_clip, *kv_clip;
    const char *profile;
    uint32_t kv_v; // of values; 0: kv
};

static uint32_t ticks, stop_at;
static gyre_status tick(void *user, uint64_t weights, gyre_error *err)
{
    assert_ptr_equal(user, &ticks);
    assert_int_equal(weights, 0);
    return ++ticks == stop_at ? gyre_fail(err, GYRE_E_CANCELLED, "stopped") : GYRE_OK;
}

static gyre_status choose(struct request q, struct gyre_choice *out)
{
    static struct gyre_plan plan;
    const char *path = files_path("recipe.yaml");
    FILE *f = fopen(path, "wb");
    if (!f ||
        fprintf(f,
                "name: survey\nrotate: true\nseeds: %u\ncalibration: {windows: 3, tokens: 48}\n"
                "activations: {clip: %s}\ncache: {clip: %s}\nrounding:\n  - rtn: {clip: weights}\n",
                q.seeds, q.act_clip, q.kv_clip) < 0 ||
        fclose(f))
        abort();
    const gyre_quantize_params params = {.recipe = path,
                                         .wbits = q.wbits ? q.wbits : 4,
                                         .wgroup = 0,
                                         .act = q.act,
                                         .kv = q.kv,
                                         .kv_v = q.kv_v,
                                         .seed = q.seed,
                                         .profile = q.profile};
    gyre_error err = {0};
    if (gyre_plan_begin(&params, NULL, model, &plan, &err) != GYRE_OK) fail_msg("%s", err.message);
    ticks = 0;
    gyre_device *device = NULL;
    assert_int_equal(gyre_fast_device_create(NULL, &device, NULL), GYRE_OK);
    const gyre_status st = gyre_search(&params, &plan, NULL, device, out, &(struct gyre_ticker){tick, &ticks}, &err);
    if (st != GYRE_OK && st != GYRE_E_CANCELLED) fail_msg("%s", err.message);
    assert_int_equal(gyre_device_counters(device).live_objects, 0);
    gyre_device_close(device);
    gyre_plan_release(&plan);
    return st;
}

static void the_least_surrogate_wins(void **state)
{
    (void)state;
    static struct gyre_choice c, again, part;
    const struct request profiles[] = {{7, 6, 4, 4, 4, "1", "1", "full", 0}, {7, 6, 8, 8, 4, "1", "1", "portable", 0}};
    float whole[2];
    for (int p = 0; p < 2; p++) {
        struct request q = profiles[p];
        uint32_t least = 0;
        assert_int_equal(choose(q, &c), GYRE_OK);
        assert_int_equal(c.n_seeds, 6);
        for (uint32_t i = 0; i < 6; i++) {
            assert_true(c.surrogate[i] > 0 && isfinite(c.surrogate[i]));
            for (uint32_t k = 0; k < i; k++) assert_true(c.surrogate[i] != c.surrogate[k]);
            if (c.surrogate[i] < c.surrogate[least]) least = i;
        }
        assert_int_equal(c.seed, 7 + least);
        assert_true(c.act_clip == 1 && c.kv_clip == 1);
        assert_true(ticks >= 6);
        whole[p] = c.surrogate[least];
        assert_int_equal(choose(q, &again), GYRE_OK);
        assert_memory_equal(&c, &again, sizeof c);
        q.seed = 9; // a candidate's surrogate depends on its own seed alone
        q.seeds = 3;
        assert_int_equal(choose(q, &part), GYRE_OK);
        assert_memory_equal(part.surrogate, c.surrogate + 2, 3 * sizeof *part.surrogate);
        assert_int_equal(part.n_seeds, 3);
    }
    assert_true(whole[0] > 1.5f * whole[1]); // 4-bit activations have their errors too
}

static void clips_come_from_their_grid(void **state)
{
    (void)state;
    static const float grid[] = {1, 0.97f, 0.94f, 0.91f, 0.88f, 0.85f, 0.8f};
    static struct gyre_choice c;
    assert_int_equal(choose((struct request){7, 1, 4, 4, 4, "auto", "auto", "full", 0}, &c), GYRE_OK);
    bool act = false, kv = false;
    for (int i = 0; i < 7; i++) {
        act |= c.act_clip == grid[i];
        kv |= c.kv_clip == grid[i];
    }
    assert_true(act && kv);
    assert_true(c.act_clip < 1); // near-normal inputs are clipped
    assert_int_equal(c.n_seeds, 1);
    assert_int_equal(c.seed, 7);
    assert_int_equal(choose((struct request){7, 1, 4, 4, 4, "0.75", "auto", "full", 0}, &c), GYRE_OK);
    assert_true(c.act_clip == 0.75f && c.kv_clip <= 1);
    assert_int_equal(choose((struct request){7, 2, 8, 8, 4, "auto", "auto", "full", 0}, &c),
                     GYRE_OK); // nothing to clip
    assert_true(c.act_clip == 1 && c.kv_clip == 1 && c.n_seeds == 2);
    const struct request both = {7, 1, 8, 4, 4, "1", "auto", "full", 0};
    struct request one = both;
    assert_int_equal(choose(both, &c), GYRE_OK);
    const float best = c.kv_clip;
    assert_true(best <= 1 && c.kv_clip_v == best);
    one.kv = 8, one.kv_v = 4; // of widths apart only the four bits are clipped
    assert_int_equal(choose(one, &c), GYRE_OK);
    assert_true(c.kv_clip == 1 && c.kv_clip_v == best);
    one.kv = 4, one.kv_v = 16;
    assert_int_equal(choose(one, &c), GYRE_OK);
    assert_true(c.kv_clip == best && c.kv_clip_v == 1);
}

static void nothing_open_is_nothing_done(void **state)
{
    (void)state;
    static struct gyre_choice c;
    assert_int_equal(choose((struct request){3, 1, 4, 4, 4, "0.9", "0.95", "full", 0}, &c), GYRE_OK);
    assert_true(c.seed == 3 && c.n_seeds == 1 && c.act_clip == 0.9f && c.kv_clip == 0.95f && ticks == 0);
    assert_int_equal(choose((struct request){3, 5, 8, 8, 16, "auto", "auto", "full", 0}, &c), GYRE_OK);
    assert_true(c.seed == 3 && c.n_seeds == 1 && c.act_clip == 1 && c.kv_clip == 1 && ticks == 0);
}

static void a_stop_is_a_stop(void **state)
{
    (void)state;
    static struct gyre_choice c;
    for (stop_at = 1; stop_at < 6; stop_at += 2)
        assert_int_equal(choose((struct request){7, 2, 4, 4, 4, "auto", "auto", "full", 0}, &c), GYRE_E_CANCELLED);
    stop_at = 0;
}

static void needed_where_something_is_open(void **state)
{
    (void)state;
    static const struct {
        uint32_t wbits, seeds, act, kv, kv_v;
        double act_clip, kv_clip;
        bool needed;
    } row[] = {
        {4, 1, 4, 4, 4, 1, 1, false},
        {4, 2, 8, 8, 8, 1, 1, true},
        {8, 2, 16, 16, 16, 1, 1, true},
        {16, 2, 4, 4, 4, GYRE_AUTO, GYRE_AUTO, false},
        {32, 2, 4, 4, 4, GYRE_AUTO, GYRE_AUTO, false},
        {4, 1, 8, 8, 8, GYRE_AUTO, GYRE_AUTO, false},
        {4, 1, 16, 16, 16, GYRE_AUTO, GYRE_AUTO, false},
        {4, 1, 4, 8, 8, GYRE_AUTO, 1, true},
        {4, 1, 4, 8, 8, 1, GYRE_AUTO, false},
        {4, 1, 8, 4, 4, 1, GYRE_AUTO, true},
        {4, 1, 8, 4, 4, GYRE_AUTO, 1, false},
        {4, 1, 8, 8, 4, 1, GYRE_AUTO, true},
        {4, 1, 8, 4, 8, 1, GYRE_AUTO, true},
        {4, 1, 8, 16, 8, 1, GYRE_AUTO, false},
    };
    static struct gyre_settings s;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        memset(&s, 0, sizeof s);
        s.wbits = row[i].wbits;
        s.act = row[i].act;
        s.act4 = s.act == 4;
        s.kv = row[i].kv;
        s.kv_v = row[i].kv_v;
        s.recipe.seeds = row[i].seeds;
        s.recipe.act_clip = row[i].act_clip;
        s.recipe.kv_clip = row[i].kv_clip;
        if (gyre_settings_undecided(&s) != row[i].needed) fail_msg("row %zu", i);
    }
}

static void json_gives_it_back(void **state)
{
    (void)state;
    static struct gyre_choice c, d;
    for (uint32_t n = 1; n < 5; n += 3) {
        memset(&c, 0, sizeof c);
        c = (struct gyre_choice){.seed = n == 1 ? UINT64_MAX : 42,
                                 .n_seeds = n,
                                 .act_clip = 0.97f,
                                 .kv_clip = 1,
                                 .kv_clip_v = n == 1 ? 0.9f : 1,
                                 .tap_clip = n == 1 ? 0.97f : 0.8f};
        for (uint32_t i = 0; i < n && n > 1; i++) c.surrogate[i] = 0.1f / (float)(i + 3);
        json_t *json = gyre_choice_json(&c);
        assert_non_null(json);
        char *text = json_dumps(json, 0);
        json_t *read = json_loads(text, 0, NULL);
        memset(&d, 0xFF, sizeof d);
        assert_true(gyre_choice_read(read, &d));
        assert_true(d.seed == c.seed && d.n_seeds == c.n_seeds && d.act_clip == c.act_clip && d.kv_clip == c.kv_clip &&
                    d.kv_clip_v == c.kv_clip_v && d.tap_clip == c.tap_clip);
        assert_true((json_object_get(read, "tap_clip") != NULL) == (n != 1)); // where it is another
        assert_memory_equal(d.surrogate, c.surrogate, n * sizeof *d.surrogate);
        json_decref(read);
        free(text);
        static const char *const keys[] = {"rotation_seed", "surrogates", "act_clip", "kv_clip"};
        for (int k = 0; k < 4; k++)
            for (int wrong = 0; wrong < 2; wrong++) {
                json_t *bad = json_copy(json);
                if (wrong) json_object_set_new(bad, keys[k], json_string("1"));
                else json_object_del(bad, keys[k]);
                assert_false(gyre_choice_read(bad, &d));
                json_decref(bad);
            }
        json_t *many = json_array();
        for (int i = 0; i <= GYRE_MAX_SEEDS; i++) json_array_append_new(many, json_real(1));
        json_object_set_new(json, "surrogates", many);
        assert_false(gyre_choice_read(json, &d));
        json_decref(json);
    }
    assert_false(gyre_choice_read(NULL, &d));
}

static int prepare(void **state)
{
    (void)state;
    struct tiny_options options = tiny_defaults();
    const char *path = files_path("model.gguf");
    options.layers = 3;
    openblas_set_num_threads(1);
    omp_set_num_threads(1); // thousands of tiny loops: on a busy machine their barriers would take minutes
    return tiny_write_gguf(path, &options) || gyre_source_open(path, &model, NULL) != GYRE_OK;
}

static int cleanup(void **state)
{
    (void)state;
    gyre_source_close(model);
    files_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_surrogate_wins),       cmocka_unit_test(clips_come_from_their_grid),
        cmocka_unit_test(nothing_open_is_nothing_done),   cmocka_unit_test(a_stop_is_a_stop),
        cmocka_unit_test(needed_where_something_is_open), cmocka_unit_test(json_gives_it_back),
    };
    return cmocka_run_group_tests(tests, prepare, cleanup);
}
