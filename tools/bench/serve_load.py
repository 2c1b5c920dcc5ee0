#!/usr/bin/env python3
"""A server under load: streaming clients that hang up, read slowly or send nonsense, and clients that never end their header.

    tools/bench/serve_load.py target/release/lowbit [MODEL] [--seconds 60] [--clients 64] [--malformed 1000] [--slow 1000]

Starts `lowbit serve` (of the model inside the program where none is given) and asks a few requests alone. Then, for so many seconds, clients
send the same requests all together; every answer that comes whole must be the one it was alone. Then so many connections send a byte of a
header now and then, and others must still be answered. Prints counts, times to first tokens and resident memory; exits with 1 where a
requirement is missed: a crash, a status of 500 and above, another answer, memory that grows, a client that is held up. Python's standard
library alone.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import time

HEAD = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
FLAT = 0.05  # growth of resident memory that is none, beside 16 MiB


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("model", nargs="?")
    for name, default in (("seconds", 60), ("clients", 64), ("malformed", 1000), ("slow", 1000), ("threads", 0), ("tokens", 48), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=default)
    return parser.parse_args()


def request(prompt, tokens, seed):
    body = {"prompt": prompt, "max_tokens": tokens, "seed": seed, "temperature": 0.8, "stream": True, "ignore_eos": True}
    text = json.dumps(body)
    return (HEAD + f"{len(text)}\r\n\r\n{text}").encode()


def nonsense(rng):
    """Bytes that are no request that can be answered."""

    def posted(text, length=None):
        text = text if isinstance(text, bytes) else text.encode()
        return (HEAD + f"{len(text) if length is None else length}\r\n\r\n").encode() + text

    kinds = [
        lambda: posted("{"),
        lambda: posted('{"prompt": ' + "[" * 100_000),
        lambda: posted('{"prompt": "a", "n": 1000000000}'),
        lambda: posted('{"prompt": "a", "max_tokens": -1}'),
        lambda: posted('{"prompt": "a", "temperature": "hot"}'),
        lambda: posted('{"prompt": "a", "logit_bias": {"-1": 1}}'),
        lambda: posted('{"prompt": "a", "response_format": {"type": "regex", "regex": "(a"}}'),
        lambda: posted('{"prompt": "a", "stop": ' + json.dumps(["x"] * 10_000) + "}"),
        lambda: posted(b"\xff\xfe{}"),
        lambda: posted("{}", 1 << 40),
        lambda: posted('{"prompt": "a"}', -5),
        lambda: b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{}",
        lambda: b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        lambda: b"GET /\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(64),
        lambda: rng.randbytes(rng.randrange(1, 2000)),
        lambda: b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n",
    ]
    return rng.choice(kinds)()


class Answer:
    """What came of a request."""

    def __init__(self):
        self.status, self.text, self.first, self.whole = 0, "", None, False


async def ask(port, data, hang_up=None, pause=0.0):
    """Sends a request and reads its events; hangs up after so many, or waits between them."""
    answer, start, events = Answer(), time.perf_counter(), 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(data)
        await writer.drain()
        line = await reader.readline()
        answer.status = int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0
        while True:
            line = await reader.readline()
            if not line:
                break
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                answer.whole = True
                break
            event = json.loads(data)
            if "error" in event:
                break
            text = event["choices"][0]["text"]
            if (text or event["choices"][0]["logprobs"]) and answer.first is None:
                answer.first = time.perf_counter() - start
            answer.text += text
            events += 1
            if hang_up is not None and events >= hang_up:
                break
            if pause:
                await asyncio.sleep(pause)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
    return answer


async def send(port, data):
    """Sends bytes; the status that comes, or 0."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), 15)
            return int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0
        finally:
            writer.close()
    except (ConnectionError, asyncio.TimeoutError, ValueError, IndexError):
        return 0


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


