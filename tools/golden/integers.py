"""Checkpoints of the Hub whose matrices are integers with scales of groups: GPTQ, AWQ, compressed-tensors.

Writes crates/lowbit-model/tests/golden/integers/:
  cases.json             of each case `config` (config.json) and `sha256` of the dequantized float32 values of each matrix
  tensors.safetensors    `CASE/TENSOR` under the Hub's names; `CASE/prompt` [12] and `CASE/logits` [12, vocabulary], float32, of
                         transformers' LlamaForCausalLM with the dequantized weights

The layouts are those of the packages auto-gptq and gptqmodel (`QuantLinear`), autoawq (`WQLinear_GEMM`) and compressed-tensors
(`PackedQuantizationCompressor`): `w = scale * (q - zero)`. Where these packages are installed, their own functions are asked too.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/integers"
HUB = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=61, hidden_size=64, intermediate_size=96,
    num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, hidden_act="silu", max_position_embeddings=64,
    rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, torch_dtype="float16",
)
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack(values, bits):
    """Unsigned integers `[rows, n]` as a stream of bits per row, lowest first, in int32."""
    rows, n = values.shape
    stream = (values[:, :, None] >> np.arange(bits)) & 1
    stream = stream.reshape(rows, n * bits)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32))).reshape(rows, -1, 32).astype(np.uint64)
    return (stream << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)


def gptq(q, zero, scale, case):
    stored = (zero - (0 if case["config"]["checkpoint_format"] == "gptq_v2" else 1)) & (2 ** case["bits"] - 1)
    return {"qweight": pack(q, case["bits"]).T, "qzeros": pack(stored.T, case["bits"]), "scales": scale.T, "g_idx": case["index"]}


def awq(q, zero, scale, case):
    mixed = lambda v: pack(v.T.reshape(v.shape[1], -1, 8)[:, :, AWQ_ORDER].reshape(v.shape[1], -1), 4)
    out = {"qweight": mixed(q), "qzeros": mixed(zero), "scales": scale.T}
    try:
        from awq.utils.packing_utils import dequantize_gemm
        theirs = dequantize_gemm(*[torch.from_numpy(np.ascontiguousarray(out[k])) for k in ("qweight", "qzeros")],
                                 torch.from_numpy(np.ascontiguousarray(out["scales"])).float(), 4, case["group"])
        assert np.array_equal(theirs.numpy().T, (q - np.repeat(zero, case["group"], 1)) * np.repeat(scale, case["group"], 1).astype(np.float32))
        print("  as autoawq reads it")
    except ImportError:
        pass
    return out


def compressed(q, zero, scale, case):
    out = {"weight_packed": pack(q, case["bits"]), "weight_scale": scale, "weight_shape": np.array(q.shape, dtype=np.int64)}
    if case["asymmetric"]:
        out["weight_zero_point"] = pack(zero.T, case["bits"]).T
    try:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
        half = 2 ** (case["bits"] - 1)
        theirs = pack_to_int32(torch.from_numpy((q - half).astype(np.int8)), case["bits"])
        assert np.array_equal(theirs.numpy(), out["weight_packed"])
        if case["asymmetric"]:
            theirs = pack_to_int32(torch.from_numpy((zero - half).astype(np.int8)), case["bits"], packed_dim=0)
            assert np.array_equal(theirs.numpy(), out["weight_zero_point"])
        print("  as compressed-tensors writes it")
    except ImportError:
        pass
    return out


def gptq_case(bits, group, asymmetric=False, act_order=False, v2=False):
    config = dict(quant_method="gptq", bits=bits, group_size=group, desc_act=act_order, sym=not asymmetric, damp_percent=0.01,
                  true_sequential=True, checkpoint_format="gptq_v2" if v2 else "gptq")
    return dict(store=gptq, bits=bits, group=group, asymmetric=asymmetric, act_order=act_order, config=config, bf16=False)


def compressed_case(bits, group, asymmetric=False, bf16=True):
    weights = dict(num_bits=bits, type="int", symmetric=not asymmetric, strategy="channel" if group == -1 else "group",
                   group_size=None if group == -1 else group, actorder=None, dynamic=False, block_structure=None, observer="minmax")
    config = dict(quant_method="compressed-tensors", format="pack-quantized", quantization_status="compressed", ignore=["lm_head"],
                  config_groups={"group_0": dict(targets=["Linear"], weights=weights, input_activations=None, output_activations=None)},
                  kv_cache_scheme=None, global_compression_ratio=None)
    return dict(store=compressed, bits=bits, group=group, asymmetric=asymmetric, act_order=False, config=config, bf16=bf16)


CASES = {
    "gptq": gptq_case(4, 32),
    "gptq_asymmetric": gptq_case(4, 32, asymmetric=True),
    "gptq_v2": gptq_case(4, 64, asymmetric=True, v2=True),
    "gptq_act_order": gptq_case(4, 32, act_order=True),
    "gptq_channel": gptq_case(4, -1),
    "gptq_8": gptq_case(8, 32),
    "gptq_3": gptq_case(3, 32, asymmetric=True),
    "gptq_2": gptq_case(2, 32, asymmetric=True),
    "awq": dict(store=awq, bits=4, group=32, asymmetric=True, act_order=False, bf16=False,
                config=dict(quant_method="awq", bits=4, group_size=32, version="gemm", zero_point=True, modules_to_not_convert=None)),
    "compressed": compressed_case(4, 32),
    "compressed_asymmetric": compressed_case(4, 32, asymmetric=True, bf16=False),
    "compressed_channel": compressed_case(4, -1, bf16=False),
    "compressed_8": compressed_case(8, 32),
}


def matrix(rng, rows, cols, case):
    """Codes, and the tensors and dequantized values of a matrix `[rows, cols]`."""
    bits, group = case["bits"], cols if case["group"] == -1 else case["group"]
    groups = -(-cols // group)
    # Two in three codes near the middle, as those of trained weights.
    q = np.clip(np.round(rng.normal(2 ** (bits - 1), 2 ** (bits - 2), (rows, cols))), 0, 2**bits - 1).astype(np.int64)
    zero = rng.integers(1, 2**bits, (rows, groups)) if case["asymmetric"] else np.full((rows, groups), 2 ** (bits - 1))
    scale = (rng.uniform(0.5, 1.5, (rows, groups)) * 0.5 / 2**bits).astype(np.float16)
    if case["bf16"]:
        scale = torch.from_numpy(scale).bfloat16().float().numpy().astype(np.float16)
    index = np.arange(cols) // group
    if case["act_order"]:
        index = rng.permutation(index)
    stored = case["store"](q, zero, scale, case | dict(index=index.astype(np.int32)))
    values = (q - zero[:, index]).astype(np.float32) * scale[:, index].astype(np.float32)
    return stored, values


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    listed, tensors = {}, {}
    for at, (name, case) in enumerate(CASES.items()):
        print(name)
        rng = np.random.default_rng(at)
        torch.manual_seed(at)
        model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in HUB.items() if k not in ("model_type", "architectures")})).float().eval()
        sums = {}
        for key, p in model.named_parameters():
            if p.dim() == 2 and ".layers." in key:
                stored, values = matrix(rng, *p.shape, case)
                sums[key] = hashlib.sha256(values.tobytes()).hexdigest()
                p.data = torch.from_numpy(values)
                stem = key.removesuffix("weight")
                for part, v in stored.items():
                    v = torch.from_numpy(np.ascontiguousarray(v))
                    tensors[f"{name}/{stem}{part}"] = v.bfloat16() if part == "weight_scale" and case["bf16"] else v
            else:
                noise = 1 + 0.2 * torch.randn(p.shape) if p.dim() == 1 else torch.randn(p.shape) * p.shape[-1] ** -0.5
                half = noise.half()
                p.data = half.float()
                tensors[f"{name}/{key}"] = half.clone()
        prompt = torch.randint(HUB["vocab_size"], (12,))
        with torch.no_grad():
            logits = model(input_ids=prompt[None]).logits[0]
        tensors |= {f"{name}/prompt": prompt.int(), f"{name}/logits": logits}
        listed[name] = dict(config=HUB | dict(quantization_config=case["config"]), sha256=sums)
    (OUT / "cases.json").write_text(json.dumps(listed, indent=1) + "\n")
    save_file(tensors, OUT / "tensors.safetensors")
    print(f"{(OUT / 'tensors.safetensors').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
