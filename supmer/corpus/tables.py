"""Parquet tables and arrays on any file system, each written whole or not at all."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from supmer import storage
from supmer.corpus.unit import Embeddings

COUNTS_KEY = b"supmer.counts"


def read_table(uri: str, **options: Any) -> pa.Table:
    """Return the rows of one Parquet file; `options` are those of `pyarrow.parquet.read_table`."""
    filesystem, path = storage.resolve(uri)
    return pq.read_table(path, filesystem=filesystem, partitioning=None, **options)


def write_table(uri: str, table: pa.Table, row_groups: list[int] | None = None) -> None:
    """Write a table of moderate size as Parquet, with row groups of the given numbers of rows (default: one)."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        start = 0
        for rows in row_groups or [table.num_rows]:
            writer.write_table(table.slice(start, rows), row_group_size=max(rows, 1))
            start += rows
    storage.write_bytes(uri, sink.getvalue())


def full_row_groups(num_rows: int, rows: int) -> list[int]:
    """Cut rows into groups of `rows`; the last group holds the rest."""
    return [min(rows, num_rows - start) for start in range(0, num_rows, rows)]


def even_row_groups(num_rows: int, most: int) -> list[int]:
    """Cut rows into the fewest groups of at most `most`, equal to within one: a random group is then a fair sample."""
    num_groups = -(-num_rows // most)
    return [num_rows * (i + 1) // num_groups - num_rows * i // num_groups for i in range(num_groups)]


def with_counts(table: pa.Table, counts: Counter[str]) -> pa.Table:
    """Return the table with counts in its metadata."""
    return table.replace_schema_metadata({COUNTS_KEY: json.dumps(counts).encode()})


def read_counts(uri: str) -> Counter[str] | None:
    """Return the counts in a file's metadata, or None if there is no file."""
    if not storage.exists(uri):
        return None
    filesystem, path = storage.resolve(uri)
    return Counter(json.loads(pq.read_schema(path, filesystem=filesystem).metadata[COUNTS_KEY]))


def write_array(uri: str, array: Embeddings) -> None:
    """Write an array in numpy's format."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    storage.write_bytes(uri, buffer.getvalue())


def read_array(uri: str) -> Embeddings:
    """Return an array in numpy's format."""
    array: Embeddings = np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
    return array
