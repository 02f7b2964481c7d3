// How the program's threads wait. They yield: a core is never kept while there is nothing to do, so that gyre runs
// beside other programs at the speed that is left. What the user says in the environment stands (OMP_WAIT_POLICY or
// GOMP_SPINCOUNT, OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, OPENBLAS_THREAD_TIMEOUT). The library leaves all this to its
// program.
#pragma once

// First of all in main: may start the program anew, once.
void cli_threads_begin(char **argv);

// Before a command that multiplies large matrices on the host (quantizing): as many threads for them as there are for
// loops.
void cli_threads_for_products(void);
