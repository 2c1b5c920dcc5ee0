"""PyTorch implementations of crates/lowbit-model/src/arch/{bitnet,mlp}.rs: same configuration, same parameter names.

A batch is `tokens` [tokens] with `starts` [sequences + 1], sequences laid end to end without padding.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

ACTIVATIONS = {
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_erf": F.gelu,
}


def bigrams(tokens, starts, buckets):
    """FNV-1a over the little-endian bytes of (previous token, token), modulo `buckets`; u32::MAX before the first."""
    out = []
    for begin, end in zip(starts, starts[1:]):
        previous = 0xFFFFFFFF
        for token in tokens[begin:end]:
            h = 0x811C9DC5
            for byte in previous.to_bytes(4, "little") + token.to_bytes(4, "little"):
                h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
            out.append(h % buckets)
            previous = token
    return out


class Quantizer:
    """Fake quantization with straight-through gradients in the detach style: `x + (quantized(x) - x).detach()`.

    `qat`: None, or `scale` (mean, median), `granularity` (tensor, channel) and `activations` (int8, f32).
    `margin` is the smallest distance, in code units, of any value from the boundary where rounding changes its code;
    None when it is not wanted.
    """

    def __init__(self, qat=None, margin=float("inf")):
        self.qat, self.margin = qat, margin

    def weight(self, w):
        """Ternary: the scale is the mean or the median (the lower of two middle values) of |w|, per tensor or row."""
        if self.qat is None:
            return w
        size = w.detach().abs()
        spans = size if self.qat["granularity"] == "channel" else size.view(1, -1)
        scale = spans.mean(1) if self.qat["scale"] == "mean" else spans.median(1).values
        scale = 1.0 / scale.clamp(min=1e-5)[:, None]
        self._note(size * scale)
        q = (w * scale).round().clamp(-1, 1) / scale
        return w + (q - w).detach()

    def activation(self, x):
        """int8, one scale per token: absmax / 127."""
        if self.qat is None or self.qat["activations"] == "f32":
            return x
        scale = 127.0 / x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5)
        self._note((x.detach() * scale).frac().abs())
        q = (x * scale).round().clamp(-128, 127) / scale
        return x + (q - x).detach()

    def _note(self, position):
        if self.margin is not None:
            self.margin = min(self.margin, (position - 0.5).abs().min().item())


class Network(nn.Module):
    """Parameters by name; body matrices go through the quantizer, embedding, head, norms and biases do not."""

    def __init__(self, config, quantizer=None):
        super().__init__()
        self.config, self.quantizer = config, quantizer or Quantizer()
        self.names, self.roles = [], {}
        decoder = (self._bitnet_params, self._bitnet)
        forward = {"decoder": decoder, "bitnet": decoder, "mlp": (self._mlp_params, self._mlp)}
        params, self._forward = forward[config["architecture"]]
        for name, shape, role, std in params():
            self.names.append(name)
            self.roles[name] = role
            value = torch.ones(shape) if std is None else torch.randn(shape) * std
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value))

    def get(self, name):
        return self._parameters[name.replace(".", "/")]

    def linear(self, x, name, bias=None):
        w = self.get(name)
        if self.roles[name] == "body":
            x, w = self.quantizer.activation(x), self.quantizer.weight(w)
        return F.linear(x, w, None if bias is None else self.get(bias))

    def forward(self, tokens, starts, pairs=None):
        """Logits; `pairs` are the bigram buckets, computed here when absent."""
        buckets = self.config.get("bigram_buckets", 0)
        if buckets and pairs is None:
            pairs = torch.tensor(bigrams(tokens.tolist(), starts, buckets))
        return self._forward(tokens, starts, pairs)

    # --- arch/bitnet.rs ---

    def _bitnet_params(self):
        c = self.config
        d, f = c["hidden_size"], c["intermediate_size"]
        attn, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
        lm = c["head"].get("lm")
        embed_std = d**-0.5 if lm and lm["tied"] else 0.1
        yield "model.embed_tokens.weight", (c["vocab_size"], d), "embedding", embed_std
        if c["bigram_buckets"]:
            yield "model.embed_bigrams.weight", (c["bigram_buckets"], d), "embedding", embed_std
        for i in range(c["num_hidden_layers"]):
            body = [
                ("self_attn.q_proj", attn, d),
                ("self_attn.k_proj", kv, d),
                ("self_attn.v_proj", kv, d),
                ("self_attn.o_proj", d, attn),
                ("mlp.gate_proj", f, d),
                ("mlp.up_proj", f, d),
                ("mlp.down_proj", d, f),
            ]
            for part, rows, cols in body:
                yield f"model.layers.{i}.{part}.weight", (rows, cols), "body", cols**-0.5
            norms = [("input_layernorm", d), ("post_attention_layernorm", d)]
            if c["sub_norm"]:
                norms += [("self_attn.attn_sub_norm", attn), ("mlp.ffn_sub_norm", f)]
            for part, width in norms:
                yield f"model.layers.{i}.{part}.weight", (width,), "norm", None
        yield "model.norm.weight", (d,), "norm", None
        if lm:
            if not lm["tied"]:
                yield "lm_head.weight", (c["vocab_size"], d), "head", d**-0.5
        else:
            classes = c["head"]["classify"]["classes"]
            yield "classifier.weight", (classes, d), "head", d**-0.5
            yield "classifier.bias", (classes,), "bias", 0.0

    def _norm(self, x, name):
        return F.rms_norm(x, (x.shape[-1],), self.get(name), self.config["rms_norm_eps"])

    def _attend(self, q, k, v, starts):
        c = self.config
        heads, kv_heads, dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        lengths = [b - a for a, b in zip(starts, starts[1:])]
        equal = len(set(lengths)) == 1
        groups = [(0, len(lengths), lengths[0])] if equal else [(a, 1, n) for a, n in zip(starts, lengths)]
        out = []
        for begin, count, length in groups:
            # [sequences, heads, length, head_dim]
            cut = lambda x, h: x[begin : begin + count * length].view(count, length, h, dim).transpose(1, 2)
            qs, ks, vs = self._rope(cut(q, heads)), self._rope(cut(k, kv_heads)), cut(v, kv_heads)
            if kv_heads != heads:
                ks, vs = (x.repeat_interleave(heads // kv_heads, 1) for x in (ks, vs))
            plain = c["causal"] and not c.get("sliding_window")
            seen = dict(is_causal=True) if plain else dict(attn_mask=self._mask(length))
            y = F.scaled_dot_product_attention(qs, ks, vs, **seen)
            out.append(y.transpose(1, 2).reshape(count * length, heads * dim))
        return out[0] if equal else torch.cat(out)

    def _mask(self, length):
        """Which keys (columns) each query (row) sees."""
        c, position = self.config, torch.arange(length)
        ahead = position - position[:, None]
        seen = ahead <= 0 if c["causal"] else torch.ones(length, length, dtype=torch.bool)
        return seen & (ahead.abs() < c["sliding_window"]) if c.get("sliding_window") else seen

    def _rope(self, x):
        half = x.shape[-1] // 2
        cos, sin = rotations(x.shape[-2], half, self.config["rope_theta"], x.dtype)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def _bitnet(self, tokens, starts, pairs):
        c = self.config
        x = F.embedding(tokens, self.get("model.embed_tokens.weight"))
        if pairs is not None:
            x = x + F.embedding(pairs, self.get("model.embed_bigrams.weight"))
        for i in range(c["num_hidden_layers"]):
            at = lambda part: f"model.layers.{i}.{part}.weight"
            h = self._norm(x, at("input_layernorm"))
            q, k, v = (self.linear(h, at(f"self_attn.{p}_proj")) for p in "qkv")
            a = self._attend(q, k, v, starts)
            if c["sub_norm"]:
                a = self._norm(a, at("self_attn.attn_sub_norm"))
            x = x + self.linear(a, at("self_attn.o_proj"))
            h = self._norm(x, at("post_attention_layernorm"))
            gate = ACTIVATIONS[c["hidden_act"]](self.linear(h, at("mlp.gate_proj")))
            f = gate * self.linear(h, at("mlp.up_proj"))
            if c["sub_norm"]:
                f = self._norm(f, at("mlp.ffn_sub_norm"))
            x = x + self.linear(f, at("mlp.down_proj"))
        x = self._norm(x, "model.norm.weight")
        if "lm" in c["head"]:
            return self.linear(x, "model.embed_tokens.weight" if c["head"]["lm"]["tied"] else "lm_head.weight")
        x = pool(x, starts, c["head"]["classify"]["pooling"])
        return self.linear(x, "classifier.weight", "classifier.bias")

    # --- arch/mlp.rs ---

    def _mlp_params(self):
        c = self.config
        width = c["hidden_size"]
        yield "embed_tokens.weight", (c["vocab_size"], width), "embedding", 0.1
        if c["bigram_buckets"]:
            yield "embed_bigrams.weight", (c["bigram_buckets"], width), "embedding", 0.1
        for i, size in enumerate(c["layers"]):
            yield f"layers.{i}.weight", (size, width), "body", (2.0 / width) ** 0.5
            yield f"layers.{i}.bias", (size,), "bias", 0.0
            width = size
        yield "classifier.weight", (c["classes"], width), "head", width**-0.5
        yield "classifier.bias", (c["classes"],), "bias", 0.0

    def _mlp(self, tokens, starts, pairs):
        c = self.config
        x = F.embedding(tokens, self.get("embed_tokens.weight"))
        if pairs is not None:
            x = x + F.embedding(pairs, self.get("embed_bigrams.weight"))
        x = pool(x, starts, "mean")
        for i in range(len(c["layers"])):
            x = ACTIVATIONS[c["hidden_act"]](self.linear(x, f"layers.{i}.weight", f"layers.{i}.bias"))
        return self.linear(x, "classifier.weight", "classifier.bias")


@lru_cache
def rotations(length, half, theta, dtype):
    """Cosine and sine of every position and frequency, each [length, half]."""
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


def pool(x, starts, how):
    """One row per sequence: the mean of its rows, the first, or the last."""
    if how == "first":
        return x[torch.tensor(starts[:-1])]
    if how == "last":
        return x[torch.tensor(starts[1:]) - 1]
    return torch.stack([x[a:b].mean(0) for a, b in zip(starts, starts[1:])])
