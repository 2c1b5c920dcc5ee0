"""Comparisons, and their reports."""

import json
import os
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from lowbit import _lowbit, _table
from lowbit._errors import RequestError

#: What a fresh process runs that measures load time and memory of a variant.
_PROBE = """\
import sys
sys.path.insert(0, sys.argv[1])
from lowbit import _lowbit
model, recipe, isa, threads = sys.argv[2:]
sys.stdout.write(_lowbit.probe(model, recipe, isa, int(threads), sys.stdin.buffer.read()))
"""


class Report:
    """The report of a comparison: a directory with `report.html`, `report.md`, `results.csv` and `results.json`."""

    def __init__(self, path: str | os.PathLike[str], summary: list[str], recommended: str | None) -> None:
        #: The directory.
        self.path = Path(path)
        #: The first lines, as `lowbit compare` prints them.
        self.summary = "\n".join(summary)
        #: The variant that is recommended, if one is.
        self.recommended = recommended

    @property
    def results(self) -> dict[str, Any]:
        """Everything that was measured, as `lowbit compare --json` prints it."""
        return json.loads((self.path / "results.json").read_text("utf-8"))

    @property
    def records(self) -> list[dict[str, Any]]:
        """The record of each variant: task, model, recipe, and measures with value, unit, count, range and origin."""
        return self.results["records"]

    @property
    def table(self) -> dict[str, dict[str, float]]:
        """The value of each measure of each variant: `report.table["int8"]["accuracy"]`."""
        return {r["model"]: {name: m["value"] for name, m in r["measures"].items()} for r in self.records}

    @property
    def html(self) -> str:
        """The whole report, one HTML document."""
        return (self.path / "report.html").read_text("utf-8")

    @property
    def markdown(self) -> str:
        """The whole report in Markdown."""
        return (self.path / "report.md").read_text("utf-8")

    def model(self, variant: str | None = None) -> _lowbit.Model:
        """The stored model of a variant [default: the one that is recommended]."""
        name = variant or self.recommended
        if name is None:
            raise RequestError("the report recommends no variant; name one")
        return _lowbit.Model.open(self.path / "variants" / name / "model")

    def _repr_html_(self) -> str:
        frame = "width:100%;height:48em;border:1px solid #ccc"
        return f'<iframe srcdoc="{escape(self.html)}" style="{frame}"></iframe>'

    def __repr__(self) -> str:
        return f"{self.summary}\n\nThe report: {self.path / 'report.html'}"


def compare(
    data: Any = None,
    *,
    suite: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    text: str | int | list[str | int] | None = None,
    label: str | int | None = None,
    out: str | os.PathLike[str] | None = None,
    max_size: float | None = None,
    max_latency: float | None = None,
    max_loss: float | None = None,
    threads: int | None = None,
    quick: bool = False,
    seeds: int = 1,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Makes, scores and times every variant of a network, and writes a report.

    `data` is a DataFrame (pandas, polars, pyarrow, or anything with `__arrow_c_stream__`), a mapping of columns, a file of rows
    (CSV, TSV, JSON lines, Parquet), a folder of PNG and JPEG images with a folder per class, or the directory of the data sets. `text` and `label` name its columns, which
    are found where they are not named. `model` is a published model, which is trained further on the rows or taken as it is;
    without one small networks are trained. `suite` is a suite, a group of suites or a task, by name or TOML file [default without
    data: `quickstart`].

    `quick` trains a suite shorter, where it says how. `seeds` trains every network so many times, each from another seed, and the report has
    the mean and its interval over them. `max_size` (bytes), `max_latency` (seconds) and `max_loss` (fraction) limit the choice. The same call goes on where an interrupted
    one was. `progress` is called with each line of news.
    """
    rows = directory = None
    if suite is not None and model is not None:
        raise RequestError("suite names its own networks: leave `model` out, or `suite`")
    if isinstance(data, (str, os.PathLike)):
        place = Path(data)
        rows, directory = (None, place) if suite is not None else (place, None)
    elif data is not None:
        if suite is not None:
            raise RequestError("suite names its own data: give their directory, or leave `suite` out")
        table = _table.columns(data)
        name = _table.fingerprint(table)
        out = Path(out) if out is not None else Path("runs") / f"rows-{name}"
        rows = out / "rows.jsonl"
        _table.write(table, rows)
    if rows is None and (text is not None or label is not None or model is not None):
        raise RequestError("text, label and model are for rows of data: give `data`")
    places = [] if text is None else [text] if isinstance(text, (str, int)) else list(text)
    package = str(Path(__file__).parent.parent)
    asked = {
        "name": None if suite is None and model is None else os.fspath(suite if suite is not None else model),
        "rows": rows,
        "text": places,
        "label": label,
        "data": directory,
        "out": None if out is None else Path(out),
        "max_size": max_size,
        "max_latency": max_latency,
        "max_loss": max_loss,
        "threads": threads,
        "quick": quick,
        "seeds": max(seeds, 1),
        "probe": [sys.executable or "python3", "-c", _PROBE, package],
        "command": ["lowbit.compare", *(os.fspath(p) for p in (suite, model, rows) if p is not None)],
    }
    return Report(*_lowbit.compare(asked, progress))
