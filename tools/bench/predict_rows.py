"""Classes of a table of many short rows: `lowbit predict` killed, resumed, in shards and merged, beside ONNX Runtime in a Python loop.

    python3 tools/bench/predict_rows.py DATA [--lowbit target/release/lowbit] [--rows 1000000] [--recipes int8_channel,f32] [--threads 2]

DATA is the directory of the data sets: the weights of MiniLM, and the phrases of SST-2. In --home (kept for the next run) it puts a MiniLM
classifier, fine-tuned for --steps updates on these phrases in PyTorch, and `rows.parquet`, phrases drawn with a seed, with the number of the row.

With the first recipe all rows are answered three times: whole; killed with SIGKILL at a random moment and resumed; and in two shards that are
merged. The files must be the same, byte for byte. While the first run works its memory is read twice a second: its growth is that of a line
through the second half of the readings, over their time. Then lowbit under each recipe and ONNX Runtime (f32, and 8 bits by its dynamic quantization per channel)
answer the first --sample rows in turn: its loop reads Parquet by batches, tokenizes and pads each, runs the network and writes CSV; `by length`
gives it batches of like length within 4,096 rows. Exits with 1 where files differ, memory grows, or the classes of f32 differ from ONNX Runtime's
in more than one of 10,000 rows.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from onnx_sentences import export, packed, session, unpack
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
LONGEST, WINDOW, GROUP = 128, 4096, 100_000
# Memory that may come in the second half of a run, MiB: less than a tenth of what the network has.
GROWTH = 8.0
LABELS = ["negative", "positive"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--lowbit", default="target/release/lowbit")
    parser.add_argument("--home", type=Path, default=Path("target/predict-rows"))
    parser.add_argument("--recipes", default="int8_channel,f32")
    for name, default in (("rows", 1_000_000), ("sample", 20_000), ("threads", 2), ("steps", 200), ("rounds", 3), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=default)
    return parser.parse_args()


def phrases(data):
    lines = packed(data / "sst2_glue/train.tsv.zst").splitlines()[1:]
    return [(text.strip(), int(label)) for text, label in (line.rsplit("\t", 1) for line in lines)]


def tokenizer_of(home):
    tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def padded(encoded):
    """Ids and mask of a batch, [rows, longest]."""
    ids = np.zeros((2, len(encoded), max(len(one.ids) for one in encoded)), np.int64)
    for row, one in enumerate(encoded):
        ids[0, row, : len(one.ids)], ids[1, row, : len(one.ids)] = one.ids, 1
    return ids


def make_model(args, home):
    """A classifier as a directory of the Hub."""
    home.mkdir(parents=True)
    unpack(args.data, home)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    model = BertForSequenceClassification.from_pretrained(home, num_labels=len(LABELS), dtype=torch.float32, **names).train()
    rows, tokenizer = phrases(args.data), tokenizer_of(home)
    random.Random(args.seed).shuffle(rows)
    optimizer, right, seen = torch.optim.AdamW(model.parameters(), 5e-5), 0, 0
    for step in range(args.steps):
        some = [rows[(32 * step + i) % len(rows)] for i in range(32)]
        ids, mask = torch.from_numpy(padded(tokenizer.encode_batch([text for text, _ in some])))
        labels = torch.tensor([label for _, label in some])
        answer = model(input_ids=ids, attention_mask=mask, labels=labels)
        answer.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= args.steps // 2:
            right, seen = right + (answer.logits.argmax(1) == labels).sum().item(), seen + len(some)
    print(f"MiniLM classifier: {args.steps} updates, {100 * right / max(seen, 1):.1f} % of the rows of the last half right before each", flush=True)
    model.eval().save_pretrained(home)


def make_rows(args, path):
    texts, draw = [text for text, _ in phrases(args.data)], np.random.default_rng(args.seed)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, args.rows, GROUP):
            count = min(GROUP, args.rows - first)
            some = [texts[at] for at in draw.integers(0, len(texts), count)]
            writer.write_table(pa.table([np.arange(first, first + count), some], schema=schema))


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Predict:
    """Runs of `lowbit predict`."""

    def __init__(self, args, model, rows):
        self.base = [args.lowbit, "--threads", str(args.threads), "--json", "predict", str(model), str(rows), "--text", "text", "--keep"]

    def start(self, recipe, out, *more):
        command = [*self.base, "--recipe", recipe, "-o", str(out), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def end(self, process):
        """Rows per second of a run that ended well; 0 where it answered none."""
        out, _ = process.communicate()
        if process.returncode:
            sys.exit(f"lowbit predict ended with {process.returncode}")
        records = json.loads(out)["records"]
        return records[0]["measures"].get("throughput", {"value": 0.0})["value"] if records else 0.0

    def run(self, recipe, out, *more):
        return self.end(self.start(recipe, out, *more))


def memory(process):
    """Times, and MiB of memory that is not of files, while a process runs; and the most that was resident."""
    times, sizes, peak, start = [], [], 0, time.monotonic()
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status:
                fields = dict(line.split(":", 1) for line in status)
            peak = max(peak, int(fields["VmHWM"].split()[0]) / 1024)
            times.append(time.monotonic() - start)
            sizes.append(int(fields["RssAnon"].split()[0]) / 1024)
        except (OSError, KeyError):
            break
        time.sleep(0.5)
    return np.array(times), np.array(sizes), peak


def lifetime(args, runs, recipe, table):
    """All rows: whole, killed and resumed, in shards. What was missed."""
    home, missed = args.home, []
    for name in ("whole.csv", "killed.csv", "shards.csv"):
        for old in home.glob(name + "*"):
            old.unlink()
    start = time.monotonic()
    process = runs.start(recipe, home / "whole.csv")
    times, sizes, peak = memory(process)
    rate = runs.end(process)
    seconds = time.monotonic() - start
    half = len(times) // 2
    grown = np.polyfit(times[half:], sizes[half:], 1)[0] * (times[-1] - times[half]) if len(times) - half > 10 else float("nan")
    table.append((f"lowbit {recipe}, all {args.rows} rows", rate, f"{seconds:.0f} s; peak {peak:.0f} MiB"))
    print(f"memory: peak {peak:.0f} MiB, of which not of files {sizes.max():.0f}; {grown:+.2f} MiB in the second half of {len(times)} readings", flush=True)
    if not np.isnan(grown) and grown > GROWTH:
        missed.append("memory grows")

    process = runs.start(recipe, home / "killed.csv", "--resume")
    moment = random.Random(args.seed).uniform(0.2, 0.8) * seconds
    time.sleep(moment)
    process.kill()
    process.communicate()
    if (home / "killed.csv").exists():
        sys.exit("the run ended before it could be killed: give more rows")
    partial = home / "killed.csv.partial"
    before = sum(1 for _ in open(partial, "rb")) if partial.exists() else 0
    again = runs.run(recipe, home / "killed.csv", "--resume")
    same = sha256(home / "killed.csv") == sha256(home / "whole.csv")
    print(f"killed after {moment:.0f} s with {before} lines written, resumed: {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
    table.append((f"lowbit {recipe}, the rest after a kill", again, ""))
    missed += [] if same else ["a resumed run has other bytes"]

    rates = [runs.run(recipe, home / "shards.csv", "--shard", f"{i}/2") for i in (1, 2)]
    subprocess.run([args.lowbit, "merge", str(home / "shards.csv")], check=True, stdout=subprocess.DEVNULL)
    same = sha256(home / "shards.csv") == sha256(home / "whole.csv")
    print(f"two shards ({rates[0]:.0f} and {rates[1]:.0f} rows/s), merged: {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
    return missed + ([] if same else ["merged shards have other bytes"])


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).logits


def of_onnx(run, tokenizer, rows, out, batch, by_length):
    """Rows per second of the loop."""
    start, count = time.perf_counter(), 0
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "prediction", "probability"])
        for some in pq.ParquetFile(rows).iter_batches(WINDOW if by_length else batch):
            ids, texts = some.column("id").to_pylist(), some.column("text").to_pylist()
            encoded = tokenizer.encode_batch(texts)
            order = sorted(range(len(texts)), key=lambda row: len(encoded[row].ids)) if by_length else list(range(len(texts)))
            logits = np.zeros((len(texts), len(LABELS)), np.float32)
            for first in range(0, len(order), batch):
                at = order[first:first + batch]
                tokens = padded([encoded[row] for row in at])
                logits[at] = run.run(None, {"ids": tokens[0], "mask": tokens[1]})[0]
            powers = np.exp(logits - logits.max(1, keepdims=True))
            powers /= powers.sum(1, keepdims=True)
            classes = logits.argmax(1)
            writer.writerows((ids[i], texts[i], LABELS[c], powers[i, c]) for i, c in enumerate(classes))
            count += len(texts)
    return count / (time.perf_counter() - start)


def answered(path):
    """Classes and their probabilities."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["prediction"] for row in rows], np.array([float(row["probability"]) for row in rows])


