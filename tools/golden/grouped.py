"""Golden vectors of the grouped integer formats: blocks of llama.cpp, read by the `gguf` package.

Writes crates/lowbit-kernels/tests/golden/grouped.safetensors. For each type T (q4_0 .. q6_k), matrices [2, 512]:

  T.codes   uint8 [2, 512], the codes of all columns
  T.scale   float16 [2, spans], d of each block or super-block
  T.offset  float16 [2, spans], m or dmin; 0 where there is none
  T.stored  uint8 [2, groups, 2], integer scale and minimum of each group of a super-block; [2, 0, 2] without super-blocks
  T.w       float32 [2, 512], what `gguf.quants.dequantize` reads from the block of these

Scales of both signs, zeros and the largest integers are among them.
"""

from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).parents[2] / "crates/lowbit-kernels/tests/golden/grouped.safetensors"
ROWS, COLS = 2, 512


def half(v):
    return np.array([v], np.float16).view(np.uint8)


def halves_of_nibbles(codes):
    return (codes[:16] & 15) | ((codes[16:] & 15) << 4)


def fifth_bits(codes):
    return np.packbits(codes >> 4, bitorder="little")


def six_bits(scales, minima):
    """Eight 6-bit pairs in 12 bytes."""
    low = (scales[:4] & 63) | (scales[4:] >> 4 << 6)
    high = (minima[:4] & 63) | (minima[4:] >> 4 << 6)
    return np.concatenate([low, high, (scales[4:] & 15) | ((minima[4:] & 15) << 4)]).astype(np.uint8)


def pairs_of_nibbles(codes):
    return np.concatenate([(p[:32] & 15) | ((p[32:] & 15) << 4) for p in codes.reshape(4, 64)])


def crumbs(codes):
    out = np.zeros(64, np.uint8)
    for i, part in enumerate(codes.reshape(16, 16)):
        out[i // 8 * 32 + i % 2 * 16 :][:16] |= (part & 3) << (i % 8 // 2 * 2)
    return out


def q4_0(c, d, m, s):
    return [half(d), halves_of_nibbles(c)]


def q4_1(c, d, m, s):
    return [half(d), half(m), halves_of_nibbles(c)]


def q5_0(c, d, m, s):
    return [half(d), fifth_bits(c), halves_of_nibbles(c)]


def q5_1(c, d, m, s):
    return [half(d), half(m), fifth_bits(c), halves_of_nibbles(c)]


def q8_0(c, d, m, s):
    return [half(d), c ^ 128]


def q4_k(c, d, m, s):
    return [half(d), half(m), six_bits(s[:, 0], s[:, 1]), pairs_of_nibbles(c)]


def q5_k(c, d, m, s):
    high = sum(((part >> 4) << j) for j, part in enumerate(c.reshape(8, 32))).astype(np.uint8)
    return [half(d), half(m), six_bits(s[:, 0], s[:, 1]), high, pairs_of_nibbles(c)]


def q6_k(c, d, m, s):
    low, high = [], []
    for a, b, e, f in c.reshape(2, 4, 32):
        low += [(a & 15) | ((e & 15) << 4), (b & 15) | ((f & 15) << 4)]
        high.append((a >> 4) | (b >> 4 << 2) | (e >> 4 << 4) | (f >> 4 << 6))
    return low + high + [s[:, 0], half(d)]


def q2_k(c, d, m, s):
    return [s[:, 0] | (s[:, 1] << 4), crumbs(c), half(d), half(m)]


def q3_k(c, d, m, s):
    high = np.zeros(32, np.uint8)
    for i, part in enumerate(c.reshape(16, 16)):
        high[i % 2 * 16 :][:16] |= (part >> 2) << (i // 2)
    v = (s[:, 0].view(np.int8) + 32).astype(np.uint8)
    packed = np.zeros(12, np.uint8)
    packed[:8] = (v[:8] & 15) | ((v[8:] & 15) << 4)
    for i in range(16):
        packed[8 + i % 4] |= (v[i] >> 4) << (i // 4 * 2)
    return [high, crumbs(c), packed, half(d)]


# Type, bits, columns of a span, groups of it, integers of scale and minimum, whether scales are negative too.
TYPES = [
    (q4_0, 4, 32, 0, None, None, True),
    (q4_1, 4, 32, 0, None, None, False),
    (q5_0, 5, 32, 0, None, None, True),
    (q5_1, 5, 32, 0, None, None, False),
    (q8_0, 8, 32, 0, None, None, True),
    (q2_k, 2, 256, 16, (0, 16), (0, 16), False),
    (q3_k, 3, 256, 16, (-32, 32), None, True),
    (q4_k, 4, 256, 8, (0, 64), (0, 64), False),
    (q5_k, 5, 256, 8, (0, 64), (0, 64), False),
    (q6_k, 6, 256, 16, (-128, 128), None, True),
]


def make(rng, pack, bits, span, groups, scales, minima, signed):
    spans = COLS // span
    codes = rng.integers(0, 1 << bits, (ROWS, COLS), dtype=np.uint8)
    d = np.abs(rng.normal(0, 0.02, (ROWS, spans))).astype(np.float16)
    d *= rng.choice([-1, 1], d.shape).astype(np.float16) if signed else 1
    d[1, 0] = 0
    minimum = pack in (q4_1, q5_1) or minima is not None
    m = rng.normal(0, 0.3, (ROWS, spans)).astype(np.float16) * np.float16(minimum)
    m = np.abs(m) if minima else m
    stored = np.zeros((ROWS, spans * groups, 2), np.int16)
    for i, ends in enumerate([scales, minima]):
        if ends:
            stored[:, :, i] = rng.integers(*ends, (ROWS, spans * groups))
            stored[0, :3, i] = [ends[0], 0, ends[1] - 1]
    stored = (stored & 255).astype(np.uint8)
    rows = []
    for r in range(ROWS):
        row = []
        for b in range(spans):
            parts = pack(codes[r, b * span :][:span], d[r, b], m[r, b], stored[r, b * groups :][:groups])
            row += [np.ascontiguousarray(p, dtype=np.uint8) for p in parts]
        rows.append(np.concatenate(row))
    kind = gguf.GGMLQuantizationType[pack.__name__.upper()]
    w = gguf.quants.dequantize(np.stack(rows), kind)
    assert w.shape == (ROWS, COLS) and w.dtype == np.float32 and np.isfinite(w).all()
    return {"codes": codes, "scale": d, "offset": m, "stored": stored, "w": w}


def main():
    rng = np.random.default_rng(11)
    out = {f"{t[0].__name__}.{k}": v for t in TYPES for k, v in make(rng, *t).items()}
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, OUT)
    print(OUT, OUT.stat().st_size, "bytes; gguf", getattr(gguf, "__version__", "unknown"))


main()
