// Writing OUT.part and ending a run. See output.h; the journal's content is journal.c's.
#include "quantizer/file/output.h"
#include "quantizer/file/rotations_file.h"
#include "quantizer/recipe/recipe.h"
#include "runtime/util/base.h"
#include "runtime/util/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static gyre_status fail_write(const char *path, gyre_error *err)
{
    const char *advice = errno == ENOSPC || errno == EDQUOT ? "; free some space and continue with --resume"
                         : errno == EFBIG  ? "; the size of files is limited here (ulimit -f, or the file system)"
                         : errno == ENOENT ? "; create the folder first"
                                           : "";
    return gyre_fail(err, GYRE_E_IO, "cannot write (%s): %s%s", path, strerror(errno), advice);
}

// The report is written when all is done: its folder must not take a name that the output needs, nor its files one that
// the output has.
static gyre_status check_report(const gyre_quantize_params *p, const char *const *beside, size_t n_beside,
                                const char *const *files, size_t n_files, gyre_error *err)
{
    static const char what[] = "a file of the output";
    char path[4096], *folder = gyre_beside(p->report_dir, "");
    gyre_status st = folder ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot write a report: out of memory");
    for (size_t i = 0; i < n_beside && st == GYRE_OK; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s%s", p->output, beside[i]) >= sizeof path) continue;
        st = gyre_file_apart(folder, path, what, err);
        if (st == GYRE_OK) st = gyre_files_apart(p->report_dir, files, n_files, path, what, err);
    }
    free(folder);
    return st == GYRE_OK ? gyre_check_dirs(p->report_dir, err) : st;
}

// A run would destroy what it reads, or its own record, if any of the files that it writes were one of its inputs.
static gyre_status check_apart(const gyre_quantize_params *p, gyre_error *err)
{
    static const char *const beside[] = {
        "", ".part", ".journal", ".journal/state.json", ".manifest.json", ".rotations.safetensors"};
    static const char *const report[] = {"/report.html", "/report.md"};
    const struct {
        const char *path, *const *ending;
        size_t n;
    } written[] = {{p->output, beside, GYRE_COUNT(beside)}, {p->report_dir, report, GYRE_COUNT(report)}};
    const char *recipe = p->recipe && gyre_recipe_is_file(p->recipe) ? p->recipe : NULL;
    for (size_t i = 0; i < GYRE_COUNT(written) && written[i].path; i++) {
        GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, p->source, "the base model", err));
        GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, recipe, "the recipe", err));
        GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, p->from, "the finished file", err));
        for (uint32_t k = 0; k < p->n_calib; k++)
            GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, p->calib[k],
                                      "a calibration text", err));
    }
    return p->report_dir ? check_report(p, beside, GYRE_COUNT(beside), report, GYRE_COUNT(report), err) : GYRE_OK;
}

// What a folder may have in it without being someone else's: the files that a checkpoint consists of, and what a kill
// left of one.
static bool is_of_checkpoint(const char *name)
{
    static const char *const kinds[] = {
        ".safetensors", ".safetensors.index.json", ".json", ".jinja", "tokenizer.model", "merges.txt", "vocab.txt"};
    bool is = strstr(name, ".tmp-") != NULL;
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++) is |= gyre_ends(name, kinds[i]);
    return is;
}

// Anything else in a folder that is to be replaced is its owner's, and would stand in the way of the next run.
static gyre_status check_contents(const char *path, gyre_error *err)
{
    DIR *dir = opendir(path);
    gyre_status st = GYRE_OK;
    if (!dir) return fail_write(path, err);
    for (struct dirent *entry; st == GYRE_OK && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && !is_of_checkpoint(entry->d_name))
            st = gyre_fail(err, GYRE_E_IO,
                           "cannot write (%s): %.100s in it is nothing that gyre wrote, and would go with the folder; "
                           "move it away or choose another name",
                           path, entry->d_name);
    closedir(dir);
    return st;
}

