// What GGUF files mean by their tokenizer.ggml.pre: the published patterns of the model families. A name stands for
// what the models that use it were made with, also where other readers are less exact.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

const char gyre_pre_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char gyre_pre_digit[] = "\\p{N}", gyre_pre_digits[] = "\\p{N}+";

// Their common parts.
#define SHORTS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define ENDS "|\\s+(?!\\S)|\\s+"
#define SPACES "\\s*[\\r\\n]+" ENDS
#define HEAD "[^\\r\\n\\p{L}\\p{N}]?"
#define SIGNS " ?[^\\s\\p{L}\\p{N}]+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(after) HEAD UPPER "*" LOWER "+" after "|" HEAD UPPER "+" LOWER "*" after
// Words, then numbers of `digits`, signs with the line ends behind them, blanks.
#define WORDS(digits) SHORTS "|" HEAD "\\p{L}+|\\p{N}" digits "|" SIGNS "[\\r\\n]*|" SPACES
#define GPT4O CASED(SHORTS "?") "|\\p{N}{1,3}|" SIGNS "[\\r\\n/]*|" SPACES
// Han, Hiragana and Katakana, and what deepseek's newer tokenizers do with the rest.
#define CJK "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+"
#define ASIA "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+"
#define DEEPSEEK                                                                                                       \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"               \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
#define BLOOM " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"

static const struct pre_preset presets[] = {
    {.names = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum",
               "exaone4", "modern-bert"},
     .patterns = {gyre_pre_gpt2}},
    // llama.cpp's own, which it also takes for files that name none.
    {.names = {"default"},
     .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+",
                  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "\\p{N}+",
                  "[0-9][0-9][0-9]"}},
    {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
     .patterns = {gyre_pre_digit, gyre_pre_gpt2}},
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
     .patterns = {WORDS("{1,3}")},
     .ignore_merges = true,
     .adds_bos = true},
    {.names = {"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"}, .patterns = {WORDS("{1,3}")}},
    {.names = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"}, .patterns = {WORDS("")}, .nfc = true},
    {.names = {"stablelm2", "hunyuan", "solar-open", "grok-2"}, .patterns = {WORDS("")}},
    {.names = {"qwen35"},
     .patterns = {SHORTS "|" HEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES},
     .nfc = true},
    {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, .patterns = {GPT4O}},
    {.names = {"tekken"},
     .patterns = {CASED("") "|\\p{N}|" SIGNS "[\\r\\n/]*|" SPACES},
     .ignore_merges = true,
     .adds_bos = true},
    {.names = {"minicpm5"}, .patterns = {"\\p{N}{1,3}", WORDS("+")}, .ignore_merges = true},
    {.names = {"laguna"}, .patterns = {"[^\\n]+|[\\n]+", WORDS("")}},
    {.names = {"seed-coder"}, .patterns = {SHORTS "|" HEAD "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {.names = {"bailingmoe", "bailingmoe2", "llada-moe"},
     .patterns = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
                  "\\s*[\\r\\n]" ENDS}},
    {.names = {"exaone-moe"},
     .patterns = {SHORTS "|" HEAD "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|" SIGNS
                         "[\\r\\n/]?|\\s*[\\r\\n]" ENDS}},
    {.names = {"tiny_aya", "cohere2moe"}, .patterns = {"\\d{1,3}(?=(?:\\d{3})*\\b)", GPT4O}},
    {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm"}, .patterns = {"\\p{N}{1,3}", CJK, DEEPSEEK}},
    {.names = {"deepseek-coder"}, .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", ASIA, "\\p{N}"}},
    {.names = {"falcon"},
     .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|`]+",
                  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "[0-9][0-9][0-9]"}},
    {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .patterns = {BLOOM}},
    {.names = {"viking"}, .patterns = {BLOOM, "\\p{N}"}},
    // SentencePiece's alphabet with merges; line ends are cut off, and are tokens where the vocabulary has them.
    {.names = {"gemma4"}, .patterns = {"[^\\n]+|[\\n]+"}, .characters = true},
};

const struct pre_preset *gyre_pre_preset(const char *name)
{
    for (size_t i = 0; i < GYRE_COUNT(presets); i++)
        for (size_t k = 0; k < GYRE_COUNT(presets[i].names) && presets[i].names[k]; k++)
            if (!strcmp(name, presets[i].names[k])) return &presets[i];
    return NULL;
}

void gyre_pre_list(char *out, size_t cap)
{
    size_t n = 0, others = 0;
    *out = 0;
    for (size_t i = 0; i < GYRE_COUNT(presets); i++) {
        if (n < cap) n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", presets[i].names[0]);
        for (size_t k = 1; k < GYRE_COUNT(presets[i].names) && presets[i].names[k]; k++) others++;
    }
    if (n < cap) snprintf(out + n, cap - n, " and %zu other names of these (docs/files.md)", others);
}

// The next character of a pattern, in which a line end may stand as itself or as \r or \n.
static int next_of(const char **at)
{
    const char c = *(*at)++;
    if (c != '\\' || (**at != 'r' && **at != 'n')) return c;
    return *(*at)++ == 'r' ? '\r' : '\n';
}

static bool same_pattern(const char *a, const char *b)
{
    while (*a && *b)
        if (next_of(&a) != next_of(&b)) return false;
    return *a == *b;
}

const char *gyre_pre_name(const struct pretokenizer *pre, bool nfc, bool ignore_merges)
{
    for (size_t i = 0; i < GYRE_COUNT(presets); i++) {
        const struct pre_preset *p = &presets[i];
        bool same = p->nfc == nfc && p->ignore_merges == ignore_merges && !p->characters;
        uint32_t n = 0;
        for (; n < GYRE_COUNT(p->patterns) && p->patterns[n] && same; n++)
            same = n < pre->n && pre->steps[n].cut == CUT_ISOLATED && !pre->steps[n].prefix &&
                   same_pattern(pre->steps[n].pattern.source, p->patterns[n]);
        if (same && n == pre->n) return p->names[0];
    }
    return NULL;
}
