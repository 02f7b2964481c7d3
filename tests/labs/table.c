// See chip.h. The committed table.
#include "tests/labs/chip.h"

#include <stdio.h>
#include <string.h>

bool lab_write_table(const char *path, const char *how, const struct lab_table *t)
{
    FILE *f = fopen(path, "w");
    if (!f) return perror(path), false;
    fprintf(
        f,
        "# What a driver's compiler makes of every kernel; `%s` writes this file.\ndriver %s\n"
        "# chip kernel form registers spills scratch shared waves instructions, of the loop that loads most: loads, "
        "before the first wait, vector instructions, of them of matrices where there are\n",
        how, t->driver);
    for (int i = 0; i < t->n; i++) {
        const struct lab_row *r = &t->rows[i];
        fprintf(f, "%s %s %s %u %u %u %u %u %u %u %u %u", r->chip, r->kernel, r->form, r->registers, r->spills,
                r->scratch, r->shared, r->waves, r->instructions, r->loads, r->ahead, r->vector);
        if (r->matrix) fprintf(f, " %u", r->matrix);
        fputc('\n', f);
    }
    return fclose(f) == 0;
}

bool lab_read_table(const char *path, struct lab_table *t)
{
    char line[256];
    FILE *f = fopen(path, "r");
    if (!f) return perror(path), false;
    *t = (struct lab_table){0};
    while (fgets(line, sizeof line, f) && t->n < LAB_MOST_ROWS) {
        struct lab_row *r = &t->rows[t->n];
        if (sscanf(line, "driver %63[^\n]", t->driver) == 1 || line[0] == '#') continue;
        if (sscanf(line, "%15s %79s %7s %u %u %u %u %u %u %u %u %u %u", r->chip, r->kernel, r->form, &r->registers,
                   &r->spills, &r->scratch, &r->shared, &r->waves, &r->instructions, &r->loads, &r->ahead, &r->vector,
                   &r->matrix) >= 12)
            t->n++;
    }
    fclose(f);
    return true;
}

static const struct lab_row *find_row(const struct lab_table *t, const struct lab_row *like)
{
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->rows[i].chip, like->chip) && !strcmp(t->rows[i].kernel, like->kernel)) return &t->rows[i];
    return NULL;
}

// Whether a chip may spill there: Mesa 22 keeps large workgroups of gfx1100 to 132 registers, later ones give 256
// and spill nothing; chips other than AMD's have fewer, so what their tables say holds.
static bool may_spill(const struct lab_row *now, const struct lab_row *was)
{
    if (!strcmp(now->chip, "gfx1100")) return now->registers == 132;
    const bool amd = !strncmp(now->chip, "vega", 4) || !strncmp(now->chip, "navi", 4) || !strncmp(now->chip, "gfx", 3);
    return !amd && was && now->spills <= was->spills;
}

static bool judge(const struct lab_row *now, const struct lab_row *was, bool counts, const char *how)
{
    bool ok = now->registers && now->instructions;
    if (!ok) fprintf(stderr, "%s on %s: the driver reported no statistics\n", now->kernel, now->chip);
    if ((now->spills || now->scratch) && !may_spill(now, was)) {
        fprintf(stderr, "%s on %s spills %u registers and uses %u bytes of scratch memory\n", now->kernel, now->chip,
                now->spills, now->scratch);
        ok = false;
    }
    if (!counts || !was) return ok && !counts;
    // An edit may cost a little; a tenth more (and 16 instructions, for the smallest) wants to be looked at.
    if (now->instructions > was->instructions + was->instructions / 10 + 16) {
        fprintf(stderr,
                "%s on %s grew from %u to %u instructions; make it smaller, or run `%s` and say why in the commit\n",
                now->kernel, now->chip, was->instructions, now->instructions, how);
        ok = false;
    }
    return ok;
}

int lab_compare(const struct lab_table *now, const struct lab_table *was, const char *how)
{
    const bool counts = !strcmp(now->driver, was->driver);
    int failed = 0, unknown = 0;
    if (!counts)
        fprintf(stderr, "the table is of %s, this driver is %s: counts are not compared\n", was->driver, now->driver);
    for (int i = 0; i < now->n; i++) {
        const struct lab_row *before = find_row(was, &now->rows[i]);
        unknown += !before;
        failed += !judge(&now->rows[i], before, counts, how);
    }
    if (counts && unknown)
        fprintf(stderr, "%d rows are not in the table; run `%s` and commit what it writes\n", unknown, how);
    return failed;
}
