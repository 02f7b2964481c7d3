// Reads a tokenizer from GGUF metadata (tokenizer.ggml.*). Its model is "gpt2", byte-level BPE whose regular
// expressions tokenizer.ggml.pre names; "llama", SentencePiece's BPE, where scores take the place of merges; or
// "gemma4", the same alphabet with merges. Control and user-defined tokens are cut out of the text first.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_VOCAB = 1 << 24 };
#define SPM_BLANK "\xE2\x96\x81"

struct reader {
    const gyre_source *source;
    const char *path;
    struct gyre_string *names, *merge_texts, (*merges)[2];
    int64_t *types;
    uint8_t *kinds;
    struct added_token *added;
    double *scores;
    bool scored; // merges follow from scores
    struct tokenizer_parts parts;
    gyre_error *err;
};

// Takes `pre`, else what the file names, else llama.cpp's guess, with a warning: other tokens are another text.
// `otherwise`: what the model implies where no name is given; NULL: nothing.
static gyre_status choose_pre(struct reader *r, const char *pre, const char *otherwise, const gyre_log *log,
                              const struct pre_preset **out)
{
    char known[PRE_LIST_CAP];
    if (!pre) GYRE_TRY(gyre_source_string(r->source, "tokenizer.ggml.pre", &pre, r->err));
    if (otherwise && (!pre || !strcmp(pre, "default"))) pre = otherwise;
    if (!pre) {
        pre = "default";
        if (log)
            gyre_logf(log, GYRE_LOG_WARN,
                      "tokenizer: %s does not name its pre-tokenizer (tokenizer.ggml.pre); \"%s\" is a guess that may "
                      "give other tokens than the model was made with; name the right one with --pre",
                      r->path, pre);
    }
    *out = gyre_pre_preset(pre);
    if (*out) return GYRE_OK;
    gyre_pre_list(known, sizeof known);
    return gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                     "cannot use tokenizer (%s): gyre does not know the pre-tokenizer \"%s\"; it knows %s", r->path,
                     gyre_show(pre, strlen(pre)).text, known);
}

// SentencePiece's alphabet: characters, with U+2581 for blanks, and bytes for what has no token.
static gyre_status use_characters(struct reader *r, gyre_tokenizer *t, bool prefix)
{
    t->characters = t->byte_fallback = true;
    strcpy(t->blank, SPM_BLANK);
    if (prefix) GYRE_TRY(gyre_normal_prefix(&t->normalizer, SPM_BLANK, r->err));
    return gyre_normal_replace(&t->normalizer, " ", true, SPM_BLANK, r->err);
}

static gyre_status use_sentencepiece(struct reader *r, const char *pre, gyre_tokenizer *t)
{
    bool prefix = true;
    if (pre)
        return gyre_fail(r->err, GYRE_E_INVALID,
                         "cannot use pre-tokenizer %s (%s): the model's tokenizer is SentencePiece's, which has none; "
                         "leave --pre out",
                         gyre_show(pre, strlen(pre)).text, r->path);
    GYRE_TRY(gyre_source_bool(r->source, "tokenizer.ggml.add_space_prefix", &prefix, NULL, r->err));
    t->lone_characters = true;
    r->scored = true;
    return use_characters(r, t, prefix);
}

static gyre_status use_merges(struct reader *r, const char *pre, const char *otherwise, const gyre_log *log,
                              gyre_tokenizer *t, bool *adds_bos)
{
    const struct pre_preset *preset;
    GYRE_TRY(choose_pre(r, pre, otherwise, log, &preset));
    for (size_t i = 0; i < GYRE_COUNT(preset->patterns) && preset->patterns[i]; i++)
        GYRE_TRY(gyre_pre_add(&t->pre, preset->patterns[i], false, CUT_ISOLATED, r->err));
    if (preset->nfc) GYRE_TRY(gyre_normal_unicode(&t->normalizer, true, false, r->err));
    t->whole = preset->ignore_merges ? WHOLE_ALWAYS : preset->characters ? WHOLE_LINE_ENDS : WHOLE_NEVER;
    *adds_bos = preset->adds_bos;
    return preset->characters ? use_characters(r, t, false) : GYRE_OK;
}

