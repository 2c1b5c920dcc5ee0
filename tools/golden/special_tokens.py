"""Golden ends of a text: which tokens of a GGUF file end one in llama.cpp.

    LLAMA_LIB=libllama.so python special_tokens.py      (needs gguf, numpy, tokenizers)

Writes crates/lowbit-model/tests/golden/special_tokens.json: cases with the `tokens` that follow the 256 bytes, in GPT-2's letters
and in the order of those, their `types`, the `keys` of the metadata without `tokenizer.ggml.`; and the resulting `ends` and
`controls`.
"""

import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

import llama_cpp

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/special_tokens.json"
NAMES = """<s> </s> <unk> <pad> <eos> <bos> <EOT> _<EOT> [EOT] [EOS] [e~[ <|eot_id|> <|eom_id|> <|im_end|> <|im_start|> <|end|> <|return|> <|call|>
<|calls|> <|flush|> <|endoftext|> <|end_of_text|> <end_of_turn> <start_of_turn> <turn|> <|turn> <|tool_response> <end_of_utterance>
<\uff5cend\u2581of\u2581sentence\uff5c> <\uff5cbegin\u2581of\u2581sentence\uff5c> <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO>
<reponame> <repo_name> <|file_sep|> <file_sep> <|fim_prefix|> <|fim_suffix|> <|fim_middle|> <|channel|> <|message|> <|start|> <|constrain|>
<|plamo:eos|> <|plamo:file_separator|> <|plamo:fim_pad|> <|eos|> <|endofprompt|> <|end_of_role|> <|EOT|> <|endoftext|x <end_of_text>
[/INST] <|user|> <|assistant|> <|system|> <|observation|> <|end_of_sentence|> <|im_sep|> <|END_OF_TURN_TOKEN|>""".split()
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def cases():
    for name in NAMES:
        yield [name], [NORMAL], {}
        yield [name], [USER], {}
    ends = {"eos_token_id": 256}
    yield ["<a>", "<b>", "<c>"], [CONTROL] * 3, ends
    yield ["<a>", "<b>", "<c>"], [NORMAL] * 3, {"eos_token_id": 258, "eot_token_id": 256, "eom_token_id": 257}
    yield ["<a>", "<b>", "<c>", "<d>"], [NORMAL] * 4, {"eos_token_id": 259, "fim_pad_token_id": 256, "fim_rep_token_id": 257, "fim_sep_token_id": 258}
    yield ["<a>", "<b>"], [CONTROL] * 2, {"fim_pre_token_id": 256, "padding_token_id": 257, "eos_token_id": 257}
    yield ["<a>", "<b>"], [CONTROL] * 2, {"eos_token_id": 256, "eot_token_id": 70000, "bos_token_id": 257}
    # Qwen2, SmolLM2, Llama 3, Phi 3, harmony, solar-open, Gemma 4.
    yield ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"], [CONTROL] * 3 + [USER] * 3, {"eos_token_id": 258, "bos_token_id": 256}
    yield ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>"], [CONTROL] * 6, {"eos_token_id": 258, "bos_token_id": 257}
    yield ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|reserved|>"], [CONTROL] * 5, {"eos_token_id": 257, "bos_token_id": 256}
    yield ["<|end|>", "<|user|>", "<|assistant|>", "</s>"], [USER, USER, USER, CONTROL], {"eos_token_id": 256}
    yield ["<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|message|>"], [CONTROL] * 5, {"eos_token_id": 257}
    yield ["<|end|>", "<|flush|>", "<|calls|>", "<|return|>"], [CONTROL] * 4, {"eos_token_id": 257}
    yield ["<|end|>", "<|return|>"], [CONTROL] * 2, {"eos_token_id": 257}
    yield ["</s>", "<|tool_response>", "<turn|>"], [CONTROL] * 3, {"eos_token_id": 258}
    yield ["<fim_pad>", "[PAD]"], [NORMAL] * 2, {"eos_token_id": 10, "fim_pad_token_id": 10}
    yield ["<x>", "<y>"], [0, 9], {"eos_token_id": 256}


def write(path, tokens, types, keys):
    writer = gguf.GGUFWriter(path, "llama")
    for field, value in dict(context_length=64, embedding_length=4, block_count=1, feed_forward_length=4, head_count=1,
                             layer_norm_rms_eps=1e-5, rope_dimension_count=4, tokenizer_model="gpt2", tokenizer_pre="gpt-2",
                             token_list=tokens, token_types=types, token_merges=["\u0100 \u0100"]).items():
        getattr(writer, f"add_{field}")(value)
    # Without this key llama.cpp takes token 11.
    for key, value in ({"eos_token_id": 10} | keys).items():
        writer.add_uint32(f"tokenizer.ggml.{key}", value)
    shapes = {f"blk.0.{part}.weight": (4, 4) for part in "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()}
    shapes |= {"blk.0.attn_norm.weight": (4,), "blk.0.ffn_norm.weight": (4,), "output_norm.weight": (4,), "token_embd.weight": (len(tokens), 4)}
    for tensor, shape in shapes.items():
        writer.add_tensor(tensor, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.gguf"
        for tokens, types, keys in cases():
            write(path, letters + tokens, [NORMAL] * 256 + types, keys)
            with llama_cpp.Model(path) as model:
                case = dict(tokens=tokens, types=types, keys={"eos_token_id": 10} | keys, ends=model.ends(), controls=model.controls())
            lines.append(json.dumps(case, separators=(",", ":")))
    OUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} cases")
