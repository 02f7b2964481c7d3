"""Makes codec_golden.inc: random blocks of every block type and what the `gguf` package (PyPI) decodes them to.

Run in this folder: python3 make_codecs.py"""
import textwrap
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES
from gguf.quants import dequantize

BLOCKS = {"Q4_0": 3, "Q4_1": 3, "Q5_0": 3, "Q8_0": 2, "Q4_K": 1, "Q5_K": 1, "Q6_K": 1, "F16": 40, "BF16": 40,
          "Q5_1": 3, "Q2_K": 1, "Q3_K": 1, "IQ4_NL": 3, "IQ4_XS": 1, "MXFP4": 8, "TQ1_0": 1, "TQ2_0": 1}
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "F16": [], "BF16": [],
          "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "TQ1_0": [52], "TQ2_0": [64]}
rng = np.random.default_rng(20)
out = ["// Made by make_codecs.py: blocks and their values as bits of f32. Do not edit.", "// clang-format off"]
for name, n in BLOCKS.items():
    elements, size = GGML_QUANT_SIZES[T[name]]
    data = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES[name]:  # finite halves of every magnitude, subnormal and negative ones too
        scale = (rng.standard_normal(n) * 2.0 ** rng.integers(-18, 3, n)).astype(np.float16)
        data[:, at:at + 2] = scale.view(np.uint8).reshape(n, 2)
    if name == "MXFP4":  # exponents of every size; none that overflows
        data[:, 0] = [0, 1, 2, 126, 127, 128, 130, 250]
    if name in ("F16", "BF16"):
        data = data[(data[:, 1] & 0x7C) != 0x7C]  # finite
    values = dequantize(data.reshape(-1) if elements == 1 else data, T[name]).astype(np.float32).reshape(-1)
    wrap = lambda numbers: "\n".join(textwrap.wrap(", ".join(numbers), 116))
    out.append(f"static const uint8_t {name.lower()}_blocks[] = {{\n{wrap(map(str, data.reshape(-1)))}}};")
    out.append(f"static const uint32_t {name.lower()}_values[] = {{\n{wrap(map(hex, values.view(np.uint32)))}}};")
open("codec_golden.inc", "w").write("\n".join(out) + "\n")
