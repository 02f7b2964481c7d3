// Writing OUT.part and ending a run. See output.h; the journal's content is journal.c's.
#include "quantizer/file/output.h"
#include "quantizer/recipe/recipe.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

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

// A run would destroy what it reads, or its own record, if any of the files that it writes were one of its inputs.
static gyre_status check_apart(const gyre_quantize_params *p, gyre_error *err)
{
    static const char *const beside[] = {"", ".part", ".journal", ".journal/state.json", ".manifest.json"};
    static const char *const report[] = {"/report.html", "/report.md"};
    const struct {
        const char *path, *const *ending;
        size_t n;
    } written[] = {{p->output, beside, GYRE_COUNT(beside)}, {p->report_dir, report, GYRE_COUNT(report)}};
    const char *recipe = p->recipe && gyre_recipe_is_file(p->recipe) ? p->recipe : NULL;
    for (size_t i = 0; i < GYRE_COUNT(written) && written[i].path; i++) {
        GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, p->source, "the base model", err));
        GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, recipe, "the recipe", err));
        for (uint32_t k = 0; k < p->n_calib; k++)
            GYRE_TRY(gyre_files_apart(written[i].path, written[i].ending, written[i].n, p->calib[k],
                                      "a calibration text", err));
    }
    for (size_t i = 0; p->report_dir && i < GYRE_COUNT(beside); i++) {
        char path[4096];
        if ((size_t)snprintf(path, sizeof path, "%s%s", p->output, beside[i]) < sizeof path)
            GYRE_TRY(gyre_files_apart(p->report_dir, report, GYRE_COUNT(report), path, "a file of the output", err));
    }
    return GYRE_OK;
}

gyre_status gyre_output_check(const gyre_quantize_params *params, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct stat info;
    const char *path = params->output;
    if (!path || !*path) return gyre_fail(err, GYRE_E_INVALID, "no output file: give its name");
    GYRE_TRY(check_apart(params, err));
    if (params->report_dir) GYRE_TRY(gyre_check_dirs(params->report_dir, err)); // it is written after the work
    char *journal = gyre_joined(path, ".journal", ""), *folder = gyre_joined(path, "", "");
    if (!journal || !folder) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", path));
    char *slash = strrchr(folder, '/');
    if (slash) slash[1] = 0;
    if (slash && stat(folder, &info)) GYRE_GO(fail_write(path, err));
    if ((slash && !slash[1] && strlen(folder) == strlen(path)) || (!stat(path, &info) && S_ISDIR(info.st_mode)))
        GYRE_GO(gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot write (%s): it is a folder, and gyre does not write Hugging Face folders yet; name a .gguf file",
            path));
    if (gyre_file_exists(path) && !params->force)
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot write (%s): it exists; replace it with --force or choose another name", path));
    if (gyre_file_exists(journal) && !params->force && !params->resume)
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot write (%s): %s is left from an interrupted run; continue it with --resume or start "
                          "over with --force",
                          path, journal));
done:
    free(journal);
    free(folder);
    return st;
}

// ---- opening ----------------------------------------------------------------------------------------------

