#!/usr/bin/env python3
"""Writes the text that the shipped byte-level language model is trained on, from the data sets of `--data`.

The first 90 % of the enwik8 prefix `--repeat` times, a part of the unlabelled film reviews and the sample of TinyStories, cut into
chunks of about 100 kB at line ends and put in an order that depends on `--seed` alone. The next 5 % of the enwik8 prefix stand at
the end, once: `held_out` of the description keeps exactly them apart. Its last 5 % are in no part of the file.
Only the standard library and the program `zstd` are needed.
"""

import argparse
import hashlib
import random
import subprocess
from pathlib import Path

CHUNK = 100_000


def content(path):
    return subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout


def chunks(text):
    """Pieces of at least `CHUNK` bytes that end at a line end; the last may be shorter."""
    at = 0
    while at < len(text):
        end = text.find(b"\n", min(at + CHUNK, len(text)))
        end = len(text) if end < 0 else end + 1
        yield text[at:end]
        at = end


def split(text):
    """The first 90 %, the next 5 % and the last 5 % of a text, cut at bytes, as the conventions of enwik8 have it."""
    n = len(text)
    return text[: n * 90 // 100], text[n * 90 // 100 : n * 95 // 100], text[n * 95 // 100 :]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=5, help="copies of the enwik8 part [default: 5]")
    parser.add_argument("--reviews", type=int, default=8_000_000, help="bytes of the reviews [default: 8,000,000]")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    train, valid, _ = split(content(args.data / "enwik8_prefix/enwik8.prefix.zst"))
    train = train[: train.rindex(b"\n") + 1]
    valid = valid[valid.index(b"\n") + 1 :]
    reviews = content(args.data / "imdb/unsup.txt.zst").replace(b"<br />", b"\n")[: args.reviews]
    stories = content(args.data / "tinystories_sample/tinystories.txt.zst")
    pieces = [c for _ in range(args.repeat) for c in chunks(train)]
    pieces += list(chunks(reviews[: reviews.rindex(b"\n") + 1])) + list(chunks(stories)) * 2
    random.Random(args.seed).shuffle(pieces)
    text = b"".join(pieces)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(text + valid)
    print(f"{len(text)} bytes to train on, {len(valid)} held out")
    print(f"held_out = {len(valid) / (len(text) + len(valid)):.9f}")
    print(f"sha256 {hashlib.sha256(text + valid).hexdigest()}")


if __name__ == "__main__":
    main()
