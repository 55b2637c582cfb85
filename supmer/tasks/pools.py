"""Choosing the clusters of an episode and drawing the units of its sets from a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

import numpy as np

from supmer.config import TaskKind, TasksConfig
from supmer.corpus.topics import TopicWord
from supmer.corpus.unit import Unit, UnitKey
from supmer.tasks.disjoint import itself, split_disjoint, with_neighbours
from supmer.tasks.generators import UnitPool

if TYPE_CHECKING:  # reads files, by pyarrow
    from supmer.corpus.manifest import Split

MAX_OTHER_CLUSTERS = 8
"""Clusters that the wrong sentences of an episode's `scsp` and `scss` rows come from: bounds the reads of an episode."""


class UnitStore(Protocol):
    """Units of text by split and cluster. The splits hold different documents."""

    def clusters(self, split: Split) -> list[int]:
        """Return the clusters that have units in the split, ascending."""

    def size(self, split: Split, cluster: int) -> int:
        """Return the number of units of the cluster in the split."""

    def topic_words(self, cluster: int) -> Sequence[TopicWord]:
        """Return the words that label the cluster in `ctw`, none if it has none of its own."""

    def sample_units(self, split: Split, cluster: int, rng: np.random.Generator, count: int) -> list[Unit]:
        """Return `count` different units drawn with `rng`, or all of the cluster where it has fewer."""


@dataclass(frozen=True)
class KindNeeds:
    """Units that one row of a kind takes from its domain and from other clusters, and clusters of a domain.

    `neighbours`: a row shows units next to its own. `words`: clusters need topic words.
    """

    units_per_row: float
    others_per_row: float = 0.0
    num_clusters: int = 1
    neighbours: bool = False
    words: bool = False


def kind_needs(kind: TaskKind, tasks: TasksConfig, num_options: int) -> KindNeeds:
    """Return what a kind needs; the units are those that make all sentences of a set different."""
    needs: dict[TaskKind, KindNeeds] = {
        "nsp": KindNeeds(units_per_row=4 / 3, neighbours=True),
        "nss": KindNeeds(units_per_row=max(2, num_options - 1), neighbours=True),
        "scsp": KindNeeds(units_per_row=1.5, others_per_row=0.5),
        "scss": KindNeeds(units_per_row=2, others_per_row=tasks.num_options - 1),
        "scc": KindNeeds(units_per_row=1, num_clusters=tasks.num_options),
        "ctw": KindNeeds(units_per_row=1.5, num_clusters=tasks.num_topics, words=True),
    }
    return needs[kind]


@dataclass(frozen=True)
class PoolDraw:
    """Draws of one episode: one kind, split (with the sizes of its clusters), number of options and random generator."""

    store: UnitStore
    split: Split
    sizes: Mapping[int, int]
    needs: KindNeeds
    num_options: int
    rng: np.random.Generator

    def domains(self, set_sizes: Sequence[int], other_than: Collection[int]) -> Iterator[tuple[int, ...]]:
        """Yield domains large enough for the sets in random order: single clusters, for `scc` disjoint class sets."""
        group = self.needs.num_clusters
        order = self._shuffled_clusters(other_than, min_units=sum(self._per_cluster(set_sizes)))
        for start in range(0, len(order) - group + 1, group):
            yield tuple(order[start : start + group])

    def pools(
        self, clusters: tuple[int, ...], set_sizes: Sequence[int], taken: Collection[UnitKey], overdraw: float
    ) -> list[UnitPool]:
        """Return a pool for each set (given by its number of rows), no two of which share a sentence, nor show a taken one.

        `overdraw` multiplies the number of units that the sets would show if no unit were unsuitable.
        """
        num_rows = overdraw * sum(set_sizes)
        shown = with_neighbours if self.needs.neighbours else itself
        units: list[list[Unit]] = [[] for _ in set_sizes]
        for cluster in clusters:
            sampled = self._sample([cluster], num_rows * self.needs.units_per_row / len(clusters))
            for own, dealt in zip(units, split_disjoint(sampled, self._per_cluster(set_sizes), shown, taken), strict=True):
                own += dealt
        others: list[list[Unit]] = [[] for _ in set_sizes]
        if self.needs.others_per_row:
            elsewhere = self._shuffled_clusters(clusters, min_units=1)[:MAX_OTHER_CLUSTERS]
            others = split_disjoint(self._sample(elsewhere, num_rows * self.needs.others_per_row), set_sizes, itself, taken)
        return [UnitPool(clusters, *lists) for lists in zip(units, others, strict=True)]

    def _per_cluster(self, set_sizes: Sequence[int]) -> list[int]:
        """Return the rows of each set that show one cluster of the domain, at most."""
        return [ceil(size / self.needs.num_clusters) for size in set_sizes]

    def _shuffled_clusters(self, other_than: Collection[int], min_units: int) -> list[int]:
        able = [cluster for cluster, size in self.sizes.items() if size >= min_units and cluster not in other_than]
        return [able[index] for index in self.rng.permutation(len(able))]

    def _sample(self, clusters: Sequence[int], num_units: float) -> list[Unit]:
        """Draw about `num_units` units evenly from `clusters`, in random order."""
        units: list[Unit] = []
        for cluster in clusters:
            units += self.store.sample_units(self.split, cluster, self.rng, ceil(num_units / len(clusters)))
        return [units[index] for index in self.rng.permutation(len(units))]
