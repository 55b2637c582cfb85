"""Intermediate files of a preparation: whatever is finished is found again when an interrupted one is started anew.

All lie in ``<store>/work``, are written whole or not at all, and are deleted when the store is complete:
``units/<part>.parquet`` (CUT_SCHEMA, counts in the file's metadata), ``embeddings/<part>.npy`` [n, d] of the same rows, and
``runs/<run>.parquet``, the units of a few parts sorted by split and cluster.
"""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from supmer import storage
from supmer.corpus.embedding import Embeddings

WORK = "work"
COUNTS_KEY = b"supmer.counts"


class Workspace:
    """Paths and formats of the intermediate files of one store."""

    def __init__(self, store_uri: str) -> None:
        self.uri = storage.join(store_uri, WORK)

    def delete(self) -> None:
        """Delete all intermediate files."""
        storage.delete_folder(self.uri)

    def finished_units(self, part: str) -> Counter[str] | None:
        """Return the counts of a part that is cut already, else None."""
        if not storage.exists(self._units(part)):
            return None
        filesystem, path = storage.resolve(self._units(part))
        return Counter(json.loads(pq.read_schema(path, filesystem=filesystem).metadata[COUNTS_KEY]))

    def write_units(self, part: str, units: pa.Table, counts: Counter[str]) -> None:
        metadata = {COUNTS_KEY: json.dumps(counts).encode()}
        write_table(self._units(part), units.replace_schema_metadata(metadata))

    def read_units(self, part: str, columns: list[str] | None = None) -> pa.Table:
        filesystem, path = storage.resolve(self._units(part))
        return pq.read_table(path, filesystem=filesystem, columns=columns)

    def has_embeddings(self, part: str) -> bool:
        return storage.exists(self._embeddings(part))

    def write_embeddings(self, part: str, embeddings: Embeddings) -> None:
        buffer = io.BytesIO()
        np.save(buffer, embeddings, allow_pickle=False)
        storage.write_bytes(self._embeddings(part), buffer.getvalue())

    def read_embeddings(self, part: str) -> Embeddings:
        data: Embeddings = np.load(io.BytesIO(storage.read_bytes(self._embeddings(part))), allow_pickle=False)
        return data

    def run(self, number: int) -> str:
        return storage.join(self.uri, "runs", f"{number:06d}.parquet")

    def _units(self, part: str) -> str:
        return storage.join(self.uri, "units", f"{part}.parquet")

    def _embeddings(self, part: str) -> str:
        return storage.join(self.uri, "embeddings", f"{part}.npy")


def write_table(uri: str, table: pa.Table, row_groups: list[int] | None = None) -> None:
    """Write a table of moderate size as Parquet, whole or not at all, with row groups of the given numbers of rows."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        start = 0
        for rows in row_groups or [table.num_rows]:
            writer.write_table(table.slice(start, rows), row_group_size=max(rows, 1))
            start += rows
    storage.write_bytes(uri, sink.getvalue())