def beside(args, model, table):
    """lowbit and ONNX Runtime on the first rows, in turn. What was missed."""
    rows, recipes = args.home / "sample.parquet", args.recipes.split(",")
    first = next(pq.ParquetFile(args.home / "rows.parquet").iter_batches(min(args.sample, args.rows)))
    pq.write_table(pa.Table.from_batches([first]), rows)
    runs, tokenizer = Predict(args, model, rows), tokenizer_of(model)
    network = BertForSequenceClassification.from_pretrained(model, attn_implementation="eager", dtype=torch.float32).eval()
    peers = {kind: session(path, args.threads) for kind, path in export(Logits(network), args.home / "classifier.onnx").items()}
    forms = [(kind, batch, by_length) for kind in peers for batch, by_length in ((32, False), (128, False), (32, True))]
    rates = {}
    for _ in range(args.rounds):
        for kind, batch, by_length in forms:
            out = args.home / f"onnx-{kind}.csv"
            name = f"ONNX Runtime {kind}, batches of {batch}{' by length' if by_length else ''}"
            rates.setdefault(name, []).append(of_onnx(peers[kind], tokenizer, rows, out, batch, by_length))
        for recipe in recipes:
            rates.setdefault(f"lowbit {recipe}", []).append(runs.run(recipe, args.home / f"lowbit-{recipe}.csv"))
    for name, found in rates.items():
        table.append((f"{name}, {len(first)} rows", float(np.median(found)), f"{min(found):.0f} to {max(found):.0f}"))
    wanted, missed = answered(args.home / "onnx-f32.csv"), []
    for recipe in recipes:
        found = answered(args.home / f"lowbit-{recipe}.csv")
        other = sum(a != b for a, b in zip(found[0], wanted[0]))
        apart = np.abs(found[1] - wanted[1]).max()
        print(f"{recipe}: {other} of {len(found[0])} rows have another class than ONNX Runtime f32, probabilities differ by {apart:.1e} at most", flush=True)
        missed += ["f32 answers otherwise"] if recipe == "f32" and other > len(found[0]) / 10_000 else []
    return missed


def main():
    args = arguments()
    model, rows = args.home / "model", args.home / "rows.parquet"
    if not (model / "config.json").exists():
        make_model(args, model)
    if not rows.exists() or pq.ParquetFile(rows).metadata.num_rows != args.rows:
        make_rows(args, rows)
    table = []
    missed = lifetime(args, Predict(args, model, rows), args.recipes.split(",")[0], table)
    missed += beside(args, model, table)
    print(f"\n{args.threads} threads of {os.cpu_count()}, ONNX Runtime {ort.__version__}, texts of at most {LONGEST} tokens\n")
    print("| | rows/s | |\n|---|--:|---|")
    for name, rate, more in table:
        print(f"| {name} | {rate:.0f} | {more} |")
    for what in missed:
        print(f"missed: {what}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
