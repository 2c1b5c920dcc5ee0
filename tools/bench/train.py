"""Training throughput of lowbit and of PyTorch on the same network, in turn, a few rounds.

Prints a table: median over the rounds of each run's median tokens per second, their range, the peak resident memory,
and lowbit's speed divided by that of each PyTorch variant of the same arithmetic. `--json FILE` keeps every run.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Our flag of the example for each dimension, and PyTorch's.
DIMENSIONS = [
    ("layers", 6, "--layers", "--layers"),
    ("hidden", 384, "--width", "--hidden"),
    ("heads", 6, "--heads", "--heads"),
    ("ffn", 1024, "--ffn", "--ffn"),
    ("seq", 256, "--context", "--seq"),
    ("tokens", 2048, "--tokens", "--batch-tokens"),
    ("threads", len(os.sched_getaffinity(0)), "--threads", "--threads"),
]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default, *_ in DIMENSIONS:
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--sub-norm", action="store_true")
    p.add_argument("--steps", type=int, default=10, help="measured steps of each run, after two that are not")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--python", default=sys.executable, help="interpreter with PyTorch")
    p.add_argument("--mkl", help="mkl_avx512.so, made from mkl_avx512.c; without it those variants are left out")
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    p.add_argument("--binary", default=f"{target}/release/examples/throughput")
    p.add_argument("--only", help="regular expression: variants to run")
    p.add_argument("--json", help="file for all runs")
    return p.parse_args()


def run(command, preload=None):
    env = os.environ | ({"LD_PRELOAD": os.path.abspath(preload)} if preload else {})
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def lowbit(a, *extra):
    flags = [x for name, _, ours, _ in DIMENSIONS for x in (ours, str(getattr(a, name)))]
    flags += ["--sub-norm"] if a.sub_norm else []
    out = run([a.binary, *flags, "--steps", str(a.steps + 2), *extra])
    rate, low, high = re.search(r"median ([\d.]+), min ([\d.]+), max ([\d.]+)", out).groups()
    peak = re.search(r"peak resident memory: ([\d.]+) MiB", out)
    return dict(median=float(rate), min=float(low), max=float(high), rss=float(peak[1]) if peak else None)


def pytorch(a, *extra, preload=None):
    flags = [x for name, _, _, theirs in DIMENSIONS for x in (theirs, str(getattr(a, name)))]
    flags += ["--sub-norm"] if a.sub_norm else []
    out = run([a.python, str(HERE / "pytorch_train.py"), *flags, "--steps", str(a.steps), *extra], preload)
    record = json.loads(out.splitlines()[-1])
    return record["tokens_per_second"] | dict(rss=record["peak_rss_bytes"] / 2**20)


def variants(a):
    """Name, whether it is quantization-aware, how to run it."""
    yield "lowbit f32", False, lambda: lowbit(a)
    yield "lowbit QAT", True, lambda: lowbit(a, "--qat")
    for name, preload in [("PyTorch", None), ("PyTorch, AVX-512 forced", a.mkl)]:
        if name != "PyTorch" and not preload:
            continue
        for mode, extra in [("f32", []), ("bf16 autocast", ["--bf16"]), ("QAT", ["--qat"]), ("QAT bf16", ["--qat", "--bf16"])]:
            yield f"{name}: {mode}", "QAT" in mode, lambda extra=extra, preload=preload: pytorch(a, *extra, preload=preload)


def main():
    a = arguments()
    chosen = [v for v in variants(a) if not a.only or re.search(a.only, v[0])]
    runs = {name: [] for name, *_ in chosen}
    for turn in range(a.rounds):
        for name, _, measure in chosen:
            runs[name].append(measure())
            print(f"round {turn + 1}: {name}: {runs[name][-1]['median']:.0f} tokens/s", file=sys.stderr)
    if a.json:
        Path(a.json).write_text(json.dumps(dict(arguments=vars(a), runs=runs), indent=1) + "\n")
    print("| variant | tokens/s: median of runs | range of runs | peak MiB | lowbit is |\n|---|--:|--:|--:|--:|")
    for name, qat, _ in chosen:
        rates = [r["median"] for r in runs[name]]
        peak = max((r["rss"] for r in runs[name] if r["rss"]), default=None)
        ours = runs.get("lowbit QAT" if qat else "lowbit f32")
        ratio = ""
        if ours and not name.startswith("lowbit"):
            ratios = [o["median"] / r for o, r in zip(ours, rates)]
            ratio = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        memory = f"{peak:.0f}" if peak else ""
        print(f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} to {max(rates):.0f} | {memory} | {ratio} |")


if __name__ == "__main__":
    main()
