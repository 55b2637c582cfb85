"""An in-memory store of units for tests of the tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from supmer.corpus.manifest import Split
from supmer.corpus.unit import TokenIds, Unit

Document = tuple[str, Sequence[TokenIds]]


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
    """A store whose first token of every unit is unique to it (from 1000 on), a tenth of the documents for validation."""
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
