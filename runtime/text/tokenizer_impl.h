// The parts of a tokenizer, for tokenizer*.c, pretoken.c, bpe.c and added.c only.
//
// Encoding: added tokens are cut out of the text, the rest is normalized (NFC where the model does), cut into words by
// the pre-tokenizer's regular expressions, and each word's bytes are merged by rank. All strings of the vocabulary are
// in the byte-level alphabet (GPT-2), except those of added tokens, which are plain text.
#pragma once
#include "runtime/text/tokenizer.h"
#include "runtime/util/arena.h"
#include "runtime/util/strmap.h"

enum { NO_TOKEN = UINT32_MAX, MAX_PRE_STEPS = 8, MAX_ENDS = 64, MAX_AROUND = 8 };

// ---- bpe.c: the merge loop ----------------------------------------------------------------------------

// (left, right) -> (rank, merged token), open addressing; an empty slot has left NO_TOKEN.
struct merge {
    uint32_t left, right, rank, token;
};
struct merge_table {
    struct merge *slots;
    uint64_t mask;
};

bool gyre_merges_init(struct merge_table *table, uint64_t n); // room for n merges; false: out of memory
// A pair that is there already gets the new rank.
void gyre_merges_put(struct merge_table *table, struct merge merge);

// Growing output and the merge loop's working memory; zero-initialise, free with gyre_bpe_free.
struct bpe_work {
    uint32_t *out;
    uint64_t n_out, cap_out;
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    uint64_t cap_symbols, n_heap, cap_heap;
};
void gyre_bpe_free(struct bpe_work *work);                 // all but `out`, which the caller owns
bool gyre_bpe_emit(struct bpe_work *work, uint32_t token); // false: out of memory

// Appends the tokens of one word. Bytes without a token become `unknown`, or nothing where there is none.
bool gyre_bpe_word(const gyre_tokenizer *tokenizer, struct bpe_work *work, const char *word, uint64_t bytes);

// ---- pretoken.c: cutting text into words --------------------------------------------------------------

enum pre_keep { KEEP_ALL, KEEP_MATCHES, KEEP_GAPS }; // which pieces of a split survive
struct pre_step {
    void *code;    // pcre2_code
    char *pattern; // its text
    enum pre_keep keep;
};

struct pretokenizer {
    struct pre_step steps[MAX_PRE_STEPS];
    uint32_t n;
};

// What a GGUF file means by its tokenizer.ggml.pre.
struct pre_preset {
    const char *names[6];
    const char *patterns[4];
    bool nfc, ignore_merges, adds_bos;
};
const struct pre_preset *gyre_pre_preset(const char *name); // NULL: unknown
void gyre_pre_list(char *out, size_t cap);                  // all names, separated by commas
// The first name of the preset that does exactly what these steps and flags do; NULL: none does.
const char *gyre_pre_name(const struct pretokenizer *pre, bool nfc, bool ignore_merges);
extern const char gyre_pre_gpt2[], gyre_pre_digit[], gyre_pre_digits[]; // the patterns of ByteLevel and Digits

// `literal`: the pattern is plain text. UNSUPPORTED where PCRE2 does not take it.
gyre_status gyre_pre_add(struct pretokenizer *pre, const char *pattern, bool literal, enum pre_keep keep,
                         gyre_error *err) GYRE_MUST_USE;
void gyre_pre_free(struct pretokenizer *pre);

// Calls `word` for every piece of a valid UTF-8 text, in order. UNSUPPORTED where a pattern is too expensive.
typedef gyre_status (*pre_word)(void *user, const char *piece, uint64_t bytes);
gyre_status gyre_pre_split(const struct pretokenizer *pre, const char *text, uint64_t bytes, pre_word word, void *user,
                           gyre_error *err) GYRE_MUST_USE;

// ---- added.c: tokens that are cut out of the text first -------------------------------------------------

struct added_token {
    struct gyre_string text;
    uint32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
};

// A set of added tokens, found leftmost and longest.
struct added_set {
    const struct added_token *tokens;
    struct gyre_strmap index;
    uint32_t *lengths; // of the tokens that begin with byte b, longest first: lengths[start[b]] .. [start[b+1]-1]
    uint32_t start[257];
};
bool gyre_added_init(struct added_set *set, const struct added_token *tokens, uint32_t n,
                     bool normalized); // false: out of memory
