// See threads.h.
//
// What makes a program slow beside others is waiting that keeps a core: OpenMP's and OpenBLAS's threads turn in a
// circle until the next piece of work comes, and where another program has their core, the piece that all wait for
// comes when the scheduler thinks so. Both libraries read how they wait from the environment while they are loaded,
// before any of our code runs, and neither can be told later. So the program starts itself a second time with the
// variables set. OpenBLAS also makes its threads while it is loaded, for programs that multiply nothing too, and where
// the address space is limited (ulimit -v) they ask for memory for ever and the program's end waits for them: they are
// left out until a command wants them.
#include "cli/threads.h"

#include <cblas.h>
#include <limits.h>
#include <omp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char blas_threads[] = "OPENBLAS_NUM_THREADS", one[] = "01"; // 1, as nobody else writes it

// Sets a variable unless the user has, or has `other`, which says the same. True where the environment is another now.
static bool set(const char *name, const char *value, const char *other)
{
    if (getenv(name) || (other && getenv(other))) return false;
    return setenv(name, value, 1) == 0;
}

void cli_threads_begin(char **argv)
{
    char self[PATH_MAX];
    bool changed = set("OMP_WAIT_POLICY", "passive", "GOMP_SPINCOUNT");
    changed = set("OPENBLAS_THREAD_TIMEOUT", "10", NULL) || changed; // 2^10 cycles, then they sleep
    changed = set(blas_threads, one, "GOTO_NUM_THREADS") || changed;
    if (!changed) return; // the second time
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return; // works all the same, with more waiting
    self[n] = 0;
    execv(self, argv);
}

void cli_threads_for_products(void)
{
    struct rlimit space;
    const char *ours = getenv(blas_threads);
    if (!ours || strcmp(ours, one) != 0) return; // the user's
    if (getrlimit(RLIMIT_AS, &space) || space.rlim_cur != RLIM_INFINITY) return;
    openblas_set_num_threads(omp_get_max_threads());
}
