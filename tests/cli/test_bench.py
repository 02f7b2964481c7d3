"""gyre bench: what it measures, its records, and what is kept where it ends early. Standard library only.

  test_bench.py GYRE MAKE_MODEL [unittest arguments]"""
import csv, io, json, os, shutil, subprocess, sys, time, unittest

from case import GYRE, Case

# fields of llama-bench's records that say something of gyre, by the names that its printers give them
LLAMA_BENCH = set("""build_commit gpu_info backends model_filename model_type model_size n_batch n_ubatch type_k type_v n_prompt n_gen
    n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts""".split())


class Bench(Case):
    def test_bench(self):
        r = self.json("bench", self.model, "--device", "cpu", "--prompt", 10, "--gen", 3, "--act", 8, "--kv", 4, "--profile")["results"][0]
        self.assertEqual((r["device"], r["prompt_tokens"], r["gen_tokens"], r["act"], r["kv"]), ("cpu", 10, 3, 8, 4))
        for key in ("prefill_tps", "prefill_gops", "decode_tps", "decode_GBps", "roof_GBps", "roof_share", "host_us_per_token"):
            self.assertGreater(r[key], 0, key)
        self.assertEqual(r["prefill_share"], 0)  # of no rate that was measured: a CPU
        self.assertTrue(r["profile"] and r["prefill_profile"])
        self.assertEqual((r["depth"], r["submissions_per_token"]), (0, 1))
        deep = self.json("bench", self.model, "--device", "cpu", "--prompt", 4, "--gen", 2, "-d", "0,40", "--rows", "1,3")["results"]
        self.assertEqual([(x["depth"], x["prompt_tokens"], x["gen_tokens"]) for x in deep], [(0, 4, 2), (40, 4, 2)])
        self.assertEqual([x["rows"] for x in deep[0]["steps"]], [1, 3])
        self.assertTrue(all(x["ms"] > 0 for x in deep[0]["steps"]))
        roofs = self.json("bench", "--device", "cpu")["results"][0]
        self.assertNotIn("decode_tps", roofs)
        self.assertGreater(roofs["roof_GBps"], 0)
        self.assertEqual((roofs["matrix_int8_gops"], roofs["matrix_f16_gflops"]), (0, 0))

    def test_bench_keeps_what_was_done(self):
        """A device that fails ends the command, and those before it are printed: here the model vanishes under the last one."""
        devices = [d["id"] for d in self.json("devices")["devices"]]
        if len(devices) < 2:
            self.skipTest("one device alone")
        asked = ("bench", self.at("gone.gguf"), "--device", "all", "--prompt", 4, "--gen", 2)
        partial = 0
        for more in ((), ("--json",), ("--json",), ("--json",), ("--json",)):
            shutil.copy(self.model, self.at("gone.gguf"))
            start = time.time()
            p = subprocess.Popen([GYRE, *map(str, asked + more)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if more:
                time.sleep(wait)  # behind its first engine, before its last
                os.remove(self.at("gone.gguf"))
                wait *= 1.4 if p.poll() is None else 0.7
                out, err = p.communicate()
            else:
                line = p.stdout.readline()
                wait = 0.6 * (time.time() - start)
                os.remove(self.at("gone.gguf"))
                out, err = p.communicate()
                self.assertEqual((p.returncode, line.split()[0]), (1, devices[0]))
            if p.returncode == 0:
                continue
            self.assertEqual((p.returncode, err.count("gyre: ")), (1, 1), err)
            self.assertIn("gone.gguf", err)
            self.assertTrue(any(f"cannot bench ({d}): " in err for d in devices), err)
            if more and out:
                done = [r["device"] for r in json.loads(out)["results"]]
                self.assertEqual(done, devices[:len(done)])
                self.assertIn(f"cannot bench ({devices[len(done)]}): ", err)
                partial += 0 < len(done) < len(devices)
            if partial:
                break
        self.assertTrue(partial, "no run was caught between two devices")

    def test_bench_records(self):
        asked = ("bench", self.model, "--device", "cpu", "--prompt", 4, "--gen", 2, "-d", "0,9", "-r", 2, "--rows", 3, "-o")
        tests = json.loads(self.done(*asked, "json")[0])
        want = [(4, 0, 0, 2), (0, 2, 0, 2), (4, 0, 9, 2), (0, 2, 9, 2), (3, 0, 0, 5)]
        self.assertEqual([(t["n_prompt"], t["n_gen"], t["n_depth"], len(t["samples_ns"])) for t in tests], want)
        for t in tests:
            self.assertAlmostEqual(t["avg_ns"], sum(t["samples_ns"]) / len(t["samples_ns"]), delta=1)
            self.assertAlmostEqual(t["avg_ts"] / (sum(t["samples_ts"]) / len(t["samples_ts"])), 1, places=9)
            self.assertEqual((t["model_filename"], t["backends"]), (str(self.model), "CPU"))
            self.assertEqual((t["n_batch"], t["n_ubatch"]), (512, 512))
            self.assertLessEqual(set(t), LLAMA_BENCH)
        lines = self.done(*asked, "jsonl")[0].splitlines()
        self.assertEqual([set(json.loads(line)) for line in lines], [set(tests[0])] * 5)
        table = list(csv.DictReader(io.StringIO(self.done(*asked, "csv")[0])))
        self.assertEqual([(int(t["n_prompt"]), int(t["n_gen"]), int(t["n_depth"])) for t in table], [w[:3] for w in want])
        self.assertTrue(all(float(t["avg_ts"]) > 0 for t in table))
        shown = self.done(*asked, "md")[0].splitlines()
        self.assertEqual([row.split("|")[5].strip() for row in shown[2:]], ["pp4", "tg2", "pp4 @ d9", "tg2 @ d9", "pp3"])
        self.fails(2, "bench", "--device", "cpu", "-o", "md", word="-o md")
        self.fails(2, "bench", self.model, "--device", "cpu", "-o", "sql", word="-o")
        self.fails(2, "bench", self.model, "--device", "cpu", "-o", "csv", "--json", word="-o csv")
        self.fails(2, "bench", self.model, "--device", "cpu", "-o", "csv", "--profile", word="--profile")
        self.fails(2, "bench", self.model, "--device", "cpu", "-r", 2, word="add -o FORMAT")
        for other in (("--act", 4), ("--kv", 8), ("--prompt", 5), ("--gen", 5), ("-d", 9), ("--rows", 3), ("--ahead", 2), ("--tune", "on"), ("--profile",), ("-o", "md")):
            self.fails(2, "bench", "--shape", "smollm2-135m", "--train", 8, *other, word="--train 8")
        self.fails(2, "bench", self.model, "--device", "cpu", "--head", 4, word="--shape")
        # What nothing would look at is refused, not passed over.
        self.fails(2, "bench", self.model, "--device", "cpu", "--wgroup", 0, word="--wgroup 0")
        for other in (("--act", 4), ("--kv", 8), ("--prompt", 5), ("--gen", 5), ("-d", 9), ("--rows", 3), ("--ahead", 2), ("--tune", "on"), ("--profile",), ("--wgroup", 32), ("--weights", 8), ("--table", "host")):
            self.fails(2, "bench", "--device", "cpu", *other, word=f"missing argument ({other[0]})")
        for other in (("--device", "cpu"), ("--profile",), ("--tune", "on")):
            self.fails(2, "bench", self.model, "--plan", *other, word=other[0])
        odd = self.at("n") + os.fsdecode(b"\xff.gguf")  # a name that is no UTF-8 loses no record
        with open(odd, "wb") as f:
            f.write(self.read(self.model))
        tests = json.loads(self.done("bench", odd, "--device", "cpu", "--prompt", 4, "--gen", 2, "-o", "json")[0])
        self.assertEqual([t["model_filename"][-7:] for t in tests], ["n\ufffd.gguf"] * 2)
        self.assertIn("decode_tps", self.json("bench", odd, "--device", "cpu", "--prompt", 4, "--gen", 2)["results"][0])

    def test_bench_of_a_shape(self):
        r = self.json("bench", "--shape", "smollm2-135m", "--device", "cpu", "--prompt", 1, "--gen", 1)["results"][0]
        self.assertEqual((r["model"], r["prompt_tokens"], r["gen_tokens"], r["act"], r["kv"]), ("smollm2-135m", 1, 1, 8, 8))
        self.assertGreater(r["decode_tps"], 0)
        self.assertIn(r["dispatches_per_layer"], range(4, 11))
        cpu = ("--device", "cpu")
        self.fails(1, "bench", "--shape", "llama-9b", *cpu, word="there is no such shape; there are")
        self.fails(1, "bench", "--shape", "smollm2-135m", "--wgroup", 128, *cpu, word="groups of 128 do not divide 576")
        self.fails(2, "bench", self.model, "--shape", "llama-1b", *cpu, word="a model is named, too")
        for option, value in (("-d", "0,x"), ("-d", ""), ("-d", "1,"), ("--rows", "0"), ("--rows", "1;2"), ("--wgroup", "7")):
            self.fails(2, "bench", self.model, option, value, *cpu, word=option)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