// A folder that gyre wrote may be replaced: it has a manifest beside it.
static gyre_status check_folder(const gyre_quantize_params *params, bool folder, const char *manifest, gyre_error *err)
{
    struct stat info;
    const char *path = params->output;
    if (stat(path, &info)) return GYRE_OK;
    if (!folder && S_ISDIR(info.st_mode))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot write (%s): it is a folder; name a .gguf file, or say --format hf", path);
    if (!S_ISDIR(info.st_mode)) GYRE_TRY(gyre_check_file(path, err));
    if (folder && params->force && !(S_ISDIR(info.st_mode) && gyre_file_exists(manifest)))
        return gyre_fail(err, GYRE_E_IO,
                         "cannot write (%s): it is no folder that gyre wrote; remove it or choose another name", path);
    if (folder && params->force) GYRE_TRY(check_contents(path, err));
    char *old = folder ? gyre_joined(path, ".old", "") : NULL; // where the old folder steps aside at the end
    const bool ours = (params->resume || params->force) && gyre_journal_put_aside(path),
               left = old && gyre_file_exists(old) && !ours;
    free(old);
    if (left)
        return gyre_fail(err, GYRE_E_IO, "cannot write (%s): %s.old is left from an earlier run; move it away first",
                         path, path);
    return GYRE_OK;
}

bool gyre_output_is_left(const gyre_quantize_params *params)
{
    char *journal = gyre_joined(params->output, ".journal", ""), *part = gyre_joined(params->output, ".part", "");
    const bool left = params->resume && journal && part && gyre_file_exists(params->output) &&
                      gyre_file_exists(journal) && !gyre_file_exists(part);
    free(journal);
    free(part);
    return left;
}

gyre_status gyre_output_exists(const char *path, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_IO, "cannot write (%s): it exists; replace it with --force or choose another name",
                     path);
}

gyre_status gyre_output_check(const gyre_quantize_params *params, bool folder, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct stat info;
    const char *path = params->output;
    if (!path || !*path) return gyre_fail(err, GYRE_E_INVALID, "no output file: give its name");
    GYRE_TRY(check_apart(params, err));
    if (params->report_dir) GYRE_TRY(gyre_check_dirs(params->report_dir, err)); // it is written after the work
    char *journal = gyre_joined(path, ".journal", ""), *place = gyre_joined(path, "", ""),
         *manifest = gyre_joined(path, ".manifest.json", ""), *rotations = gyre_matrices_path(path);
    if (!journal || !place || !manifest || !rotations)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", path));
    char *slash = strrchr(place, '/');
    if (slash) slash[1] = 0;
    if (slash && stat(place, &info)) GYRE_GO(fail_write(path, err));
    if (slash && strlen(place) == strlen(path))
        GYRE_GO(
            gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot write (%s): it names a folder; name a .gguf file in it", path));
    GYRE_GO(check_folder(params, folder, manifest, err));
    if (gyre_file_exists(manifest)) GYRE_GO(gyre_check_file(manifest, err)); // no folder, which is told behind the work
    if (gyre_file_exists(rotations)) GYRE_GO(gyre_check_file(rotations, err));
    if (gyre_file_exists(path) && !params->force && !gyre_output_is_left(params))
        GYRE_GO(gyre_output_exists(path, err));
    if (gyre_file_exists(journal) && !params->force && !params->resume)
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot write (%s): %s is left from an interrupted run; continue it with --resume or start "
                          "over with --force",
                          path, journal));
done:
    free(journal);
    free(place);
    free(manifest);
    free(rotations);
    return st;
}

// ---- folders ----------------------------------------------------------------------------------------------

static void empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (is_of_checkpoint(entry->d_name)) unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

static void remove_folder(const char *path)
{
    empty_folder(path);
    rmdir(path);
}

// ---- opening ----------------------------------------------------------------------------------------------

static gyre_status open_file(const char *path, int flags, int *fd, gyre_error *err)
{
    *fd = open(path, flags | O_CLOEXEC, 0666);
    return *fd < 0 ? fail_write(path, err) : GYRE_OK;
}

