"""Training of suites and language models."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lowbit import _lowbit


def train(
    suite: str | os.PathLike[str] = "quickstart",
    *,
    out: str | os.PathLike[str],
    variant: str = "f32",
    data: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    init: str | os.PathLike[str] | None = None,
    text: Sequence[str | os.PathLike[str]] = (),
    threads: int | None = None,
    progress: Callable[[str], object] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Trains a variant of a suite, or a language model (`suite="text"`, `text=[files]`), into the directory `out`; its record.

    `teacher` and `init` are the trained directories of the variants that this one names. `settings` are fields of the training
    configuration that differ: `steps`, `epochs`, `learning_rate`, `batch_size`, `seed`, `qat={"weights": "int8"}` and so on. The same call goes
    on where an interrupted one was. `progress` is called with each line of news.
    """
    asked = {
        "name": os.fspath(suite),
        "variant": variant,
        "out": Path(out),
        "data": None if data is None else Path(data),
        "teacher": None if teacher is None else Path(teacher),
        "init": None if init is None else Path(init),
        "text": [Path(path) for path in text],
        "settings": json.dumps(settings),
        "threads": threads,
    }
    return json.loads(_lowbit.train(asked, progress))
