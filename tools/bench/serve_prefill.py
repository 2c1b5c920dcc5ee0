#!/usr/bin/env python3
"""Prompts that come together against the same one after another: the time to the first token.

    tools/bench/serve_prefill.py target/release/lowbit MODEL [--streams 8] [--tokens 512] [--rounds 5] [--most 1.5]

Starts `lowbit serve MODEL`. In each round, prompts of so many tokens are sent one after another, each when the one before has its first token;
the k-th then waits for k prompts. Then as many others are sent at once, each with an answer of 32 tokens. Prints both p95 times to the first
token and their ratio, the median over the rounds; exits with 1 where that is more than --most. Python's standard library alone.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from serve_load import HEAD, ask  # noqa: E402

WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("model", nargs="?")
    for name, kind, default in (("streams", int, 8), ("tokens", int, 512), ("rounds", int, 5), ("most", float, 1.5), ("threads", int, 0)):
        parser.add_argument("--" + name, type=kind, default=default)
    return parser.parse_args()


def posted(body):
    text = json.dumps(body)
    return (HEAD + f"{len(text)}\r\n\r\n{text}").encode()


async def counted(port, prompt):
    """Tokens of a prompt."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(posted({"prompt": prompt, "max_tokens": 1}))
    answer = await reader.read()
    writer.close()
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["usage"]["prompt_tokens"]


def p95(values):
    values = sorted(values)
    place = 0.95 * (len(values) - 1)
    low = int(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


async def run(given, port):
    rng = random.Random(1)
    sample = " ".join(rng.choices(WORDS, k=16))
    words = max(given.tokens * 16 // await counted(port, sample), 1)
    prompt = lambda: " ".join(rng.choices(WORDS, k=words))

    async def first(tokens):
        start = time.perf_counter()
        # With log-probabilities every token is told, also one that is no text by itself.
        body = {"prompt": prompt(), "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True, "logprobs": 0}
        answer = await ask(port, posted(body), hang_up=1 if tokens == 1 else None)
        if answer.status != 200:
            sys.exit(f"status {answer.status}")
        return (answer.first or time.perf_counter() - start), time.perf_counter() - start

    await first(1)
    ratios = []
    for i in range(given.rounds):
        after, waited = [], 0.0
        for _ in range(given.streams):
            waited += (await first(1))[1]
            after.append(waited)
        together = [one[0] for one in await asyncio.gather(*[first(32) for _ in range(given.streams)])]
        ratios.append(p95(together) / p95(after))
        print(f"round {i + 1}: p95 {p95(together) * 1e3:.0f} ms together, {p95(after) * 1e3:.0f} ms one after another, ratio {ratios[-1]:.2f}")
    ratio = statistics.median(ratios)
    print(f"{given.streams} prompts of about {given.tokens} tokens: ratio {ratio:.2f} (median of {given.rounds}), at most {given.most}")
    return ratio <= given.most


def main():
    given = arguments()
    command = [given.program, "serve", *([given.model] if given.model else []), "--port", "0", "--parallel", str(given.streams)]
    command += ["--threads", str(given.threads)] if given.threads else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline().split("http://")[1].split("/")[0].rsplit(":", 1)[1])
        good = asyncio.run(run(given, port))
    finally:
        server.kill()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
