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

pq.write_table(table, "brotli.parquet", compression="brotli")
many = pa.table({"text": [f"text {i // 3} and {i}" for i in range(300)], "label": [i % 4 for i in range(300)]})
pages = {"data_page_size": 256, "write_batch_size": 64, "use_dictionary": False}
incremental = {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"}
lengths = {"text": "DELTA_LENGTH_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"}
pq.write_table(many, "incremental.parquet", compression="gzip", column_encoding=incremental, **pages)
pq.write_table(many, "lengths.parquet", compression="brotli", data_page_version="2.0", column_encoding=lengths, **pages)
words = pa.table({"text": [f"word {i % 7}" for i in range(300)], "label": [i % 4 for i in range(300)]})
pq.write_table(words, "dictionary.parquet", compression="gzip", data_page_version="2.0", row_group_size=100)
gaps = {
    "a": pa.array([0.5, None, 1.5] * 40, pa.float32()),
    "b": pa.array([4_000_000_000, 1, None] * 40, pa.uint32()),
    "y": pa.array([i / 2 for i in range(120)]),
}
pq.write_table(pa.table(gaps), "gaps.parquet", compression="zstd", column_encoding={"a": "BYTE_STREAM_SPLIT", "b": "PLAIN", "y": "PLAIN"}, use_dictionary=False)
days = pa.table({"text": pa.array([1, 2], pa.date32()), "label": pa.array([0, 1])})
pq.write_table(days, "days.parquet")

# A few kilobytes that stand for 20 GB: one long text many times, and one page.
long = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 1_000_000]))
pq.write_table(pa.table({"text": long, "label": pa.array([0] * 20_000)}), "repeated.parquet", compression="zstd", dictionary_pagesize_limit=1 << 24)
pq.write_table(pa.table({"text": ["x" * 200_000_000], "label": [0]}), "page.parquet", compression="brotli", use_dictionary=False, write_statistics=False)
