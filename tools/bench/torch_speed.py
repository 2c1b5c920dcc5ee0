"""Linear layers, and ResNet-18 for images of 32 x 32, in PyTorch and in lowbit, in turn: milliseconds of a pass.

    python3 tools/bench/torch_speed.py [--rounds 3] [--threads 2] [--only linear resnet train]

Needs torch, torchvision and the wheel of lowbit (`pip install .`). Each engine runs in a process of its own, one after the other, some rounds.
Prints the median milliseconds over the rounds, and how many times faster ternary is than f32 of lowbit and of PyTorch,
with the range of the rounds. A pass of lowbit has the rounding of activations to int8 in it, and the call from Python. `train` is an update
of ResNet-18 in full precision (AdamW), and how many times faster lowbit is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCHES, SIZES, IMAGES = [1, 8, 32, 64, 128], [1000, 2000], [1, 32]
FORMATS = ["f32", "ternary", "ternary_b3"]
TRAIN_BATCH, TRAIN_STEPS = 32, 12
TASK = """
name = "noise"
version = 1
about = "Random images."
question = "classify"
classes = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
metrics = ["accuracy"]
[[train]]
format = "cifar"
paths = ["noise.bin"]
[[test]]
format = "cifar"
paths = ["noise.bin"]
"""
SUITE = f"""
name = "noise"
task = "noise.toml"
baseline = "f32"
[model]
architecture = "resnet"
image = [32, 32, 3]
stem = "cifar"
block = "basic"
stages = [2, 2, 2, 2]
width = 64
[train]
steps = {TRAIN_STEPS}
batch_size = {TRAIN_BATCH}
learning_rate = 1e-3
seed = 1
[[variant]]
name = "f32"
recipe = "f32"
"""


def milliseconds(call, seconds):
    """Median of calls that take so many seconds together, after as many tenths of warming."""
    until = time.perf_counter() + seconds / 4
    while time.perf_counter() < until:
        call()
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def cases(only):
    for size in SIZES if "linear" in only else []:
        for batch in BATCHES:
            yield "linear", size, batch
    for batch in IMAGES if "resnet" in only else []:
        yield "resnet", 18, batch
    if "train" in only:
        yield "train", 18, TRAIN_BATCH


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def of_torch(a):
    import torch
    from torchvision.models import resnet18

    torch.set_num_threads(a.threads)
    times = {}
    if "train" in a.only:
        times[f"train 18 {TRAIN_BATCH} torch"] = torch_training(network(resnet18).train())
    with torch.inference_mode():
        for kind, size, batch in cases([part for part in a.only if part != "train"]):
            if kind == "linear":
                w, x = torch.from_numpy(values(size, size)), torch.from_numpy(values(batch, size))
                call = lambda: torch.nn.functional.linear(x, w)
            else:
                net, x = network(resnet18), torch.from_numpy(values(batch, 3, 32, 32))
                net = torch.jit.freeze(torch.jit.trace(net, x)) if a.frozen else net
                call = lambda: net(x)
            times[f"{kind} {size} {batch} torch"] = milliseconds(call, a.seconds)
    return times


def torch_training(net):
    """Median milliseconds of an update."""
    import torch

    x, y = torch.from_numpy(values(TRAIN_BATCH, 3, 32, 32)), torch.arange(TRAIN_BATCH) % 10
    optimizer, times = torch.optim.AdamW(net.parameters(), fused=True), []
    for _ in range(TRAIN_STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[2:])


def lowbit_training(threads):
    """The same in lowbit, on images of noise."""
    import lowbit

    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        rows = np.random.default_rng(0).integers(0, 256, (4 * TRAIN_BATCH, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(len(rows)) % 10
        (home / "noise.bin").write_bytes(rows.tobytes())
        (home / "noise.toml").write_text(TASK)
        (home / "suite.toml").write_text(SUITE)
        lowbit.train(home / "suite.toml", variant="f32", out=home / "out", data=home, threads=threads)
        lines = [json.loads(line) for line in (home / "out/metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines]
    return 1e3 * statistics.median(b - a for a, b in zip(seconds[1:], seconds[2:]))


def network(resnet18):
    """ResNet-18 with the stem for small images: one convolution of 3 x 3, no pooling."""
    import torch

    torch.manual_seed(0)
    net = resnet18(num_classes=10)
    net.conv1, net.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    return net.eval()


def of_lowbit(a):
    import lowbit

    times = {}
    if "train" in a.only:
        times[f"train 18 {TRAIN_BATCH} f32"] = lowbit_training(a.threads)
    for kind, size, batch in cases([part for part in a.only if part != "train"]):
        for name in FORMATS:
            if kind == "linear":
                w, x = lowbit.quantize(name, values(size, size)), values(batch, size)
                call = lambda: w.matmul(x)
            else:
                model, x = lowbit.Model.open(a.model, threads=a.threads).recipe(name), values(batch, 32, 32, 3)
                call = lambda: model.classify(x)
            times[f"{kind} {size} {batch} {name}"] = milliseconds(call, a.seconds)
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=0.5, help="of each case in a round")
    p.add_argument("--only", nargs="+", default=["linear", "resnet", "train"])
    p.add_argument("--frozen", action="store_true", help="PyTorch runs a traced and frozen graph, batch norms folded")
    p.add_argument("--engine", choices=["torch", "lowbit"], help=argparse.SUPPRESS)
    p.add_argument("--model", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.engine:
        print(json.dumps(of_torch(a) if a.engine == "torch" else of_lowbit(a)))
        return
    with tempfile.TemporaryDirectory() as directory:
        if "resnet" in a.only:
            from safetensors.torch import save_file
            from torchvision.models import resnet18

            save_file(network(resnet18).state_dict(), Path(directory) / "model.safetensors")
        rounds = []
        for _ in range(a.rounds):
            rounds.append({})
            for engine in ["torch", "lowbit"]:
                command = [sys.executable, __file__, *sys.argv[1:], "--engine", engine, "--model", directory]
                env = os.environ | {"LOWBIT_THREADS": str(a.threads)}
                rounds[-1] |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
    print("| layer, batch | " + " | ".join(["torch", *FORMATS]) + " | ternary over own f32 | over torch |\n|" + "---|" * (4 + len(FORMATS)))
    for kind, size, batch in cases(a.only):
        key = f"{kind} {size} {batch}"
        if kind == "train":
            sides = [[r[f"{key} {name}"] for r in rounds] for name in ["torch", "f32"]]
            ratio = [torch / own for torch, own in zip(*sides)]
            torch, own = map(statistics.median, sides)
            spread = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
            print(f"| {kind} {size}, {batch} | {torch:.1f} | {own:.1f} | | | | {spread} |")
            continue
        cells = [f"{statistics.median(r[f'{key} {name}'] for r in rounds):.4f}" for name in ["torch", *FORMATS]]
        for other in ["f32", "torch"]:
            ratio = [r[f"{key} {other}"] / r[f"{key} ternary"] for r in rounds]
            cells.append(f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})")
        print(f"| {kind} {size}, {batch} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