// OUT.part, locked, with all its files open.
static gyre_status open_part(struct gyre_output *out, bool resume, gyre_error *err)
{
    const struct gyre_writer *w = out->writer;
    const bool folder = w->format->folder;
    if (folder && mkdir(out->part, 0777) && errno != EEXIST) return fail_write(out->part, err);
    GYRE_TRY(open_file(out->part, folder ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT, &out->lock, err));
    if (flock(out->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        close(out->lock);
        out->lock = -1; // what is there is the other run's
        return gyre_fail(err, GYRE_E_IO,
                         "cannot write (%s): another run is writing it; wait for it or choose another name", out->part);
    }
    if (folder && !resume) empty_folder(out->part); // another run may have had other files
    out->fd = malloc(w->n_files * sizeof *out->fd);
    if (!out->fd) return gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", out->path);
    for (uint32_t i = 0; i < w->n_files; i++) out->fd[i] = -1;
    for (uint32_t i = 0; i < w->n_files; i++) {
        char *path = gyre_writer_path(w, out->part, i);
        const gyre_status st = path ? open_file(path, O_RDWR | O_CREAT, &out->fd[i], err)
                                    : gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", out->path);
        free(path);
        GYRE_TRY(st);
    }
    return GYRE_OK;
}

static gyre_status check_space(const struct gyre_output *out, gyre_error *err)
{
    struct stat info;
    const uint64_t whole = gyre_writer_bytes(out->writer);
    uint64_t free_bytes, needed = whole + whole / 64 + (1 << 20); // the journal's share is small
    GYRE_TRY(gyre_disk_free(out->path, &free_bytes, err));
    for (uint32_t i = 0; i < out->writer->n_files; i++)
        if (!fstat(out->fd[i], &info)) needed -= GYRE_MIN(needed, (uint64_t)info.st_blocks * 512);
    if (free_bytes >= needed) return GYRE_OK;
    return gyre_fail(err, GYRE_E_IO,
                     "not enough space (%s): %llu MB are needed, %llu MB are free; free some or choose another place",
                     out->path, (unsigned long long)(needed >> 20) + 1, (unsigned long long)(free_bytes >> 20));
}

static gyre_status write_at(const struct gyre_output *out, uint32_t file, const void *data, uint64_t bytes,
                            uint64_t offset, gyre_error *err)
{
    for (const char *at = data; bytes;) {
        const ssize_t n = pwrite(out->fd[file], at, (size_t)GYRE_MIN(bytes, (uint64_t)1 << 30), (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_write(out->part, err);
        at += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return GYRE_OK;
}

// What an interrupted run put aside stands again until it is replaced, or goes where that was done.
static void take_back(const char *output)
{
    char *old = gyre_joined(output, ".old", "");
    const bool aside = old && gyre_journal_put_aside(output);
    if (aside && gyre_file_exists(output)) remove_folder(old);
    else if (aside) (void)rename(old, output);
    free(old);
}

static gyre_status start_over(struct gyre_output *out, json_t *run, gyre_error *err)
{
    if (out->writer->format->folder) take_back(out->path);
    gyre_journal_remove(&out->journal);
    for (uint32_t i = 0; i < out->writer->n_files; i++) {
        const struct gyre_written_file *f = &out->writer->file[i];
        if (ftruncate(out->fd[i], 0) || ftruncate(out->fd[i], (off_t)f->bytes)) return fail_write(out->part, err);
        GYRE_TRY(write_at(out, i, f->front, f->front_bytes, 0, err));
    }
    return gyre_journal_start(&out->journal, run, &out->plan->choice, err);
}

gyre_status gyre_output_open(const gyre_quantize_params *params, const struct gyre_plan *plan,
                             const struct gyre_writer *writer, json_t *run, struct gyre_output *out, gyre_error *err)
{
    *out = (struct gyre_output){.plan = plan,
                                .writer = writer,
                                .lock = -1,
                                .path = gyre_joined(params->output, "", ""),
                                .part = gyre_joined(params->output, ".part", ""),
                                .manifest = gyre_joined(params->output, ".manifest.json", "")};
    gyre_sha256_init(&out->sha);
    GYRE_TRY(gyre_journal_init(params->output, &out->journal, err));
    if (!out->path || !out->part || !out->manifest)
        return gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", params->output);
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGXFSZ);
    out->masked = pthread_sigmask(SIG_BLOCK, &held, &out->signals) == 0;
    // A run that was killed before its first state was written left nothing to go on from.
    const bool resume = params->resume && gyre_file_exists(out->journal.state_path);
    GYRE_TRY(open_part(out, resume, err));
    GYRE_TRY(check_space(out, err));
    return resume ? gyre_journal_resume(&out->journal, run, writer, out->part, &out->next, err)
                  : start_over(out, run, err);
}

// ---- writing ----------------------------------------------------------------------------------------------

gyre_status gyre_output_write(struct gyre_output *out, struct gyre_plan_part part, const void *data, uint64_t bytes,
                              double error, gyre_error *err)
{
    const struct gyre_writer *w = out->writer;
    const struct gyre_written *t = out->next < w->n_tensors ? &w->tensor[out->next] : NULL;
    if (!t || !gyre_part_is(&t->part, &part) || bytes > t->bytes - out->filled)
        return gyre_fail(err, GYRE_E_INVALID, "cannot write part %d of role %d, layer %u: the plan has %s here",
                         (int)part.kind, (int)part.role, part.layer, t ? t->name : "nothing");
    GYRE_TRY(write_at(out, t->file, data, bytes, t->offset + out->filled, err));
    gyre_sha256_add(&out->sha, data, bytes);
    out->filled += bytes;
    if (out->filled < t->bytes) return GYRE_OK;
    char hex[GYRE_SHA256_HEX];
    gyre_sha256_end(&out->sha, hex);
    out->filled = 0;
    out->next++;
    return gyre_journal_tensor(&out->journal, t, hex, error, err);
}

gyre_status gyre_output_values(struct gyre_output *out, struct gyre_plan_part part, const struct gyre_values *values,
                               void *scratch, double error, gyre_error *err)
{
    const struct gyre_writer *w = out->writer;
    const uint64_t first = out->next;
    do {
        const struct gyre_written *t = out->next < w->n_tensors ? &w->tensor[out->next] : NULL;
        if (t && gyre_part_is(&t->part, &part)) w->format->encode(t, values, scratch);
        GYRE_TRY(gyre_output_write(out, part, scratch, t ? t->bytes : 0, out->next == first ? error : NAN, err));
    } while (out->next < w->n_tensors && gyre_part_is(&w->tensor[out->next].part, &part));
    return GYRE_OK;
}

gyre_status gyre_output_replace(struct gyre_output *out, struct gyre_plan_part part, const struct gyre_values *values,
                                const float *vector, void *scratch, gyre_error *err)
{
    const struct gyre_writer *w = out->writer;
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const struct gyre_written *t = &w->tensor[i];
        const void *bytes = vector;
        char hex[GYRE_SHA256_HEX];
        if (!gyre_part_is(&t->part, &part)) continue;
        if (values) {
            w->format->encode(t, values, scratch);
            bytes = scratch;
        }
        GYRE_TRY(write_at(out, t->file, bytes, t->bytes, t->offset, err));
        gyre_sha256_of(bytes, t->bytes, hex);
        GYRE_TRY(gyre_journal_rehash(&out->journal, i, hex, err));
    }
    return GYRE_OK;
}

gyre_status gyre_output_source(struct gyre_output *out, const struct gyre_tensor *const tensors[], int n,
                               gyre_error *err)
{
    for (int i = 0; i < n; i++)
        GYRE_TRY(gyre_journal_source(&out->journal, tensors[i], gyre_base_sha256(&out->plan->base, tensors[i]), err));
    return GYRE_OK;
}

gyre_status gyre_output_step(struct gyre_output *out, json_t *note, const void *const blob[2], const uint64_t bytes[2],
                             gyre_error *err)
{
    for (uint32_t i = 0; i < out->writer->n_files; i++)
        if (fdatasync(out->fd[i])) {
            json_decref(note);
            return fail_write(out->part, err);
        }
    return gyre_journal_step(&out->journal, note, blob, bytes, err);
}

const json_t *gyre_output_note(const struct gyre_output *out, uint32_t step)
{
    return gyre_journal_note(&out->journal, step);
}

gyre_status gyre_output_blob(const struct gyre_output *out, char **data, uint64_t *bytes, gyre_error *err)
{
    return gyre_journal_blob(&out->journal, data, bytes, err);
}

gyre_status gyre_output_map(const struct gyre_output *out, struct gyre_file_map **maps, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    *maps = calloc(out->writer->n_files, sizeof **maps);
    if (!*maps) return gyre_fail(err, GYRE_E_NOMEM, "cannot read (%s): out of memory", out->part);
    for (uint32_t i = 0; i < out->writer->n_files && st == GYRE_OK; i++) {
        char *path = gyre_writer_path(out->writer, out->part, i);
        st = path ? gyre_file_map(path, &(*maps)[i], err)
                  : gyre_fail(err, GYRE_E_NOMEM, "cannot read (%s): out of memory", out->part);
        free(path);
    }
    if (st == GYRE_OK) return GYRE_OK;
    gyre_output_unmap(out, *maps);
    *maps = NULL;
    return st;
}

void gyre_output_unmap(const struct gyre_output *out, struct gyre_file_map *maps)
{
    for (uint32_t i = 0; maps && i < out->writer->n_files; i++) gyre_file_unmap(&maps[i]);
    free(maps);
}

// ---- ending -----------------------------------------------------------------------------------------------

static void close_files(struct gyre_output *out)
{
    for (uint32_t i = 0; out->fd && i < out->writer->n_files; i++)
        if (out->fd[i] >= 0) close(out->fd[i]);
    close(out->lock);
    free(out->fd);
    out->fd = NULL;
    out->lock = -1;
}

// Whatever lies in the folder becomes a file of the output. It is locked, so nobody, on any host, writes these.
static void remove_temps(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strstr(entry->d_name, ".tmp-")) unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir) closedir(dir);
}

