"""GPT-2 small and DistilBERT in their published shapes, with weights that a formula gives, as transformers answers.

Writes crates/lowbit-model/tests/golden/exact_shapes/:
  cases.json             config.json of each network, and the shapes of its tensors
  expected.safetensors   `tokens` [tokens]; `gpt2` the logits of every 97th entry at four positions, `distilbert` the mean of all
                         tokens, float32
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/exact_shapes"
POSITIONS, STRIDE = [0, 1, 63, 127], 97
CASES = {
    "gpt2": (AutoModelForCausalLM, dict(model_type="gpt2", vocab_size=50257, n_embd=768, n_layer=12, n_head=12, n_positions=1024,
                                        bos_token_id=50256, eos_token_id=50256)),
    "distilbert": (AutoModel, dict(model_type="distilbert", vocab_size=30522, dim=768, n_layers=6, n_heads=12, hidden_dim=3072,
                                   max_position_embeddings=512)),
}


def mixed(x):
    """The output of SplitMix64 for a state."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def weights(name, shape):
    """Odd multiples of 2^-13 for matrices and biases, 1 to 2 for weights of norms: all are exact in bfloat16."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        at = np.arange(np.prod(shape), dtype=np.uint64)
        byte = (mixed(np.uint64(seed) + at * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)).astype(np.float32)
    is_norm = len(shape) == 1 and name.endswith("weight")
    values = (128 + np.floor(byte / 2)) / 128 if is_norm else (2 * byte - 255) / 8192
    return torch.from_numpy(values.reshape(shape))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    tokens = torch.randint(1000, 20000, (128,), generator=torch.Generator().manual_seed(7))
    expected, listed = dict(tokens=tokens.int()), {}
    for case, (auto, config) in CASES.items():
        model = auto.from_config(AutoConfig.for_model(**config)).eval()
        names = {name: list(p.shape) for name, p in model.named_parameters()}
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(weights(name, p.shape))
            out = model(tokens[None])
        expected[case] = out.logits[0, POSITIONS][:, ::STRIDE].contiguous() if "logits" in out else out[0][0].mean(0)
        listed[case] = dict(config=config, tensors=names)
        print(case, sum(p.numel() for p in model.parameters()), expected[case].abs().max().item())
    (OUT / "cases.json").write_text(json.dumps(listed) + "\n")
    save_file(expected, OUT / "expected.safetensors")


if __name__ == "__main__":
    main()
