"""Golden vectors of formats: bitsandbytes NF4 and LLM.int8(), transformers' ternary BitNet linear, bfloat16 rounding.

Writes crates/lowbit-kernels/tests/golden/formats.safetensors. For the matrices `a` [48, 128] and `b` [33, 192]:

  a.w            float16; every format starts from its exact float32 value
  a.x            float32 [7, cols], float16-exact; three columns hold values above 6.0 (listed in a.outliers)
  a.nf4.codes    uint8 [rows, cols / 2], high nibble first; a.nf4.absmax [rows * cols / 64]; b.nf4.dequantized
  a.nf4.nested   absmax after bitsandbytes' double quantization, as float32
  a.nf4.y        x times the dequantized weights
  a.int8.codes, a.int8.absmax         row-wise: w ~ codes * absmax / 127
  a.int8.x_codes, a.int8.x_absmax     the same of x, no threshold
  a.int8.y, a.llm_int8.y              bitsandbytes Linear8bitLt on x with threshold 0 and 6.0
  a.llm_int8.y_single                 the latter on each row of x by itself
  a.llm_int8.y_wide                   arXiv 2208.07339: outlier columns leave x and w before the scales are taken and
                                      are multiplied in float16 (here float64)
  a.ternary.codes, a.ternary.scale    w ~ codes * scale, scale = mean|w|
  a.ternary.x_codes, a.ternary.x_scale, a.ternary.y   x ~ x_codes * x_scale; the product of both

and `nf4.levels` (the 16 values), and the edge cases `nf4_ties`, `int8_ties`, `bf16`, described where they are made.
"""

import json
import os
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import bitsandbytes as bnb  # noqa: E402
import bitsandbytes.functional as B  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers.integrations import bitnet as hf  # noqa: E402

OUT = Path(__file__).parents[2] / "crates/lowbit-kernels/tests/golden/formats.safetensors"
NOTES = {
    "nf4": "bitsandbytes (CPU) multiplies by the float32 reciprocal of absmax and takes the lower code when the result "
    "equals the midpoint of two code values; a block of zeros has absmax 0 and code 7 (value 0)",
    "int8": "bitsandbytes rounds halves to even; weights and activations pass through float16 first; an all-zero row is "
    "undefined there and absent here",
    "llm_int8": "bitsandbytes: a column of x is an outlier column when any |x| >= 6.0; the scale of a row of x ignores "
    "the outliers alone, not their columns; the scale of a row of w includes the outlier columns, and outliers are "
    "multiplied with int8 weights; int8 products carry the constant 6.200124e-05 for 1/127^2 (1.8e-5 too large)",
    "ternary": "halves round to even; mean over the whole matrix in float32, at least 1e-5",
}


def nf4(w, x):
    codes, state = B.quantize_4bit(w, blocksize=64, quant_type="nf4")
    out = {"codes": codes.view(w.shape[0], -1), "absmax": state.absmax, "dequantized": B.dequantize_4bit(codes, state)}
    same, nested = B.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert torch.equal(same, codes)
    out["nested"] = B.dequantize_blockwise(nested.absmax, nested.state2) + nested.offset
    assert torch.allclose(B.dequantize_4bit(same, nested).view(-1, 64).abs().amax(1), out["nested"])
    out["y"] = bnb.matmul_4bit(x, codes, state)
    return out


def linear8bit(w, x, threshold):
    layer = bnb.nn.Linear8bitLt(w.shape[1], w.shape[0], bias=False, has_fp16_weights=False, threshold=threshold)
    layer.weight = bnb.nn.Int8Params(w.clone(), has_fp16_weights=False, requires_grad=False)
    return layer.to("cpu").eval()(x)


def int8(w, x):
    codes, absmax, _ = B.int8_vectorwise_quant(w.half())
    x_codes, x_absmax, _ = B.int8_vectorwise_quant(x.half())
    y = linear8bit(w, x, 0.0)
    return dict(codes=codes, absmax=absmax, x_codes=x_codes, x_absmax=x_absmax, y=y)


def llm_int8(w, x):
    columns = B.int8_vectorwise_quant(x.half(), threshold=6.0)[2].long()
    rest_w, rest_x = w.double(), x.double()
    rest_w[:, columns], rest_x[:, columns] = 0, 0
    scale = lambda m: m.abs().amax(1, keepdim=True) / 127
    wide = (rest_x / scale(rest_x)).round() @ (rest_w / scale(rest_w)).round().T * (scale(rest_x) * scale(rest_w).T)
    wide += x.double()[:, columns] @ w.double()[:, columns].T
    single = torch.cat([linear8bit(w, row[None], 6.0) for row in x])
    return columns.int(), dict(y=linear8bit(w, x, 6.0), y_single=single, y_wide=wide.float())


