// See lying.h.
#include "tests/source/lying.h"

#include "runtime/model/hparams.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

gyre_status lying_open(const char *path, gyre_error *err)
{
    gyre_source *source = NULL;
    gyre_tokenizer *tokenizer = NULL;
    struct gyre_hparams hp = {0};
    gyre_status st = gyre_source_open(path, &source, err);
    if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, err);
    if (st == GYRE_OK) st = gyre_model_check(source, &hp, err);
    if (st == GYRE_OK) st = gyre_tokenizer_create(source, NULL, NULL, &tokenizer, err);
    gyre_tokenizer_destroy(tokenizer);
    gyre_hparams_free(&hp);
    gyre_source_close(source);
    return st;
}

void lying_expect(const char *what, gyre_status st, const gyre_error *err, gyre_status due, const char *says)
{
    const size_t n = strlen(err->message);
    if (st != due || (says && !strstr(err->message, says)) || strchr(err->message, '\n'))
        fail_msg("%s: status %d (due %d), \"%s\" (due: %s)", what, st, due, err->message, says ? says : "");
    if (st != GYRE_OK && (n < 20 || err->message[n - 1] == '.')) fail_msg("%s: odd message \"%s\"", what, err->message);
}

void lying_load(const char *path, struct bytes *b)
{
    gyre_error err = {0};
    char *data = NULL;
    uint64_t n = 0;
    if (gyre_file_read(path, 64 << 20, &data, &n, &err) != GYRE_OK) fail_msg("%s", err.message);
    *b = (struct bytes){(unsigned char *)data, n, n};
}

void lying_begin(struct bytes *b, uint64_t tensors, uint64_t metas)
{
    put_text(b, "GGUF");
    put_u32(b, 3);
    put_u64(b, tensors);
    put_u64(b, metas);
}

void lying_tensor(struct bytes *b, const char *name, uint64_t rows, uint64_t cols, uint32_t type, uint64_t offset)
{
    put_tensor_info(b, name, 2, (uint64_t[]){rows, cols}, type, offset);
}
