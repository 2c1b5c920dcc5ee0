"""Golden vectors of training: logits, loss and every gradient of every architecture, and ten AdamW steps.

Writes crates/lowbit-train/tests/golden/<case>.safetensors. Everything is computed in float64. For quantization-aware cases the seed is chosen so that no value comes near a rounding
boundary: float32 arithmetic then yields the same codes, which is checked here, and the float64 result is the reference.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from arch import Network, Quantizer

OUT = Path(__file__).parents[2] / "crates/lowbit-train/tests/golden"
LENGTHS = [1, 5, 9]
STEPS = dict(lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01, decay=["embedding", "body", "head"], clip=1.0)


def bitnet(**changes):
    """A small configuration of arch/bitnet.rs."""
    base = dict(
        architecture="bitnet", vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, intermediate_size=40, hidden_act="silu", rope_theta=10000.0,
        rms_norm_eps=1e-5, sub_norm=True, causal=True, bigram_buckets=0, dropout=0.0, head={"lm": {"tied": True}},
    )
    return base | changes


def mlp(**changes):
    """A small configuration of arch/mlp.rs."""
    base = dict(
        architecture="mlp", vocab_size=61, hidden_size=24, layers=[], hidden_act="relu", classes=5,
        bigram_buckets=0, dropout=0.0,
    )
    return base | changes


def classify(pooling="mean", classes=5):
    return {"classify": {"classes": classes, "pooling": pooling}}


SMALL = dict(hidden_size=16, head_dim=4, intermediate_size=40)
UNTIED = {"lm": {"tied": False}}


def qat(scale, granularity, activations):
    return dict(scale=scale, granularity=granularity, activations=activations)


# name, configuration, quantization, label smoothing
CASES = [
    ("classify_silu", bitnet(vocab_size=43, causal=False, bigram_buckets=37, head=classify()), None, 0.1),
    ("classify_last_relu", bitnet(hidden_size=16, num_key_value_heads=4, head_dim=4, sub_norm=False,
                                  hidden_act="relu", bigram_buckets=19, head=classify("last", 3)), None, 0.0),
    ("lm_tied_relu2", bitnet(hidden_act="relu2"), None, 0.0),
    ("lm_untied_gelu", bitnet(hidden_size=20, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
                              intermediate_size=28, sub_norm=False, hidden_act="gelu", rope_theta=500000.0,
                              head=UNTIED), None, 0.1),
    ("lm_window_gelu_erf", bitnet(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, head_dim=8, bigram_buckets=19,
                                  hidden_act="gelu_erf", sliding_window=4, head=UNTIED), None, 0.0),
    ("classify_first_window", bitnet(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, head_dim=8, causal=False,
                                     sliding_window=3, head=classify("first", 3)), None, 0.0),
    ("mlp_bag", mlp(bigram_buckets=37), None, 0.0),
    ("mlp_gelu", mlp(layers=[24, 17], hidden_act="gelu"), None, 0.1),
    ("mlp_relu2", mlp(layers=[24], hidden_act="relu2", bigram_buckets=37), None, 0.0),
    ("qat_mean_int8", bitnet(**SMALL, hidden_act="relu2"), qat("mean", "tensor", "int8"), 0.0),
    ("qat_channel", bitnet(**SMALL, vocab_size=43, causal=False, bigram_buckets=37, head=classify()),
     qat("mean", "channel", "f32"), 0.1),
    ("qat_median_int8", bitnet(**SMALL, vocab_size=43, sub_norm=False, head=UNTIED), qat("median", "tensor", "int8"), 0.0),
    ("qat_mlp_int8", mlp(layers=[32, 24], hidden_act="silu"), qat("median", "channel", "int8"), 0.0),
]


def batch(config, generator):
    """Tokens, starts and targets: one per sequence for a classifier, else one per token, -1 (none) at each last one."""
    starts = [sum(LENGTHS[:i]) for i in range(len(LENGTHS) + 1)]
    tokens = torch.randint(config["vocab_size"], (starts[-1],), generator=generator)
    head = config.get("head", {})
    if "lm" in head:
        targets = torch.randint(config["vocab_size"], (starts[-1],), generator=generator)
        targets[torch.tensor(starts[1:]) - 1] = -1
    else:
        classes = head["classify"]["classes"] if head else config["classes"]
        targets = torch.randint(classes, (len(LENGTHS),), generator=generator)
    return tokens, starts, targets


def network(config, seed, qat):
    """Parameters, norms and biases away from 1 and 0. Rounded to bfloat16 to make the file small, but not for the median:
    there many weights would be exactly half of it, on the rounding boundary."""
    torch.manual_seed(seed)
    net = Network(config, Quantizer(qat))
    for name in net.names:
        p = net.get(name)
        noise = {"norm": 0.2, "bias": 0.3}.get(net.roles[name])
        p.data = p.data if noise is None else p.data + noise * torch.randn(p.shape)
        p.data = p.data if qat and qat["scale"] == "median" else p.data.bfloat16()
    return net


def evaluate(net, data, smoothing):
    tokens, starts, targets = data
    net.zero_grad()
    logits = net(tokens, starts)
    loss = F.cross_entropy(logits, targets, ignore_index=-1, label_smoothing=smoothing)
    loss.backward()
    return logits.detach(), loss.item(), {name: net.get(name).grad.clone() for name in net.names}


def adamw(net, data, smoothing, count=10):
    """Losses before each step, and gradient norms before clipping."""
    groups = [dict(params=[], weight_decay=STEPS["weight_decay"]), dict(params=[], weight_decay=0.0)]
    for name in net.names:
        groups[net.roles[name] not in STEPS["decay"]]["params"].append(net.get(name))
    optimizer = torch.optim.AdamW(groups, lr=STEPS["lr"], betas=tuple(STEPS["betas"]), eps=STEPS["eps"])
    losses, norms = [], []
    for _ in range(count):
        losses.append(evaluate(net, data, smoothing)[1])
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), STEPS["clip"]).item())
        optimizer.step()
    return losses, norms


def relative(a, b):
    return ((a.double() - b).abs().max() / b.abs().max()).item()


def make(name, config, qat, smoothing):
    for seed in range(1000):
        data = batch(config, torch.Generator().manual_seed(seed))
        net = network(config, seed, qat).double()
        logits, loss, grads = evaluate(net, data, smoothing)
        if net.quantizer.margin > 3e-4:
            break
    margin = net.quantizer.margin
    assert margin > 3e-4, f"{name}: no seed keeps all values off the rounding boundaries"
    single = network(config, seed, qat).float()
    logits32, loss32, grads32 = evaluate(single, data, smoothing)
    worst = max(relative(grads32[n], grads[n]) for n in net.names)
    print(f"{name:20} seed {seed:4} margin {margin:.1e} loss {loss:.6f}; float32 differs: logits "
          f"{relative(logits32, logits):.1e}, loss {abs(loss32 - loss):.1e}, gradients {worst:.1e}")
    assert worst < 2e-5 and relative(logits32, logits) < 2e-5, "float32 and float64 took different codes"
    case = dict(config=config, qat=qat, label_smoothing=smoothing, loss=loss)
    if qat is None:
        losses, norms = adamw(net, data, smoothing)
        case["adamw"] = STEPS | dict(losses=losses, gradient_norms=norms)
        print(f"{'':20} gradient norms {norms[0]:.3f} .. {norms[-1]:.3f}, losses {losses[0]:.4f} .. {losses[-1]:.4f}")
    start = network(config, seed, qat)
    tensors = {f"param/{n}": start.get(n).data for n in net.names}
    tensors |= {f"grad/{n}": grads[n].float() for n in net.names}
    as_i32 = lambda values: torch.as_tensor(values, dtype=torch.int32)
    tokens, starts, targets = data
    tensors |= dict(logits=logits.float(), tokens=as_i32(tokens), starts=as_i32(starts), targets=as_i32(targets))
    path = OUT / f"{name}.safetensors"
    save_file(tensors, path, metadata={"case": json.dumps(case)})
    print(f"{'':20} {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        make(*case)
