"""GPT-2 small for classes, DistilBERT and MiniLM in their published shapes with random weights: ONNX Runtime and lowbit in turn.

    python3 tools/bench/onnx_speed.py [--lowbit target/release/lowbit] [--shapes gpt2-classifier ...] [--threads 2] [--rounds 3]

Prints, for each shape and for 1 and 8 sequences of 128 tokens in a pass, the median milliseconds of each engine in each round, and how
many times the time of lowbit is that of ONNX Runtime of the same kind: f32 against f32, 8-bit against 8-bit (dynamic quantization
per channel). Models are exported into a temporary directory.
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
from transformers import (BertConfig, BertModel, DistilBertConfig, DistilBertForSequenceClassification, GPT2Config,
                          GPT2ForSequenceClassification)

TOKENS, TOGETHER = 128, [1, 8]
RECIPES = {"f32": "f32", "int8_channel": "int8", "int8_block": "int8", "llm_int8": "int8", "nf4": "f32"}
MODELS = {
    "gpt2-classifier": lambda: GPT2ForSequenceClassification(GPT2Config(num_labels=4, pad_token_id=50256)),
    "distilbert-classifier": lambda: DistilBertForSequenceClassification(DistilBertConfig(num_labels=2)),
    "minilm": lambda: BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)),
}


class Answer(torch.nn.Module):
    """Logits, or the mean of all tokens."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        out = self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        return out.logits if "logits" in out else out.last_hidden_state.mean(1)


def export(name, directory, sequences):
    """Paths of the f32 and the 8-bit model."""
    torch.manual_seed(0)
    path = directory / f"{name}-{sequences}.onnx"
    ids = torch.randint(1000, 20000, (sequences, TOKENS))
    torch.onnx.export(Answer(MODELS[name]().eval()), (ids,), str(path), input_names=["ids"], opset_version=18, dynamo=True,
                      verbose=False)
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    onnx.save(model, str(path))
    quantized = path.with_suffix(".int8.onnx")
    quantize_dynamic(str(path), str(quantized), weight_type=QuantType.QInt8, per_channel=True)
    return {"f32": path, "int8": quantized}


def of_onnx(path, sequences, threads):
    """Median milliseconds of a fresh session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(1000, 20000, (sequences, TOKENS))
    times = []
    for turn in range(12 if sequences == 1 else 7):
        start = time.perf_counter()
        session.run(None, {"ids": ids})
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[2:])


def of_lowbit(binary, shape, recipe, threads):
    """Median milliseconds for each number of sequences."""
    args = [binary, "--json", "bench", "--synthetic", shape, "--recipe", recipe, "-p", str(TOKENS), "-n", "1", "-r", "9",
            "--parallel", str(TOGETHER[1]), "--threads", str(threads)]
    records = json.loads(subprocess.run(args, check=True, capture_output=True).stdout)["records"]
    found = {}
    for sequences in TOGETHER:
        test = f"pp{TOKENS}" if sequences == 1 else f"pp{TOKENS}x{sequences}"
        record = next(r for r in records if r["task"] == test)
        rate = statistics.median(record["detail"]["samples"]["tokens_per_second"])
        found[sequences] = 1e3 * TOKENS * sequences / rate
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lowbit", default="target/release/lowbit")
    parser.add_argument("--shapes", nargs="+", default=list(MODELS))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"ONNX Runtime {ort.__version__}, PyTorch {torch.__version__}, {args.threads} threads, {TOKENS} tokens")
    with tempfile.TemporaryDirectory() as directory:
        for shape in args.shapes:
            paths = {n: export(shape, Path(directory), n) for n in TOGETHER}
            times = {}
            for _ in range(args.rounds):
                for recipe in args.recipes:
                    for sequences, found in of_lowbit(args.lowbit, shape, recipe, args.threads).items():
                        times.setdefault((sequences, f"lowbit {recipe}"), []).append(found)
                for sequences in TOGETHER:
                    for kind, path in paths[sequences].items():
                        times.setdefault((sequences, f"ONNX Runtime {kind}"), []).append(of_onnx(path, sequences, args.threads))
            for sequences in TOGETHER:
                for recipe, kind in [(None, "f32"), (None, "int8"), *((r, RECIPES[r]) for r in args.recipes)]:
                    peer = times[sequences, f"ONNX Runtime {kind}"]
                    own = peer if recipe is None else times[sequences, f"lowbit {recipe}"]
                    name = f"ONNX Runtime {kind}" if recipe is None else f"lowbit {recipe}"
                    ratios = sorted(a / b for a, b in zip(own, peer))
                    said = "" if recipe is None else f"; {ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times {kind}"
                    print(f"{shape} x{sequences}: {name} {', '.join(f'{t:.1f}' for t in own)} ms{said}", flush=True)


if __name__ == "__main__":
    main()
