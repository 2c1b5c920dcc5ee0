"""Golden tokenizations by every pre-tokenizer of GGUF files.

    LLAMA_LIB=libllama.so python pre_tokenizers.py      (needs gguf, numpy, tokenizers)

Writes crates/lowbit-model/tests/golden/pre_tokenizers.json: `texts`, the `merges` of a byte-level vocabulary (256 bytes in the
order of their letters, then the union of each merge, then WHOLE_TOKEN, `<s>` and `</s>`) that was trained on the texts without splitting
them, so that nearly every split shows in the tokens; and `kinds`, each with the `names` of `tokenizer.ggml.pre` that give
these `ids`. The tokens are llama.cpp's. Where llama.cpp approximates the pattern of the model's own `tokenizer.json`
(ORIGINAL), they are those of the package `tokenizers` with that pattern.
"""

import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

import llama_cpp

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/pre_tokenizers.json"
TEXTS = [
    "I'll we've WON'T don'T it's'S they'RE I'd", "getUserName iPhone HTTPServer xY \u00c9cole \u00e9COLE \u01c5ab a\u0301E\u0301b",
    "3 33 333 3333 33333 333333 1234567.89 x12 \u0663\u0664\u0665\u0666 \u00bd\u2460", "a  b   c    d     e      f", " a\n b\n\n c\r\n\r\nd \n\te\t\tf  \n\n",
    "(a) [b]{c} #d $e f() !? ... --- ***/// a/b //c\n/d ?\n\n!", "<|x|> a|b a^b a~b a`b $5 +6 =7 <8>9 \u20ac\u00a3 x=y", "foo.bar _baz__ qux-quux @user #tag 'quoted' \"q\"",
    "\u4f60\u597d\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f\u30ab\u30bf\u30ab\u30ca\u3001abc\u6f22\u5b57123 \u4e2d\uff0c\u6587\uff01\uff1f",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8\u3131\u314f \u3105\u3106 \uff21\uff22\uff43\uff11\uff12", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e04\u0e23\u0e31\u0e1a \u1019\u103c\u1014\u103a\u1019\u102c",
    "\u0645\u0631\u062d\u0628\u0627\u060c \u0627\u0644\u0639\u0627\u0644\u0645\u061f \u06d4 \u0928\u092e\u0938\u094d\u0924\u0947\u0964 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937 a\u200cb", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5", "e\u0301a\u0308 o\u0302\u0323x \u00c5\u030a",
    "\U0001f600\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f!", "a\u00a0b\u2003c\u2028d\u3000e \u00a0f", "IMGIMGABZ IMGIMGABCDEZ <sentinel:12> <sentinel:x>",
    "def f(x):\n    return x ** 2  # sq\n\n\nprint(f(3))\r\n", "x" * 9 + " " * 19 + "y" + "\n" * 5 + "z", "  ", "\n", " \n \n ", "end with spaces   ",
    "Ali'den k'den n'den'den 'LLama zq zqx",
]
NAMES = """default minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano deepseek-llm deepseek-coder
deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert
jais-2 jina-v1-en jina-v2-code roberta-bpe refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe
poro-chat glm4 chatglm-bpe glm5 viking jais tekken smollm codeshell bloom gpt3-finnish exaone exaone4 exaone-moe chameleon minerva-7b
megrez gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya cohere2moe superbpe trillion granite-docling bailingmoe bailingmoe2
llada-moe seed-coder hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2 k2-horizon ufakzeka grok-2 afmoe laguna minimax-m2 solar-open
mellum2""".split()
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def cased(tail, digits, after, less=""):
    upper, lower = f"[{UPPER}{less}]", f"[{LOWER}{less}]"
    return (rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{tail}|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{tail}|{digits}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+{after}|\s*[\r\n]+|\s+(?!\S)|\s+")


# No merge makes it.
WHOLE_TOKEN = "\u0120zq"
O200K = [cased(ENDING, r"\p{N}{1,3}", r"[\r\n/]*")]
ORIGINAL = {
    "tekken": [cased("", r"\p{N}", r"[\r\n/]*")],
    "kimi-k2": [r"[\p{Han}]+|" + cased(ENDING, r"\p{N}{1,3}", r"[\r\n]*", r"&&[^\p{Han}]")],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "youtu": ["[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+"
              "|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", cased(ENDING, r"\p{N}", r"[\r\n/]*")],
} | dict.fromkeys(["tiny_aya", "cohere2moe"], [r"\d{1,3}(?=(?:\d{3})*\b)", *O200K]) | dict.fromkeys("gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m".split(), O200K)
# A name of bitnet.cpp for what its llama.cpp splits as `falcon3`.
SAME = {"falcon_e": "falcon3"}
WHOLE = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken minicpm5 youtu granite-embed-multi-97m".split()


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=1200, min_frequency=1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    return [merge for merge in merges if WHOLE_TOKEN not in "".join(merge)]


def write(path, name, tokens, merges):
    """A network of one layer whose weights are of no matter."""
    writer = gguf.GGUFWriter(path, "llama")
    for field, value in dict(context_length=64, embedding_length=4, block_count=1, feed_forward_length=4, head_count=1,
                             layer_norm_rms_eps=1e-5, rope_dimension_count=4, tokenizer_model="gpt2", tokenizer_pre=name,
                             token_list=tokens, token_types=[1] * (len(tokens) - 2) + [3, 3], bos_token_id=len(tokens) - 2,
                             eos_token_id=len(tokens) - 1, token_merges=[" ".join(pair) for pair in merges]).items():
        getattr(writer, f"add_{field}")(value)
    shapes = {f"blk.0.{part}.weight": (4, 4) for part in "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()}
    shapes |= {"blk.0.attn_norm.weight": (4,), "blk.0.ffn_norm.weight": (4,), "output_norm.weight": (4,), "token_embd.weight": (len(tokens), 4)}
    for tensor, shape in shapes.items():
        writer.add_tensor(tensor, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_tokenizers(patterns, whole, tokens, merges):
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, ignore_merges=whole))
    split = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return [tokenizer.encode(text).ids for text in TEXTS]


if __name__ == "__main__":
    merges = train()
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += list(dict.fromkeys(left + right for left, right in merges)) + [WHOLE_TOKEN, "<s>", "</s>"]
    kinds = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.gguf"
        for name in NAMES + list(SAME):
            write(path, SAME.get(name, name), tokens, merges)
            with llama_cpp.Model(path) as model:
                ids = [model.tokenize(text) for text in TEXTS]
            if name in ORIGINAL:
                own = by_tokenizers(ORIGINAL[name], name in WHOLE, tokens, merges)
                print(f"{name}: llama.cpp differs in {sum(a != b for a, b in zip(ids, own))} of {len(TEXTS)} texts")
                ids = own
            kinds.setdefault(json.dumps(ids, separators=(",", ":")), []).append(name)
    parts = [json.dumps({"names": names, "ids": json.loads(ids)}, separators=(",", ":")) for ids, names in kinds.items()]
    head = json.dumps({"texts": TEXTS, "merges": [" ".join(pair) for pair in merges]}, separators=(",", ":"))
    OUT.write_text(head[:-1] + ',"kinds":[\n' + ",\n".join(parts) + "\n]}\n")
    print(f"{len(tokens)} tokens, {len(kinds)} kinds, {OUT.stat().st_size} bytes")
    for names in kinds.values():
        print(" ".join(names))
