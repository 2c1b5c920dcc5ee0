"""Batch inference of Parquet rows on a local Ray: two workers, and processors left for the tasks that read."""

import os
import signal

from conftest import module, skip

import lowbit


def late(*_):
    raise TimeoutError("Ray has not answered within two minutes")


def test_parquet_rows_are_classified_by_two_workers(classifier, tmp_path, reviews):
    ray = module("ray")
    pyarrow = module("pyarrow")
    import pyarrow.parquet

    texts = reviews["review"] * 5
    folder = tmp_path / "rows"
    folder.mkdir()
    for part in range(4):
        rows = pyarrow.table({"id": range(part * 500, part * 500 + 500), "review": texts[part * 500 : part * 500 + 500]})
        pyarrow.parquet.write_table(rows, folder / f"{part}.parquet")

    class Classifier:
        def __init__(self, path):
            self.model = lowbit.Model.open(path, threads=1)

        def __call__(self, batch):
            answer = self.model.classify(batch["review"])
            return {"id": batch["id"], "label": answer.labels, "worker": [os.getpid()] * len(answer)}

    # Ray stores nothing on a disk that is 95 % full, and waits for ever.
    os.environ.setdefault("RAY_local_fs_capacity_threshold", "0.995")
    signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    place = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    ray.init(num_cpus=4, include_dashboard=False, configure_logging=False, runtime_env=place)
    try:
        rows = (
            ray.data.read_parquet(str(folder), override_num_blocks=8)
            .map_batches(Classifier, fn_constructor_args=(str(classifier),), batch_size=100, compute=ray.data.ActorPoolStrategy(size=2))
            .take_all()
        )
    except TimeoutError as late_workers:
        skip("environment", str(late_workers))
    finally:
        signal.alarm(0)
        ray.shutdown()
    rows.sort(key=lambda row: row["id"])
    assert [row["label"] for row in rows] == lowbit.Model.open(classifier).classify(texts[:2000]).labels
    # One that is ready first may have all the work.
    assert len({row["worker"] for row in rows} - {os.getpid()}) in (1, 2)