void gyre_added_free(struct added_set *set);

struct added_match {
    uint64_t begin, end;
    uint32_t token;
}; // begin and end include stripped blanks
// The next token at or after `from`; false where there is none. Special tokens count only if `special`.
bool gyre_added_find(const struct added_set *set, const char *text, uint64_t bytes, uint64_t from, bool special,
                     struct added_match *out);

// ---- tokenizer.c: building ------------------------------------------------------------------------------

enum token_kind { TOKEN_NORMAL, TOKEN_SPECIAL, TOKEN_ADDED, TOKEN_UNUSED };

struct gyre_tokenizer {
    struct gyre_arena arena; // strings, token table, added tokens
    uint32_t n_tokens;
    struct gyre_string *names; // as in the vocabulary; data NULL: a hole
    struct gyre_string *bytes; // what the token stands for
    uint8_t *kinds;
    bool *ends;
    uint32_t byte_token[256];
    struct gyre_strmap vocab; // name -> id
    struct merge_table merges;
    struct pretokenizer pre;
    struct added_set raw, normalized;
    bool nfc, ignore_merges, fuse_unknown;
    uint32_t unknown;
    // What the model puts around a text.
    uint32_t before[MAX_AROUND], after[MAX_AROUND], n_before, n_after;
    int32_t bos;
};

// What a reader found; everything is borrowed for the call.
struct tokenizer_parts {
    uint32_t n_tokens;
    const struct gyre_string *names; // data NULL: a hole
    const uint8_t *kinds;            // enum token_kind
    uint64_t n_merges;
    const struct gyre_string (*merges)[2];
    uint32_t n_added;
    const struct added_token *added;
};
gyre_tokenizer *gyre_tokenizer_new(void); // an empty one; NULL: out of memory
// Fills everything but `pre` and the flags. `where` names the file in messages.
gyre_status gyre_tokenizer_build(gyre_tokenizer *tokenizer, const struct tokenizer_parts *parts, const char *where,
                                 gyre_error *err) GYRE_MUST_USE;

// ---- settings.c: what a model says about the ends of a text ---------------------------------------------

enum said { UNSAID = -1, SAID_NO, SAID_YES };

struct tokenizer_settings {
    int32_t bos;     // -1: none is named
    uint32_t n_ends; // every token that ends a text; the first is the EOS
    uint32_t ends[MAX_ENDS];
    enum said add_bos, add_eos;
    char bos_name[256], eos_name[256]; // of tokenizer_config.json; "": none
};

// From GGUF's keys, or from config.json, generation_config.json and tokenizer_config.json.
gyre_status gyre_tokenizer_settings(const gyre_source *source, struct tokenizer_settings *out,
                                    gyre_error *err) GYRE_MUST_USE;
// Marks the ends, and puts around a text what the settings ask for; what they leave open stays as the reader set it.
// Ids are checked against the vocabulary. Adds what a name stands for to the settings.
gyre_status gyre_tokenizer_apply(gyre_tokenizer *tokenizer, struct tokenizer_settings *settings, const char *where,
                                 gyre_error *err) GYRE_MUST_USE;

// ---- the readers ----------------------------------------------------------------------------------------

// `pre` overrides the file's tokenizer.ggml.pre; may be NULL.
// *adds_bos tells what models with this pre-tokenizer do where a file does not say whether a BOS is added.
gyre_status gyre_tokenizer_from_gguf(const gyre_source *source, const char *pre, const gyre_log *log,
                                     gyre_tokenizer *tokenizer, bool *adds_bos, gyre_error *err) GYRE_MUST_USE;
// `text` is a tokenizer.json, `path` names it in messages. `plain` (may be NULL) tells whether GGUF's keys can say all
// of it but what gyre_tokenizer_apply sets.
gyre_status gyre_tokenizer_from_json(const char *path, const char *text, uint64_t bytes, gyre_tokenizer *tokenizer,
                                     bool *plain, gyre_error *err) GYRE_MUST_USE;
