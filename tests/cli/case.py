"""What the tests of the command line share: the program and a tiny model in a folder that vanishes. Standard library only."""
import json, os, shutil, signal, subprocess, sys, tempfile, unittest

GYRE, MAKE_MODEL = sys.argv[1], sys.argv[2]


def full_disk(limit):
    import resource
    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return set_limit


def run(*args, disk=None, env=None):
    p = subprocess.run([GYRE, *map(str, args)], capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
                       preexec_fn=full_disk(disk) if disk else None, env={**os.environ, **(env or {})})
    return p.returncode, p.stdout.decode(), p.stderr.decode()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="gyre-cli-")
        cls.model = cls.at("tiny.gguf")
        subprocess.run([MAKE_MODEL, cls.model, "F32"], check=True)
        cls.text = cls.at("text.txt")
        with open(cls.text, "w") as f:
            f.write("the cat sat on the mat and looked at the moon; 12 stars. " * 12)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    @classmethod
    def at(cls, name):
        return os.path.join(cls.dir, name)

    @staticmethod
    def read(path):
        with open(path, "rb") as f:
            return f.read()

    def put(self, name, data):
        with open(self.at(name), "wb") as f:
            f.write(data)
        return self.at(name)

    def json(self, *args):
        status, out, err = run(*args, "--json")
        self.assertEqual(status, 0, err)
        return json.loads(out)

    def done(self, *args):
        status, out, err = run(*args)
        self.assertEqual(status, 0, err)
        return out, err

    def fails(self, want, *args, word="", **how):
        status, _, err = run(*args, **how)
        said = [x for x in err.splitlines() if x.startswith("gyre: ")]
        self.assertEqual((status, len(said)), (want, 1), err)
        self.assertIn(word, said[0])
        if want != 2:
            self.assertEqual(err.strip().splitlines()[-1], said[0])

    def quantized(self, name, *args):
        out = self.at(name)
        self.done("quantize", self.model, "-o", out, "--force", "--device", "cpu", *args)
        return out