static gyre_status check_model(struct reader *r, const char *pre, const gyre_log *log, gyre_tokenizer *tokenizer,
                               bool *adds_bos)
{
    const char *model = NULL;
    GYRE_TRY(gyre_source_string(r->source, "tokenizer.ggml.model", &model, r->err));
    if (!model)
        return gyre_fail(r->err, GYRE_E_FORMAT,
                         "cannot use tokenizer (%s): there is none (no tokenizer.ggml.model, no tokenizer.json)",
                         r->path);
    *adds_bos = true;
    if (!strcmp(model, "llama")) return use_sentencepiece(r, pre, tokenizer);
    if (!strcmp(model, "gpt2")) return use_merges(r, pre, NULL, log, tokenizer, adds_bos);
    if (!strcmp(model, "gemma4")) return use_merges(r, pre, "gemma4", log, tokenizer, adds_bos);
    return gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                     "cannot use tokenizer (%s): its model is \"%s\"; gyre does byte-level BPE (\"gpt2\") and "
                     "SentencePiece's BPE (\"llama\", \"gemma4\")",
                     r->path, gyre_show(model, strlen(model)).text);
}

static gyre_status read_tokens(struct reader *r)
{
    uint64_t n, n_types = 0;
    GYRE_TRY(gyre_source_array_strings(r->source, "tokenizer.ggml.tokens", &r->names, &n, r->err));
    if (n == 0 || n > MAX_VOCAB)
        return gyre_fail(r->err, GYRE_E_FORMAT,
                         "cannot use tokenizer (%s): tokenizer.ggml.tokens is missing, empty or impossible", r->path);
    GYRE_TRY(gyre_source_array_i64(r->source, "tokenizer.ggml.token_type", &r->types, &n_types, r->err));
    const bool typed = r->types != NULL;
    if (typed && n_types != n)
        return gyre_fail(r->err, GYRE_E_FORMAT, "cannot use tokenizer (%s): %llu token types for %llu tokens", r->path,
                         (unsigned long long)n_types, (unsigned long long)n);
    r->kinds = calloc(n, 1);
    r->added = calloc(n, sizeof *r->added);
    if (!r->kinds || !r->added)
        return gyre_fail(r->err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", r->path);
    for (uint32_t i = 0; i < n && typed; i++) {
        // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
        static const uint8_t kind_of[] = {TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_SPECIAL, TOKEN_SPECIAL,
                                          TOKEN_ADDED,  TOKEN_UNUSED, TOKEN_NORMAL};
        if (r->types[i] < 0 || r->types[i] > 6)
            return gyre_fail(r->err, GYRE_E_FORMAT, "cannot use tokenizer (%s): token %u has the unknown type %lld",
                             r->path, i, (long long)r->types[i]);
        const uint8_t kind = r->kinds[i] = kind_of[r->types[i]];
        if (kind != TOKEN_SPECIAL && kind != TOKEN_ADDED) continue;
        r->added[r->parts.n_added++] =
            (struct added_token){.text = r->names[i], .id = i, .special = kind == TOKEN_SPECIAL};
    }
    r->parts.n_tokens = (uint32_t)n;
    r->parts.names = r->names;
    r->parts.kinds = r->kinds;
    r->parts.added = r->added;
    return GYRE_OK;
}

static gyre_status read_scores(struct reader *r)
{
    uint64_t n;
    GYRE_TRY(gyre_source_array_f64(r->source, "tokenizer.ggml.scores", &r->scores, &n, r->err));
    if (!r->scores || n != r->parts.n_tokens)
        return gyre_fail(r->err, GYRE_E_FORMAT,
                         "cannot use tokenizer (%s): %llu scores (tokenizer.ggml.scores) for %u tokens", r->path,
                         (unsigned long long)n, r->parts.n_tokens);
    r->parts.scores = r->scores;
    return GYRE_OK;
}

static gyre_status read_merges(struct reader *r)
{
    uint64_t n;
    GYRE_TRY(gyre_source_array_strings(r->source, "tokenizer.ggml.merges", &r->merge_texts, &n, r->err));
    if (!r->merge_texts || n > UINT32_MAX)
        return gyre_fail(r->err, GYRE_E_FORMAT, "cannot use tokenizer (%s): tokenizer.ggml.merges is missing", r->path);
    r->merges = malloc((n + 1) * sizeof *r->merges);
    if (!r->merges) return gyre_fail(r->err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", r->path);
    for (uint64_t i = 0; i < n; i++) {
        const struct gyre_string text = r->merge_texts[i];
        const char *blank = text.length > 1 ? memchr(text.data + 1, ' ', text.length - 1) : NULL;
        if (!blank || blank + 1 == text.data + text.length)
            return gyre_fail(r->err, GYRE_E_FORMAT, "cannot use tokenizer (%s): merge %llu (\"%s\") is not two tokens",
                             r->path, (unsigned long long)i, gyre_show(text.data, text.length).text);
        const uint64_t left = (uint64_t)(blank - text.data);
        r->merges[i][0] = (struct gyre_string){text.data, left};
        r->merges[i][1] = (struct gyre_string){blank + 1, text.length - left - 1};
    }
    r->parts.n_merges = n;
    r->parts.merges = (const struct gyre_string(*)[2])r->merges;
    return GYRE_OK;
}

// Tokens of Phi-3 take the blanks behind them along. GGUF has no key for that: files are known by their model's name.
static gyre_status read_strip_rules(struct reader *r)
{
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    const char *name = NULL;
    char lower[128] = {0};
    GYRE_TRY(gyre_source_string(r->source, "general.name", &name, r->err));
    for (size_t i = 0; name && name[i] && i + 1 < sizeof lower; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    if (!strstr(lower, "phi-3") && !strstr(lower, "phi3")) return GYRE_OK;
    for (uint32_t i = 0; i < r->parts.n_added; i++) {
        bool strips = true;
        for (size_t k = 0; k < GYRE_COUNT(keep); k++)
            strips = strips && (r->added[i].text.length != strlen(keep[k]) ||
                                memcmp(r->added[i].text.data, keep[k], strlen(keep[k])));
        r->added[i].rstrip = strips;
    }
    return GYRE_OK;
}

// What stands for text without any token: named by its type or a key; only SentencePiece has one.
static gyre_status read_unknown(struct reader *r, gyre_tokenizer *t)
{
    int64_t id = -1;
    if (!t->characters) return GYRE_OK;
    for (uint32_t i = 0; i < r->parts.n_tokens && r->types && id < 0; i++)
        if (r->types[i] == 2) id = i;
    GYRE_TRY(gyre_source_i64(r->source, "tokenizer.ggml.unknown_token_id", &id, NULL, r->err));
    if (id >= 0 && id < r->parts.n_tokens) t->unknown = (uint32_t)id;
    return GYRE_OK;
}

gyre_status gyre_tokenizer_from_gguf(const gyre_source *source, const char *pre, const gyre_log *log,
                                     gyre_tokenizer *tokenizer, bool *adds_bos, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct reader r = {.source = source, .path = gyre_source_path(source), .err = err};
    GYRE_GO(check_model(&r, pre, log, tokenizer, adds_bos));
    GYRE_GO(read_tokens(&r));
    GYRE_GO(read_strip_rules(&r));
    GYRE_GO(read_unknown(&r, tokenizer));
    GYRE_GO(r.scored ? read_scores(&r) : read_merges(&r));
    st = gyre_tokenizer_build(tokenizer, &r.parts, r.path, err);
done:
    free(r.names);
    free(r.merge_texts);
    free(r.merges);
    free(r.types);
    free(r.scores);
    free(r.kinds);
    free(r.added);
    return st;
}
