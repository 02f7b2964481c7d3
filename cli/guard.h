// Model files are read through mappings. One that another program shortens meanwhile, or whose disk fails, has pages
// that cannot be read, and touching them is the signal SIGBUS, which would end the program without a word.
#pragma once

// From now on such a fault ends the program with status 1 and a line that names the file. For programs only: a library
// does not take signals from its host. Other causes of SIGBUS stay what they are.
void cli_guard_mappings(void);
