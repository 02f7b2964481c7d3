// The compiled-in backends, and devices by name. The only file that names all backends.
#include "backends/backend.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVICES = 16 }; // of one backend

// In order of preference among equals. `null` can be opened, but is not listed.
static const struct gyre_backend *const backends[] = {
#ifdef GYRE_HAVE_VULKAN
    &gyre_backend_vulkan,
#endif
#ifdef GYRE_HAVE_OPENCL
    &gyre_backend_opencl,
#endif
    &gyre_backend_cpu,
    &gyre_backend_null,
};
enum { N_LISTED = GYRE_COUNT(backends) - 1 };

static void set_id(struct gyre_device_info *info, const struct gyre_backend *backend, int index)
{
    if (backend == &gyre_backend_cpu || backend == &gyre_backend_null)
        snprintf(info->id, sizeof info->id, "%s", backend->name);
    else snprintf(info->id, sizeof info->id, "%s:%d", backend->name, index);
}

int gyre_devices_list(struct gyre_device_info *out, int cap, struct gyre_absent *absent, int cap_absent, int *n_absent)
{
    static const char no_reason[] = "it has no device";
    struct gyre_device_info found[N_LISTED][MAX_DEVICES] = {0};
    int n_found[N_LISTED], n = 0, missing = 0;
    for (int b = 0; b < (int)N_LISTED; b++) {
        struct gyre_absent row = {.backend = backends[b]->name};
        n_found[b] = GYRE_MIN(backends[b]->probe(found[b], MAX_DEVICES, row.why), (int)MAX_DEVICES);
        for (int i = 0; i < n_found[b]; i++) set_id(&found[b][i], backends[b], i);
        if (n_found[b]) continue;
        if (!row.why[0]) memcpy(row.why, no_reason, sizeof no_reason);
        if (absent && missing < cap_absent) absent[missing] = row;
        missing++;
    }
    for (int software = 0; software < 2; software++)
        for (int b = 0; b < (int)N_LISTED; b++)
            for (int i = 0; i < n_found[b]; i++) {
                if (found[b][i].software != software) continue;
                if (n < cap) out[n] = found[b][i];
                n++;
            }
    if (n_absent) *n_absent = missing;
    return n;
}

// `why` the device's backend has none at all, or "".
static gyre_status fail_no_device(const char *id, const char *why, gyre_error *err)
{
    struct gyre_device_info list[MAX_DEVICES];
    char names[MAX_DEVICES * 26 + 1] = "";
    const int n = GYRE_MIN(gyre_devices_list(list, MAX_DEVICES, NULL, 0, NULL), (int)MAX_DEVICES);
    for (int i = 0; i < n; i++) {
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%.24s", i ? ", " : "", list[i].id);
    }
    return gyre_fail(err, GYRE_E_NO_DEVICE, "no such device (%.60s): %s%sthere are %s; choose one of them", id, why,
                     *why ? "; " : "", names);
}

// "vulkan:1" -> backend and index; false if no backend is called that or the index is not a number.
static bool parse_id(const char *id, const struct gyre_backend **backend, int *index)
{
    const size_t n = strcspn(id, ":");
    *index = 0;
    if (id[n] == ':') {
        const char *digits = id + n + 1;
        const size_t count = strspn(digits, "0123456789");
        if (!count || count > 4 || digits[count]) return false;
        *index = atoi(digits);
    }
    for (size_t b = 0; b < GYRE_COUNT(backends); b++) {
        *backend = backends[b];
        if (strlen((*backend)->name) == n && !memcmp((*backend)->name, id, n)) return true;
    }
    return false;
}

gyre_status gyre_device_open(const char *id, const struct gyre_device_options *options, gyre_device **out,
                             gyre_error *err)
{
    static const struct gyre_device_options no_options;
    const struct gyre_backend *backend;
    struct gyre_device_info first, probed[MAX_DEVICES];
    char why[160] = "";
    int index, n = 0;
    *out = NULL;
    if (!options) options = &no_options;
    if (!id || !strcmp(id, "auto")) {
        gyre_devices_list(&first, 1, NULL, 0, NULL); // never empty: the cpu is always there
        id = first.id;
    }
    if (!parse_id(id, &backend, &index) || index >= (n = backend->probe(probed, MAX_DEVICES, why)))
        return fail_no_device(id, n ? "" : why, err);

    gyre_device *device;
    GYRE_TRY(backend->open(index, options, &device, err));
    device->backend = backend;
    device->options = *options;
    set_id(&device->info, backend, index);
    if (options->as_hardware) device->info.lanes = GYRE_LANES_HARDWARE;
    if (options->as_hardware && device->info.int_dot == GYRE_INT_DOT_EMULATED)
        device->info.int_dot = GYRE_INT_DOT_ACCELERATED;
    if (options->limit_binding) device->info.max_binding = GYRE_MIN(device->info.max_binding, options->limit_binding);
    if (options->limit_buffer) device->info.max_buffer = GYRE_MIN(device->info.max_buffer, options->limit_buffer);
    *out = device;
    return GYRE_OK;
}
