"""gyre quantize and what follows it: recipes, verify, reproduce, resumed and interrupted runs, sensitivity. Standard library only.

  test_quantize.py GYRE MAKE_MODEL [unittest arguments]"""
import json, os, signal, subprocess, sys, time, unittest, xml.etree.ElementTree

from case import GYRE, MAKE_MODEL, Case, run


class Quantize(Case):
    def test_quantize(self):
        meta = lambda path: self.json("inspect", path)["metadata"]
        a = self.quantized("a.gguf")
        m = meta(a)
        self.assertEqual((m["general.architecture"], m["gyre.recipe"], m["gyre.wgroup"], m["gyre.act_bits"], m["gyre.kv_bits"], m["gyre.seed"]), ("gyre-llama", "quarot-rtn", 32, 8, 8, 0))
        read = self.read
        self.assertEqual(read(a), read(self.quantized("b.gguf")))
        self.assertNotEqual(read(a), read(self.quantized("b.gguf", "--seed", 1)))
        self.assertEqual(meta(self.quantized("b.gguf", "--recipe", "rtn"))["gyre.recipe"], "rtn")
        self.assertEqual(meta(self.quantized("b.gguf", "--wgroup", 0))["gyre.wgroup"], 0)
        self.assertEqual(meta(self.quantized("b.gguf", "--wbits", 16))["gyre.wbits"], 16)
        m = meta(self.quantized("b.gguf", "--act", 4, "--kv", 16))
        self.assertEqual((m["gyre.act_bits"], m["gyre.kv_bits"]), (4, 16))
        self.assertEqual(meta(self.quantized("b.gguf", "--profile", "portable"))["general.architecture"], "llama")
        manifest = json.loads(read(self.at("a.gguf.manifest.json")))
        self.assertIn("quarot-rtn", json.dumps(manifest))
        self.fails(1, "quantize", self.model, "-o", a, word="--force")
        self.fails(3, "quantize", self.model, "-o", a, "--force", "--device", "vulkan:77", word="vulkan:77")
        small = self.put("small.yaml", b"name: small\nrotate: true\nseeds: 2\ncalibration: {windows: 4, tokens: 32}\nrounding: [gptq]\nactivations: {clip: 0.95}\n")
        _, bundled = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--recipe", small, "--seed", 6)
        _, given = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--recipe", small, "--seed", 6, "--calib", self.text)
        for shown in ("rtn", " small\n", "of 6..7\n", "clips: activations 0.95, KV cache 1\n"):
            self.assertIn(shown, bundled)
        self.assertNotIn("small.yaml", bundled)
        pick = lambda err: [x for x in err.splitlines() if "KL to float" in x]
        self.assertNotEqual(pick(bundled), pick(given))  # measured on one text, calibrated on two
        self.assertNotIn("reads no text", given)
        _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--calib", self.text, "--shard", 1)
        self.assertIn("recipe quarot-rtn reads no text", said)
        self.assertIn("a.gguf is one file", said)
        many = self.put("many.yaml", b"name: many\nrotate: true\ncalibration: {windows: 400, tokens: 32}\nrounding: [gptq]\n")
        _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--recipe", many, "--calib", self.text)
        self.assertRegex(said, r"calibration: \d+ windows of 32 tokens, where the recipe has 400")
        self.assertNotIn("where the recipe has", given)
        _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--wbits", 16, "--wgroup", 64)
        self.assertIn("a group for their scales changes nothing", said)
        for args, idle in ((("--recipe", "rtn"), True), (("--recipe", "quarot-rtn"), False), (("--recipe", "rtn", "--wbits", 16), True)):
            _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", *args, "--seed", 5)
            self.assertEqual("draws nothing: a seed changes nothing" in said, idle, args)
        both = self.put("both.yaml", b"name: both\ncalibration: {windows: 3, tokens: 32}\nrounding: [rtn]\ndistill: {steps: 2}\n")
        _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--recipe", both)
        self.assertIn("of 2; the table is from before that\n", said)
        wide = self.put("wide.yaml", b"name: wide\ncalibration: {windows: 3, tokens: 32}\nrounding: [rtn]\ndistill: {steps: 2, windows: 400}\n")
        _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--recipe", wide, "--calib", self.text, "--report", self.at("wide"))
        self.assertRegex(said, r"distill: \d+ windows of 32 tokens, where the recipe has 400: the text gives no more")
        self.assertIn("more windows, to learn on alone", read(self.at("wide/report.html")).decode())
        auto = self.put("auto.yaml", b"name: turned\nrotate: true\nlearn: {method: auto, steps: 3}\nrounding: [rtn]\n")
        for act, became in ((8, "optrot"), (4, "none, auto is that")):
            report = self.at(f"report{act}")
            _, said = self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--recipe", auto, "--act", act, "--report", report)
            self.assertIn("learn: " + became, said)
            self.assertIn("optrot, step " if act == 8 else "no: auto is none", read(report + "/report.html").decode())
        self.done("quantize", self.model, "-o", a, "--force", "--device", "cpu", "--report", self.at("report"))
        self.assertEqual(sorted(os.listdir(self.at("report"))), ["report.html", "report.md"])
        page = xml.etree.ElementTree.parse(self.at("report/report.html")).getroot()  # well-formed as XML, too
        self.assertEqual(page.tag, "html")
        self.assertNotIn(self.dir, xml.etree.ElementTree.tostring(page, "unicode"))  # no path in it

    def test_recipes(self):
        rows = self.json("recipes")["recipes"]
        self.assertEqual([r["name"] for r in rows], ["rtn", "smoothquant", "awq", "quarot-rtn", "quarot-gptq", "spinquant", "ostquant", "fast", "best"])
        listed = self.done("recipes")[0]
        self.assertEqual(listed.count("quarot-rtn (the default)\n"), 1)
        for r in rows:
            self.assertEqual(set(r), {"name", "about", "source"})
            self.assertIn(r["about"], listed)
            one = self.json("recipes", r["name"])
            self.assertEqual((one["name"], one["about"], one["source"]), (r["name"], r["about"], r["source"]))
            mine = self.put("mine.yaml", self.done("recipes", r["name"])[0].encode())
            canonical = self.done("recipes", mine)[0]
            self.assertEqual(self.json("recipes", mine), one)
            self.assertEqual(self.done("recipes", self.put("mine.yml", canonical.encode()))[0], canonical)
        self.assertEqual(self.json("recipes", "best")["rounding"][3], {"stage": "refit"})
        mine = self.put("mine.yaml", b"name: mine\nrotate: true\nrounding: [rtn: {clip: none}]\n")
        self.assertEqual(self.json("recipes", mine)["rounding"], [{"stage": "rtn", "clip": "none"}])
        path = self.quantized("mine.gguf", "--recipe", mine)
        self.assertEqual(self.json("inspect", path)["metadata"]["gyre.recipe"], "mine")
        broken = self.put("broken.yaml", b"name: mine\nrounding: [rtn]\nseeds: many\n")
        for command in (("recipes", broken), ("quantize", self.model, "-o", self.at("x.gguf"), "--recipe", broken)):
            self.fails(1, *command, word="broken.yaml:3:8")
        self.fails(1, "recipes", self.at("none.yaml"), word="none.yaml")
        self.assertFalse(os.path.exists(self.at("x.gguf")))

    def test_verify(self):
        q = self.quantized("trust.gguf", "--wgroup", 0, "--seed", 5)
        last = self.done("verify", q)[0].splitlines()[-1]
        self.assertRegex(last, r"^\S+trust\.gguf is what its manifest claims: \d+ tensors, hashes, container rules$")
        last = self.done("verify", q, "--base", self.model)[0].splitlines()[-1]
        self.assertRegex(last, r", 14 linears un-rotated within 0\.0\d+ of \S+tiny\.gguf$")
        r = self.json("verify", q, "--base", self.model)
        self.assertEqual((r["ok"], r["file"], r["linears"], all(c["ok"] and c["detail"] for c in r["checks"])), (True, q, 14, True))
        self.assertTrue(0 < r["worst"]["error"] < 0.02 and r["worst"]["tensor"].startswith("blk."))
        whole = bytearray(self.read(q))
        whole[-40] ^= 1
        bad = self.put("bad.gguf", whole)
        os.rename(self.at("trust.gguf.manifest.json"), self.at("moved.json"))
        self.fails(1, "verify", bad, word="bad.gguf.manifest.json")
        self.fails(1, "verify", bad, "--manifest", self.at("moved.json"), word="tensor blk.1.ffn_down.weight")
        status, out, err = run("verify", bad, "--manifest", self.at("moved.json"), "--json")
        checks = json.loads(out)["checks"]
        self.assertEqual((status, json.loads(out)["ok"], [c["ok"] for c in checks]), (1, False, [True] * (len(checks) - 1) + [False]))
        self.assertIn(checks[-1]["detail"], err)
        self.fails(1, "verify", self.model, word="gyre.version")
        subprocess.run([MAKE_MODEL, self.at("wrong.gguf"), "Q8_0"], check=True)
        self.fails(1, "verify", q, "--manifest", self.at("moved.json"), "--base", self.at("wrong.gguf"), word="wrong.gguf): SHA-256")

    def test_reproduce(self):
        q = self.quantized("again.gguf", "--profile", "portable", "--seed", 9007199254740991)
        manifest, before = self.at("again.gguf.manifest.json"), set(os.listdir(self.dir))
        out, err = self.done("reproduce", manifest, "--base", self.model)
        self.assertRegex(out, r"^reproduced: \d+ tensors, the same bytes\n$")
        self.assertIn("100 %", err)
        self.assertEqual(set(os.listdir(self.dir)), before)
        self.assertTrue(self.json("reproduce", manifest, "--base", self.model, "--work", self.at("w"))["ok"])
        self.assertEqual(self.read(self.at("w/again.gguf")), self.read(q))
        m = json.loads(self.read(manifest))
        m["tensors"][5]["sha256"] = "0" * 64
        lie = self.put("lie.json", json.dumps(m).encode())
        self.fails(1, "reproduce", lie, "--base", self.model, word="tensor %s comes out different" % m["tensors"][5]["name"])
        status, out, _ = run("reproduce", lie, "--base", self.model, "--json")
        r = json.loads(out)
        self.assertEqual((status, r["ok"], r["differing"], r["first"]), (1, False, 1, m["tensors"][5]["name"]))
        self.fails(1, "reproduce", manifest, "--base", q, word="base model")
        for name in "self", "bundled":
            self.fails(2, "quantize", self.model, "-o", self.at("x.gguf"), "--calib", name, "--calib", self.text, "--calib", name, word=f"--calib {name}): it is named twice")
        self.fails(1, "reproduce", manifest, "--base", self.model, "--calib", self.text, word="--calib")
        self.fails(1, "reproduce", self.put("half.json", self.read(manifest)[:200]), "--base", self.model, word="half.json")
        self.fails(2, "reproduce", manifest, word="--base")
        self.fails(1, "reproduce", manifest, "--base", self.model, "--from", q, word="leave --from out")
        learned = self.put("learned.yaml", b"name: learned\ncalibration: {windows: 3, tokens: 32}\ndistill: {steps: 2}\n")
        self.fails(2, "quantize", self.model, "-o", self.at("more.gguf"), "--from", q, word="--recipe")
        self.fails(1, "quantize", self.model, "-o", self.at("more.gguf"), "--recipe", learned, word="--from")
        self.fails(1, "quantize", self.model, "-o", self.at("more.gguf"), "--recipe", learned, "--from", q, "--wgroup", 0, word="leave the option out")
        _, err = self.done("quantize", self.model, "-o", self.at("more.gguf"), "--recipe", learned, "--from", q)
        self.assertIn("distilled: ", err)
        self.assertNotIn("rtn", err)
        manifest = self.at("more.gguf.manifest.json")
        self.assertEqual(json.loads(self.read(manifest))["from"]["name"], "again.gguf")
        self.done("quantize", self.model, "-o", self.at("third.gguf"), "--recipe", learned, "--from", self.at("more.gguf"), "--calib", self.text)
        third = json.loads(self.read(self.at("third.gguf.manifest.json")))["from"]
        self.assertEqual((third["name"], third["from"]["name"]), ("more.gguf", "again.gguf"))
        self.fails(1, "reproduce", manifest, "--base", self.model, word="give that file with --from")
        self.done("reproduce", manifest, "--base", self.model, "--from", q)

    def test_resume(self):
        want = self.read(self.quantized("whole.gguf"))
        out = self.at("part.gguf")
        for wait in (0.0, 0.02, 0.05, 0.1, 0.2):  # wherever the kill lands
            p = subprocess.Popen([GYRE, "quantize", self.model, "-o", out, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(wait)
            finished = p.poll() is not None
            p.send_signal(signal.SIGKILL)
            p.wait()
            if not finished and os.path.exists(out):
                self.assertEqual(self.read(out), want)
            if not os.path.exists(out):
                self.done("quantize", self.model, "-o", out, "--device", "cpu", "--resume")
            self.assertEqual(self.read(out), want)
            os.unlink(out)

    def test_interrupt(self):
        p = subprocess.Popen([GYRE, "run", self.model, "-p", "the cat", "-n", "400", "--device", "cpu", "--temp", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertTrue(p.stderr.readline())  # it listens to signals by now
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        self.assertIn(p.returncode, (130, 0), err)  # 0 when it was done before
        p = subprocess.Popen([GYRE, "bench", "--shape", "smollm2-135m", "--train", "4096", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.5)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        self.assertIn(p.returncode, (130, -signal.SIGINT), err)  # the second before it listens
        self.assertEqual(out, b"")

    def test_hugging_face_directory(self):
        hf = self.at("hf")
        subprocess.run([MAKE_MODEL, hf, "HF"], check=True)
        same = lambda path: self.json("run", path, "-p", "the cat", "--device", "cpu", "-n", 8, "--act", 16, "--kv", 16)["tokens"]
        self.assertEqual(same(hf), same(self.model))
        self.put("hf/model.safetensors.index.json", b"{}")  # one file goes before an index, with a line
        status, out, err = run("run", hf, "-p", "the cat", "--device", "cpu", "-n", 1, "--json")
        self.assertEqual((status, "warning: " in err and "model.safetensors" in err), (0, True), err)

    def test_sensitivity(self):
        out, said = self.done("quantize", self.model, "--sensitivity", "--act", 4, "--windows", 2, "--recipe", "quarot-rtn", "--json")
        doc = json.loads(out)
        self.assertIn("multiplications, about", said)
        self.assertEqual((doc["windows"], doc["recipe"]), (2, "quarot-rtn"))
        for name in ("qkv", "o", "gate_up", "down"):
            for cost in ("w4", "a8", "a4"):
                nats = [b[name][cost][0] for b in doc["blocks"]]
                self.assertAlmostEqual(sum(nats), doc["total"][name][cost][0], delta=1e-5 * sum(nats))
                self.assertGreater(min(nats), 0)
            self.assertGreater(doc["total"][name]["a4"][0], 10 * doc["total"][name]["a8"][0])
        out, _ = self.done("quantize", self.model, "--sensitivity", "--act", 4, "--windows", 2)
        self.assertIn("gate_up", out)
        self.assertIn("± standard error", out)
        self.fails(2, "quantize", self.model, "--sensitivity", "-o", self.at("s.gguf"), word="-o")
        for other in (("--report", self.at("r")), ("--resume",), ("--force",), ("--shard", 5), ("--head", 4), ("--device", "cpu"), ("--distill-device", "cpu"), ("--from", "x.gguf")):
            self.fails(2, "quantize", self.model, "--sensitivity", *other, word=other[0])
        out, _ = self.done("quantize", self.model, "--sensitivity", "--windows", 1)
        self.assertNotIn("±", out)  # one window has no error
        self.fails(2, "quantize", self.model, "-o", self.at("s.gguf"), "--windows", 2, word="--windows")
        self.fails(2, "quantize", self.model, "-o", self.at("s.gguf"), "--json", word="--json")
        self.fails(1, "quantize", self.model, "--sensitivity", "--wbits", 16, word="nothing is rounded")
        spent = self.put("spent.yaml", b"name: spent\nrotate: true\nbudget: {bits: 4.2}\nrounding: [rtn]\n")
        self.fails(1, "quantize", self.model, "-o", self.at("s.gguf"), "--recipe", spent, word="bits: 4.2")
        self.assertFalse(os.path.exists(self.at("s.gguf")))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
