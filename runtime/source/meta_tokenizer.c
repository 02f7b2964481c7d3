// See pth.h. Llama 3's tokenizer.model is tiktoken's: a line per token, its bytes in base64 and its rank, which is
// its id. Whatever two tokens make a token may be joined, the lowest rank first; a tokenizer.json lists such pairs.
// Its names are in GPT-2's alphabet of printable bytes, and the special tokens, which the file leaves out, follow
// the ranks.
#include "runtime/source/pth.h"

#include "runtime/source/json_file.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKEN = 1024, MAX_RANKS = 1 << 20, SPECIALS = 256 };

static const char *const special[] = {"begin_of_text",
                                      "end_of_text",
                                      "reserved_special_token_0",
                                      "reserved_special_token_1",
                                      "finetune_right_pad_id",
                                      "step_id",
                                      "start_header_id",
                                      "end_header_id",
                                      "eom_id",
                                      "eot_id",
                                      "python_tag",
                                      "image"};

// Llama 3's pattern: contractions, words, up to three digits, signs, line ends, blanks.
static const char pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                              " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

struct ranks {
    const char *path;
    struct gyre_arena arena;
    struct gyre_string *token; // bytes, by rank
    uint32_t n;
    struct gyre_strmap index;
    gyre_error *err;
};

static gyre_status damaged(const struct ranks *r, const char *why)
{
    return gyre_fail(r->err, GYRE_E_FORMAT, "cannot read tokenizer (%s): line %u %s", r->path, r->n + 1, why);
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// n characters of base64; returns the bytes, 0 where it is none.
static uint64_t decode(const char *text, uint64_t n, unsigned char *out)
{
    uint64_t bytes = 0;
    uint32_t bits = 0, held = 0;
    while (n && text[n - 1] == '=') n--;
    if (n % 4 == 1) return 0;
    for (uint64_t i = 0; i < n; i++) {
        const int v = sextet(text[i]);
        if (v < 0) return 0;
        bits = bits << 6 | (uint32_t)v;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        out[bytes++] = (unsigned char)(bits >> held);
    }
    return bytes;
}

static gyre_status read_line(struct ranks *r, const char *line, uint64_t n)
{
    unsigned char bytes[MAX_TOKEN];
    char digits[16];
    bool added;
    const char *blank = memchr(line, ' ', n);
    const uint64_t coded = blank ? (uint64_t)(blank - line) : 0, number = blank ? n - coded - 1 : 0;
    if (!blank || coded == 0 || coded > MAX_TOKEN || number == 0 || number > 9)
        return damaged(r, "is not a token and its rank");
    memcpy(digits, blank + 1, number);
    digits[number] = 0;
    char *end;
    const unsigned long rank = strtoul(digits, &end, 10);
    if (*end || rank != r->n || r->n == MAX_RANKS) return damaged(r, "has a rank that is not its place");
    const uint64_t length = decode(line, coded, bytes);
    if (!length) return damaged(r, "is no base64");
    char *copy = gyre_arena_alloc(&r->arena, length);
    if (!copy) return gyre_fail(r->err, GYRE_E_NOMEM, "cannot read tokenizer (%s): out of memory", r->path);
    memcpy(copy, bytes, length);
    r->token[r->n] = (struct gyre_string){copy, length};
    if (!gyre_strmap_add(&r->index, copy, (uint32_t)length, r->n, &added))
        return gyre_fail(r->err, GYRE_E_NOMEM, "cannot read tokenizer (%s): out of memory", r->path);
    if (!added) return damaged(r, "repeats a token");
    r->n++;
    return GYRE_OK;
}

static gyre_status read_lines(struct ranks *r, const char *text, uint64_t bytes)
{
    uint64_t lines = 1;
    for (uint64_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    r->token = calloc(GYRE_MIN(lines, (uint64_t)MAX_RANKS) + 1, sizeof *r->token);
    if (!r->token) return gyre_fail(r->err, GYRE_E_NOMEM, "cannot read tokenizer (%s): out of memory", r->path);
    for (const char *p = text, *end = text + bytes; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const uint64_t n = (uint64_t)((nl ? nl : end) - p);
        if (n) GYRE_TRY(read_line(r, p, n));
        p += n + 1;
    }
    return r->n ? GYRE_OK : damaged(r, "is missing");
}

// Bytes in GPT-2's alphabet: a printable byte of Latin-1 is its own character, the n-th of the others U+0100 + n. In
// UTF-8; out has room for 2 * n + 1.
static void spell(struct gyre_string bytes, char *out)
{
    for (uint64_t i = 0; i < bytes.length; i++) {
        const unsigned b = (unsigned char)bytes.data[i];
        const bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        const unsigned code = own ? b : b < 33 ? 256 + b : b < 161 ? 256 + 33 + b - 127 : 256 + 67;
        if (code < 128) *out++ = (char)code;
        else *out++ = (char)(0xC0 | code >> 6), *out++ = (char)(0x80 | (code & 63));
    }
    *out = 0;
}

static void special_name(uint32_t i, char out[64])
{
    if (i < GYRE_COUNT(special)) snprintf(out, 64, "<|%s|>", special[i]);
    else snprintf(out, 64, "<|reserved_special_token_%u|>", i - (uint32_t)GYRE_COUNT(special) + 2);
}

// Every way to make a token of two others.
static json_t *merges(const struct ranks *r)
{
    char left[2 * MAX_TOKEN + 1], right[2 * MAX_TOKEN + 1];
    json_t *out = json_array();
    for (uint32_t i = 0; i < r->n; i++)
        for (uint64_t k = 1; k < r->token[i].length; k++) {
            const struct gyre_string a = {r->token[i].data, k}, b = {r->token[i].data + k, r->token[i].length - k};
            uint32_t rank;
            if (!gyre_strmap_get(&r->index, a.data, (uint32_t)a.length, &rank) ||
                !gyre_strmap_get(&r->index, b.data, (uint32_t)b.length, &rank))
                continue;
            spell(a, left);
            spell(b, right);
            json_array_append_new(out, json_pack("[s,s]", left, right));
        }
    return out;
}

static json_t *document(const struct ranks *r)
{
    char name[2 * MAX_TOKEN + 1];
    json_t *vocab = json_object(), *added = json_array();
    for (uint32_t i = 0; i < r->n; i++) {
        spell(r->token[i], name);
        json_object_set_new_nocheck(vocab, name, json_integer(i));
    }
    for (uint32_t i = 0; i < SPECIALS; i++) {
        special_name(i, name);
        json_array_append_new(added,
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)(r->n + i), "content", name,
                                        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    }
    json_t *level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                              "use_regex", 0);
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern, "behavior",
                              "Isolated", "invert", 0);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", 1, "vocab", vocab, "merges", merges(r));
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:[o,O]}, s:n, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added, "normalizer", "pre_tokenizer", "type", "Sequence",
                     "pretokenizers", split, level, "post_processor", "decoder", level, "model", model);
}

gyre_status gyre_meta_tokenizer(const char *path, const char *text, uint64_t bytes, char **json, uint32_t *n_ranks,
                                gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct ranks r = {.path = path, .err = err};
    *json = NULL;
    GYRE_GO(read_lines(&r, text, bytes));
    *n_ranks = r.n;
    json_t *whole = document(&r);
    *json = whole ? json_dumps(whole, JSON_COMPACT) : NULL;
    json_decref(whole);
    if (!*json) st = gyre_fail(err, GYRE_E_NOMEM, "cannot read tokenizer (%s): out of memory", path);
done:
    free(r.token);
    gyre_strmap_free(&r.index);
    gyre_arena_free(&r.arena);
    return st;
}
