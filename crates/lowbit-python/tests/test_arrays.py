import gc
import sys

import numpy as np
import pytest
from conftest import module

import lowbit

RANDOM = np.random.default_rng(1)
WEIGHTS = RANDOM.normal(size=(48, 128)).astype(np.float32)
#: The largest root mean square error of a format with so many bits, against weights of deviation 1.
ERRORS = {"f32": 0.0, "bf16": 0.01, "int8": 0.03, "nf4": 0.15, "int4": 0.15, "ternary": 0.7}


@pytest.mark.parametrize("name", lowbit.formats())
def test_every_format_packs_multiplies_and_comes_back(name):
    packed = lowbit.quantize(name, WEIGHTS)
    back = packed.dequantize()
    assert (packed.format, packed.shape, back.shape, back.dtype) == (name, (48, 128), (48, 128), np.float32)
    assert packed.nbytes <= WEIGHTS.nbytes * 1.01 and f"Packed({name}, [48, 128], {packed.nbytes} bytes" in repr(packed)
    error = float(np.sqrt(np.mean((back - WEIGHTS) ** 2)))
    assert error <= ERRORS.get(name, 0.7), error
    x = RANDOM.normal(size=(5, 128)).astype(np.float32)
    y = packed.matmul(x)
    expected = x.astype(np.float64) @ back.T.astype(np.float64)
    # Some formats round their activations to 8 bits or bf16.
    assert y.shape == (5, 48) and np.abs(y - expected).max() < 0.05 * np.abs(expected).max()
    row = packed.matmul(x[0])
    assert row.shape == (48,) and np.abs(row - expected[0]).max() < 0.05 * np.abs(expected).max()


def test_activations_are_rounded_as_they_are_told():
    x = RANDOM.normal(size=(5, 128)).astype(np.float32)
    exact = x @ lowbit.quantize("ternary", WEIGHTS).dequantize().T
    errors = {}
    for name in ["f32", "int8_block", "int8"]:
        packed = lowbit.quantize(f"ternary+act={name}", WEIGHTS)
        assert packed.activations == name and packed.format == "ternary"
        errors[name] = np.abs(packed.matmul(x) - exact).max()
    assert errors["f32"] < 1e-4 < errors["int8_block"] < errors["int8"], errors
    assert lowbit.quantize("ternary", WEIGHTS).activations == "int8" and lowbit.quantize("nf4", WEIGHTS).activations == "f32"


def test_any_array_is_read():
    expected = lowbit.quantize("int8", WEIGHTS).dequantize()
    for same in [WEIGHTS.astype(np.float64), np.asfortranarray(WEIGHTS), WEIGHTS.tolist(), np.repeat(WEIGHTS, 2, 0)[::2]]:
        assert (lowbit.quantize("int8", same).dequantize() == expected).all()
    integers = lowbit.quantize("f32", np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert integers.dequantize().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_results_can_be_written_to():
    back = lowbit.quantize("f32", WEIGHTS).dequantize()
    back[0, 0] = 7
    assert back[0, 0] == 7


class Tensor:
    """What a library of tensors shows of one: DLPack, and no more."""

    def __init__(self, array, refusal=None):
        self.array, self.refusal = array, refusal

    def __dlpack__(self, **options):
        if self.refusal:
            raise BufferError(self.refusal)
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_tensors_come_by_dlpack():
    packed = lowbit.quantize("f32", Tensor(WEIGHTS))
    assert (packed.dequantize() == WEIGHTS).all()
    with pytest.raises(lowbit.RequestError, match="weights: Can't export tensors that require gradient.*detach"):
        lowbit.quantize("f32", Tensor(WEIGHTS, "Can't export tensors that require gradient"))


def test_torch_tensors():
    torch = module("torch")
    tensor = torch.from_numpy(WEIGHTS.copy())
    assert (lowbit.quantize("f32", tensor).dequantize() == WEIGHTS).all()
    with pytest.raises(lowbit.RequestError, match="detach"):
        lowbit.quantize("f32", tensor.requires_grad_())


def test_wrong_arrays_are_refused_by_name():
    packed = lowbit.quantize("int8", WEIGHTS)
    nan = WEIGHTS.copy()
    nan[3, 5] = np.nan
    for call, kind, words in [
        (lambda: lowbit.quantize("nf5", WEIGHTS), lowbit.UnknownNameError, "nf4"),
        (lambda: lowbit.quantize("int4+act=int7", WEIGHTS), lowbit.RequestError, r"`int7`; did you mean `int8`\? known: f32, int8,"),
        (lambda: lowbit.quantize("int8", WEIGHTS[0]), lowbit.RequestError, r"weights has 1 dimensions, \[128\]; give \[rows, cols\]"),
        (lambda: lowbit.quantize("int8", WEIGHTS * 1j), lowbit.RequestError, "weights holds complex64"),
        (lambda: lowbit.quantize("int8", [["a"]]), lowbit.RequestError, "no real numbers"),
        (lambda: lowbit.quantize("int8", [[1, 2], [3]]), lowbit.RequestError, "weights: .*inhomogeneous"),
        (lambda: lowbit.quantize("int8", nan), lowbit.NotFiniteError, "row 3.*column 5"),
        (lambda: lowbit.quantize("int8", np.zeros((3, 0))), lowbit.RequestError, "at least one column"),
        (lambda: packed.matmul(np.zeros((2, 127))), lowbit.RequestError, r"x is \[2, 127\], and the matrix is \[48, 128\]"),
        (lambda: packed.matmul(np.zeros(127)), lowbit.RequestError, r"x is \[127\]"),
        (lambda: packed.matmul(np.zeros((2, 2, 128))), lowbit.RequestError, r"give \[cols\] or \[rows, cols\]"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            call()
        assert isinstance(caught.value, lowbit.Error) and "\n" not in str(caught.value)
    with pytest.raises(lowbit.UnknownNameError) as caught:
        lowbit.quantize("nf5", WEIGHTS)
    assert (caught.value.name, caught.value.nearest) == ("nf5", "nf4") and isinstance(caught.value, ValueError)


def test_nothing_is_leaked():
    before = sys.getrefcount(WEIGHTS)
    for _ in range(10):
        lowbit.quantize("int8", WEIGHTS).matmul(WEIGHTS)
    gc.collect()
    assert sys.getrefcount(WEIGHTS) == before