static gyre_status write_texts(const struct gyre_output *out, gyre_error *err)
{
    if (out->writer->format->folder) remove_temps(out->part);
    for (uint32_t i = 0; i < out->writer->n_texts; i++) {
        const struct gyre_written_text *t = &out->writer->text[i];
        char *path = gyre_joined(out->part, "/", t->name);
        const gyre_status st = path ? gyre_file_write(path, t->text, t->bytes, err)
                                    : gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", out->path);
        free(path);
        GYRE_TRY(st);
    }
    return GYRE_OK;
}

// Does the output stand where a folder cannot replace it?
static bool steps_aside(const struct gyre_output *out)
{
    return out->writer->format->folder && gyre_file_exists(out->path);
}

// OUT.part becomes OUT. A folder cannot replace another: the old one steps aside first. The journal has said so before
// (gyre_journal_aside), so that a run that is killed behind that goes on all the same.
static gyre_status take_name(const struct gyre_output *out, gyre_error *err)
{
    const bool folder = out->writer->format->folder, steps = steps_aside(out);
    char *old = gyre_joined(out->path, ".old", "");
    gyre_status st = old ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", out->path);
    if (st == GYRE_OK && steps && rename(out->path, old)) st = fail_write(out->path, err);
    if (st == GYRE_OK && rename(out->part, out->path)) {
        st = fail_write(out->path, err);
        if (steps) (void)rename(old, out->path);
    }
    if (st == GYRE_OK && folder && gyre_journal_put_aside(out->path)) remove_folder(old);
    free(old);
    return st;
}

