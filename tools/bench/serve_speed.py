#!/usr/bin/env python3
"""Tokens per second of a server with several requests at a time, beside llama.cpp's servers and beside the engine alone.

    tools/bench/serve_speed.py target/release/lowbit MODEL [--llama-server PROGRAM] [--peer PYTHON] [--gguf FILE] [--concurrent 8,32]
    tools/bench/serve_speed.py target/release/lowbit --bitnet-2b target/bitnet-2b.gguf --llama-server PROGRAM --gguf-python PYTHON

Starts `lowbit serve MODEL` and, where they are given, llama.cpp's `llama-server` with as many slots, and `python -m llama_cpp.server` of a Python
with llama-cpp-python, which answers one request after another; both with --gguf, or with MODEL where that is a GGUF file. With --bitnet-2b all
of them serve this file of random weights in the shape of BitNet-b1.58-2B-4T (TQ2_0, head in Q6_K), which random_gguf.py writes where it is not
there, and lowbit serves it under --recipe, `bitnet_head4` unless told otherwise. In alternating rounds `lowbit bench --serve` sends so many
requests at a time to each, as many as fit about --seconds; a server that is not measured is idle. Then `lowbit bench MODEL --parallel N` measures
as many sequences without a server. Prints tokens per second and the ratios; exits with 1 where the server has less than --share of the engine,
or less than --times of a peer.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--recipe", help="recipe of the model")
    parser.add_argument("--bitnet-2b", metavar="FILE", type=Path, help="random weights in the shape of BitNet-2B, written where they are not there")
    parser.add_argument("--gguf-python", default=sys.executable, help="a Python with gguf and numpy, to write them")
    parser.add_argument("--llama-server", metavar="PROGRAM", help="llama.cpp's server")
    parser.add_argument("--peer", help="a Python with llama-cpp-python and its server")
    parser.add_argument("--gguf", help="the same model for llama.cpp")
    parser.add_argument("--concurrent", default="8,32")
    for name, kind, default in (
        ("rounds", int, 3), ("seconds", float, 30), ("prompt-tokens", int, 32), ("max-tokens", int, 64), ("threads", int, os.cpu_count()),
        ("share", float, 0.7), ("times", float, 2.0),
    ):
        parser.add_argument("--" + name, type=kind, default=default)
    given = parser.parse_args()
    if given.bitnet_2b:
        if not given.bitnet_2b.exists():
            subprocess.run([given.gguf_python, Path(__file__).with_name("random_gguf.py"), given.bitnet_2b], check=True)
        given.model, given.recipe = str(given.bitnet_2b), given.recipe or "bitnet_head4"
    if not given.model:
        parser.error("name a model, or --bitnet-2b FILE")
    given.gguf = given.gguf or (given.model if given.model.endswith(".gguf") else None)
    if (given.peer or given.llama_server) and not given.gguf:
        parser.error("llama.cpp needs --gguf FILE")
    return given


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(url, process, seconds=600):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"{url}: the server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url + "/v1/models", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url}: the server does not answer")


def measured(given, url, concurrent, requests):
    """Tokens per second of the answers."""
    command = [given.program, "--json", "bench", "--serve", url, "--parallel", str(concurrent), "--requests", str(requests)]
    command += ["--prompt-tokens", str(given.prompt_tokens), "--max-tokens", str(given.max_tokens)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    measures = json.loads(done.stdout)["records"][0]["measures"]
    if measures["failed_requests"]["value"]:
        sys.exit(f"{url}: {measures['failed_requests']['value']:.0f} requests failed")
    return measures["decode_tokens_per_second"]["value"]


def engine(given, concurrent):
    """Tokens per second of as many sequences without a server."""
    command = [given.program, "--json", "bench", given.model, "-p", "0", "-n", str(given.max_tokens), "-d", str(given.prompt_tokens)]
    command += ["--parallel", str(concurrent), "-r", str(given.rounds), "-t", str(given.threads)]
    command += ["--recipe", given.recipe] if given.recipe else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    name = f"tg{given.max_tokens}x{concurrent}"
    record = next(r for r in json.loads(done.stdout)["records"] if r["task"].startswith(name))
    return record["measures"]["decode_tokens_per_second"]["value"]


def commands(given, most):
    """How each server is started, by its name, and where it listens."""
    ports, context = [free_port() for _ in range(3)], 2 * (given.prompt_tokens + given.max_tokens) + 64
    recipe, threads = ["--recipe", given.recipe] if given.recipe else [], str(given.threads)
    own = [given.program, "serve", given.model, "--port", str(ports[0]), "--parallel", str(most), "--threads", threads, "-c", str(context), *recipe]
    all_of = {"lowbit": (own, ports[0])}
    if given.llama_server:
        command = [given.llama_server, "-m", given.gguf, "--host", "127.0.0.1", "--port", str(ports[1]), "-t", threads, "-tb", threads]
        all_of["llama-server"] = (command + ["-np", str(most), "-c", str(context * most)], ports[1])
    if given.peer:
        command = [given.peer, "-m", "llama_cpp.server", "--model", given.gguf, "--port", str(ports[2]), "--n_threads", threads]
        all_of["llama_cpp.server"] = (command + ["--n_ctx", str(context), "--interrupt_requests", "False"], ports[2])
    return all_of


def main():
    given = arguments()
    counts = [int(n) for n in given.concurrent.split(",")]
    servers = {}
    for name, (command, port) in commands(given, max(counts)).items():
        errors = None if name == "lowbit" else subprocess.DEVNULL
        servers[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors), f"http://127.0.0.1:{port}"
    missed = False
    try:
        for process, url in servers.values():
            wait_for(url, process)
        for concurrent in counts:
            rates = {name: [] for name in servers}
            requests = {}
            for name, (_, url) in servers.items():
                start = time.monotonic()
                measured(given, url, concurrent, concurrent)
                took = max(time.monotonic() - start, 0.1)
                requests[name] = max(round(given.seconds / took), 1) * concurrent
            for i in range(given.rounds):
                order = list(servers.items())
                for name, (_, url) in order if i % 2 == 0 else reversed(order):
                    rates[name].append(measured(given, url, concurrent, requests[name]))
            middle = {name: statistics.median(values) for name, values in rates.items()}
            alone = engine(given, concurrent)
            share = middle["lowbit"] / alone
            line = f"{concurrent} requests at a time: {middle['lowbit']:.1f} tokens/s, {100 * share:.0f} % of the engine's {alone:.1f}"
            missed |= share < given.share
            for name in [name for name in middle if name != "lowbit"]:
                times = middle["lowbit"] / middle[name]
                line += f"; {name} {middle[name]:.1f}, ratio {times:.2f}"
                missed |= times < given.times
            samples = "; ".join(f"{name} {', '.join(f'{v:.1f}' for v in values)}" for name, values in rates.items())
            print(f"{line} ({samples})", flush=True)
    finally:
        for process, _ in servers.values():
            process.terminate()
        for process, _ in servers.values():
            process.wait(60)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
