"""Logits of torchvision's networks, and of those of PyTorch's tutorials, with weights that are a formula.

Writes crates/lowbit-model/tests/golden/vision.json, which crates/lowbit-model/tests/vision.rs compares: it makes the same weights.
Needs torchvision 0.29 (`pip install --no-deps torchvision`) and pillow beside requirements.txt.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, cfgs, make_layers

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/vision.json"


def noise(name, count):
    """SplitMix64 of a counter that begins at the FNV-1a of the name: numbers in -1..1."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def fill(net):
    """Matrices with the variance of He et al.; vectors near 1 where they are factors or variances, near 0 else."""
    tensors = {}
    for name, value in net.state_dict().items():
        if value.ndim == 0:
            continue
        x = noise(name, value.numel())
        if value.ndim > 1:
            x = x * np.float32((6 / value[0].numel()) ** 0.5)
        else:
            mean = 1 if name.endswith("var") or (name.endswith("weight")) else 0
            x = np.float32(0.2) * x + np.float32(mean)
        tensors[name] = torch.from_numpy(x).view(value.shape)
    net.load_state_dict(tensors, strict=False)
    return net.eval()


class Lenet(nn.Module):
    """PyTorch's tutorial, with padding as 28 x 28 pixels need it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Padded(nn.Module):
    """The residual networks of arXiv 1512.03385, section 4.2: shortcuts without parameters."""

    class Block(nn.Module):
        def __init__(self, before, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(before, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.side, self.stride = (out - before) // 2, stride

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.side, self.side))
            return F.relu(y + x)

    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        before = 16
        for stage, out in enumerate([16, 32, 64]):
            layers = []
            for i in range(blocks):
                layers.append(self.Block(before, out, 2 if stage and not i else 1))
                before = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def cifar_stem(net):
    net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def vgg(batch_norm, side):
    net = VGG(make_layers([v // 4 if isinstance(v, int) else v for v in cfgs["D"]], batch_norm))
    net.avgpool = nn.AdaptiveAvgPool2d(min(side, 7))
    side = min(side, 7)
    net.classifier = nn.Sequential(
        nn.Linear(128 * side * side, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5)
    )
    return net


CASES = [
    ("lenet", Lenet(), [28, 28, 1]),
    ("resnet18", ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10), [64, 48, 3]),
    ("resnet18, stem of CIFAR", cifar_stem(ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)), [32, 32, 3]),
    ("resnet50", ResNet(Bottleneck, [3, 4, 6, 3], num_classes=7), [65, 65, 3]),
    ("resnet20, padding", Padded(3), [32, 32, 3]),
    ("vgg16", vgg(False, 2), [64, 64, 3]),
    ("vgg16, batch norm", vgg(True, 7), [224, 224, 3]),
]


def main():
    out = []
    for name, net, (height, width, channels) in CASES:
        fill(net)
        images = 1 if height > 200 else 2
        x = torch.from_numpy(noise("x", images * height * width * channels)).view(images, height, width, channels)
        with torch.no_grad():
            y = net(x.permute(0, 3, 1, 2))
        out.append({"name": name, "image": [height, width, channels], "logits": y.flatten().tolist()})
        print(name, y.abs().max().item())
    OUT.write_text("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]\n")


main()
