"""gyre eval and gyre compare, asked as a user asks them. Standard library only.

  test_evaluation.py GYRE MAKE_MODEL [unittest arguments]"""
import hashlib, json, os, signal, subprocess, sys, time, unittest

from test_cli import GYRE, MAKE_MODEL, Case


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
        self.assertFalse([x for x in os.listdir(self.dir) if x.startswith(("full", "x"))])
        self.fails(2, *base, "--text", self.text, "--reference-k", 0, word="--reference-k")

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
        for text in (json.dumps(manifest)[:-30], '{"calibration": 7}', '{"calibration": {"texts": [3, {}, {"sha256": 5}]}}', "[]"):
            put(text)
            self.assertNotIn("calibrated_on", ask()[0])
        os.unlink(path)
        self.assertNotIn("was calibrated on", ask()[1])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
