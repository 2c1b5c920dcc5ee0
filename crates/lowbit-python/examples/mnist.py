"""An MLP of the MNIST digits in full precision and ternary: accuracy on the test images, seconds, bytes.

    python mnist.py DIRECTORY [threads]

The directory holds the four IDX files, plain, .gz or .zst (which pyarrow reads).
"""

import gzip
import sys
import time
from pathlib import Path

import numpy as np

from lowbit import nn


def read(directory: Path, name: str, header: int) -> np.ndarray:
    """The bytes of an IDX file after its header."""
    path = next(directory.glob(f"{name}-ubyte*"))
    if path.suffix == ".zst":
        import pyarrow

        content = pyarrow.input_stream(str(path), compression="zstd").read()
    else:
        content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
    return np.frombuffer(content, np.uint8, offset=header)


def main() -> None:
    """Trains both."""
    directory = Path(sys.argv[1])
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else None
    train, test = (read(directory, f"{name}-images-idx3", 16).reshape(-1, 28, 28) for name in ("train", "t10k"))
    answers, expected = (read(directory, f"{name}-labels-idx1", 8) for name in ("train", "t10k"))
    for name, linear in [("f32", nn.Linear), ("ternary", nn.BitLinear)]:
        layers = [linear(784, 512), nn.BatchNorm(), nn.ReLU(), nn.Dropout(0.1)]
        layers += [linear(512, 512), nn.BatchNorm(), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 10)]
        start = time.perf_counter()
        settings = {"batch_size": 128, "learning_rate": 2e-3, "warmup_steps": 200, "seed": 1}
        fitted = nn.Sequential(layers, image=(28, 28, 1)).fit(train, answers, epochs=6, threads=threads, **settings)
        spent = time.perf_counter() - start
        model = fitted.deploy()
        print(f"{name}: accuracy {model.score(test, expected):.4f}, trained in {spent:.1f} s, {model.nbytes:,} bytes of weights")


if __name__ == "__main__":
    main()
