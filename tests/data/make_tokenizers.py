"""Makes the tokenizer fixtures: tiny byte-level BPE models trained on tokenizer_corpus.txt, in the styles of the model
families that gyre reads, and the token ids that the `tokenizers` library gives for that corpus.

Run in this folder: python3 make_tokenizers.py [DEMO.gguf]     (pip: tokenizers; gguf for the demo model's ids)
Writes tokenizer_NAME.json and tokenizer_NAME.ids: line 1 the whole corpus, then every line of it by itself."""
import json, sys
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
    if name in ("llama3", "smollm"):  # the older spelling of merges
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
        AddedToken("cafe\u0301", normalized=True), AddedToken("<think>", rstrip=True, normalized=True)], unknown)

if len(sys.argv) > 1:
    from gguf import GGUFReader
    field = lambda key, r=GGUFReader(sys.argv[1]): r.fields[key].contents()
    names, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(names)}, [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]))
    t.pre_tokenizer = digits()
    t.add_special_tokens([s for s, kind in zip(names, types) if kind == 3])
    write_ids("demo", t)
