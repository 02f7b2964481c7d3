// The parts of a tokenizer, for the files of this folder that build, write and use one.
//
// Encoding: added tokens are cut out of the text, the rest is normalized, cut into words by the pre-tokenizer, and each
// word's symbols are merged by rank. Symbols begin as bytes, and then all strings of the vocabulary are in the
// byte-level alphabet (GPT-2's), or as characters, as SentencePiece does, and then they are plain text in which a
// special character stands for the blank. The names of added tokens are plain text in both.
#pragma once
#include "runtime/text/normalize.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/arena.h"
#include "runtime/util/strmap.h"

enum { NO_TOKEN = UINT32_MAX, MAX_PRE_STEPS = 8, MAX_ENDS = 64, MAX_AROUND = 8, CHAR_TOKENS = 1 << 16 };

// ---- bpe.c: the merge loop ----------------------------------------------------------------------------

// A character without a token keeps itself until merging is over (lone characters may only be parts of tokens, where
// merges follow from scores): its symbol is its code point with this bit.
#define LONE_CHARACTER 0x80000000u

// (left, right) -> (rank, merged token), open addressing; an empty slot has left NO_TOKEN.
struct merge {
    uint32_t left, right, rank, token;
};
struct merge_table {
    struct merge *slots;
    uint64_t mask, n;
    // Whether any merge joins a text that ends with byte a to one that begins with byte b: bit b of row a. Words are
    // cut where none can.
    uint64_t joins[256][4];
};

bool gyre_merges_init(struct merge_table *table, uint64_t n); // room for n merges; false: out of memory
// A pair that is there already gets the new rank.
void gyre_merges_put(struct merge_table *table, struct merge merge);
const struct merge *gyre_merges_get(const struct merge_table *table, uint32_t left, uint32_t right); // NULL: none
void gyre_merges_join(struct merge_table *table, unsigned char last, unsigned char first);
void gyre_merges_join_all(struct merge_table *table);

// Growing output and the merge loop's working memory; zero-initialise, free with gyre_bpe_free.
struct bpe_work {
    uint32_t *out;
    size_t n_out, cap_out;
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    size_t cap_symbols, n_heap, cap_heap;
};
void gyre_bpe_free(struct bpe_work *work);                 // all but `out`, which the caller owns
bool gyre_bpe_emit(struct bpe_work *work, uint32_t token); // false: out of memory

// Appends the tokens of one word. What has no token becomes `unknown`, or nothing where there is none.
bool gyre_bpe_word(const gyre_tokenizer *tokenizer, struct bpe_work *work, const char *word, uint64_t bytes);

// ---- scores.c: merges that a file does not list -----------------------------------------------------------

// Every way to make a token of two others, or of lone characters; the rank is that of the token's score, the highest
// first. *out is malloc'd. UNSUPPORTED where tokens are absurdly long, FORMAT where a score is not a number.
struct tokenizer_parts;
gyre_status gyre_merges_of_scores(const gyre_tokenizer *tokenizer, const double *scores, struct merge **out,
                                  uint64_t *n, const char *where, gyre_error *err) GYRE_MUST_USE;

// ---- pretoken.c: cutting text into words --------------------------------------------------------------

// What becomes of a pattern's matches: pieces of their own, nothing, the only pieces, the end of the piece before, the
// beginning of the piece behind, pieces of their own but one where several touch.
enum pre_cut { CUT_ISOLATED, CUT_REMOVED, CUT_KEPT, CUT_WITH_PREVIOUS, CUT_WITH_NEXT, CUT_CONTIGUOUS };
enum pre_prefix { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS }; // before no piece, the one that begins the text, each

// A step cuts by a pattern, or, where it has a prefix, puts that before pieces and, with `blanks_too`, in place of
// every blank.
struct pre_step {
    struct gyre_pattern pattern;
    bool literal;
    enum pre_cut cut;
    char *prefix;
    bool blanks_too;
    enum pre_prefix when;
};

struct pretokenizer {
    struct pre_step steps[MAX_PRE_STEPS];
    uint32_t n;
};

