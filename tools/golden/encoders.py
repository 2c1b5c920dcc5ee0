"""Tokens, pairs and sentence vectors of published encoders, by transformers, from the data directory (first argument).

Writes crates/lowbit-model/tests/golden/encoders/:
  tokens.json        `texts`, `pairs`, and per vocabulary the ids of each text (at most 512, then at most 9), and ids and segments of
                     each pair (at most 512, 16, and 9)
  vectors.safetensors `<model>` [texts, width]: mean of all tokens, length 1, in float32
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, BertTokenizerFast, PreTrainedTokenizerFast

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/encoders"
DATA = Path(sys.argv[1])
TEXTS = [
    "A man is playing the guitar.", "the quick BROWN fox's jumped over 13 lazy dogs!!", "", " ", "naïve café, Ünïcödé",
    "Ein Satz mit Wörtern, die länger sind: Donaudampfschifffahrtsgesellschaft.", "Это предложение на русском.",
    "我爱自然语言处理。", "日本語のテキストと English mixed", "emoji 👍🏽 and 🇩🇪 flags", "tabs\tand\nnew lines\r\n  here",
    "brackets [like this] and <tags> / [SEPARATED]", "https://example.org/a?b=c&d=%20", "x" * 120, "hello " * 40,
    "1234567890.55 $3,000 50%", "don't can't I'll we've", "\u200bzero\u00adwidth\ufeff", "مرحبا بالعالم", "हिन्दी में एक वाक्य",
    "Premise: it rains. Hypothesis: it's wet.",
]
PAIRS = [(TEXTS[i], TEXTS[(i * 5 + 3) % len(TEXTS)]) for i in range(len(TEXTS))]
MODELS = ["minilm-l6-v2", "multilingual-e5-small-xnli"]
WORDS = ["bert-base-uncased", "bert-base-cased"]


def unpacked(source):
    """A directory without compressed files."""
    home = Path(tempfile.mkdtemp())
    for file in source.iterdir():
        if file.suffix == ".zst":
            subprocess.run(["zstd", "-dqf", file, "-o", home / file.stem], check=True)
        else:
            (home / file.name).write_bytes(file.read_bytes())
    return home


def tokens(tokenizer):
    single = lambda text, most: tokenizer(text, truncation=True, max_length=most)["input_ids"]
    def pair(a, b, most):
        # As one pair of a list: an empty second text alone would be none.
        found = tokenizer([a], [b], truncation="longest_first", max_length=most, return_token_type_ids=True)
        return [found["input_ids"][0], found["token_type_ids"][0]]
    return dict(texts=[[single(text, 512), single(text, 9)] for text in TEXTS],
                pairs=[[pair(a, b, most) for most in (512, 16, 9)] for a, b in PAIRS])


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    found, vectors = {}, {}
    for name in WORDS:
        home = unpacked(DATA / "tokenizers" / name)
        found[name] = tokens(BertTokenizerFast(str(home / "vocab.txt"), do_lower_case=name.endswith("uncased")))
    for name in MODELS:
        home = unpacked(DATA / "weights" / name)
        # As the file says: transformers 5 builds XLM-R's tokenizer anew, and drops white space around texts.
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(home / "tokenizer.json"))
        found[name] = tokens(tokenizer)
        model = AutoModel.from_pretrained(home, dtype=torch.float32, attn_implementation="eager").eval()
        rows = []
        for ids, _ in found[name]["texts"]:
            with torch.no_grad():
                hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
        vectors[name] = torch.stack(rows).contiguous()
    text = json.dumps(dict(texts=TEXTS, pairs=PAIRS, vocabularies=found), ensure_ascii=False, separators=(",", ":"))
    (OUT / "tokens.json").write_text(text + "\n")
    save_file(vectors, OUT / "vectors.safetensors")


if __name__ == "__main__":
    main()