def ternary(w, x):
    scale = w.abs().mean()
    margin = ((w / scale).abs() - 0.5).abs().min()
    codes = (hf.WeightQuant.apply(w) / scale).round().to(torch.int8)
    layer = hf.AutoBitLinear(w.shape[1], w.shape[0], bias=False, online_quant=True)
    layer.weight.data = w
    with torch.no_grad():
        y = layer(x)
    x_codes, factor = hf.BitLinear.activation_quant(None, x)
    margin = min(margin, ((x * factor).frac().abs() - 0.5).abs().min())
    # The packed layer of the Hub's checkpoints computes the same.
    assert torch.allclose(y, (x_codes.double() @ codes.double().T).float() / factor * scale, rtol=1e-4, atol=1e-5)
    return margin, dict(codes=codes, scale=scale, x_codes=x_codes, x_scale=(1 / factor).squeeze(1), y=y)


def matrix(name, rows, cols):
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        w = (torch.randn(rows, cols, generator=g) * 0.1).half().float()
        x = torch.randn(7, cols, generator=g).clamp(-4, 4)
        spikes = {3: (1, 9.0), 77: (4, -14.5), cols - 1: (4, 6.5)}
        for column, (token, value) in spikes.items():
            x[token, column] = value
        x = x.half().float()
        margin, parts = ternary(w, x)
        if margin > 2e-4:
            break
    print(f"{name}: seed {seed}, margin of ternary and int8 codes {margin:.1e}")
    assert margin > 2e-4
    columns, llm = llm_int8(w, x)
    assert columns.tolist() == list(spikes)
    groups = {"nf4": nf4(w, x), "int8": int8(w, x), "llm_int8": llm, "ternary": parts}
    out = {f"{name}.w": w.half(), f"{name}.x": x, f"{name}.outliers": columns}
    for group, tensors in groups.items():
        out |= {f"{name}.{group}.{k}": v for k, v in tensors.items()}
    exact = x.double() @ w.double().T
    nmse = lambda y, of: ((y.double() - of).square().sum() / of.double().square().sum()).item()
    for group, tensors in groups.items():
        print(f"  {group}: NMSE against the unquantized product {nmse(tensors['y'], exact):.1e}")
    print(f"  llm_int8: batch against single rows {nmse(llm['y'], llm['y_single']):.1e}")
    return out


def nf4_ties():
    """One block per row, absmax 1: midpoints of neighbouring codes, the floats just below and just above, zeros."""
    table = B.get_4bit_type("nf4", device="cpu")
    middle = (table[:-1] + table[1:]) / 2
    rows = torch.zeros(5, 64)
    one = torch.tensor(1.0)
    for row, values in zip(rows, [middle, torch.nextafter(middle, -one), torch.nextafter(middle, one)]):
        row[:15], row[63] = values, 1.0
    rows[3, :8] = torch.tensor([-1e-30, 5e-31, 1e-31, 0, 1e-30, -3e-31, 7e-31, -2e-31])
    codes, state = B.quantize_4bit(rows, blocksize=64, quant_type="nf4")
    return {"w": rows, "codes": codes.view(5, -1), "absmax": state.absmax}


def int8_ties():
    """Row 0 has absmax 127, so that the halves are exact; row 1 the same scaled by 1/64."""
    row = torch.arange(-32, 32) + 0.5
    row[0] = -127
    rows = torch.stack([row, row / 64])
    codes, absmax, _ = B.int8_vectorwise_quant(rows.half())
    return {"w": rows, "codes": codes, "absmax": absmax}


def bf16():
    """Float32 bit patterns around every kind of rounding; `rounded` is torch's conversion."""
    patterns = [0x00000000, 0x80000000, 0x00000001, 0x00007FFF, 0x00008000, 0x00008001, 0x00018000, 0x007FFFFF, 0x00800000]
    patterns += [0x7F7F0000, 0x7F7F7FFF, 0xFF7F7FFF, 0x3F80FFFF, 0x3FFFFFFF]
    for high in [0x3F80, 0x3F81, 0xBF80, 0xBF81, 0x4049, 0xC2F6]:
        patterns += [high << 16 | low for low in [0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF]]
    w = torch.tensor(patterns, dtype=torch.uint32).view(torch.float32)
    w = torch.cat([w, torch.randn(78, generator=torch.Generator().manual_seed(0))]).view(2, 64)
    return {"w": w, "rounded": w.bfloat16()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    tensors = matrix("a", 48, 128) | matrix("b", 33, 192)
    del tensors["a.nf4.dequantized"]
    for name, make in {"nf4_ties": nf4_ties, "int8_ties": int8_ties, "bf16": bf16}.items():
        tensors |= {f"{name}.{k}": v for k, v in make().items()}
    tensors["nf4.levels"] = B.get_4bit_type("nf4", device="cpu")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT, metadata={"notes": json.dumps(NOTES)})
    print(f"{OUT.stat().st_size / 1e3:.0f} kB")
