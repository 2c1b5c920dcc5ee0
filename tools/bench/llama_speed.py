"""A whole language model, of BitNet-2B's shape unless told otherwise, in lowbit and in llama.cpp, in turn, a few rounds.

Every round runs each variant as a process of its own: llama.cpp as it maps the file, llama.cpp with its weights in pages
of 2 MiB, `lowbit bench` of the same file, and `lowbit bench --synthetic SHAPE`. Prints a table for each test: median
tokens per second with range over the rounds, and how many times faster lowbit is than each form of llama.cpp, round by
round. The file comes from random_gguf.py, or from requantize.py.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = dict(GLIBC_TUNABLES="glibc.malloc.hugetlb=1")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    p.add_argument("model", help="GGUF file")
    p.add_argument("--binary", default=f"{target}/release/lowbit")
    p.add_argument("--python", default=sys.executable, help="interpreter with llama-cpp-python")
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("-p", "--prompt", type=int, default=512)
    p.add_argument("-n", "--answer", type=int, default=64)
    p.add_argument("--recipe", default="bitnet_head4", help="of the synthetic model, and of the file besides its own")
    p.add_argument("--synthetic", default="bitnet-2b", help="shape of the synthetic model")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", nargs="+", help="words that the names of the variants to run contain")
    p.add_argument("--json", help="file for all runs")
    return p.parse_args()


def run(command, env):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=os.environ | env)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def llama(a, *extra, env={}):
    found = run([a.python, HERE / "llama_run.py", a.model, "--threads", *a.threads, "-p", a.prompt, "-n", a.answer, *extra], env)
    rates = {(t["task"], t["threads"]): t["rate"] for t in found["tests"]}
    if env and found["huge_bytes"] < os.path.getsize(a.model) // 2:
        sys.exit(f"only {found['huge_bytes']} bytes of llama.cpp's weights lie in pages of 2 MiB")
    return dict(rates=rates, load_seconds=found["load_seconds"])


def lowbit(a, *what):
    threads = ",".join(map(str, a.threads))
    found = run([a.binary, "bench", *what, "-p", a.prompt, "-n", a.answer, "-r", 1, "-t", threads, "--json"], {})
    # Without a number of threads on a record there was only one.
    number = lambda r: r.get("threads", a.threads[0])
    rates, limits, load = {}, {}, None
    for r in found["records"]:
        samples = r.get("detail", {}).get("samples", {}).get("tokens_per_second")
        if samples and r["task"][:2] in ("pp", "tg"):
            rates[r["task"], number(r)] = statistics.median(samples)
            limits[number(r)] = r.get("limits") or found["host"].get("limits")
            load = r["measures"].get("load_seconds", {}).get("value")
    return dict(rates=rates, load_seconds=load, limits=limits)


def variants(a):
    """Name and how to run it."""
    yield "llama.cpp", lambda: llama(a)
    yield "llama.cpp, 2 MiB pages", lambda: llama(a, "--no-mmap", env=PAGES)
    yield "lowbit, file", lambda: lowbit(a, a.model)
    yield f"lowbit, file, {a.recipe}", lambda: lowbit(a, a.model, "--recipe", a.recipe)
    yield f"lowbit, synthetic, {a.recipe}", lambda: lowbit(a, "--synthetic", a.synthetic, "--recipe", a.recipe)


def spread(values, unit=""):
    digits = 2 if unit else 1
    return f"{statistics.median(values):.{digits}f}{unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(runs, test):
    peers = [name for name in runs if name.startswith("llama")]
    print(f"\n| {test[0]}, {test[1]} threads | tokens/s | {' | '.join(f'over {p}' for p in peers)} |")
    print("|---|--:|" + "--:|" * len(peers))
    rates = {name: [r["rates"][test] for r in found] for name, found in runs.items()}
    for name, ours in rates.items():
        ratios = ["" if name in peers else spread([o / t for o, t in zip(ours, rates[p])], "x") for p in peers]
        print(f"| {name} | {spread(ours)} | {' | '.join(ratios)} |")


def print_limits(runs):
    seen = {}
    for r in (r for name, found in runs.items() if name.startswith("lowbit") for r in found):
        for threads, limits in r["limits"].items():
            seen.setdefault(threads, []).append(limits)
    for threads, limits in sorted(seen.items()):
        memory, int8 = (spread([found[key] for found in limits]) for key in ("memory_gbps", "int8_gops"))
        print(f"limits as lowbit measured them meanwhile, {threads} threads: memory {memory} GB/s, int8 {int8} GOP/s")


def main():
    a = arguments()
    chosen = [v for v in variants(a) if not a.only or any(word in v[0] for word in a.only)]
    runs = {name: [] for name, _ in chosen}
    for turn in range(a.rounds):
        for name, measure in chosen:
            start = time.perf_counter()
            runs[name].append(measure())
            passed, load = time.perf_counter() - start, runs[name][-1]["load_seconds"]
            print(f"round {turn + 1}: {name}: {passed:.1f} s, of them loading {load:.2f} s", file=sys.stderr)
    for test in runs[chosen[0][0]][0]["rates"]:
        table(runs, test)
    print()
    print_limits(runs)
    if a.json:
        plain = lambda r: r | dict(rates=[dict(task=t, threads=n, rate=v) for (t, n), v in r["rates"].items()])
        kept = {name: [plain(r) for r in found] for name, found in runs.items()}
        Path(a.json).write_text(json.dumps(dict(arguments=vars(a), runs=kept), indent=1) + "\n")


if __name__ == "__main__":
    main()
