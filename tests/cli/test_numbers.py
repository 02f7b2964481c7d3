"""Models whose numbers are out of the ordinary: matrices of zeros, weights below a half's range, logits that are none.
Standard library only.

  test_numbers.py GYRE MAKE_MODEL [unittest arguments]"""
import array, json, os, struct, subprocess, sys, unittest

from case import GYRE, MAKE_MODEL, Case, run


def read_tensors(folder):
    """{name: (shape, floats)} of a Hugging Face folder in F32."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            assert t["dtype"] == "F32"
            out[name] = t["shape"], array.array("f", data[slice(*t["data_offsets"])])
    return out


def bf16(x):
    """Truncated: what matters is only that both containers hold the same numbers."""
    return struct.unpack("<I", struct.pack("<f", x))[0] >> 16


def write_tensors(folder, tensors, dtype="F32"):
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        raw = array.array("H", map(bf16, values)).tobytes() if dtype == "BF16" else array.array("f", values).tobytes()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + data)


class Numbers(Case):
    def folder(self, name, change=lambda name, values: values, dtype="F32"):
        """A tiny model as a folder, its tensors changed: floats -> floats."""
        path = self.at(name)
        subprocess.run([MAKE_MODEL, path, "HF"], check=True)
        write_tensors(path, {k: (shape, change(k, v)) for k, (shape, v) in read_tensors(path).items()}, dtype)
        return path

    def small_recipe(self):
        """Stages that repair what earlier blocks lost: they write into matrices of zeros, too."""
        return self.put("repair.yaml", b"name: repair\nrotate: true\ncalibration: {windows: 4, tokens: 32}\nrounding: [correct: {alpha: auto, residual: auto}, gptq]\n")

    def test_zero_matrices_verify(self):
        zeros = ("layers.1.self_attn.o_proj", "layers.1.mlp.down_proj", "layers.0.self_attn.q_proj")
        clear = lambda some: lambda name, v: array.array("f", [0.0] * len(v)) if any(z in name for z in some) else v
        for name, some in (("some", zeros), ("block", [f"layers.1.{x}" for x in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp")])):
            base = self.folder(name, clear(some))
            for recipe in ("rtn", "quarot-rtn", self.small_recipe()):
                for profile in ("full", "portable"):
                    with self.subTest(name=name, recipe=recipe, profile=profile):
                        out = self.at("zeros.gguf")
                        _, said = self.done("quantize", base, "-o", out, "--recipe", recipe, "--profile", profile, "--calib", self.text, "--device", "cpu", "--force")
                        errors = [float(x) for line in said.splitlines() if "weight error" in line for x in line.split()[2:]]
                        self.assertTrue(errors and all(0 < e < 0.1 for e in errors), said)
                        self.assertLess(self.json("verify", out, "--base", base)["worst"]["error"], 0.5)

    def test_garbage_for_zeros_is_told(self):
        """Zeros are not a place to hide something: a file made from another model fails."""
        base = self.folder("empty", lambda name, v: array.array("f", [0.0] * len(v)) if "layers.1.mlp.down_proj" in name else v)
        other = self.folder("full")
        out = self.at("g.gguf")
        self.done("quantize", other, "-o", out, "--recipe", self.small_recipe(), "--calib", self.text, "--device", "cpu", "--force")
        manifest = json.loads(self.read(out + ".manifest.json"))
        self.done("quantize", base, "-o", self.at("e.gguf"), "--recipe", "rtn", "--device", "cpu", "--force")
        theirs = json.loads(self.read(self.at("e.gguf.manifest.json")))
        manifest["base"], manifest["sources"] = theirs["base"], theirs["sources"]
        self.put("g.gguf.manifest.json", json.dumps(manifest).encode())
        self.fails(1, "verify", out, "--base", base, word="blk.1.ffn_down.weight: un-rotated")

    def test_small_weights(self):
        """Powers of two cancel between v and o, up and down: the function is that of the plain model, whatever the container."""
        def scaled(power):
            def change(name, v):
                s = 2.0 ** -power if "v_proj" in name or "up_proj" in name else 2.0 ** power if "o_proj" in name or "down_proj" in name else 1
                return array.array("f", [struct.unpack("<f", struct.pack("<I", bf16(x) << 16))[0] * s for x in v])
            return change
        for power in (0, 17, 20):
            nll = []
            for dtype in ("F32", "BF16"):
                path = self.folder(f"{dtype}-{power}", scaled(power), dtype)
                nll.append(self.json("eval", path, "--text", self.text, "--ctx", 32, "--windows", 3, "--act", 16, "--kv", 16, "--device", "cpu")["nll"])
            with self.subTest(power=power):
                self.assertAlmostEqual(nll[0], nll[1], delta=1e-4)
        out = self.at("faint.gguf")
        _, said = self.done("quantize", self.at("BF16-20"), "-o", out, "--recipe", "rtn", "--device", "cpu", "--force")
        self.assertIn("blk.0.attn_v.weight", [x.split("tensor ")[1].split(":")[0] for x in said.splitlines() if "below what an f16 scale can hold" in x])
        _, said = self.done("quantize", self.at("BF16-0"), "-o", out, "--recipe", "rtn", "--device", "cpu", "--force")
        self.assertNotIn("f16 scale", said)

    def test_logits_that_are_none(self):
        """Not one command takes NaN for an answer."""
        huge = self.folder("huge", lambda name, v: array.array("f", [1e38 if i % 2 else -1e38 for i in range(len(v))]) if "layers.0.mlp.down_proj" in name else v)
        cpu, text = ("--device", "cpu"), ("--text", self.text, "--ctx", 32, "--windows", 2)
        for args in (("run", huge, "-p", "the cat", "-n", 4, *cpu), ("run", huge, "-p", "the cat", "-n", 4, "--temp", 1, "--json", *cpu), ("bench", huge, "--prompt", 4, "--gen", 2, *cpu), ("eval", huge, *text, *cpu), ("eval", huge, *text, "--reference", self.model, *cpu), ("eval", self.model, *text, "--reference", huge, *cpu),
                     ("eval", huge, *text, "--save-reference", self.at("none"), *cpu), ("compare", huge, "--recipes", "rtn", *text, "-o", self.at("huge-compare"), *cpu),
                     ("quantize", huge, "-o", self.at("huge.gguf"), "--recipe", self.small_recipe(), "--calib", self.text, *cpu)):
            with self.subTest(args=args):
                self.fails(1, *args)
        self.assertFalse(os.path.exists(self.at("none")) or os.path.exists(self.at("huge.gguf")))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
