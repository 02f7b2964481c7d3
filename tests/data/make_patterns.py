"""Makes patterns.inc: where patterns of tokenizer.json match, as the `tokenizers` library (Oniguruma with Ruby's syntax) finds it.

Run in this folder: python3 make_patterns.py     (pip: tokenizers)"""
from tokenizers import Regex, pre_tokenizers

TEXT = "12345678 The then\nDon'T \u00bd\u00b2 \u24d0 \u2167 a_\u203fb\u0301 e1 F9\n  ab abab aab [&] x{ a{b} \u6f22\u5b57\u3001\u3005\u30fb\u30ab \u03b1\u03b2 K\u212a \u017f\x0b\x0c^-]\u00e9\u00e9 end \n"
# Characters of Unicode 15 to 16 beside older ones: letters of Kawi, Han, Garay and Cyrillic, marks, digits, emoji, signs.
YOUNG = "a\U00011f04\U00011f34b \U00032103\u4e00\U0002ebf0 \U00010d50\U00010d70 \U0001e030\U0001e08f7\U0001e4f05\U0001d2c0 \U0001fae8\U0001fa77! \ua7da\ua7db \u0897x\u1c89\u1c8a\u31ef\u2427\u1b4e\U00016d40\U00010d6e\U00010d8e \u180e."
YOUNG_PATTERNS = [
    r"\p{L}+", r"\p{Lu}", r"\p{Ll}", r"\p{Lm}", r"\p{M}", r"\p{N}", r"\p{Nd}", r"\p{P}", r"\p{S}", r"\p{Han}+", r"\w+", r"\W+", r"\s+", r"\p{C}",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s+",
]
PATTERNS = [
    r"^\s*\w+", r"\w+$", r"\s++$|\s*[\r\n]|\s+(?!\S)|\s", r"(?m).+", r"(?m:n.)+|x", r"(?-m:.)+", r"\A.", r".\Z",
    r"\h+", r"\H+", r"[\h_]+", r"[\H]+", r"\v|\f", r"[\v\f]",
    r"\w+", r"\W+", r"[\w-]+", r"[\W\d]+", r"\bthe\b|\B.", r"(?i)\bTHE\b|don't", r"(?<!\w)a", r"(?<=\s)\S",
    r"\p{N}{1,3}+", r"\d{2,}", r"b{,2}a", r"(?:ab){2}+", r"[ab]{1,2}+ ", "\u00e9{1,2}+", r"(?:a){1,2}+b", r"x{", r"a{b}", r"a++b?",
    r"[a-z&&[^aeiou]]+", r"[^a-z&&[^aeiou]]+", r"[a-z&&b-y&&c-x]+", r"[[a-c][x-z]]+", r"[^[a-c][x-z]]+", r"[a[^b-z]]+", r"[\p{L}&&\p{ASCII}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+|[\p{Han}]+|\p{N}{1,3}",
    r"[]a]+", r"[^]a]+", r"[a^-]+", r"[-a]+", r"[\-\]\[]+", r"[a&b]+", r"[[:space:]]+|[[:digit:]]",
    r"\p{Han}+", r"\P{Han}+", r"\p{^Han}+", r"[^\p{Han}\s]+", r"\p{Greek}|\p{Katakana}+", r"\p{Lu}\p{Ll}*", r"(?i)k|s", r"(?i:t)h|[\p{Lu}_]+", r"(?i:t(?-i:[\p{Ll}])|\p{L})",
    r"\x41|\x{6F22}", r"[\u4e00-\u9fff]+", r"(?<name>a)b", r"(?#note)a", r"(?>a+)b", r"\'|\_|\\",
]


def c(text):
    plain = lambda b: "\\\\" if b == 92 else chr(b) if 32 <= b < 127 and b not in b'"?' else f"\\{b:03o}"
    return '"' + "".join(map(plain, text.encode())) + '"'


def table(f, name, text, patterns):
    f.write(f"static const char {name}_text[] = {c(text)};\n")
    f.write("static const struct row " + name + "s[] = {\n")
    at = [0]
    for ch in text:
        at.append(at[-1] + len(ch.encode()))
    for p in patterns:
        found = pre_tokenizers.Split(Regex(p), "removed", invert=True).pre_tokenize_str(text)
        f.write(f"    {{{c(p)}, \"{' '.join(f'{at[a]}-{at[b]}' for _, (a, b) in found)}\"}},\n")
    f.write("};\n")


with open("patterns.inc", "w") as f:
    f.write("// Made by make_patterns.py: the tokenizers library. Do not edit.\n// clang-format off\n")
    f.write("struct row {\n    const char *pattern, *matches;\n};\n")
    table(f, "pattern", TEXT, PATTERNS)
    table(f, "young_pattern", YOUNG, YOUNG_PATTERNS)
