"""Updates of codes, scales and offsets of one matrix in q4_1 by gradients through rounding, in float64.

Writes crates/lowbit-train/tests/golden_tuning.json: a least-squares problem, and loss and weights at each update. PyTorch makes the gradients;
AdamW moves codes by the learning rate, scales by a fifth of two fifteenths of it times their size, offsets by a fifth of it times the size of the scale.
"""

import json
from pathlib import Path

import torch

OUT = Path(__file__).parents[2] / "crates/lowbit-train/tests/golden_tuning.json"
ROWS, COLS, TOKENS, GROUP, MOST, RATE, STEPS = 3, 64, 24, 32, 15, 0.1, 6
BETAS, EPS = (0.9, 0.95), 1e-20


def straight(rounded, x):
    """`rounded` in the forward pass, the gradient of `x` in the backward pass."""
    return x + (rounded - x).detach()


def adam(gradient, moments, step):
    for i, (beta, value) in enumerate(zip(BETAS, (gradient, gradient**2))):
        moments[i] = moments[i] + (1 - beta) * (value - moments[i])
    first, second = (m / (1 - beta**step) for m, beta in zip(moments, BETAS))
    return first / (second.sqrt() + EPS)


def main():
    torch.manual_seed(8)
    torch.set_default_dtype(torch.float64)
    exact = lambda x: x.float().double()
    weights, inputs = exact(torch.randn(ROWS, COLS) * 0.1), exact(torch.randn(TOKENS, COLS))
    wanted = exact(inputs @ (weights + 0.02 * torch.randn(ROWS, COLS)).T)
    grouped = weights.view(ROWS, -1, GROUP)
    low, high = grouped.amin(-1), grouped.amax(-1)
    scale, offset = ((high - low) / MOST).half().double(), low.half().double()
    spread = lambda x: x.repeat_interleave(GROUP, 1)
    codes = ((weights - spread(offset)) / spread(scale)).round().clamp(0, MOST)
    away = (weights - spread(offset)) / spread(scale) - codes
    latent = codes + torch.where(away.abs() <= 0.5, 0.5 * away, 0.0)
    done = dict(rows=ROWS, cols=COLS, tokens=TOKENS, rate=RATE, weights=weights.flatten().tolist())
    done |= dict(inputs=inputs.flatten().tolist(), wanted=wanted.flatten().tolist(), steps=[])
    done |= dict(codes=codes.int().flatten().tolist(), scales=scale.flatten().tolist(), offsets=offset.flatten().tolist())
    moments = [[torch.zeros(()), torch.zeros(())] for _ in range(3)]

    def network(c, s, o):
        return straight(c.clamp(0, MOST).round(), c) * spread(straight(s.half().double(), s)) + spread(straight(o.half().double(), o))

    for step in range(1, STEPS + 1):
        latent = latent.clamp(-0.49, MOST + 0.49)
        leaves = [x.clone().requires_grad_() for x in (latent, scale, offset)]
        loss = ((inputs @ network(*leaves).T - wanted) ** 2).sum() / TOKENS
        loss.backward()
        sizes = (RATE, 0.2 * RATE * scale.abs() * 2 / MOST, 0.2 * RATE * scale.abs())
        by = [size * adam(x.grad, m, step) for size, x, m in zip(sizes, leaves, moments)]
        latent, scale, offset = (x - d for x, d in zip((latent, scale, offset), by))
        assert ((latent - latent.floor() - 0.5).abs() > 1e-4).all(), "a code in float32 may differ"
        found = network(latent.clamp(-0.49, MOST + 0.49), scale, offset)
        done["steps"].append(dict(loss=loss.item(), weights=found.flatten().tolist()))
    assert done["steps"][-1]["loss"] < 0.5 * done["steps"][0]["loss"]
    OUT.write_text(json.dumps(done) + "\n")


main()
