"""Golden values of faithfulness to a reference: KL divergence, same top answer, RMS differences of probabilities.

numpy in float64 by the definitions of llama.cpp's `llama-perplexity --kl-divergence`; torch's kl_div agrees on the mean.

python tools/golden/faithfulness.py > crates/lowbit-eval/tests/golden/faithfulness.json
"""

import json
import sys

import numpy as np
import torch

CASES = [(3, 50, 1.0, 0.1), (2, 60, 4.0, 1.0), (17, 30, 3.0, 0.02), (100, 12, 8.0, 2.0)]  # classes, rows, scale, noise


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def case(seed, classes, rows, scale, noise):
    rng = np.random.default_rng(seed)
    # Three decimals are short in the file; they are exact once both sides read them as float32.
    reference = np.round(rng.normal(0, scale, (rows, classes)), 3).astype(np.float32)
    own = np.round(reference + rng.normal(0, noise, (rows, classes)), 3).astype(np.float32)
    truths = rng.integers(0, classes, rows)
    p, q = log_softmax(reference), log_softmax(own)
    kl = (np.exp(p) * (p - q)).sum(1)
    check = torch.nn.functional.kl_div(torch.from_numpy(q), torch.from_numpy(p), log_target=True, reduction="batchmean")
    assert abs(check.item() - kl.mean()) < 1e-12 * kl.mean()
    every, top = np.arange(rows), reference.argmax(1)
    difference = np.exp(q) - np.exp(p)
    measures = {
        "kl_divergence": kl.mean(),
        "kl_divergence_p999": np.percentile(kl, 99.9),
        "kl_divergence_max": kl.max(),
        "same_top": (own.argmax(1) == top).mean(),
        "rms_probability_difference": np.sqrt((difference[every, truths] ** 2).mean()),
        "rms_top_probability_difference": np.sqrt((difference[every, top] ** 2).mean()),
    }
    return {
        "classes": classes,
        "reference": [float(f"{v:.3f}") for v in reference.ravel()],
        "own": [float(f"{v:.3f}") for v in own.ravel()],
        "truths": truths.tolist(),
        "measures": {name: float(measures[name]) for name in sorted(measures)},
        "standard_error": float(kl.std(ddof=1) / np.sqrt(rows)),
    }


print("[\n" + ",\n".join(json.dumps(case(seed, *c)) for seed, c in enumerate(CASES)) + "\n]")
print(f"{len(CASES)} cases, numpy {np.__version__}, torch {torch.__version__}", file=sys.stderr)
