// Runs that end early: cancelled, killed, out of space, and journals that are damaged or of another run. What follows
// must give the bytes of an uninterrupted run, or refuse and touch nothing.
#include "tests/common/files.h"
#include "tests/common/tiny.h"
#include "runtime/util/file.h"

#include <gyre/gyre_quantize.h>

#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static const char *in, *out, *part, *journal;
static char *want, *want_manifest;
static uint64_t want_bytes;

static struct {
    int calls, stop_at;
    bool kill;
} watch;

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    (void)eta;
    assert_true(fraction >= 0 && fraction <= 1 && what && *what);
    if (++watch.calls != watch.stop_at) return 0;
    if (watch.kill) kill(getpid(), SIGKILL);
    return 1;
}

static gyre_quantize_params params(void)
{
    return (gyre_quantize_params){.source = in,
                                  .output = out,
                                  .recipe = "quarot-rtn",
                                  .wgroup = GYRE_WGROUP_ROW,
                                  .seed = 5,
                                  .progress = on_progress};
}

static gyre_status run(gyre_quantize_params p, int stop_at, gyre_error *err)
{
    watch.calls = 0;
    watch.stop_at = stop_at;
    return gyre_quantize(&p, NULL, err);
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static void expect_complete(void)
{
    uint64_t n, m;
    char *got = files_read(out, &n), *manifest = files_read(files_path("out.gguf.manifest.json"), &m);
    assert_true(got && manifest);
    assert_int_equal(n, want_bytes);
    assert_memory_equal(got, want, n);
    assert_string_equal(manifest, want_manifest);
    assert_false(exists(part) || exists(journal));
    free(got);
    free(manifest);
}

static void forget(void)
{
    remove(out);
    remove(part);
    remove(files_path("out.gguf.manifest.json"));
    remove(files_path("out.gguf.journal/state.json"));
    rmdir(journal);
}

static int setup(void **state)
{
    (void)state;
    omp_set_num_threads(1); // a child of fork has no worker threads to wait for
    in = strdup(files_path("in.gguf"));
    out = strdup(files_path("out.gguf"));
    part = strdup(files_path("out.gguf.part"));
    journal = strdup(files_path("out.gguf.journal"));
    const struct tiny_options plain = tiny_plain();
    assert_int_equal(tiny_write_gguf(in, &plain), 0);
    gyre_error err = {0};
    if (run(params(), 0, &err) != GYRE_OK) {
        print_error("%s\n", err.message);
        return -1;
    }
    want = files_read(out, &want_bytes);
    uint64_t n;
    want_manifest = files_read(files_path("out.gguf.manifest.json"), &n);
    forget();
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    free(want);
    free(want_manifest);
    free((char *)(uintptr_t)in);
    free((char *)(uintptr_t)out);
    free((char *)(uintptr_t)part);
    free((char *)(uintptr_t)journal);
    return 0;
}

static void cancelled_anywhere_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    run(params(), 0, NULL);
    const int calls = watch.calls;
    forget();
    for (int at = 1; at <= calls; at++) {
        gyre_quantize_params p = params();
        gyre_error err = {0};
        assert_int_equal(run(p, at, &err), GYRE_E_CANCELLED);
        assert_false(exists(out));
        assert_int_equal(exists(journal), at > 1); // the first call is before anything is worth keeping
        p.resume = true;
        if (run(p, 0, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_true(at < 9 || watch.calls < calls); // it went on, not back to the start
        expect_complete();
        forget();
    }
    // Twice interrupted.
    gyre_quantize_params p = params();
    p.resume = true;
    assert_int_equal(run(p, 9, NULL), GYRE_E_CANCELLED);
    assert_int_equal(run(p, 8, NULL), GYRE_E_CANCELLED);
    assert_int_equal(run(p, 0, NULL), GYRE_OK);
    expect_complete();
    forget();
}

static void killed_anywhere_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    for (int at = 1; at < 22; at += 3) {
        const pid_t child = fork();
        if (child == 0) {
            watch.kill = true;
            run(params(), at, NULL);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        assert_false(exists(out));
        assert_true(exists(part) && exists(journal));
        gyre_quantize_params p = params();
        gyre_error err = {0};
        assert_int_equal(run(p, 0, &err), GYRE_E_IO); // not without being told
        assert_non_null(strstr(err.message, "--resume"));
        p.resume = true;
        if (run(p, 0, &err) != GYRE_OK) fail_msg("%s", err.message);
        expect_complete();
        forget();
    }
}

static void spoil(const char *path, long at, const char *with)
{
    FILE *f = fopen(path, at < 0 ? "wb" : "r+b");
    assert_non_null(f);
    fseek(f, at < 0 ? 0 : at, SEEK_SET);
    fputs(with, f);
    fclose(f);
}

// To resume is refused with what to do about it, and all is kept.
static void expect_refusal(gyre_quantize_params p, gyre_status why, const char *words)
{
    gyre_error err = {0};
    p.resume = true;
    assert_int_equal(run(p, 0, &err), why);
    assert_non_null(strstr(err.message, words));
    assert_non_null(strstr(err.message, "--force"));
    assert_true(exists(files_path("out.gguf.journal/state.json")) && !exists(out));
}

// Starts over.
static void forced(gyre_quantize_params p)
{
    gyre_error err = {0};
    p.force = true;
    if (run(p, 0, &err) != GYRE_OK) fail_msg("%s", err.message);
    expect_complete();
    forget();
}

static void damaged_journals_are_refused_and_kept(void **state)
{
    (void)state;
    const char *state_file = strdup(files_path("out.gguf.journal/state.json"));
    for (int damage = 0; damage < 7; damage++) {
        uint64_t n;
        assert_int_equal(run(params(), 14, NULL), GYRE_E_CANCELLED);
        char *text = files_read(state_file, &n);
        switch (damage) {
        case 0:
            spoil(state_file, -1, "");
            break;
        case 1:
            spoil(state_file, -1, "[1, 2]");
            break;
        case 2:
            spoil(state_file, -1, "{\"run\": 3}");
            break;
        case 3:
            assert_int_equal(truncate(state_file, (long)n / 2), 0);
            break;
        case 4:
            spoil(state_file, strstr(text, "\"steps\": ") - text + 9, "3");
            break; // claims more than there is
        case 5:
            spoil(part, (long)want_bytes / 4, "x");
            break; // a byte of a finished tensor
        default:
            remove(part);
            break;
        }
        expect_refusal(params(), GYRE_E_FORMAT, "cannot resume");
        forced(params());
        free(text);
    }
    free((char *)(uintptr_t)state_file);
}

static void journals_of_other_runs_are_refused_and_kept(void **state)
{
    (void)state;
    struct tiny_options other = tiny_plain();
    other.seed = 77;
    assert_int_equal(tiny_write_gguf(files_path("other.gguf"), &other), 0);
    assert_int_equal(run(params(), 14, NULL), GYRE_E_CANCELLED);
    for (int change = 0; change < 5; change++) {
        gyre_quantize_params p = params();
        gyre_error err = {0};
        p.resume = true;
        static const char *const named[] = {"recipe", "seed", "wgroup", "base", "kv_bits"};
        if (change == 0) p.recipe = "rtn";
        if (change == 1) p.seed = 6;
        if (change == 2) p.wgroup = 32;
        if (change == 3) p.source = files_path("other.gguf");
        if (change == 4) p.kv = 4;
        assert_int_equal(run(p, 0, &err), GYRE_E_IO);
        assert_non_null(strstr(err.message, named[change]));
        assert_non_null(strstr(err.message, "another run"));
    }
    gyre_quantize_params p = params();
    p.resume = true;
    assert_int_equal(run(p, 0, NULL), GYRE_OK);
    expect_complete();
    forget();
}

// Of the same version, but other sources: bytes may differ. Who says --force besides starts over.
static void journals_of_other_builds_are_refused(void **state)
{
    (void)state;
    const char *state_file = strdup(files_path("out.gguf.journal/state.json"));
    for (int unknown = 0; unknown < 2; unknown++) { // by a build that told none
        gyre_quantize_params p = params();
        uint64_t n;
        assert_int_equal(run(p, 14, NULL), GYRE_E_CANCELLED);
        char *text = files_read(state_file, &n), *build = strstr(text, "\"build\": \"");
        assert_non_null(build);
        spoil(state_file, build - text + (unknown ? 1 : 10), "x");
        expect_refusal(p, GYRE_E_IO, "another build of gyre began it");
        assert_true(exists(part));
        p.resume = true; // which --force overrules
        forced(p);
        free(text);
    }
    free((char *)(uintptr_t)state_file);
}

// Killed behind the last rename: the output is whole, and what is left of the run goes when it is resumed.
static void what_is_whole_is_left_as_it_is(void **state)
{
    (void)state;
    gyre_quantize_params p = params();
    gyre_error err = {0};
    p.resume = true;
    for (int spoiled = 0; spoiled < 3; spoiled++) {
        assert_int_equal(run(params(), 0, NULL), GYRE_OK);
        assert_int_equal(mkdir(journal, 0777), 0);
        files_write(files_path("out.gguf.journal/kept-distill"), "");
        if (spoiled == 1) p.seed++; // another run
        if (spoiled == 2) spoil(out, (long)want_bytes - 8, "x"), p.seed--;
        const gyre_status st = run(p, 0, &err);
        assert_int_equal(st, spoiled ? GYRE_E_IO : GYRE_OK);
        if (spoiled) assert_non_null(strstr(err.message, "it exists; replace it with --force"));
        else expect_complete();
        remove(files_path("out.gguf.journal/kept-distill"));
        forget();
    }
}

// Whoever is killed while he replaces a file leaves a part beside it, named by his number.
static void parts_of_the_dead_are_removed(void **state)
{
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(0);
    int status;
    char dead[320], alive[320], far[320], place[300];
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(gyre_file_temp(files_path("out.gguf.manifest.json"), place, sizeof place));
    *strrchr(place, '-') = 0; // what is behind it is this process
    snprintf(dead, sizeof dead, "%s-%d", place, (int)child);
    snprintf(alive, sizeof alive, "%s-%d", place, (int)getppid());
    char *host = strrchr(place, '-') + 1;
    *host = *host == '0' ? '1' : '0';
    snprintf(far, sizeof far, "%s-%d", place, (int)child); // on a host that shares the disk it may live
    files_write(dead, "");
    files_write(alive, "");
    files_write(far, "");
    assert_int_equal(run(params(), 0, NULL), GYRE_OK);
    assert_false(exists(dead));
    assert_true(exists(alive) && exists(far));
    expect_complete();
    remove(alive);
    remove(far);
    forget();
}

static void outputs_are_checked_first(void **state)
{
    (void)state;
    gyre_quantize_params p = params();
    gyre_error err = {0};
    spoil(out, -1, "precious");
    assert_int_equal(run(p, 0, &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "--force"));
    uint64_t n;
    char *kept = files_read(out, &n);
    assert_string_equal(kept, "precious");
    free(kept);
    p.force = true;
    assert_int_equal(run(p, 9, &err), GYRE_E_CANCELLED); // the old file stays until the new one is whole
    kept = files_read(out, &n);
    assert_string_equal(kept, "precious");
    free(kept);
    assert_int_equal(run(p, 0, &err), GYRE_OK);
    expect_complete();
    forget();
    p.force = false;
    p.output = files_path("no/such/folder.gguf");
    assert_int_equal(run(p, 0, &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "create the folder"));
    p.output = files_path("");
    assert_int_equal(run(p, 0, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "folder"));
    p.output = NULL;
    assert_int_equal(run(p, 0, &err), GYRE_E_INVALID);
}

// In a child, since limits cannot be raised again: no signal, one error, nothing under the final name, and a resume
// later.
static void full_disk_is_an_error(void **state)
{
    (void)state;
    for (int roomy = 0; roomy < 2; roomy++) {
        const pid_t child = fork();
        if (child == 0) {
            const struct rlimit limit = {roomy ? want_bytes - 1 : 4096, roomy ? want_bytes - 1 : 4096};
            gyre_error err = {0};
            setrlimit(RLIMIT_FSIZE, &limit);
            _exit(run(params(), 0, &err) == GYRE_E_IO && strstr(err.message, "cannot write") &&
                          strstr(err.message, ".part")
                      ? 0
                      : 1);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_false(exists(out) || exists(part) || exists(journal));
    }
    sigset_t pending;
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGXFSZ));
}

static void bad_models_and_settings_are_named(void **state)
{
    (void)state;
    static const char *const broken[] = {"blk.1.ffn_up.weight", "token_embd.weight", "blk.2.attn_norm.weight"};
    gyre_error err = {0};
    gyre_quantize_params p = params();
    p.source = files_path("nan.gguf");
    for (int i = 0; i < 3; i++) {
        struct tiny_options shape = tiny_plain();
        shape.nan_in = broken[i];
        assert_int_equal(tiny_write_gguf(p.source, &shape), 0);
        assert_int_equal(run(p, 0, &err), GYRE_E_FORMAT);
        assert_non_null(strstr(err.message, broken[i]));
        assert_false(exists(out) || exists(part) || exists(journal));
    }
    p.source = in;
    p.wgroup = 128; // 64, 96 and 96 wide rows
    assert_int_equal(run(p, 0, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "use group 0 (per channel) or 32"));
    p.wgroup = 48;
    assert_int_equal(run(p, 0, &err), GYRE_E_INVALID);
    p.wgroup = GYRE_WGROUP_ROW;
    p.recipe = "magic";
    assert_int_equal(run(p, 0, &err), GYRE_E_INVALID);
    p = params();
    p.wbits = 5;
    assert_int_equal(run(p, 0, &err), GYRE_E_INVALID);
    p = params();
    assert_int_equal(run(p, 0, &err), GYRE_OK);
    p.source = files_path("again.gguf");
    assert_int_equal(rename(out, p.source), 0);
    assert_int_equal(run(p, 0, &err), GYRE_E_UNSUPPORTED); // its own output is no source where it rotated
    assert_non_null(strstr(err.message, "gyre wrote this file with rotations"));
    assert_false(exists(out) || exists(part) || exists(journal));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_anywhere_resumes_to_the_same_bytes),
        cmocka_unit_test(killed_anywhere_resumes_to_the_same_bytes),
        cmocka_unit_test(damaged_journals_are_refused_and_kept),
        cmocka_unit_test(journals_of_other_runs_are_refused_and_kept),
        cmocka_unit_test(journals_of_other_builds_are_refused),
        cmocka_unit_test(what_is_whole_is_left_as_it_is),
        cmocka_unit_test(parts_of_the_dead_are_removed),
        cmocka_unit_test(outputs_are_checked_first),
        cmocka_unit_test(full_disk_is_an_error),
        cmocka_unit_test(bad_models_and_settings_are_named),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
