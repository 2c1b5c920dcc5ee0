"""Throughput of PyTorch on the CPU training the network of crates/lowbit-model/src/arch/bitnet.rs.

One line of JSON: tokens per second of each step (median, min, max) and peak resident memory. The network is that of
tools/golden/arch.py: F.scaled_dot_product_attention, F.rms_norm, F.linear, straight-through estimator by detach.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from arch import Network, Quantizer  # noqa: E402


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--hidden", type=int, default=384)
    p.add_argument("--heads", type=int, default=6)
    p.add_argument("--kv-heads", type=int, help="default: --heads")
    p.add_argument("--ffn", type=int, default=1024)
    p.add_argument("--vocab", type=int, default=256)
    p.add_argument("--act", default="silu", choices=["relu", "relu2", "silu", "gelu"], help="function of the feed-forward")
    p.add_argument("--sub-norm", action="store_true", help="norms before the output and down projections")
    p.add_argument("--tied", action="store_true", help="the embedding is the output matrix")
    p.add_argument("--batch-tokens", type=int, default=2048, help="tokens of a step")
    p.add_argument("--seq", type=int, default=256, help="length of each sequence")
    p.add_argument("--classes", type=int, default=0, help="0: causal language model; else a classifier")
    p.add_argument("--bigrams", type=int, default=0, help="buckets of the bigram table")
    p.add_argument("--steps", type=int, default=8, help="measured steps, after two that are not")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--qat", action="store_true", help="ternary absmean weights and int8 activations in the body")
    p.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    p.add_argument("--compile", action="store_true", help="torch.compile (needs a C++ compiler)")
    p.add_argument("--adamw", choices=["default", "foreach", "fused"], default="fused")
    return p.parse_args()


def configuration(a):
    head = {"classify": {"classes": a.classes, "pooling": "mean"}} if a.classes else {"lm": {"tied": a.tied}}
    return dict(
        architecture="decoder", vocab_size=a.vocab, hidden_size=a.hidden, num_hidden_layers=a.layers,
        num_attention_heads=a.heads, num_key_value_heads=a.kv_heads or a.heads, head_dim=a.hidden // a.heads,
        intermediate_size=a.ffn, hidden_act=a.act, rope_theta=10000.0, rms_norm_eps=1e-5, sub_norm=a.sub_norm,
        causal=not a.classes, bigram_buckets=a.bigrams, dropout=0.0, head=head,
    )


def peak_rss():
    """Bytes; VmHWM of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    qat = dict(scale="mean", granularity="tensor", activations="int8") if a.qat else None
    net = Network(configuration(a), Quantizer(qat, margin=None))
    count = a.batch_tokens // a.seq
    starts = [i * a.seq for i in range(count + 1)]
    tokens = torch.randint(a.vocab, (starts[-1],))
    pairs = torch.randint(a.bigrams, tokens.shape) if a.bigrams else None
    targets = torch.randint(a.classes, (count,)) if a.classes else torch.randint(a.vocab, tokens.shape)
    flag = {} if a.adamw == "default" else {a.adamw: True}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01, **flag)
    forward = torch.compile(net) if a.compile else net

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            logits = forward(tokens, starts, pairs)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    first = step()
    step()
    rates = []
    for _ in range(a.steps):
        begin = time.perf_counter()
        last = step()
        rates.append(len(tokens) / (time.perf_counter() - begin))
    print(json.dumps(dict(
        tokens_per_second=dict(median=statistics.median(rates), min=min(rates), max=max(rates)),
        peak_rss_bytes=peak_rss(), params=sum(p.numel() for p in net.parameters()), loss=[first, last],
        torch=torch.__version__, threads=torch.get_num_threads(), capability=torch.backends.cpu.get_cpu_capability(),
        mkl_forced="mkl_avx512" in os.environ.get("LD_PRELOAD", ""), arguments=vars(a),
    )))


if __name__ == "__main__":
    main()
