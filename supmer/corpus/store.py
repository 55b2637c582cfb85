"""The task store as episodes read it: units by cluster, a few row groups at a time.

Layout: ``manifest.json``, ``centroids.safetensors`` and ``split=<split>/cluster=<cluster>/part-<n>.parquet``. The rows of
a cluster are shuffled once, when the store is written, so that any row group is a random sample of its cluster.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load as load_safetensors

from supmer import storage
from supmer.corpus.manifest import CENTROIDS, Manifest, Split, read_manifest
from supmer.corpus.unit import TokenIds, Unit

TOKENS = pa.list_(pa.int32())

UNIT_SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("position", pa.int32()),
        ("text", pa.string()),
        ("tokens", TOKENS),
        ("before", TOKENS),
        ("after", TOKENS),
        ("elsewhere", TOKENS),
        ("elsewhere_position", pa.int32()),
    ]
)
"""Columns of the store's files; see `supmer.corpus.unit.Unit`. `before`, `after` and `elsewhere` may be null."""

CACHED_ROW_GROUPS = 512
CACHED_FOOTERS = 2048


@dataclass(frozen=True)
class _RowGroup:
    path: str
    index: int
    num_rows: int


class TaskStore:
    """Read access to a complete store. Opening it reads the manifest and the centroids only."""

    def __init__(self, uri: str, manifest: Manifest, centroids: npt.NDArray[np.float32], cached_row_groups: int) -> None:
        self.uri = uri
        self.manifest = manifest
        self.centroids = centroids
        self._groups: dict[tuple[str, int], list[_RowGroup]] = defaultdict(list)
        for file in manifest.files:
            groups = [_RowGroup(file.path, index, rows) for index, rows in enumerate(file.row_groups)]
            self._groups[file.split, file.cluster] += groups
        self._read = lru_cache(cached_row_groups)(self._read_row_group)
        self._footer = lru_cache(CACHED_FOOTERS)(self._read_footer)

    @classmethod
    def open(cls, uri: str, cached_row_groups: int = CACHED_ROW_GROUPS) -> TaskStore:
        """Open a store; at most `cached_row_groups` row groups (of about 256 units) are kept in memory.

        Raises:
            UserError: there is no complete store, or it is of another schema version.
        """
        manifest = read_manifest(uri)
        centroids = load_safetensors(storage.read_bytes(storage.join(uri, CENTROIDS)))["centroids"]
        assert centroids.shape == (manifest.num_clusters, manifest.d_model)
        return cls(uri, manifest, centroids, cached_row_groups)

    def clusters(self, split: Split) -> list[int]:
        """Return the clusters that can host an episode in this split (at least `manifest.min_cluster_size` units)."""
        smallest = self.manifest.min_cluster_size
        return [cluster for cluster in range(self.manifest.num_clusters) if self.size(split, cluster) >= smallest]

    def size(self, split: Split, cluster: int) -> int:
        """Return the number of units of a cluster in a split."""
        return sum(group.num_rows for group in self._groups.get((split, cluster), ()))

    def sample_units(self, split: Split, cluster: int, rng: np.random.Generator, count: int) -> list[Unit]:
        """Return `count` distinct random units of a cluster, in random order; all of them if it has fewer.

        They come from as few random row groups as hold `count` units. The result depends on the store, the arguments and
        the state of `rng` only.
        """
        groups = self._groups.get((split, cluster), [])
        chosen, total = [], 0
        for index in rng.permutation(len(groups)):
            if total >= count:
                break
            chosen.append(groups[index])
            total += groups[index].num_rows
        rows = [(group, row) for group in chosen for row in range(group.num_rows)]
        picked = rng.permutation(total)[:count]
        return [self._unit(cluster, *rows[index]) for index in picked]

    def _unit(self, cluster: int, group: _RowGroup, row: int) -> Unit:
        table = self._read(group)
        return Unit(
            document=table["document"][row].as_py(),
            position=table["position"][row].as_py(),
            cluster=cluster,
            tokens=_token_ids(table["tokens"], row),
            before=_optional_token_ids(table["before"], row),
            after=_optional_token_ids(table["after"], row),
            elsewhere=_optional_token_ids(table["elsewhere"], row),
            elsewhere_position=table["elsewhere_position"][row].as_py(),
        )

    def _read_row_group(self, group: _RowGroup) -> dict[str, pa.Array]:
        filesystem, path = storage.resolve(storage.join(self.uri, group.path))
        columns = [name for name in UNIT_SCHEMA.names if name != "text"]
        with filesystem.open_input_file(path) as stream:
            table = pq.ParquetFile(stream, metadata=self._footer(group.path)).read_row_group(group.index, columns=columns)
        return {name: table[name].combine_chunks() for name in columns}

    def _read_footer(self, name: str) -> pq.FileMetaData:
        filesystem, path = storage.resolve(storage.join(self.uri, name))
        return pq.read_metadata(path, filesystem=filesystem)


def _token_ids(column: pa.ListArray, row: int) -> TokenIds:
    start, stop = column.offsets[row].as_py(), column.offsets[row + 1].as_py()
    ids: TokenIds = column.values.slice(start, stop - start).to_numpy(zero_copy_only=False).astype(np.int32)
    return ids


def _optional_token_ids(column: pa.ListArray, row: int) -> TokenIds | None:
    return _token_ids(column, row) if column[row].is_valid else None
