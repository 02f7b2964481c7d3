// See common.h.
#include "tests/fuzz/common.h"

#include "runtime/model/linear.h"
#include "runtime/util/file.h"

#include <gyre/gyre.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A model that passed its check gives the last row of every linear, as numbers and, where it has them, as codes.
// (Scales that are not repeated as declared are the one thing that only this finds.)
static void read_linears(const gyre_source *source, const struct gyre_hparams *hp)
{
    for (uint32_t i = 0; i < hp->n_layers * GYRE_LINEARS; i++) {
        struct gyre_linear l;
        gyre_error err = {0};
        if (!gyre_role_present(hp, (gyre_role)(i % GYRE_LINEARS), i / GYRE_LINEARS)) continue;
        if (gyre_linear_find(source, hp, (gyre_role)(i % GYRE_LINEARS), i / GYRE_LINEARS, &l, &err) != GYRE_OK) {
            fprintf(stderr, "a linear of a checked model: %s\n", err.message);
            exit(2);
        }
        float *row = malloc(l.cols * sizeof *row);
        int8_t *codes = malloc(l.cols);
        int8_t *zeros = malloc(l.cols);
        uint16_t *scales = malloc(l.cols * sizeof *scales);
        if (row && codes && zeros && scales) {
            gyre_linear_rows_f32(&l, l.rows - 1, 1, row);
            const gyre_status st = gyre_linear_codes(&l, l.rows - 1, 1, codes, scales, zeros, &err);
            if (st != (l.bits ? GYRE_OK : GYRE_E_UNSUPPORTED) && st != GYRE_E_FORMAT) exit(2);
        }
        free(row);
        free(codes);
        free(zeros);
        free(scales);
    }
}

void load_everything(const char *path)
{
    static const char text[] = "The 12 cats <|im_end|> caf\xC3\xA9 \xE1\xA0\x8E \xFF   x\n\n";
    gyre_source *source = NULL;
    gyre_tokenizer *tokenizer = NULL;
    struct gyre_hparams hp = {0};
    gyre_error err = {0};
    uint32_t *ids = NULL;
    uint64_t n;
    gyre_status st = gyre_source_open(path, &source, &err);
    if (st == GYRE_OK) {
        st = gyre_hparams_read(source, &hp, &err);
        if (st == GYRE_OK) st = gyre_model_check(source, &hp, &err);
        if (st == GYRE_OK) read_linears(source, &hp);
        gyre_hparams_free(&hp);
        // Whatever the model is like, its rows decode and its tokenizer, if any, works.
        const struct gyre_tensor *t = gyre_source_tensor_at(source, 0);
        float *row = t && t->cols < 1 << 20 ? malloc(t->cols * sizeof *row) : NULL;
        if (row) gyre_tensor_rows_f32(t, t->rows - 1, 1, row);
        free(row);
        st = gyre_tokenizer_create(source, NULL, NULL, &tokenizer, &err);
        if (st == GYRE_OK)
            st = gyre_tokenizer_encode(tokenizer, text, sizeof text - 1, GYRE_ENCODE_SPECIAL, &ids, &n, &err);
        free(ids);
        gyre_tokenizer_destroy(tokenizer);
    }
    const bool opened = source != NULL;
    gyre_source_close(source);
    // What opens can be looked at; and a look says in one line why it failed, or in JSON what there is.
    char *json = NULL;
    gyre_error unseen = {0};
    const gyre_status looked = gyre_inspect(path, &json, &unseen);
    free(json);
    if ((opened && looked != GYRE_OK) || (looked != GYRE_OK) != (json == NULL) ||
        (looked != GYRE_OK && (!unseen.message[0] || strchr(unseen.message, '\n')))) {
        fprintf(stderr, "inspect: status %d: \"%s\"\n", looked, unseen.message);
        exit(2);
    }
    if (st != GYRE_OK && (!err.message[0] || strchr(err.message, '\n'))) {
        fprintf(stderr, "status %d without one line: \"%s\"\n", st, err.message);
        exit(2);
    }
}

void append_file(const char *path, struct bytes *out)
{
    char *data = NULL;
    uint64_t n = 0;
    gyre_error err = {0};
    if (gyre_file_read(path, 64 << 20, &data, &n, &err) != GYRE_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(2);
    }
    put(out, data, n);
    free(data);
}
