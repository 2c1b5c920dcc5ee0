"""Digests of the tokens of a megabyte of mixed text, by transformers, tiktoken and sentencepiece, from the data directory (first argument).

Writes crates/lowbit-model/tests/golden/mixed_text.json:
  sources      file and how many of its first bytes are taken, up to the last line that ends among them
  digests      per vocabulary and source the SHA-256 of the ids of its lines as little-endian u32, with 0xffffffff after each line;
               with the tokens that begin and end a text for WordPiece, Unigram and GPT-2, without for the others
"""

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import sentencepiece
from encoders import unpacked
from transformers import BertTokenizerFast, GPT2TokenizerFast, PreTrainedTokenizerFast
from vocabularies import llama3_encoding

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/mixed_text.json"
DATA = Path(sys.argv[1])
SOURCES = [
    ("wikitext2/wiki.test.raw.zst", 250_000), ("imdb/train.tsv.zst", 200_000), ("enwik8_prefix/enwik8.prefix.zst", 150_000),
    ("linux_kernel_txt/linux-kernel.txt.zst", 150_000), ("xnli/test.zh.tsv.zst", 150_000), ("xnli/test.de.tsv.zst", 100_000),
    ("xnli/test.fr.tsv.zst", 100_000),
]


def packed(path):
    return subprocess.run(["zstd", "-dc", DATA / path], check=True, capture_output=True).stdout


def lines(path, count):
    head = packed(path)[:count]
    return head[:head.rindex(b"\n")].decode().split("\n")


def digest(encode, text):
    sha = hashlib.sha256()
    for line in text:
        ids = encode(line)
        sha.update(struct.pack(f"<{len(ids) + 1}I", *ids, 0xFFFFFFFF))
    return sha.hexdigest()


def vocabularies():
    for name in ["bert-base-uncased", "bert-base-cased"]:
        vocabulary = unpacked(DATA / "tokenizers" / name) / "vocab.txt"
        yield name, BertTokenizerFast(str(vocabulary), do_lower_case=name.endswith("uncased")).encode
    for name in ["minilm-l6-v2", "multilingual-e5-small-xnli"]:
        yield name, PreTrainedTokenizerFast(tokenizer_file=str(unpacked(DATA / "weights" / name) / "tokenizer.json")).encode
    home = unpacked(DATA / "tokenizers/gpt2")
    yield "gpt2", GPT2TokenizerFast(str(home / "vocab.json"), str(home / "merges.txt")).encode
    yield "llama2", sentencepiece.SentencePieceProcessor(model_proto=packed("tokenizers/llama2/tokenizer.model.zst")).encode
    encoding = llama3_encoding(packed("tokenizers/llama3/tokenizer.model.zst"))
    yield "llama3", lambda text: encoding.encode(text, disallowed_special=())


def main():
    texts = [lines(*source) for source in SOURCES]
    print(sum(len(line.encode()) + 1 for text in texts for line in text), "bytes")
    digests = {name: [digest(encode, text) for text in texts] for name, encode in vocabularies()}
    OUT.write_text(json.dumps(dict(sources=SOURCES, digests=digests), indent=1) + "\n")


if __name__ == "__main__":
    main()
