"""Makes the golden logits: tiny random models of every architecture through `transformers`, and the demo model through any module with
the interface of an oracle (load, tokenizer, Model); both in PyTorch on the CPU.

Run in this folder: python3 make_golden.py                                   writes golden_tiny.inc
                    python3 make_golden.py DEMO.gguf FOLDER_OF_oracle.py     writes golden_demo.inc
The tiny weights are those of tests/common/tiny.c, computed here again: number i of a tensor is
((splitmix64 >> 40) / 2^23 - 1) * scale, seeded by seed and FNV-1a of the name."""
import sys, textwrap
import numpy as np, torch

MASK, GOLD = (1 << 64) - 1, 0x9E3779B97F4A7C15
# family, layers, kv heads, ffn, tied, rope type, rope base, seed: the rows of the table in tests/runtime/test_golden.c
VARIANTS = [("llama", 2, 2, 96, False, "default", 10000.0, 1), ("llama", 3, 1, 160, True, "linear", 10000.0, 2),
            ("llama", 2, 4, 96, False, "llama3", 50000.0, 3), ("mistral", 1, 2, 96, True, "default", 10000.0, 4),
            ("qwen2", 2, 2, 96, False, "default", 10000.0, 5), ("qwen2", 1, 1, 96, True, "default", 1e6, 6),
            ("qwen3", 2, 2, 96, False, "default", 10000.0, 7), ("qwen3", 1, 1, 96, True, "yarn", 10000.0, 8),
            ("llama-bias", 2, 2, 96, True, "default", 10000.0, 9), ("mistral-window", 2, 2, 96, False, "default", 10000.0, 10),
            ("ministral3", 2, 2, 96, True, "yarn", 10000.0, 11), ("phi3", 2, 2, 96, True, "longrope", 10000.0, 12),
            ("smollm3", 5, 2, 96, True, "default", 50000.0, 13), ("granite", 2, 2, 96, True, "default", 10000.0, 14),
            ("gemma3", 6, 2, 96, True, "default", 1e6, 15), ("llama-untruncated", 2, 2, 96, True, "yarn", 500.0, 16)]
WIDTH, HEADS, VOCAB, TOKENS = 64, 4, 304, 80
PREFIXES = (7, 80)


def splitmix(state, n):
    with np.errstate(over="ignore"):
        z = np.uint64(state & MASK) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLD)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(name, shape, seed):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & MASK
    u = (splitmix(h ^ (seed * GOLD & MASK), int(np.prod(shape))) >> np.uint64(40)).astype(np.float32) * np.float32(2.0 ** -23) - np.float32(1)
    if len(shape) == 1:
        return u * np.float32(0.5) + np.float32(0 if name.endswith(".bias") else 1)
    return (u * np.float32(2 / np.sqrt(np.float64(shape[-1])))).reshape(shape)


def tokens(seed):
    return [int(v >> np.uint64(40)) % VOCAB for v in splitmix(1000 + seed, TOKENS)]