void gyre_output_clear_left(const char *output)
{
    struct gyre_journal journal;
    char *old = gyre_joined(output, ".old", "");
    if (old && gyre_journal_put_aside(output)) remove_folder(old);
    free(old);
    if (gyre_journal_init(output, &journal, NULL) == GYRE_OK) gyre_journal_remove(&journal);
    gyre_journal_free(&journal);
}

// A file beside OUT: its name, and that of its bytes before it has it.
struct beside {
    char *path, temp[4096];
};

static gyre_status stage(struct beside *b, const void *data, uint64_t bytes, gyre_error *err)
{
    if (!data) return GYRE_OK;
    return gyre_file_stage(b->path, (const void *const[2]){data, NULL}, (const uint64_t[2]){bytes, 0}, b->temp,
                           sizeof b->temp, err);
}

static gyre_status give_name(struct beside *b, gyre_error *err)
{
    const gyre_status st = gyre_file_commit(b->temp, b->path, err);
    b->temp[0] = 0;
    return st;
}

// What needs space is written before an older output loses anything; then there are only names to give.
static gyre_status finish(struct gyre_output *out, struct beside *manifest, const void *data, uint64_t bytes,
                          struct beside *rotations, const void *rotations_data, uint64_t rotations_bytes,
                          gyre_error *err)
{
    struct stat info; // what came in the way meanwhile, and is no output of this kind, is not replaced
    const bool replaces = !stat(out->path, &info) && !S_ISDIR(info.st_mode) == !out->writer->format->folder;
    GYRE_TRY(stage(rotations, rotations_data, rotations_bytes, err));
    GYRE_TRY(stage(manifest, data, bytes, err));
    if (steps_aside(out)) GYRE_TRY(gyre_journal_aside(&out->journal, err));
    gyre_status st = GYRE_OK;
    if (rotations_data) st = give_name(rotations, err);
    else unlink(rotations->path);
    if (st == GYRE_OK) st = give_name(manifest, err);
    if (st == GYRE_OK) st = take_name(out, err);
    if (st != GYRE_OK && !replaces) {
        unlink(manifest->path);
        unlink(rotations->path);
    }
    return st;
}

