// See comma.h.
#include "tests/common/comma.h"
#include "tests/common/files.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool comma_set(void)
{
    char command[2048], folder[512];
    snprintf(folder, sizeof folder, "%s", files_path("comma"));
    files_write(files_path("comma.txt"), "comment_char %\nescape_char /\nLC_NUMERIC\ndecimal_point \",\"\n"
                                         "thousands_sep \".\"\ngrouping 3;3\nEND LC_NUMERIC\nLC_COLLATE\n"
                                         "order_start forward\n<U005F>\n<U002E>\norder_end\nEND LC_COLLATE\n");
    snprintf(command, sizeof command, "localedef -c -i %s -f UTF-8 ./%s >/dev/null 2>&1", files_path("comma.txt"),
             folder);
    (void)!system(command); // it warns of what is missing with a status
    *strrchr(folder, '/') = 0;
    setenv("LOCPATH", folder, 1);
    return setlocale(LC_ALL, "comma") && strcmp(localeconv()->decimal_point, ",") == 0;
}

void comma_reset(void) { setlocale(LC_ALL, "C"); }
