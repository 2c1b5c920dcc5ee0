"""Tokenizers in directories of the Hub, loaded by transformers: `crates/lowbit-model/tests/golden/directories.json`.

Each case is a set of files (`$bytes` stands for a byte-level `tokenizer.json`, `$spm` for `spm_bytes.model`), the tokens of texts as a
template writes them, those of a plain text with what goes around it, and the variables that templates know.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers import AutoTokenizer

GOLDEN = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden"
PLAIN = "the weights  of x"
TEXTS = [
    "", " ", "the weights", " the weights of", "<s>the", "a<|im_start|>user\nhi <|im_end|>\n<|im_start|> b", "x<|im_end|>  y <tool> z",
    "<|im_start|><|im_end|>", "\n\nthe", "na\u00efve <unk> </s>", "<tool>a<tool>",
]
LETTERS = [b for b in range(256) if 33 <= b < 127 or 161 <= b < 173 or b >= 174]
LETTER = {b: chr(b) for b in LETTERS}
LETTER.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in LETTER)})
MERGES = ["t h", "th e", "\u0120 the", "\u0120 w", "h t", "\u0120 \u0120"]


def added(content, id=None, special=True, **switches):
    token = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {**({} if id is None else {"id": id}), **token, **switches}


def byte_level(after=None, merges=MERGES):
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocab = {LETTER[b]: b for b in range(256)}
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    n = len(vocab)
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level, "decoder": level,
        "post_processor": after, "added_tokens": [added("<s>", n), added("</s>", n + 1)],
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges},
    }


def around(before, after):
    ids = {"<s>": 262, "</s>": 263}
    token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [token(name) for name in before] + [text] + [token(name) for name in after]
    known = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in before + after}
    return {"type": "TemplateProcessing", "single": single, "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": known}


def typed(content):
    return {"__type": "AddedToken", **added(content)}


FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
LLAMA = {"tokenizer_class": "LlamaTokenizer"}
DECODER = {
    "264": added("<|im_start|>"), "265": added("<|im_end|>", rstrip=True), "266": added("<tool>", special=False, lstrip=True),
}
SPM_ADDED = {"<|im_end|>": 340, "<|im_start|>": 341, "<tool>": 342}
CASES = {
    "plain": {"tokenizer.json": "$bytes", "tokenizer_config.json": FAST},
    "no settings": {"tokenizer.json": "$bytes"},
    "both ends": {"tokenizer.json": "$bytes", "tokenizer_config.json": {**FAST, "add_bos_token": True, "add_eos_token": True}},
    "an end": {"tokenizer.json": "$bytes", "tokenizer_config.json": {**FAST, "add_eos_token": True}},
    "none of the file's": {"tokenizer.json": "$around", "tokenizer_config.json": {**FAST, "add_bos_token": False}},
    "the file's": {"tokenizer.json": "$around", "tokenizer_config.json": FAST},
    "only an end": {"tokenizer.json": "$after", "tokenizer_config.json": FAST},
    "decoder": {"tokenizer.json": "$bytes", "tokenizer_config.json": {
        **FAST, "eos_token": "<|im_end|>", "pad_token": typed("<|im_start|>"), "added_tokens_decoder": DECODER}},
    "map": {"tokenizer.json": "$bytes", "tokenizer_config.json": FAST, "special_tokens_map.json": {
        "eos_token": added("<|im_end|>"), "pad_token": "</s>"}},
    "map beside a decoder": {"tokenizer.json": "$bytes", "tokenizer_config.json": {**FAST, "added_tokens_decoder": DECODER},
        "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
    "additional": {"tokenizer.json": "$bytes", "tokenizer_config.json": {**FAST, "additional_special_tokens": ["<|im_start|>", typed("<|im_end|>")]}},
    "added": {"tokenizer.json": "$bytes", "tokenizer_config.json": FAST, "added_tokens.json": {"<|im_end|>": 265, "<|im_start|>": 264}},
    "spm": {"tokenizer.model": "$spm", "tokenizer_config.json": LLAMA},
    "spm legacy": {"tokenizer.model": "$spm", "tokenizer_config.json": {**LLAMA, "legacy": True}, "added_tokens.json": SPM_ADDED},
    "spm added": {"tokenizer.model": "$spm", "tokenizer_config.json": {**LLAMA, "legacy": False}, "added_tokens.json": SPM_ADDED},
    "spm decoder": {"tokenizer.model": "$spm", "tokenizer_config.json": {**LLAMA, "eos_token": "<|im_end|>", "add_bos_token": True,
        "add_eos_token": True, "added_tokens_decoder": {
            "340": added("<|im_end|>", rstrip=True), "341": added("<|im_start|>"), "342": added("<tool>", special=False, lstrip=True)}}},
    "spm without a space": {"tokenizer.model": "$spm", "tokenizer_config.json": {**LLAMA, "add_prefix_space": False}},
    "spm map": {"tokenizer.model": "$spm", "tokenizer_config.json": LLAMA, "added_tokens.json": SPM_ADDED,
        "special_tokens_map.json": {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}},
    "gpt2": {"vocab.json": "$vocab", "merges.txt": "$merges", "tokenizer_config.json": {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>"}},
    "gpt2 with a space": {"vocab.json": "$vocab", "merges.txt": "$merges", "tokenizer_config.json": {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>", "add_prefix_space": True}},
    "qwen2": {"vocab.json": "$vocab", "merges.txt": "$merges", "tokenizer_config.json": {
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>", "unk_token": None, "pad_token": "</s>",
        "added_tokens_decoder": {"264": added("<|im_start|>"), "265": added("<|im_end|>")}}},
}


def files():
    file = byte_level()
    vocab = {**file["model"]["vocab"], "<s>": 262, "</s>": 263}
    return {
        "$bytes": json.dumps(file), "$around": json.dumps(byte_level(around(["<s>"], ["</s>"]))),
        "$after": json.dumps(byte_level(around([], ["</s>"]))), "$vocab": json.dumps(vocab, ensure_ascii=False),
        "$merges": "#version: 0.2\n" + "\n".join(MERGES) + "\n",
    }


def load(case, known):
    directory = Path(tempfile.mkdtemp())
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for name, content in case.items():
        if content == "$spm":
            shutil.copy(GOLDEN / "spm_bytes.model", directory / name)
        else:
            (directory / name).write_text(known[content] if isinstance(content, str) else json.dumps(content))
    return AutoTokenizer.from_pretrained(directory)


if __name__ == "__main__":
    known, cases = files(), []
    for name, case in CASES.items():
        tokenizer = load(case, known)
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
        variables = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        cases.append({"name": name, "files": case, "ids": ids, "plain": tokenizer.encode(PLAIN), "variables": variables})
        print(name, type(tokenizer).__name__, len(tokenizer), variables)
    out = {"files": known, "plain": PLAIN, "texts": TEXTS, "cases": cases}
    (GOLDEN / "directories.json").write_text(json.dumps(out, ensure_ascii=False).replace('}, {"name"', '},\n{"name"') + "\n")
