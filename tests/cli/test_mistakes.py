"""What is asked wrongly, or of files that are not there or are none: one clear line, the documented exit status, and nothing
half-written. Standard library only.

  test_mistakes.py GYRE MAKE_MODEL [unittest arguments]"""
import os, subprocess, sys, unittest

from case import MAKE_MODEL, Case


class Mistakes(Case):
    def test_usage(self):
        m = self.model
        for args, word in (((), "command"), (("fly",), "fly"), (("run", m, "--wings"), "--wings"), (("run", m, "-n"), "-n"), (("run", m, "-p", "x", "-n", "many"), "many"), (("run", m, "-p", "x", "-n", "-5"), "-5"),
                           (("run", m, "-p", "x", "--act", "7"), "16,8,4"), (("run", m, "-p", "x", "--temp", "nan"), "--temp"), (("run", m, "-p", "x", "--temp", "0x1"), "--temp"), (("run", m, "-p", "x", "--temp", " 1"), "--temp"), (("run", m, "-p", "x", "--temp", ""), "--temp"), (("run", m, "--chat", "-p", "x", "--bos"), "--bos"), (("run", m), "-p"), (("run",), "MODEL"), (("run", m, m, "-p", "x"), "too many"),
                           (("quantize", m, "-o", "x", "--recipe", "magic"), "rtn, smoothquant, awq, quarot-rtn, quarot-gptq, spinquant, ostquant, fast, best"), (("recipes", "magic"), "magic"), (("recipes", "rtn", "best"), "too many"), (("quantize", m), "-o"), (("quantize", m, "-o", "x", "--wgroup", "48"), "48"), (("eval", m), "--text"),
                           (("tokenize", m), "--text"), (("eval", m, "--text", self.text, "--ctx", "1"), "--ctx"), (("run", m, "-p", "x", "--json=yes"), "--json")):
            with self.subTest(args=args):
                self.fails(2, *args, word=word)

    def test_devices_that_are_not_there(self):
        self.fails(3, "run", self.model, "-p", "x", "--device", "vulkan:77", word="vulkan:77")
        self.fails(3, "run", self.model, "-p", "x", "--device", "null", word="computes nothing")
        self.fails(3, "quantize", self.model, "-o", self.at("null.gguf"), "--recipe", "quarot-gptq", "--device", "null", word="computes nothing")
        self.fails(3, "run", self.model, "-p", "x", "--device", "abacus", word="abacus")

    def test_inputs(self):
        put, whole = self.put, self.read(self.model)
        for args, word in ((("run", self.at("none.gguf"), "-p", "x"), "none.gguf"), (("run", self.dir, "-p", "x"), "config.json"), (("inspect", put("empty.gguf", b"")), "empty.gguf"), (("inspect", put("noise.gguf", b"noise" * 99)), "GGUF"),
                           (("inspect", put("cut.gguf", whole[: len(whole) // 2])), "cut.gguf"), (("run", self.model, "-p", "", "--device", "cpu"), "empty prompt"), (("run", self.model, "-p", "x" * 600, "--device", "cpu"), "context"),
                           (("eval", self.model, "--text", self.at("none.txt")), "none.txt"), (("eval", self.model, "--text", put("short.txt", b"hi"), "--ctx", 64, "--device", "cpu"), "tokens"),
                           (("quantize", self.model, "-o", self.at("no/o.gguf"), "--recipe", "rtn"), "no"), (("quantize", self.model, "-o", self.at("o.gguf"), "--wgroup", 128), "128")):
            with self.subTest(args=args):
                self.fails(1, *args, word=word)
        self.assertFalse(os.path.exists(self.at("o.gguf")))

    def test_a_failure_is_one_line(self):
        """Whatever a name holds: the end of a line, or what steers a terminal."""
        odd = self.put("a\nb\x1b[31m\u009b.gguf", self.read(self.model))
        self.fails(1, "verify", odd, word="a\\nb\\x1b[31m\\u009b.gguf): it has no key gyre.version")
        self.fails(2, "run", self.model, "--wi\nngs", word="(--wi\\nngs)")
        text = self.put("a\nb.txt", b"\xff the cat sat on the mat " * 9)
        said = self.done("eval", self.model, "--text", text, "--ctx", 16, "--windows", 1, "--device", "cpu")[1]
        self.assertIn("warning: a\\nb.txt is not UTF-8", said)

    def test_empty_prompts_say_where(self):
        self.fails(1, "run", self.model, "-f", self.put("nothing.txt", b""), "--device", "cpu", word="nothing.txt): there is nothing")

    def test_architectures(self):
        for family, as_other, word in (("mistral", "qwen2", "q_proj.bias is missing"), ("qwen2", "llama", "q_proj.bias has no place in a llama model"),
                                       ("qwen3", "mamba2", 'architecture "mamba2"; gyre runs llama, ')):
            with self.subTest(family=family):
                file, folder = self.at(f"{family}.gguf"), self.at(f"{family}-hf")
                subprocess.run([MAKE_MODEL, file, "F32", family], check=True)
                subprocess.run([MAKE_MODEL, folder, "HF", family], check=True)
                same = [self.json("run", m, "-p", "the cat", "-n", 6, "--device", "cpu")["tokens"] for m in (file, folder)]
                self.assertEqual(same[0], same[1])
                config = os.path.join(folder, "config.json")
                with open(config) as f:
                    text = f.read()
                with open(config, "w") as f:
                    f.write(text.replace(f'"model_type": "{family}"', f'"model_type": "{as_other}"'))
                with open(os.path.join(folder, "tokenizer.json"), "w") as f:
                    f.write('{"model": {"type": "Unigram"}}')  # an unknown architecture is named before its tokenizer
                for args in (("run", folder, "-p", "x", "--device", "cpu"), ("quantize", folder, "-o", self.at("never.gguf"))):
                    self.fails(1, *args, word=word if family == "qwen3" or args[0] == "quantize" else "Unigram")
        self.assertFalse(os.path.exists(self.at("never.gguf")))

    def test_sliding_window(self):
        folder = self.at("window-hf")
        subprocess.run([MAKE_MODEL, folder, "HF", "qwen2"], check=True)
        config = os.path.join(folder, "config.json")
        with open(config) as f:
            text = f.read()
        args = ("eval", folder, "--text", self.text, "--windows", 1, "--device", "cpu", "--act", 16, "--kv", 16, "--ctx")
        whole, longer = (self.json(*args, n)["nll"] for n in (24, 40))
        with open(config, "w") as f:
            f.write(text.replace('"use_sliding_window": false, "sliding_window": 131072', '"use_sliding_window": true, "max_window_layers": 0, "sliding_window": 24'))
        self.assertEqual(self.json(*args, 24)["nll"], whole)  # a text within the window does not see it
        self.assertNotEqual(self.json(*args, 40)["nll"], longer)

    def test_full_disk(self):
        out = self.at("full.gguf")
        self.fails(1, "quantize", self.model, "-o", out, "--recipe", "rtn", "--device", "cpu", disk=16384)
        self.assertFalse(os.path.exists(out))

    def test_long_names_keep_the_reason(self):
        self.fails(1, "run", "x" * 3000, "-p", "x", word="xxx): File name too long")
        self.fails(2, "run", self.model, "x" * 60000, word="gyre run takes MODEL; see gyre run --help")
        self.fails(2, "recipes", "x" * 60000, word="see gyre recipes")

    def test_folders_without_a_model(self):
        os.mkdir(self.at("nothing"))
        for command in (("run", self.at("nothing"), "-p", "x"), ("inspect", self.at("nothing")), ("quantize", self.at("nothing"), "-o", self.at("n.gguf"))):
            self.fails(1, *command, word="no config.json and no params.json")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
