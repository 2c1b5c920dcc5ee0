"""What the tests share: data that may be missing, small models, and how a test says that it could not run."""

import os
from pathlib import Path

import numpy as np
import pytest

import lowbit

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "crates"


def skip(need: str, why: str) -> None:
    """Skips a test aloud, or fails where `LOWBIT_REQUIRE` demands what it needs."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "a test").split("::")[-1].split(" ")[0]
    line = f"skipped ({need}): {test}: {why}"
    if need in os.environ.get("LOWBIT_REQUIRE", "").split(","):
        pytest.fail(line)
    if path := os.environ.get("LOWBIT_SKIPPED"):
        with open(path, "a") as file:
            file.write(line + "\n")
    pytest.skip(line)


def data(path: str) -> Path:
    """A file or folder of the data directory."""
    directory = Path(os.environ.get("LOWBIT_DATA") or ROOT.parent / "shared" / "data")
    if not (directory / path).exists():
        skip("data", f"{path} is not in the data directory")
    return directory / path


def module(name: str):
    """A Python package that may be missing."""
    try:
        return __import__(name)
    except ImportError:
        skip("environment", f"{name} is not installed")


@pytest.fixture(scope="session")
def reviews():
    """Rows whose class their words tell."""
    random = np.random.default_rng(0)
    good, bad = ["lovely", "great", "fine", "superb"], ["awful", "poor", "dull", "weak"]
    texts, labels = [], []
    for row in range(400):
        words = good if row % 2 else bad
        texts.append(f"the {random.choice(['film', 'plot', 'cast'])} was {random.choice(words)} and {random.choice(words)} {row}")
        labels.append("pos" if row % 2 else "neg")
    return {"review": texts, "stars": labels}


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A small classifier of texts, trained here."""
    out = tmp_path_factory.mktemp("classifier") / "model"
    record = lowbit.train("quickstart", variant="f32", out=out, steps=40, threads=2)
    assert record["measures"]["train_seconds"]["unit"] == "seconds"
    return out
