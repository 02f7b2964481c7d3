// Files: map, read, atomic replacement and its failures, directories. Runs in a fresh folder below the
// working directory.
#include "runtime/util/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void ok(gyre_status st, const gyre_error *err)
{
    if (st != GYRE_OK) fail_msg("%s", err->message);
}

static void refused(gyre_status st, gyre_status want, const gyre_error *err, const char *path)
{
    assert_int_equal(st, want);
    assert_non_null(strstr(err->message, path));
    assert_null(strchr(err->message, '\n'));
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void expect_content(const char *path, const char *content)
{
    gyre_error err = {0};
    char *text;
    uint64_t size;
    ok(gyre_file_read(path, 1 << 20, &text, &size, &err), &err);
    assert_int_equal(size, strlen(content));
    assert_string_equal(text, content);
    free(text);
}

static void writes_and_replaces(void **state)
{
    (void)state;
    gyre_error err = {0};
    ok(gyre_file_write("a", "first", 5, &err), &err);
    expect_content("a", "first");
    ok(gyre_file_write("a", "2nd", 3, &err), &err);
    expect_content("a", "2nd");
    ok(gyre_file_write("empty", NULL, 0, &err), &err);
    expect_content("empty", "");
    assert_true(gyre_file_exists("empty"));
    assert_false(gyre_file_exists("missing"));
    assert_int_equal(entries("."), 2);
    unlink("a");
    unlink("empty");
}

static void failed_writes_leave_the_old_file(void **state)
{
    (void)state;
    gyre_error err = {0};
    static char big[100000];
    const struct rlimit small = {4096, RLIM_INFINITY};
    struct rlimit before;
    ok(gyre_file_write("a", "old", 3, &err), &err);
    // A limit of the file size stands for a full disk: some bytes are written, then write(2) fails.
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const gyre_status st = gyre_file_write("a", big, sizeof big, &err);
    const int n = entries(".");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){before.rlim_cur, RLIM_INFINITY}), 0);
    refused(st, GYRE_E_IO, &err, "(a)");
    assert_int_equal(n, 1);
    expect_content("a", "old");

    refused(gyre_file_write("no/such/folder/a", "x", 1, &err), GYRE_E_IO, &err, "no/such/folder/a");
    assert_int_equal(mkdir("folder", 0777), 0);
    refused(gyre_file_write("folder", "x", 1, &err), GYRE_E_IO, &err, "folder"); // rename fails
    assert_int_equal(entries("."), 2);
    char name[6000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(gyre_file_write(name, "x", 1, &err), GYRE_E_IO);
    rmdir("folder");
    unlink("a");
}

