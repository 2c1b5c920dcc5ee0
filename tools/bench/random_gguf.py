"""Writes a GGUF file with random weights in the shape of BitNet-b1.58-2B-4T, for measuring speed.

    python random_gguf.py FILE.gguf      (needs gguf and numpy; 0.8 GB)

Body TQ2_0, embedding (and so the tied head) Q6_K, norms F32, architecture `bitnet`, which both llama.cpp and lowbit read.
The vocabulary is a byte-level BPE of Llama 3's size whose merges are invented.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, FFN = 128256, 2560, 30, 20, 5, 6912
SPECIAL = 256
ROPE_THETA, EPS, CONTEXT = 500000.0, 1e-5, 4096


def tq2_0(random, rows, cols):
    """Blocks of 256 weights: 64 bytes of four codes 0, 1 or 2, and a scale in f16, here the same for all."""
    four = np.array([a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)])
    blocks = np.empty((rows, cols // 256, 66), np.uint8)
    blocks[..., :64] = four.astype(np.uint8)[random.integers(0, 81, blocks[..., :64].shape, dtype=np.uint8)]
    blocks[..., 64:] = np.array([1.2 / cols**0.5], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def q6_k(random, rows, cols):
    """Blocks of 256 weights: 128 + 64 bytes of 6-bit codes, 16 scales of 8 bits, and a scale in f16."""
    blocks = random.integers(0, 256, (rows, cols // 256, 210), dtype=np.uint8)
    blocks[..., 192:208] = random.integers(32, 128, blocks[..., 192:208].shape, dtype=np.uint8)
    blocks[..., 208:] = np.array([1e-5], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def vocabulary():
    """Tokens and merges: the 256 bytes, their pairs, and pairs with another byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in plain]
    letters = {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(other)}}
    tokens = [letters[b] for b in range(256)]
    pairs = [(a, b) for a in tokens for b in tokens]
    more = [(a + b, c) for a, b in pairs[: 256 * 256] for c in tokens[:1]]
    merges = (pairs + more)[: VOCAB - SPECIAL - 256]
    tokens += [a + b for a, b in merges]
    return tokens, [f"{a} {b}" for a, b in merges]


def write(path):
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "bitnet")
    writer.add_name("random BitNet-2B")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_vocab_size(VOCAB)
    tokens, merges = vocabulary()
    special = [f"<|special_{i}|>" for i in range(VOCAB - len(tokens))]
    kinds = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * len(special)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens + special)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens))
    writer.add_eos_token_id(len(tokens) + 1)

    def matrix(name, make, kind, rows, cols):
        writer.add_tensor(f"{name}.weight", make(random, rows, cols), raw_dtype=kind)

    def norm(name, cols):
        writer.add_tensor(f"{name}.weight", np.ones(cols, np.float32))

    ternary = tq2_0, gguf.GGMLQuantizationType.TQ2_0
    matrix("token_embd", q6_k, gguf.GGMLQuantizationType.Q6_K, VOCAB, HIDDEN)
    norm("output_norm", HIDDEN)
    kv = HIDDEN // HEADS * KV_HEADS
    body = dict(attn_q=(HIDDEN, HIDDEN), attn_k=(kv, HIDDEN), attn_v=(kv, HIDDEN), attn_output=(HIDDEN, HIDDEN),
                ffn_gate=(FFN, HIDDEN), ffn_up=(FFN, HIDDEN), ffn_down=(HIDDEN, FFN))  # fmt: skip
    for layer in range(LAYERS):
        for part, shape in body.items():
            matrix(f"blk.{layer}.{part}", *ternary, *shape)
        for part, cols in dict(attn_norm=HIDDEN, attn_sub_norm=HIDDEN, ffn_norm=HIDDEN, ffn_sub_norm=FFN).items():
            norm(f"blk.{layer}.{part}", cols)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    part = path.with_suffix(".tmp")
    write(part)
    part.rename(path)
