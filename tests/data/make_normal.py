"""Makes normal.inc: the normal forms that the `tokenizers` library gives to texts with characters that its tables (Unicode 9) do not
know. With `table` it prints the ranges of runtime/text/normal_young.c: the characters that Unicode's own tables move, compose or
decompose and the library's do not.

Run in this folder: python3 make_normal.py [table]     (pip: tokenizers, unicodedata2)"""
import sys

import unicodedata2 as unicode
from tokenizers import normalizers

FORMS = {form: getattr(normalizers, form)() for form in ("NFC", "NFD", "NFKC", "NFKD")}
CODES = [c for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]


def is_young(c):
    if any(unicode.normalize(form, chr(c)) != n.normalize_str(chr(c)) for form, n in FORMS.items()):
        return True
    return unicode.combining(chr(c)) not in (0, 240) and FORMS["NFD"].normalize_str("a\u0345" + chr(c)).startswith("a\u0345")


young = {c for c in CODES if is_young(c)}
# What composes to one of them is as young, but for marks that are in use elsewhere, too.
young |= {ord(x) for c in young for x in unicode.normalize("NFD", chr(c)) if unicode.normalize("NFD", chr(c)) != chr(c) and ord(x) > 0x36F}
ranges = []
for c in sorted(young):
    if ranges and ranges[-1][1] == c - 1:
        ranges[-1][1] = c
    else:
        ranges.append([c, c])

if sys.argv[1:] == ["table"]:
    print(", ".join(f"{{0x{a:X}, 0x{b:X}}}" for a, b in ranges))
    sys.exit()

# Beside old marks of other classes, beside each other, and where they compose.
shown = [chr(c) for pair in ranges for c in sorted({*pair})]
text = "e\u0323\u0301 " + " ".join("a\u0345" + c + "\u0323\u0301" for c in shown) + " " + "".join(shown) + " \U00011935\U00011930\U000105d2\u0307\U0001611e\U0001611e \u0301" + shown[0] + "\u0301e\u0301\u212b\ufb01"
with open("normal.inc", "w") as f:
    f.write("// Made by make_normal.py: the tokenizers library. Do not edit.\n// clang-format off\n")
    for name, t in [("young_text", text)] + [(f"young_{form.lower()}", n.normalize_str(text)) for form, n in FORMS.items()]:
        codes = [f"0x{ord(c):X}" for c in t]
        f.write(f"static const uint32_t {name}[] = {{\n")
        for at in range(0, len(codes), 16):
            f.write("    " + ", ".join(codes[at:at + 16]) + ",\n")
        f.write("};\n")
