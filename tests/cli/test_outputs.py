"""What a command writes: never over what it reads, and never lost without a word. Standard library only.

  test_outputs.py GYRE MAKE_MODEL [unittest arguments]"""
import fcntl, json, os, shutil, signal, subprocess, sys, time, unittest

from case import GYRE, MAKE_MODEL, Case, run


class Aliases(Case):
    """Every output against every input, under other names: a link, a hard link, another spelling."""

    def names(self, path, link):
        """The path itself and three more ways to say it."""
        soft, hard = self.at("soft-" + link), self.at("hard-" + link)
        for made in (soft, hard):
            if os.path.lexists(made):
                os.unlink(made)
        os.symlink(path, soft)
        os.link(os.path.realpath(path), hard)
        folder, name = os.path.split(path)
        return path, os.path.join(folder, ".", "..", os.path.basename(folder), name), soft, hard

    def refused(self, inputs, *args, word="cannot write"):
        before = {p: self.read(p) for p in inputs}
        self.fails(1, *args, word=word)
        for p in inputs:
            self.assertEqual(self.read(p), before[p], args)

    def setUp(self):
        self.recipe = self.put("own.yaml", b"name: own\nrotate: true\nrounding: [rtn]\n")
        self.hf = self.at("hf")
        if not os.path.isdir(self.hf):
            subprocess.run([MAKE_MODEL, self.hf, "HF"], check=True)

    def test_quantize(self):
        base = ("quantize", "--force", "--device", "cpu", "--recipe")
        for name in self.names(self.model, "model.gguf"):
            self.refused([self.model], *base, "rtn", self.model, "-o", name, word="the base model itself")
        for name in self.names(self.recipe, "own.yaml"):
            self.refused([self.recipe], *base, self.recipe, self.model, "-o", name, word="the recipe itself")
        for name in self.names(self.text, "text.txt"):
            self.refused([self.text], *base, "quarot-gptq", self.model, "-o", name, "--calib", self.text, word="a calibration text itself")
        shard = os.path.join(self.hf, "model.safetensors")
        for name in self.names(shard, "shard.safetensors"):
            self.refused([shard], *base, "rtn", self.hf, "-o", name, word="a file of the base model")
        self.fails(1, *base, "rtn", self.hf, "-o", self.hf, word="itself")

    def test_files_beside(self):
        out = self.at("beside.gguf")
        for ending in (".part", ".manifest.json"):
            os.symlink(self.model, out + ending)
            self.refused([self.model], "quantize", self.model, "-o", out, "--force", "--recipe", "rtn", word=ending)
            os.unlink(out + ending)
        os.symlink(self.hf, out + ".journal")
        self.fails(1, "quantize", self.hf, "-o", out, "--force", "--recipe", "rtn", word=".journal")
        os.unlink(out + ".journal")
        os.mkdir(self.at("pages"))
        text = self.at("pages/report.md")
        shutil.copy(self.text, text)
        self.refused([text], "quantize", self.model, "-o", out, "--calib", text, "--recipe", "quarot-gptq", "--report", self.at("pages"), word="report.md")
        self.fails(1, "quantize", self.model, "-o", self.at("pages/report.html"), "--recipe", "rtn", "--report", self.at("pages"), word="report.html")
        self.fails(1, "quantize", self.model, "-o", out, "--recipe", "rtn", "--report", os.path.join(self.text, "pages"), word="text.txt")
        self.assertEqual([x for x in os.listdir(self.dir) if x.startswith("beside")], [])

    def test_eval(self):
        logits = self.at("logits")
        base = ("eval", self.model, "--text", self.text, "--ctx", 32, "--device", "cpu")
        self.done(*base, "--save-reference", logits)
        for path, word in ((self.model, "the model itself"), (self.text, "a text itself"), (logits, "the reference itself")):
            for name in self.names(path, "of-eval"):
                self.refused([path], *base, "--reference", logits, "--save-reference", name, word=word)
        self.fails(1, "eval", self.hf, "--text", self.text, "--ctx", 32, "--save-reference", os.path.join(self.hf, "config.json"), word="a file of the model")

    def test_inspect(self):
        for name in self.names(self.model, "of-inspect"):
            self.refused([self.model], "inspect", self.model, "--graph", name, "--device", "cpu", word="the model itself")

    def test_compare(self):
        base = ("compare", self.model, "--recipes", "rtn", "--ctx", 32, "--windows", 2, "--device", "cpu")
        for ending in (".md", ".csv", ".json", ".png"):
            text = self.at("mine" + ending)
            shutil.copy(self.text, text)
            self.refused([text], *base, "--text", text, "-o", self.at("mine"), word="a text itself")
        os.mkdir(self.at("w"))
        text = self.at("w/compare.json")
        shutil.copy(self.text, text)
        self.refused([text], *base, "--text", text, "--work", self.at("w"), "-o", self.at("cells"), word="a text itself")
        os.unlink(text)
        self.fails(1, *base, "--text", self.text, "--work", self.at("w"), "-o", self.at("w/compare"), word="the journal of the comparison")
        os.symlink(self.model, self.at("pic.png"))
        self.refused([self.model], *base, "--text", self.text, "-o", self.at("pic"), word="the model itself")

    def test_reproduce(self):
        q = self.quantized("r.gguf")
        os.mkdir(self.at("again"))
        for ending in (".part", ".recipe.yaml"):
            os.symlink(self.model, self.at("again/r.gguf" + ending))
            self.refused([self.model], "reproduce", q + ".manifest.json", "--base", self.model, "--work", self.at("again"), word="the base model itself")
            os.unlink(self.at("again/r.gguf" + ending))
        self.assertEqual(os.listdir(self.at("again")), [])


