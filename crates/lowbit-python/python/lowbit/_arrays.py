"""Arguments as arrays, and results. NumPy is imported here, and only here, when one is needed."""

from typing import Any

from lowbit._errors import RequestError


def floats(value: Any, name: str, dims: list[int]) -> Any:
    """An argument as f32 in C order, with one of some numbers of dimensions."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        value = _read(value, name)
    if value.ndim not in dims:
        wanted = " or ".join({1: "[cols]", 2: "[rows, cols]"}[n] for n in dims if n < 3)
        raise RequestError(f"{name} has {value.ndim} dimensions, {list(value.shape)}; give {wanted}")
    try:
        if value.dtype.kind in "cSUT":
            raise TypeError
        return np.ascontiguousarray(value, dtype=np.float32)
    except (TypeError, ValueError) as cause:
        raise RequestError(f"{name} holds {value.dtype}, which are no real numbers; give floats or integers") from cause


def _read(value: Any, name: str) -> Any:
    """Anything with numbers as an array: DLPack (CPU tensors of torch and others), the buffer protocol, sequences."""
    import numpy as np

    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "to_numpy"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except Exception as cause:
        remedy = "give an array, or a tensor on the CPU without gradient: `t.detach().cpu().float()`"
        raise RequestError(f"{name}: {cause}; {remedy}") from cause


def examples(value: Any) -> tuple[list[str] | None, Any]:
    """Texts, or rows of numbers `[rows, features]`."""
    if isinstance(value, str):
        return [value], None
    plain = value
    if hasattr(value, "to_pylist"):  # pyarrow
        plain = value.to_pylist()
    elif hasattr(value, "to_list"):  # pandas, polars
        plain = value.to_list()
    elif getattr(getattr(value, "dtype", None), "kind", "") in ("U", "O", "T"):
        plain = value.tolist()
    if isinstance(plain, (list, tuple)) and (not len(plain) or isinstance(plain[0], str)):
        for row, text in enumerate(plain):
            if not isinstance(text, str):
                raise RequestError(f"examples: row {row} is {type(text).__name__}, and the first is a text; give one kind")
        return list(plain), None
    rows = floats(value, "examples", [1, 2, 3, 4])
    if rows.ndim > 2:
        rows = rows.reshape(len(rows), -1)
    if rows.ndim == 1:
        rows = rows[None, :]
    if not rows.shape[1]:
        raise RequestError("examples: rows of 0 numbers; give [rows, features]")
    return None, rows


def targets(value: Any, names: list[str], are_values: bool) -> tuple[list[int] | None, list[float] | None]:
    """What is right for examples: classes, by number or by name, or values."""
    import numpy as np

    found = np.asarray(value) if not hasattr(value, "to_numpy") else np.asarray(value.to_numpy())
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise RequestError(f"targets have {found.ndim} dimensions, {list(found.shape)}; give [rows]")
    if are_values:
        return None, floats(found, "targets", [1]).astype(float).tolist()
    if found.dtype.kind in "OSUT":
        numbers = {name: number for number, name in enumerate(names)}
        classes = [str(name) for name in found.tolist()]
        unknown = next((name for name in classes if name not in numbers), None)
        if unknown is not None:
            raise RequestError(f"targets hold the class {unknown!r}; known: {', '.join(names)}")
        return [numbers[name] for name in classes], None
    if found.dtype.kind not in "iub":
        raise RequestError(f"targets are {found.dtype}, and the network answers with classes; give integers or names")
    if found.size and found.min() < 0:
        raise RequestError(f"targets hold the class {found.min()}; classes are numbered from 0")
    return found.astype(np.int64).tolist(), None


def array(data: bytearray, dtype: str, shape: list[int]) -> Any:
    """Bytes as an array that can be written to."""
    import numpy as np

    return np.frombuffer(data, dtype=dtype).reshape(shape)
