"""Mean loss per token of GGUF files in llama.cpp, on the windows of crates/lowbit-model/examples/perplexity.rs.

    python llama_perplexity.py TEXT FILE.gguf...      (needs llama-cpp-python and numpy)
"""

import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama


def score(path, text):
    model = Llama(str(path), n_ctx=256, n_batch=256, logits_all=True, n_threads=2, verbose=False)
    total, count = 0.0, 0
    for start in range(0, len(text) // 700 * 700, 700):
        # llama.cpp keeps runs of spaces, which some sentencepiece models shorten.
        window = " ".join(text[start : start + 700].split())
        tokens = model.tokenize(window.encode(), add_bos=True)[:256]
        model.reset()
        model.eval(tokens)
        logits = np.array(model.scores[: len(tokens)], dtype=np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= logs[np.arange(len(tokens) - 1), tokens[1:]].sum()
        count += len(tokens) - 1
    return total / count, count


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text()
    for path in sys.argv[2:]:
        mean, count = score(path, text)
        print(f"{path}: {mean:.5f} nats per token, perplexity {np.exp(mean):.4f}, {count} tokens")
