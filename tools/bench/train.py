"""Training throughput of lowbit and of PyTorch on the same network, in turn, a few rounds.

Prints a table: median over the rounds of each run's median tokens per second, their range, the peak resident memory,
and the speed of lowbit, with products in f32 and in bf16, divided by that of each PyTorch variant: ternary where that
is ternary, and of `--ternary` always. `--json FILE` keeps every run. `--small` is the network and the batch of
`bitnet-bytes-small`.
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
    ("vocab", 256, "--vocab", "--vocab"),
    ("threads", len(os.sched_getaffinity(0)), "--threads", "--threads"),
]

# Network and batch of crates/lowbit/suites/language/bitnet-bytes-small.toml.
SMALL = dict(layers=7, hidden=512, heads=8, ffn=1376, seq=1024, tokens=16 * 1024, vocab=258, act="relu2", sub_norm=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default, *_ in DIMENSIONS:
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--act", default="silu", help="function of the feed-forward")
    p.add_argument("--sub-norm", action="store_true")
    p.add_argument("--small", action="store_true", help="the network and the batch of bitnet-bytes-small")
    p.add_argument("--ternary", action="store_true", help="lowbit trains ternary, whatever PyTorch does")
    p.add_argument("--steps", type=int, default=10, help="measured steps of each run, after two that are not")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--python", default=sys.executable, help="interpreter with PyTorch")
    p.add_argument("--mkl", help="mkl_avx512.so, made from mkl_avx512.c; without it those variants are left out")
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    p.add_argument("--binary", default=f"{target}/release/examples/throughput")
    p.add_argument("--only", help="regular expression: variants to run")
    p.add_argument("--json", help="file for all runs")
    a = p.parse_args()
    vars(a).update(SMALL if a.small else {})
    return a


def run(command, preload=None):
    env = os.environ | ({"LD_PRELOAD": os.path.abspath(preload)} if preload else {})
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def lowbit(a, *extra):
    flags = [x for name, _, ours, _ in DIMENSIONS for x in (ours, str(getattr(a, name)))]
    flags += ["--act", a.act] + (["--sub-norm"] if a.sub_norm else [])
    out = run([a.binary, *flags, "--steps", str(a.steps + 2), *extra])
    rate, low, high = re.search(r"median ([\d.]+), min ([\d.]+), max ([\d.]+)", out).groups()
    peak = re.search(r"peak resident memory: ([\d.]+) MiB", out)
    return dict(median=float(rate), min=float(low), max=float(high), rss=float(peak[1]) if peak else None)


def pytorch(a, *extra, preload=None):
    flags = [x for name, _, _, theirs in DIMENSIONS for x in (theirs, str(getattr(a, name)))]
    flags += ["--act", a.act] + (["--sub-norm"] if a.sub_norm else [])
    out = run([a.python, str(HERE / "pytorch_train.py"), *flags, "--steps", str(a.steps), *extra], preload)
    record = json.loads(out.splitlines()[-1])
    return record["tokens_per_second"] | dict(rss=record["peak_rss_bytes"] / 2**20)


def ours(qat, bf16):
    """Name of the variant of lowbit."""
    return f"lowbit {'QAT' if qat else 'plain'} {'bf16' if bf16 else 'f32'}"


def variants(a):
    """Name, whether it is quantization-aware, how to run it."""
    for qat in [False, True]:
        for bf16 in [False, True]:
            extra = (["--qat"] if qat else []) + (["--bf16"] if bf16 else [])
            yield ours(qat, bf16), qat, lambda extra=extra: lowbit(a, *extra)
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
    print("| variant | tokens/s: median of runs | range of runs | peak MiB | lowbit f32 is | lowbit bf16 is |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, qat, _ in chosen:
        rates = [r["median"] for r in runs[name]]
        peak = max((r["rss"] for r in runs[name] if r["rss"]), default=None)
        memory = f"{peak:.0f}" if peak else ""
        ratios = ["", ""]
        if not name.startswith("lowbit"):
            ratios = [ratio(runs.get(ours(qat or a.ternary, bf16)), rates) for bf16 in [False, True]]
        span = f"{min(rates):.0f} to {max(rates):.0f}"
        print(f"| {name} | {statistics.median(rates):.0f} | {span} | {memory} | {' | '.join(ratios)} |")


def ratio(own, rates):
    """How many times as fast the runs of lowbit were, round by round."""
    if not own:
        return ""
    ratios = [o["median"] / r for o, r in zip(own, rates)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
