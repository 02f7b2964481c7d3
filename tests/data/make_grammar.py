"""Makes grammar_masks.txt: which tokens llguidance allows, position by position, on random ways through schemas.

Run in this folder: python3 make_grammar.py [STEPS]     (pip: llguidance, tokenizers)
The vocabulary is that of tokenizer_llama3.json. The schemas say additionalProperties and leave numbers bounded, because there
gyre generates less than what validates (gyre_grammar.h); ways go around escapes, of which gyre takes more, and -0, which only gyre takes. Lines: "S schema";
"W token..." one way; "M hash...": FNV-1a of the allowed tokens before each of them and behind the last, in ascending order,
0xFFFFFFFF behind them where the text may end."""
import json, random, sys
import llguidance.numpy
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

NAME = "tokenizer_llama3.json"
ENDS = (2,)  # what the configuration of tests/common/tiny.h says beside it
F = False
obj = lambda required=None, **p: dict(type="object", properties=p, additionalProperties=F, **(dict(required=required.split()) if required else {}))
SCHEMAS = [
    obj("ok", ok=dict(type="boolean")), obj(a=dict(const=1), b=dict(const=[2]), c=dict(enum=["x", "xy", "y"])), obj("b", a=dict(type="null"), b=dict(type="boolean"), c=dict(type="null")),
    dict(type="array", items=dict(type="integer", minimum=0, maximum=9), minItems=2, maxItems=4), dict(type="array", items=dict(type="boolean")), dict(type="array", items=dict(enum=["a", "the"]), minItems=1),
    dict(type="array", prefixItems=[dict(const="to"), dict(type="boolean")], items=F), dict(type="array", prefixItems=[dict(const="to")], items=dict(const=3), minItems=2, maxItems=4),
    dict(type="string", minLength=2, maxLength=7), dict(type="string", maxLength=3), obj("name", name=dict(type="string", maxLength=30), n=dict(type="integer", minimum=-12, maximum=1200)),
    dict(type="string", pattern="^[a-z]{2,5}(ing|ed)?$"), dict(type="string", pattern="^(the|[A-Z][a-z]+)( [a-z]+)*$"), dict(type="string", pattern="^[0-9]{4}-[0-9]{2}$"), dict(type="string", pattern="^(a|ab)(c|bcd)*$"),
    dict(type="string", pattern="^[^aeiou\"\\\\]{3,}$"), dict(type="integer", minimum=7), dict(type="integer", maximum=-7), dict(type="integer", minimum=-3, maximum=12345), dict(type="integer", exclusiveMinimum=99, exclusiveMaximum=1001),
    dict(type="number", minimum=0, maximum=1), dict(type="number", minimum=1.5, maximum=22.75), dict(type="number", exclusiveMinimum=0.25, exclusiveMaximum=0.5), dict(type=["integer", "null"], minimum=0, maximum=50),
    dict(anyOf=[dict(type="string", maxLength=2), dict(const="other"), dict(type="integer", minimum=0, maximum=20)]), dict(anyOf=[obj("t", t=dict(const="a"), x=dict(type="boolean")), obj("t", t=dict(const="ab"), y=dict(type="null"))]),
    {"$ref": "#/$defs/t", "$defs": dict(t=obj("v", v=dict(type="integer", minimum=0, maximum=99), k=dict(type="array", items={"$ref": "#/$defs/t"})))}, {"$ref": "#/$defs/l", "$defs": dict(l=dict(anyOf=[dict(type="null"), obj("n", n={"$ref": "#/$defs/l"})]))},
    dict(enum=["yes", "no", "perhaps: \"x\"", 1, 1.5, None, {"a": [True]}]), dict(const="é and 🤗"), dict(type="object", additionalProperties=dict(type="boolean"), properties={}), obj(**{"quote \"": dict(const=1), "the": dict(const=2), "": dict(const=3)}),
]


def main(steps):
    rng = random.Random(7)
    tokenizer = Tokenizer.from_file(NAME)
    special = {t["id"] for t in json.load(open(NAME))["added_tokens"] if t["special"]}
    back = {c: b for b, c in byte_level().items()}
    vocab = {i: t for t, i in tokenizer.get_vocab().items()}
    tokens = [bytes(back[c] for c in vocab[i]) if all(c in back for c in vocab[i]) and i not in special else vocab[i].encode() for i in range(len(vocab))]
    eos = min(special)

    class Wrapped:
        eos_token_id, bos_token_id, special_token_ids = eos, None, sorted(special)
        __call__ = lambda self, text: [tokens.index(bytes([b])) for b in (text.encode() if isinstance(text, str) else text)]
    Wrapped.tokens = tokens
    ll = LLTokenizer(TokenizerWrapper(Wrapped()))
    mask, positions, out = llguidance.numpy.allocate_token_bitmask(1, len(tokens)), 0, []
    while positions < steps:
        for schema in SCHEMAS:
            m = LLMatcher(ll, LLMatcher.grammar_from_lark('%llguidance {"no_forcing": true}\nstart: %json ' + json.dumps({**schema, "x-guidance": dict(whitespace_flexible=F, item_separator=",", key_separator=":")})))
            assert not m.is_error(), m.get_error()
            way, hashes = [], []
            for step in range(40):
                llguidance.numpy.fill_next_token_bitmask(m, mask)
                allowed = [t for t in range(len(tokens)) if int(mask[0][t // 32]) >> t % 32 & 1]
                go = [t for t in allowed if t not in special and t not in ENDS]
                end, h = eos in allowed, 2166136261
                for t in go + [0xFFFFFFFF] * end:
                    h = (h ^ t) * 16777619 & 0xFFFFFFFF
                hashes.append(f"{h:x}")
                go = [t for t in go if b"\\" not in tokens[t]] or go
                close = [t for t in go if tokens[t][:1] in b'"]},']
                if not go or step == 39 or sum(len(tokens[t]) for t in way) > 8 and schema.get("type") in ("integer", "number") or end and rng.random() < .3:
                    break
                way.append(rng.choice(close if close and rng.random() < .3 else go))
                m.consume_token(way[-1])
                if b"\\" in b"".join(tokens[t] for t in way) and "quote" not in str(schema) and "perhaps" not in str(schema):
                    way.pop()
                    break
            positions += len(hashes)
            out += ["S " + json.dumps(schema, ensure_ascii=False), "W " + " ".join(map(str, way)), "M " + " ".join(hashes[:len(way) + 1])]
    with open("grammar_masks.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
    print(len(out) // 3, "ways,", positions, "positions")


def byte_level():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
