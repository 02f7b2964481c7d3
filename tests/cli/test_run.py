"""gyre run: the ways to choose and to stop, the warm-up apart from the prompt, an interruption in the middle of a prompt.
Standard library only.

  test_run.py GYRE MAKE_MODEL [unittest arguments]"""
import json, signal, subprocess, sys, unittest

from case import GYRE, Case


class Run(Case):
    def made(self, *options, prompt="the cat", n=24):
        return self.json("run", self.model, "--device", "cpu", "-p", prompt, "-n", n, *options)

    def test_stop_texts(self):
        whole = self.made()
        self.assertEqual(whole["stop"], "length")
        word = whole["text"][5:9]
        cut = self.made("--stop", "never said", "--stop", word)
        self.assertEqual(cut["stop"], "a stop text")
        self.assertEqual(cut["text"], whole["text"][:whole["text"].index(word)])
        self.assertLessEqual(len(cut["tokens"]), 24)
        self.fails(2, "run", self.model, "--device", "cpu", "-p", "a", "--stop", "", word="--stop")

    def test_penalties(self):
        plain = self.made()["tokens"]
        for option in ("--presence-penalty", "--frequency-penalty"):
            tokens = self.made(option, 1000, "--penalty-window", 1000)["tokens"]
            self.assertEqual(len(tokens), len(set(tokens)), option)
        self.assertNotEqual(self.made("--repeat-penalty", 3)["tokens"], plain)
        self.assertEqual(self.made("--repeat-penalty", 1)["tokens"], plain)

    def test_min_p(self):
        plain = self.made()["tokens"]
        self.assertEqual(self.made("--temp", 5, "--seed", 3, "--min-p", 1)["tokens"], plain)
        said = lambda *args: self.done("run", self.model, "--device", "cpu", "-p", "the cat", "-n", 1, *args)[1]
        for idle in (("--top-k", 5), ("--top-p", 0.5), ("--min-p", 0.1), ("--seed", 7)):  # said, not done in silence
            self.assertIn("change nothing without --temp", said(*idle))
            self.assertNotIn("changes nothing", said(*idle))
            self.assertNotIn("change nothing", said("--temp", 1, *idle))
        self.assertIn("--penalty-window changes nothing", said("--penalty-window", 9))
        self.assertNotIn("nothing", said("--penalty-window", 9, "--presence-penalty", 0.5))
        self.assertNotEqual(self.made("--temp", 5, "--seed", 3)["tokens"], plain)

    def test_prompt_that_does_not_fit(self):
        long = self.put("long.txt", b"the cat " * 40)
        run = ("run", self.model, "--device", "cpu", "--ctx", 16)
        self.fails(1, *run, "-f", long, word="cannot continue the prompt (" + long + "): its ")
        self.fails(1, *run, "-p", "the cat " * 40, word="(-p): its ")
        n = len(self.done("tokenize", self.model, "-p", "the cat")[0].split())
        self.done("run", self.model, "--device", "cpu", "-p", "the cat", "--ctx", n)
        self.fails(1, "run", self.model, "--device", "cpu", "-p", "the cat", "--ctx", n - 1, word=f"its {n} tokens do not fit the context of {n - 1}; ")

    def test_schema(self):
        schema = self.put("schema.json", b'{"type":"object","properties":{"n":{"type":"integer","minimum":3,"maximum":700},"s":{"enum":["one","two"]}},"required":["n","s"]}')
        for seed in range(4):
            made = self.made("--json-schema", schema, "--temp", 1.5, "--seed", seed, "-n", 120)
            value = json.loads(made["text"])
            self.assertEqual(made["stop"], "end of text")
            self.assertEqual((set(value), 3 <= value["n"] <= 700, value["s"] in ("one", "two")), ({"n", "s"}, True, True))
        self.assertEqual(self.made("--json-schema", schema, "-n", 120)["text"][:1], "{")  # greedy, too
        refused = self.put("refused.json", b'{"type":"array","uniqueItems":true}')
        self.fails(1, "run", self.model, "--device", "cpu", "-p", "x", "--json-schema", refused, word="uniqueItems")
        for data, word in ((b'{"type":"array","uniqueItems":true}', "uniqueItems"), (b'{"const": ', "line 1"), (b"5", "an object"), (b'{"const":"a\\u0000"}', "line 1): no text may hold \\u0000")):
            refused = self.put("refused.json", data)
            self.fails(1, "run", self.model, "--device", "cpu", "-p", "x", "--json-schema", refused, word="refused.json): cannot constrain")
            self.fails(1, "run", self.model, "--device", "cpu", "-p", "x", "--json-schema", refused, word=word)
        self.fails(1, "run", self.model, "--device", "cpu", "-p", "x", "--json-schema", self.at("none.json"), word="none.json")

    def test_warmup_is_apart(self):
        made = self.made()
        self.assertGreater(made["warmup_s"], 0)
        _, err = self.done("run", self.model, "--device", "cpu", "-p", "the cat", "-n", 4)
        self.assertIn("to warm up", err)

    def test_interrupted(self):
        for said in ("stderr", "stdout"):  # while warming up or in the prompt, and in the middle of the answer
            for _ in range(10):
                p = subprocess.Popen([GYRE, "run", self.model, "--device", "cpu", "-p", "the moon " * 40, "-n", "400"],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                self.assertTrue(getattr(p, said).read(1))
                p.send_signal(signal.SIGINT)
                out, err = p.communicate(timeout=60)
                if p.returncode != 0:  # it was not done before
                    break
            self.assertEqual(p.returncode, 130, err)
            self.assertTrue(err.strip().splitlines()[-1].startswith(b"gyre: interrupted"), err)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
