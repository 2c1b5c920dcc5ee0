"""Low-bit neural networks: quantize, run, measure, train and compare, on NumPy arrays.

    import lowbit

    w = lowbit.quantize("nf4", weights)              # weights: [rows, cols]
    y = w.matmul(x)                                  # x: [tokens, cols]

    model = lowbit.Model.open("SmolLM2-135M.gguf").recipe("ternary+head=int8")
    for piece in model.chat("Why is the sky blue?", max_tokens=64):
        print(piece, end="")

    network = lowbit.Sequential([nn.BitLinear(784, 512), nn.ReLU(), nn.Linear(512, 10)])
    packed = network.fit(X, y).deploy("models/mnist")

    lowbit.compare(frame)                            # a DataFrame: what low bits cost on its rows

NumPy is imported when an array is first made.
"""

from lowbit import nn
from lowbit._errors import (
    CheckError,
    ContextFullError,
    Error,
    FileError,
    InputError,
    InternalError,
    NotFiniteError,
    OutOfMemoryError,
    RequestError,
    StoppedError,
    UnknownNameError,
    UnsupportedError,
)
from lowbit._lowbit import SHIPPED, Answer, Classification, Model, Packed, formats, quantize, recipes
from lowbit._lowbit import VERSION as __version__
from lowbit._report import Report, compare
from lowbit._train import train
from lowbit.nn import Sequential

__all__ = [
    "SHIPPED",
    "Answer",
    "CheckError",
    "Classification",
    "ContextFullError",
    "Error",
    "FileError",
    "InputError",
    "InternalError",
    "Model",
    "NotFiniteError",
    "OutOfMemoryError",
    "Packed",
    "Report",
    "RequestError",
    "Sequential",
    "StoppedError",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "compare",
    "formats",
    "nn",
    "quantize",
    "recipes",
    "train",
]
