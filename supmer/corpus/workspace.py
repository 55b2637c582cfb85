"""Intermediate files of a preparation: whatever is finished is found again when an interrupted one is started anew.

All lie in ``<store>/work``, are written whole or not at all, and are deleted when the store is complete:

    excluded.parquet         runs of words that must not occur (EXCLUDED_SCHEMA)
    pieces/<part>.parquet    usable units of a part (PIECE_SCHEMA), counts in the file's metadata
    hashes/<part>.parquet    hashes of its documents and units, sorted (HASH_SCHEMA)
    parts.json               all parts with their counts, once the whole text is cut
    repeated/<range>.parquet documents and units of a range of hashes that occurred before (REPEATED_SCHEMA)
    units/<part>.parquet     kept units with their neighbours (CUT_SCHEMA), counts in the file's metadata
    embeddings/<part>.npy    [n, d], of the same rows
    runs/<run>.parquet       units of a few parts, sorted by split and cluster
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from supmer import storage
from supmer.corpus.unit import Embeddings

WORK = "work"
COUNTS_KEY = b"supmer.counts"

HASH_ROW_GROUP = 1024
"""Rows read at least for one range of hashes, or for one part of what is repeated."""


@dataclass(frozen=True)
class Part:
    """A part of the corpus after a stage: its id, the units left, counts of what was (not) kept, and seconds by stage."""

    name: str
    num_units: int
    counts: dict[str, int]
    seconds: dict[str, float]


class Workspace:
    """Paths and formats of the intermediate files of one store."""

    def __init__(self, store_uri: str) -> None:
        self.uri = storage.join(store_uri, WORK)

    def delete(self) -> None:
        """Delete all intermediate files."""
        storage.delete_folder(self.uri)

    def has_excluded(self) -> bool:
        return storage.exists(self._excluded)

    def write_excluded(self, table: pa.Table) -> None:
        write_table(self._excluded, table)

    def read_excluded(self) -> pa.Table:
        return read_table(self._excluded)

    def finished_pieces(self, part: str) -> Counter[str] | None:
        """Return the counts of a part that is cut already, else None."""
        return read_counts(self._pieces(part))

    def write_pieces(self, part: str, pieces: pa.Table, hashes: pa.Table, counts: Counter[str]) -> None:
        groups = [min(HASH_ROW_GROUP, len(hashes) - start) for start in range(0, len(hashes), HASH_ROW_GROUP)]
        write_table(self._hashes(part), hashes, groups)
        write_table(self._pieces(part), with_counts(pieces, counts))

    def read_pieces(self, part: str) -> pa.Table:
        return read_table(self._pieces(part))

    def read_hashes(self, part: str, low: int, high: int) -> pa.Table:
        """Return the hashes in [low, high) of a part; only the row groups that hold some are read."""
        wanted = (pc.field("key") >= pa.scalar(low, pa.uint64())) & (pc.field("key") <= pa.scalar(high - 1, pa.uint64()))
        return read_table(self._hashes(part), filters=wanted)

    def finished_parts(self) -> list[Part] | None:
        """Return all parts if the whole text is cut, else None."""
        if not storage.exists(self._parts):
            return None
        return [Part(**values) for values in json.loads(storage.read_bytes(self._parts))]

    def write_parts(self, parts: list[Part]) -> None:
        storage.write_bytes(self._parts, json.dumps([asdict(part) for part in parts]).encode())

    def has_repeated(self, number: int) -> bool:
        return storage.exists(self._repeated(number))

    def write_repeated(self, number: int, table: pa.Table) -> None:
        groups = [min(HASH_ROW_GROUP, len(table) - start) for start in range(0, len(table), HASH_ROW_GROUP)]
        write_table(self._repeated(number), table, groups)

    def read_repeated(self, number: int, part: int) -> pa.Table:
        """Return the rows of a part, given by its number, in a range of hashes."""
        return read_table(self._repeated(number), filters=pc.field("part") == pa.scalar(part, pa.int32()))

    def finished_units(self, part: str) -> Counter[str] | None:
        """Return the counts of a part whose neighbours are linked already, else None."""
        return read_counts(self._units(part))

    def write_units(self, part: str, units: pa.Table, counts: Counter[str]) -> None:
        write_table(self._units(part), with_counts(units, counts))

    def read_units(self, part: str, columns: list[str] | None = None) -> pa.Table:
        return read_table(self._units(part), columns=columns)

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

    @property
    def _excluded(self) -> str:
        return storage.join(self.uri, "excluded.parquet")

    @property
    def _parts(self) -> str:
        return storage.join(self.uri, "parts.json")

    def _pieces(self, part: str) -> str:
        return storage.join(self.uri, "pieces", f"{part}.parquet")

    def _hashes(self, part: str) -> str:
        return storage.join(self.uri, "hashes", f"{part}.parquet")

    def _repeated(self, number: int) -> str:
        return storage.join(self.uri, "repeated", f"{number:06d}.parquet")

    def _units(self, part: str) -> str:
        return storage.join(self.uri, "units", f"{part}.parquet")

    def _embeddings(self, part: str) -> str:
        return storage.join(self.uri, "embeddings", f"{part}.npy")


def with_counts(table: pa.Table, counts: Counter[str]) -> pa.Table:
    """Return the table with counts in its metadata."""
    return table.replace_schema_metadata({COUNTS_KEY: json.dumps(counts).encode()})


def read_counts(uri: str) -> Counter[str] | None:
    """Return the counts in a file's metadata, or None if there is no file."""
    if not storage.exists(uri):
        return None
    filesystem, path = storage.resolve(uri)
    return Counter(json.loads(pq.read_schema(path, filesystem=filesystem).metadata[COUNTS_KEY]))


def read_table(uri: str, **options: Any) -> pa.Table:
    """Return the rows of one Parquet file; `options` are those of `pyarrow.parquet.read_table`."""
    filesystem, path = storage.resolve(uri)
    return pq.read_table(path, filesystem=filesystem, partitioning=None, **options)


def write_table(uri: str, table: pa.Table, row_groups: list[int] | None = None) -> None:
    """Write a table of moderate size as Parquet, whole or not at all, with row groups of the given numbers of rows."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        start = 0
        for rows in row_groups or [table.num_rows]:
            writer.write_table(table.slice(start, rows), row_group_size=max(rows, 1))
            start += rows
    storage.write_bytes(uri, sink.getvalue())