gyre_status gyre_output_finish(struct gyre_output *out, const void *manifest, uint64_t bytes, const void *rotations,
                               uint64_t rotations_bytes, gyre_error *err)
{
    if (out->next != out->writer->n_tensors)
        return gyre_fail(err, GYRE_E_INVALID, "cannot finish (%s): tensors are missing", out->path);
    GYRE_TRY(write_texts(out, err));
    for (uint32_t i = 0; i < out->writer->n_files; i++)
        if (fsync(out->fd[i])) return fail_write(out->path, err);
    if (out->writer->format->folder && fsync(out->lock)) return fail_write(out->path, err);
    struct beside m = {.path = out->manifest}, r = {.path = gyre_matrices_path(out->path)};
    if (!r.path) return gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", out->path);
    const gyre_status st = finish(out, &m, manifest, bytes, &r, rotations, rotations_bytes, err);
    if (m.temp[0]) unlink(m.temp);
    if (r.temp[0]) unlink(r.temp);
    free(r.path);
    if (st != GYRE_OK) return st;
    gyre_journal_remove(&out->journal);
    close_files(out);
    return GYRE_OK;
}

// OUT.part with what this run put there.
static void remove_part(const struct gyre_output *out)
{
    if (!out->writer->format->folder) {
        unlink(out->part);
        return;
    }
    for (uint32_t i = 0; i < out->writer->n_files; i++) {
        char *path = gyre_writer_path(out->writer, out->part, i);
        if (path) unlink(path);
        free(path);
    }
    remove_folder(out->part);
}

static bool nothing_is_in(const struct gyre_output *out)
{
    struct stat info;
    for (uint32_t i = 0; i < out->writer->n_files; i++)
        if (!out->fd || out->fd[i] < 0 || fstat(out->fd[i], &info) || info.st_size) return false;
    return true;
}

void gyre_output_close(struct gyre_output *out)
{
    if (out->lock >= 0) { // leave nothing that is not worth resuming; without a state the journal is not ours
        const bool worthless = out->journal.state && gyre_journal_is_empty(&out->journal);
        if (worthless) gyre_journal_remove(&out->journal); // first: a journal without its file is damaged
        if (worthless || nothing_is_in(out)) remove_part(out);
        close_files(out);
    }
    if (out->masked) { // swallow what a size limit raised meanwhile, then let the caller's mask speak again
        sigset_t held;
        sigemptyset(&held);
        sigaddset(&held, SIGXFSZ);
        if (!sigismember(&out->signals, SIGXFSZ))
            while (sigtimedwait(&held, NULL, &(struct timespec){0}) == SIGXFSZ) {
            }
        pthread_sigmask(SIG_SETMASK, &out->signals, NULL);
    }
    gyre_journal_free(&out->journal);
    free(out->path);
    free(out->part);
    free(out->manifest);
    *out = (struct gyre_output){.lock = -1};
}
