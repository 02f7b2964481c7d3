"""The command line, asked as a user asks it: every option changes what it promises. Standard library only.

  test_commands.py GYRE MAKE_MODEL [unittest arguments]"""
import json, os, re, resource, shutil, struct, subprocess, sys, unittest

from case import GYRE, MAKE_MODEL, Case, run


class Options(Case):
    def test_devices(self):
        rows = self.json("devices")["devices"]
        self.assertIn("cpu", [d["id"] for d in rows])
        keys = {"id", "name", "driver", "software", "memory_bytes", "subgroup_sizes", "int8_dot", "f16", "cooperative_matrix", "faults"}
        for d in rows:
            self.assertEqual(keys - set(d), set())
            self.assertTrue(all(isinstance(line, str) for line in d["faults"]))
        self.assertIn("cpu", self.done("devices")[0])

    def test_devices_that_would_end_the_program(self):
        """PoCL aborts where it finds no ld, and where /sys is missing: it is not asked then, and the reason is told."""
        pocl = lambda found: [d for d in found["devices"] if "Portable Computing Language" in d["driver"]]
        if not pocl(self.json("devices")):
            self.skipTest("no PoCL")
        lonely = not [d for d in self.json("devices")["devices"] if d["id"] == "opencl:1"]
        hidden = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /sys && exec "$0" "$@"']
        ways = [([], {"PATH": "/nowhere:"}, "no folder of PATH has it")]
        if shutil.which("unshare") and not subprocess.run([*hidden, "true"], capture_output=True).returncode:
            ways.append((hidden, {}, "/sys"))
        for before, env, word in ways:
            ask = lambda *args: subprocess.run([*before, GYRE, *args], capture_output=True, timeout=60, env={**os.environ, **env})
            said = ask("devices", "--json")
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertFalse(pocl(json.loads(said.stdout)))
            if lonely:
                self.assertIn(word, [a["why"] for a in json.loads(said.stdout)["absent"] if a["backend"] == "opencl"][0])
                said = ask("run", self.model, "-p", "the cat", "-n", "2", "--device", "opencl:0")
                self.assertEqual((said.returncode, word in said.stderr.decode()), (3, True), said.stderr)

    def test_tokenize(self):
        ids = self.json("tokenize", self.model, "-p", "the cat<|im_end|>")["tokens"]
        self.assertEqual(ids[-1], 2)
        self.assertNotEqual(ids, self.json("tokenize", self.model, "-p", "the dog<|im_end|>")["tokens"])
        with open(self.at("t.txt"), "w") as f:
            f.write("the cat<|im_end|>")
        self.assertEqual(ids, self.json("tokenize", self.model, "--text", self.at("t.txt"))["tokens"])
        self.fails(2, "tokenize", self.model, "--text", self.at("t.txt"), "-p", "a", word="exclude each other")
        self.fails(2, "tokenize", self.model, word="missing option")
        self.assertEqual(self.done("tokenize", self.model, "-p", "the cat<|im_end|>")[0].split(), [str(i) for i in ids])

    def with_bos(self):
        """The model with BOS added, as its metadata say."""
        data, key = self.read(self.model), b"tokenizer.ggml.add_bos_token"
        at = data.index(key) + len(key) + 4
        return self.put("bos.gguf", data[:at] + b"\1" + data[at + 1:])

    def test_bos(self):
        model, ids = self.with_bos(), lambda *args: self.json("tokenize", *args)["tokens"]
        plain = ids(self.model, "-p", "the cat")
        self.assertEqual(ids(model, "-p", "the cat"), [0] + plain)
        self.assertEqual(ids(model, "-p", "<|endoftext|>the cat"), [0] + plain)  # not twice
        self.assertEqual(ids(model, "-p", "the cat", "--no-bos"), plain)
        self.assertEqual(ids(self.model, "-p", "the cat", "--bos"), [0] + plain)
        run = lambda *args: self.json("run", *args, "--device", "cpu", "-n", 6)
        as_said, without = run(model, "-p", "the cat"), run(model, "-p", "the cat", "--no-bos")
        self.assertEqual(as_said["prompt_tokens"], without["prompt_tokens"] + 1)
        self.assertEqual(as_said["tokens"], run(self.model, "-p", "<|endoftext|>the cat")["tokens"])
        self.assertEqual(as_said["tokens"], run(self.model, "-p", "the cat", "--bos")["tokens"])
        self.assertEqual(without["tokens"], run(self.model, "-p", "the cat")["tokens"])
        for command in ("run", "tokenize"):
            self.fails(2, command, model, "-p", "x", "--bos", "--no-bos", word="--no-bos")
        # Windows of an evaluation have none unless asked for; then each has one of its ctx tokens.
        figures = lambda *args: self.json("eval", *args, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 3)
        self.assertEqual(figures(model)["nll"], figures(self.model)["nll"])
        bos = figures(model, "--bos")
        self.assertEqual(bos["tokens"], 3 * 31)
        self.assertNotEqual(bos["nll"], figures(model)["nll"])

    def test_pre_tokenizer(self):
        data = self.read(self.model)
        nameless = self.put("nameless.gguf", data.replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.prX"))
        strange = self.put("strange.gguf", data.replace(b"smollm", b"martin"))
        ids = self.json("tokenize", self.model, "-p", "the cat 1234")["tokens"]
        status, out, err = run("tokenize", nameless, "-p", "the cat 1234", "--json")
        self.assertEqual((status, err.startswith("warning: "), "default" in err, "--pre" in err), (0, True, True, True), err)
        for model in (nameless, strange):
            status, out, err = run("tokenize", model, "-p", "the cat 1234", "--json", "--pre", "smollm")
            self.assertEqual((status, json.loads(out)["tokens"], err), (0, ids, ""))
        for command in (("tokenize", strange, "-p", "x"), ("run", strange, "-p", "x", "--device", "cpu"), ("eval", strange, "--text", self.text, "--device", "cpu"),
                        ("tokenize", self.model, "-p", "x", "--pre", "martin")):
            for known in ("smollm", "gemma4 and 46 other names"):
                self.fails(1, *command, word=known)
        self.done("run", strange, "-p", "x", "--device", "cpu", "-n", 1, "--pre", "smollm")
        self.done("eval", strange, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 1, "--pre", "smollm")

    def test_words_of_a_model_that_does_not_run(self):
        """Text and templates need no weights: what config.json asks of them refuses a run only."""
        folder = self.at("unrun")
        subprocess.run([MAKE_MODEL, folder, "HF"], check=True)
        ids = self.json("tokenize", folder, "-p", "the cat")["tokens"]
        self.put("unrun/chat_template.jinja", b"{{ messages[0].content }}")
        config = json.loads(self.read(os.path.join(folder, "config.json")))
        for change, word in (({"model_type": "zorblax", "layer_types": ["conv"]}, "zorblax"), ({"is_causal": False}, "is_causal")):
            self.put("unrun/config.json", json.dumps({**config, **change}).encode())
            self.assertEqual(self.json("tokenize", folder, "-p", "the cat")["tokens"], ids)
            self.assertEqual(self.done("template", folder, "--json-file", self.put("talk.json", b'{"messages": [{"content": "hi"}]}'))[0], "hi")
            self.fails(1, "run", folder, "-p", "the cat", "--device", "cpu", word=word)

    def test_tokenizer_that_nothing_runs(self):
        data = self.read(self.model)
        model, out = self.put("spm.gguf", data.replace(b"gpt2", b"llam")), self.at("spm-out.gguf")
        status, _, err = run("quantize", model, "-o", out, "--recipe", "rtn")
        warned = [i for i, x in enumerate(err.splitlines()) if x.startswith("warning: ") and "tokenizer" in x]
        self.assertEqual((status, warned[:1]), (0, [0]), err)  # before the work

    def test_run(self):
        base = ("run", self.model, "-p", "the cat", "--device", "cpu")
        greedy = self.json(*base, "-n", 12)
        self.assertEqual(greedy["device"], "cpu")
        self.assertLessEqual(len(greedy["tokens"]), 12)
        for key in ("text", "prefill_tps", "decode_tps", "warmup_s"):
            self.assertIn(key, greedy)
        self.assertEqual(len(self.json(*base, "-n", 3)["tokens"]), min(3, len(greedy["tokens"])))
        self.assertNotEqual(self.json("run", self.model, "-p", "a dog", "--device", "cpu", "-n", 12)["tokens"], greedy["tokens"])
        hot = lambda *more: self.json(*base, "-n", 12, "--temp", 50, *more)["tokens"]
        self.assertNotEqual(hot("--seed", 1), greedy["tokens"])
        self.assertNotEqual(hot("--seed", 1), hot("--seed", 2))
        self.assertEqual(hot("--seed", 1), hot("--seed", 1))
        self.assertEqual(hot("--seed", 1, "--top-k", 1), greedy["tokens"])
        self.assertEqual(hot("--seed", 1, "--top-p", 0.000001), greedy["tokens"])
        out, err = self.done(*base, "-n", 5)
        self.assertIn("tok/s", err)
        self.assertIn("GB/s", err)
        self.assertEqual(self.json(*base, "-n", 50, "--ctx", 16)["stop"], "the context's end")

    def test_texts_from_pipes(self):
        """Prompts longer than a command line, and texts that are no files."""
        base = (GYRE, "run", self.model, "-n", "3", "--device", "cpu", "--json")
        want = self.json("run", self.model, "-p", "the cat", "-n", 3, "--device", "cpu")
        piped = lambda data, args=base: subprocess.run(args, input=data, capture_output=True, timeout=300)
        p = piped(b"the cat")
        self.assertEqual((p.returncode, json.loads(p.stdout)["tokens"]), (0, want["tokens"]), p.stderr)
        with open(self.put("prompt.txt", b"the cat"), "rb") as f:
            p = subprocess.run(base, stdin=f, capture_output=True, timeout=300)
        self.assertEqual(json.loads(p.stdout)["tokens"], want["tokens"])
        p = piped(b"the cat " * 40000)  # 320,000 bytes: too long for this model, not for the way
        self.assertEqual((p.returncode, b"context" in p.stderr), (1, True), p.stderr)
        p = piped(b"")
        self.assertEqual((p.returncode, b"empty prompt" in p.stderr), (1, True), p.stderr)
        ids = self.done("tokenize", self.model, "-p", "the cat")[0]
        p = piped(b"the cat", (GYRE, "tokenize", self.model, "--text", "/dev/stdin"))
        self.assertEqual((p.returncode, p.stdout.decode()), (0, ids), p.stderr)

    def test_run_bits(self):
        q = self.quantized("bits.gguf", "--act", 16, "--kv", 16)
        base = ("run", q, "-p", "the cat", "--device", "cpu", "-n", 2)
        self.assertEqual([self.json(*base)[k] for k in ("act", "kv")], [16, 16])
        self.assertEqual([self.json(*base, "--act", 8, "--kv", 4)[k] for k in ("act", "kv")], [8, 4])

    def test_keys_and_values_of_two_widths(self):
        q = self.quantized("widths.gguf", "--kv", "8/4")
        base, widths = ("run", q, "-p", "the cat", "--device", "cpu", "-n", 2), ("kv", "kv_v")
        m = self.json("inspect", q)["metadata"]
        self.assertEqual((m["gyre.version"], m["gyre.kv_bits"], m["gyre.kv_bits_v"]), (5, 8, 4))
        for given, want in ((), [8, 4]), (("--kv", 8), [8, 8]), (("--kv", "16/4"), [16, 4]), (("--kv", "4/16"), [4, 16]):
            self.assertEqual([self.json(*base, *given)[k] for k in widths], want)
        self.assertIn("kv 8/4", self.done(*base)[1])
        self.assertEqual([self.json("eval", q, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 1)[k] for k in widths], [8, 4])
        self.assertEqual(json.loads(self.read(q + ".manifest.json"))["kv_bits_v"], 4)
        self.done("verify", q, "--base", self.model)
        self.done("reproduce", q + ".manifest.json", "--base", self.model)
        one = self.json("inspect", self.quantized("width.gguf", "--kv", "4/4"))["metadata"]
        self.assertEqual((one["gyre.version"], one["gyre.kv_bits"], "gyre.kv_bits_v" in one), (1, 4, False))
        self.assertEqual(self.json("inspect", q)["model"]["kv_clip_v"], m.get("gyre.kv_clip_v", m["gyre.kv_clip"]))
        for bad in "8/5", "8/", "/4", "8/4/4", "8x4":
            self.fails(2, *base, "--kv", bad, word="it takes one of 16,8,4, or two as in 8/4")
        folder = self.at("widths-hf")
        subprocess.run([MAKE_MODEL, folder, "HF"], check=True)
        self.fails(1, "quantize", folder, "-o", self.at("dir"), "--kv", "8/4", word="one width for both")

    def test_taps_of_other_widths(self):
        """Exceptions of a recipe may give what a linear reads other bits: the file says it, inspect shows it, --act overrides it."""
        recipe = lambda rule: self.put("taps.yaml", f"name: taps\nrotate: true\nrounding: [rtn]\nexceptions: [{rule}]\n".encode())
        down = recipe("{tensors: '*ffn_down*', act: 8}")
        q = self.quantized("taps.gguf", "--act", 4, "--recipe", down)
        doc = self.json("inspect", q)
        layers = doc["model"]["layers"]
        self.assertEqual((doc["metadata"]["gyre.version"], doc["metadata"]["gyre.act_bits"]), (6, 4))
        self.assertEqual(doc["model"]["tap_bits"], {"down": [8] * layers})
        self.assertIn(f"tap_bits       down 8 ({layers} of {layers} blocks)\n", self.done("inspect", q)[0])
        nll = lambda file, *act: self.json("eval", file, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 2, *act)["nll"]
        plain = self.quantized("plain.gguf", "--act", 4, "--recipe", recipe(""))
        self.assertIsNone(self.json("inspect", plain)["model"]["tap_bits"])
        self.assertEqual(nll(q), nll(q, "--act", 4))
        self.assertNotEqual(nll(q), nll(plain))
        for act in 8, 16:
            self.assertEqual(nll(q, "--act", act), nll(plain, "--act", act))
        self.done("verify", q, "--base", self.model)
        self.done("reproduce", q + ".manifest.json", "--base", self.model)
        self.fails(1, "quantize", self.model, "-o", self.at("taps-bad.gguf"), "--recipe", recipe("{tensors: '*attn_q*', act: 4}"), word="reads the same")
        folder = self.at("taps-hf")
        subprocess.run([MAKE_MODEL, folder, "HF"], check=True)
        self.fails(1, "quantize", folder, "-o", self.at("taps-dir"), "--act", 4, "--recipe", recipe("{tensors: '*ffn_down*', act: 8}"), word="one width of activations")

    def test_run_special(self):
        base = ("run", self.model, "-p", "the cat", "--device", "cpu", "-n", 200, "--temp", 100)
        for seed in range(40):  # some draw ends the text: shown only when asked for
            shown = self.json(*base, "--seed", seed, "--special")
            if shown["stop"] == "end of text":
                plain = self.json(*base, "--seed", seed)
                self.assertEqual(len(shown["tokens"]), len(plain["tokens"]) + 1)
                self.assertTrue(shown["text"].endswith(("<|im_end|>", "<|endoftext|>")))
                self.assertFalse(plain["text"].endswith("|>"))
                return
        self.fail("no draw ended the text")

    def test_eval(self):
        base = ("eval", self.model, "--text", self.text, "--device", "cpu")
        r = self.json(*base, "--ctx", 32, "--windows", 3)
        self.assertEqual(r["tokens"], 3 * 31)
        self.assertAlmostEqual(r["ppl"], 2.718281828459045 ** r["nll"], delta=1e-6 * r["ppl"])
        self.assertGreater(r["ppl_stderr"], 0)
        self.assertNotIn("kl", r)
        self.assertEqual(self.json(*base, "--ctx", 16, "--windows", 3)["tokens"], 3 * 15)
        self.assertGreater(self.json(*base, "--ctx", 32)["tokens"], 3 * 31)
        q = self.quantized("eval.gguf", "--wgroup", 0, "--act", 16, "--kv", 16)
        with_reference = self.json("eval", q, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 3, "--reference", self.model)
        self.assertGreater(with_reference["kl"], 0)
        self.assertLessEqual(with_reference["top1_agreement"], 1)
        four = self.json("eval", q, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 3, "--act", 4)
        cache = self.json("eval", q, "--text", self.text, "--device", "cpu", "--ctx", 32, "--windows", 3, "--kv", 4)
        self.assertEqual(len({with_reference["nll"], four["nll"], cache["nll"]}), 3)

    def tasks(self, name, rows):
        return self.put(name, "".join(json.dumps(r) + "\n" for r in rows).encode())

    def test_tasks(self):
        base = ("eval", self.model, "--device", "cpu", "--ctx", 48)
        answers = [" the cat", " a dog", " the hat"]
        row = lambda doc, context, text, label: {"doc_id": doc, "context": context, "continuation": text, "label": label}
        rows = [row(d, c, a, d % 3) for d, c in enumerate(["the cat sat on", "a dog saw", "in the hat", "the", ""]) for a in answers]
        path = self.tasks("three.jsonl", rows)
        r = self.json(*base, "--tasks", path)
        task = r["tasks"][0]
        self.assertNotIn("nll", r)
        self.assertEqual((task["name"], task["items"], task["requests"]), ("three", 5, 15))
        self.assertNotIn("flips", task)
        # One request of one item: its likelihood is the loss of the same tokens as a window.
        text = "the cat sat on the hat"
        with open(self.at("w.txt"), "w") as f:
            f.write(text)
        ids = self.json("tokenize", self.model, "-p", text)["tokens"]
        first = next(n for n in range(1, len(text)) if len(self.json("tokenize", self.model, "-p", text[:n])["tokens"]) == 1
                     and self.json("tokenize", self.model, "-p", text[:n])["tokens"] == ids[:1])
        one = self.tasks("one.jsonl", [row("a", text[:first], text[first:], "none")])
        loss = self.json("eval", self.model, "--device", "cpu", "--text", self.at("w.txt"), "--ctx", len(ids), "--windows", 1, "--tasks", one)
        bits = loss["nll"] * (len(ids) - 1) / 0.6931471805599453 / len(text[first:])
        self.assertAlmostEqual(loss["tasks"][0]["bits_per_byte"], bits, delta=1e-5 * bits)
        # The answer whose likelihood is largest is the item's: labels that say so are all right.
        lone = lambda context, a: self.json(*base, "--tasks", self.tasks("l.jsonl", [row(0, context, a, 0)]))["tasks"][0]
        likely = [-lone("a dog saw", a)["bits_per_byte"] * len(a) for a in answers]
        best = likely.index(max(likely))
        for label in range(3):
            mine = self.tasks("mine.jsonl", [row(0, "a dog saw", a, label) for a in answers])
            self.assertEqual(self.json(*base, "--tasks", mine)["tasks"][0]["accuracy"], float(label == best))
        # A model is its own reference; a rounded one has another likelihood.
        same = self.json(*base, "--act", 16, "--kv", 16, "--tasks", path, "--reference", self.model)["tasks"][0]
        self.assertEqual((same["flips"], same["accuracy"], same["difference_stderr"]), (0, same["reference_accuracy"], 0))
        q = self.quantized("tasks.gguf", "--wgroup", 0, "--act", 4, "--kv", 4)
        self.assertNotEqual(self.json("eval", q, "--device", "cpu", "--ctx", 48, "--tasks", path)["tasks"][0]["bits_per_byte"], task["bits_per_byte"])
        out, log = self.done(*base, "--tasks", path, "--tasks", one, "--reference", self.model)
        self.assertEqual([l.split()[0] for l in out.splitlines()], ["task", "three", "one"])
        self.assertIn("lost their beginning", self.done("eval", self.model, "--device", "cpu", "--ctx", 8, "--tasks", path)[1])

    def test_bad_tasks(self):
        base = ("eval", self.model, "--device", "cpu", "--ctx", 48, "--tasks")
        good = {"doc_id": 0, "context": "the", "continuation": " cat", "label": 0}
        for rows, word in (([good, "x"], "line 2 is no JSON object"), ([good, {"doc_id": 1}], "line 2 lacks"), ([], "no line"),
                           ([good, dict(good, label=1)], "line 2 has another label"), ([dict(good, label=2)] * 2, "item 1 has 2 answers"),
                           ([good, dict(good, doc_id=1), good], "line 3 has a doc_id that came before"), ([dict(good, continuation="")], "line 1 lacks"), ([dict(good, doc_id=None)], "line 1 lacks")):
            path = self.put("bad.jsonl", "".join((r if r == "x" else json.dumps(r)) + "\n" for r in rows).encode())
            self.fails(1, *base, path, word=word)
        self.fails(1, *base, self.at("absent.jsonl"), word="absent.jsonl")
        self.fails(1, *base, self.tasks("long.jsonl", [dict(good, continuation=" cat" * 60)]), word="line 1 has a continuation that does not fit")
        self.fails(2, "eval", self.model, "--device", "cpu", word="--tasks FILE")
        self.fails(2, *base, self.tasks("one.jsonl", [good]), "--save-reference", self.at("l"), word="--text FILE")

    def test_inspect(self):
        r = self.json("inspect", self.model)
        self.assertEqual(r["model"]["layers"], 2)
        self.assertTrue(any(t["name"] == "blk.1.ffn_down.weight" for t in r["tensors"]))
        self.assertEqual((r["model"]["act_clip"], r["model"]["kv_clip"], r["model"]["kv_centre"]), (1, 1, False))
        self.assertEqual((r["model"]["window"], r["model"]["windowed_layers"]), (0, 0))
        self.assertIn("blk.1.ffn_down.weight", self.done("inspect", self.model)[0])
        dots = []
        for act in (16, 8):
            self.done("inspect", self.model, "--graph", self.at("g.dot"), "--device", "cpu", "--act", act, "--kv", 8)
            dots.append(self.read(self.at("g.dot")).decode())
            self.assertIn("digraph", dots[-1])
        self.fails(2, "inspect", self.model, "--device", "cpu", word="--graph")
        self.fails(2, "inspect", self.model, "--tune", "on", word="--graph")
        self.assertNotEqual(dots[0], dots[1])

    def verdict(self, path):
        """What inspect says in JSON; the text says the same, and any file that can be parsed ends well."""
        v, (text, _) = self.json("inspect", path)["verdict"], self.done("inspect", path)
        self.assertIn("runs             " + ("yes" if v["runs"] else "no"), text)
        self.assertEqual(v["runs"], not v["why_not"])
        for line in v["why_not"]:
            self.assertIn(line, text)
        return v

    def test_inspect_says_whether_a_file_runs(self):
        v = self.verdict(self.model)
        self.assertEqual((v["runs"], v["architecture"], v["tokenizer"], v["pre_tokenizer"], v["quantization"], v["unread_types"]), (True, "llama", "gpt2", "smollm", None, {}))
        self.assertEqual({(q["profile"], q["format"]) for q in v["quantizes"] if q["ok"]}, {("full", "gguf"), ("portable", "gguf")})
        self.assertEqual(sum(v["tensor_types"].values()), len(self.json("inspect", self.model)["tensors"]))
        for family in ("gemma3", "phi3"):
            folder = self.at(f"{family}-verdict-hf")
            subprocess.run([MAKE_MODEL, folder, "HF", family], check=True)
            v, m, text = self.verdict(folder), self.json("inspect", folder)["model"], self.done("inspect", folder)[0]
            said = f"{m['windowed_layers']} of {m['layers']} keep about the last {m['window']} tokens"
            self.assertEqual(said in text, m["windowed_layers"] > 0)
            self.assertEqual(m["windowed_layers"] > 0, family == "gemma3")
            self.assertTrue(v["runs"], v["why_not"])
            self.assertTrue(v["quantizes"][0]["ok"])
        made = self.verdict(self.quantized("verdict.gguf"))
        self.assertEqual((made["runs"], made["architecture"], [q["ok"] for q in made["quantizes"]]), (True, "gyre-llama", [False] * 2))
        self.assertIn("gyre wrote this file with rotations", made["quantizes"][0]["why_not"])

    def test_inspect_of_many_types(self):
        text = lambda s: struct.pack("<Q", len(s)) + s
        n = 100000  # tensors, each of a type of its own
        data = b"GGUF" + struct.pack("<IQQ", 3, n, 1) + text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
        data += b"".join(text(b"t%d" % i) + struct.pack("<IQIQ", 1, 32, 1000 + i, 0) for i in range(n)) + bytes(64)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        doc = self.json("inspect", self.put("types.gguf", data))
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, 10)
        self.assertEqual((len(doc["tensors"]), len(doc["verdict"]["unread_types"])), (n, n))
        self.assertIn('"t7" has type unknown (1007)', doc["verdict"]["why_not"][7])

    def test_inspect_says_why_not(self):
        whole = self.read(self.model)
        def typed(data, name, type_id):  # another type for a matrix of the file, whose numbers stay where they are
            at = data.index(name.encode()) + len(name) + 4 + 16
            return data[:at] + type_id.to_bytes(4, "little") + data[at + 4:]
        odd = typed(typed(whole, "blk.0.ffn_down.weight", 16), "blk.1.ffn_up.weight", 99)
        v = self.verdict(self.put("odd.gguf", odd))
        self.assertEqual((v["runs"], v["unread_types"], len(v["why_not"])), (False, {"IQ2_XXS": 1, "type 99": 1}, 2))
        self.assertIn('"blk.0.ffn_down.weight" has type IQ2_XXS (16); gyre reads F32, F16, BF16, ', v["why_not"][0])
        self.assertIn("unknown (99)", v["why_not"][1])
        self.assertFalse(any(q["ok"] for q in v["quantizes"]))
        shown = {t["name"]: t for t in self.json("inspect", self.at("odd.gguf"))["tensors"]}
        self.assertEqual((shown["blk.0.ffn_down.weight"]["type"], shown["blk.0.ffn_down.weight"]["bytes"]), ("IQ2_XXS", None))
        self.assertEqual(len(shown), len(self.json("inspect", self.model)["tensors"]))
        self.fails(1, "run", self.at("odd.gguf"), "-p", "x", "--device", "cpu", word="IQ2_XXS")
        other = odd.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0mamba").replace(b"smollm", b"smoll9")
        v = self.verdict(self.put("other.gguf", other))
        self.assertEqual((v["architecture"], v["pre_tokenizer"], len(v["why_not"])), ("mamba", "smoll9", 4))
        self.assertIn('architecture "mamba"; gyre runs llama, ', v["why_not"][2])
        self.assertIn("smoll9", v["why_not"][3])
        self.assertIsNone(self.json("inspect", self.at("other.gguf"))["model"])
        folder = self.at("why-hf")
        subprocess.run([MAKE_MODEL, folder, "HF"], check=True)
        config = os.path.join(folder, "config.json")
        with open(config) as f:
            good = json.load(f)
        for field, value, says in (("quantization_config", {"quant_method": "fp8"}, "quant_method of quantization_config is fp8; gyre reads compressed-tensors, awq and gptq"),
                                   ("rope_scaling", {"rope_type": "proportional", "factor": 2.0}, "rope type is proportional; gyre supports default, linear, llama3, yarn, longrope and dynamic"),
                                   ("hidden_act", "relu6", "hidden_act is relu6"), ("num_hidden_layers", 5, "model.layers.2."), ("num_attention_heads", None, "attention.head_count is missing")):
            with open(config, "w") as f:
                json.dump({**good, field: value}, f)
            v = self.verdict(folder)
            self.assertEqual((v["runs"], len(v["why_not"])), (False, 1), v["why_not"])
            self.assertIn(says, v["why_not"][0])
            self.fails(1, "run", folder, "-p", "x", "--device", "cpu", word=says)

    def test_help(self):
        self.assertIn("quantize", self.done("--help")[0])
        self.assertIn("gyre", self.done("--version")[0])
        for command, option in (("devices", "--json"), ("quantize", "--wgroup"), ("recipes", "--json"), ("run", "--top-k"), ("eval", "--reference"), ("bench", "--gen"), ("inspect", "--graph"), ("tokenize", "--text"), ("verify", "--base"), ("reproduce", "--work")):
            self.assertIn(option, self.done(command, "--help")[0])
            self.assertEqual(self.done("help", command), self.done(command, "--help"))
        self.assertEqual(self.done("help"), self.done("--help"))
        self.assertRegex(self.done("help", "run")[0], r"(?m)^  --chat-template FILE\|NAME\n {25}with --chat")
        self.fails(2, "help", "rnu", word="rnu")
        self.fails(2, "help", "run", "eval", word="eval")

    def test_every_option_is_in_the_documentation(self):
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
        pages = [os.path.join(root, "README.md"), *(os.path.join(root, "docs", x) for x in os.listdir(os.path.join(root, "docs")) if x.endswith(".md"))]
        words = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", "".join(self.read(x).decode() for x in pages)))
        commands = re.findall(r"^  ([a-z]+)  ", self.done("--help")[0], re.M)
        self.assertGreater(len(commands), 12)
        for command in commands:
            for option in re.findall(r"^  (--?[a-z-]+)", self.done(command, "--help")[0], re.M):
                self.assertIn(option, words, command)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
