"""A unit of text, as the corpus cuts it, the store keeps it and the tasks use it (section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]
Embeddings = npt.NDArray[np.float32]


class UnitKey(NamedTuple):
    """Identity of a unit of text in the corpus."""

    document: str
    position: int


@dataclass(frozen=True, eq=False)
class Unit:
    """One sentence (or paragraph) of a cluster, with the neighbours that the next-sentence tasks need.

    Positions number the units of a document that were kept. `before` and `after` are the units at `position - 1` and
    `position + 1`; `elsewhere` is a random unit of the same document that is not adjacent to this one (it is at
    `elsewhere_position`, -1 if there is none). Each is None where there is none.
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
