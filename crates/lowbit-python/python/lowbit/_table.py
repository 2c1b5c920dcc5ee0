"""Tables as files of rows (JSON lines), whatever made them."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowbit._errors import RequestError


def columns(table: Any) -> dict[str, list[Any]]:
    """The columns of a DataFrame (pandas, polars), of an Arrow table, of anything that exports an Arrow stream, or of a mapping."""
    if isinstance(table, Mapping):
        found = {str(name): _values(column) for name, column in table.items()}
    elif hasattr(table, "column_names") and hasattr(table, "column"):  # pyarrow
        found = {name: table.column(i).to_pylist() for i, name in enumerate(table.column_names)}
    elif hasattr(table, "columns") and hasattr(table, "__getitem__"):  # pandas, polars
        found = {str(name): _values(table[name]) for name in table.columns}
    elif hasattr(table, "__arrow_c_stream__"):
        return columns(_imported(table))
    else:
        raise RequestError(
            f"data is {type(table).__name__}; give a path, a DataFrame (pandas, polars, pyarrow) or a mapping of columns"
        )
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(f"data has columns of different lengths, {lengths}")
    if not found or not next(iter(lengths.values())):
        raise RequestError("data has no rows")
    return found


def _imported(table: Any) -> Any:
    try:
        import pyarrow
    except ImportError as cause:
        raise RequestError(
            f"data is {type(table).__name__}, an Arrow stream, which pyarrow reads: install it, or give a DataFrame"
        ) from cause
    return pyarrow.RecordBatchReader.from_stream(table).read_all()


def _values(column: Any) -> list[Any]:
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, method):
            return getattr(column, method)()
    return list(column)


def _plain(value: Any) -> Any:
    """A value as JSON has it; what is missing (None, NaN, NaT, NA) is null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # scalars of NumPy
        return _plain(value.item())
    if type(value).__name__ in ("NAType", "NaTType") or value != value:
        return None
    return str(value)


def _lines(table: dict[str, list[Any]]) -> Iterator[bytes]:
    names = list(table)
    for row in zip(*table.values()):
        cells = {name: _plain(value) for name, value in zip(names, row)}
        yield json.dumps(cells, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def fingerprint(table: dict[str, list[Any]]) -> str:
    """A hash of all rows, short enough for a name."""
    digest = hashlib.sha256()
    for line in _lines(table):
        digest.update(line)
    return digest.hexdigest()[:12]


def write(table: dict[str, list[Any]], path: Path) -> None:
    """Writes one object per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(_lines(table))
