"""A vocabulary and stores of made-up units for tests of the tasks; stores in memory, or written as the corpus does.

Fixed tokens are below 100, text is from 100 on, and the first token of every unit of `synthetic_store` (from 1000 on) is
its own, so that a row tells which units it shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from supmer.corpus.manifest import CENTROIDS, SCHEMA_VERSION, SPLITS, Manifest, Split, StoredFile, write_manifest
from supmer.corpus.store import UNIT_SCHEMA
from supmer.corpus.tables import even_row_groups, write_table
from supmer.corpus.topics import TopicWord
from supmer.corpus.unit import TokenIds, Unit
from supmer.tasks.vocabulary import TaskVocabulary


def made_up_vocabulary() -> TaskVocabulary:
    """A vocabulary in which the word `maybe` and the letter C take two tokens."""
    first, second = 2, 3
    words = [[4], [5], [6, 7]]
    letters = [[10 + number] if number != 2 else [12, 7] for number in range(8)]
    return TaskVocabulary(
        start=_ids(),
        pair_middle=_ids(first),
        pair_end=_ids(),
        placeholder=1,
        pair_targets=tuple(_ids(first, *word, second) for word in words),
        letter_targets=tuple(_ids(first, *letter, second) for letter in letters),
        letter_marks=tuple(_ids(*letter, 8) for letter in letters),
        question_mark=_ids(9),
        full_stop=_ids(8, 8),
        ending=_ids(9, 20, 21, first),
        topic_endings=(_ids(22, first), _ids(23, 24, first)),
        label_start=_ids(first),
        label_end=_ids(second),
    )


def _ids(*values: int) -> TokenIds:
    return np.array(values, dtype=np.int32)


class MemoryStore:
    """Units in lists by split and cluster; `sample_units` keeps the contract of `UnitStore`."""

    def __init__(self, units: Mapping[Split, Sequence[Unit]]) -> None:
        self._units: dict[Split, dict[int, list[Unit]]] = {}
        for split, listed in units.items():
            by_cluster: dict[int, list[Unit]] = defaultdict(list)
            for unit in listed:
                by_cluster[unit.cluster].append(unit)
            self._units[split] = dict(sorted(by_cluster.items()))

    def clusters(self, split: Split) -> list[int]:
        return list(self._units[split])

    def size(self, split: Split, cluster: int) -> int:
        return len(self._units[split][cluster])

    def topic_words(self, cluster: int) -> list[TopicWord]:
        """Two made-up words for all clusters but the last; a form of each is a token of many sentences."""
        if cluster == 7:
            return []
        return [TopicWord("word", number, (number, number + 50)) for number in (100 + cluster, 120 + cluster)]

    def sample_units(self, split: Split, cluster: int, rng: np.random.Generator, count: int) -> list[Unit]:
        units = self._units[split][cluster]
        chosen = rng.choice(len(units), size=min(count, len(units)), replace=False)
        return [units[index] for index in chosen]

    def all_units(self, split: Split) -> list[Unit]:
        return [unit for units in self._units[split].values() for unit in units]


def units_of(document: str, texts: Sequence[TokenIds], clusters: Sequence[int], rng: np.random.Generator) -> list[Unit]:
    """Cut a document into units with all their neighbours, as the corpus does."""
    units = []
    for position, tokens in enumerate(texts):
        far = [other for other in range(len(texts)) if abs(other - position) > 1]
        elsewhere = int(rng.choice(far)) if far else -1
        units.append(
            Unit(
                document=document,
                position=position,
                cluster=clusters[position],
                tokens=tokens,
                before=texts[position - 1] if position > 0 else None,
                after=texts[position + 1] if position + 1 < len(texts) else None,
                elsewhere=texts[elsewhere] if far else None,
                elsewhere_position=elsewhere,
            )
        )
    return units


def synthetic_store(num_documents: int = 60, num_clusters: int = 8, max_tokens: int = 30, seed: int = 0) -> MemoryStore:
    """A store of documents of 5 to 39 units in random clusters; every fourth document is for validation."""
    rng = np.random.default_rng(seed)
    units: dict[Split, list[Unit]] = {"train": [], "validation": []}
    next_token = 1000
    for number in range(num_documents):
        lengths = rng.integers(1, max_tokens + 1, size=rng.integers(5, 40))
        texts = [rng.integers(100, 1000, size=length).astype(np.int32) for length in lengths]
        for text in texts:
            text[0] = next_token
            next_token += 1
        clusters = rng.integers(num_clusters, size=len(texts)).tolist()
        split: Split = "validation" if number % 4 == 0 else "train"
        units[split] += units_of(f"document-{number}", texts, clusters, rng)
    return MemoryStore(units)


def write_store(store: MemoryStore, folder: Path, num_clusters: int = 8, rows_per_group: int = 64) -> str:
    """Write the units as a task store and return its address."""
    rng = np.random.default_rng(0)
    files = []
    for split in SPLITS:
        for cluster in store.clusters(split):
            units = store.sample_units(split, cluster, rng, store.size(split, cluster))
            table = pa.Table.from_pylist([asdict(unit) | {"text": ""} for unit in units], schema=UNIT_SCHEMA)
            path = f"split={split}/cluster={cluster:05d}/part-00000.parquet"
            groups = even_row_groups(table.num_rows, rows_per_group)
            write_table(str(folder / path), table, groups)
            files.append(StoredFile(split=split, cluster=cluster, path=path, row_groups=groups))
    save_file({"centroids": np.eye(num_clusters, 4, dtype=np.float32)}, str(folder / CENTROIDS))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="made-up",
        inputs={},
        embeddings="",
        counts={},
        d_model=4,
        min_cluster_size=1,
        inertia=0,
        merged_from=[[cluster] for cluster in range(num_clusters)],
        silhouette=None,
        nearest=[[] for _ in range(num_clusters)],
        typical_words=[[] for _ in range(num_clusters)],
        files=files,
    )
    write_manifest(str(folder), manifest)
    return str(folder)
