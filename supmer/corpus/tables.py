"""Parquet tables and arrays on any file system, each written whole or not at all."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from supmer import storage
from supmer.corpus.unit import Embeddings
from supmer.readers.skipped import Skipped

COUNTS_KEY = b"supmer.counts"


def read_table(uri: str, **options: Any) -> pa.Table:
    """Return the rows of one Parquet file; `options` are those of `pyarrow.parquet.read_table`."""
    filesystem, path = storage.resolve(uri)
    return pq.read_table(path, filesystem=filesystem, partitioning=None, **options)


def write_table(uri: str, table: pa.Table, row_groups: list[int] | int | None = None) -> None:
    """Write a table of moderate size as Parquet, in row groups of these numbers of rows, or of one size."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        if isinstance(row_groups, int):
            writer.write_table(table, row_group_size=row_groups)
        else:
            start = 0
            for rows in row_groups or [table.num_rows]:
                writer.write_table(table.slice(start, rows), row_group_size=max(rows, 1))
                start += rows
    storage.write_bytes(uri, sink.getvalue())


def even_row_groups(num_rows: int, most: int) -> list[int]:
    """Cut rows into the fewest groups of at most `most`, equal to within one: a random group is then a fair sample."""
    num_groups = -(-num_rows // most)
    return [num_rows * (i + 1) // num_groups - num_rows * i // num_groups for i in range(num_groups)]


def with_counts(table: pa.Table, counts: Skipped) -> pa.Table:
    return table.replace_schema_metadata({COUNTS_KEY: counts.dump().encode()})


def read_counts(uri: str) -> Skipped | None:
    """Return the counts in a file's metadata, or None if there is no file."""
    if not storage.exists(uri):
        return None
    filesystem, path = storage.resolve(uri)
    return Skipped.load(pq.read_schema(path, filesystem=filesystem).metadata[COUNTS_KEY])


def write_array(uri: str, array: Embeddings) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    storage.write_bytes(uri, buffer.getvalue())


def read_array(uri: str) -> Embeddings:
    array: Embeddings = np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
    return array
