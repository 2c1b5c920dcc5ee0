"""Ternary products of lowbit and of llama.cpp's ggml (TQ2_0, TQ1_0), in turn, on the matrices of a BitNet-2B layer.

Both programs stay alive and give a sample of at least 10 ms in turn. A product includes the quantization of its
activations, which ggml's mul_mat does itself. Weights of one token come from memory: each side visits as many copies,
together `--megabytes` of 1.6-bit weights, in pages of 2 MiB on both sides. Prints a table: microseconds per product,
median with range over the rounds, and how many times faster lowbit is, round by round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Matrices of a layer of BitNet-b1.58-2B-4T, [rows, cols], and how many a layer has.
LAYER = {(2560, 2560): 2, (640, 2560): 2, (6912, 2560): 2, (2560, 6912): 1}
# ggml's type and lowbit's format of as many bits.
PAIRS = [("tq2_0", "ternary"), ("tq1_0", "ternary_b3")]
# Seconds between samples, in which the threads of the program before fall asleep.
PAUSE = 0.01


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    p.add_argument("--binary", default=f"{target}/release/lowbit-peers")
    p.add_argument("--ggml", default=str(ROOT / "target/ggml_mul_mat"), help="made from ggml_mul_mat.c")
    p.add_argument("--tokens", type=int, nargs="+", default=[1, 512])
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--types", nargs="+", default=[theirs for theirs, _ in PAIRS], choices=[t for t, _ in PAIRS])
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--megabytes", type=int, default=256)
    p.add_argument("--json", help="file for all samples, in seconds")
    return p.parse_args()


class Program:
    """Answers each line by the seconds of a product, after it said the bytes of its matrix."""

    def __init__(self, *command):
        self.command = [str(part) for part in command]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True)
        self.bytes = int(self.line())

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            sys.exit(f"{' '.join(self.command)} failed")
        return text

    def huge_bytes(self):
        """Bytes of the program that lie in pages of 2 MiB."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("AnonHugePages:"))

    def sample(self):
        time.sleep(PAUSE)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def limits(a, threads):
    done = subprocess.run([a.binary, "limits", str(threads)], capture_output=True, text=True, check=True)
    memory, int8 = done.stdout.split()
    print(f"\nlimits, {threads} threads: memory {memory} GB/s, int8 {int8} GOP/s\n", flush=True)


def measure(a, theirs, ours, shape, tokens, threads):
    rows, cols = shape
    copies = -(-(a.megabytes << 20) // (rows * cols // 5)) if tokens == 1 else 1
    programs = [
        Program(a.binary, "serve", ours, f"{rows}x{cols}x{tokens}", threads, copies),
        Program(a.ggml, theirs, rows, cols, tokens, threads, copies),
    ]
    for p in programs:
        if tokens == 1 and p.huge_bytes() < copies * p.bytes * 0.9:
            sys.exit(f"{' '.join(p.command)}: its weights do not lie in pages of 2 MiB; allow such pages")
    samples = [[p.sample() for p in programs] for _ in range(a.rounds)]
    for p in programs:
        p.close()
    return dict(
        type=theirs, format=ours, rows=rows, cols=cols, tokens=tokens, threads=threads, copies=copies,
        bytes=dict(lowbit=programs[0].bytes, ggml=programs[1].bytes),
        lowbit=[s[0] for s in samples], ggml=[s[1] for s in samples],
    )  # fmt: skip


def spread(values, digits=0, unit=""):
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


def row(name, threads, tokens, ours, theirs, note=""):
    ratio = spread([t / o for o, t in zip(ours, theirs)], 2, "x")
    micro = [spread([s * 1e6 for s in side]) for side in (ours, theirs)]
    print(f"| {name} | {tokens} | {threads} | {micro[0]} | {micro[1]} | {ratio} | {note} |", flush=True)


def main():
    a = arguments()
    runs = []
    for threads in a.threads:
        limits(a, threads)
        print("| matrix | tokens | threads | lowbit, us | ggml, us | lowbit is | weights, GB/s, or GOP/s |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for theirs, ours in [pair for pair in PAIRS if pair[0] in a.types]:
            for tokens in a.tokens:
                layer = [[0.0] * a.rounds, [0.0] * a.rounds]
                for shape, count in LAYER.items():
                    run = measure(a, theirs, ours, shape, tokens, threads)
                    runs.append(run)
                    work = {k: v if tokens == 1 else 2 * shape[0] * shape[1] * tokens for k, v in run["bytes"].items()}
                    rate = [f"{work[k] / statistics.median(run[k]) / 1e9:.1f}" for k in ("lowbit", "ggml")]
                    name = f"{theirs}, {ours}, {shape[0]}x{shape[1]}"
                    row(name, threads, tokens, run["lowbit"], run["ggml"], " beside ".join(rate))
                    for total, side in zip(layer, ("lowbit", "ggml")):
                        total[:] = [t + count * s for t, s in zip(total, run[side])]
                row(f"{theirs}, {ours}, the seven of a layer", threads, tokens, *layer)
        limits(a, threads)
    if a.json:
        Path(a.json).write_text(json.dumps(dict(arguments=vars(a), runs=runs), indent=1) + "\n")


if __name__ == "__main__":
    main()