class Writes(Case):
    """Standard output that is full, closed, or a pipe nobody reads."""

    def commands(self):
        q = self.quantized("q.gguf")
        cpu = ("--device", "cpu")
        yield from (("--help",), ("--version",), ("run", "--help"), ("devices",), ("devices", "--json"), ("recipes",), ("recipes", "best"), ("recipes", "best", "--json"), ("tokenize", self.model, "-p", "cat"), ("tokenize", self.model, "-p", "cat", "--json"),
                    ("inspect", self.model), ("inspect", self.model, "--json"), ("run", self.model, "-p", "cat", "-n", 2, *cpu), ("run", self.model, "-p", "cat", "-n", 2, "--json", *cpu), ("eval", self.model, "--text", self.text, "--ctx", 32, *cpu),
                    ("eval", self.model, "--text", self.text, "--ctx", 32, "--json", *cpu), ("bench", self.model, "--prompt", 4, "--gen", 2, *cpu), ("bench", self.model, "--prompt", 4, "--gen", 2, "--json", *cpu), ("verify", q), ("verify", q, "--json"),
                    ("reproduce", q + ".manifest.json", "--base", self.model), ("reproduce", q + ".manifest.json", "--base", self.model, "--json"), ("compare", self.model, "--recipes", "rtn", "--text", self.text, "--ctx", 32, "--windows", 2, "-o", self.at("cmp"), *cpu))

    def ended(self, args, stdout, preexec=None):
        p = subprocess.run([GYRE, *map(str, args)], stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, preexec_fn=preexec, timeout=300)
        return p.returncode, [x for x in p.stderr.decode().splitlines() if x.startswith("gyre: ")]

    @unittest.skipUnless(os.path.exists("/dev/full"), "there is no /dev/full")
    def test_full_and_closed(self):
        for args in self.commands():
            with self.subTest(args=args):
                with open("/dev/full", "w") as full:
                    status, said = self.ended(args, full)
                self.assertEqual((status, len(said)), (1, 1), said)
                self.assertIn("standard output", said[0])
                status, said = self.ended(args, None, lambda: os.close(1))
                self.assertEqual((status, len(said)), (1, 1), said)

    def test_pipes_without_a_reader(self):
        for args in self.commands():
            with self.subTest(args=args):
                r, w = os.pipe()
                os.close(r)
                status, said = self.ended(args, w)
                os.close(w)
                self.assertEqual((status, said), (141, []))

    def test_streaming_stops_early(self):
        for _ in range(10):
            p = subprocess.run(["bash", "-c", '"$0" run "$1" -p "the cat" -n 100000 --ctx 512 --device cpu | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}', GYRE, self.model], capture_output=True, timeout=300)
            self.assertNotIn(b"gyre: ", p.stderr)
            if p.stdout.split() != [b"0"]:  # 0: all was in the pipe before its reader left
                break
        self.assertEqual(p.stdout.split(), [b"141"])

    @unittest.skipUnless(hasattr(fcntl, "F_SETPIPE_SZ"), "a pipe's size is not known")
    def test_interrupted_where_nobody_reads(self):
        r, w = os.pipe()
        os.write(w, b"x" * fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096))
        for wait in (0, 0.5):  # before its first word, and then: it has no room for one, however long this takes
            p = subprocess.Popen([GYRE, "run", self.model, "-p", "the cat", "--device", "cpu"], stdout=w, stderr=subprocess.PIPE)
            p.stderr.readline()  # it listens to signals
            time.sleep(wait)
            p.send_signal(signal.SIGINT)
            err = p.communicate(timeout=60)[1]
            self.assertEqual(p.returncode, 130, err)
            self.assertRegex(err.strip().splitlines()[-1], b"^gyre: interrupted")
        os.close(r)
        os.close(w)

    def test_closed_descriptors_are_nobodys(self):
        """A file that is written does not get the number of standard output: nothing is printed into it."""
        want = self.read(self.quantized("want.gguf"))
        out = self.at("closed.gguf")
        for fds in ((1,), (0, 1), (0, 1, 2)):
            status, _ = self.ended(("quantize", self.model, "-o", out, "--force", "--device", "cpu"), None, lambda: [os.close(fd) for fd in fds])
            self.assertEqual(status, 0)  # it prints nothing there
            self.assertEqual(self.read(out), want)

    def test_failures_keep_their_status(self):
        with open("/dev/full", "w") as full:
            self.assertEqual(self.ended(("run", self.model, "--wings"), full)[0], 2)
            self.assertEqual(self.ended(("run", self.model, "-p", "x", "--device", "vulkan:77"), full)[0], 3)


