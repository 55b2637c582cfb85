"""Rows for the model and the episodes made of them (section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from supmer.config import TaskKind
from supmer.corpus.unit import TokenIds, UnitKey

NO_CENTROID = -1
"""Value of `Example.centroid_ids` where the input is an ordinary token."""


@dataclass(frozen=True, eq=False)
class Example:
    """One row: encoder input and decoder target.

    `input_ids` [S] are token ids without prompt, padding or end-of-sequence token. Where `centroid_ids` [S] holds a cluster
    (not NO_CENTROID), that position's input embedding is the cluster's centroid instead of the token's. `target_ids` [D] is
    ``<X> LABEL <Y>``; `label` is the class index within the row's format. `sources` names the units the row shows.

    >>> import numpy as np
    >>> ids, target = np.array([5, 6, 32099], np.int32), np.array([32099, 4273, 32098], np.int32)
    >>> Example(ids, np.full(3, NO_CENTROID, np.int32), target, label=0).label
    0
    """

    input_ids: TokenIds
    centroid_ids: TokenIds
    target_ids: TokenIds
    label: int
    sources: frozenset[UnitKey] = field(default_factory=frozenset)


@dataclass(frozen=True, eq=False)
class Episode:
    """One meta-task: support, query and augmentation rows of one kind (augmentation from another domain).

    No sentence is in two of the three sets. `clusters` and `augmentation_clusters` are the domains they were drawn from: one
    cluster, for `scc` the classes in the order of their letters. `step` and `slot` say which place in which meta-batch the
    episode fills; the fixed validation episodes of a kind are numbered by `slot` at step 0.

    >>> Episode("nsp", step=3, slot=0, clusters=(7,), augmentation_clusters=(9,), support=(), query=(), augmentation=()).kind
    'nsp'
    """

    kind: TaskKind
    step: int
    slot: int
    clusters: tuple[int, ...]
    augmentation_clusters: tuple[int, ...]
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    augmentation: tuple[Example, ...]
