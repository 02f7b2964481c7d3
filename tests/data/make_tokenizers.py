"""Makes the tokenizer fixtures: tiny byte-level BPE models trained on tokenizer_corpus.txt, in the styles of the model
families that gyre reads, and the token ids that the `tokenizers` library gives for that corpus.

Run in this folder: python3 make_tokenizers.py [DEMO.gguf]     (pip: tokenizers; gguf for the demo model's ids)
Writes tokenizer_NAME.json and tokenizer_NAME.ids: line 1 the whole corpus, then every line of it by itself."""
import json, re, sys
from tokenizers import Tokenizer, AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEXT = open("tokenizer_corpus.txt", newline="").read()
split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
digits = lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])


def train(pre, size, normalizer=None, full=True):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if full else []
    t.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=[], show_progress=False))
    return json.loads(t.to_str())


def finish(name, d, special=(), added=(), change=None):
    d["added_tokens"] = []
    if change:
        change(d)
    t = Tokenizer.from_str(json.dumps(d))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    for a in added:
        t.add_tokens([a])
    d = json.loads(t.to_str())
    if name in ("llama3", "smollm", "llama2"):  # the older spelling of merges
        d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]
    with open(f"tokenizer_{name}.json", "w") as f:
        json.dump(d, f, ensure_ascii=False, separators=(",", ":"))
    write_ids(name, Tokenizer.from_file(f"tokenizer_{name}.json"))


def write_ids(name, t):
    with open(f"tokenizer_{name}.ids", "w") as f:
        for text in [TEXT] + TEXT.split("\n"):
            f.write(" ".join(map(str, t.encode(text, add_special_tokens=False).ids)) + "\n")


def llama3(d):
    d["model"]["ignore_merges"] = True
    for word in ("Ġunreachable", "wordy"):  # no merge leads there
        d["model"]["vocab"].setdefault(word, len(d["model"]["vocab"]))
    bos = len(d["model"]["vocab"])  # the first added token
    d["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [bos], "tokens": ["<|endoftext|>"]}}}]}


def unknown(d):
    d["model"]["vocab"]["<unk>"] = len(d["model"]["vocab"])
    d["model"]["unk_token"], d["model"]["fuse_unk"] = "<unk>", True


CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
finish("llama3", train(split(LLAMA3), 700), CHAT, change=llama3)
finish("qwen2", train(split(QWEN2), 700, normalizers.NFC()), CHAT,
       [AddedToken("<think>", special=False, normalized=False), AddedToken("</think>", special=False, normalized=False)])
finish("smollm", train(digits(), 600, full=False), CHAT)
finish("gpt2", train(pre_tokenizers.ByteLevel(add_prefix_space=False), 500), CHAT[:1])
# What GGUF's keys cannot say: blanks taken along, word borders, tokens in normalized text, unknown bytes, other patterns.
finish("odd", train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "removed", invert=True),
                                             pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                    500, normalizers.Sequence([normalizers.NFC()]), full=False), CHAT,
       [AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False), AddedToken("word", single_word=True, normalized=False),
        AddedToken("cafe\u0301", normalized=True), AddedToken("<think>", rstrip=True, normalized=True),
        AddedToken("  ", normalized=False),  # among the blanks that <mask> takes along
        AddedToken("\t", lstrip=True, normalized=False),  # and with nothing left there
        AddedToken("\u00c3", normalized=False)], unknown)  # the name of a byte that merges join



# ---- SentencePiece's alphabet: characters, U+2581 for blanks, bytes for what has no token; every way to make a token is a merge
BLANK, BYTES = "\u2581", [f"<0x{b:02X}>" for b in range(256)]


def characters(size, special, kept=(), pieces=()):
    t = Tokenizer(models.BPE())
    words = re.sub(r"<[|/\w]*>", "", TEXT).replace("\n", " ").split(" ")  # no token is made of what spells a special one
    t.train_from_iterator([BLANK + w for w in words], trainers.BpeTrainer(vocab_size=size, limit_alphabet=90, special_tokens=[], show_progress=False))
    vocab = t.get_vocab()
    learned = sorted((w for w in vocab if len(w) > 1), key=vocab.get) + list(pieces)
    single = sorted({w for w in vocab if len(w) == 1} | {BLANK})
    names = list(special) + list(kept) + BYTES + learned + single
    score = {w: i for i, w in enumerate(learned)} | {w: -1 for w in kept} | {w: 10**6 for w in single}
    ways = sorted((score[w], -k, w[:k], w[k:]) for w in score for k in range(1, len(w)) if w[:k] in score and w[k:] in score)
    m = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
         "byte_fallback": True, "ignore_merges": False, "vocab": {w: i for i, w in enumerate(names)}, "merges": [[a, b] for *_, a, b in ways]}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None, "model": m}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