class Before(Case):
    """What cannot be written is told before the work, not after it."""

    def test_places(self):
        out, w = self.at("o.gguf"), self.at("w")
        os.mkdir(w)
        self.fails(1, "quantize", self.model, "-o", out, "--recipe", "rtn", "--report", self.text, "--device", "cpu", word="text.txt")
        self.fails(1, "quantize", self.model, "-o", out, "--recipe", "rtn", "--report", self.text + "/pages", "--device", "cpu", word="text.txt/pages")
        for ending in ("", "/", ".part", ".journal", ".manifest.json", ".rotations.safetensors"):  # the output needs these names
            self.fails(1, "quantize", self.model, "-o", out, "--recipe", "rtn", "--report", out + ending, "--device", "cpu", word="a file of the output")
        base = ("compare", self.model, "--recipes", "rtn", "--text", self.text, "--ctx", 32, "--windows", 2, "--device", "cpu")
        for ending in (".md", ".csv", ".json/", ".png"):
            self.fails(1, *base, "-o", self.at("table"), "--work", self.at("table" + ending), word="a file of the output")
        for command, ending in ((("quantize", self.model, "-o", out, "--recipe", "rtn", "--device", "cpu"), ".manifest.json"),
                                (("quantize", self.model, "-o", out, "--recipe", "rtn", "--device", "cpu"), ".rotations.safetensors"),
                                ((*base, "-o", out, "--work", w), ".png")):
            os.mkdir(out + ending)  # a folder in the place of a file
            self.fails(1, *command, word=ending + "): Is a directory")
            os.rmdir(out + ending)
        self.fails(1, *base, "--work", w, "-o", self.at("no/table"), word="no/table")
        self.fails(1, *base, "--work", self.text, "-o", self.at("table"), word="text.txt")
        self.assertEqual(os.listdir(w), [])
        self.assertFalse([x for x in os.listdir(self.dir) if x.startswith(("o.gguf", "table", "no"))])


class Names(Case):
    def test_names_that_are_no_utf8(self):
        folder = os.fsencode(self.dir)
        copy, text = os.path.join(folder, b"mod\xe8le.gguf"), os.path.join(folder, b"t\xe8xt.txt")
        shutil.copy(self.quantized("q.gguf"), copy)
        shutil.copy(self.at("q.gguf.manifest.json"), copy + b".manifest.json")
        with open(text, "wb") as f:
            f.write(self.read(self.text)[7:] + b" the end")
        source = os.path.join(folder, b"sour\xe8e.gguf")
        shutil.copy(self.model, source)
        long = os.path.join(folder, b"l\xe8ng.txt")
        with open(long, "wb") as f:
            f.write(self.read(self.text) * 60)
        ask = lambda *args: subprocess.run([GYRE, *args], capture_output=True, timeout=300)
        for args in ((b"verify", copy, b"--json"), (b"eval", copy, b"--text", text, b"--text", self.text, b"--ctx", b"32", b"--device", b"cpu", b"--json"),
                     (b"quantize", source, b"-o", os.path.join(folder, b"o\xe8t.gguf"), b"--recipe", b"quarot-gptq", b"--calib", long, b"--device", b"cpu"),
                     (b"verify", os.path.join(folder, b"o\xe8t.gguf"), b"--base", source, b"--json"),
                     (b"reproduce", copy + b".manifest.json", b"--base", os.fsencode(self.model), b"--json"), (b"inspect", copy, b"--json")):
            with self.subTest(args=args):
                p = ask(*args)
                self.assertEqual(p.returncode, 0, p.stderr)
                if args[-1] == b"--json":
                    json.loads(p.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
