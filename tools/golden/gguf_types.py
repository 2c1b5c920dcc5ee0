"""Golden blocks of GGUF types, by the reference dequantizers of gguf-py, and a small file written by its writer.

Writes into crates/lowbit-model/tests/golden/: `gguf_types.safetensors` with, for each type, uint8 `TYPE.bytes` (rows of
blocks), float32 `TYPE.values` they mean, and for the types that are written float32 `TYPE.source` whose quantization they
are; `rounded.source` and, for types with a rounding in gguf-py, `TYPE.rounded`, its squared error per row; and `small.gguf`. The first blocks of each type have awkward scales: 0, subnormal, negative, the largest. I2_S is no type
of gguf-py: its bytes follow `quantize_i2_s` of bitnet.cpp (ggml-bitnet-mad.cpp). Q1_0 and the Q2_0 types have no
dequantizer in gguf-py: they follow `dequantize_row_q1_0` and `dequantize_row_q2_0` of llama.cpp (ggml-quants.c).
"""

from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden"
# Byte offsets of the f16 fields of a block, and bytes of a block.
SCALES = {
    "Q4_0": ([0], 18), "Q4_1": ([0, 2], 20), "Q5_0": ([0], 22), "Q5_1": ([0, 2], 24), "Q8_0": ([0], 34),
    "Q2_K": ([80, 82], 84), "Q3_K": ([108], 110), "Q4_K": ([0, 2], 144), "Q5_K": ([0, 2], 176), "Q6_K": ([208], 210),
    "IQ4_NL": ([0], 18), "IQ4_XS": ([0], 136), "MXFP4": ([], 17), "NVFP4": ([], 36),
    "Q1_0": ([0], 18), "Q2_0": ([0], 18), "Q2_0_G128": ([0], 34), "PQ2_0": ([0], 34),
}
AWKWARD = [0.0, 6e-8, -1.5, 1024.0]
ROWS, BLOCKS = 3, 2


def few_bits(blocks, bits):
    """Q1_0 and Q2_0: an f16 scale, then elements, lowest bits first."""
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    codes = blocks[:, 2:, None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8(2**bits - 1)
    codes = codes.reshape(len(blocks), -1).astype(np.float32)
    return scale * (codes * 2 - 1 if bits == 1 else codes - 1)


def dequantized(name, blocks):
    if name in ("Q1_0", "Q2_0", "Q2_0_G128", "PQ2_0"):
        return few_bits(blocks, 1 if name == "Q1_0" else 2).reshape(ROWS, -1)
    return gguf.quants.dequantize(blocks.reshape(ROWS, -1), gguf.GGMLQuantizationType[name])


def ternary(rng, cols, scale):
    return (rng.integers(-1, 2, (ROWS, cols)) * np.float32(scale)).astype(np.float32)


def i2_s(values):
    scale = np.abs(values).max()
    codes = (np.sign(values).astype(np.int8) + 1).astype(np.uint8).reshape(-1, 4, 32)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return np.concatenate([packed.reshape(-1), np.frombuffer(scale.tobytes() + bytes(28), np.uint8)])


if __name__ == "__main__":
    rng = np.random.default_rng(11)
    tensors = {}
    for name, (scales, size) in SCALES.items():
        blocks = rng.integers(0, 256, (ROWS * BLOCKS, size), dtype=np.uint8)
        for at in scales:
            half = rng.permutation(np.r_[AWKWARD, rng.standard_normal(len(blocks) - len(AWKWARD)) * 0.02]).astype(np.float16)
            blocks[:, at : at + 2] = half.view(np.uint8).reshape(-1, 2)
        if name == "MXFP4":  # exponents up to where twelve halves stay finite
            blocks[:, 0] = np.r_[0, 1, 2, 251, rng.integers(100, 150, len(blocks) - 4)]
        tensors[f"{name}.bytes"] = blocks.reshape(ROWS, -1)
        tensors[f"{name}.values"] = dequantized(name, blocks)
    doubles = rng.standard_normal((ROWS, 64)) * 10.0 ** rng.integers(-50, 38, (ROWS, 64))
    tensors |= {"F64.bytes": doubles.view(np.uint8), "F64.values": doubles.astype(np.float32)}
    sources = {
        "F32": rng.standard_normal((ROWS, 64)),
        "F16": rng.standard_normal((ROWS, 64)) * 10.0 ** rng.integers(-8, 5, (ROWS, 64)),
        "BF16": rng.standard_normal((ROWS, 64)),
        "Q8_0_written": rng.standard_normal((ROWS, 64)),
        "TQ1_0": ternary(rng, 512, 0.75),
        "TQ2_0": ternary(rng, 512, 0.0625),
    }
    for name, source in sources.items():
        source = source.astype(np.float32)
        kind = gguf.GGMLQuantizationType[name.removesuffix("_written")]
        packed = gguf.quants.quantize(source, kind)
        tensors[f"{name}.source"] = source
        tensors[f"{name}.bytes"] = np.ascontiguousarray(packed).view(np.uint8).reshape(ROWS, -1)
        tensors[f"{name}.values"] = gguf.quants.dequantize(packed, kind).astype(np.float32)
    source = ternary(rng, 256, 0.3)
    tensors |= {"I2_S.source": source, "I2_S.values": source, "I2_S.bytes": i2_s(source)}
    # Rows of unlike shapes, and the squared error of gguf-py's own rounding of all of them.
    rows = [rng.standard_normal(256), rng.laplace(size=256), rng.uniform(0, 1, 256), rng.standard_t(3, 256), rng.standard_normal(256) + 2,
            rng.standard_normal(256) * np.repeat(10.0 ** rng.uniform(-2, 0, 8), 32)]
    source = (np.array(rows) * 0.02).astype(np.float32)
    tensors["rounded.source"] = source
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        kind = gguf.GGMLQuantizationType[name]
        back = gguf.quants.dequantize(gguf.quants.quantize(source, kind), kind).astype(np.float64)
        tensors[f"{name}.rounded"] = ((back - source) ** 2).sum(1).astype(np.float32)
    save_file(tensors, OUT / "gguf_types.safetensors")

    writer = gguf.GGUFWriter(OUT / "small.gguf", "llama")
    writer.add_uint32("llama.block_count", 7)
    writer.add_float32("llama.rope.freq_base", 500000.0)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_int64("a.negative", -(2**40))
    writer.add_token_list(["<unk>", "\u2581a", "b"])
    writer.add_array("a.numbers", [1.5, -2.0])
    writer.add_custom_alignment(64)
    writer.add_tensor("matrix", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("packed", tensors["TQ2_0.bytes"], raw_dtype=gguf.GGMLQuantizationType.TQ2_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
