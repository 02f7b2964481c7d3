"""Makes patterns.inc: where patterns of tokenizer.json match, as the `tokenizers` library (Oniguruma with Ruby's syntax) finds it.

Run in this folder: python3 make_patterns.py     (pip: tokenizers)"""
from tokenizers import Regex, pre_tokenizers

TEXT = "12345678 The then\nDon'T \u00bd\u00b2 \u24d0 \u2167 a_\u203fb\u0301 e1 F9\n  ab abab aab [&] x{ a{b} \u6f22\u5b57\u3001\u3005\u30fb\u30ab \u03b1\u03b2 K\u212a \u017f\x0b\x0c^-]\u00e9\u00e9 end \n"
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


with open("patterns.inc", "w") as f:
    f.write("// Made by make_patterns.py: the tokenizers library. Do not edit.\n// clang-format off\n")
    f.write(f"static const char pattern_text[] = {c(TEXT)};\n")
    f.write("static const struct {\n    const char *pattern, *matches;\n} patterns[] = {\n")
    at = [0]
    for ch in TEXT:
        at.append(at[-1] + len(ch.encode()))
    for p in PATTERNS:
        found = pre_tokenizers.Split(Regex(p), "removed", invert=True).pre_tokenize_str(TEXT)
        f.write(f"    {{{c(p)}, \"{' '.join(f'{at[a]}-{at[b]}' for _, (a, b) in found)}\"}},\n")
    f.write("};\n")
