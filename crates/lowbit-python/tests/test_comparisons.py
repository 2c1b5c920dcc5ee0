import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import module

import lowbit


def frame(name, rows):
    if name == "mapping":
        return rows
    package = module(name)
    return package.table(rows) if name == "pyarrow" else package.DataFrame(rows)


@pytest.mark.parametrize("name", ["mapping", "pandas", "polars", "pyarrow"])
def test_tables_have_the_same_rows(name, reviews):
    from lowbit import _table

    rows = dict(reviews, number=[float(i) for i in range(399)] + [float("nan")])
    assert _table.fingerprint(_table.columns(frame(name, rows))) == _table.fingerprint(_table.columns(rows))


def test_streams_of_arrow(reviews):
    pyarrow = module("pyarrow")
    from lowbit import _table

    class Stream:
        def __arrow_c_stream__(self, requested_schema=None):
            return pyarrow.table(reviews).__arrow_c_stream__(requested_schema)

    assert _table.columns(Stream()) == reviews


def test_what_is_missing_is_null(tmp_path):
    pandas = module("pandas")
    from lowbit import _table

    numbers, days = pandas.array([1, None], dtype="Int64"), pandas.to_datetime(["2026-01-02", None])
    rows = pandas.DataFrame({"t": ["a", None], "x": [1.5, float("nan")], "n": numbers, "d": days})
    _table.write(_table.columns(rows), tmp_path / "rows.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert lines[0] == {"t": "a", "x": 1.5, "n": 1, "d": "2026-01-02 00:00:00"}
    assert lines[1] == {"t": None, "x": None, "n": None, "d": None}


def test_tables_that_are_none():
    for table, words in [
        ({}, "no rows"),
        ({"a": []}, "no rows"),
        ({"a": [1], "b": [1, 2]}, "different lengths"),
        (7, "data is int"),
    ]:
        with pytest.raises(lowbit.RequestError, match=words):
            lowbit.compare(table)
    with pytest.raises(lowbit.RequestError, match="are for rows"):
        lowbit.compare(text="a")
    with pytest.raises(lowbit.RequestError, match="its own data"):
        lowbit.compare({"a": [1]}, suite="quickstart")
    with pytest.raises(lowbit.RequestError, match="unknown suite"):
        lowbit.compare(suite="quickstrt")


def test_a_frame_is_compared(reviews, tmp_path):
    notes = []
    report = lowbit.compare(reviews, text="review", label="stars", out=tmp_path / "run", threads=2, progress=notes.append)
    assert any("step" in note for note in notes) and report.path == tmp_path / "run"
    names = [record["model"] for record in report.records]
    assert "f32" in names and "ternary_qat" in names
    assert report.table["f32"]["accuracy"] > 0.9 and report.table["f32"]["load_seconds"] > 0
    assert report.summary and "f32" in str(report)
    assert report._repr_html_().startswith('<iframe srcdoc="&lt;!') and "</html>" in report.html
    assert "| f32" in report.markdown
    model = report.model("f32")
    assert model.classify("the film was superb").labels == ["pos"] and model.names == ["neg", "pos"]
    begin = time.monotonic()
    again = lowbit.compare(reviews, text="review", label="stars", out=tmp_path / "run", threads=2)
    assert again.records[0]["measures"]["accuracy"] == report.records[0]["measures"]["accuracy"]
    assert time.monotonic() - begin < 60


def test_training_settings_are_checked(tmp_path):
    for settings, words in [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"lr": 0.1}, "unknown field `lr`"),
        ({"steps": "many"}, "steps|invalid type"),
    ]:
        with pytest.raises(lowbit.RequestError, match=words):
            lowbit.train("quickstart", out=tmp_path / "model", **settings)
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_what_a_listener_raises_ends_the_work(tmp_path):
    def listener(text):
        raise KeyError(text)

    with pytest.raises(KeyError):
        lowbit.train("quickstart", out=tmp_path / "model", steps=100000, progress=listener)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_control_c_ends_the_work(tmp_path):
    arguments = f"out={str(tmp_path / 'model')!r}, steps=1000000, threads=1, progress=lambda t: print(t, flush=True)"
    program = (
        "import lowbit, sys\n"
        "try:\n"
        f"    lowbit.train('quickstart', {arguments})\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(42)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "step" in line:
            break
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert process.wait(timeout=30) == 42 and time.monotonic() - start < 20
    assert list((tmp_path / "model" / "checkpoints").iterdir()), "the state is kept"
