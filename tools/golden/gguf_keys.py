"""Golden losses of llama.cpp under every key of the metadata that changes a network, and tensors that do.

    LLAMA_LIB=libllama.so python gguf_keys.py      (needs gguf, numpy)

Writes into crates/lowbit-model/tests/golden/: `keys.gguf`, a llama of two layers over bytes with random weights; and
`gguf_keys.json` with `tokens`, the `nats` of all but the first by the network, and `cases`: `set` (pairs of metadata, the type
as gguf-py calls it), `tensors` (name, shape, values), and `nats`, or null where llama.cpp does not run such a network; also
`keys`, what the library knows behind the name of an architecture.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

import llama_cpp

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden"
WIDTH, HEADS, KV, DIM, FFN, LAYERS, CONTEXT = 16, 2, 1, 16, 24, 2, 512
TEXT = "<s>The quick brown fox jumps over the lazy dog, again and again."
FIELDS = {"context_length": CONTEXT, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": FFN, "attention.head_count": HEADS,
          "attention.head_count_kv": KV, "attention.key_length": DIM, "attention.value_length": DIM, "rope.dimension_count": DIM}
WRITE = {"u32": "add_uint32", "f32": "add_float32", "bool": "add_bool", "str": "add_string", "i32s": "add_array", "f32s": "add_array"}


def letters():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + rest.index(b)) for b in range(256)]


def weights():
    rng = np.random.default_rng(3)
    random = lambda *shape: (rng.standard_normal(shape) * 2 / shape[-1] ** 0.5).astype(np.float32)
    tensors = {"token_embd.weight": random(259, WIDTH) * 3, "output.weight": random(259, WIDTH), "output_norm.weight": np.ones(WIDTH, np.float32)}
    shapes = dict(attn_q=(HEADS * DIM, WIDTH), attn_k=(KV * DIM, WIDTH), attn_v=(KV * DIM, WIDTH), attn_output=(WIDTH, HEADS * DIM),
                  ffn_gate=(FFN, WIDTH), ffn_up=(FFN, WIDTH), ffn_down=(WIDTH, FFN))
    for i in range(LAYERS):
        tensors |= {f"blk.{i}.{name}.weight": random(*shape) for name, shape in shapes.items()}
        tensors |= {f"blk.{i}.{name}_norm.weight": np.ones(WIDTH, np.float32) for name in ("attn", "ffn")}
    return tensors


def write(path, pairs, tensors):
    writer = gguf.GGUFWriter(path, "llama")
    fields = {f"llama.{end}": ("u32", value) for end, value in FIELDS.items()}
    fields |= {"llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5), "llama.rope.freq_base": ("f32", 100.0)}
    fields |= {key: (kind, value) for key, kind, value in pairs}
    for key, (kind, value) in fields.items():
        getattr(writer, WRITE[kind])(key, value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(letters() + ["<s>", "</s>", "\u00ff\u00ff"])
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges(["\u00ff \u00ff"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    for name, value in (weights() | tensors).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def cases():
    key = lambda end, kind, value: (f"llama.{end}", kind, value)
    kind = lambda name: key("rope.scaling.type", "str", name)
    factor, attention = key("rope.scaling.factor", "f32", 4.0), key("rope.scaling.attn_factor", "f32", 1.25)
    length = key("rope.scaling.original_context_length", "u32", 32)
    divisors = np.array([1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 4.0], np.float32)
    freqs = {"rope_freqs.weight": divisors}
    long = {"rope_factors_long.weight": divisors, "rope_factors_short.weight": divisors[::-1].copy()}
    yield "identity", [kind("linear"), key("rope.scaling.factor", "f32", 1.0), attention[:2] + (1.0,), length], {}
    yield "zero factor", [key("rope.scaling.factor", "f32", 0.0), key("rope.scale_linear", "f32", 0.0)], {}
    yield "factor alone", [factor], {}
    yield "older key", [key("rope.scale_linear", "f32", 4.0)], {}
    yield "both keys", [factor, key("rope.scale_linear", "f32", 2.0)], {}
    yield "none", [kind("none"), factor], {}
    yield "linear", [kind("linear"), factor, attention], {}
    yield "attention factor alone", [attention], {}
    yield "none with attention factor", [kind("none"), factor, attention], {}
    yield "yarn", [kind("yarn"), factor, length], {}
    yield "yarn of the context", [kind("yarn"), factor], {}
    yield "yarn with attention factor", [kind("yarn"), factor, length, attention], {}
    yield "yarn by 1", [kind("yarn"), key("rope.scaling.factor", "f32", 1.0), length], {}
    yield "yarn keys that are not heeded", [kind("yarn"), factor, length, key("rope.scaling.yarn_beta_fast", "f32", 4.0),
                                            key("rope.scaling.yarn_ext_factor", "f32", 0.5)], {}
    yield "divisors", [], freqs
    yield "divisors and factor", [factor], freqs
    yield "divisors and attention factor", [attention], freqs
    yield "divisors and yarn", [kind("yarn"), factor, length], freqs
    yield "longrope, short", [kind("longrope")], long
    yield "longrope, long", [kind("longrope"), length], long
    yield "longrope with factors", [kind("longrope"), length, factor, attention], long
    yield "base", [key("rope.freq_base", "f32", 5000.0)], {}
    yield "epsilon", [key("attention.layer_norm_rms_epsilon", "f32", 0.5)], {}
    yield "lists of equal numbers", [key("attention.head_count", "i32s", [HEADS] * LAYERS), key("feed_forward_length", "i32s", [FFN] * LAYERS)], {}
    yield "scale of a matrix", [], {"blk.1.ffn_up.scale": np.array(2.0, np.float32), "blk.0.attn_q.scale": np.array([0.5], np.float32)}
    yield "biases", [], {"blk.0.attn_q.bias": np.linspace(-1, 1, HEADS * DIM, dtype=np.float32), "blk.1.attn_output.bias": np.ones(WIDTH, np.float32),
                         "blk.0.ffn_down.bias": np.linspace(1, 0, WIDTH, dtype=np.float32), "blk.1.ffn_gate.bias": np.ones(FFN, np.float32)}
    yield "both ways", [key("attention.causal", "bool", False)], {}
    yield "experts", [key("expert_count", "u32", 2)], {}
    yield "half rotated", [key("rope.dimension_count", "u32", 8)], {}
    yield "unknown scaling", [kind("su"), factor], {}
    for end, value in {"attention.scale": 0.1, "attention.clamp_kqv": 0.1, "logit_scale": 2.0, "embedding_scale": 2.0, "residual_scale": 2.0,
                       "attn_logit_softcapping": 1.0, "final_logit_softcapping": 1.0}.items():
        yield end, [key(end, "f32", value)], {}
    yield "sliding window", [key("attention.sliding_window", "u32", 8)], {}


def loss(path, tokens):
    """By a process of its own, since the library ends the process on some files."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            with llama_cpp.Model(path) as model:
                os.write(write, repr(float(model.nats(tokens))).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    said = os.read(read, 64).decode()
    os.close(read)
    return round(float(said), 4) if said else None


if __name__ == "__main__":
    write(OUT / "keys.gguf", [], {})
    tokens = [256, *TEXT.removeprefix("<s>").encode()]
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.gguf"
        nats = loss(OUT / "keys.gguf", tokens)
        for name, pairs, tensors in cases():
            write(path, pairs, tensors)
            stored = [[tensor, list(values.shape), values.ravel().tolist()] for tensor, values in tensors.items()]
            lines.append(json.dumps(dict(name=name, set=pairs, tensors=stored, nats=loss(path, tokens))))
            print(name, json.loads(lines[-1])["nats"], file=sys.stderr)
    library = Path(os.environ["LLAMA_LIB"]).read_bytes()
    keys = sorted({key.decode() for key in re.findall(rb"%s\.([a-z][a-z0-9_.]+)\0", library)} - {"position_embd.weight", "proj_query"})
    keys = [key for key in keys if not key.endswith((".weight", ".bias", ".scale"))]
    head = json.dumps(dict(tokens=tokens, nats=nats, keys=keys))
    (OUT / "gguf_keys.json").write_text(head[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")
    print(nats, len(keys), "keys")
