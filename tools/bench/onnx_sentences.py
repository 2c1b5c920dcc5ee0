"""Vectors of sentences of mixed length by all-MiniLM-L6-v2: ONNX Runtime and lowbit in turn.

    python3 tools/bench/onnx_sentences.py DATA [--lowbit target/release/lowbit] [--threads 2] [--rounds 5]

DATA is the directory of the data sets: weights of `weights/minilm-l6-v2`, and 512 texts: of SST-2 and of the whole reviews of IMDB, cut at
mixed lengths. Prints sentences per second from text to vector (tokens, network, mean, length 1), the ratio of the times, and the least
and mean cosine to the vectors of ONNX Runtime in f32. ONNX Runtime gets batches of 32 texts of like length.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer
from transformers import BertModel

TEXTS, BATCH, LONGEST = 512, 32, 512
RECIPES = {"f32": "f32", "int8_channel": "int8", "int8_block": "int8", "nf4": "f32"}


def packed(path):
    return subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.decode()


def texts(data):
    """Half short phrases, half reviews of which the first 5 to 180 words are kept; without line ends."""
    short = [line.split("\t")[0] for line in packed(data / "sst2_glue/dev.tsv.zst").splitlines()[1:TEXTS // 2 + 1]]
    reviews = packed(data / "imdb/train.tsv.zst").split("\n")[1:TEXTS // 2 + 1]
    words = np.random.default_rng(0).integers(5, 180, len(reviews))
    return short + [" ".join(review.split("\t")[3].split()[:count]) for review, count in zip(reviews, words)]


class Vectors(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)


def export(module, path):
    """Writes a network of ids and mask, both [rows, length], to a file and its 8-bit form beside it; the paths of both."""
    ids = torch.randint(1000, 20000, (4, 24))
    shapes = {name: {0: torch.export.Dim("rows"), 1: torch.export.Dim("length", max=512)} for name in ("ids", "mask")}
    torch.onnx.export(module, (ids, torch.ones_like(ids)), str(path), input_names=["ids", "mask"], opset_version=18, dynamo=True,
                      dynamic_shapes=shapes, verbose=False)
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    onnx.save(model, str(path))
    quantized = path.with_suffix(".int8.onnx")
    quantize_dynamic(str(path), str(quantized), weight_type=QuantType.QInt8, per_channel=True)
    return {"f32": path, "int8": quantized}


def unpack(data, home):
    """Puts the weights of MiniLM, unpacked, into a directory."""
    for source in (data / "weights/minilm-l6-v2").iterdir():
        target = home / source.name.removesuffix(".zst")
        subprocess.run(["zstd", "-dqf", source, "-o", target] if source.suffix == ".zst" else ["cp", source, target], check=True)


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def of_onnx(run, tokenizer, lines):
    """Seconds and vectors."""
    start = time.perf_counter()
    encoded = tokenizer.encode_batch(lines)
    order = sorted(range(len(lines)), key=lambda row: len(encoded[row].ids))
    vectors = np.zeros((len(lines), 384), np.float32)
    for first in range(0, len(order), BATCH):
        rows = order[first:first + BATCH]
        longest = max(len(encoded[row].ids) for row in rows)
        ids, mask = np.zeros((2, len(rows), longest), np.int64)
        for at, row in enumerate(rows):
            count = len(encoded[row].ids)
            ids[at, :count], mask[at, :count] = encoded[row].ids, 1
        vectors[rows] = run.run(None, {"ids": ids, "mask": mask})[0]
    return time.perf_counter() - start, vectors


def of_lowbit(args, home, file, recipe):
    out = home / "out.jsonl"
    command = [args.lowbit, "--json", "predict", home, file, "--recipe", recipe, "--threads", str(args.threads), "--format", "jsonl",
               "--out", out]
    record = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["records"][0]
    vectors = [json.loads(line)["embedding"] for line in out.read_text().splitlines()]
    return TEXTS / record["measures"]["throughput"]["value"], np.array(vectors, np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--lowbit", default="target/release/lowbit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        unpack(args.data, home)
        lines = texts(args.data)
        (home / "lines.txt").write_text("\n".join(lines) + "\n")
        tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(LONGEST)
        model = Vectors(BertModel.from_pretrained(home, attn_implementation="eager", dtype=torch.float32).eval())
        peers = {kind: session(path, args.threads) for kind, path in export(model, home / "minilm.onnx").items()}
        seconds, vectors = {}, {}
        for _ in range(args.rounds):
            for kind, run in peers.items():
                found, vectors[kind] = of_onnx(run, tokenizer, lines)
                seconds.setdefault(kind, []).append(found)
            for recipe in RECIPES:
                found, vectors[f"lowbit {recipe}"] = of_lowbit(args, home, home / "lines.txt", recipe)
                seconds.setdefault(f"lowbit {recipe}", []).append(found)
        count = sum(len(one.ids) for one in tokenizer.encode_batch(lines))
        print(f"ONNX Runtime {ort.__version__}, {args.threads} threads, {TEXTS} texts of {count} tokens in all")
        for name, own in seconds.items():
            peer = RECIPES[name.removeprefix("lowbit ")] if name.startswith("lowbit ") else name
            ratios = sorted(a / b for a, b in zip(own, seconds[peer]))
            cosine = (vectors[name] * vectors["f32"]).sum(1)
            print(f"{name}: {TEXTS / statistics.median(own):.0f} texts/s; {statistics.median(ratios):.2f} ({ratios[0]:.2f} to "
                  f"{ratios[-1]:.2f}) times the seconds of {peer}; cosine {cosine.min():.5f} least, {cosine.mean():.5f} mean", flush=True)


if __name__ == "__main__":
    main()
