"""Batch inference of Parquet rows on a local Ray: two workers, and processors left for the tasks that read."""

import os

from conftest import module

import lowbit


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

    ray.init(num_cpus=4, include_dashboard=False, configure_logging=False, runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}})
    try:
        rows = (
            ray.data.read_parquet(str(folder))
            .map_batches(Classifier, fn_constructor_args=(str(classifier),), batch_size=100, concurrency=2)
            .take_all()
        )
    finally:
        ray.shutdown()
    rows.sort(key=lambda row: row["id"])
    assert [row["label"] for row in rows] == lowbit.Model.open(classifier).classify(texts[:2000]).labels
    assert len({row["worker"] for row in rows}) == 2
