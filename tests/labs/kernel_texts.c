// Writes the OpenCL C of every kernel to FOLDER/NAME.cl, with the defaults of its constants as #defines in front,
// and lists the names on stdout: "NAME", "NAME dot" when the kernel uses int8 dot products, or "NAME only" when it
// is taken only where they are hardware. For compilers without a device.
#include "backends/kernel_source.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool write_kernel(const char *folder, const struct gyre_kernel_source *k)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.cl", folder, k->name);
    FILE *f = fopen(path, "w");
    if (!f) return false;
    for (uint32_t i = 0; i < k->n_spec; i++) fprintf(f, "#define %s %d\n", k->spec_names[i], (int)k->spec_defaults[i]);
    fputs(k->opencl, f);
    return !fclose(f);
}

// The dialect defines DOT4_SS three times over; a kernel that uses it says it once more, after that.
static bool uses_dot(const char *text)
{
    const char *last = NULL;
    for (const char *p = text; (p = strstr(p, "DOT4_SS(")); p++) last = p;
    return last && (last - text < 8 || strncmp(last - 8, "#define ", 8) != 0);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: kernel_texts FOLDER\n");
        return 2;
    }
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++) {
        const struct gyre_kernel_source *const k = gyre_kernel_sources[i];
        if (!k->opencl || k->form & GYRE_FORM_LINE) continue; // none, or one for CPUs
        if (!write_kernel(argv[1], k)) {
            fprintf(stderr, "cannot write %s.cl\n", k->name);
            return 1;
        }
        printf("%s%s\n", k->name, k->needs & GYRE_NEED_DOT ? " only" : uses_dot(k->opencl) ? " dot" : "");
    }
    return 0;
}
