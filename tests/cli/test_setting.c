// The grammar of settings: what is one, what is none, and what each means.
#include "cli/setting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_settings(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        struct cli_setting want;
        const char *name, *weights;
    } cases[] = {
        {"W4A8KV8", {4, 32, 8, 8, 8}, "W4g32A8KV8", "W4g32"},
        {"W4A4KV4", {4, 32, 4, 4, 4}, "W4g32A4KV4", "W4g32"},
        {"W4g64A8KV4", {4, 64, 8, 4, 4}, "W4g64A8KV4", "W4g64"},
        {"W4g0A8KV8", {4, 0, 8, 8, 8}, "W4g0A8KV8", "W4g0"},
        {"W4A16", {4, 32, 16, 16, 16}, "W4g32A16KV16", "W4g32"},
        {"W8g128A8", {8, 128, 8, 16, 16}, "W8g128A8KV16", "W8g128"},
        {"W16A8KV8", {16, 0, 8, 8, 8}, "W16A8KV8", "W16"},
        {"W16A16KV4", {16, 0, 16, 4, 4}, "W16A16KV4", "W16"},
        {"W4A8K8V4", {4, 32, 8, 8, 4}, "W4g32A8K8V4", "W4g32"},
        {"W4A4K16V8", {4, 32, 4, 16, 8}, "W4g32A4K16V8", "W4g32"},
        {"W4A8K4V4", {4, 32, 8, 4, 4}, "W4g32A8KV4", "W4g32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cli_setting s, again;
        char why[128] = "", name[CLI_SETTING_NAME];
        if (!cli_setting_parse(cases[i].text, strlen(cases[i].text), 32, &s, why, sizeof why))
            fail_msg("%s: %s", cases[i].text, why);
        assert_memory_equal(&s, &cases[i].want, sizeof s);
        cli_setting_weights(&s, name);
        assert_string_equal(name, cases[i].weights);
        cli_setting_name(&s, name);
        assert_string_equal(name, cases[i].name);
        assert_true(cli_setting_parse(name, strlen(name), 128, &again, why, sizeof why)); // the name says all
        assert_memory_equal(&s, &again, sizeof s);
    }
}

static void test_no_settings(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "W4"},
        {"4A8KV8", "W4"},
        {"W5A8KV8", "W4"},
        {"W04A8", "W4"},
        {"W4", "A16"},
        {"W4KV8", "A16"},
        {"W4A7KV8", "A16"},
        {"W4A8KV7", "KV16"},
        {"W4A8KV", "KV16"},
        {"W4A8K8V5", "K8V4"},
        {"W4A8K8", "K8V4"},
        {"W4A8K3V8", "K8V4"},
        {"W4A8V4", "behind"},
        {"W4g48A8KV8", "g32"},
        {"W4gA8", "g32"},
        {"W16g32A8", "groups"},
        {"W4A8KV8x", "behind"},
        {"w4a8kv8", "W4"},
        {"W4A8KV8 ", "behind"},
        {"W4A88", "A16"},
        {"W4A1000", "A16"},
        {"W4A8KV4444444444", "KV16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cli_setting s;
        char why[128] = "";
        if (cli_setting_parse(cases[i].text, strlen(cases[i].text), 32, &s, why, sizeof why))
            fail_msg("'%s' was taken", cases[i].text);
        if (!strstr(why, cases[i].word)) fail_msg("'%s': %s", cases[i].text, why);
    }
    struct cli_setting s;
    char why[128];
    assert_true(cli_setting_parse("W4A8KV8,W4A4KV4", 7, 0, &s, why, sizeof why)); // only so many bytes are read
    assert_int_equal(s.wgroup, 0);
    assert_false(cli_setting_parse("W4A8KV8", 6, 0, &s, why, sizeof why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_settings), cmocka_unit_test(test_no_settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
