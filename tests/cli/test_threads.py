"""The program's threads yield: it runs beside others, and under a limit of its address space. Standard library only.

  test_threads.py GYRE MAKE_MODEL [unittest arguments]"""
import os, resource, subprocess, sys, time, unittest

from case import GYRE, MAKE_MODEL, Case

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_THREAD_TIMEOUT", "GOTO_NUM_THREADS")


def clean(**more):
    return {**{k: v for k, v in os.environ.items() if k not in NAMES}, **more}


class Threads(Case):
    def environment(self, **more):
        """What the program runs with, seen from outside while it runs."""
        p = subprocess.Popen([GYRE, "chat", self.model, "-n", "1", "--device", "cpu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean(**more))
        p.stdin.write(b"the cat\n")
        p.stdin.flush()
        p.stdout.read(1)  # of its answer; now it waits for the next line
        with open(f"/proc/{p.pid}/environ", "rb") as f:
            all = dict(x.decode().split("=", 1) for x in f.read().split(b"\0") if b"=" in x)
        p.kill()
        p.communicate()
        return {k: v for k, v in all.items() if k in NAMES}

    @unittest.skipUnless(os.path.exists("/proc/self/environ"), "there is no /proc")
    def test_policy(self):
        own = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "01", "OPENBLAS_THREAD_TIMEOUT": "10"}
        self.assertEqual(self.environment(), own)
        for said in ({"OMP_WAIT_POLICY": "active"}, {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_THREAD_TIMEOUT": "20"}, {"OMP_NUM_THREADS": "2"}):
            self.assertEqual(self.environment(**said), {**own, **said})
        del own["OMP_WAIT_POLICY"]  # its finer form
        self.assertEqual(self.environment(GOMP_SPINCOUNT="5"), {**own, "GOMP_SPINCOUNT": "5"})

    def cpu_seconds(self, recipe, **more):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([GYRE, "quantize", self.model, "-o", self.at("t.gguf"), "--recipe", recipe, "--device", "cpu", "--force"], env=clean(OMP_NUM_THREADS="2", **more), check=True, capture_output=True, timeout=300)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime

    def test_beside_a_busy_process(self):
        """Threads that turn in a circle pay for it in processor time, most of all where another program has their core."""
        recipe = self.put("t.yaml", b"name: t\nrotate: true\ncalibration: {windows: 8, tokens: 32}\nrounding: [gptq]\n")
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            quiet = self.cpu_seconds(recipe, OMP_WAIT_POLICY="passive", OPENBLAS_NUM_THREADS="1")
            usual = self.cpu_seconds(recipe)
        finally:
            busy.kill()
            busy.wait()
        self.assertLess(usual, 1.5 * quiet + 0.3)

    def test_address_space(self):
        """Ends by itself where only so much memory may be addressed, and does its work."""
        want = self.done("tokenize", self.model, "-p", "the cat sat")[0]
        for megabytes in (400, 200, 120, 100):
            limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
            p = subprocess.Popen([GYRE, "tokenize", self.model, "-p", "the cat sat"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limit, env=clean())
            try:
                out, err = p.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                p.kill()
                p.communicate()
                self.fail(f"hangs with {megabytes} MB")
            self.assertEqual((p.returncode, out.decode()), (0, want), err)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
