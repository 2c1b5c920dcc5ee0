"""Writes the Parquet files of this directory with the reference implementation (pyarrow 26.0.1)."""

import pyarrow as pa
import pyarrow.parquet as pq

texts = ["one", "zwei — two", "", "four\nlines", "five"]
labels = [0, 3, 2, 1, 0]
table = pa.table({"id": pa.array(range(5), pa.int32()), "text": texts, "more": ["a", "b", "c", "d", "e"], "label": labels})

pq.write_table(table, "snappy.parquet", compression="snappy", row_group_size=2)
pq.write_table(table, "zstd.parquet", compression="zstd", data_page_version="2.0", use_dictionary=False)
pq.write_table(table, "lz4.parquet", compression="lz4")
pq.write_table(table, "gzip.parquet", compression="gzip")
strings = pa.table({"text": pa.array(texts, pa.large_string()), "label": ["n", "y", "n", "y", "n"]})
pq.write_table(strings, "strings.parquet")
odd = {
    "text": pa.array(["one", None]),
    "label": pa.array([True, False]),
    "list": pa.array([["x"], ["y"]]),
    "share": pa.array([0.5, 1.0]),
}
pq.write_table(pa.table(odd), "odd.parquet")
