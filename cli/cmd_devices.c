// gyre devices: what there is to run on, and why what is missing is missing.
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

enum { MOST = 32 };

static json_t *sizes_json(const uint32_t sizes[4])
{
    json_t *list = json_array();
    for (int i = 0; i < 4 && sizes[i]; i++) json_array_append_new(list, json_integer(sizes[i]));
    return list;
}

// Calls for each line that is known about a device's kernels.
static void each_fault(const gyre_device_facts *device, void (*take)(void *user, const char *line), void *user)
{
    char *const text = gyre_device_faults(device, NULL), *rest = NULL;
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest))
        take(user, line);
    gyre_free(text);
}

static void to_list(void *list, const char *line) { json_array_append_new(list, cli_json_text(line)); }

static void to_screen(void *user, const char *line)
{
    (void)user;
    printf("           %s\n", line);
}

static int print_json(const gyre_device_facts *d, int n, const gyre_device_missing *missing, int n_missing)
{
    json_t *rows = json_array(), *absent = json_array();
    for (int i = 0; i < n; i++) {
        json_t *shapes = json_array(), *faults = json_array();
        each_fault(&d[i], to_list, faults);
        for (int k = 0; k < 4 && d[i].cooperative_matrix[k][0]; k++)
            json_array_append_new(shapes, json_string(d[i].cooperative_matrix[k]));
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:b, s:I, s:o, s:s, s:b, s:o, s:o}", "id", d[i].id,
                                              "name", d[i].name, "driver", d[i].driver, "software", d[i].software,
                                              "memory_bytes", (json_int_t)d[i].memory_bytes, "subgroup_sizes",
                                              sizes_json(d[i].subgroup_sizes), "int8_dot", d[i].int8_dot, "f16",
                                              d[i].f16, "cooperative_matrix", shapes, "faults", faults));
    }
    for (int i = 0; i < n_missing; i++)
        json_array_append_new(absent, json_pack("{s:s, s:s}", "backend", missing[i].backend, "why", missing[i].why));
    return cli_print_json(json_pack("{s:o, s:o}", "devices", rows, "absent", absent));
}

static int run(int argc, char **argv)
{
    bool json = false;
    const struct cli_option options[] = {{"--json", NULL, "machine-readable output", CLI_FLAG, &json, 0, 0, NULL}};
    const int stop = cli_parse(&cli_devices, options, 1, argc, argv, NULL);
    if (stop >= 0) return stop;
    gyre_device_facts d[MOST];
    gyre_device_missing missing[MOST];
    int n_missing = 0, n = gyre_list_devices(d, MOST, missing, MOST, &n_missing);
    if (n > MOST) n = MOST;
    if (n_missing > MOST) n_missing = MOST;
    if (json) return print_json(d, n, missing, n_missing);
    for (int i = 0; i < n; i++) {
        printf("%-10s %s%s\n           %s, %.1f GiB, int8 dot %s%s\n", d[i].id, d[i].name,
               d[i].software ? " (software)" : "", d[i].driver, (double)d[i].memory_bytes / 1073741824.0, d[i].int8_dot,
               d[i].f16 ? ", f16" : "");
        for (int k = 0; k < 4 && d[i].cooperative_matrix[k][0]; k++)
            printf("           cooperative matrix %s\n", d[i].cooperative_matrix[k]);
        each_fault(&d[i], to_screen, NULL);
    }
    for (int i = 0; i < n_missing; i++) printf("%-10s none: %s\n", missing[i].backend, missing[i].why);
    return 0;
}

const struct cli_command cli_devices = {"devices", "", "List the devices gyre can run on", run, 0, false};
