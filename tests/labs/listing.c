// See chip.h. Listings have blocks, "BB7:" (ACO) or "l148:" (IR3), and branches back to them.
#include "tests/labs/chip.h"

#include <stdio.h>
#include <string.h>

enum { MOST_BLOCKS = 512 };

struct block {
    int number;
    unsigned loads, ahead, vector, matrix; // ahead: loads before the first wait for one
    bool waited;
};

static bool starts(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

static int label(const char *line)
{
    int number;
    return sscanf(line, "BB%d:", &number) == 1 || (line[0] == 'l' && sscanf(line, "l%d:", &number) == 1) ? number : -1;
}

// The block that an instruction branches to; -1: it does not.
static int target(const char *name, const char *rest)
{
    const char *place = strstr(rest, "BB"), *ir3 = strstr(rest, "#l");
    int number;
    if ((starts(name, "s_branch") || starts(name, "s_cbranch")) && place && sscanf(place, "BB%d", &number) == 1)
        return number;
    return (starts(name, "jump") || starts(name, "br")) && ir3 && sscanf(ir3, "#l%d", &number) == 1 ? number : -1;
}

// An instruction of ACO.
static void count_aco(const char *name, const char *rest, struct block *b)
{
    if (starts(name, "buffer_load") || starts(name, "global_load")) b->loads++, b->ahead += !b->waited;
    else if (starts(name, "s_wait_loadcnt") || (!strcmp(name, "s_waitcnt") && strstr(rest, "vmcnt"))) b->waited = true;
    else if (starts(name, "v_")) b->vector++, b->matrix += starts(name, "v_wmma");
}

// Of IR3, where (sy) before an instruction waits for loads and (rptN) runs it N times more.
static void count_ir3(const char *name, bool waits, unsigned times, struct block *b)
{
    static const char *const others[] = {"nop", "jump", "br", "ld", "st", "bar", "fence", "getone", "end"};
    b->waited = b->waited || waits;
    if (starts(name, "isam") || starts(name, "ldib") || starts(name, "ldg")) {
        b->loads++, b->ahead += !b->waited;
        return;
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (starts(name, others[i])) return;
    b->vector += times;
}

static void keep_most(const struct block *blocks, int first, int n, struct lab_row *row)
{
    struct lab_row loop = {0};
    bool waited = false;
    for (int i = first; first >= 0 && i < n; i++) {
        loop.loads += blocks[i].loads, loop.vector += blocks[i].vector, loop.matrix += blocks[i].matrix;
        if (!waited) loop.ahead += blocks[i].ahead;
        waited = waited || blocks[i].waited;
    }
    if (loop.loads <= row->loads || (row->matrix && loop.matrix == row->matrix)) return; // it is around what multiplies
    row->loads = loop.loads, row->vector = loop.vector, row->ahead = loop.ahead, row->matrix = loop.matrix;
}

void lab_read_loop(const char *listing, struct lab_row *row)
{
    static struct block blocks[MOST_BLOCKS];
    int n = 0;
    for (const char *line = listing; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char text[160] = "", name[48] = "", rest[96] = "";
        bool waits = false;
        unsigned times = 1, more;
        sscanf(line, "%159[^\n]", text);
        if (label(text) >= 0) {
            if (n < MOST_BLOCKS) blocks[n++] = (struct block){.number = label(text)};
            continue;
        }
        const char *at = text + strspn(text, "\t ");
        while (*at == '(' && strchr(at, ')')) { // IR3's flags
            waits = waits || starts(at, "(sy)");
            if (sscanf(at, "(rpt%u)", &more) == 1) times = 1 + more;
            at = strchr(at, ')') + 1;
            at += strspn(at, " ");
        }
        if (!n || sscanf(at, "%47[a-z0-9_.] %95[^\n]", name, rest) < 1) continue;
        const bool aco = starts(name, "s_") || starts(name, "v_") || starts(name, "buffer_") ||
                         starts(name, "global_") || starts(name, "ds_");
        if (aco) count_aco(name, rest, &blocks[n - 1]);
        else count_ir3(name, waits, times, &blocks[n - 1]);
        const int to = target(name, rest);
        int first = n - 1;
        while (first >= 0 && blocks[first].number != to) first--;
        if (to >= 0) keep_most(blocks, first, n, row);
    }
}
