"""quantize, killed before calls that change files and within writes (tests/preload/kill.c), then resumed: the same bytes, and
nothing else is left. All renames and removals are met, of the other calls some."""
import hashlib, os, shutil, subprocess, sys, unittest

from case import MAKE_MODEL, Case, run

KILL = os.environ.get("GYRE_TEST_KILL")
RARE = ("rename", "unlink", "unlinkat", "rmdir", "mkdir", "ftruncate")
RECIPE = """name: short
rotate: true
learn: {method: kl, steps: 2}
calibration: {windows: 4, tokens: 24}
rounding: [gptq]
"""


@unittest.skipUnless(KILL, "nothing can be loaded in front of this build's libraries")
class Kills(Case):
    def tree(self, folder):
        found = {}
        for root, folders, files in os.walk(folder):
            found.update({os.path.relpath(os.path.join(root, f), folder): hashlib.sha256(self.read(os.path.join(root, f))).hexdigest()
                          for f in files})
            found.update({os.path.relpath(os.path.join(root, f), folder): "" for f in folders})
        return found

    def killed_anywhere(self, source, name, args, step, older=()):
        work, saved, log = self.at("work"), self.at("saved"), self.at("calls")
        command = ["quantize", source, "-o", os.path.join(work, name), "--device", "host", *args]
        os.mkdir(work)
        self.done(*command)
        want = self.tree(work)
        if older:  # stands under the name before
            self.done(*command, "--force", *older)
        old = self.tree(work) if older else {}
        if not older:
            shutil.rmtree(work)
            os.mkdir(work)
        os.rename(work, saved)
        force = ["--force"] if older else []

        def killed(at, torn):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(saved, work)
            env = {"LD_PRELOAD": KILL, "KILL_UNDER": work, "KILL_AT": str(at), **({"KILL_TORN": "1"} if torn else {})}
            return run(*command, *force, env={**env, **({} if at else {"KILL_LOG": log})})[0]

        def own(tree):
            return {k: v for k, v in tree.items() if k.split("/")[0] == name}

        self.assertEqual(killed(0, False), 0)
        self.assertEqual(self.tree(work), want)
        with open(log) as f:
            calls = f.read().split()
        os.unlink(log)
        self.assertGreater(len(calls), 60)
        for at, call in enumerate(calls, 1):
            for torn in (False, True):
                if torn and call not in ("write", "pwrite") or call not in RARE and (at + torn) % step:
                    continue
                with self.subTest(output=name, call=call, at=at, torn=torn):
                    self.assertEqual(killed(at, torn), -9)
                    left = own(self.tree(work))
                    self.assertIn(left, (own(old), own(want), {}))
                    self.done(*command, "--resume", *(force if left == own(old) else []))
                    self.assertEqual(self.tree(work), want)
                    if call in ("rename", "rmdir"):  # and begun again
                        self.assertEqual(killed(at, torn), -9)
                        self.done(*command, "--force")
                        self.assertEqual(self.tree(work), want)
        shutil.rmtree(work)
        shutil.rmtree(saved)

    def full_disk(self, source, name, args, older, step):
        """A disk that is full from some call on: what stands under the name is the older output with all that belongs to it, or
        the new one, and with space the run goes on."""
        work, saved, log = self.at("work"), self.at("saved"), self.at("calls")
        command = ["quantize", source, "-o", os.path.join(work, name), "--device", "host", *args]
        os.mkdir(work)
        self.done(*command)
        want = self.tree(work)
        self.done(*command[:6], *older, "--force")
        old = self.tree(work)
        os.rename(work, saved)

        def filled(at):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(saved, work)
            env = {"LD_PRELOAD": KILL, "KILL_UNDER": work, "KILL_AT": str(at), "KILL_FULL": "1"}
            return run(*command, "--force", env=env if at else {**env, "KILL_AT": "1000000000", "KILL_LOG": log})

        self.assertEqual(filled(0)[0], 0)
        with open(log) as f:
            calls = f.read().split()
        os.unlink(log)
        self.assertEqual(self.tree(work), want)
        failed = 0
        for at, call in enumerate(calls, 1):
            if at < len(calls) - 40 and at % step:
                continue
            with self.subTest(output=name, call=call, at=at):
                code, out, err = filled(at)
                left = {k: v for k, v in self.tree(work).items() if not k.split("/")[0].startswith((name + ".part", name + ".journal"))}
                if code == 0:
                    self.assertEqual(self.tree(work), want)
                    continue
                failed += 1
                self.assertEqual(code, 1)
                self.assertIn("No space left on device", err)
                self.assertEqual(left, old)
                self.done(*command, "--resume", "--force")
                self.assertEqual(self.tree(work), want)
        self.assertGreater(failed, 20)
        shutil.rmtree(work)
        shutil.rmtree(saved)

    def test_full_disk(self):
        recipe = self.put("short.yaml", RECIPE.encode())
        args = ["--recipe", recipe, "--calib", self.text]
        self.full_disk(self.model, "out.gguf", args, [*args, "--seed", "7"], 12)

    def test_full_disk_of_folders(self):
        recipe, source = self.put("short.yaml", RECIPE.encode()), self.at("tiny-full")
        subprocess.run([MAKE_MODEL, source, "HF"], check=True)
        args = ["--recipe", recipe, "--calib", self.text, "--format", "hf"]
        self.full_disk(source, "out", args, [*args, "--seed", "7"], 12)

    def test_no_rotations_on_a_full_disk(self):
        recipe = self.put("short.yaml", RECIPE.encode())
        self.full_disk(self.model, "out.gguf", ["--recipe", "quarot-rtn"], ["--recipe", recipe, "--calib", self.text], 12)

    def test_file(self):
        recipe = self.put("short.yaml", (RECIPE + "distill: {steps: 2}\n").encode())
        self.killed_anywhere(self.model, "out.gguf", ["--recipe", recipe, "--calib", self.text, "--calib", "self"], 12)

    def test_folder_in_the_place_of_another(self):
        source = self.at("tiny")
        subprocess.run([MAKE_MODEL, source, "HF"], check=True)
        self.killed_anywhere(source, "out", ["--recipe", "quarot-rtn", "--format", "hf"], 12, older=("--seed", "7"))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
