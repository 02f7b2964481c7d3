"""gyre eval and gyre compare, asked as a user asks them. Standard library only.

  test_evaluation.py GYRE MAKE_MODEL [unittest arguments]"""
import csv, hashlib, json, os, shutil, signal, subprocess, sys, time, unittest

from case import GYRE, MAKE_MODEL, Case, run


class Eval(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.other = cls.at("other.txt")
        with open(cls.other, "w") as f:
            f.write("a dog sat under a tree at noon, and the rain fell. " * 14)

    def eval(self, *args, model=None):
        return self.json("eval", model or self.model, "--device", "cpu", "--ctx", 32, *args)

    def test_texts(self):
        one, two = self.eval("--text", self.text), self.eval("--text", self.other)
        both = self.eval("--text", self.text, "--text", self.other)
        self.assertNotIn("texts", one)
        self.assertEqual([t["text"] for t in both["texts"]], [self.text, self.other])
        for alone, row in zip((one, two), both["texts"]):
            for key in ("tokens", "windows", "nll", "nll_stderr", "ppl", "ppl_stderr", "stderr_from"):
                self.assertEqual(alone[key], row[key], key)
        self.assertEqual(both["tokens"], one["tokens"] + two["tokens"])
        self.assertAlmostEqual(both["nll"], (one["nll"] * one["tokens"] + two["nll"] * two["tokens"]) / both["tokens"])
        self.assertEqual(one["stderr_from"], "windows")
        self.assertEqual(self.eval("--text", self.text, "--windows", 7)["stderr_from"], "tokens")
        table = self.done("eval", self.model, "--device", "cpu", "--ctx", 32, "--text", self.text, "--text", self.other)[0].splitlines()
        self.assertEqual(len(table), 5)
        self.assertEqual(len({len(x) for x in table[1:4]}), 1)
        many = [x for _ in range(17) for x in ("--text", self.text)]
        self.fails(2, "eval", self.model, *many, word="16")

    def test_windows_that_fit(self):
        short, long = self.at("short"), self.put("long.txt", self.read(self.text) + b"and so on it went. " * 20)
        base = ("--text", long, "--windows", 1, "--device", "cpu")
        subprocess.run([MAKE_MODEL, short, "HF"], check=True)
        with open(os.path.join(short, "config.json")) as f:
            config = json.load(f)
        with open(os.path.join(short, "config.json"), "w") as f:
            json.dump({**config, "max_position_embeddings": 100}, f)
        self.assertEqual([self.json("eval", m, *base)["ctx"] for m in (self.model, short)], [512, 100])
        self.assertEqual(self.json("eval", self.model, *base, "--reference", short)["ctx"], 100)
        self.assertIn("windows of 100 tokens (--ctx)", self.done("eval", short, *base)[1])
        self.assertNotIn("--ctx", self.done("eval", short, *base, "--ctx", 100)[1])
        task = self.put("one.jsonl", json.dumps({"doc_id": 0, "context": "the cat", "continuation": " sat", "label": 0}).encode())
        self.assertNotIn("windows", self.done("eval", short, "--tasks", task, "--device", "cpu")[1])  # a task has none
        self.fails(1, "eval", self.model, *base, "--ctx", 513, word="give --ctx 512")
        self.fails(1, "eval", self.model, *base, "--ctx", 101, "--reference", short, word=f"({short}): --ctx 101")

    def test_references(self):
        q = self.quantized("ref.gguf", "--wgroup", 0)
        texts = ("--text", self.text, "--text", self.other)
        want = self.eval(*texts, "--reference", self.model, model=q)
        stored = self.at("logits")
        self.eval(*texts, "--act", 16, "--kv", 16, "--save-reference", stored, "--reference-k", 304)
        got = self.eval(*texts, "--reference", stored, model=q)
        self.assertEqual((want["kl_kind"], got["kl_kind"]), ("exact", "exact"))
        for a, b in zip([want, *want["texts"]], [got, *got["texts"]]):
            self.assertAlmostEqual(a["kl"], b["kl"], delta=1e-5)
            self.assertAlmostEqual(a["kl_stderr"], b["kl_stderr"], delta=1e-5)
            self.assertEqual((a["top1_agreement"], a["nll"]), (b["top1_agreement"], b["nll"]))
            self.assertGreater(a["top1_stderr"], 0)
        self.eval(*texts, "--act", 16, "--kv", 16, "--save-reference", stored)
        bound = self.eval(*texts, "--reference", stored, model=q)
        self.assertEqual(bound["kl_kind"], "top-k bound")
        self.assertLess(bound["kl"], want["kl"])
        self.assertGreater(bound["kl"], want["kl"] / 4)
        alone = self.eval("--text", self.other, "--reference", stored, model=q)
        self.assertEqual(alone["kl"], bound["texts"][1]["kl"])
        self.assertIn("at least", self.done("eval", q, "--device", "cpu", "--ctx", 32, "--text", self.text, "--reference", stored)[0])

    def test_beyond_the_mean(self):
        q = self.quantized("beyond.gguf", "--wgroup", 0)
        texts = ("--text", f"a cat={self.text}", "--text", self.other)
        r = self.eval(*texts, "--reference", self.model, "--by-position", model=q)
        for row in (r, *r["texts"]):
            self.assertTrue(0 < row["kl_median"] < row["kl_p90"] < row["kl_p99"] < row["kl_max"])
            self.assertTrue(row["kl_median"] < row["kl_max"] and 0 < row["dp_rms_stderr"] < row["dp_rms"] < 1)
        self.assertEqual([(t["text"], t["name"]) for t in r["texts"]], [(self.text, "a cat"), (self.other, "other.txt")])
        self.assertNotIn("kl_median", self.eval(*texts))
        alone = self.eval("--text", self.other, "--reference", self.model, model=q)
        for key in ("kl_median", "kl_p90", "kl_p99", "kl_max", "dp_rms"):
            self.assertAlmostEqual(alone[key], r["texts"][1][key], delta=1e-9)
        # A window of 32 has one row of positions, which is the whole; one of 100 has two, whose weighted mean is the whole.
        self.assertEqual([(p["from"], p["to"], p["tokens"]) for p in r["positions"]], [(1, 31, r["tokens"])])
        for key in ("nll", "kl"):
            self.assertAlmostEqual(r["positions"][0][key], r[key], delta=1e-9)
        self.assertAlmostEqual(r["texts"][0]["positions"][0]["kl_stderr"], r["texts"][0]["kl_stderr"], delta=1e-9)
        r = self.json("eval", q, "--device", "cpu", *texts, "--ctx", 100, "--reference", self.model, "--by-position")
        p = r["positions"]
        self.assertEqual([(x["from"], x["to"]) for x in p], [(1, 64), (65, 99)])
        self.assertEqual([x["tokens"] for x in p], [64 * r["windows"], 35 * r["windows"]])
        for key in ("nll", "kl"):
            self.assertAlmostEqual(sum(x[key] * x["tokens"] for x in p) / r["tokens"], r[key], delta=1e-9)
        self.assertNotIn("kl", self.eval(*texts, "--by-position")["positions"][0])
        out, _ = self.done("eval", q, "--device", "cpu", "--ctx", 32, *texts, "--reference", self.model, "--by-position")
        one = self.json("eval", q, "--device", "cpu", "--text", self.text, "--ctx", 32, "--windows", 1, "--reference", self.model, "--by-position")["positions"][0]
        self.assertTrue("kl" in one and "kl_stderr" not in one)  # of one window no error is known
        line = self.done("eval", q, "--device", "cpu", "--text", self.text, "--ctx", 32, "--windows", 1, "--reference", self.model, "--by-position")[0].splitlines()[-1]
        self.assertTrue(line.lstrip().startswith("1-31") and "+-" not in line)
        for word in ("a cat", "median", "99 %", "right token", "tokens before", "1-31"):
            self.assertIn(word, out)
        self.assertIn("KL of the median token", self.done("eval", q, "--device", "cpu", "--ctx", 32, "--text", self.text, "--reference", self.model)[0])
        # A name has no '/': this is a file; and a name alone, or none, is one too.
        self.put("x=y", self.read(self.text))
        self.assertEqual(self.eval("--text", self.at("x=y"))["nll"], self.eval("--text", self.text)["nll"])
        for text in ("name=", "=name"):
            self.fails(1, "eval", q, "--device", "cpu", "--ctx", 32, "--text", text, word=f"({text})")
        self.fails(1, "eval", q, "--device", "cpu", "--ctx", 32, "--text", f"a={self.text}", "--save-reference", self.text, word="a text")
        self.fails(2, "eval", q, "--device", "cpu", "--by-position", "--tasks", self.text, word="--by-position")

    def test_bad_references(self):
        stored, base = self.at("bad-logits"), ("eval", self.model, "--device", "cpu", "--ctx", 32)
        self.eval("--text", self.text, "--save-reference", stored)
        whole = self.read(stored)
        for name, data, word in (("cut", whole[:-100], "truncated"), ("head", whole[:50], "reference"), ("damaged", whole[:900] + b"x" + whole[901:], "checksum")):
            self.fails(1, *base, "--text", self.text, "--reference", self.put(name, data), word=word)
        self.fails(1, *base, "--text", self.other, "--reference", stored, word="other.txt")
        self.fails(1, *base, "--text", self.text, "--windows", 3, "--reference", stored, word="--windows")
        self.fails(1, *base, "--text", self.text, "--ctx", 31, "--reference", stored, word="--ctx 32")
        self.fails(1, *base, "--text", self.text, "--save-reference", self.at("no/logits"), word="no/logits")
        self.fails(1, *base, "--text", self.text, "--save-reference", self.at("x"), "--reference-k", 305, word="--reference-k")
        self.fails(1, *base, "--text", self.text, "--save-reference", self.at("full"), disk=8192, word="full")
        os.mkfifo(self.at("pipe")) # a file would replace it, as it would /dev/null
        self.fails(1, *base, "--text", self.text, "--save-reference", self.at("pipe"), word="device or pipe")
        self.fails(1, "quantize", self.model, "-o", self.at("pipe"), "--force", "--device", "cpu", "--recipe", "rtn", word="device or pipe")
        self.assertFalse([x for x in os.listdir(self.dir) if x.startswith(("full", "x"))])
        self.fails(2, *base, "--text", self.text, "--reference-k", 0, word="--reference-k")
        self.fails(2, *base, "--text", self.text, "--reference", self.model, "--reference-k", 8, word="--save-reference")
        self.fails(2, *base, "--tasks", self.text, "--windows", 3, word="--windows")

    def test_a_reference_of_other_tokens(self):
        """As many tokens are not the same tokens: a divergence between the two would say nothing."""
        task = self.put("task.jsonl", json.dumps({"doc_id": 0, "context": "the cat", "continuation": " sat", "label": 0}).encode())
        for name in ("same", "swapped"):
            folder = self.at(name)
            subprocess.run([MAKE_MODEL, folder, "HF"], check=True)
            path = os.path.join(folder, "tokenizer.json")
            with open(path) as f:
                tokenizer = json.load(f)
            vocab = tokenizer["model"]["vocab"]
            if name == "swapped":
                some = [c for c in "abcdefghijklmnopqrstuvwxyz" if c in vocab]
                vocab.update(zip(some, [vocab[c] for c in some[1:] + some[:1]]))
            with open(path, "w") as f:
                json.dump(tokenizer, f)
            for what in (("--text", self.text), ("--tasks", task)):
                args = ("eval", self.model, *what, "--ctx", 32, "--device", "cpu", "--reference", folder)
                if name == "same":
                    self.done(*args)
                else:
                    self.fails(1, *args, word="is another text")

    def test_what_a_kill_left_goes_with_the_next_run(self):
        args = ("eval", self.model, "--text", self.text, "--ctx", 32, "--device", "cpu", "--save-reference", self.at("kept.ref"))
        left = lambda: [x for x in os.listdir(self.dir) if x.startswith("kept.ref.tmp-")]
        p = subprocess.Popen([GYRE, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while p.poll() is None and not left():
            time.sleep(0.001)
        p.kill()
        p.wait()
        self.assertEqual(len(left()), 1)  # killed before it was done
        place, process = left()[0].split("-")[1:]
        self.assertEqual((len(place), process), (8, str(p.pid)))
        other = self.put("kept.ref.tmp-" + ("1" if place[0] == "0" else "0") + place[1:] + "-" + process, b"")  # of another host
        self.done(*args)
        self.assertEqual([self.at(x) for x in left()], [other])
        os.unlink(other)

    def test_one_value_has_no_error(self):
        task = self.put("lone.jsonl", json.dumps({"doc_id": 0, "context": "the cat", "continuation": " sat", "label": 0}).encode())
        base = ("eval", self.model, "--device", "cpu", "--reference", self.model)
        text, lone = ("--text", self.text, "--windows", 1, "--ctx"), ("--tasks", task, "--ctx", 32)
        r = self.json(*base, *text, 2)
        self.assertEqual(r["tokens"], 1)
        for key in ("nll_stderr", "ppl_stderr", "kl_stderr", "top1_stderr", "dp_rms_stderr"):
            self.assertIsNone(r[key], key)
        self.assertIsNotNone(self.json(*base, *text, 3)["nll_stderr"])
        self.assertEqual(self.done(*base, *text, 2)[0].count("+- unknown"), 4)
        t = self.json(*base, *lone)["tasks"][0]
        self.assertEqual((t["items"], t["stderr"], t["difference_stderr"]), (1, None, None))
        self.assertEqual(self.done(*base, *lone)[0].count("+- unknown"), 2)
        # In a comparison, kept and read back.
        compare = ("compare", self.model, "--recipes", "rtn", *text, 2, "--device", "cpu", "-o", self.at("one"), "--work", self.at("one.w"))
        self.done(*compare)
        first = json.loads(self.read(self.at("one.json")))["rows"]
        self.assertIsNone(first[1]["all"]["kl_stderr"])
        self.done(*compare)
        self.assertEqual(json.loads(self.read(self.at("one.json")))["rows"], first)

    def test_a_text_counts_once(self):
        """A copy would make every error look smaller, whatever its name; a folder is refused before any work."""
        copy = self.put("copy.txt", self.read(self.text))
        for command in (("eval", self.model), ("compare", self.model, "--recipes", "rtn", "-o", self.at("twice"))):
            for again in (self.text, copy, f"code={copy}"):
                self.fails(1, *command, "--text", self.text, "--text", again, "--ctx", 32, "--device", "cpu", word="text.txt holds the same text")
        said = run("eval", self.model, "--text", self.text, "--ctx", 32, "--device", "cpu", "--save-reference", self.dir)
        self.assertEqual((said[0], len(said[2].splitlines())), (1, 1), said)

    def test_texts_that_are_none(self):
        base = ("eval", self.model, "--device", "cpu", "--ctx", 32)
        self.fails(1, *base, "--text", self.put("empty.txt", b""), word="empty.txt")
        self.fails(1, *base, "--text", self.text, "--text", self.put("brief.txt", b"hi"), word="brief.txt")
        _, err = self.done(*base, "--text", self.put("latin.txt", b"caf\xe9 au lait " * 40))
        self.assertIn("latin.txt is not UTF-8 from byte 3 on", err)
        _, err = self.done(*base, "--text", self.put("cut.txt", "café au lait ".encode() * 40 + "é".encode()[:1]))
        self.assertNotIn("UTF-8", err)

    def test_calibrated_on(self):
        q = self.quantized("calibrated.gguf")
        manifest, path = json.loads(self.read(q + ".manifest.json")), q + ".manifest.json"
        ask = lambda: (self.eval("--text", self.text, "--text", self.other, model=q), run_err(q))
        run_err = lambda m: self.done("eval", m, "--device", "cpu", "--ctx", 32, "--text", self.text, "--text", self.other)[1]
        def put(text):
            with open(path, "w") as f:
                f.write(text)
        self.assertNotIn("calibrated", json.dumps(ask()[0]) + ask()[1].replace("calibrated.gguf", ""))
        manifest["calibration"] = {"texts": [{"sha256": hashlib.sha256(self.read(self.other)).hexdigest(), "bytes": 1, "name": "else.txt"}]}
        put(json.dumps(manifest))
        r, err = ask()
        self.assertEqual([t.get("calibrated_on") for t in r["texts"]], [None, True])
        self.assertTrue(r["calibrated_on"])
        self.assertEqual([x for x in err.splitlines() if "was calibrated on" in x], ["warning: calibrated.gguf was calibrated on other.txt; figures on that text flatter it"])
        calibration = manifest.pop("calibration")
        for whence in ({"calibration": calibration}, {"calibration": {"texts": []}, "from": {"calibration": calibration}}):
            put(json.dumps({**manifest, "from": whence}))
            self.assertEqual([t.get("calibrated_on") for t in ask()[0]["texts"]], [None, True])
        manifest["calibration"] = calibration
        for text in (json.dumps(manifest)[:-30], '{"calibration": 7}', '{"calibration": {"texts": [3, {}, {"sha256": 5}]}}', "[]"):
            put(text)
            self.assertNotIn("calibrated_on", ask()[0])
        os.unlink(path)
        self.assertNotIn("was calibrated on", ask()[1])


class Compare(Case):
    def compare(self, out, *args, recipes="quarot-rtn"):
        return ("compare", self.model, "--recipes", recipes, "--text", self.text, "--ctx", 32, "--windows", 3, "--device", "cpu", "-o", self.at(out), *args)

    def rows(self, out):
        return json.loads(self.read(self.at(out + ".json")))["rows"]

    def files(self, folder):
        return {x: (os.stat(os.path.join(folder, x)).st_ino, os.stat(os.path.join(folder, x)).st_mtime_ns) for x in os.listdir(folder)}

    def test_table(self):
        work = self.at("w")
        two = ("--settings", "W4A8KV8,W4g0A16", "--work", work, "--reference-k", 304)
        out, err = self.done(*self.compare("table", *two))
        rows = self.rows("table")
        self.assertEqual([(r["recipe"], r["setting"]) for r in rows], [("float", "A16KV16"), ("rtn", "W4g32A8KV8"), ("quarot-rtn", "W4g32A8KV8"), ("rtn", "W4g0A16KV16"), ("quarot-rtn", "W4g0A16KV16")])
        self.assertEqual(self.read(self.at("table.md")).decode(), out)
        self.assertEqual(len(self.read(self.at("table.csv")).splitlines()), 1 + 5)
        self.assertEqual(self.read(self.at("table.png"))[:8], b"\x89PNG\r\n\x1a\n")
        # The figures are those of the two commands, one after the other.
        by_hand = self.quantized("hand.gguf", "--wgroup", 0)
        want = self.json("eval", by_hand, "--text", self.text, "--ctx", 32, "--windows", 3, "--device", "cpu", "--act", 16, "--kv", 16, "--reference", self.model)
        got = rows[4]["texts"][0]
        for key in ("tokens", "nll", "ppl", "ppl_stderr", "top1_agreement"):
            self.assertEqual(want[key], got[key], key)
        self.assertAlmostEqual(want["kl"], got["kl"], delta=1e-5)
        self.assertEqual(got["kl_kind"], "exact")
        self.assertEqual(rows[1]["bits_per_weight"], 4.5)
        self.assertEqual(rows[0]["bits_per_weight"], 32)
        for key in ("bytes", "quantize_seconds", "eval_seconds"):
            self.assertGreater(rows[1][key], 0)
        # Again: nothing is made. Wider: only what is new, and weights without calibration are shared.
        before = self.files(work)
        os.unlink(self.at("table.json"))
        _, err = self.done(*self.compare("table", *two))
        self.assertIn("5 cells, 5 of them from", err)
        self.assertEqual(self.files(work), before)
        self.assertEqual(self.rows("table"), rows)
        _, err = self.done(*self.compare("wide", "--settings", "W4A8KV8,W4A4KV4,W4g0A16", "--work", work, "--reference-k", 304))
        self.assertIn("7 cells, 5 of them from", err)
        after = self.files(work)
        self.assertEqual({k: v for k, v in after.items() if k != "compare.json"}, {k: v for k, v in before.items() if k != "compare.json"})
        # Another text, windows or seed are other cells.
        for more in (("--windows", 2), ("--seed", 1)):
            _, err = self.done(*self.compare("other", *two, *more))
            self.assertNotIn(" 5 of them", err)

    def test_calibration_texts(self):
        """Where one text ends and the next begins counts: each has its share of the windows."""
        recipe, text = self.put("short.yaml", b"name: short\nrotate: true\ncalibration: {windows: 4, tokens: 32}\nrounding: [gptq]\n"), self.read(self.text)
        one, two = self.put("one.txt", text[:400]), self.put("two.txt", text[400:])
        for calib, kept in (((self.text,), 0), ((one, two), 1), ((self.text,), 2), ((one, two), 2)):
            _, err = self.done(*self.compare("texts", "--no-baseline", "--work", self.at("texts"), *(x for c in calib for x in ("--calib", c)), recipes=recipe))
            self.assertIn(f"2 cells, {kept} of them from", err)
            table = self.read(self.at("texts.md")).decode()
            self.assertIn("Calibrated on " + ", ".join(os.path.basename(c) for c in calib) + ".", table)
            self.assertEqual([os.path.basename(c) for c in calib], json.loads(self.read(self.at("texts.json")))["calib"])
            for said in err, table:  # the text is what the table is of
                self.assertEqual("flatter" in said, calib == (self.text,))
        _, err = self.done(*self.compare("texts", "--calib", self.text))
        self.assertIn("no recipe reads a text", err)
        self.assertNotIn("alibrated", self.read(self.at("texts.md")).decode())

    def test_two_widths(self):
        """A cell of keys and values of two widths is what the two commands give, and the file is made for them."""
        work = self.at("widths")
        self.done(*self.compare("widths", "--settings", "W4g0A16KV8,W4g0A16K8V4,W4g0A16K4V8", "--no-baseline", "--work", work))
        rows = self.rows("widths")[1:]
        self.assertEqual([(r["setting"], r["kv"], r["kv_v"]) for r in rows], [("W4g0A16KV8", 8, 8), ("W4g0A16K8V4", 8, 4), ("W4g0A16K4V8", 4, 8)])
        by_hand = self.quantized("widths.gguf", "--wgroup", 0)
        for row, kv in zip(rows, ("8", "8/4", "4/8")):
            want = self.json("eval", by_hand, "--text", self.text, "--ctx", 32, "--windows", 3, "--device", "cpu", "--act", 16, "--kv", kv, "--reference", self.model)
            self.assertEqual(want["nll"], row["texts"][0]["nll"], kv)
            self.assertAlmostEqual(want["kl"], row["texts"][0]["kl"], delta=1e-5)
        self.assertEqual(len({r["texts"][0]["nll"] for r in rows}), 3)
        self.done(*self.compare("made", "--settings", "W4g0A16K8V4", "--no-baseline", "--work", self.at("made")))
        made = [x for x in os.listdir(self.at("made")) if x.endswith(".gguf")]
        self.assertEqual(len(made), 1)
        widths = self.json("inspect", os.path.join(self.at("made"), made[0]))["model"]
        self.assertEqual((widths["kv"], widths["kv_v"]), (8, 4))

    def test_recipes_that_say_more_of_activations(self):
        """A file with groups, bits of single taps or rotations learned by the width is made for the cell's, without calibration too."""
        text = "name: {}\nrotate: true\n{}rounding: [rtn]\n"
        recipes = [self.put(f"{name}.yaml", text.format(name, more).encode()) for name, more in (("grouped", "activations: {group: 16}\n"), ("tapped", "exceptions: [{tensors: '*ffn_down*', act: 8}]\n"), ("turned", "learn: {method: auto, steps: 3}\n"))]
        self.done(*self.compare("more", "--settings", "W4A8KV8,W4A4KV8", "--no-baseline", "--work", self.at("more-work"), recipes=",".join(recipes)))
        rows = {(r["recipe"], r["act"]): r["texts"][0]["nll"] for r in self.rows("more")[1:]}
        for recipe, name in zip(recipes, ("grouped", "tapped", "turned")):
            for act in 8, 4:
                q = self.quantized("more.gguf", "--recipe", recipe, "--act", act)
                self.assertEqual(self.json("eval", q, "--text", self.text, "--ctx", 32, "--windows", 3, "--device", "cpu", "--kv", 8)["nll"], rows[name, act], (name, act))

    def test_exact_and_beside(self):
        """KL is exact unless told: from stored logits, or beside the float model where these take too much room."""
        other = self.put("other.txt", self.read(self.text)[40:] + b" the end of the other text. " * 2)
        two = ("--text", f"b={other}", "--by-position", "--seed", 3, "--settings", "W4A8KV4")  # the float model keeps 16
        out, _ = self.done(*self.compare("stored", *two, "--work", self.at("ws")))
        self.assertTrue([x for x in os.listdir(self.at("ws")) if x.endswith(".logits")])
        self.assertNotIn("lower bound", out)
        for again in (False, True):  # the second time float and rtn are known, and there are no logits to look for
            self.done(*self.compare("beside", *two, "--work", self.at("wb"), "--reference-mib", 0, recipes="quarot-rtn" if again else "rtn"))
            self.assertFalse([x for x in os.listdir(self.at("wb")) if x.endswith(".logits")])
        stored, beside = self.rows("stored"), self.rows("beside")
        self.assertTrue(beside[0]["beside"] and "beside" not in stored[0])
        for a, b in zip(stored[1:], beside[1:]):
            self.assertEqual((a["all"]["kl_kind"], b["all"]["kl_kind"]), ("exact", "exact"))
            for key in ("kl", "kl_median", "kl_p99", "kl_max", "dp_rms", "top1_agreement"):
                self.assertAlmostEqual(a["all"][key], b["all"][key], delta=2e-5)
            for x, y in zip(a["texts"][0]["blocks"]["kl"], b["texts"][0]["blocks"]["kl"]):
                self.assertAlmostEqual(x, y, delta=2e-5)
        self.assertEqual([t["text"] for t in stored[1]["texts"]], ["text.txt", "b"])
        # rtn against the first recipe named, on each text and on all: the differences are those of the means.
        self.assertNotIn("difference", stored[0])
        self.assertNotIn("difference", stored[2])
        d = stored[1]["difference"]
        self.assertAlmostEqual(d["all"]["kl"], stored[1]["all"]["kl"] - stored[2]["all"]["kl"], delta=1e-9)
        self.assertTrue(d["all"]["low"] < d["all"]["kl"] < d["all"]["high"])
        self.assertEqual([t["units_are"] for t in d["texts"]], ["blocks", "blocks"])
        for word in ("KL less that of quarot-rtn on the same windows", "come before", "| 1 to 31 |", "90 %"):
            self.assertIn(word, out)
        table = list(csv.DictReader(self.read(self.at("stored.csv")).decode().splitlines()))
        self.assertAlmostEqual(float(table[2]["kl_difference"]), d["texts"][0]["kl"], delta=1e-9)
        self.assertEqual(table[4]["kl_difference"], "")
        self.done(*self.compare("named", "--text", f"c={other}", "--seed", 3, "--work", self.at("ws")))  # cells of before, names of now
        self.assertEqual([[t["text"] for t in r["texts"]] for r in self.rows("named")], [["text.txt", "c"]] * 3)
        bound, _ = self.done(*self.compare("bound", "--reference-k", 16))
        self.assertIn("lower bound: to the float model's 16 largest logits", bound)

    def test_tasks(self):
        lines = [{"context": f"the cat {i}", "continuation": c, "label": i % 2, "doc_id": i} for i in range(9) for c in (" sat", " looked at the moon")]
        tasks = self.put("quiz.jsonl", "".join(json.dumps(x) + "\n" for x in lines).encode())
        args = ("--tasks", tasks, "--work", self.at("wt"))
        out, _ = self.done(*self.compare("tasks", *args))
        rows = self.rows("tasks")
        q = self.quantized("tasks.gguf", "--recipe", "quarot-rtn")
        want = self.json("eval", q, "--tasks", tasks, "--ctx", 32, "--device", "cpu", "--reference", self.model)["tasks"][0]
        got = rows[2]["tasks"][0]
        for key, value in want.items():
            if isinstance(value, float):
                self.assertAlmostEqual(value, got[key], delta=1e-5, msg=key)
            else:
                self.assertEqual(value, got[key], key)
        self.assertEqual(len(got["choices"]), 9)
        self.assertAlmostEqual(sum(got["right"]) / 9, got["accuracy"], delta=1e-9)
        self.assertNotIn("flips", rows[0]["tasks"][0])
        self.assertIn("| quiz | less than float, % | flips | bits a byte |", out)
        _, err = self.done(*self.compare("tasks", *args))  # kept, and read back to the same table
        self.assertIn("3 cells, 3 of them from", err)
        self.assertEqual((self.rows("tasks"), self.read(self.at("tasks.md")).decode()), (rows, out))
        bad = self.put("bad.jsonl", b'{"context": "a", "continuation": " b", "label": 0, "doc_id": 1}\nno\n')
        self.fails(1, *self.compare("badtask", "--tasks", bad), word="line 2")
        self.fails(1, *self.compare("notask", "--tasks", self.at("none.jsonl")), word="none.jsonl")
        self.fails(1, *self.compare("wt", "--tasks", self.put("wt.csv", b"x")), word="a task")

    def test_work(self):
        self.done(*self.compare("tidy", "--no-baseline"))
        self.assertEqual(os.listdir(self.at("tidy.work")), ["compare.json"])
        self.assertEqual([r["recipe"] for r in self.rows("tidy")], ["float", "quarot-rtn"])
        _, err = self.done(*self.compare("tidy", "--keep"))  # the reference and rtn are made again, the finished cell is not
        self.assertIn("3 cells, 2 of them from", err)
        self.assertTrue([x for x in os.listdir(self.at("tidy.work")) if x.startswith("rtn-W4g32-") and x.endswith(".gguf")])

    def test_interrupted(self):
        args = self.compare("int", "--settings", "W4A8KV8,W4g0A8KV8", "--work", self.at("iw"))
        journal = self.at("iw/compare.json")
        for number in (signal.SIGINT, signal.SIGKILL):
            for attempt in range(10):
                done = lambda: len(json.loads(self.read(journal))["cells"]) if os.path.exists(journal) else 0
                goal = max(done() + 2, 2 if number == signal.SIGINT else 3)
                p = subprocess.Popen([GYRE, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                while p.poll() is None and done() < goal:
                    time.sleep(0.01)
                p.send_signal(number)
                err = p.communicate(timeout=60)[1].decode()
                if p.returncode != 0 and not os.path.exists(self.at("int.md")):
                    break
                shutil.rmtree(self.at("iw"))  # it was done before the signal came: once more, from the beginning
                for name in os.listdir(self.dir):
                    if name.startswith("int."):
                        os.unlink(self.at(name))
            if number == signal.SIGINT:
                self.assertEqual(p.returncode, 130, err)
                self.assertIn("of 5 cells are kept; give the same command again", err.splitlines()[-1])
            self.assertFalse(os.path.exists(self.at("int.md")))
        kept = {k: v for k, v in self.files(self.at("iw")).items() if k.endswith(".gguf")}
        cells = json.loads(self.read(journal))["cells"]
        self.assertGreaterEqual(len(cells), 3)
        _, err = self.done(*args)
        self.assertIn(f"5 cells, {len(cells)} of them from", err)
        self.assertEqual(len(self.rows("int")), 5)
        now = self.files(self.at("iw"))
        recorded = {w["file"] for w in json.loads(self.read(journal))["weights"].values()}
        for name, was in kept.items():
            if name in recorded:
                self.assertIn(name, now)
        for key, row in cells.items():
            self.assertEqual(json.loads(self.read(journal))["cells"][key], row)

    def test_failed_cells(self):
        args = self.compare("bad", "--settings", "W4g64A8KV8,W4A8KV8", "--no-baseline")
        self.fails(1, *args, word="1 of 3 cells failed")
        rows = self.rows("bad")
        self.assertIn("64", rows[1]["failed"])
        self.assertIn("ppl", rows[2]["all"])
        self.assertIn("failed: ", self.read(self.at("bad.md")).decode())
        lines = list(csv.reader(self.read(self.at("bad.csv")).decode().splitlines()))
        self.assertEqual({len(x) for x in lines}, {len(lines[0])})
        self.assertIn("64", lines[2][-1])
        self.assertTrue(os.path.exists(self.at("bad.png")))

    def test_nothing_that_could_be_made(self):
        """What no cell could be made of is refused before the float model runs, and leaves nothing."""
        q = self.quantized("rotated.gguf")
        self.fails(1, "compare", q, *self.compare("none")[2:], word="rotated.gguf): gyre wrote this file with rotations")
        self.fails(1, *self.compare("none", "--settings", "W4g64A8KV8"), word="64")
        self.assertFalse([x for x in os.listdir(self.dir) if x.startswith("none")])

    def test_the_first_that_is_named(self):
        for named, first in (("rtn,quarot-rtn", "rtn"), ("quarot-rtn,rtn", "quarot-rtn"), ("quarot-rtn", "quarot-rtn")):
            out, _ = self.done(*self.compare("first", "--work", self.at("first.w"), recipes=named))
            self.assertIn(f"KL less that of {first} on the same windows", out)

    def test_mistakes(self):
        full = self.compare("no")
        for args, word in ((("compare", self.model, "--text", self.text), "--recipes"), (("compare", self.model, "--recipes", "rtn"), "--text"), ((*full, "--settings", "W4K8V4"), "A16"), ((*full, "--settings", "W4A8K8V3"), "K8V4"),
                           ((*full, "--settings", "W4A8KV8,"), "setting"), (self.compare("no", recipes="magic"), "magic"), (self.compare("no", recipes="rtn,,x"), "empty"), ((*full, "--reference-k", 0), "--reference-k")):
            with self.subTest(word=word):
                self.fails(2, *args, word=word)
        self.fails(1, "compare", self.at("none.gguf"), *full[2:], word="none.gguf")
        self.fails(1, *full[:4], "--text", self.put("brief.txt", b"hi"), *full[6:], word="brief.txt")
        self.fails(3, *full[:-4], "--device", "vulkan:77", "-o", self.at("no"), word="vulkan:77")
        self.assertFalse([x for x in os.listdir(self.dir) if x.startswith("no.")])
        bundled = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../quantizer/data/calibration.txt")  # what was built in
        flattered = lambda *args: run("compare", self.model, "--recipes", "quarot-gptq", "--text", bundled, "--device", "vulkan:77", "-o", self.at("no"), *args)[2]
        self.assertIn("calibration.txt is calibrated on", flattered())
        self.assertIn("calibration.txt is calibrated on", flattered("--calib", "self", "--calib", "bundled"))
        self.assertNotIn("calibrated on", flattered("--calib", "self"))
        os.makedirs(self.at("broken.work"))
        self.put("broken.work/compare.json", b'{"version": 1, "cells"')
        self.fails(1, *self.compare("broken"), word="damaged")
        self.fails(1, *self.compare("missing/out", "--work", self.at("w2")), word="missing/out")


class ModelHash(Case):
    def test_one_hash_for_all(self):
        """What compare and manifests call a model is one thing: of a file its SHA-256, of a folder that of its files' lines."""
        hf = self.at("hf")
        subprocess.run([MAKE_MODEL, hf, "HF"], check=True)
        compared = lambda path: json.loads(self.read(self.at("h.json")))["model_sha256"] if self.done("compare", path, "--recipes", "rtn", "--no-baseline", "--text", self.text, "--ctx", 32, "--windows", 2, "--device", "cpu", "-o", self.at("h")) else None
        base = lambda path: json.loads(self.read(self.quantized_from(path) + ".manifest.json"))["base"]
        self.assertEqual(compared(self.model), hashlib.sha256(self.read(self.model)).hexdigest())
        self.assertEqual(compared(self.model), base(self.model)["sha256"])
        files = base(hf)["files"]
        self.assertEqual(sorted(files), sorted(x for x in os.listdir(hf) if x.endswith((".json", ".safetensors"))))
        lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
        first = compared(hf)
        self.assertEqual(first, hashlib.sha256(lines.encode()).hexdigest())
        with open(os.path.join(hf, "x.gguf.manifest.json"), "w") as f:  # lies beside, made from it
            f.write("{}")
        self.assertEqual((compared(hf), base(hf)["files"]), (first, files))

    def quantized_from(self, path):
        out = self.at("hash.gguf")
        self.done("quantize", path, "-o", out, "--force", "--recipe", "rtn", "--device", "cpu")
        return out


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