static gyre_status open_part(struct gyre_output *out, gyre_error *err)
{
    out->fd = open(out->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (out->fd < 0) return fail_write(out->part, err);
    if (flock(out->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return gyre_fail(err, GYRE_E_IO,
                         "cannot write (%s): another run is writing it; wait for it or choose another name", out->part);
    return GYRE_OK;
}

static gyre_status check_space(const struct gyre_output *out, gyre_error *err)
{
    struct stat info;
    uint64_t free_bytes,
        needed = out->writer->file_bytes + out->writer->file_bytes / 64 + (1 << 20); // the journal's share is small
    GYRE_TRY(gyre_disk_free(out->path, &free_bytes, err));
    if (!fstat(out->fd, &info)) needed -= GYRE_MIN(needed, (uint64_t)info.st_blocks * 512);
    if (free_bytes >= needed) return GYRE_OK;
    return gyre_fail(err, GYRE_E_IO,
                     "not enough space (%s): %llu MB are needed, %llu MB are free; free some or choose another place",
                     out->path, (unsigned long long)(needed >> 20) + 1, (unsigned long long)(free_bytes >> 20));
}

static gyre_status write_at(const struct gyre_output *out, const void *data, uint64_t bytes, uint64_t offset,
                            gyre_error *err)
{
    for (const char *at = data; bytes;) {
        const ssize_t n = pwrite(out->fd, at, (size_t)GYRE_MIN(bytes, (uint64_t)1 << 30), (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_write(out->part, err);
        at += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return GYRE_OK;
}

static gyre_status start_over(struct gyre_output *out, json_t *run, gyre_error *err)
{
    gyre_journal_remove(&out->journal);
    if (ftruncate(out->fd, 0) || ftruncate(out->fd, (off_t)out->writer->file_bytes)) return fail_write(out->part, err);
    GYRE_TRY(write_at(out, out->writer->front, out->writer->front_bytes, 0, err));
    return gyre_journal_start(&out->journal, run, &out->plan->choice, err);
}

gyre_status gyre_output_open(const gyre_quantize_params *params, const struct gyre_plan *plan,
                             const struct gyre_writer *writer, json_t *run, struct gyre_output *out, gyre_error *err)
{
    *out = (struct gyre_output){.plan = plan,
                                .writer = writer,
                                .fd = -1,
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
    GYRE_TRY(open_part(out, err));
    GYRE_TRY(check_space(out, err));
    return resume ? gyre_journal_resume(&out->journal, run, writer, out->part, &out->next, err)
                  : start_over(out, run, err);
}

// ---- writing ----------------------------------------------------------------------------------------------

gyre_status gyre_output_write(struct gyre_output *out, struct gyre_part part, const void *data, uint64_t bytes,
                              double error, gyre_error *err)
{
    const struct gyre_writer *w = out->writer;
    const struct gyre_written *t = out->next < w->n_tensors ? &w->tensor[out->next] : NULL;
    if (!t || !gyre_part_is(&t->part, &part) || bytes > t->bytes - out->filled)
        return gyre_fail(err, GYRE_E_INVALID, "cannot write part %d of role %d, layer %u: the plan has %s here",
                         (int)part.kind, (int)part.role, part.layer, t ? t->name : "nothing");
    GYRE_TRY(write_at(out, data, bytes, t->offset + out->filled, err));
    gyre_sha256_add(&out->sha, data, bytes);
    out->filled += bytes;
    if (out->filled < t->bytes) return GYRE_OK;
    char hex[GYRE_SHA256_HEX];
    gyre_sha256_end(&out->sha, hex);
    out->filled = 0;
    out->next++;
    return gyre_journal_tensor(&out->journal, t, hex, error, err);
}

gyre_status gyre_output_values(struct gyre_output *out, struct gyre_part part, const struct gyre_values *values,
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

gyre_status gyre_output_source(struct gyre_output *out, const struct gyre_tensor *const tensors[], int n,
                               gyre_error *err)
{
    char hex[GYRE_OUTPUT_SOURCES][GYRE_SHA256_HEX];
    if (n > GYRE_OUTPUT_SOURCES) return gyre_fail(err, GYRE_E_INVALID, "cannot note %d tensors at a time", n);
#pragma omp parallel for schedule(dynamic)
    for (int i = n - 1; i >= 0; i--)
        gyre_sha256_of(tensors[i]->data, tensors[i]->bytes, hex[i]); // a block's largest come last
    for (int i = 0; i < n; i++) GYRE_TRY(gyre_journal_source(&out->journal, tensors[i], hex[i], err));
    return GYRE_OK;
}

gyre_status gyre_output_step(struct gyre_output *out, json_t *note, const void *const blob[2], const uint64_t bytes[2],
                             gyre_error *err)
{
    if (fdatasync(out->fd)) {
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

// ---- ending -----------------------------------------------------------------------------------------------

gyre_status gyre_output_finish(struct gyre_output *out, const void *manifest, uint64_t bytes, gyre_error *err)
{
    if (out->next != out->writer->n_tensors)
        return gyre_fail(err, GYRE_E_INVALID, "cannot finish (%s): tensors are missing", out->path);
    GYRE_TRY(gyre_file_write(out->manifest, manifest, bytes, err));
    if (fsync(out->fd) || rename(out->part, out->path)) {
        const gyre_status st = fail_write(out->path, err);
        unlink(out->manifest);
        return st;
    }
    gyre_journal_remove(&out->journal);
    close(out->fd);
    out->fd = -1;
    return GYRE_OK;
}

void gyre_output_close(struct gyre_output *out)
{
    struct stat info;
    if (out->fd >= 0) { // leave nothing that is not worth resuming; without a state the journal is not ours
        if ((out->journal.state && out->journal.steps == 0) || (!fstat(out->fd, &info) && info.st_size == 0))
            unlink(out->part);
        if (out->journal.state && out->journal.steps == 0) gyre_journal_remove(&out->journal);
        close(out->fd);
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
    *out = (struct gyre_output){.fd = -1};
}