class Load:
    def __init__(self, given, port, pid):
        self.given, self.port, self.pid = given, port, pid
        self.rng = random.Random(given.seed)
        self.requests = [(f"The number {i} is {' and '.join(str(i + k) for k in range(1 + i % 7))}", given.tokens // (1 + i % 3), i) for i in range(24)]
        self.expected, self.first, self.memory, self.faults = [], [], [], []
        self.counts = dict.fromkeys(["answered", "hung up", "read slowly", "refused as busy", "malformed"], 0)

    async def alone(self):
        for one in self.requests:
            answer = await ask(self.port, request(*one))
            if not answer.whole:
                sys.exit(f"a request alone gets status {answer.status} and no whole answer")
            self.expected.append(answer.text)

    async def client(self, until):
        while time.perf_counter() < until:
            i, kind = self.rng.randrange(len(self.requests)), self.rng.random()
            data = request(*self.requests[i])
            if kind < 0.2:
                await ask(self.port, data, hang_up=self.rng.randrange(1, 12))
                self.counts["hung up"] += 1
                continue
            slow = kind < 0.3
            answer = await ask(self.port, data, pause=0.05 if slow else 0.0)
            if answer.status == 429:
                self.counts["refused as busy"] += 1
                await asyncio.sleep(0.2)
            elif not answer.whole:
                self.faults.append(f"status {answer.status} and no whole answer")
            else:
                self.counts["read slowly" if slow else "answered"] += 1
                self.first.extend([answer.first] if answer.first else [])
                if answer.text != self.expected[i]:
                    self.faults.append(f"request {i} has another answer than alone")

    async def fool(self, until):
        pause = self.given.seconds / max(self.given.malformed, 1)
        for _ in range(self.given.malformed):
            status = await send(self.port, nonsense(self.rng))
            self.counts["malformed"] += 1
            if status >= 500 or status == 200:
                self.faults.append(f"a malformed request has status {status}")
            if time.perf_counter() > until + 30:
                break
            await asyncio.sleep(pause * self.rng.random())

    async def watch(self, until):
        while time.perf_counter() < until:
            self.memory.append(resident(self.pid))
            await asyncio.sleep(0.25)

    async def under_load(self):
        until = time.perf_counter() + self.given.seconds
        clients = [self.client(until) for _ in range(self.given.clients)]
        await asyncio.gather(*clients, self.fool(until), self.watch(until))
        third = max(len(self.memory) // 3, 1)
        before, after = max(self.memory[:third]), max(self.memory[-third:])
        if after > before * (1 + FLAT) + (16 << 20):
            self.faults.append(f"resident memory grows from {before >> 20} to {after >> 20} MiB")
        return before, after

    async def slow_headers(self):
        """Seconds of a request without and beside connections that never end their header."""
        data = request(*self.requests[0])

        async def timed():
            start = time.perf_counter()
            answer = await ask(self.port, data)
            if answer.text != self.expected[0]:
                self.faults.append(f"beside slow headers a request has status {answer.status} or another answer")
            return time.perf_counter() - start

        before = statistics.median([await timed() for _ in range(5)])
        writers = []

        async def drip():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return
            writers.append(writer)
            try:
                for byte in b"GET /v1/models HTTP/1.1\r\nx: " + b"a" * 1000:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1)
            except (ConnectionError, asyncio.CancelledError):
                pass

        drips = [asyncio.create_task(drip()) for _ in range(self.given.slow)]
        await asyncio.sleep(2)
        beside = [await timed() for _ in range(8)]
        for task in drips:
            task.cancel()
        await asyncio.gather(*drips, return_exceptions=True)
        for writer in writers:
            writer.close()
        worst = max(beside)
        if worst > 5 * before + 2:
            self.faults.append(f"slow headers hold a request up: {worst:.2f} s, {before:.2f} s without")
        return before, statistics.median(beside), worst


async def run(given, port, pid):
    load = Load(given, port, pid)
    await load.alone()
    before, after = await load.under_load()
    first = sorted(load.first)
    at = lambda q: first[min(int(q * len(first)), len(first) - 1)] * 1e3 if first else float("nan")
    print(", ".join(f"{n} {name}" for name, n in load.counts.items()))
    print(f"time to first token: p50 {at(0.5):.0f} ms, p90 {at(0.9):.0f} ms, p99 {at(0.99):.0f} ms of {len(first)}")
    print(f"resident memory: at most {before / 2**20:.1f} MiB in the first third, {after / 2**20:.1f} MiB in the last")
    if load.counts["answered"] == 0:
        load.faults.append("no request was answered")
    if given.slow:
        alone, median, worst = await load.slow_headers()
        print(f"beside {given.slow} slow headers a request takes {median:.2f} s, at most {worst:.2f} s; without {alone:.2f} s")
    return load.faults


def main():
    given = arguments()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * given.slow + 1024), hard), hard))
    # Kept beginnings of prompts fill their share of memory at once, so that what grows afterwards is a leak.
    command = [given.program, "serve", *([given.model] if given.model else []), "--port", "0", "--prefix-cache-mib", "8"]
    command += ["--threads", str(given.threads)] if given.threads else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        port = int(line.split("http://")[1].split("/")[0].rsplit(":", 1)[1])
        faults = asyncio.run(run(given, port, server.pid))
        if server.poll() is not None:
            faults.append(f"the server ended with {server.returncode}")
        server.terminate()
        if server.wait(60) != 0:
            faults.append(f"after SIGTERM the server ended with {server.returncode}")
    finally:
        server.kill()
    kinds = sorted(set(faults))
    for fault in kinds:
        print(f"fault: {fault} ({faults.count(fault)} times)")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
