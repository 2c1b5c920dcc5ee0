"""Convolution, batch normalization and pooling in PyTorch: outputs, running statistics and gradients.

Writes crates/lowbit-train/tests/golden_images.safetensors, which crates/lowbit-train/tests/images.rs compares.
Images and gradients of images are [images, height, width, channels]; weights are as torch has them.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).parents[2] / "crates/lowbit-train/tests/golden_images.safetensors"


def last(x):
    return x.permute(0, 2, 3, 1).contiguous()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=1, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, (5, 3), stride=(2, 1), padding=(2, 0), bias=False)
        self.bn2 = nn.BatchNorm2d(5, eps=1e-3, momentum=0.3)
        self.fc = nn.Linear(5 * 3 * 4, 4)
        self.bn3 = nn.BatchNorm1d(4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        x = torch.tanh(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(x, 2, stride=1, padding=1)
        return self.bn3(self.fc(x.flatten(1)))


def straight(x, quantized):
    return x + (quantized - x).detach()


def quantized_conv(x, w):
    """Ternary weights by their mean magnitude, windows in 8 bits by their largest magnitude."""
    scale = w.abs().mean()
    w = straight(w, (w / scale).round().clamp(-1, 1) * scale).flatten(1)
    patches = F.unfold(x, 3, padding=1)
    step = patches.abs().amax(1, keepdim=True) / 127
    patches = straight(patches, (patches / step).round() * step)
    return (w @ patches).unflatten(2, x.shape[2:])


def main():
    torch.manual_seed(11)
    out = {}
    net = Net()
    for name, value in net.named_parameters():
        value.data += 0.2 * torch.randn_like(value)
        out[name] = value.detach().clone()
    for seed in range(2):
        x = torch.randn(4, 3, 7, 9, requires_grad=True)
        y = net(x)
        g = torch.randn_like(y)
        net.zero_grad()
        y.backward(g)
        out |= {f"{seed}.x": last(x.detach()), f"{seed}.y": y.detach(), f"{seed}.g": g, f"{seed}.dx": last(x.grad)}
        out |= {f"{seed}.d.{name}": value.grad.clone() for name, value in net.named_parameters()}
        out |= {f"{seed}.{name}": value.clone() for name, value in net.named_buffers() if value.ndim}
    out["eval"] = net.eval()(x).detach()

    x, w = torch.randn(2, 4, 5, 6, requires_grad=True), torch.randn(7, 4, 3, 3, requires_grad=True)
    y = quantized_conv(x, w)
    g = torch.randn_like(y)
    y.backward(g)
    out |= {"qat.x": last(x.detach()), "qat.w": w.detach(), "qat.y": last(y.detach()), "qat.g": last(g)}
    out |= {"qat.dx": last(x.grad), "qat.dw": w.grad}
    save_file({name: value.contiguous() for name, value in out.items()}, OUT)
    print(OUT, len(out), "tensors", file=sys.stderr)


main()
