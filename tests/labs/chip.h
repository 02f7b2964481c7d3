// Labs of compilers: what a driver's compiler makes of every kernel for a chip that is not there, beside a committed
// table.
//
//   chip.c     opens the driver's device, compiles kernels, asks for statistics     listing.c  loops in its listing
//   table.c    the table: written, read, compared
//   radv.c     Debian 12's RADV, which pretends to be a chip by itself
//   lab13.c    the lab of scripts/lab, where a shim pretends to be the kernel's driver: RADV, Turnip, NVK
#pragma once
#include "backends/vulkan/vk.h"

#include <stdbool.h>

enum { LAB_MOST_ROWS = 1024 };

// One kernel on one chip. What a driver does not tell is 0. "loads" to "matrix" are of the loop that loads most: a
// round's loads, those asked for before the first wait, its vector instructions and those that multiply matrices; only
// where lab_read_loop knows the listing.
struct lab_row {
    char chip[16], kernel[80], form[8]; // kernel: its name, then ",CONSTANT=value" for what is not the default
    unsigned registers, spills, scratch, shared, waves, instructions;
    unsigned loads, ahead, vector, matrix;
};

struct lab_table {
    char driver[64];
    struct lab_row rows[LAB_MOST_ROWS];
    int n;
};

struct lab_chip {
    struct vk_instance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    struct vk_functions f;
    PFN_vkGetPipelineExecutableStatisticsKHR statistics;
    PFN_vkGetPipelineExecutableInternalRepresentationsKHR representations;
    bool amd, dot, dot_accelerated, sized; // sized: its subgroups have several sizes
    struct gyre_matrix_shape matrix;       // that gyre takes there; none: kernels that need one are left out
    struct gyre_matrix_shape matrix_f16;   // likewise, of halves
    unsigned shared_bytes;
    char name[256], driver[64];
};

// The first device of the driver that the environment names. False, with a reason, where there is none to compile
// for.
bool lab_open(struct lab_chip *chip, const char **why);
void lab_close(struct lab_chip *chip);

// Compiles every kernel that the chip has all for with its default constants, and the heavy ones also as
// runtime/graph/tune.c sets them on hardware, in the form that gyre takes on that chip (int8 dot products in hardware
// or not). Appends their rows under the name of the chip; returns the number of complaints: kernels that do not
// compile, loops that do not keep what `tuned` asks of them.
int lab_compile_all(const struct lab_chip *chip, const char *name, struct lab_table *out);

// Finds the loop that loads most in a listing of ACO (RADV) or IR3 (Turnip), or, of loops around each other with as
// many products of matrices, the innermost, and fills the last four of `row`.
void lab_read_loop(const char *listing, struct lab_row *row);

// False, with a message, where the file cannot be written or read. `how` says which command writes it.
bool lab_write_table(const char *path, const char *how, const struct lab_table *table);
bool lab_read_table(const char *path, struct lab_table *table);
// Complaints about `now`: spills, scratch memory, no statistics; and, where both are of one driver, rows that the
// table lacks or that have grown by more than a tenth.
int lab_compare(const struct lab_table *now, const struct lab_table *was, const char *how);
