"""Activation functions with their slopes, by PyTorch in float64, at float32 inputs of several magnitudes.

Writes crates/lowbit-kernels/tests/golden/activations.safetensors: `x`, and per function `<name>.y` and `<name>.slope`.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FUNCTIONS = {
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
}


def main():
    torch.manual_seed(1)
    x = torch.cat([torch.linspace(-8, 8, 1025) + 1e-4, torch.randn(500) * 0.01, torch.randn(500) * 20]).float()
    tensors = {"x": x}
    for name, function in FUNCTIONS.items():
        at = x.double().requires_grad_()
        y = function(at)
        (slope,) = torch.autograd.grad(y.sum(), at)
        tensors[f"{name}.y"] = y.detach().float()
        tensors[f"{name}.slope"] = slope.float()
    root = Path(__file__).resolve().parents[2]
    save_file(tensors, root / "crates/lowbit-kernels/tests/golden/activations.safetensors")


main()
