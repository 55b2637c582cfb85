"""What an episode is made of: units of text from the store, rows for the model, and the episode itself (section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from supmer.config import TaskKind

TokenIds = npt.NDArray[np.int32]

NO_CENTROID = -1
"""Value of `Example.centroid_ids` where the input is an ordinary token."""


class UnitKey(NamedTuple):
    """Identity of a unit of text in the corpus."""

    document: str
    position: int


@dataclass(frozen=True, eq=False)
class Unit:
    """One sentence (or paragraph) of a cluster, with the neighbours that the next-sentence tasks need.

    `before` and `after` are the units at `position - 1` and `position + 1` of the same document; `elsewhere` is a unit of
    the same document that is adjacent to none of these (at `elsewhere_position`). Each is None where there is none.
    """

    document: str
    position: int
    cluster: int
    tokens: TokenIds
    before: TokenIds | None = None
    after: TokenIds | None = None
    elsewhere: TokenIds | None = None
    elsewhere_position: int = -1

    @property
    def key(self) -> UnitKey:
        return UnitKey(self.document, self.position)


@dataclass(frozen=True, eq=False)
class Example:
    """One row: encoder input and decoder target.

    `input_ids` [S] are token ids without prompt, padding or end-of-sequence token. Where `centroid_ids` [S] holds a cluster
    (not NO_CENTROID), that position's input embedding is the cluster's centroid instead of the token's. `target_ids` [D] is
    ``<X> LABEL <Y>``; `label` is the class index within the row's format. `sources` names the units the row shows.
    """

    input_ids: TokenIds
    centroid_ids: TokenIds
    target_ids: TokenIds
    label: int
    sources: frozenset[UnitKey] = field(default_factory=frozenset)


@dataclass(frozen=True, eq=False)
class Episode:
    """One meta-task: support, query and augmentation rows of one kind (augmentation from another domain).

    `clusters` and `augmentation_clusters` are the domains they were drawn from (one cluster; for `scc` the classes).
    `step` and `slot` say which place in which meta-batch the episode fills.
    """

    kind: TaskKind
    step: int
    slot: int
    clusters: tuple[int, ...]
    augmentation_clusters: tuple[int, ...]
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    augmentation: tuple[Example, ...]
