"""The task store as episodes read it: units by cluster, a few row groups at a time.

Layout: ``manifest.json``, ``centroids.safetensors`` and ``split=<split>/cluster=<cluster>/part-<n>.parquet``. The rows of
a cluster are shuffled once, when the store is written, so that any row group is a random sample of its cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from supmer import storage
from supmer.corpus.manifest import CENTROIDS, Manifest, Split, read_manifest
from supmer.corpus.topics import TopicWord
from supmer.corpus.unit import Unit
from supmer.errors import UserError, one_line

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

TOKEN_COLUMNS = ("tokens", "before", "after", "elsewhere")

CACHED_ROW_GROUPS = 512
CACHED_FOOTERS = 2048


class _RowGroup(NamedTuple):
    path: str
    number: int
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

        @lru_cache(CACHED_FOOTERS)
        def footer(name: str) -> pq.FileMetaData:
            filesystem, path = storage.resolve(storage.join(uri, name))
            return pq.read_metadata(path, filesystem=filesystem)

        self._footer = footer

    @classmethod
    def open(cls, uri: str, cached_row_groups: int = CACHED_ROW_GROUPS) -> TaskStore:
        """Open a store; at most `cached_row_groups` row groups (of about 256 units) are kept in memory.

        Raises:
            UserError: there is no complete store, it is of another schema version, or a file is damaged.
        """
        manifest = read_manifest(uri)
        with _readable(uri, CENTROIDS):
            centroids = load_safetensors(storage.read_bytes(storage.join(uri, CENTROIDS)))["centroids"]
            if centroids.shape != (manifest.num_clusters, manifest.d_model) or not np.isfinite(centroids).all():
                raise ValueError(f"centroids of shape {centroids.shape} are not those of the manifest")
        return cls(uri, manifest, centroids, cached_row_groups)

    def clusters(self, split: Split) -> list[int]:
        """Return the clusters that can host an episode in this split (at least `manifest.min_cluster_size` units)."""
        smallest = self.manifest.min_cluster_size
        return [cluster for cluster in range(self.manifest.num_clusters) if self.size(split, cluster) >= smallest]

    def size(self, split: Split, cluster: int) -> int:
        """Return the number of units of a cluster in a split."""
        return sum(group.num_rows for group in self._groups.get((split, cluster), ()))

    def topic_words(self, cluster: int) -> list[TopicWord]:
        """Return the words that label the cluster in `ctw`, none if it has none of its own."""
        words = self.manifest.topic_words
        return words[cluster] if words else []

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
        units = []
        for index in rng.permutation(total)[:count]:
            group, row = rows[index]
            documents, positions, elsewhere_positions, lists = self._read(group)
            # Token ids are cut from flat arrays, without a copy.
            tokens: dict[str, Any] = {
                name: values[offsets[row] : offsets[row + 1]] if is_valid[row] else None
                for name, (values, offsets, is_valid) in lists.items()
            }
            position, elsewhere_position = int(positions[row]), int(elsewhere_positions[row])
            units.append(Unit(documents[row], position, cluster, elsewhere_position=elsewhere_position, **tokens))
        return units

    def _read_row_group(self, group: _RowGroup) -> tuple[Any, ...]:
        """Return documents, positions, elsewhere_positions, and columns of tokens as values, offsets and validity."""
        filesystem, path = storage.resolve(storage.join(self.uri, group.path))
        columns = [name for name in UNIT_SCHEMA.names if name != "text"]
        with _readable(self.uri, group.path), filesystem.open_input_file(path) as stream:
            file = pq.ParquetFile(stream, metadata=self._footer(group.path), page_checksum_verification=True)
            table = file.read_row_group(group.number, columns=columns)
            if table.num_rows != group.num_rows:
                raise ValueError(f"{table.num_rows} rows, {group.num_rows} in the manifest")
            lists = {}
            for name in TOKEN_COLUMNS:
                column = table[name].combine_chunks()
                is_valid = column.is_valid().to_numpy(zero_copy_only=False)
                lists[name] = (column.values.to_numpy(), column.offsets.to_numpy(), is_valid)
            numbers = (table[name].to_numpy() for name in ("position", "elsewhere_position"))
            return (table["document"].to_pylist(), *numbers, lists)


@contextmanager
def _readable(uri: str, name: str) -> Iterator[None]:
    """Turn whatever a missing or damaged file raises into one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, IndexError, NotImplementedError, MemoryError, SafetensorError) as error:
        told = storage.reason(error) if isinstance(error, OSError) else one_line(error)[:300]
        raise UserError(f"store {uri}: {name} cannot be read ({told}); prepare the store again if it is damaged") from error
