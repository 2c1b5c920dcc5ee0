"""Training speed of PyTorch on the network of crates/lowbit-train/examples/throughput.rs.

    python train_torch.py [--steps 20] [--threads 2] [--qat]

MKL takes its AVX2 paths on AMD. To force AVX-512, preload a library with
`int mkl_serv_intel_cpu_true(void) { return 1; }`.
"""

import argparse
import resource
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

LAYERS, WIDTH, HEADS, FFN, VOCABULARY, CONTEXT, SEQUENCES = 6, 384, 6, 1024, 256, 256, 8
HEAD_DIM = WIDTH // HEADS


class BitLinear(nn.Linear):
    """Ternary weights by absmean, int8 activations by absmax, straight-through gradients."""

    def forward(self, x):
        scale = 1.0 / self.weight.abs().mean().clamp(min=1e-5)
        weight = (self.weight * scale).round().clamp(-1, 1) / scale
        scale = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        quantized = (x * scale).round().clamp(-128, 127) / scale
        return F.linear(x + (quantized - x).detach(), self.weight + (weight - self.weight).detach())


def rotate(x):
    half = HEAD_DIM // 2
    angle = torch.arange(CONTEXT)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Layer(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(WIDTH, eps=1e-5), nn.RMSNorm(WIDTH, eps=1e-5)
        self.q, self.k, self.v, self.o = (linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate, self.up = linear(WIDTH, FFN, bias=False), linear(WIDTH, FFN, bias=False)
        self.down = linear(FFN, WIDTH, bias=False)

    def forward(self, x):
        h = self.attention_norm(x)
        split = lambda y: y.view(SEQUENCES, CONTEXT, HEADS, HEAD_DIM).transpose(1, 2)
        q, k, v = split(self.q(h)), split(self.k(h)), split(self.v(h))
        a = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(SEQUENCES, CONTEXT, WIDTH))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--qat", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    linear = BitLinear if args.qat else nn.Linear
    layers = [Layer(linear) for _ in range(LAYERS)]
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    net = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *layers, nn.RMSNorm(WIDTH, eps=1e-5), head)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.98), fused=True)
    wall, cpu = [], []
    for _ in range(args.steps):
        tokens = torch.randint(256, (SEQUENCES, CONTEXT + 1))
        start = time.perf_counter(), time.process_time()
        logits = net(tokens[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    speeds = sorted(SEQUENCES * CONTEXT / t for t in wall[2:])
    weights = sum(p.numel() for p in net.parameters())
    print(f"{'qat' if args.qat else 'f32'}, {weights} weights, torch {torch.__version__}, {args.threads} threads")
    print(f"tokens/s after 2 steps: median {speeds[len(speeds) // 2]:.0f}, min {speeds[0]:.0f}, max {speeds[-1]:.0f}")
    print(f"processor seconds a step: median {sorted(cpu[2:])[len(cpu[2:]) // 2]:.3f}, min {min(cpu[2:]):.3f}")
    print(f"peak resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


main()
