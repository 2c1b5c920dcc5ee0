"""Three updates of Muon, in float64, beside torch.optim.Muon, whose iterations are in bf16.

Writes crates/lowbit-train/tests/golden_muon.json: shapes, first values, gradients and values after each update.
"""

import json
from pathlib import Path

import torch

OUT = Path(__file__).parents[2] / "crates/lowbit-train/tests/golden_muon.json"
RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.95


def drawn(*shape):
    """Values that float32 holds exactly."""
    return torch.randn(*shape).float().double()


def orthogonal(x):
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x


def case(rows, cols):
    w = drawn(rows, cols)
    theirs = torch.nn.Parameter(w.float().clone())
    optimizer = torch.optim.Muon([theirs], lr=RATE, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    momentum, done = torch.zeros_like(w), dict(rows=rows, cols=cols, start=w.flatten().tolist(), gradients=[], values=[])
    for _ in range(3):
        g = drawn(rows, cols)
        momentum = MOMENTUM * momentum + g
        w = w * (1 - RATE * DECAY) - RATE * 0.2 * max(rows, cols) ** 0.5 * orthogonal(g + MOMENTUM * momentum)
        theirs.grad = g.float()
        optimizer.step()
        off = (theirs.double() - w).abs().max() / (RATE * 0.2 * max(rows, cols) ** 0.5)
        assert off < 0.05, off  # the bf16 of torch's iterations
        done["gradients"].append(g.flatten().tolist())
        done["values"].append(w.flatten().tolist())
    return done


def main():
    torch.manual_seed(11)
    done = dict(rate=RATE, decay=DECAY, momentum=MOMENTUM, cases=[case(4, 6), case(9, 4), case(5, 5), case(17, 33)])
    rounded = json.dumps(json.loads(json.dumps(done), parse_float=lambda text: float(f"{float(text):.9g}")))
    OUT.write_text(rounded + "\n")
    print(f"{OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
