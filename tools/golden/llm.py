"""Hub directories as transformers writes them, with the logits it computes: BitNetForCausalLM and LlamaForCausalLM, tiny,
seeded.

Writes crates/lowbit-model/tests/golden/hub/<case>/: `config.json` and `model.safetensors` (bfloat16 or packed, exactly
the values used), and `expected.safetensors` with `prompt` [tokens] and float32 `logits` [tokens, vocabulary]. For a
BitNet there are also the logits under 8-bit activations: `logits_int8`, and, for a packed one, `argmax` (uint8) over
SEQUENCES sequences of LENGTH tokens that `draw` yields, and their mean negative log-likelihood `nll` in nats per token.
"""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # integrations/bitnet.py compiles what runs as well without

import copy
import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/hub"
PROMPT, SEQUENCES, LENGTH = 24, 40, 250
MARGIN = 1e-4  # of code units: no activation of a prompt lies closer to where its 8-bit code changes

small = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
CASES = {
    "bitnet": dict(model_type="bitnet", hidden_act="relu2", num_attention_heads=4, num_key_value_heads=2,
                   rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True),
    "bitnet_untied": dict(model_type="bitnet", hidden_act="silu", num_attention_heads=2, num_key_value_heads=2,
                          rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False),
    "llama": dict(model_type="llama", hidden_act="silu", num_attention_heads=4, num_key_value_heads=2, head_dim=6,
                  rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False),
    "llama3": dict(model_type="llama", hidden_act="silu", num_attention_heads=4, num_key_value_heads=1,
                   rms_norm_eps=1e-5, rope_theta=100.0, rope_scaling=LLAMA3, tie_word_embeddings=True),
}
CLASSES = {"bitnet": (BitNetConfig, BitNetForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def draw(vocabulary):
    """Token ids of the linear congruential generator of the Rust tests."""
    state, out = 7, []
    for _ in range(SEQUENCES * LENGTH):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((state >> 33) % vocabulary)
    return torch.tensor(out).view(SEQUENCES, LENGTH)


def body(model):
    """The matrices that a BitNet makes ternary, with their modules."""
    for name, module in model.model.named_modules():
        if isinstance(module, nn.Linear):
            yield "model." + name, module


def quantized(model, make):
    """The same network with every matrix of the body replaced by `make(linear)`."""
    model = copy.deepcopy(model)
    for name, linear in list(body(model)):
        model.set_submodule(name, make(linear))
    return model.eval()


def online(linear):
    out = AutoBitLinear(linear.in_features, linear.out_features, bias=False, online_quant=True)
    out.weight = linear.weight
    return out


def codes(linear):
    w = linear.weight.data.float()
    mean = w.abs().mean().clamp(min=1e-5)
    return (w / mean).round().clamp(-1, 1), mean.bfloat16().float().view(1)


def divides(linear):
    """`bitlinear`: packed, the scale divides."""
    out = BitLinear(linear.in_features, linear.out_features, bias=False, dtype=torch.float32)
    q, mean = codes(linear)
    out.weight, out.weight_scale = pack_weights(q), (1 / mean).bfloat16().float()
    return out


def multiplies(linear):
    """`autobitlinear`, offline: the scale multiplies."""
    out = AutoBitLinear(linear.in_features, linear.out_features, bias=False)
    q, mean = codes(linear)
    out.weight.data, out.weight_scale = q, mean
    return out


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits.float()


def margin(model, tokens):
    """The least distance of any activation of a quantized network from where its code changes, in code units."""
    found = []

    def note(module, args):
        x = args[0].detach()
        codes = x * (127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        found.append((codes.abs().frac() - 0.5).abs().min().item())

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, AutoBitLinear | BitLinear)]
    logits(model, tokens)
    for hook in hooks:
        hook.remove()
    return min(found)


def draw_prompt(vocabulary, *models):
    """A prompt that is far enough from every boundary in each of the quantized networks."""
    while True:
        prompt = torch.randint(vocabulary, (PROMPT,))
        if all(margin(model, prompt[None]) > MARGIN for model in models):
            return prompt


def write(case, config, tensors, expected):
    home = OUT / case
    home.mkdir(parents=True)
    (home / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({name: t.contiguous() for name, t in tensors.items()}, home / "model.safetensors", {"format": "pt"})
    save_file({name: t.contiguous() for name, t in expected.items()}, home / "expected.safetensors")
    print(f"{case}: {sum(f.stat().st_size for f in home.iterdir()) / 1e3:.0f} kB")


def packed(case, config, model, linear_class, make):
    """The network with ternary matrices packed as on the Hub."""
    net = quantized(model, make)
    tensors = {n: p.data.bfloat16() for n, p in model.named_parameters()}
    for name, linear in body(model):
        q, mean = codes(linear)
        tensors[name + ".weight"] = pack_weights(q)
        scale = mean if linear_class == "autobitlinear" else 1 / mean
        tensors[name + ".weight_scale"] = scale.bfloat16()
    prompt = draw_prompt(config["vocab_size"], net)
    tokens = draw(config["vocab_size"])
    found = logits(net, tokens)
    nll = F.cross_entropy(found[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten())
    expected = dict(prompt=prompt.int(), logits_int8=logits(net, prompt[None])[0],
                    argmax=found.argmax(-1).flatten().byte(), nll=nll.float().view(1))
    quantization = dict(quant_method="bitnet", linear_class=linear_class, quantization_mode="offline",
                        modules_to_not_convert=["lm_head"])
    write(f"{case}_{linear_class}", config | {"quantization_config": quantization}, tensors, expected)


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    for seed, (case, switches) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        make_config, make_model = CLASSES[switches["model_type"]]
        hub = small | switches | dict(architectures=[make_model.__name__], bos_token_id=1, eos_token_id=[2, 3])
        model = make_model(make_config(**{k: v for k, v in hub.items() if k != "model_type"})).float().eval()
        for p in model.parameters():
            noise = 1 + 0.2 * torch.randn(p.shape) if p.dim() == 1 else torch.randn(p.shape) * p.shape[-1] ** -0.5
            p.data = noise.bfloat16().float()
        low = [quantized(model, online)] if hub["model_type"] == "bitnet" else []
        prompt = draw_prompt(hub["vocab_size"], *low)
        expected = dict(prompt=prompt.int(), logits=logits(model, prompt[None])[0])
        for net in low:
            expected["logits_int8"] = logits(net, prompt[None])[0]
        if case == "llama3":  # newer files spell it like this
            hub["rope_parameters"] = hub.pop("rope_scaling") | dict(rope_theta=hub.pop("rope_theta"))
        write(case, hub, {n: p.data.bfloat16() for n, p in model.named_parameters()}, expected)
        if case == "bitnet":
            packed(case, hub, model, "autobitlinear", multiplies)
            packed(case, hub, model, "bitlinear", divides)


if __name__ == "__main__":
    main()
