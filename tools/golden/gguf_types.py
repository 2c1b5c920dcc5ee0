"""Golden blocks of GGUF types, by the reference dequantizers of gguf-py, and a small file written by its writer.

Writes into crates/lowbit-model/tests/golden/: `gguf_types.safetensors` with, for each type, uint8 `TYPE.bytes` (rows of
blocks), float32 `TYPE.values` they mean, and for the types that are written float32 `TYPE.source` whose quantization they
are; and `small.gguf`. I2_S is no type of gguf-py: its bytes follow `quantize_i2_s` of bitnet.cpp (ggml-bitnet-mad.cpp).
"""

from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden"
# Byte offsets of the f16 fields of a block, and bytes of a block.
SCALES = {"Q4_0": ([0], 18), "Q8_0": ([0], 34), "Q4_K": ([0, 2], 144), "Q6_K": ([208], 210)}
ROWS, BLOCKS = 3, 2


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
            half = (rng.standard_normal(len(blocks)) * 0.02).astype(np.float16)
            blocks[:, at : at + 2] = half.view(np.uint8).reshape(-1, 2)
        kind = gguf.GGMLQuantizationType[name]
        tensors[f"{name}.bytes"] = blocks.reshape(ROWS, -1)
        tensors[f"{name}.values"] = gguf.quants.dequantize(tensors[f"{name}.bytes"], kind)
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