DECODER = [{"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
SPECIAL = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")


def llama2(d):
    d["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": BLANK}, REPLACE]}
    d["decoder"] = {"type": "Sequence", "decoders": DECODER + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    d["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}


def gemma(d):
    d["normalizer"], d["decoder"] = REPLACE, {"type": "Sequence", "decoders": DECODER}
    d["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def metaspace(d):  # tokens that take blanks along, a blank at the very beginning only, no bytes for some characters
    d["pre_tokenizer"] = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "first", "split": False}
    d["decoder"] = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "first", "split": False}
    kept = [w for w in d["model"]["vocab"] if not w.startswith("<0xE")]
    d["model"]["vocab"] = {w: i for i, w in enumerate(kept)}


def pieces(d):  # all that cuts pieces and puts them together again
    d["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": "\\s{2,}"}, "content": " "},
                                                           {"type": "Strip", "strip_left": True, "strip_right": True}]}
    cut = lambda regex, behavior, invert=False: {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}
    d["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        cut("[,;]", "MergedWithNext"), cut("\\.", "MergedWithPrevious"), cut("\\d", "Contiguous"), cut("(?=[A-Z])", "Isolated"),
        cut("[:!]+", "MergedWithNext", True), cut("\\n", "Removed"), {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "always", "split": True}]}
    d["decoder"] = {"type": "Sequence", "decoders": DECODER}
    d["model"]["byte_fallback"], d["model"]["fuse_unk"] = False, False


added = lambda *names, **rules: [AddedToken(n, special=False, normalized=False, **rules) for n in names]
RUNS = [BLANK * k for k in range(2, 6)] + ["\n\n", "\t\t"]
finish("llama2", characters(700, SPECIAL), SPECIAL, added("<think>"), llama2)
finish("gemma", characters(600, SPECIAL, RUNS), SPECIAL, added(*RUNS), gemma)
finish("metaspace", characters(500, SPECIAL), SPECIAL, added("<think>", rstrip=True) + added("word", single_word=True), metaspace)
finish("pieces", characters(500, SPECIAL), SPECIAL, [AddedToken("ﬁ", special=False, normalized=True)], pieces)


# ---- every name of tokenizer.ggml.pre: the number of tokens of the corpus with gpt2's vocabulary, and a hash of them
# The patterns are the published ones of the families' tokenizer.json.
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+X|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*X|\p{N}Y| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = CASED.replace("X", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("Y", "{1,3}")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DEEPSEEK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
PRE = {  # names: (patterns, NFC, ignore_merges)
    "gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum exaone4 modern-bert": ([GPT2], 0, 0),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": ([r"\p{N}", GPT2], 0, 0),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": ([LLAMA3], 0, 1),
    "smaug-bpe dbrx glm4 chatglm-bpe": ([LLAMA3], 0, 0),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez": ([QWEN2], 1, 0),
    "stablelm2 hunyuan solar-open grok-2": ([QWEN2], 0, 0),
    "qwen35": ([r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"], 1, 0),
    "gpt-4o llama4 kanana2 talkie minimax-m2": ([GPT4O], 0, 0),
    "tekken": ([CASED.replace("X", "").replace("Y", "")], 0, 1),
    "minicpm5": ([r"\p{N}{1,3}", LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")], 0, 1),
    "laguna": ([r"[^\n]+|[\n]+", QWEN2], 0, 0),
    "seed-coder": ([r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"], 0, 0),
    "bailingmoe bailingmoe2 llada-moe": ([r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"], 0, 0),
    "exaone-moe": ([r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"], 0, 0),
    "tiny_aya cohere2moe": ([r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O], 0, 0),
    "deepseek-v3 hunyuan-dense joyai-llm": ([r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", DEEPSEEK], 0, 0),
    "deepseek-coder": ([r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"], 0, 0),
    "bloom poro-chat gpt3-finnish": ([BLOOM], 0, 0), "viking": ([BLOOM, r"\p{N}"], 0, 0),
}


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        h = (h ^ i) * 0x100000001B3 % 2**64
    return f"{len(ids)} {h:016x}"


with open("tokenizer_pre.txt", "w") as f:
    for names, (patterns, nfc, ignore) in PRE.items():
        d = json.load(open("tokenizer_gpt2.json"))
        d["model"]["ignore_merges"] = bool(ignore)
        t = Tokenizer.from_str(json.dumps(d))
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        if nfc:
            t.normalizer = normalizers.NFC()
        for name in names.split():
            f.write(f"{name} {fnv(t.encode(TEXT, add_special_tokens=False).ids)}\n")

if len(sys.argv) > 1:
    from gguf import GGUFReader
    field = lambda key, r=GGUFReader(sys.argv[1]): r.fields[key].contents()
    names, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(names)}, [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]))
    t.pre_tokenizer = digits()
    t.add_special_tokens([s for s, kind in zip(names, types) if kind == 3])
    write_ids("demo", t)
