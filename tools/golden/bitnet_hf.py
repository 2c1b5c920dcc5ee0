"""Golden logits of transformers' BitNetForCausalLM: unquantized, tiny, seeded, tied head, grouped heads, sub-norms.

Writes crates/lowbit-model/tests/golden/bitnet_hf.safetensors: parameters under the Hub's names (bfloat16, exactly the
values used), `prompt` [12], float32 `logits` [12, vocabulary]; metadata `case` holds `config` (ours) and `hf_config` (config.json).
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BitNetConfig, BitNetForCausalLM

from arch import Network

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/bitnet_hf.safetensors"

hub = dict(
    architectures=["BitNetForCausalLM"], model_type="bitnet",
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, hidden_act="relu2", max_position_embeddings=64, rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, tie_word_embeddings=True,
    bos_token_id=1, eos_token_id=2,
)
ours = dict(
    architecture="bitnet", vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, intermediate_size=48, hidden_act="relu2", rope_theta=500000.0,
    rms_norm_eps=1e-5, sub_norm=True, causal=True, bigram_buckets=0, dropout=0.0, head={"lm": {"tied": True}},
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(7)
    config = BitNetConfig(**{k: v for k, v in hub.items() if k != "model_type"})
    model = BitNetForCausalLM(config).float().eval()
    for name, p in model.named_parameters():
        noise = 1 + 0.2 * torch.randn(p.shape) if p.dim() == 1 else torch.randn(p.shape) * p.shape[-1] ** -0.5
        p.data = noise.bfloat16().float()
    prompt = torch.randint(hub["vocab_size"], (12,))
    with torch.no_grad():
        logits = model(input_ids=prompt[None]).logits[0]
    params = dict(model.named_parameters())

    # The oracle of the training vectors, arch.py, is the same function.
    net = Network(ours)
    assert sorted(net.names) == sorted(params), set(net.names) ^ set(params)
    for name in net.names:
        net.get(name).data = params[name].data
    with torch.no_grad():
        difference = (net(prompt, [0, 12]) - logits).abs().max().item()
    print(f"arch.py against transformers: largest difference {difference:.1e}, largest logit {logits.abs().max():.2f}")
    assert difference < 1e-5

    OUT.parent.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.data.bfloat16() for n, p in params.items()} | dict(prompt=prompt.int(), logits=logits)
    save_file(tensors, OUT, metadata={"case": json.dumps(dict(config=ours, hf_config=hub))})
    print(f"{OUT.stat().st_size / 1e3:.0f} kB")
