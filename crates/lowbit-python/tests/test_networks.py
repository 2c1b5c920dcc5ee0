import json

import numpy as np
import pytest
from conftest import data, module

import lowbit
from lowbit import nn

RANDOM = np.random.default_rng(3)
X = RANDOM.uniform(-1, 1, size=(600, 2)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def network(**quantization):
    layers = [nn.BitLinear(2, 64), nn.ReLU(), nn.BitLinear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    return nn.Sequential(layers, **quantization)


@pytest.fixture(scope="module")
def fitted():
    return network().fit(X, Y, epochs=40, learning_rate=5e-3, threads=2)


def test_a_ternary_network_learns_and_is_deployed(fitted, tmp_path):
    assert fitted.score(X, Y) > 0.9 and fitted.outcome["parameters"] == 2 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2
    packed = fitted.deploy(tmp_path / "packed")
    assert packed.recipe_name == "bitnet" and packed.features == 2 and packed.names == ["0", "1"]
    assert (packed.classify(X).probabilities == fitted.classify(X).probabilities).all()
    assert (fitted.predict(X) == packed.classify(X).classes).all()
    again = lowbit.Model.open(tmp_path / "packed")
    assert again.score(X, Y) == fitted.score(X, Y) == np.mean(fitted.predict(X) == Y)
    smaller = fitted.deploy(recipe="bitnet_b3")
    assert smaller.nbytes < packed.nbytes and smaller.score(X, Y) == packed.score(X, Y)
    fitted.save(tmp_path / "masters")
    assert lowbit.Model.open(tmp_path / "masters", recipe="f32").nbytes > 4 * 64 * 64


@pytest.mark.parametrize(
    ("quantization", "recipe"),
    [
        ({"scale": "median"}, "bitnet"),
        ({"weights": "binary"}, "bitnet"),
        ({"weights": "binary", "granularity": "channel"}, "bitnet_channel"),
        ({"weights": "binary", "scale": "median", "activations": "f32"}, "bitnet+act=f32"),
        ({"granularity": "channel"}, "bitnet_channel"),
        ({"granularity": "group"}, "ternary_g128"),
        ({"weights": "int8", "granularity": "channel"}, "int8_channel"),
    ],
)
def test_every_quantization_is_deployed_as_it_was_trained(quantization, recipe, tmp_path):
    fitted = network(**quantization).fit(X, Y, epochs=30, learning_rate=5e-3, threads=2)
    packed = fitted.deploy(tmp_path / "packed")
    assert packed.recipe_name == recipe and packed.score(X, Y) > 0.85
    assert np.abs(packed.classify(X).probabilities - fitted.classify(X).probabilities).max() < 1e-5
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    asked = {"binary": quantization.get("weights") == "binary", "median": quantization.get("scale") == "median"}
    assert config.get("rounding", {"binary": False, "median": False}) == asked


def test_values_are_predicted_in_their_units():
    y = 1000 + 300 * X[:, 0] - 200 * X[:, 1] ** 2
    layers = [nn.BitLinear(2, 64), nn.Activation("silu"), nn.LayerNorm(), nn.BitLinear(64, 32), nn.Tanh(), nn.Linear(32, 1)]
    fitted = nn.Sequential(layers).fit(X, y, epochs=40, learning_rate=3e-3, threads=2)
    assert fitted.score(X, y) > 0.9 and fitted.predict(X).shape == (600,)
    assert abs(fitted.predict(X).mean() - y.mean()) < 30


def test_images_are_convolved():
    images = RANDOM.normal(size=(400, 8, 8, 1)).astype(np.float32) * 0.3
    kinds = RANDOM.integers(0, 2, size=400)
    for image, kind in zip(images, kinds):
        at = RANDOM.integers(1, 7)
        if kind:
            image[at, :, 0] += 2
        else:
            image[:, at, 0] += 2
    names = np.array(["upright", "level"])[kinds]
    layers = [
        nn.BitConv2d(1, 8, 3, padding=1),
        nn.BatchNorm(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BitConv2d(8, 16, 3),
        nn.BatchNorm(),
        nn.ReLU(),
        nn.GlobalAvgPool2d(),
        nn.Linear(16, 2),
    ]
    fitted = nn.Sequential(layers, image=(8, 8, 1)).fit(images, names, epochs=25, learning_rate=1e-2, threads=2)
    packed = fitted.deploy()
    assert packed.names == ["level", "upright"] and packed.score(images, names) > 0.9
    assert set(packed.classify(images[:3]).labels) <= {"level", "upright"}


def test_what_does_not_fit_is_named():
    for layers, x, y, words in [
        ([nn.BitLinear(3, 4), nn.Linear(4, 2)], X, Y, r"layers\[0\].*bit_linear.*takes rows of 3 numbers, and is given rows of 2"),
        ([nn.BitLinear(2, 4), nn.Linear(5, 2)], X, Y, r"layers\[1\].*linear.*takes rows of 5 numbers, and is given rows of 4"),
        ([nn.BitConv2d(1, 4, 3), nn.Linear(4, 2)], X, Y, r"layers\[0\].*bit_conv2d.*takes images, and is given rows of 2"),
        ([nn.Linear(2, 2), nn.Dropout(1.5)], X, Y, r"layers\[1\].*dropout.*p = 1.5"),
        ([nn.Linear(2, 2), nn.Activation("swish")], X, Y, "swish"),
        ([nn.Linear(2, 2)], X, Y + 1, "row .* has class 2, and the network answers with 2"),
        ([nn.Linear(2, 2)], X, Y[:-1], "600 rows and 599 targets"),
        ([nn.Linear(2, 2)], X, Y * 0.5, "float64, and the network answers with classes"),
        ([nn.Linear(2, 2)], X, Y - 1, "numbered from 0"),
        ([nn.Linear(2, 2), "relu"], X, Y, r"layers\[1\] is str"),
        ([], X, Y, "layers"),
    ]:
        with pytest.raises(lowbit.Error, match=words):
            nn.Sequential(layers).fit(x, y, steps=1)
    with pytest.raises(lowbit.RequestError, match="median.*whole matrix"):
        network(scale="median", granularity="channel").fit(X, Y, steps=1)
    with pytest.raises(lowbit.RequestError, match="terrnary"):
        network(weights="terrnary").fit(X, Y, steps=1)
    with pytest.raises(lowbit.Error, match="rows of 3 numbers.*reads 2"):
        network().fit(X, Y, steps=1).model.classify(np.zeros((2, 3)))


def test_digits():
    """An MLP of the MNIST digits, a little: the whole of it is in the benchmarks."""
    directory, pyarrow = data("mnist"), module("pyarrow")

    def read(name, header):
        with pyarrow.input_stream(str(directory / name), compression="zstd") as stream:
            return np.frombuffer(stream.read(), np.uint8, offset=header)

    images = read("train-images-idx3-ubyte.zst", 16).reshape(-1, 28, 28)
    labels = read("train-labels-idx1-ubyte.zst", 8)
    layers = [nn.BitLinear(784, 128), nn.ReLU(), nn.Linear(128, 10)]
    fitted = nn.Sequential(layers, image=(28, 28, 1)).fit(images[:6000], labels[:6000], epochs=3, threads=2)
    assert fitted.score(images[-1000:], labels[-1000:]) > 0.88
