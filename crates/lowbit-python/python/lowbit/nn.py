"""Networks from layers, trained on arrays and deployed with packed weights.

    from lowbit import nn

    network = nn.Sequential([nn.BitLinear(784, 512), nn.ReLU(), nn.BitLinear(512, 512), nn.ReLU(), nn.Linear(512, 10)])
    fitted = network.fit(X, y, epochs=5)              # X: [rows, 784], y: classes
    model = fitted.deploy("models/mnist")             # a Model with ternary weights
    model.score(X_test, y_test), model.classify(X_test).labels

Weights of `Bit` layers are trained to be ternary (or as `Sequential` is told) and stored in about two bits; those of the others stay
floats in training. Images are `[rows, height, width, channels]`; a linear layer after an image takes all of its pixels.
"""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from lowbit import _lowbit
from lowbit._errors import RequestError


class Layer:
    """Any layer."""

    kind: ClassVar[str]

    def _described(self) -> dict[str, Any]:
        fields = {name: value for name, value in asdict(self).items() if value is not None}  # type: ignore[call-overload]
        return {"layer": self.kind, **fields}


@dataclass(frozen=True)
class _Linear(Layer):
    inputs: int
    outputs: int
    bias: bool = True


class BitLinear(_Linear):
    """A linear layer with low-bit weights: rows of `inputs` numbers become rows of `outputs`."""

    kind = "bit_linear"


class Linear(_Linear):
    """A linear layer: rows of `inputs` numbers become rows of `outputs`."""

    kind = "linear"


@dataclass(frozen=True)
class _Conv2d(Layer):
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True


class BitConv2d(_Conv2d):
    """A convolution with low-bit weights: images of `inputs` channels become images of `outputs`."""

    kind = "bit_conv2d"


class Conv2d(_Conv2d):
    """A convolution: images of `inputs` channels become images of `outputs`."""

    kind = "conv2d"


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalization of each row, or of the channels of each pixel."""

    kind = "layer_norm"
    eps: float = 1e-5


@dataclass(frozen=True)
class RmsNorm(Layer):
    """RMS normalization of each row, or of the channels of each pixel."""

    kind = "rms_norm"
    eps: float = 1e-5


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization of each column, or of each channel of images."""

    kind = "batch_norm"
    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class Activation(Layer):
    """An elementwise function: `relu`, `relu2`, `silu`, `gelu` (by tanh), `gelu_erf`, `tanh`."""

    kind = "activation"
    function: str


def ReLU() -> Activation:
    """`max(x, 0)`"""
    return Activation("relu")


def SiLU() -> Activation:
    """`x / (1 + exp(-x))`"""
    return Activation("silu")


def GELU() -> Activation:
    """GELU by the error function."""
    return Activation("gelu_erf")


def Tanh() -> Activation:
    """`tanh(x)`"""
    return Activation("tanh")


@dataclass(frozen=True)
class _Pool2d(Layer):
    kernel: int
    stride: int | None = None
    padding: int = 0


class MaxPool2d(_Pool2d):
    """The largest value of each window; `stride` is the kernel unless it is given."""

    kind = "max_pool2d"


class AvgPool2d(_Pool2d):
    """The mean of each window; `stride` is the kernel unless it is given."""

    kind = "avg_pool2d"


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """The mean of each channel over the image, which becomes a row."""

    kind = "global_avg_pool2d"


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout in training."""

    kind = "dropout"
    p: float


def _rows(x: Any) -> Any:
    """Examples as `[rows, features]`."""
    from lowbit import _arrays

    texts, rows = _arrays.examples(x)
    if texts is not None:
        raise RequestError("x holds texts, and the network reads numbers")
    return rows


class Sequential:
    """Layers one after another, over rows of numbers or, with `image`, over images of `(height, width, channels)`.

    Low-bit weights are `ternary`, `binary` or `int8`; their `scale` is the `mean` or the `median` of `|W|`, of a whole matrix
    (`tensor`), of each output (`channel`) or of 128 inputs (`group`); their activations are `int8` or `f32`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        image: tuple[int, int, int] | None = None,
        weights: str = "ternary",
        scale: str = "mean",
        granularity: str = "tensor",
        activations: str = "int8",
    ) -> None:
        self.layers = list(layers)
        self.image = image
        self.quantization = {"weights": weights, "scale": scale, "granularity": granularity, "activations": activations}

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: float | None = None,
        threads: int | None = None,
        progress: Callable[[str], object] | None = None,
        **settings: Any,
    ) -> "Fitted":
        """Trains on `x`, `[rows, features]` or `[rows, height, width, channels]`, and `y`: classes by number or name, or, where the last
        layer has one output, values.

        `settings` are fields of the training configuration: `batch_size` [64], `learning_rate` [0.001], `weight_decay` [0.01], `seed`
        [0] and so on.
        """
        import numpy as np

        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise RequestError(f"layers[{i}] is {type(layer).__name__}; give layers of lowbit.nn")
        outputs = next((layer.outputs for layer in reversed(self.layers) if hasattr(layer, "outputs")), 0)
        labels: list[str] = []
        if getattr(np.asarray(y).dtype, "kind", "") in "OSUT" and outputs != 1:
            labels = sorted({str(name) for name in y})
        if epochs is not None:
            settings["epochs"] = epochs
        asked = {
            "layers": json.dumps([layer._described() for layer in self.layers]),
            "image": None if self.image is None else list(self.image),
            "labels": labels,
            "values": outputs == 1,
            "quantization": json.dumps(self.quantization),
            "settings": json.dumps(settings),
            "threads": threads,
        }
        return Fitted(_lowbit.fit(asked, _rows(x), y, progress), threads)


class Fitted:
    """A trained network."""

    def __init__(self, native: _lowbit.Fitted, threads: int | None = None) -> None:
        self._native = native
        self._threads = threads
        #: The network as it was trained, low-bit layers with low-bit weights.
        self.model = _lowbit.Model.open(native.path, threads=threads)

    @property
    def outcome(self) -> dict[str, Any]:
        """What the training did: `steps`, last `loss`, `seconds`, number of `parameters`."""
        return self._native.outcome

    def classify(self, x: Any) -> _lowbit.Classification:
        """The most probable class of each row."""
        return self.model.classify(_rows(x))

    def predict(self, x: Any) -> Any:
        """The number of the class of each row, or its value, `[rows]`."""
        return self.model.predict(_rows(x)) if self.model.kind == "value" else self.classify(x).classes

    def score(self, x: Any, y: Any) -> float:
        """The accuracy, or for values the coefficient of determination."""
        return self.model.score(_rows(x), y)

    def deploy(self, path: str | os.PathLike[str] | None = None, *, recipe: str | None = None) -> _lowbit.Model:
        """Stores the network with packed weights and opens it; without a path in a directory that goes when the program ends. `recipe` is
        how it was trained, or another one: `bitnet_b3` has 1.6 bits for ternary weights.
        """
        if path is None:
            path = tempfile.mkdtemp(prefix="lowbit-")
            atexit.register(shutil.rmtree, path, ignore_errors=True)
        self._native.deploy(Path(path), recipe)
        return _lowbit.Model.open(path, threads=self._threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Stores the f32 masters, from which `lowbit quantize` makes every recipe."""
        self._native.save(Path(path))
