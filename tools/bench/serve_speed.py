#!/usr/bin/env python3
"""Tokens per second of a server with several requests at a time, beside llama.cpp's server and beside the engine alone.

    tools/bench/serve_speed.py target/release/lowbit MODEL [--peer PYTHON --gguf FILE] [--concurrent 8,32] [--rounds 3] [--seconds 30]

Starts `lowbit serve MODEL` and, where a Python with llama-cpp-python and a GGUF file are given, `python -m llama_cpp.server`. In alternating
rounds `lowbit bench --serve` sends so many requests at a time to each, as many as fit about --seconds; a server that is not measured is
idle. Then `lowbit bench MODEL --parallel N` measures as many sequences without a server. Prints tokens per second and the ratios; exits with
1 where the server has less than --share of the engine, or less than --times of the peer.
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--recipe", help="recipe of the model")
    parser.add_argument("--peer", help="a Python with llama-cpp-python and its server")
    parser.add_argument("--gguf", help="the same model for llama.cpp")
    parser.add_argument("--concurrent", default="8,32")
    for name, kind, default in (
        ("rounds", int, 3), ("seconds", float, 30), ("prompt-tokens", int, 32), ("max-tokens", int, 64), ("threads", int, os.cpu_count()),
        ("share", float, 0.7), ("times", float, 2.0),
    ):
        parser.add_argument("--" + name, type=kind, default=default)
    return parser.parse_args()


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


def main():
    given = arguments()
    counts = [int(n) for n in given.concurrent.split(",")]
    port, peer_port = free_port(), free_port()
    recipe = ["--recipe", given.recipe] if given.recipe else []
    context = 2 * (given.prompt_tokens + given.max_tokens) + 64
    own = [given.program, "serve", given.model, "--port", str(port), "--parallel", str(max(counts)), "--threads", str(given.threads), "-c", str(context)]
    servers = {"lowbit": (subprocess.Popen(own + recipe, stdout=subprocess.DEVNULL), f"http://127.0.0.1:{port}")}
    if given.peer and given.gguf:
        peer = [given.peer, "-m", "llama_cpp.server", "--model", given.gguf, "--port", str(peer_port), "--n_threads", str(given.threads)]
        peer += ["--n_ctx", str(context), "--interrupt_requests", "False"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        servers["llama.cpp"] = (subprocess.Popen(peer, **quiet), f"http://127.0.0.1:{peer_port}")
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
            if "llama.cpp" in middle:
                times = middle["lowbit"] / middle["llama.cpp"]
                line += f"; llama.cpp's server {middle['llama.cpp']:.1f}, ratio {times:.2f}"
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