// /dev/null was replaced by a file, where root asked for it.
static void devices_and_pipes_stay(void **state)
{
    (void)state;
    gyre_error err = {0};
    struct stat info;
    assert_int_equal(mkfifo("pipe", 0666), 0);
    ok(gyre_file_write("part", "x", 1, &err), &err);
    refused(gyre_file_write("pipe", "x", 1, &err), GYRE_E_IO, &err, "(pipe)");
    refused(gyre_check_file("pipe", &err), GYRE_E_IO, &err, "(pipe)");
    refused(gyre_file_commit("part", "pipe", &err), GYRE_E_IO, &err, "(pipe)");
    assert_int_equal(stat("pipe", &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_int_equal(entries("."), 1); // nothing half-made is left beside it
    ok(gyre_check_file("part", &err), &err);
    refused(gyre_check_file("no/part", &err), GYRE_E_IO, &err, "no/part");
    refused(gyre_check_file(".", &err), GYRE_E_IO, &err, "directory");
    unlink("pipe");
}

static void commit_renames_or_removes(void **state)
{
    (void)state;
    gyre_error err = {0};
    ok(gyre_file_write("a.part", "whole", 5, &err), &err);
    ok(gyre_file_commit("a.part", "a", &err), &err);
    expect_content("a", "whole");
    assert_false(gyre_file_exists("a.part"));
    refused(gyre_file_commit("a.part", "a", &err), GYRE_E_IO, &err, "a.part"); // there is none
    expect_content("a", "whole");
    ok(gyre_file_write("b.part", "x", 1, &err), &err);
    refused(gyre_file_commit("b.part", "no/folder/b", &err), GYRE_E_IO, &err, "no/folder/b");
    assert_int_equal(entries("."), 1);
    unlink("a");
}

static void maps(void **state)
{
    (void)state;
    gyre_error err = {0};
    struct gyre_file_map map;
    ok(gyre_file_write("a", "\0\1\2 odd", 7, &err), &err);
    ok(gyre_file_map("a", &map, &err), &err);
    assert_int_equal(map.size, 7);
    assert_memory_equal(map.data, "\0\1\2 odd", 7);
    gyre_file_unmap(&map);
    assert_null(map.data);
    gyre_file_unmap(&map);
    ok(gyre_file_write("a", "", 0, &err), &err);
    ok(gyre_file_map("a", &map, &err), &err);
    assert_true(map.size == 0 && map.data);
    gyre_file_unmap(&map);
    unlink("a");
    refused(gyre_file_map("missing", &map, &err), GYRE_E_IO, &err, "missing");
    assert_null(map.data);
    refused(gyre_file_map(".", &map, &err), GYRE_E_IO, &err, "directory");
    assert_int_equal(mkfifo("pipe", 0666), 0);
    refused(gyre_file_map("pipe", &map, &err), GYRE_E_IO, &err, "pipe"); // and does not wait for a writer
    unlink("pipe");
}

// A change that no fault shows: zeros are read where the file ended inside a page, other bytes where it was written to.
static void changes_behind_a_mapping_are_seen(void **state)
{
    (void)state;
    static const struct timespec then[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    gyre_error err = {0};
    for (int change = 0; change < 4; change++) {
        struct gyre_file_map map;
        ok(gyre_file_write("a", "some bytes", 10, &err), &err);
        assert_int_equal(utimensat(AT_FDCWD, "a", then, 0), 0);
        ok(gyre_file_map("a", &map, &err), &err);
        ok(gyre_file_unchanged(&map, "a", &err), &err);
        FILE *f = NULL;
        if (change == 0) assert_int_equal(truncate("a", 4), 0);
        if (change == 1) assert_non_null(f = fopen("a", "ab"));
        if (change == 2) assert_non_null(f = fopen("a", "r+b"));
        if (change == 3) ok(gyre_file_write("a", "another file", 12, &err), &err); // what is mapped is still there
        if (f) assert_true(fputc('x', f) == 'x' && !fclose(f));
        if (change < 3) refused(gyre_file_unchanged(&map, "a", &err), GYRE_E_IO, &err, "(a): it was changed");
        else ok(gyre_file_unchanged(&map, "a", &err), &err);
        gyre_file_unmap(&map);
    }
    unlink("a");
}

static void reads_are_bounded(void **state)
{
    (void)state;
    gyre_error err = {0};
    char *text;
    ok(gyre_file_write("a", "12345", 5, &err), &err);
    ok(gyre_file_read("a", 5, &text, NULL, &err), &err);
    assert_string_equal(text, "12345");
    free(text);
    refused(gyre_file_read("a", 4, &text, NULL, &err), GYRE_E_FORMAT, &err, "(a)");
    assert_null(text);
    unlink("a");
    refused(gyre_file_read("a", 4, &text, NULL, &err), GYRE_E_IO, &err, "(a)");
    refused(gyre_file_read(".", 4, &text, NULL, &err), GYRE_E_IO, &err, "directory");
}

static void makes_folders(void **state)
{
    (void)state;
    gyre_error err = {0};
    ok(gyre_make_dirs("x/y//z/", &err), &err);
    ok(gyre_make_dirs("x/y/z", &err), &err);
    assert_int_equal(entries("x/y"), 1);
    ok(gyre_file_write("x/file", "", 0, &err), &err);
    refused(gyre_make_dirs("x/file", &err), GYRE_E_IO, &err, "x/file");
    refused(gyre_make_dirs("x/file/more", &err), GYRE_E_IO, &err, "x/file");
    refused(gyre_make_dirs("", &err), GYRE_E_IO, &err, "()");
    unlink("x/file");
    rmdir("x/y/z"), rmdir("x/y"), rmdir("x");
}

static void free_space(void **state)
{
    (void)state;
    gyre_error err = {0};
    uint64_t here, there;
    ok(gyre_disk_free(".", &here, &err), &err);
    ok(gyre_disk_free("not/yet/there.gguf", &there, &err), &err);
    assert_true(here > 0 && there > 0);
    ok(gyre_disk_free("/not/yet/there.gguf", &there, &err), &err);
}

// What could be made is told before it is made; nothing is changed.
static void places_are_checked(void **state)
{
    (void)state;
    gyre_error err = {0};
    ok(gyre_file_write("file", "x", 1, &err), &err);
    ok(gyre_make_dirs("dir", &err), &err);
    static const char *const good[] = {"dir", "dir/", "new", "dir/new", "new/and/deeper", "./dir/./new"},
                             *const bad[] = {"file", "file/new", "file/and/deeper"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) ok(gyre_check_dirs(good[i], &err), &err);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(gyre_check_dirs(bad[i], &err), GYRE_E_IO, &err, bad[i]);
    ok(gyre_check_place("new", &err), &err);
    ok(gyre_check_place("dir/new", &err), &err);
    ok(gyre_check_dirs("/", &err), &err);
    refused(gyre_check_place("new/file", &err), GYRE_E_IO, &err, "new/file");
    refused(gyre_check_place("file/new", &err), GYRE_E_IO, &err, "file/new");
    assert_int_equal(access("new", F_OK), -1);
    unlink("file");
    rmdir("dir");
}

static bool apart(const char *output, const char *input)
{
    gyre_error err = {0};
    const gyre_status st = gyre_file_apart(output, input, "the input", &err);
    if (st != GYRE_OK) refused(st, GYRE_E_IO, &err, output);
    return st == GYRE_OK;
}

static void outputs_are_no_inputs(void **state)
{
    (void)state;
    gyre_error err = {0};
    ok(gyre_make_dirs("in", &err), &err);
    ok(gyre_file_write("in/shard", "x", 1, &err), &err);
    ok(gyre_file_write("other", "x", 1, &err), &err);
    assert_int_equal(symlink("in/shard", "soft") + link("in/shard", "hard") + symlink("in", "folder"), 0);
    static const char *const names[] = {"in/shard", "./in//shard", "in/../in/shard", "soft", "hard", "folder/shard"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_false(apart(names[i], "in/shard"));
        assert_false(apart("in/shard", names[i]));
        assert_false(apart(names[i], "in")); // a file of that folder
        assert_true(apart(names[i], "other") && apart("other", names[i]));
    }
    assert_false(apart("in", "folder")); // the folder itself
    assert_true(apart("in/new", "in") && apart("other", "in") && apart("in", "in/shard"));
    assert_true(apart("in/shard", NULL) && apart(NULL, "in/shard") && apart("new", "in/shard"));
    assert_false(apart("new", "./new") || apart("in/new", "folder/new")); // both still to be made
    assert_true(apart("new", "in/new") && apart("no/new", "no/new2"));
    // Every part of a model in parts is the model.
    for (unsigned i = 1; i <= 2; i++) {
        char part[32];
        snprintf(part, sizeof part, "in-%05u-of-00002.gguf", i);
        ok(gyre_file_write(part, "x", 1, &err), &err);
        assert_false(apart(part, "in-00001-of-00002.gguf"));
        assert_true(apart("other", "in-00001-of-00002.gguf") && apart(part, "in-00001-of-00003.gguf"));
    }
    unlink("in-00001-of-00002.gguf");
    unlink("in-00002-of-00002.gguf");
    static const char *const endings[] = {".a", ""};
    assert_int_equal(gyre_files_apart("other", endings, 2, "other", "the input", &err), GYRE_E_IO);
    assert_int_equal(gyre_files_apart("other", endings, 1, "other", "the input", &err), GYRE_OK);
    for (size_t i = 0; i < 3; i++) unlink(((const char *const[]){"soft", "hard", "folder"})[i]);
    unlink("in/shard");
    unlink("other");
    rmdir("in");
}

int main(void)
{
    char folder[] = "test-file-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_and_replaces),
        cmocka_unit_test(failed_writes_leave_the_old_file),
        cmocka_unit_test(devices_and_pipes_stay),
        cmocka_unit_test(commit_renames_or_removes),
        cmocka_unit_test(maps),
        cmocka_unit_test(changes_behind_a_mapping_are_seen),
        cmocka_unit_test(reads_are_bounded),
        cmocka_unit_test(makes_folders),
        cmocka_unit_test(free_space),
        cmocka_unit_test(outputs_are_no_inputs),
        cmocka_unit_test(places_are_checked),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chdir("..") || rmdir(folder)) return 1;
    return failed;
}
