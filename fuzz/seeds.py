#!/usr/bin/env python3
"""Writes small valid files, from which the fuzzer begins: `python3 fuzz/seeds.py CORPORA` makes one directory per target."""

import base64
import gzip
import json
import pathlib
import struct
import sys

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "crates/lowbit-model/tests/golden"
CRATES = GOLDEN.parents[2]
TYPES = {"F32": 0, "F16": 1, "BF16": 30, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "TQ1_0": 34, "TQ2_0": 35, "I2_S": 36}
ROWS = 3


def safetensors(path):
    """Tensors of a file by name: shape and bytes."""
    file = path.read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    header.pop("__metadata__", None)
    data = file[8 + length :]
    return {name: (entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()}


def directory(case, config):
    """The configuration of a directory of integers, a byte 0, and its tensors."""
    file = (GOLDEN / "integers/tensors.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header, data = {}, b""
    for name, entry in json.loads(file[8 : 8 + length]).items():
        case_name, _, name = name.partition("/")
        if case_name == case and name not in ("prompt", "logits"):
            part = file[8 + length :][slice(*entry["data_offsets"])]
            header[name] = {**entry, "data_offsets": [len(data), len(data) + len(part)]}
            data += part
    text = json.dumps(header).encode()
    return json.dumps(config).encode() + bytes(1) + struct.pack("<Q", len(text)) + text + data


def write_safetensors():
    data = struct.pack("<6f", *range(6)) + struct.pack("<4H", 0x3F80, 0, 0xBF80, 0x4000) + bytes(range(5))
    header = {
        "__metadata__": {"lowbit.format": "1"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c.codes": {"dtype": "U8", "shape": [5], "data_offsets": [32, 37]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf(kind, columns, data):
    """A file of one tensor `[ROWS, columns]`."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs.append(text("n") + struct.pack("<II", 4, 7))
    pairs.append(text("list") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"))
    pairs.append(text("floats") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, -1.0))
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs)
    header += text("w") + struct.pack("<IQQIQ", 2, columns, ROWS, kind, 0)
    return header + bytes(-len(header) % 32) + data


def tables():
    """Tables of the columns text, more and label: the extension, what is read of it, and the content."""
    extensions = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet", "idx3-ubyte", "txt"]
    rows = [("one; \"two\"", "a", 1), ("plain", "b", 0), ("grün", "", 3)]
    objects = [json.dumps(dict(zip(["text", "more", "label"], row)), ensure_ascii=False) for row in rows]
    quoted = lambda text: '"' + str(text).replace('"', '""') + '"'
    csv = "\r\n".join(",".join(map(quoted, row)) for row in [("text", "more", "label"), *rows])
    numbers = "text,more,label\n1.5,2,3.25\n,-1e3,4\n"
    image = struct.pack(">4I", 0x803, 1, 2, 2) + bytes([0, 1, 2, 255])
    texts = {
        "csv": csv,
        "tsv": csv.replace(",", "\t"),
        "jsonl": "\n".join(objects),
        "json": "[" + ",\n".join(objects) + "]",
        "txt": "one\ntwo",
    }
    found = [(extension, 0, text.encode()) for extension, text in texts.items()]
    found += [("csv", 0, csv.replace(",", ";").encode()), ("csv", 0x50, numbers.encode()), ("csv", 0x20, csv.encode())]
    found += [("json", 0, ('{"data": [' + ",".join(objects) + "]}").encode()), ("idx3-ubyte", 0xB0, image)]
    found += [("parquet", 0, path.read_bytes()) for path in sorted((CRATES / "lowbit-eval/tests/data").glob("*.parquet"))]
    for i, (extension, what, content) in enumerate(found):
        yield f"{i}", bytes([extensions.index(extension), what]) + content
        if extension in texts:
            yield f"{i}.gz", bytes([extensions.index(extension) + len(extensions), what]) + gzip.compress(content, mtime=0)


def main(corpora):
    def put(target, name, content):
        directory = corpora / target
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)

    for name, content in tables():
        put("data", name, content)
    for path in [*(CRATES / "lowbit-eval/tasks").glob("*.toml"), *(CRATES / "lowbit/suites").glob("**/*.toml")]:
        put("description", path.stem, path.read_bytes())
    put("safetensors", "small", write_safetensors())
    put("imatrix", "golden", (GOLDEN / "imatrix.gguf").read_bytes())
    for case, content in json.loads((GOLDEN / "integers/cases.json").read_text()).items():
        put("integers", case, directory(case, content["config"]))
    put("gguf", "small", (GOLDEN / "small.gguf").read_bytes())
    tensors = safetensors(GOLDEN / "gguf_types.safetensors")
    for name, number in TYPES.items():
        values, data = tensors[f"{name}.values"][1], tensors[f"{name}.bytes"][1]
        put("gguf", name, gguf(number, len(values) // 4 // ROWS, data))
    for name in ["spm_bytes.model", "spm_unknown.model"]:
        put("vocabulary", name, (GOLDEN / name).read_bytes())
    lines = [f"{base64.b64encode(bytes([b])).decode()} {b}\n" for b in range(256)]
    put("vocabulary", "tiktoken", "".join(lines).encode())
    put("vocabulary", "tokenizer.json", json.dumps(tokenizer()).encode())
    for i, group in enumerate(json.loads((GOLDEN / "chat.json").read_text())):
        said = [m["content"] for m in group["cases"][0]["messages"]]
        put("template", f"{i}", "\0".join([group["template"], *said]).encode())


def tokenizer():
    """A byte-level BPE with two merges."""
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    tokens = ["<|end|>", *letters, "lo", "low"]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\s+"}, "behavior": "Isolated", "invert": False}
    added = {"id": 0, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "added_tokens": [{**added, "normalized": False, "special": True}],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, step]},
        "decoder": step,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [["l", "o"], ["lo", "w"]],
        },
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: seeds.py CORPORA")
    main(pathlib.Path(sys.argv[1]))
