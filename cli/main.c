// The program: picks a command. Exit status: 0 done, 1 failed (one line on stderr), 2 wrong usage, 3 no usable device,
// 130 interrupted, 141 the reader of standard output went away.
#include "cli/cli.h"
#include "cli/threads.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct cli_command *const commands[] = {
#define COMMAND(name) &cli_##name,
#include "cli/commands.def"
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *to)
{
    fputs("usage: gyre COMMAND [ARGUMENT]... [OPTION]...\n\nRuns and makes language models with rotated int4 weights "
          "on Vulkan and OpenCL devices.\n\n",
          to);
    for (int i = 0; i < COMMANDS; i++) fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->about);
    fputs("\ngyre COMMAND --help tells a command's options.\n", to);
}

static int command(int argc, char **argv)
{
    if (argc < 2) {
        char names[256] = "";
        for (int i = 0; i < COMMANDS; i++) {
            const size_t n = strlen(names);
            snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", commands[i]->name);
        }
        cli_usage("no command: one of %s is needed; see gyre --help", names);
        usage(stderr);
        return 2;
    }
    const bool help = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (help && argc == 2)) {
        usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("gyre " GYRE_VERSION);
        return 0;
    }
    if (help && argc > 3) return cli_usage("too many arguments (%s): gyre help takes the name of a command", argv[3]);
    const char *name = argv[help ? 2 : 1];
    char *of_help[] = {"--help", NULL};
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i]->name) == 0)
            return help ? commands[i]->run(1, of_help) : commands[i]->run(argc - 2, argv + 2);
    }
    return cli_usage("unknown command (%s): there is none of that name; see gyre --help", name);
}

int main(int argc, char **argv)
{
    cli_threads_begin(argv);
    cli_begin();
    return cli_end(command(argc, argv));
}
