"""Training of published networks by transformers: loss, every gradient, ten AdamW updates, in float64.

Reads the networks of families.py; writes crates/lowbit-train/tests/golden_families/:
  <case>.safetensors  the gradient of each parameter under the name and in the layout of the parameter, float32
  cases.json          per case the loss, the losses before each of ten updates, and the settings of AdamW
"""

import json
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from families import OUT as FAMILIES, auto

OUT = Path(__file__).parents[2] / "crates/lowbit-train/tests/golden_families"
CASES = ["bert_classifier", "distilbert_classifier", "roberta_classifier", "gpt2", "gpt2_classifier", "gpt_neo",
         "gpt_neo_classifier", "llama_classifier", "qwen3_classifier"]
ADAMW = dict(lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01)


def loss_of(model, sequences, targets):
    """Mean cross entropy of the classes of sequences, or of the next token of each."""
    total, count = 0.0, 0
    for sequence, target in zip(sequences, targets):
        logits = model(input_ids=sequence[None]).logits[0]
        if logits.dim() == 1:
            logits, wanted = logits[None], target[None]
        else:
            logits, wanted = logits[:-1], sequence[1:]
        total = total + F.cross_entropy(logits, wanted.long(), reduction="sum")
        count += len(wanted)
    return total / count


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    expected = load_file(FAMILIES / "expected.safetensors")
    sequences = expected["sequences"].long().split(expected["lengths"].tolist())
    targets = torch.tensor([2, 0, 1, 2])
    configs = {case["name"]: case for case in json.loads((FAMILIES / "cases.json").read_text())}
    done = []
    for name in CASES:
        case = configs[name]
        with tempfile.TemporaryDirectory() as home:
            Path(home, "config.json").write_text(json.dumps(case["config"]))
            save_file(load_file(FAMILIES / f"{case['weights']}.safetensors"), Path(home, "model.safetensors"), {"format": "pt"})
            model = auto(case["config"]).from_pretrained(home, dtype=torch.float64, attn_implementation="eager").eval()
        params = dict(model.named_parameters())
        loss = loss_of(model, sequences, targets)
        loss.backward()
        save_file({n: p.grad.float().contiguous() if p.grad is not None else torch.zeros_like(p).float()
                   for n, p in params.items()}, OUT / f"{name}.safetensors")
        groups = [dict(params=[p for p in params.values() if (p.dim() == 2) is decays], weight_decay=ADAMW["weight_decay"] * decays)
                  for decays in (True, False)]
        optimizer = torch.optim.AdamW(groups, lr=ADAMW["lr"], betas=tuple(ADAMW["betas"]), eps=ADAMW["eps"])
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            value = loss_of(model, sequences, targets)
            value.backward()
            losses.append(value.item())
            optimizer.step()
        print(name, losses[0], losses[-1])
        done.append(dict(name=name, loss=loss.item(), losses=losses, targets=targets.tolist(), adamw=ADAMW))
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in done) + "\n]\n")
    print(f"{sum(f.stat().st_size for f in OUT.iterdir()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