def config_of(family, layers, kv, ffn, tied, rope, base):
    import transformers as t
    config = {"llama": t.LlamaConfig, "mistral": t.MistralConfig, "qwen2": t.Qwen2Config, "qwen3": t.Qwen3Config, "llama-bias": t.LlamaConfig, "llama-untruncated": t.LlamaConfig,
              "mistral-window": t.MistralConfig, "ministral3": t.Ministral3Config, "phi3": t.Phi3Config, "smollm3": t.SmolLM3Config,
              "granite": t.GraniteConfig, "gemma3": t.Gemma3TextConfig}[family]
    parameters = {"rope_type": rope, "rope_theta": base}
    if rope not in ("default", "longrope"):
        parameters["factor"] = 8.0
    if rope == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if rope in ("llama3", "yarn", "longrope"):
        parameters["original_max_position_embeddings"] = 64
    more = {} if family in ("qwen2", "phi3", "smollm3", "granite") else {"head_dim": 32 if family in ("qwen3", "gemma3") else 16}
    if family in ("mistral", "ministral3"):
        more["sliding_window"] = None
    if family == "mistral-window":
        more["sliding_window"] = 5
    if family == "llama-bias":
        more |= {"attention_bias": True, "mlp_bias": True}
    if family == "llama-untruncated":
        parameters["truncate"] = False
    if family == "ministral3":
        parameters |= {"llama_4_scaling_beta": 0.3, "mscale": 1.0, "mscale_all_dim": 1.0}
    if family == "phi3":
        parameters |= {"partial_rotary_factor": 0.75, "short_factor": [1 + 0.0625 * i for i in range(6)], "long_factor": [1.5 + i for i in range(6)]}
        more["original_max_position_embeddings"] = 64
    if family == "granite":
        more |= {"embedding_multiplier": 2.5, "residual_multiplier": 0.45, "logits_scaling": 1.5, "attention_multiplier": 0.125}
    if family == "gemma3":
        more |= {"sliding_window": 5, "query_pre_attn_scalar": 32, "hidden_activation": "gelu_pytorch_tanh",
                 "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
        parameters = {"full_attention": parameters, "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}
    return config(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=HEADS,
                  num_key_value_heads=kv, max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=tied,
                  rope_parameters=parameters, attn_implementation="eager", bos_token_id=0, eos_token_id=2, pad_token_id=None, **more)


def tiny():
    from transformers import AutoModelForCausalLM
    out = []
    for i, (*shape, seed) in enumerate(VARIANTS):
        model = AutoModelForCausalLM.from_config(config_of(*shape)).float().eval()
        for name, p in model.named_parameters():
            p.data = torch.from_numpy(weights(name, tuple(p.shape), seed))
        model.tie_weights()
        logits = model(torch.tensor([tokens(seed)])).logits[0]
        for n in PREFIXES:
            out.append(numbers(f"tiny_{i}_{n}", logits[n - 1].tolist()))
    write("golden_tiny.inc", "transformers, f32", out)


TEXT = ("The river turns where the old mill stood, and nobody remembers why. In 1987 the bridge was rebuilt; 12 people came to see it. "
        "def area(r):\n    return 3.14159 * r ** 2\n\nQ: What is the capital of France?\nA:")


def demo(path, folder):
    sys.path.insert(0, folder)
    import oracle
    config, w, fields = oracle.load(path)
    w.setdefault("output.weight", w["token_embd.weight"])
    ids = oracle.tokenizer(fields).encode(TEXT).ids
    logits = oracle.Model(config, w)(torch.tensor([ids]))[0]
    out = [f"static const uint32_t demo_tokens[{len(ids)}] = {{\n{wrap(map(str, ids))}}};"]
    for n in (1, 12, len(ids)):
        values, top = logits[n - 1].sort(descending=True)
        row = logits[n - 1, 5::768]
        out += [f"static const uint32_t demo_{n}_top[64] = {{\n{wrap(map(str, top[:64].tolist()))}}};",
                numbers(f"demo_{n}_top_values", values[:64].tolist()), numbers(f"demo_{n}_fixed", row.tolist())]
    write("golden_demo.inc", "the dequantized weights of the demo model in PyTorch, f32; fixed: ids 5, 773, 1541, ...", out)


def wrap(items):
    return "\n".join(textwrap.wrap(", ".join(items), 116))


def numbers(name, values):
    return f"static const float {name}[{len(values)}] = {{\n{wrap('%.8ef' % v for v in values)}}};"


def write(name, what, lines):
    with open(name, "w") as f:
        f.write("\n".join([f"// Made by make_golden.py: {what}. Do not edit.", "// clang-format off"] + lines) + "\n")


torch.set_grad_enabled(False)
torch.manual_seed(0)
demo(*sys.argv[1:]) if len(sys.argv) > 1 else tiny()
