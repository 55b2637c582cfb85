"""Episodes as rows of an Arrow table, so that they travel between processes without pickle."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from supmer.corpus.unit import UnitKey
from supmer.tasks.episode import NO_CENTROID, Episode, Example

IDS = pa.list_(pa.int32())

EPISODE_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("step", pa.int64()),
        ("slot", pa.int32()),
        ("clusters", IDS),
        ("augmentation_clusters", IDS),
        ("set_sizes", IDS),
        ("labels", IDS),
        ("input_lengths", IDS),
        ("input_ids", IDS),
        ("centroid_positions", IDS),
        ("centroids", IDS),
        ("target_lengths", IDS),
        ("target_ids", IDS),
        ("num_sources", IDS),
        ("source_documents", IDS),
        ("source_positions", IDS),
        ("documents", pa.list_(pa.string())),
    ]
)
"""One episode a row. `set_sizes` are the rows of support, query and augmentation; the rows of the three sets follow each
other in every other list. `centroid_positions` index `input_ids`; `source_documents` index `documents`."""

Columns = dict[str, Any]


def encode(episodes: Iterable[Episode]) -> pa.Table:
    """Return a table of `EPISODE_SCHEMA` with a row for each episode."""
    return pa.Table.from_pylist([_to_columns(episode) for episode in episodes], schema=EPISODE_SCHEMA)


def decode(table: pa.Table) -> list[Episode]:
    """Return the episodes of a table made by `encode`."""
    lists = {name: _row_values(table[name]) for name in EPISODE_SCHEMA.names}
    return [_from_columns({name: lists[name][row] for name in lists}) for row in range(table.num_rows)]


def _to_columns(episode: Episode) -> Columns:
    sets = (episode.support, episode.query, episode.augmentation)
    rows = [row for one_set in sets for row in one_set]
    centroids = np.concatenate([row.centroid_ids for row in rows])
    positions = np.flatnonzero(centroids != NO_CENTROID)
    keys = [sorted(row.sources) for row in rows]
    documents = sorted({key.document for listed in keys for key in listed})
    number = {document: index for index, document in enumerate(documents)}
    return {
        "kind": episode.kind,
        "step": episode.step,
        "slot": episode.slot,
        "clusters": list(episode.clusters),
        "augmentation_clusters": list(episode.augmentation_clusters),
        "set_sizes": [len(one_set) for one_set in sets],
        "labels": [row.label for row in rows],
        "input_lengths": [len(row.input_ids) for row in rows],
        "input_ids": np.concatenate([row.input_ids for row in rows]),
        "centroid_positions": positions,
        "centroids": centroids[positions],
        "target_lengths": [len(row.target_ids) for row in rows],
        "target_ids": np.concatenate([row.target_ids for row in rows]),
        "num_sources": [len(listed) for listed in keys],
        "source_documents": [number[key.document] for listed in keys for key in listed],
        "source_positions": [key.position for listed in keys for key in listed],
        "documents": documents,
    }


def _from_columns(values: Columns) -> Episode:
    centroid_ids = np.full(len(values["input_ids"]), NO_CENTROID, dtype=np.int32)
    centroid_ids[values["centroid_positions"]] = values["centroids"]
    documents = values["documents"]
    keys = [
        UnitKey(documents[document], position)
        for document, position in zip(values["source_documents"].tolist(), values["source_positions"].tolist(), strict=True)
    ]
    rows = [
        Example(input_ids=inputs, centroid_ids=centroids, target_ids=target, label=label, sources=frozenset(sources))
        for inputs, centroids, target, label, sources in zip(
            _cut(values["input_ids"], values["input_lengths"]),
            _cut(centroid_ids, values["input_lengths"]),
            _cut(values["target_ids"], values["target_lengths"]),
            values["labels"].tolist(),
            _cut(keys, values["num_sources"]),
            strict=True,
        )
    ]
    support, query, augmentation = _cut(tuple(rows), values["set_sizes"])
    return Episode(
        kind=values["kind"],
        step=values["step"],
        slot=values["slot"],
        clusters=tuple(values["clusters"].tolist()),
        augmentation_clusters=tuple(values["augmentation_clusters"].tolist()),
        support=support,
        query=query,
        augmentation=augmentation,
    )


def _row_values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values: int32 arrays for lists of ids, else Python objects."""
    if column.type != IDS:
        values: list[Any] = column.to_pylist()
        return values
    return [array for chunk in column.chunks for array in _id_lists(chunk)]


def _id_lists(chunk: pa.ListArray) -> list[npt.NDArray[np.int32]]:
    # A copy, because memory of the object store is read-only and stays pinned while a view of it lives.
    ids = np.array(chunk.values.to_numpy(), dtype=np.int32)
    return [ids[start:stop] for start, stop in pairwise(chunk.offsets.to_numpy().tolist())]


def _cut(values: Any, lengths: npt.NDArray[np.int32]) -> list[Any]:
    """Cut a sequence into pieces of the given lengths."""
    return [values[start:stop] for start, stop in pairwise(accumulate(lengths.tolist(), initial=0))]