// `literal`: the pattern is plain text. UNSUPPORTED where PCRE2 does not take it.
gyre_status gyre_pre_add(struct pretokenizer *pre, const char *pattern, bool literal, enum pre_cut cut,
                         gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_pre_add_prefix(struct pretokenizer *pre, const char *prefix, bool blanks_too, enum pre_prefix when,
                                gyre_error *err) GYRE_MUST_USE;
void gyre_pre_free(struct pretokenizer *pre);

// Calls `word` for every piece of a valid UTF-8 text, in order. `first`: it begins what is tokenized. UNSUPPORTED where
// a pattern is too expensive.
typedef gyre_status (*pre_word)(void *user, const char *piece, uint64_t bytes);
gyre_status gyre_pre_split(const struct pretokenizer *pre, const char *text, uint64_t bytes, bool first, pre_word word,
                           void *user, gyre_error *err) GYRE_MUST_USE;

// ---- presets.c: pre-tokenizers by name ------------------------------------------------------------------

struct pre_preset {
    const char *names[12];
    const char *patterns[5];
    bool nfc, ignore_merges, adds_bos;
    bool characters; // symbols are characters (SentencePiece's alphabet), not bytes
};
const struct pre_preset *gyre_pre_preset(const char *name); // NULL: unknown
enum { PRE_LIST_CAP = 1024 };
void gyre_pre_list(char *out, size_t cap); // a name for each, and how many others there are
// The first name of the preset that does exactly what these steps and flags do; NULL: none does.
const char *gyre_pre_name(const struct pretokenizer *pre, bool nfc, bool ignore_merges);
extern const char gyre_pre_gpt2[], gyre_pre_digit[], gyre_pre_digits[]; // the patterns of ByteLevel and Digits

// ---- added.c: tokens that are cut out of the text first -------------------------------------------------

struct added_token {
    struct gyre_string text;
    uint32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
};

// A set of added tokens, found leftmost and longest.
struct added_set {
    const struct added_token *tokens;
    uint32_t *order; // by text; those that begin with byte b: order[start[b]] .. order[start[b+1]-1]
    uint32_t start[257];
};
bool gyre_added_init(struct added_set *set, const struct added_token *tokens, uint32_t n,
                     bool normalized); // false: out of memory
void gyre_added_free(struct added_set *set);

struct added_match {
    uint64_t begin, end; // with stripped blanks
    uint64_t next;       // where the token itself ends
    uint32_t token;
};
// The token after *match, which is zeroed before the first; false where there is none. A token among the blanks that
// the one before stripped counts too, as in the library: *match then ends before that one did,
// and where it strips blanks before it, too, it has nothing left and begins at or behind its end. Special tokens count
// only if `special`, and only where none of their bytes is marked in `plain` (a byte per byte of the text; NULL: none
// is).
bool gyre_added_find(const struct added_set *set, const char *text, const uint8_t *plain, uint64_t bytes, bool special,
                     struct added_match *match);

// ---- tokenizer.c: building ------------------------------------------------------------------------------

enum token_kind { TOKEN_NORMAL, TOKEN_SPECIAL, TOKEN_ADDED, TOKEN_UNUSED };
enum whole_words { WHOLE_NEVER, WHOLE_ALWAYS, WHOLE_LINE_ENDS }; // which words are tokens without merges

struct gyre_tokenizer {
    struct gyre_arena arena; // strings, token table, added tokens
    uint32_t n_tokens;
    struct gyre_string *names; // as in the vocabulary; data NULL: a hole
    struct gyre_string *bytes; // what the token stands for
    uint8_t *kinds;
    bool *modelled; // of the model's own vocabulary, also if it is an added one, too: a word or a character may be it
    bool *ends;
    bool characters;          // symbols begin as characters, not as bytes
    bool byte_fallback;       // a character without a token becomes the tokens <0x00> .. <0xFF> of its bytes
    bool lone_characters;     // ... after merging, not before
    char blank[8];            // what stands for a blank in names; "": nothing does
    uint32_t byte_token[256]; // of bytes; with characters: of byte_fallback
    uint32_t *char_token;     // with characters: [CHAR_TOKENS] by code point; the others are looked up
    struct gyre_strmap vocab; // name -> id
    struct merge_table merges;
    struct gyre_normalizer normalizer;
    struct pretokenizer pre;
    struct added_set raw, normalized;
    enum whole_words whole;
    bool fuse_unknown;
    uint32_t unknown;
    // What the model puts around a text.
    uint32_t before[MAX_AROUND], after[MAX_AROUND], n_before, n_after;
    int32_t bos, eos; // -1: none
};

// What a reader found; everything is borrowed for the call.
struct tokenizer_parts {
    uint32_t n_tokens;
    const struct gyre_string *names; // data NULL: a hole
    const uint8_t *kinds;            // enum token_kind
    const bool *modelled;            // see above; NULL: all but the special ones
    uint64_t n_merges;
    const struct gyre_string (*merges)[2];
    const double *scores; // where there is no list of merges: by token; NULL: there is one
    uint32_t n_added;
    const struct added_token *added;
};
gyre_tokenizer *gyre_tokenizer_new(void); // an empty one; NULL: out of memory
// Fills everything but the normalizer, `pre` and the flags, which come first. `where` names the file in messages.
gyre_status gyre_tokenizer_build(gyre_tokenizer *tokenizer, const struct tokenizer_parts *parts, const char *where,
                                 gyre_error *err) GYRE_MUST_USE;
// The byte-level alphabet: a printable byte of Latin-1 is its own character, the n-th of the others is U+0100 + n.
void gyre_byte_alphabet(uint16_t code_of[256]);
void gyre_byte_name(unsigned char byte, char name[8]); // "<0x1F>"

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
