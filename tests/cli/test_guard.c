// A mapped file that becomes shorter ends the program with 1 and a line that names the file; another cause of SIGBUS
// does not.
#include "cli/guard.h"
#include "runtime/util/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const path = "guard test.bin"; // a blank in the name

// Runs `what` in a child; its wait status, and what it wrote to stderr.
static int in_child(void (*what)(void), char *said, size_t cap)
{
    int ends[2], status = 0;
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        cli_guard_mappings();
        what();
        _exit(77); // not reached where the fault is seen
    }
    close(ends[1]);
    for (ssize_t k; n + 1 < cap && (k = read(ends[0], said + n, cap - 1 - n)) > 0;) n += (size_t)k;
    said[n] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void read_past_the_end(void)
{
    struct gyre_file_map map;
    volatile unsigned sum = 0;
    if (gyre_file_map(path, &map, NULL) != GYRE_OK || truncate(path, 5000)) _exit(78);
    for (uint64_t i = 0; i < map.size; i++) sum += map.data[i];
}

// The first one is no fault of a mapping and brings the default back.
static void send_it(void)
{
    raise(SIGBUS);
    raise(SIGBUS);
}

static void a_file_that_shrinks_is_named(void **state)
{
    (void)state;
    static const char zeros[200000];
    char said[1024];
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(zeros, 1, sizeof zeros, f), sizeof zeros);
    assert_int_equal(fclose(f), 0);
    const int status = in_child(read_past_the_end, said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_true(!strncmp(said, "gyre: cannot read file (/", 25) && strstr(said, "/guard test.bin): "));
    assert_true(strlen(said) > 0 && strchr(said, '\n') == said + strlen(said) - 1); // one line
    remove(path);
}

static void other_faults_stay_faults(void **state)
{
    (void)state;
    char said[256];
    const int status = in_child(send_it, said, sizeof said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    assert_string_equal(said, "");
}

static void no_cache_where_no_room_is_left(void **state)
{
    (void)state;
    static const char variable[] = "MESA_SHADER_CACHE_DISABLE";
    unsetenv(variable);
    setenv("XDG_CACHE_HOME", "not/made/yet", 1);
    cli_guard_caches(0);
    assert_null(getenv(variable));
    cli_guard_caches(UINT64_MAX);
    assert_string_equal(getenv(variable), "true");
    setenv(variable, "false", 1);
    cli_guard_caches(UINT64_MAX); // the user's word stays
    assert_string_equal(getenv(variable), "false");
    unsetenv(variable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_shrinks_is_named),
        cmocka_unit_test(other_faults_stay_faults),
        cmocka_unit_test(no_cache_where_no_room_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
