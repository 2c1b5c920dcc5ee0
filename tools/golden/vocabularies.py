"""Golden tokenizations of sentencepiece and tiktoken.

Writes into crates/lowbit-model/tests/golden/: two small sentencepiece models (`spm_bytes.model` with bytes and symbols of its
own, `spm_unknown.model` without bytes, squeezing spaces) and `tokenizers.json`, which holds `texts` and, by vocabulary,
their `ids` (no control tokens) and what the ids decode to. Vocabularies that are not part of the repository (`llama2`,
`tok512`, `llama3`) are read from the data directory given as the only argument.
"""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2 as pb

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden"
TEXTS = [
    "", " ", "  ", "\n", "\t\n \n", "Hello world", " Hello world ", "Hello,  world!   Two  spaces.",
    "3 33 333 3333 33333 333333 3333333", "I'll we've WON'T don't it's'S", "na\u00efve caf\u00e9 \u00c4pfel \u00df",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u4f60\u597d\u4e16\u754c \u0627\u0644\u0633\u0644\u0627\u0645",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f999.cpp", "\u2581 marks \u2581\u2581 of spaces", "\u0000 nul \ufeff bom \u00a0 nbsp \u2003 em",
    "aaaaaaaaaaaaaaa abababababa aaabaaabaaa", "----------------- ========= ......",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))\r\n", "<s> is text, </s> and <unk> and <0x41> too",
    "The lowest weights of the lowest bits are the lowest.", "https://example.org/a_b?c=d&e=%20f#g", "x" * 300,
    " " * 40 + "end", "<user> said <user><user>", "\u00c5\u030a\u0301 combining o\u0308\u0308",
]
CORPUS = ("the lowest weights of the lower bits are low and lower than the lowest bit of weights \n"
          "ternary numbers are zero, one and minus one; aaaa abab banana \n") * 40


def train(name, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()), model_writer=model, model_type="bpe", normalization_rule_name="identity",
        hard_vocab_limit=False, minloglevel=2, num_threads=1, **options)
    # The trainer's own settings are of no use here.
    proto = pb.ModelProto.FromString(model.getvalue())
    slim = pb.TrainerSpec(model_type=proto.trainer_spec.model_type, byte_fallback=proto.trainer_spec.byte_fallback)
    proto.trainer_spec.CopyFrom(slim)
    (OUT / f"{name}.model").write_bytes(proto.SerializeToString())
    return spm(proto.SerializeToString())


def spm(model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [[ids, processor.decode(ids)] for ids in (processor.encode(text) for text in TEXTS)]


def llama3_encoding(file):
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file.splitlines() if line)}
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")
    return tiktoken.Encoding("llama3", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def llama3(file):
    encoding = llama3_encoding(file)
    return [[ids, encoding.decode(ids)] for ids in (encoding.encode(text) for text in TEXTS)]


if __name__ == "__main__":
    data = Path(sys.argv[1]) / "tokenizers"
    read = lambda path: subprocess.run(["zstd", "-dc", data / path], check=True, capture_output=True).stdout
    vocabularies = {
        "spm_bytes": train("spm_bytes", vocab_size=340, byte_fallback=True, remove_extra_whitespaces=False,
                           user_defined_symbols=["<user>", "low"]),
        "spm_unknown": train("spm_unknown", vocab_size=90, add_dummy_prefix=False),
        "llama2": spm(read("llama2/tokenizer.model.zst")),
        "tok512": spm(read("tok512/tok512.model.zst")),
        "llama3": llama3(read("llama3/tokenizer.model.zst")),
    }
    text = json.dumps({"texts": TEXTS, "vocabularies": vocabularies}, separators=(",", ":"))
    (OUT / "tokenizers.json").write_text(text.replace('],[[', '],\n[[').replace('],"', '],\n"') + "\n")
